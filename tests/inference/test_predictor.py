"""Predictions against those of tools/test.py, from every kind of source and image."""

import ast
import json
import re
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from malicious import Payload
from mmengine.config import Config
from PIL import Image

from fasternet_mm.datasets.shapes import ensure_shapes
from fasternet_mm.deployment.exporter import export
from fasternet_mm.engine import recorded_config as recorded
from fasternet_mm.engine.recorded_config import recorded_config
from fasternet_mm.errors import UserError
from fasternet_mm.inference import Predictor
from fasternet_mm.models.backbone import ImageTooSmall, InvalidArgument


@pytest.fixture(scope='module')
def shapes(root):
    return ensure_shapes(root / 'data' / 'shapes')


@pytest.fixture(scope='module')
def images(shapes):
    return [shapes / f'images/val/000{number}.png' for number in range(6)]


@pytest.fixture(scope='module')
def predictor(detector_dir):
    return Predictor(detector_dir, device='cpu')


@pytest.fixture
def run_test(command, monkeypatch, root):
    def run_test(*args):
        options = ('test_dataloader.dataset.indices=6', 'test_dataloader.num_workers=0')
        options += ('test_dataloader.persistent_workers=False',)
        monkeypatch.chdir(root)
        assert command('test', *args, '--cfg-options', *options).returncode == 0

    return run_test


def same(actual, expected, tolerance=0.0):
    """Whether two lists of predictions are equal, or nearly."""
    assert len(actual) == len(expected)
    for prediction, other in zip(actual, expected):
        assert np.array_equal(prediction.labels, other.labels)
        np.testing.assert_allclose(prediction.boxes, other.boxes, rtol=0, atol=100 * tolerance)
        np.testing.assert_allclose(prediction.scores, other.scores, rtol=0, atol=tolerance)
        for name in ('masks', 'label_map'):
            if getattr(other, name) is not None:
                assert (getattr(prediction, name) != getattr(other, name)).mean() <= tolerance
    return True


# Against tools/test.py


def test_detections_are_those_of_the_test_tool(detector_dir, images, run_test, tmp_path, monkeypatch):
    config = (detector_dir / 'config.py').read_bytes()
    run_test(detector_dir, '--out', tmp_path / 'results.json')
    expected = json.loads((tmp_path / 'results.json').read_text())
    batch_size = Config.fromfile(detector_dir / 'config.py').test_dataloader.batch_size
    predictions = Predictor(detector_dir, batch_size=batch_size)(images)
    ids = sorted({record['image_id'] for record in expected})
    assert len(expected) > 100
    actual = [record for number, prediction in zip(ids, predictions) for record in prediction.to_coco(number)]
    assert actual == sorted(expected, key=lambda record: record['image_id'])
    assert all('segmentation' in record for record in actual)
    # Nor does a test replace what the training left.
    assert (detector_dir / 'config.py').read_bytes() == config
    assert [path.name for path in detector_dir.glob('*.py')] == ['config.py']


def test_label_maps_are_those_of_the_test_tool(segmenter_dir, images, run_test, tmp_path):
    run_test(segmenter_dir, '--out', tmp_path / 'maps')
    predictor = Predictor(segmenter_dir)
    assert predictor.is_segmenter
    for image, prediction in zip(images, predictor.stream(images), strict=True):
        expected = cv2.imread(str(tmp_path / 'maps' / image.name), cv2.IMREAD_UNCHANGED)
        assert prediction.label_map.dtype == np.uint8
        assert np.array_equal(prediction.label_map, expected)
        assert len(np.unique(expected)) > 1
        assert len(prediction) == 0


# Images


