"""Exported RTMDet and RTMDet-Ins against MMDetection's own predictions, and what is refused."""

import copy
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from exported_detections import assert_same_detections, predict
from mmengine.config import Config
from small_models import SMALL, image, spread_model

from fasternet_mm.deployment.description import Description
from fasternet_mm.deployment.exported_models import ExportedDetector
from fasternet_mm.deployment.exporter import export
from fasternet_mm.deployment.formats import FORMATS
from fasternet_mm.deployment.runtimes import open_runtime
from fasternet_mm.engine.runner import build_model
from fasternet_mm.errors import UserError
from fasternet_mm.inference.predictor import Predictor
from fasternet_mm.models.backbone import InvalidArgument
from fasternet_mm.models.single_stage.rtmdet_ins_head import enlarge_masks

CONFIG = 'configs/shapes/rtmdet_ins_fasternet_t0_shapes.py'
WITHOUT_MASKS = dict(type='RTMDetSepBNHead', loss_mask=None, exp_on_reg=False, with_objectness=False)
IMAGES = {
    'several': image(160, 160),
    'wide': image(96, 192, 2),
    'none': torch.full((3, 96, 96), 60, dtype=torch.uint8),
}


@pytest.fixture(scope='module')
def small_cfg(root):
    """RTMDet-Ins with a few channels; its threshold leaves several objects on one image and none on another."""
    cfg = Config.fromfile(root / CONFIG)
    cfg.model.backbone.update(arch=SMALL, init_cfg=None)
    cfg.model.neck.update(in_channels=[32, 64, 128], out_channels=16, norm_cfg=dict(type='BN'))
    cfg.model.bbox_head.update(in_channels=16, feat_channels=16, norm_cfg=dict(type='BN'))
    cfg.model.test_cfg.score_thr = 0.9
    cfg.model.data_preprocessor.pad_size_divisor = 1  # as the configs for COCO have it
    return cfg


def spread(cfg):
    """A random model, with boxes and masks of all sizes, and scores from nearly 0 to nearly 1."""
    outputs = dict(rtm_cls=60, rtm_reg=4, rtm_kernel=30)
    convolutions = [name for name, value in build_model(cfg).bbox_head.named_parameters() if value.dim() == 4]
    return spread_model(cfg, {f'bbox_head.{name}': outputs.get(name.split('.')[0], 20) for name in convolutions})


@pytest.fixture(scope='module')
def small(small_cfg):
    return spread(small_cfg)


@pytest.fixture(scope='module')
def write(tmp_path_factory):
    """Export a model, through a checkpoint; what was written before is not written again."""
    folder = tmp_path_factory.mktemp('exported')
    written = {}

    def write(cfg, model, suffix, **options):
        key = (id(model), str(cfg.test_dataloader), suffix, *options.items())
        if key not in written:
            written[key] = str(folder / f'{len(written)}{suffix}')
            torch.save(dict(state_dict=model.state_dict()), folder / 'net.pth')
            export(cfg, folder / 'net.pth', out=written[key], **options)
        return written[key]

    return write


def changed(cfg, head=None, test=None):
    """A config with other settings of its head, where None leaves one out, and of its ``test_cfg``."""
    cfg = copy.deepcopy(cfg)
    cfg.model.bbox_head.update(head or {})
    cfg.model.bbox_head = {key: value for key, value in cfg.model.bbox_head.items() if value is not None}
    cfg.model.test_cfg.update(test or {})
    return cfg


# Predictions


@pytest.mark.parametrize('file_format', FORMATS)
def test_an_exported_rtmdet_ins_finds_what_mmdet_finds_at_any_size(write, small_cfg, small, file_format):
    exported = ExportedDetector(write(small_cfg, small, FORMATS[file_format].suffix), trust_program=True)
    actual, expected = ({name: predict(model, x) for name, x in IMAGES.items()} for model in (exported, small))
    assert len(expected['several']) > 5
    assert 0.1 < expected['several'].masks.float().mean() < 0.9
    assert len(expected['none']) == 0
    for name in IMAGES:
        assert_same_detections(actual[name], expected[name])


@pytest.mark.parametrize('head', ['RTMDetHead', 'RTMDetSepBNHead', 'RTMDetInsHead'])
def test_the_other_heads_are_exported(write, small_cfg, head):
    change = dict(type=head) if 'Ins' in head else {**WITHOUT_MASKS, 'type': head}
    if head == 'RTMDetHead':
        change['exp_on_reg'] = None
    cfg = changed(small_cfg, {**change, 'with_objectness': False, 'share_conv': head == 'RTMDetSepBNHead' or None})
    model = spread(cfg)
    exported = ExportedDetector(write(cfg, model, '.onnx'))
    expected = predict(model, IMAGES['several'])
    assert len(expected) > 1
    assert_same_detections(predict(exported, IMAGES['several']), expected)


