import json
import os
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, init_default_scope
from own_layouts import CLASSES, made, write_coco, write_images, write_yolo
from own_plans import fresh_config, planned
from PIL import Image

from fasternet_mm.datasets.checks import check_data
from fasternet_mm.engine import start_checkpoint
from fasternet_mm.engine.config import load_config, merge_options, write_config
from fasternet_mm.engine.runner import build_model
from fasternet_mm.errors import UserError
from fasternet_mm.files import MARKER
from fasternet_mm.own_data.layouts.problems import Fault
from fasternet_mm.own_data.plan import start_weights
from fasternet_mm.own_data.plan.data_checks import object_sides
from fasternet_mm.own_data.plan.sample_sheet import choose_samples
from fasternet_mm.own_data.plan.training_plan import begin_draft, plan_text, put_in_place

MASK_RCNN = 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py'
UPERNET = 'configs/shapes/upernet_fasternet_t0_shapes.py'


@pytest.fixture(autouse=True)
def _in_the_project(root, monkeypatch):
    monkeypatch.chdir(root)


@pytest.fixture
def coco(tmp_path):
    write_coco(tmp_path / 'data', made(train=8, val=3))
    return tmp_path / 'data'


def test_classes_and_files_are_set_everywhere_and_pass_the_usual_checks(coco, tmp_path):
    cfg, plan = planned(MASK_RCNN, coco, tmp_path / 'out')
    assert cfg.model.roi_head.bbox_head.num_classes == cfg.model.roi_head.mask_head.num_classes == 3
    for split in ('train', 'val', 'test'):
        assert list(cfg[f'{split}_dataloader'].dataset.metainfo['classes']) == CLASSES
    assert cfg.test_evaluator.ann_file == cfg.test_dataloader.dataset.ann_file == str(tmp_path / 'out/data/val.json')
    assert cfg.val_evaluator.metric == ['bbox', 'segm']
    assert cfg.default_hooks.checkpoint.save_best == 'coco/segm_mAP'
    check_data(cfg, ('train', 'val', 'test'))
    (height, width), lines = plan.recipe.size, plan_text(plan).splitlines()
    assert height < width
    assert f'data:          {coco}: COCO' in lines
    assert 'split:         as the data has it' in lines
    assert f'image size:    {height}x{width} (H x W): {plan.recipe.size_reason}' in lines
    assert any(line.startswith(f'schedule:      {plan.recipe.epochs} epochs, ') for line in lines)
    assert cfg.test_dataloader.dataset.pipeline[1].scale == (width, height)  # MMDetection's order


def test_the_written_config_is_complete_and_the_annotations_are_cocos(coco, tmp_path):
    cfg, _ = planned(MASK_RCNN, coco, tmp_path / 'out')
    again = Config.fromfile(write_config(cfg))
    assert again.model == cfg.model
    assert again.train_dataloader == cfg.train_dataloader
    init_default_scope('mmdet')
    dataset = DATASETS.build(again.train_dataloader.dataset)
    assert len(dataset) == 8  # images without objects, too
    assert {**dataset[0]['data_samples'].gt_instances}.keys() >= {'bboxes', 'labels', 'masks'}
    assert json.loads((tmp_path / 'out/data/train.json').read_text()).keys() == {'images', 'annotations', 'categories'}


def test_names_of_classes_and_folders_are_data(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', 'evaluated')
    names = ['{{$HOME:}}', '{{ fileDirname }}', 'a, b=c']
    root = tmp_path / '{{$HOME:}} 100%'
    write_coco(root, made(train=8, val=3))
    for path in root.glob('annotations/*.json'):
        content = json.loads(path.read_text())
        for category, name in zip(content['categories'], names):
            category['name'] = name
        path.write_text(json.dumps(content))
    cfg, _ = planned(MASK_RCNN, root, tmp_path / '{{$HOME:}}')
    merge_options(cfg, ['train_dataloader.batch_size=1'])
    again = load_config(str(write_config(cfg)))
    assert again.train_dataloader == cfg.train_dataloader
    assert list(again.train_dataloader.dataset.metainfo.classes) == names
    check_data(again, ('train', 'val'))
    init_default_scope('mmdet')
    assert len(DATASETS.build(again.train_dataloader.dataset)) == 8


def test_the_schedule_is_the_recipes(coco, tmp_path):
    cfg, plan = planned(MASK_RCNN, coco, tmp_path / 'out', epochs=20, size=(64, 96))
    recipe = plan.recipe
    assert cfg.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=20, val_interval=2)
    warmup, cosine = cfg.param_scheduler
    assert warmup.end == cosine.begin == recipe.warmup
    assert cosine.end == recipe.steps == 20 * 2
    assert cfg.optim_wrapper.optimizer.lr == recipe.lr
    sizes = [step.scale for step in cfg.train_dataloader.dataset.pipeline if 'scale' in step]
    assert [tuple(size) for size in sizes] == [(192, 192)]  # of a mosaic of four; MMDetection needs it square for masks
    switch = next(hook for hook in cfg.custom_hooks if 'switch_pipeline' in hook)
    assert [tuple(step.scale) for step in switch.switch_pipeline if 'scale' in step] == [(96, 64)]
    assert switch.switch_epoch == recipe.plain_from == 16
    for split in ('train', 'val'):
        pipeline = cfg[f'{split}_dataloader'].dataset.pipeline
        assert [step.keep_ratio for step in pipeline if 'scale' in step] == [True]


