"""What a training takes of a checkpoint that it starts from."""

import copy

import pytest
import torch
from mmengine.config import Config
from small_models import SMALL

from fasternet_mm import FasterNetClassifier
from fasternet_mm.datasets.checks import set_class_count
from fasternet_mm.engine.config import load_config
from fasternet_mm.engine.runner import StrictRunner, build_model, check_checkpoints
from fasternet_mm.engine.start_checkpoint import class_layers, start_from
from fasternet_mm.errors import UserError

CLASSES = ['cat', 'dog', 'cow']
ANCHORS = dict(
    type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8, 16, 32, 64, 128]
)


@pytest.fixture(scope='module')
def configs(root):
    """Small configs by name, for three classes."""
    configs = {}
    for name in ('rtmdet_fasternet_t0', 'rtmdet_ins_fasternet_t0', 'shapes/mask_rcnn_fasternet_t0_shapes'):
        cfg = load_config(name)
        cfg.model.backbone.update(arch=SMALL, init_cfg=None)
        if 'rtmdet' in name:
            cfg.model.neck.update(in_channels=[32, 64, 128], out_channels=32)
            cfg.model.bbox_head.update(in_channels=32, feat_channels=32)
        else:
            cfg.model.neck.in_channels = [16, 32, 64, 128]
        configs[name] = for_classes(cfg, CLASSES)
    return configs


def for_classes(cfg, names):
    cfg = copy.deepcopy(cfg)
    cfg.train_dataloader.dataset.metainfo = dict(classes=names)
    set_class_count(cfg.model, len(names))
    return cfg


@pytest.fixture
def rtmdet(configs):
    return copy.deepcopy(configs['rtmdet_fasternet_t0'])


def write(path, cfg, classes=CLASSES, **meta):
    """A checkpoint as a training leaves it, with random weights."""
    state = build_model(cfg).state_dict()
    if classes:
        meta |= dict(dataset_meta=dict(classes=tuple(classes)))
    path.parent.mkdir(exist_ok=True)
    torch.save(dict(meta=meta, state_dict=state), path)
    return state


def test_all_is_taken_of_the_same_model_with_the_same_classes(rtmdet, tmp_path):
    state = write(tmp_path / 'run/best_coco_bbox_mAP_epoch_12.pth', rtmdet, epoch=12, iter=600)
    write(tmp_path / 'run/epoch_13.pth', rtmdet, classes=['a', 'b'], epoch=13)
    said = start_from(rtmdet, str(tmp_path / 'run'))
    assert said == f'{tmp_path}/run, epoch 12: {len(state)} of {len(state)} tensors'
    assert rtmdet.load_from == f'{tmp_path}/run/best_coco_bbox_mAP_epoch_12.pth'
    assert rtmdet.load_options == {}


@pytest.mark.parametrize('names', [['cat', 'dog'], ['cat', 'cow', 'dog']])
def test_layers_of_other_classes_begin_anew_even_where_there_are_as_many(names, rtmdet, tmp_path):
    state = write(tmp_path / 'net.pth', for_classes(rtmdet, names), names)
    rest = len(state) - 6
    said = start_from(rtmdet, str(tmp_path / 'net.pth'))
    assert said == f'{tmp_path}/net.pth: {rest} of {len(state)} tensors, all but 6 of its {len(names)} classes'
    check_checkpoints(rtmdet, ('train', 'val'))
    runner = StrictRunner.__new__(StrictRunner)
    runner.cfg, runner.model, runner._hooks = rtmdet, build_model(rtmdet), []
    before = {name: value.clone() for name, value in runner.model.state_dict().items()}
    runner.load_checkpoint(rtmdet.load_from)
    for name, value in runner.model.state_dict().items():
        assert torch.equal(value, before[name] if '.rtm_cls.' in name else state[name]), name


def test_classes_that_a_checkpoint_does_not_say_are_counted(rtmdet, tmp_path):
    write(tmp_path / 'same.pth', rtmdet, None)
    write(tmp_path / 'other.pth', for_classes(rtmdet, ['cat']), None)
    assert 'all but' not in start_from(rtmdet, str(tmp_path / 'same.pth'))
    assert start_from(rtmdet, str(tmp_path / 'other.pth')).endswith('tensors, all but 6 of its classes')


