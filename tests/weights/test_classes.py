"""A checkpoint's classes beside a config's, in every way to use a checkpoint."""

import copy

import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.evaluation.functional.class_names import coco_classes
from mmengine.config import Config
from mmseg.datasets import ADE20KDataset
from mmseg.utils.class_names import ade_classes
from small_models import SMALL

from fasternet_mm.datasets.checks import classes_of
from fasternet_mm.datasets.shapes import CLASSES
from fasternet_mm.deployment.exporter import export
from fasternet_mm.engine.runner import StrictRunner, build_model, check_checkpoints
from fasternet_mm.errors import UserError
from fasternet_mm.inference import Predictor
from fasternet_mm.weights.classes import check_classes, class_difference, recorded_classes

COCO_NAMES = CocoDataset.METAINFO['classes']
SWAPPED = (CLASSES[1], CLASSES[0], *CLASSES[2:])


@pytest.mark.parametrize(
    ('meta', 'classes'),
    [
        (dict(dataset_meta=dict(classes=('cat', 'dog'), palette=[])), ['cat', 'dog']),
        (dict(dataset_meta=dict(CLASSES=['cat'])), ['cat']),
        (dict(CLASSES=('cat', 'dog'), epoch=12), ['cat', 'dog']),
        (dict(CLASSES='cat'), ['cat']),
        (dict(dataset_meta=dict(classes=np.array(['cat', 'dog']))), ['cat', 'dog']),
        (dict(dataset_meta=None, CLASSES=None), None),
        (dict(dataset_meta=dict(classes=[1, 2])), None),
        (dict(dataset_meta=dict(classes=())), None),
        (dict(), None),
        (torch.zeros(3), None),
    ],
)
def test_classes_are_read_as_mmengine_and_mmcv_write_them(meta, classes):
    assert recorded_classes(dict(meta=meta)) == classes
    assert recorded_classes({}) is None


@pytest.mark.parametrize(
    ('recorded', 'own', 'difference'),
    [
        (['cat', 'dog'], ['cat', 'cow'], "label 1 is 'dog' in the file and 'cow' in the config"),
        (['cat', 'dog'], ['dog', 'cat'], "label 0 is 'cat' in the file and 'dog' in the config"),
        (['cat', 'dog'], ['cat'], "the file has 2 and the config 1; only the file has label 1, 'dog'"),
        (['cat'], ['cat', 'dog', 'cow'], "the file has 1 and the config 3; only the config has label 1, 'dog'"),
        (['Cat', 'bed ', 'traffic_light'], ('cat', 'bed', 'traffic light'), None),
    ],
)
def test_the_first_difference_is_named(recorded, own, difference):
    assert class_difference(recorded, own) == difference


@pytest.mark.parametrize(
    ('published', 'dataset'), [(coco_classes, CocoDataset), (ade_classes, ADE20KDataset)], ids=['coco', 'ade']
)
def test_published_checkpoints_have_the_classes_of_their_data_sets(published, dataset):
    """MMDetection and MMSegmentation keep lists for checkpoints that do not say theirs."""
    check_classes(dict(meta=dict(CLASSES=published())), 'net.pth', dataset.METAINFO['classes'])


@pytest.fixture(scope='module')
def cfg(root):
    cfg = Config.fromfile(root / 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py')
    cfg.model.backbone.arch, cfg.model.neck.in_channels = SMALL, [16, 32, 64, 128]
    return cfg


@pytest.fixture(scope='module')
def checkpoint(cfg, tmp_path_factory):
    """Of a training on the same classes in another order."""
    path = tmp_path_factory.mktemp('work') / 'epoch_1.pth'
    meta = dict(epoch=1, iter=2, dataset_meta=dict(classes=SWAPPED))
    torch.save(dict(meta=meta, message_hub={}, optimizer={}, state_dict=build_model(cfg).state_dict()), path)
    return str(path)


def checking(splits, **options):
    def use(cfg, checkpoint, tmp_path):
        check_checkpoints(Config({**cfg.to_dict(), 'load_from': checkpoint, **options}), splits)

    return use


WAYS = {
    'test': checking(('test',), resume=False),
    'resume': checking(('train', 'val'), resume=True),
    'predict': lambda cfg, checkpoint, tmp_path: Predictor(cfg, checkpoint),
    'export': lambda cfg, checkpoint, tmp_path: export(cfg, checkpoint, out=tmp_path / 'net.torchscript'),
}


@pytest.mark.parametrize(
    ('dataset', 'classes'),
    [
        (dict(metainfo=dict(classes=('cat', 'dog'))), ['cat', 'dog']),
        (dict(metainfo=dict(classes='names.txt')), None),  # MMEngine reads the file
        (dict(), list(COCO_NAMES)),
    ],
)
def test_a_configs_classes_are_found_in_wrappers_too(dataset, classes):
    dataset = dict(type='CocoDataset', **dataset)
    for wrapped in (dataset, dict(type='RepeatDataset', times=2, dataset=dataset)):
        cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=wrapped)))
        assert classes_of(cfg, 'train') == classes
        assert classes_of(cfg, 'test') is None


@pytest.mark.parametrize('way', WAYS)
def test_a_checkpoint_of_other_classes_is_refused(way, cfg, checkpoint, tmp_path):
    advice = 'starts with --start' if way == 'resume' else 'add --allow-mismatch'
    message = f"other classes than those of the config: label 0 is '{SWAPPED[0]}' in the file and '{CLASSES[0]}'"
    with pytest.raises(UserError, match=f'{message} in the config; use the config that it was trained with.*{advice}'):
        WAYS[way](cfg, checkpoint, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_difference_that_is_meant_is_said(cfg, checkpoint, tmp_path, logged_warnings):
    checking(('test',), load_options=dict(allow_mismatch=True))(cfg, checkpoint, tmp_path)
    assert Predictor(cfg, checkpoint, allow_mismatch=True).classes == CLASSES
    assert [line.partition(': ')[2] for line in logged_warnings()] == [
        f"label 0 is '{SWAPPED[0]}' in the file and '{CLASSES[0]}' in the config; its heads are taken as they are"
    ]


@pytest.mark.parametrize(('new_heads', 'classes', 'lines'), [(False, 6, 1), (True, 6, 1), (True, 2, 0)])
def test_a_training_that_begins_with_heads_of_other_classes_says_so(
    new_heads, classes, lines, cfg, tmp_path, logged_warnings
):
    """Not where the heads begin anew, which the line about the weights tells."""
    of_others = copy.deepcopy(cfg)
    of_others.model.roi_head.bbox_head.num_classes = of_others.model.roi_head.mask_head.num_classes = classes
    net = build_model(of_others)
    path = str(tmp_path / 'net.pth')
    torch.save(dict(meta=dict(CLASSES=('a', 'b', 'c', 'd', 'e', 'f')[:classes]), state_dict=net.state_dict()), path)
    runner = StrictRunner.__new__(StrictRunner)
    runner.cfg = Config({**cfg.to_dict(), 'load_options': dict(new_heads=new_heads)})
    runner.model, runner._hooks = build_model(cfg), []
    runner.load_checkpoint(path)
    assert len(logged_warnings()) == lines