def test_one_image_gives_one_prediction_and_several_give_a_list(predictor, images):
    prediction = predictor(images[0])
    pixels = cv2.imread(str(images[0]))
    assert len(prediction) > 10
    assert prediction.source == str(images[0])
    assert prediction.boxes.shape == (len(prediction), 4)
    assert prediction.masks.shape == (len(prediction), 160, 160)
    dtypes = prediction.boxes.dtype, prediction.scores.dtype, prediction.labels.dtype
    assert dtypes == (np.float32, np.float32, np.int64)
    assert prediction.names == [predictor.classes[label] for label in prediction.labels]
    assert np.array_equal(prediction.image, pixels[..., ::-1])
    for source in (str(images[0]), pixels, Image.open(images[0]), images[0].read_bytes()):
        assert same([predictor(source)], [prediction])
    several = [pixels, images[1]]
    for source in (several, tuple(several), iter(several), (image for image in several)):
        assert same(predictor(source), [prediction, predictor(images[1])])
    assert predictor([]) == []


def test_arrays_are_in_the_order_that_is_named(detector_dir, predictor, images):
    pixels = cv2.imread(str(images[0]))
    reads_rgb = Predictor(detector_dir, device='cpu', channel_order='rgb')
    assert same([reads_rgb(pixels[..., ::-1])], [predictor(pixels)])
    assert same([reads_rgb(images[0])], [predictor(images[0])])


def test_images_keep_their_pixels_and_their_own_size(predictor, images):
    large = cv2.resize(cv2.imread(str(images[0])), (250, 310))
    original = large.copy()
    prediction = predictor(large)
    assert np.array_equal(large, original)
    assert prediction.masks.shape[1:] == prediction.image.shape[:2] == (310, 250)
    assert prediction.boxes[:, 3].max() > 160


@pytest.mark.parametrize('batch_size', [2, 3])
def test_batches_of_any_sizes_find_what_single_images_have(detector_dir, segmenter_dir, images, batch_size):
    mixed = [cv2.imread(str(image)) for image in images]
    mixed[2:4] = (cv2.resize(image, size) for image, size in zip(mixed[2:4], [(90, 160), (300, 200)]))
    mixed[4] = cv2.resize(mixed[4], (320, 320))  # the same size as others once it is scaled
    for folder in (detector_dir, segmenter_dir):
        alone, together = (Predictor(folder, device='cpu', batch_size=size) for size in (1, batch_size))
        assert same(together(mixed), alone(mixed), 1e-3)


def test_a_stream_reads_no_further_than_its_batch(detector_dir, images):
    read = []
    predictor = Predictor(detector_dir, device='cpu', batch_size=2)
    stream = predictor.stream(read.append(image) or image for image in images)
    assert not read
    next(stream)
    assert len(read) == 2