def test_boxes_and_masks_are_those_of_the_image_before_it_was_resized(write, small_cfg, small):
    meta = dict(ori_shape=(70, 80), scale_factor=(2.0, 2.0))  # an image of 140x160 pixels, padded to 160x160
    exported = ExportedDetector(write(small_cfg, small, '.onnx'))
    actual, expected = (predict(model, IMAGES['several'], **meta) for model in (exported, small))
    assert actual.masks.shape[1:] == (70, 80)
    assert_same_detections(actual, expected)


@pytest.mark.parametrize('nms_pre', [30, 30_000])
def test_of_many_objects_the_best_of_each_level_are_kept_in_each_image_of_a_batch(write, small_cfg, nms_pre):
    limits = dict(score_thr=0.001, nms_pre=nms_pre, max_per_img=300)
    cfg = changed(small_cfg, WITHOUT_MASKS, limits)
    model = spread(cfg)
    traced = torch.jit.load(write(cfg, model, '.torchscript'))
    images = [image(160, 160, seed) for seed in (0, 1, 2)]
    expected = [predict(model, pixels) for pixels in images]
    counts = [len(objects) for objects in expected]
    assert max(counts) == 300 if nms_pre == 30_000 else 10 < max(counts) <= 90
    boxes, scores, labels, owners = traced(torch.stack(images))
    assert (scores.diff() <= 0).all()
    found = torch.cat((boxes, scores[:, None], labels[:, None]), 1)
    for number, objects in enumerate(expected):
        own = found[owners == number]
        assert len(own) == len(objects)
        wanted = torch.cat((objects.bboxes, objects.scores[:, None], objects.labels[:, None]), 1)
        # Whatever their order, since scores that are nearly equal may change places in a batch.
        differences = (wanted[:, None] - own).abs().amax(2)
        assert differences.min(0).values.max() < 1e-3
        assert differences.min(1).values.max() < 1e-3


def test_each_image_of_a_batch_has_masks_of_its_own(write, small_cfg, small):
    import onnxruntime

    session = onnxruntime.InferenceSession(write(small_cfg, small, '.onnx'))
    images = torch.stack([IMAGES['several'], image(160, 160, 4)])
    *_, owners, logits = session.run(None, {'images': images.numpy()})
    for number, pixels in enumerate(images):
        expected = predict(small, pixels).masks
        masks = enlarge_masks(torch.from_numpy(logits[owners == number]), 8, (1, 1), (160, 160), 0.5)
        assert masks.shape == expected.shape
        assert (masks != expected).float().mean() < 1e-4


@pytest.mark.parametrize('threshold', [0.5, 0.8])
def test_masks_are_enlarged_as_pytorch_does_it_twice(threshold):
    """First to the padded input of 128x160, which is an image of 250x211 pixels at 0.51 and 0.74 of its size."""
    logits = F.interpolate(torch.randn(6, 1, 4, 5), (16, 20), mode='bicubic')[:, 0] * 3
    logits[0] = -1
    once = F.interpolate(logits[None], scale_factor=8, mode='bilinear')
    twice = F.interpolate(once, (250, 217), mode='bilinear')[0, :, :200, :211]
    masks = enlarge_masks(logits, 8, (128 / 249.5, 160 / 216.5), (200, 211), threshold)
    assert masks.dtype == torch.bool
    assert not masks[0].any()
    assert 0.1 < masks[1:].float().mean() < 0.9
    assert (masks != (twice.sigmoid() > threshold)).sum() <= 3
    assert enlarge_masks(logits[:0], 8, (1, 1), (50, 60), threshold).shape == (0, 50, 60)


# Sizes


def test_a_size_that_the_neck_cannot_take_is_refused(write, small_cfg, small):
    exported = ExportedDetector(write(small_cfg, small, '.onnx'))
    pixels = image(100, 150)
    with pytest.raises(RuntimeError, match='Sizes of tensors must match'):  # from MMDetection's neck
        predict(small, pixels)
    with pytest.raises(InvalidArgument) as error:
        predict(exported, pixels)
    assert str(error.value) == (
        'an image of 100x150 pixels (H x W): the network of the exported file takes heights and widths that are '
        'multiples of 32; pad it to 128x160'
    )


