"""Exported files against MMDetection's and MMSegmentation's own predictions, and what is refused."""

import copy
import functools
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from exported_detections import assert_same_detections, predict
from malicious import Payload
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmengine.config import Config
from mmseg.structures import SegDataSample
from small_models import SCALES, SMALL, image, spread_model
from torchvision.ops import box_iou

from fasternet_mm.deployment.description import Description
from fasternet_mm.deployment.exported_models import ExportedDetector, ExportedSegmenter, use_exported
from fasternet_mm.deployment.exporter import export
from fasternet_mm.deployment.formats import FORMATS
from fasternet_mm.deployment.mask_pasting import paste_masks
from fasternet_mm.deployment.runtimes import open_runtime
from fasternet_mm.deployment.writers import WRITERS
from fasternet_mm.engine.runner import build_model
from fasternet_mm.errors import UserError
from fasternet_mm.models.backbone import ImageTooSmall, InvalidArgument

PROGRAMS = ('torch-export', 'torchscript')
IMAGES = {
    'several': image(160, 160),
    'one': image(96, 200, 2),
    'none': image(70, 70, 3),
    'more': image(100, 150, 1),
}


@pytest.fixture(scope='module')
def write(tmp_path_factory):
    """Export a model, through a checkpoint, once for all tests that want the same."""
    folder = tmp_path_factory.mktemp('exported')
    written = {}

    def write(cfg, model, file_format, **options):
        key = (id(model), file_format, *sorted(options.items()))
        if key not in written:
            name = str(folder / str(len(written)))
            torch.save(dict(state_dict=model.state_dict()), f'{name}.pth')
            written[key] = f'{name}{FORMATS[file_format].suffix}'
            export(cfg, f'{name}.pth', out=written[key], **options)
        return written[key]

    return write


@pytest.fixture(scope='module')
def exported(write, detector_cfg, detector):
    """The detector in a format, opened once for all tests."""
    return functools.cache(lambda form: ExportedDetector(write(detector_cfg, detector, form), trust_program=True))


# Predictions


@pytest.mark.parametrize('file_format', FORMATS)
def test_an_exported_detector_finds_what_mmdet_finds_at_any_size(exported, detector, file_format):
    actual = {name: predict(exported(file_format), image) for name, image in IMAGES.items()}
    assert len(actual['several']) > 5
    assert len(actual['none']) == 0
    for name, pixels in IMAGES.items():
        assert_same_detections(actual[name], predict(detector, pixels))


def test_boxes_and_masks_are_those_of_the_image_before_it_was_resized(exported, detector):
    meta = dict(ori_shape=(240, 80), scale_factor=(2.0, 160 / 240))
    actual, expected = (predict(model, IMAGES['several'], **meta) for model in (exported('onnx'), detector))
    assert actual.masks.shape[1:] == (240, 80)
    assert_same_detections(actual, expected)


def test_a_file_takes_a_batch_and_says_which_image_each_detection_is_in(write, detector_cfg, detector):
    import onnxruntime

    session = onnxruntime.InferenceSession(write(detector_cfg, detector, 'onnx'))
    images = torch.stack([image(96, 128, seed) for seed in (1, 2, 3)])
    boxes, scores, _, owners, masks = session.run(None, {'images': images.numpy()})
    assert list(scores) == sorted(scores, reverse=True)
    assert len(masks) == len(boxes) > 3
    for number, pixels in enumerate(images):
        expected = predict(detector, pixels)
        np.testing.assert_allclose(boxes[owners == number], expected.bboxes, rtol=0, atol=1e-3)
        np.testing.assert_allclose(scores[owners == number], expected.scores, rtol=0, atol=1e-5)