def test_a_detector_of_masks_and_one_of_boxes_share_all_else(configs, tmp_path):
    boxes, masks = (copy.deepcopy(configs[name]) for name in ('rtmdet_fasternet_t0', 'rtmdet_ins_fasternet_t0'))
    state = write(tmp_path / 'masks.pth', masks)
    taken = {name for name in build_model(boxes).state_dict() if name in state}
    said = start_from(boxes, str(tmp_path / 'masks.pth'))
    assert said.startswith(f'{tmp_path}/masks.pth: {len(taken)} of {len(taken)} tensors, all but ')
    assert said.endswith(' for masks')
    write(tmp_path / 'boxes.pth', boxes)
    assert start_from(masks, str(tmp_path / 'boxes.pth')).endswith(' for masks')


def test_of_anything_else_the_backbone_is_taken(configs, rtmdet, tmp_path):
    state = write(tmp_path / 'rcnn.pth', configs['shapes/mask_rcnn_fasternet_t0_shapes'], epoch=1)
    classifier = FasterNetClassifier(SMALL)
    torch.save(classifier.state_dict(), tmp_path / 'classifier.pth')
    with_norms = sum(name.startswith('backbone.') and '.norm0.' not in name for name in state)
    said = start_from(rtmdet, str(tmp_path / 'rcnn.pth'))
    assert said == f'{tmp_path}/rcnn.pth, epoch 1: the backbone alone, {with_norms} tensors, of a Mask R-CNN'
    check_checkpoints(rtmdet, ('train', 'val'))
    said = start_from(rtmdet, str(tmp_path / 'classifier.pth'))
    assert said == f'{tmp_path}/classifier.pth: the backbone alone, {with_norms - 15} tensors, of a classifier'
    model = build_model(rtmdet)
    model.init_weights()
    assert torch.equal(model.backbone.stages[0].blocks[0].mlp[0].weight, classifier.stages[0].blocks[0].mlp[0].weight)


def test_scratch_is_no_checkpoint_but_random_weights(rtmdet):
    rtmdet.model.backbone.init_cfg = dict(type='Pretrained', checkpoint='fasternet_t0_in1k')
    assert start_from(rtmdet, 'scratch') == 'random weights'
    assert rtmdet.model.backbone.init_cfg is None


def test_what_does_not_fit_is_an_error(rtmdet, tmp_path):
    other = copy.deepcopy(rtmdet)
    other.model.backbone.arch = {**SMALL, 'depths': (1, 2, 1, 1)}
    write(tmp_path / 'variant.pth', other)
    state = write(tmp_path / 'net.pth', rtmdet)
    name = 'neck.reduce_layers.0.conv.weight'
    torch.save({key: value for key, value in state.items() if key != name}, tmp_path / 'part.pth')
    for file, message in (
        ('variant.pth', 'is of a FasterNet with embed_dim 16 and depths 1-2-1-1, the model is a FasterNet'),
        ('part.pth', f'tensors 1 missing .{name}.*--allow-mismatch'),
        ('nothing.pth', 'nothing.pth does not exist'),
    ):
        with pytest.raises(UserError, match=message):
            start_from(rtmdet, str(tmp_path / file))
    assert start_from(rtmdet, str(tmp_path / 'part.pth'), allow_mismatch=True).endswith(
        f': {len(state) - 1} of {len(state)} tensors'
    )


def test_a_work_directory_without_a_checkpoint_is_an_error(rtmdet, tmp_path):
    with pytest.raises(UserError, match=r'has no checkpoint .*train first, or name one'):
        start_from(rtmdet, str(tmp_path))


@pytest.mark.parametrize(
    ('head', 'layers'),
    [
        (dict(type='RetinaHead'), ['bbox_head.retina_cls.']),
        (dict(type='FCOSHead'), ['bbox_head.conv_cls.']),
        (dict(type='GFLHead', anchor_generator=ANCHORS), ['bbox_head.gfl_cls.']),
        (dict(type='YOLOXHead', strides=(8, 16, 32)), [f'bbox_head.multi_level_conv_cls.{i}.' for i in range(3)]),
    ],
)
def test_the_layers_of_the_classes_are_known_of_any_head(head, layers):
    cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dict(metainfo=dict(classes=CLASSES)))))
    cfg.train_dataloader.dataset.type = 'CocoDataset'
    cfg.model = dict(
        type='SingleStageDetector',
        backbone=dict(type='fasternet_mm.FasterNet', arch=SMALL),
        neck=dict(type='FPN', in_channels=[16, 32, 64, 128], out_channels=32, num_outs=5),
        bbox_head=dict(num_classes=3, in_channels=32, feat_channels=32, **head),
    )
    assert class_layers(cfg, build_model(cfg).state_dict()) == layers