def test_what_cannot_be_predicted_is_named_or_left_out(segmenter_dir, images, tmp_path):
    predictor = Predictor(segmenter_dir, device='cpu')
    (tmp_path / 'broken.jpg').write_bytes(b'no image')
    for wrong, message in (
        (tmp_path / 'broken.jpg', 'broken.jpg is not an image'),
        (np.zeros((9, 300, 3), np.uint8), 'image 2: an image of 5x160 pixels (H x W) is too small'),
        (images, 'type list is not read as an image'),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            predictor([images[0], wrong, images[1]])
        broken = []
        actual = list(predictor.stream([images[0], wrong, images[1]], broken))
        assert [prediction.source for prediction in actual] == [str(images[0]), str(images[1])]
        assert message in str(*broken)
    with pytest.raises(UserError, match='type int is not read as an image'):
        predictor(7)
    with pytest.raises(InvalidArgument, match='takes several images'):
        next(predictor.stream(str(images[0])))


def white(shape=(160, 160, 3)):
    return np.full(shape, 255, np.uint8)


@pytest.mark.parametrize('error', [ImageTooSmall, ValueError, RuntimeError, cv2.error, MemoryError])
@pytest.mark.parametrize('batch_size', [1, 2, 5])
def test_an_image_that_the_model_fails_on_takes_no_other(error, batch_size, predictor, images, monkeypatch):
    monkeypatch.setattr(predictor, 'batch_size', batch_size)
    step = type(predictor.model).test_step

    def failing(self, data):
        if any(pixels.min() == 255 for pixels in data['inputs']):
            raise error('too white')
        return step(self, data)

    monkeypatch.setattr(type(predictor.model), 'test_step', failing)
    broken = []
    actual = list(predictor.stream([*images[:3], white(), *images[3:5]], broken))
    assert [prediction.source for prediction in actual] == [str(image) for image in images[:5]]
    is_images = error is ImageTooSmall
    message = 'image 4: too white' if is_images else f'image 4 failed ({error.__name__}: too white)'
    assert [str(failure).replace('cv2.', '') for failure in broken] == [message]
    with pytest.raises(UserError if is_images else error, match='too white'):
        predictor([white()])


def test_a_failure_of_the_pipeline_is_not_the_images(predictor, images, monkeypatch):
    def failing(pixels, source):
        raise KeyError('scale')

    monkeypatch.setattr(predictor, 'pipeline', failing)
    broken = []
    assert list(predictor.stream(images[:1], broken)) == []
    assert [str(failure) for failure in broken] == [f"{images[0]} failed (KeyError: 'scale')"]
    with pytest.raises(KeyError):
        predictor(images[0])


def test_a_batch_that_memory_does_not_hold_is_predicted_one_by_one(predictor, images, monkeypatch):
    monkeypatch.setattr(predictor, 'batch_size', 4)
    step = type(predictor.model).test_step

    def small(self, data):
        if len(data['inputs']) > 1:
            raise torch.OutOfMemoryError('CUDA out of memory.') if hasattr(torch, 'OutOfMemoryError') else RuntimeError
        return step(self, data)

    monkeypatch.setattr(type(predictor.model), 'test_step', small)
    broken = []
    assert [prediction.source for prediction in predictor.stream(images, broken)] == [str(image) for image in images]
    assert broken == []


@pytest.mark.parametrize(('shape', 'left_out'), [((1, 1, 3), 0), ((1, 20000, 3), 1), ((20000, 1, 3), 1)])
def test_images_of_odd_sizes_are_predicted_or_named(shape, left_out, predictor, images):
    broken = []
    actual = list(predictor.stream([images[0], white(shape), images[1]], broken))
    assert (len(actual), len(broken)) == (3 - left_out, left_out)
    assert (actual[0].source, actual[-1].source) == (str(images[0]), str(images[1]))
    message = f'image 2: an image of {shape[0]}x{shape[1]} pixels (H x W) cannot be resized'
    assert all(str(error).startswith(message) for error in broken)


def test_objects_that_are_not_finite_are_left_out_and_said(predictor, images, monkeypatch, logged_warnings):
    expected = predictor(images[0])
    assert len(expected) > 3
    step = type(predictor.model).test_step

    def spoiling(self, data):
        samples = step(self, data)
        samples[0].pred_instances.bboxes[0, 2] = float('nan')
        samples[0].pred_instances.scores[1] = float('inf')
        return samples

    monkeypatch.setattr(type(predictor.model), 'test_step', spoiling)
    actual = predictor(images[0])
    np.testing.assert_array_equal(actual.boxes, expected.boxes[2:])
    assert len(actual.masks) == len(actual.scores) == len(expected) - 2
    assert logged_warnings() == [
        f'{images[0]}: 2 of {len(expected)} objects have a box or score that is not finite: left out'
    ]


def test_many_predictions_leave_nothing_behind(predictor, images):
    """NumPy's memory by tracemalloc; PyTorch's tensors, which it does not see, by their number."""
    import gc

    def tensors():
        gc.collect()
        return sum(isinstance(item, torch.Tensor) for item in gc.get_objects())

    def predict(times):
        for _ in range(times):
            predictor(images[0])

    predict(2)
    before = tensors()
    tracemalloc.start()
    predict(2)
    used = tracemalloc.get_traced_memory()[0]
    predict(6)
    grown = tracemalloc.get_traced_memory()[0] - used
    tracemalloc.stop()
    assert grown < 160 * 160 * 3  # not even one image
    assert tensors() == before


# Sources


def test_a_work_directory_is_its_config_and_checkpoint(detector_dir, predictor, images):
    config, checkpoint = detector_dir / 'config.py', detector_dir / 'epoch_1.pth'
    cfg = Config.fromfile(config)
    for source, weights in ((str(config), str(checkpoint)), (cfg, checkpoint), (detector_dir, checkpoint)):
        assert same([Predictor(source, weights, device='cpu')(images[0])], [predictor(images[0])])


def test_options_change_the_config(detector_dir, images):
    cfg = Config.fromfile(detector_dir / 'config.py')
    for source, checkpoint in ((detector_dir, None), (cfg, detector_dir / 'epoch_1.pth')):
        strict = Predictor(source, checkpoint, device='cpu', cfg_options=['model.test_cfg.rcnn.max_per_img=3'])
        assert len(strict(images[0])) == 3
    assert cfg.model.test_cfg.rcnn.max_per_img == 100  # the user's own config stays as it is
    with pytest.raises(UserError, match='max_per_imgs'):
        Predictor(detector_dir, cfg_options=['model.test_cfg.rcnn.max_per_imgs=3'])


@pytest.mark.parametrize('options', [dict(batch_size=0), dict(channel_order='rbg'), dict(tile=640)])
def test_arguments_that_make_no_sense_are_refused(detector_dir, options):
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        Predictor(detector_dir, **options)


def test_a_config_without_weights_is_refused(detector_dir, detector_cfg):
    for source in (detector_dir / 'config.py', detector_cfg):
        with pytest.raises(UserError, match='alone is not enough: add a checkpoint'):
            Predictor(source)


@pytest.mark.parametrize('kind', ['detector', 'segmenter'])
def test_a_checkpoint_alone_is_enough(kind, request, images):
    folder = request.getfixturevalue(f'{kind}_dir')
    alone, whole = Predictor(folder / 'epoch_1.pth', device='cpu'), Predictor(folder, device='cpu')
    odd = cv2.resize(cv2.imread(str(images[1])), (250, 190))
    assert alone.classes == whole.classes
    assert alone.palette == [(9, 9, 9)] * len(alone.classes)
    assert same(alone([images[0], odd]), whole([images[0], odd]))


@pytest.mark.parametrize('kind', ['detector', 'segmenter'])
def test_an_exported_file_alone_is_enough(kind, request, images, tmp_path):
    folder = request.getfixturevalue(f'{kind}_dir')
    file, config = str(tmp_path / 'net.onnx'), folder / 'config.py'
    export(folder, out=file)
    alone, whole = Predictor(file, device='cpu'), Predictor(config, file, device='cpu')
    odd = cv2.resize(cv2.imread(str(images[1])), (250, 190))
    assert alone.classes == whole.classes
    assert alone.palette == whole.palette
    assert same(alone([images[0], odd]), whole([images[0], odd]))


def test_an_exported_file_of_one_size_gets_that_size(segmenter_dir, images, tmp_path):
    file = str(tmp_path / 'net.onnx')
    export(segmenter_dir, out=file, size=(96, 128))
    predictor = Predictor(file, device='cpu')
    prediction = predictor(cv2.resize(cv2.imread(str(images[0])), (300, 200)))
    assert prediction.label_map.shape == (200, 300)
    assert predictor.model.runtime.description.size == [96, 128]


# A config in a checkpoint is a stranger's


@pytest.mark.parametrize(
    'name',
    ['mask_rcnn_fasternet_s', 'upernet_fasternet_t0', 'fpn_fasternet_t0', 'shapes/mask_rcnn_fasternet_t0_shapes']
    + ['rtmdet_fasternet_t0', 'rtmdet_ins_fasternet_s'],
)
def test_configs_of_this_project_are_read_from_checkpoints(name, root, tmp_path, monkeypatch):
    # MMEngine lays out the text of a config, which takes seconds and changes nothing that is read.
    monkeypatch.setattr('mmengine.config.config.FormatCode', lambda text, **_: (text, True))
    cfg = Config.fromfile(root / f'configs/{name}.py')
    meta = dict(cfg=cfg.pretty_text, dataset_meta=dict(classes=('a', 'b')))
    torch.save(dict(meta=meta, state_dict={}), tmp_path / 'a.pth')
    actual = recorded_config(str(tmp_path / 'a.pth'))
    assert without_training(actual.model) == without_training(cfg.model)
    assert actual.test_dataloader.dataset.metainfo.classes == ('a', 'b')
    resize = next(step for step in cfg.test_dataloader.dataset.pipeline if step.type == 'Resize')
    assert tuple(actual.test_dataloader.dataset.pipeline[1].scale) == tuple(resize.scale)


def without_training(value):
    if isinstance(value, dict):
        return {key: without_training(part) for key, part in value.items() if key not in recorded.LEFT_OUT}
    return [without_training(part) for part in value] if isinstance(value, (list, tuple)) else value


EVIL = "__import__('pathlib').Path('executed').touch()"


@pytest.mark.parametrize(
    'change',
    [
        ('default_scope', EVIL),
        ('default_scope', "'subprocess'"),
        ('model', f'dict(type={EVIL})'),
        ('model', "dict(type='pathlib.Path.touch', self='executed')"),
        ('model', "dict(**dict(type='MaskRCNN'))"),
        ('model.type', "'os.system'"),
        ('model._scope_', "'antigravity'"),
        ('model.test_cfg.rcnn.nms.type', repr(EVIL)),
        ('model.roi_head.bbox_head.loss_cls.class_weight', "'http://127.0.0.1/weights.pkl'"),
        ('model.backbone.arch', repr(EVIL)),
        ('test_dataloader.dataset.pipeline', f'[dict(type={EVIL!r})]'),
        ('test_dataloader.dataset.pipeline', "[dict(type='LoadImageFromFile'), dict(type='Albu'), dict(type='Pack')]"),
        ('other', EVIL),
        ('other', '(lambda: 1)()'),
        ('model', '['),
        ('model', '(' * 500 + ')' * 500),
        ('model', '3'),
    ],
)
def test_nothing_in_a_recorded_config_is_executed(change, detector_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoint = torch.load(detector_dir / 'epoch_1.pth', weights_only=True)
    place, text = change
    checkpoint['meta']['cfg'] = changed(checkpoint['meta']['cfg'], place.split('.'), text)
    torch.save(checkpoint, tmp_path / 'a.pth')
    with pytest.raises(UserError, match='a config that is not read without executing it'):
        Predictor('a.pth', device='cpu')
    assert [path.name for path in tmp_path.iterdir()] == ['a.pth']


def changed(text, place, value):
    """A config's text, with the expression at a place of it replaced."""
    tree = ast.parse(text)
    for statement in tree.body:
        if statement.targets[0].id == place[0]:
            node, field = statement, 'value'
            for part in place[1:]:
                node, field = next((k for k in getattr(node, field).keywords if k.arg == part), None), 'value'
                if node is None:
                    break
            if node is not None:
                setattr(node, field, ast.Name('PLACE'))
                return ast.unparse(tree).replace('PLACE', value)
            parent = statement.value
            for part in place[1:-1]:
                parent = next(k for k in parent.keywords if k.arg == part).value
            parent.keywords.append(ast.keyword(place[-1], ast.Name('PLACE')))
            return ast.unparse(tree).replace('PLACE', value)
    return f'{text}\n{place[0]} = {value}\n'


@pytest.mark.parametrize(
    'meta', [dict(), dict(cfg='model = dict()'), dict(cfg=3, dataset_meta=dict(classes=('a',))), dict(cfg=Payload())]
)
def test_a_checkpoint_that_says_too_little_needs_its_config(meta, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(meta=meta, state_dict={}), 'a.pth')
    with pytest.raises(UserError, match=r'give the config before it|asks to run'):
        Predictor('a.pth')
    assert not Path('executed').exists()


def test_words_that_are_known_name_no_files_and_no_modules():
    for word in recorded.WORDS | recorded.TYPES:
        assert word.isidentifier()


@pytest.mark.parametrize('device', ['gpu', 'cuda:-1', 'cuda:99', 'xpu', 'mps', 'vulkan'])
def test_a_device_that_is_not_there_is_said_in_one_sentence(device):
    text = rf"device '{device}' cannot be used here \([^\n]{{1,250}}\): give 'cpu', or 'cuda' where"
    with pytest.raises(UserError, match=text):
        Predictor('work_dir', device=device)