def test_each_image_of_a_batch_keeps_as_many_detections_as_alone(write, detector_cfg, detector):
    cfg = copy.deepcopy(detector_cfg)
    cfg.model.test_cfg.rcnn.update(score_thr=0.05, max_per_img=7)
    limited = build_model(cfg).eval()
    limited.load_state_dict(detector.state_dict())
    traced = torch.jit.load(write(cfg, limited, 'torchscript'))
    owners = traced(torch.stack([image(96, 128, seed) for seed in (1, 2)]))[3]
    assert owners.bincount().tolist() == [7, 7]


def test_a_detector_without_masks_is_exported(write, detector_cfg):
    cfg = copy.deepcopy(detector_cfg)
    cfg.model.type = 'FasterRCNN'
    for part in ('mask_head', 'mask_roi_extractor'):
        cfg.model.roi_head.pop(part)
    model = spread_model(cfg, SCALES)
    exported = ExportedDetector(write(cfg, model, 'onnx'))
    expected = predict(model, IMAGES['several'])
    assert len(expected) > 1
    assert_same_detections(predict(exported, IMAGES['several']), expected)


def test_prepared_images_are_prepared_as_the_config_says(write, detector_cfg, detector):
    exported = ExportedDetector(write(detector_cfg, detector, 'onnx', prepared=True))
    assert_same_detections(predict(exported, IMAGES['several']), predict(detector, IMAGES['several']))
    assert predict(exported, IMAGES['more']).bboxes[:, 2:].max(0).values.tolist() <= [150, 100]


@pytest.mark.parametrize('file_format', ['onnx', 'openvino'])
def test_half_precision_halves_the_file_and_labels_nearly_the_same(write, segmenter_cfg, segmenter, file_format):
    whole = write(segmenter_cfg, segmenter, 'onnx')
    half = write(segmenter_cfg, segmenter, file_format, fp16=True)
    weights = FORMATS[file_format].files(half)[-1]
    assert weights.stat().st_size < 0.6 * Path(whole).stat().st_size
    outputs, expected = (open_runtime(file)(IMAGES['more']) for file in (half, whole))
    torch.testing.assert_close(outputs['logits'], expected['logits'], rtol=0.01, atol=0.1)
    assert (outputs['logits'] != expected['logits']).any()


def test_a_file_of_one_size_refuses_others(write, detector_cfg, detector):
    exported = ExportedDetector(write(detector_cfg, detector, 'openvino', size=(160, 160)))
    assert_same_detections(predict(exported, IMAGES['several']), predict(detector, IMAGES['several']))
    with pytest.raises(InvalidArgument, match=r'100x150 pixels \(H x W\): the exported file takes images of 160x160'):
        predict(exported, IMAGES['more'])


@pytest.mark.parametrize(('file_format', 'least'), [('onnx', 32), ('torch-export', 65)])
def test_an_image_that_is_too_small_is_refused(exported, detector, file_format, least):
    smallest = image(least, least)
    assert len(predict(exported(file_format), smallest)) == len(predict(detector, smallest))
    with pytest.raises(ImageTooSmall, match=f'pad it to at least {least}x{least}'):
        predict(exported(file_format), image(least, least - 1))


def segment(model, image):
    shape = tuple(image.shape[1:])
    meta = dict(img_shape=shape, ori_shape=(shape[0] + 10, shape[1] - 7))
    with torch.no_grad():
        return model.test_step(dict(inputs=[image], data_samples=[SegDataSample(metainfo=meta)]))[0]


@pytest.mark.parametrize('file_format', FORMATS)
def test_an_exported_segmenter_labels_as_mmseg_does_at_any_size(write, segmenter_cfg, segmenter, file_format):
    file = write(segmenter_cfg, segmenter, file_format)
    exported = ExportedSegmenter(file, trust_program=True, test_cfg=segmenter_cfg.model.test_cfg)
    for pixels in (image(160, 160), image(75, 130, 1)):
        actual, expected = segment(exported, pixels), segment(segmenter, pixels)
        torch.testing.assert_close(actual.seg_logits.data, expected.seg_logits.data, rtol=1e-4, atol=1e-3)
        assert (actual.pred_sem_seg.data != expected.pred_sem_seg.data).float().mean() < 1e-3
        labels = open_runtime(file, trust_program=True)(pixels)['labels']
        prepared = segmenter.data_preprocessor(dict(inputs=[pixels], data_samples=None))['inputs']
        with torch.no_grad():
            logits = segmenter.encode_decode(prepared, [dict(img_shape=pixels.shape[1:])])
        assert (labels != logits.argmax(1)).float().mean() < 1e-3