def test_a_preprocessor_that_pads_lets_any_size_in(write, small_cfg, small):
    cfg = copy.deepcopy(small_cfg)
    cfg.model.data_preprocessor.update(pad_size_divisor=32, pad_value=0.5)
    model = build_model(cfg).eval()
    model.load_state_dict(small.state_dict())
    exported = ExportedDetector(write(cfg, model, '.torchscript'), trust_program=True)
    expected = predict(model, image(100, 150))
    assert len(expected) > 1
    assert_same_detections(predict(exported, image(100, 150)), expected)
    assert exported.runtime.description.size_divisor == 1


def test_a_prepared_image_must_be_padded(write, small_cfg, small):
    exported = ExportedDetector(write(small_cfg, small, '.torchscript', prepared=True), trust_program=True)
    assert_same_detections(predict(exported, IMAGES['several']), predict(small, IMAGES['several']))
    with pytest.raises(InvalidArgument, match='multiples of 32; pad it to 96x160'):
        exported.runtime(torch.zeros(3, 96, 150))


def test_a_fixed_size_that_the_neck_cannot_take_is_refused(small_cfg, small, tmp_path):
    torch.save(dict(state_dict=small.state_dict()), tmp_path / 'net.pth')
    with pytest.raises(UserError) as error:
        export(small_cfg, tmp_path / 'net.pth', out=tmp_path / 'm.onnx', size=(96, 150))
    assert str(error.value) == '--size 96 150: this network takes heights and widths that are multiples of 32'
    assert [path.name for path in tmp_path.iterdir()] == ['net.pth']


# What a file says of itself


def padded(cfg):
    cfg = copy.deepcopy(cfg)
    load, resize, *rest = cfg.test_dataloader.dataset.pipeline
    pad = dict(type='Pad', size=(160, 128), pad_val=dict(img=(114, 100, 90)))
    cfg.test_dataloader.dataset.pipeline = [load, dict(resize, scale=(160, 128)), pad, *rest]
    return cfg


@pytest.mark.parametrize('size', [None, (128, 160)])
def test_a_file_alone_is_given_images_resized_and_padded_as_the_config_does(write, small_cfg, small, size, tmp_path):
    cfg = padded(small_cfg)
    file = write(cfg, small, '.torchscript', size=size) if size else write(cfg, small, '.torchscript')
    pixels = np.ascontiguousarray(image(150, 200).permute(1, 2, 0).numpy())
    torch.save(dict(state_dict=small.state_dict()), tmp_path / 'net.pth')
    expected = Predictor(cfg, tmp_path / 'net.pth', device='cpu')(pixels)
    alone = Predictor(file, device='cpu', trust_program=True)(pixels)
    assert len(expected) > 1
    np.testing.assert_allclose(alone.boxes, expected.boxes, rtol=0, atol=1e-3)
    assert alone.labels.tolist() == expected.labels.tolist()


def test_a_file_describes_its_masks_its_sizes_and_its_padding(write, small_cfg, small):
    description = open_runtime(write(padded(small_cfg), small, '.torchscript'), trust_program=True).description
    assert description.outputs == ['boxes', 'scores', 'labels', 'batch_indices', 'mask_logits']
    assert (description.mask_stride, description.size_divisor) == (8, 32)
    assert description.resize == dict(
        scale=[160, 128], keep_ratio=True, pad=dict(size=[160, 128], value=[114, 100, 90])
    )
    assert description.test_cfg['nms_pre'] == 1000


WRONG_DESCRIPTIONS = [
    dict(size_divisor=0),
    dict(size_divisor='32'),
    dict(mask_stride='8'),
    dict(resize=dict(scale=[64, 64], keep_ratio=True, pad=dict(size=[64], value=[1, 2, 3]))),
    dict(resize=dict(scale=[64, 64], keep_ratio=True, pad=dict(size=[64, 64]))),
    dict(resize=dict(scale=[64, 64], keep_ratio=True, pad=dict(size_divisor='32', value=[1, 2, 3]))),
    dict(resize=dict(scale=[64, 64], keep_ratio=True, pad=7)),
]


@pytest.mark.parametrize('change', WRONG_DESCRIPTIONS)
def test_a_description_with_values_of_another_kind_is_refused(write, small_cfg, small, change):
    description = open_runtime(write(padded(small_cfg), small, '.torchscript'), trust_program=True).description
    content = json.loads(description.to_json())
    assert Description.from_json(json.dumps(content), 'm') == description
    with pytest.raises(UserError, match='damaged description'):
        Description.from_json(json.dumps({**content, **change}), 'm')