def test_a_draft_is_moved_into_place_with_all_paths_in_it(tmp_path):
    size = (64, 48)
    for kind in ('images', 'labels'):
        (tmp_path / 'data' / kind).mkdir(parents=True)
    colors = np.zeros((2, *size[::-1], 3), np.uint8)
    colors[1, 10:] = 200  # gray, so that the order of channels does not matter
    for number in range(12):
        write_images(tmp_path / 'data/images', [f'p{number:05d}.png'], size)
        cv2.imwrite(str(tmp_path / f'data/labels/p{number:05d}.png'), colors[number % 2])
    (tmp_path / 'data/classes.txt').write_text('black 0 0 0\ngray 200 200 200\n')
    work, draft = tmp_path / 'work "{{$HOME:}}"', tmp_path / 'work "{{$HOME:}}"' / '.draft'
    cfg, _ = planned(UPERNET, tmp_path / 'data', draft)
    config = put_in_place(cfg, work)
    shutil.rmtree(draft)
    again = load_config(str(config))
    assert cfg.work_dir == again.work_dir == str(work)
    assert '.draft' not in again.pretty_text
    labels = []
    for split in ('train', 'val'):
        assert again[f'{split}_dataloader'].dataset.ann_file == str(work / f'data/{split}.json')
        for record in json.loads((work / f'data/{split}.json').read_text()):
            assert record['seg_map_path'].startswith(f'{work}/data/labels/')
            labels.append(np.unique(cv2.imread(record['seg_map_path'], cv2.IMREAD_UNCHANGED)).tolist())
    assert sorted(labels) == [[0]] * 6 + [[0, 1]] * 6
    check_data(again, ('train', 'val', 'test'))


def test_label_maps_that_were_written_are_not_written_again_for_a_draft(tmp_path):
    written, draft = tmp_path / 'work/data', tmp_path / 'draft'
    (written / 'labels').mkdir(parents=True)
    for name in ('label_maps.json', 'train.json', 'labels/a.png'):
        (written / name).write_text(name)
    os.utime(written / 'labels/a.png', ns=(5, 5))
    begin_draft(draft, tmp_path / 'work', str(tmp_path / 'my_data'))
    assert sorted(path.name for path in draft.rglob('*.*')) == ['a.png', 'label_maps.json']
    assert (draft / 'data/labels/a.png').stat().st_mtime_ns == 5


def test_a_move_that_is_interrupted_leaves_no_description_of_other_label_maps(tmp_path, monkeypatch):
    work, draft = tmp_path / 'work', tmp_path / 'draft'
    for folder in (work, draft):
        (folder / 'data').mkdir(parents=True)
        (folder / 'data/label_maps.json').write_text(f'of {folder.name}')
        (folder / 'data/a.png').write_text(f'of {folder.name}')

    def interrupted(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, 'replace', interrupted)
    with pytest.raises(KeyboardInterrupt):
        put_in_place(Config(dict(work_dir=str(draft))), work)
    assert not (work / 'data/label_maps.json').exists()