def test_an_exported_segmenter_slides_as_mmseg_does(write, segmenter_cfg, segmenter, monkeypatch):
    sliding = dict(mode='slide', crop_size=(96, 96), stride=(64, 64))
    exported = ExportedSegmenter(write(segmenter_cfg, segmenter, 'onnx'), test_cfg=Config(sliding))
    monkeypatch.setattr(segmenter, 'test_cfg', Config(sliding))
    actual, expected = (segment(model, image(130, 200)).seg_logits.data for model in (exported, segmenter))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


def test_semantic_fpn_is_exported(write, segmenter_cfg, root):
    cfg = Config.fromfile(root / 'configs/fpn_fasternet_t0.py')
    cfg.model.backbone.update(arch=SMALL, init_cfg=None)
    cfg.model.neck.update(in_channels=[16, 32, 64, 128], out_channels=16)
    cfg.model.decode_head.update(in_channels=[16] * 4, channels=16, num_classes=7)
    cfg.test_dataloader = segmenter_cfg.test_dataloader
    model = spread_model(cfg, {'decode_head.conv_seg.weight': 100})
    exported = ExportedSegmenter(write(cfg, model, 'onnx'), test_cfg=cfg.model.test_cfg)
    pixels = image(90, 120)
    actual, expected = segment(exported, pixels).seg_logits.data, segment(model, pixels).seg_logits.data
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3)