# The command line


def test_the_metric_is_given_the_same_results_by_checkpoint_and_file(write, small_cfg, small, root, tmp_path, command):
    cfg = changed(small_cfg, test=dict(score_thr=0.5))
    cfg.test_dataloader.dataset.update(data_root=str(root / 'data/shapes'), indices=3)
    cfg.test_evaluator.ann_file = str(root / 'data/shapes/annotations/val.json')
    cfg.dump(tmp_path / 'config.py')
    torch.save(dict(state_dict=small.state_dict()), tmp_path / 'net.pth')
    results = []
    for source in (tmp_path / 'net.pth', write(cfg, small, '.onnx')):
        out = tmp_path / f'{len(results)}.json'
        done = command('test', tmp_path / 'config.py', source, '--work-dir', tmp_path / 'work', '--out', out)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(out.read_text()))
    ours, exported = results
    assert len(ours) == len(exported) > 10
    for key in ('image_id', 'category_id'):
        assert [record[key] for record in exported] == [record[key] for record in ours]
    for key in ('score', 'bbox'):
        actual, expected = (np.array([record[key] for record in records]) for records in (exported, ours))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-2)


# Precision


def test_products_of_two_maps_stay_in_float_where_the_rest_is_int8(tmp_path):
    pytest.importorskip('nncf')
    import openvino

    from fasternet_mm.deployment.writers import quantized, trace_to_onnx

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, 8)

        def forward(self, x):
            maps = self.conv(x).relu().flatten(2)
            return self.linear(maps.mean(2)).relu()[:, None] @ maps

    trace_to_onnx(Net(), torch.rand(1, 3, 16, 16), tmp_path / 'net.onnx')
    model = openvino.Core().read_model(tmp_path / 'net.onnx')
    small = quantized(model, [np.random.rand(1, 3, 16, 16).astype(np.float32) for _ in range(2)])
    products = [operation for operation in small.get_ops() if operation.get_type_name() == 'MatMul']
    inputs = [[value.get_node().get_type_name() for value in operation.input_values()] for operation in products]
    assert sorted('FakeQuantize' in names for names in inputs) == [False, True]


# What is refused before anything is written


WRONG_MODELS = [
    (dict(head=dict(with_objectness=True)), 'with_objectness must be False'),
    (dict(head=dict(bbox_coder=dict(type='DistancePointBBoxCoder', clip_border=False))), 'needs clip_border=True'),
    (dict(test=dict(nms=dict(type='soft_nms', iou_threshold=0.5))), 'nms of type "nms", with iou_threshold alone'),
    (dict(test=dict(nms_pre=-1)), 'nms_pre and max_per_img above 0'),
    (dict(test=dict(max_per_img=-1)), 'nms_pre and max_per_img above 0'),
    (dict(test=dict(min_bbox_size=4)), 'min_bbox_size must be 0 or left out'),
    (dict(test=dict(score_thr=1.0)), 'score_thr from 0 to below 1'),
    (dict(test=dict(mask_thr_binary=0)), 'mask_thr_binary between 0 and 1'),
]


@pytest.mark.parametrize(('change', 'message'), WRONG_MODELS)
def test_an_rtmdet_that_cannot_be_exported_is_refused_at_once(small_cfg, change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        export(changed(small_cfg, **change), 'nowhere.pth', out=tmp_path / 'm.onnx')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            {'type': 'RetinaNet'},
            'model is a RetinaNet, which cannot be exported: it can be EncoderDecoder, FasterRCNN, MaskRCNN, RTMDet',
        ),
        (
            {'bbox_head': dict(type='FCOSHead', num_classes=6, in_channels=16, _delete_=True)},
            'model.bbox_head is a FCOSHead, which cannot be exported: it can be RTMDetHead, RTMDetSepBNHead, '
            'RTMDetInsHead, RTMDetInsSepBNHead',
        ),
    ],
)
def test_what_can_be_exported_is_named_where_the_detector_is_another_one(small_cfg, change, message, tmp_path):
    cfg = copy.deepcopy(small_cfg)
    cfg.merge_from_dict({f'model.{key}': value for key, value in change.items()})
    with pytest.raises(UserError) as error:
        export(cfg, 'nowhere.pth', out=tmp_path / 'm.onnx')
    assert str(error.value) == message