def test_a_work_directory_in_the_data_may_have_logs_and_what_our_tools_wrote(tmp_path):
    work = tmp_path / 'my_data/work'
    work.mkdir(parents=True)
    (work / 'train.log').touch()
    begin_draft(tmp_path / 'draft', work, str(tmp_path / 'my_data'))
    (work / 'p00000.png').touch()
    with pytest.raises(UserError, match='where a training writes files of its own'):
        begin_draft(tmp_path / 'draft', work, str(tmp_path / 'my_data'))
    (work / MARKER).touch()
    begin_draft(tmp_path / 'draft', work, str(tmp_path / 'my_data'))


def test_boxes_alone_are_refused_for_masks_and_taken_for_boxes(tmp_path):
    write_yolo(tmp_path / 'data', made(train=8, masks=False))
    with pytest.raises(UserError, match=r'have a box and no mask.*train faster_rcnn_fasternet_t0,'):
        planned('configs/mask_rcnn_fasternet_t0.py', tmp_path / 'data', tmp_path / 'out')
    options = ['model.backbone.init_cfg=None']
    cfg, _ = planned('configs/faster_rcnn_fasternet_t0.py', tmp_path / 'data', tmp_path / 'out', options)
    assert cfg.val_evaluator.metric == ['bbox']
    assert cfg.model.roi_head.bbox_head.num_classes == 3
    assert not cfg.train_dataloader.dataset.pipeline[1].with_mask