def test_a_backbone_is_exported_alone(write, detector_cfg, detector):
    runtime = open_runtime(write(detector_cfg, detector, 'onnx', backbone_alone=True))
    pixels = IMAGES['more']
    with torch.no_grad():
        expected = detector.backbone(detector.data_preprocessor(dict(inputs=[pixels], data_samples=None))['inputs'])
    actual = runtime(pixels)
    assert list(actual) == ['map0', 'map1', 'map2', 'map3']
    for name, values in zip(actual, expected):
        torch.testing.assert_close(actual[name], values, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_int8_is_calibrated_on_images(write, detector_cfg, detector, tmp_path):
    pytest.importorskip('nncf')
    import cv2

    for seed in range(2):
        cv2.imwrite(str(tmp_path / f'{seed}.png'), image(160, 160, seed).permute(1, 2, 0).numpy())
    file = write(detector_cfg, detector, 'openvino', calibration=(str(tmp_path),))
    assert Path(file).with_suffix('.bin').stat().st_size < 0.4 * sum(p.numel() * 4 for p in detector.parameters())
    assert 'FakeQuantize' in Path(file).read_text()
    objects, expected = (predict(model, IMAGES['several']) for model in (ExportedDetector(file), detector))
    overlaps = box_iou(expected.bboxes, objects.bboxes).max(dim=1).values
    assert overlaps.median() > 0.7


def test_files_whose_input_has_another_name_run(write, detector_cfg, detector, tmp_path):
    """It was 'pictures' in the files of earlier releases."""
    import onnx
    import openvino

    files = {name: write(detector_cfg, detector, name, backbone_alone=True) for name in ('onnx', 'openvino')}
    network = onnx.load(files['onnx'])
    network.graph.input[0].name = 'pictures'
    for node in network.graph.node:
        node.input[:] = ['pictures' if name == 'images' else name for name in node.input]
    onnx.save(network, tmp_path / 'old.onnx')
    network = openvino.Core().read_model(files['openvino'])
    network.input().set_names({'pictures'})
    openvino.save_model(network, tmp_path / 'old.xml', compress_to_fp16=False)
    for name, file in files.items():
        maps, expected = (
            open_runtime(str(path))(IMAGES['more']) for path in (tmp_path / f'old{FORMATS[name].suffix}', file)
        )
        assert all(torch.equal(maps[key], expected[key]) for key in ('map0', 'map1', 'map2', 'map3'))


@pytest.mark.parametrize('threshold', [0.5, 0.2])
def test_masks_are_pasted_as_mmdet_pastes_them(threshold):
    masks = torch.nn.functional.interpolate(torch.rand(20, 1, 5, 5), (28, 28), mode='bicubic')[:, 0].clamp(0, 1)
    corner = torch.rand(20, 2) * 80
    boxes = torch.cat((corner, (corner + 2 + torch.rand(20, 2) * 70)), 1).clamp(max=100)
    whole, _ = _do_paste_mask(masks[:, None], boxes, 110, 100, skip_empty=False)
    actual = paste_masks(masks, boxes, 110, 100, threshold)
    assert actual.dtype == torch.bool
    assert (actual != (whole >= threshold)).sum() <= 2
    assert paste_masks(masks[:0], boxes[:0], 110, 100, threshold).shape == (0, 110, 100)


# What a file says of itself


@pytest.mark.parametrize('file_format', FORMATS)
def test_a_file_describes_itself(exported, file_format):
    description = exported(file_format).runtime.description
    assert description.task == 'detection'
    assert description.classes == ['circle', 'square', 'triangle', 'star', 'cross', 'ring']
    assert len(description.palette) == 6
    assert description.preparation['mean'] == pytest.approx([123.675, 116.28, 103.53])
    assert description.preparation['bgr_to_rgb'] is True
    assert description.test_cfg['rcnn']['max_per_img'] == 100


def valid_description():
    preparation = dict(mean=[0, 0, 0], std=[1, 1, 1], bgr_to_rgb=True, pad_size_divisor=32, pad_value=0)
    names = dict(task='detection', outputs=['boxes'], classes=['cat'], palette=[[1, 2, 3]], weights='float32')
    rest = dict(preparation=preparation, prepared=False, size=None, min_size=32, test_cfg={}, align_corners=False)
    return dict(format_version=1, **names, **rest)


WRONG_DESCRIPTIONS = [
    (None, 'was not written by fasternet-mm export'),
    ('{', 'damaged description'),
    ('[' * 100_000, 'damaged description'),
    ('7', 'damaged description'),
    (dict(format_version=3), 'of version 3, but this release reads versions 1 to 2'),
    (dict(classes=[['cat']]), 'damaged description'),
    (dict(extra=1), 'damaged description'),
    (dict(min_size='32'), 'damaged description'),
    (dict(preparation=dict(mean='abc')), 'damaged description'),
    (dict(palette=[['red']]), 'damaged description'),
    (dict(resize=dict(scale=['a', 'b'], keep_ratio=True)), 'damaged description'),
    (dict(resize=dict(scale=[160], keep_ratio=True)), 'damaged description'),
    (dict(resize=dict(scale=[160, 160], keep_ratio='yes')), 'damaged description'),
]


@pytest.mark.parametrize(('change', 'message'), WRONG_DESCRIPTIONS)
def test_a_description_of_another_kind_is_refused(change, message):
    assert Description.from_json(json.dumps(valid_description()), 'm').classes == ['cat']
    text = json.dumps({**valid_description(), **change}) if isinstance(change, dict) else change
    with pytest.raises(UserError, match=message):
        Description.from_json(text, 'm.onnx')


WRONG_CONFIGS = [
    (
        {'test_dataloader.dataset.metainfo': dict(classes=('disc', 'square'))},
        "label 0 is 'circle' in the file and 'disc' in the config",
    ),
    ({'model.test_cfg.rcnn.score_thr': 0.3}, 'give the config of the export'),
    ({'model.data_preprocessor.mean': [1, 2, 3]}, 'was exported with model.data_preprocessor'),
]


@pytest.mark.parametrize(('change', 'message'), WRONG_CONFIGS)
def test_a_file_for_another_config_is_refused(write, detector_cfg, detector, change, message):
    cfg = copy.deepcopy(detector_cfg)
    cfg.merge_from_dict(change)
    with pytest.raises(UserError) as error:
        use_exported(cfg, write(detector_cfg, detector, 'onnx'))
    assert message in str(error.value)


def test_a_file_for_another_task_is_refused(write, detector_cfg, detector, segmenter_cfg):
    with pytest.raises(UserError, match='was exported with other classes'):
        use_exported(copy.deepcopy(segmenter_cfg), write(detector_cfg, detector, 'onnx'))
    with pytest.raises(UserError, match='is a backbone alone'):
        use_exported(copy.deepcopy(detector_cfg), write(detector_cfg, detector, 'onnx', backbone_alone=True))


# Strangers' files


@pytest.mark.parametrize('file_format', PROGRAMS)
def test_a_program_runs_only_where_it_is_trusted(write, detector_cfg, detector, file_format):
    with pytest.raises(UserError, match='add --trust-program'):
        open_runtime(write(detector_cfg, detector, file_format))


@pytest.mark.parametrize('suffix', ['.pt2', '.torchscript', '.onnx', '.xml'])
def test_a_malicious_pickle_is_not_run_whatever_it_is_called(suffix, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(payload=Payload()), f'evil{suffix}')
    for trusted in (False, True):  # nor where it is trusted, since it has no description
        with pytest.raises(UserError, match=r'--trust-program|cut short, damaged or of another format|not written by'):
            open_runtime(f'evil{suffix}', trust_program=trusted)
    assert not Path('executed').exists()


def damage(path, way):
    content = path.read_bytes()
    path.write_bytes({'empty': b'', 'text': b'something else', 'cut': content[: len(content) // 2]}[way])


@pytest.mark.parametrize('way', ['empty', 'text', 'cut'])
@pytest.mark.parametrize('file_format', FORMATS)
def test_a_damaged_file_is_refused(write, detector_cfg, detector, file_format, way, tmp_path):
    whole = Path(write(detector_cfg, detector, file_format))
    file = tmp_path / whole.name
    file.write_bytes(whole.read_bytes())
    damage(file, way)
    with pytest.raises(UserError, match='cut short, damaged or of another format'):
        open_runtime(str(file), trust_program=True)


def test_weights_of_an_openvino_file_must_be_beside_it(write, detector_cfg, detector, tmp_path):
    whole = Path(write(detector_cfg, detector, 'openvino'))
    (tmp_path / 'm.xml').write_bytes(whole.read_bytes())
    with pytest.raises(UserError, match='cut short, damaged'):
        open_runtime(str(tmp_path / 'm.xml'))
    (tmp_path / 'm.bin').write_bytes(whole.with_suffix('.bin').read_bytes()[:-1000])
    with pytest.raises(UserError, match='cut short, damaged'):
        open_runtime(str(tmp_path / 'm.xml'))


def test_a_file_of_another_origin_is_refused(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ('images', 'y')]
    graph = helper.make_graph([helper.make_node('Identity', ['images'], ['y'])], 'g', values[:1], values[1:])
    opset = [helper.make_opsetid('', 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / 'm.onnx')
    with pytest.raises(UserError, match='was not written by fasternet-mm export'):
        open_runtime(str(tmp_path / 'm.onnx'))


# What is refused before anything is written


WRONG_MODELS = [
    ({'type': 'TwoStageDetector'}, 'TwoStageDetector, which cannot be exported: it can be EncoderDecoder, FasterRCNN'),
    ({'rpn_head.loss_cls.use_sigmoid': False}, 'use_sigmoid must be True'),
    ({'test_cfg.rcnn.nms': dict(type='soft_nms', iou_threshold=0.5)}, 'nms of type "nms"'),
    ({'test_cfg.rcnn.max_per_img': -1}, 'above 0'),
    ({'roi_head.type': 'DoubleHeadRoIHead'}, 'DoubleHeadRoIHead'),
    ({'roi_head.mask_head.upsample_cfg': dict(type='nearest', scale_factor=2)}, 'needs type="deconv"'),
    ({'roi_head.bbox_roi_extractor.type': 'GenericRoIExtractor'}, 'GenericRoIExtractor, which cannot be exported'),
    ({'data_preprocessor.mean': None, 'data_preprocessor.std': None}, 'does not normalize three channels'),
]


@pytest.mark.parametrize(('change', 'message'), WRONG_MODELS)
def test_a_model_that_cannot_be_exported_is_refused_at_once(detector_cfg, change, message, tmp_path):
    cfg = copy.deepcopy(detector_cfg)
    cfg.merge_from_dict({f'model.{key}': value for key, value in change.items()})
    with pytest.raises(UserError) as error:
        export(cfg, 'nowhere.pth', out=tmp_path / 'm.onnx')
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


WRONG_REQUESTS = [
    (dict(format='onnx', out='m.xml'), '--format onnx writes .onnx files'),
    (dict(format='tflite', out='m.tflite'), 'tflite is unknown: use onnx, openvino, torch-export, torchscript'),
    (dict(out='m.tflite'), 'its suffix belongs to none of the formats: use .onnx, .xml, .pt2, .torchscript'),
    (dict(out='m.torchscript', fp16=True), '--fp16 is for the formats onnx, openvino'),
    (dict(out='m.onnx', calibration=['x']), '--int8 is for the formats openvino'),
    (dict(out='m.onnx', size=(20, 200)), 'at least 32 pixels'),
    (dict(out='m.xml', calibration=['nowhere']), 'nowhere does not exist'),
]


@pytest.mark.parametrize(('request_', 'message'), WRONG_REQUESTS)
def test_what_no_format_can_do_is_refused_at_once(detector_cfg, request_, message, tmp_path):
    request_ = {**request_, 'out': str(tmp_path / request_['out'])}
    if 'nowhere' in str(request_):
        pytest.importorskip('nncf')
    with pytest.raises(UserError, match=message):
        export(detector_cfg, 'nowhere.pth', **request_)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('package', 'file_format', 'extra'),
    [('onnx', 'onnx', 'onnx'), ('openvino', 'openvino', 'openvino'), ('nncf', 'openvino', 'int8')],
)
def test_a_missing_package_is_named_with_its_extra(detector_cfg, package, file_format, extra, tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == package else find_spec(name))
    out = tmp_path / f'm{FORMATS[file_format].suffix}'
    with pytest.raises(UserError, match=rf"needs the package {package}: pip install 'fasternet-mm\[{extra}\]'"):
        export(detector_cfg, 'nowhere.pth', out=out, calibration=['x'] * (package == 'nncf'))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('file_format', FORMATS)
def test_a_failure_while_writing_leaves_what_was_there_before(
    detector_cfg, detector, file_format, tmp_path, monkeypatch
):
    torch.save(dict(state_dict=detector.state_dict()), tmp_path / 'net.pth')
    out = tmp_path / f'm{FORMATS[file_format].suffix}'
    out.write_text('before')

    def fail(graph, description, path, calibration):
        path.write_text('half of it')
        path.with_suffix('.bin').write_text('half of it')
        raise OSError('no space left on device')

    monkeypatch.setitem(WRITERS, file_format, fail)
    with pytest.raises(UserError, match='no space left on device'):
        export(detector_cfg, tmp_path / 'net.pth', out=out)
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, 'net.pth']
    assert out.read_text() == 'before'