def test_an_object_that_lost_its_outline_is_named_for_masks_and_trained_as_a_box_for_boxes(coco, tmp_path):
    path = coco / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['segmentation'] = [[1, 1, 5, 5]]
    path.write_text(json.dumps(content))
    count = sum(len(json.loads(file.read_text())['annotations']) for file in path.parent.iterdir())
    message = (
        rf'1 of the {count} objects in .* have a box and no mask \(.*instances_train2017.json: annotation 100 .* has a '
        r'polygon of 2 points .*\), but .* learns masks: mend these outlines, or train faster_rcnn_fasternet_t0,'
    )
    with pytest.raises(UserError, match=message):
        planned(MASK_RCNN, coco, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    options = ['model.backbone.init_cfg=None']
    _, plan = planned('configs/faster_rcnn_fasternet_t0.py', coco, tmp_path / 'out', options)
    assert sum(map(sum, plan.data.class_counts.values())) == count


@pytest.mark.parametrize(
    ('config', 'of_boxes'),
    [
        ('mask_rcnn_fasternet_t1', 'faster_rcnn_fasternet_t1'),
        ('shapes/mask_rcnn_fasternet_t0_shapes', 'faster_rcnn_fasternet_t0'),
        ('rtmdet_ins_fasternet_s', 'rtmdet_fasternet_s'),
        ('shapes/rtmdet_ins_fasternet_t0_shapes', 'rtmdet_fasternet_t0'),
    ],
)
def test_a_config_for_masks_is_refused_for_boxes_by_the_name_of_one_that_fits(config, of_boxes, tmp_path):
    write_yolo(tmp_path / 'data', made(train=3, val=1, masks=False))
    message = rf'have a box and no mask, but .*{config}.py learns masks: train {of_boxes}, which learns boxes alone'
    with pytest.raises(UserError, match=message):
        planned(config, tmp_path / 'data', tmp_path / 'out')


def test_own_data_never_make_a_crowd_background_and_published_configs_are_as_published(coco, tmp_path):
    published = fresh_config('configs/mask_rcnn_fasternet_t0.py').model.train_cfg
    cfg, _ = planned(MASK_RCNN, coco, tmp_path / 'out')
    for stage in ('rpn', 'rcnn'):
        assert published[stage].assigner.type == 'MaxIoUAssigner'
        ours = cfg.model.train_cfg[stage].assigner
        assert ours == {**published[stage].assigner, 'type': 'fasternet_mm.IgnoringAssigner', 'ignore_iof_thr': 0.5}


SINGLE_STAGE = dict(
    retinanet=dict(assigner='fasternet_mm.IgnoringAssigner'),
    atss=dict(assigner='ATSSAssigner'),
    gfl=dict(assigner='ATSSAssigner'),
    tood=dict(initial_assigner='ATSSAssigner', assigner='TaskAlignedAssigner'),
    fcos=None,
    yolox=None,
    rtmdet_fasternet_t0=dict(assigner='DynamicSoftLabelAssigner'),
    rtmdet_ins_fasternet_t0=dict(assigner='DynamicSoftLabelAssigner'),
)
"""What assigns in each, after it was set to data of one's own; None where crowds cannot be left out."""

PUBLISHED = dict(
    retinanet='retinanet_r50_fpn_1x_coco',
    atss='atss_r50_fpn_1x_coco',
    gfl='gfl_r50_fpn_1x_coco',
    tood='tood_r50_fpn_1x_coco',
    fcos='fcos_r50-caffe_fpn_gn-head_1x_coco',
    yolox='yolox_tiny_8xb8-300e_coco',
)


@pytest.mark.parametrize('method', SINGLE_STAGE)
def test_single_stage_detectors_leave_crowds_out_or_the_plan_warns(method, coco, tmp_path):
    if method in PUBLISHED:
        config = tmp_path / f'{method}.py'
        config.write_text(
            f"_base_ = 'mmdet::{method}/{PUBLISHED[method]}.py'\n"
            "model = dict(backbone=dict(_delete_=True, type='fasternet_mm.FasterNet', arch='t0'))\n"
            'optim_wrapper = dict(optimizer=dict(lr=0.01))\nauto_scale_lr = dict(base_batch_size=16)\n'
        )
    path = coco / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    content['annotations'][0].update(iscrowd=1)
    path.write_text(json.dumps(content))
    options = ['model.backbone.init_cfg=None'] if method not in PUBLISHED else []
    cfg, plan = planned(str(config) if method in PUBLISHED else method, coco, tmp_path / 'out', options)
    assert cfg.model.bbox_head.num_classes == 3
    warnings = [problem for problem in plan.problems if problem.kind is Fault.LEARNED_AS_BACKGROUND]
    if SINGLE_STAGE[method] is None:
        head = dict(fcos='FCOSHead', yolox='YOLOXHead')[method]
        assert f'(crowds or difficult objects, 1 in all) are learned as background, since {head}' in str(warnings[0])
        return
    assert not warnings
    assigners = {name: cfg.model.train_cfg[name] for name in SINGLE_STAGE[method]}
    kinds = {name: assigner.get('assigner', assigner).type for name, assigner in assigners.items()}
    assert kinds == SINGLE_STAGE[method]
    again, _ = planned(str(write_config(cfg)), coco, tmp_path / 'again')
    assert again.model.train_cfg == cfg.model.train_cfg


def test_crowds_are_left_out_of_what_sizes_and_the_split_are_chosen_by(coco, tmp_path):
    path = coco / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    for record in content['annotations'][1:]:
        record.update(iscrowd=1)
    path.write_text(json.dumps(content))
    cfg, plan = planned(MASK_RCNN, coco, tmp_path / 'out')
    assert cfg.find_unused_parameters  # a process may get images of crowds alone
    box = content['annotations'][0]['bbox']
    assert object_sides(plan.data) == [(box[2] * box[3]) ** 0.5]
    assert sum(map(len, plan.data.image_classes['train'])) == 1


def test_mistakes_are_named_before_anything_is_written(coco, tmp_path):
    path = coco / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    content['annotations'][0]['image_id'] = 999
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r'has 1 mistake .*999.*mend them, fasternet-mm check-data .*data lists all'):
        planned(MASK_RCNN, coco, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_a_work_directory_that_cannot_be_written_is_named(coco, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='file/out cannot be written'):
        planned(MASK_RCNN, coco, tmp_path / 'file' / 'out')


@pytest.fixture
def label_maps(tmp_path):
    """Images with stripes of the labels 0 to 6, which begin in each with another one."""
    for split, numbers in (('train', range(12)), ('val', range(12, 15))):
        write_images(tmp_path / 'data/images' / split, [f'p{number:05d}.png' for number in numbers])
        (tmp_path / 'data/labels' / split).mkdir(parents=True)
        for number in numbers:
            stripes = ((np.arange(48) // 4 + number) % 7).astype(np.uint8)
            path = tmp_path / f'data/labels/{split}/p{number:05d}.png'
            assert cv2.imwrite(str(path), np.repeat(stripes[:, None], 64, axis=1))
    return tmp_path / 'data'


def test_label_maps_set_heads_crops_and_the_ignored_label(label_maps, tmp_path):
    cfg, plan = planned(UPERNET, label_maps, tmp_path / 'out', ignored=6)
    assert plan.data.classes == [f'class {number}' for number in range(6)]
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 6
    assert cfg.model.decode_head.ignore_index == cfg.model.data_preprocessor.seg_pad_val == 255
    assert cfg.train_cfg == dict(
        type='IterBasedTrainLoop', max_iters=plan.recipe.steps, val_interval=plan.recipe.interval
    )
    check_data(cfg, ('train', 'val', 'test'))
    init_default_scope('mmseg')
    sample = DATASETS.build(cfg.train_dataloader.dataset)[0]
    assert plan.recipe.size == (48, 64)
    assert cfg.model.data_preprocessor.size == cfg.model.test_cfg.crop_size == (64, 64)
    assert max(sample['inputs'].shape[-2:]) <= 64
    assert sample['inputs'].shape[-2:] == sample['data_samples'].gt_sem_seg.data.shape[-2:]
    assert {*sample['data_samples'].gt_sem_seg.data.unique().tolist()} == {0, 1, 2, 3, 4, 5, 255}


@pytest.mark.parametrize('by_name', [False, True])
@pytest.mark.parametrize('ignored', [0, 3, 6, 11, 255])
def test_predictions_that_are_right_wherever_it_counts_score_100_whatever_is_ignored(
    ignored, by_name, label_maps, tmp_path
):
    for path in label_maps.glob('labels/*/*.png'):
        labels = np.array(Image.open(path))
        labels[:20] = ignored
        Image.fromarray(labels).save(path)
    if by_name:
        names = {**{label: f'c{label}' for label in range(7)}, ignored: 'void'}
        (label_maps / 'classes.txt').write_text(''.join(f'{label} {name}\n' for label, name in names.items()))
    cfg, plan = planned(UPERNET, label_maps, tmp_path / 'out', ignored=None if by_name else ignored)
    check_data(cfg, ('train', 'val', 'test'))
    assert len(plan.data.classes) == 7 - (ignored < 7)
    init_default_scope('mmseg')
    for split in ('val', 'test'):
        dataset, metric = DATASETS.build(cfg[f'{split}_dataloader'].dataset), METRICS.build(cfg[f'{split}_evaluator'])
        metric.dataset_meta = dataset.metainfo
        for number in range(len(dataset)):
            true = dataset[number]['data_samples'].gt_sem_seg.data
            assert (true[:, :20] == cfg.model.decode_head.ignore_index).all()
            predicted = torch.where(
                true == cfg.model.decode_head.ignore_index, 1, true
            )  # there the model says anything
            metric.process({}, [dict(pred_sem_seg=dict(data=predicted), gt_sem_seg=dict(data=true))])
        assert metric.evaluate(len(dataset)) == dict(aAcc=100, mIoU=100, mAcc=100)


def test_a_detectors_data_has_no_ignored_label(coco, tmp_path):
    with pytest.raises(UserError, match='--ignore-label 3 is for label maps'):
        planned(MASK_RCNN, coco, tmp_path / 'out', ignored=3)


def test_weights_come_from_coco_where_they_can_be_had_else_from_imagenet_else_they_are_random(monkeypatch):
    fast = ['model.roi_head.bbox_head.fc_out_channels=16']  # most of the weights, and here of the time
    three = [*fast, 'model.roi_head.bbox_head.num_classes=3']
    mask_rcnn, faster_rcnn = 'configs/mask_rcnn_fasternet_s.py', 'configs/faster_rcnn_fasternet_s.py'
    state = build_model(fresh_config(mask_rcnn, fast)).state_dict()
    available = {'mask_rcnn_fasternet_s_coco': dict(state_dict=state), 'fasternet_s_in1k': dict(state_dict={})}

    def read(source, mmap):
        if source not in available:
            raise UserError(f'{source} is out of reach')
        return available[source]

    monkeypatch.setattr(start_weights, 'read_checkpoint', read)
    monkeypatch.setattr(start_checkpoint, 'read_checkpoint', read)
    ours = fresh_config(mask_rcnn, three)
    ours.model.roi_head.mask_head.num_classes = 3
    of = f'of {len(state)} tensors'
    assert (
        start_weights.choose_start(ours)
        == f'mask_rcnn_fasternet_s_coco: {len(state) - 6} {of}, all but 6 of its classes'
    )
    assert ours.load_from == 'mask_rcnn_fasternet_s_coco'
    boxes = fresh_config(faster_rcnn, three)
    assert start_weights.choose_start(boxes).endswith('tensors, all but 4 of its classes and 12 for masks')
    heads = ['roi_head.bbox_head.fc_cls.', 'roi_head.bbox_head.fc_reg.', 'roi_head.mask_head.']
    assert boxes.load_options == dict(leave_out=heads)
    rtmdet = fresh_config('configs/rtmdet_fasternet_s.py')
    assert re.fullmatch(
        r'mask_rcnn_fasternet_s_coco: the backbone alone, \d+ tensors, of a Mask R-CNN',
        start_weights.choose_start(rtmdet),
    )
    assert rtmdet.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='mask_rcnn_fasternet_s_coco')
    other = fresh_config(faster_rcnn, [*fast, 'model.rpn_head.feat_channels=128'])
    assert start_weights.choose_start(other).startswith('fasternet_s_in1k')
    assert other.load_from is None
    scratch = fresh_config(mask_rcnn, fast)
    assert not start_weights.lacks_weights(scratch)
    assert start_weights.lacks_weights(scratch, 'scratch')
    assert start_weights.choose_start(scratch, 'scratch').startswith('random weights')
    assert (scratch.load_from, scratch.model.backbone.init_cfg.type) == (None, 'Kaiming')
    del available['mask_rcnn_fasternet_s_coco']
    cfg = fresh_config(mask_rcnn)
    assert start_weights.choose_start(cfg).startswith('fasternet_s_in1k, in the backbone')
    del available['fasternet_s_in1k']
    assert start_weights.choose_start(cfg).startswith('random weights')
    assert cfg.model.backbone.init_cfg.type == 'Kaiming'
    cfg.load_from = 'mine.pth'
    assert start_weights.choose_start(cfg) == 'mine.pth'


def test_a_sheet_shows_every_class_that_it_has_room_for():
    image_classes = [{0}] * 50 + [{label} for label in range(1, 12)]
    samples = choose_samples(image_classes)
    assert len(samples) == len(set(samples)) == 12
    assert {label for number in samples for label in image_classes[number]} == set(range(12))


def test_a_reader_of_random_weights_is_not_left_with_the_authors_small_ones():
    cfg = fresh_config('configs/mask_rcnn_fasternet_t0.py', ['model.backbone.init_cfg=None'])
    assert start_weights.choose_start(cfg).startswith('random weights')
    backbone = build_model(cfg).backbone
    backbone.init_weights()
    assert torch.std(backbone.stages[0].blocks[0].mlp[0].weight) > 0.05


@pytest.mark.parametrize(('objects', 'sampled', 'classified'), [(1, 128, 300), (50, 200, 500), (500, 512, 1000)])
def test_from_scratch_a_box_head_gets_the_regions_that_the_fullest_image_needs(
    objects, sampled, classified, coco, tmp_path, monkeypatch
):
    monkeypatch.setattr('fasternet_mm.own_data.plan.training_plan.lacks_weights', lambda *_: True)
    file = coco / 'annotations/instances_val2017.json'
    content = json.loads(file.read_text())
    image = content['annotations'][0]['image_id']
    others = [annotation for annotation in content['annotations'] if annotation['image_id'] != image]
    same = [{**content['annotations'][0], 'id': 10_000 + number} for number in range(objects)]
    file.write_text(json.dumps({**content, 'annotations': [*others, *same]}))
    cfg, _ = planned('configs/mask_rcnn_fasternet_t0.py', coco, tmp_path / 'out')
    assert (cfg.model.train_cfg.rcnn.sampler.num, cfg.model.test_cfg.rpn.max_per_img) == (sampled, classified)


@pytest.mark.parametrize('from_scratch', [True, False])
def test_from_scratch_neck_and_heads_have_norms(from_scratch, coco, tmp_path, monkeypatch):
    monkeypatch.setattr('fasternet_mm.own_data.plan.training_plan.lacks_weights', lambda *_: from_scratch)
    cfg, _ = planned('configs/mask_rcnn_fasternet_t0.py', coco, tmp_path / 'out')
    heads = cfg.model.roi_head
    parts = cfg.model.neck, heads.bbox_head, heads.mask_head
    assert [bool(part.get('norm_cfg')) for part in parts] == [from_scratch] * 3
    assert heads.bbox_head.type == ('ConvFCBBoxHead' if from_scratch else 'Shared2FCBBoxHead')
    assert bool(cfg.optim_wrapper.get('clip_grad')) is from_scratch
    names = [name for name, module in build_model(cfg).named_modules() if 'BatchNorm' in type(module).__name__]
    assert any(name.startswith('neck.') for name in names) is from_scratch
