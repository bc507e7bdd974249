"""Tests of models in tiles: the metric sees whole images."""

import json

import cv2
import numpy as np
import pytest
import torch
from exact_models import find_shapes, label_pixels
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner

from fasternet_mm.datasets.shapes import CLASSES
from fasternet_mm.inference.tiled_testing import use_tiles

BOXES = np.array([[10, 20, 50, 70], [100, 30, 40, 40], [150, 100, 25, 50], [230, 5, 220, 310]])
"""x, y, width and height in an image of 320 x 480: in a tile of 160 x 160, in two, in four, and larger than a tile."""


class ExactModel(BaseModel):
    """Takes tiles of the size that the pipeline resizes them to: twice that in the image."""

    def __init__(self, find):
        super().__init__()
        self.find = find

    def forward(self, inputs, data_samples=None, mode='predict'):
        raise NotImplementedError

    def test_step(self, data):
        assert {tuple(image.shape) for image in data['inputs']} == {(3, 320, 320)}
        small = [image[:, ::2, ::2] for image in data['inputs']]
        return self.find(dict(inputs=small))


def figures_in_tiles(cfg, find, tmp_path):
    """The figures of a test in tiles of 160 x 160, whose pipeline doubles images, and whose model is a stand-in."""
    use_tiles(cfg, tile=(160, 160), overlap=0.25)
    runner = Runner(
        model=ExactModel(find),
        work_dir=str(tmp_path / 'work'),
        test_dataloader=cfg.test_dataloader,
        test_evaluator=cfg.test_evaluator,
        test_cfg=dict(type='TestLoop'),
        custom_hooks=cfg.custom_hooks,
        default_scope=cfg.default_scope,
        cfg=cfg,
        experiment_name=tmp_path.name,
    )
    figures = runner.test()
    assert isinstance(runner.model, ExactModel)
    return figures


def loader(dataset):
    return dict(
        batch_size=2,
        num_workers=0,
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=False),
        drop_last=False,
    )


def test_objects_are_scored_in_the_image(tmp_path):
    images, annotations = [], []
    for number, flipped in enumerate((False, True), start=1):
        pixels = np.zeros((320, 480, 3), np.uint8)
        for label, (x, y, width, height) in enumerate(BOXES.tolist()):
            x = 480 - x - width if flipped else x
            pixels[y : y + height, x : x + width, label % 2] = 255
            outline = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=label % 2 + 1,
                    bbox=[x, y, width, height],
                    area=width * height,
                    iscrowd=0,
                    segmentation=[outline],
                )
            )
        cv2.imwrite(str(tmp_path / f'{number}.png'), pixels)
        images.append(dict(id=number, file_name=f'{number}.png', height=320, width=480))
    categories = [dict(id=1, name='blue'), dict(id=2, name='green')]
    content = dict(images=images, annotations=annotations, categories=categories)
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale_factor=2.0),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
    ]
    dataset = dict(
        type='CocoDataset',
        ann_file=str(tmp_path / 'truth.json'),
        data_prefix=dict(img=str(tmp_path)),
        metainfo=dict(classes=('blue', 'green')),
        pipeline=pipeline,
        test_mode=True,
    )
    metric = dict(
        type='fasternet_mm.CocoMetric',
        ann_file=str(tmp_path / 'truth.json'),
        metric=['bbox', 'segm'],
        results_file=None,
    )
    draw = dict(type='fasternet_mm.DrawPredictionsHook', out_dir=str(tmp_path / 'drawings'), score_thr=0)
    cfg = Config(
        dict(default_scope='mmdet', test_dataloader=loader(dataset), test_evaluator=metric, custom_hooks=[draw])
    )
    figures = figures_in_tiles(cfg, find_shapes, tmp_path)
    assert figures['coco/bbox_mAP'] == figures['coco/segm_mAP'] == 1
    assert cv2.imread(str(tmp_path / 'drawings' / '1.png')).shape == (320, 960, 3)


def test_label_maps_are_scored_in_the_image(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 4, (320, 480, 3)).astype(np.uint8)
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
        cv2.imwrite(str(tmp_path / folder / '1.png'), pixels[..., 0] if folder == 'labels' else pixels)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale_factor=2.0, interpolation='nearest'),
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs'),
    ]
    dataset = dict(
        type='BaseSegDataset',
        data_prefix=dict(img_path=str(tmp_path / 'images'), seg_map_path=str(tmp_path / 'labels')),
        img_suffix='.png',
        seg_map_suffix='.png',
        metainfo=dict(classes=tuple('abcd')),
        pipeline=pipeline,
    )
    metric = dict(type='IoUMetric', iou_metrics=['mIoU'])
    cfg = Config(dict(default_scope='mmseg', test_dataloader=loader(dataset), test_evaluator=metric))
    assert figures_in_tiles(cfg, label_pixels, tmp_path)['mIoU'] == 100


def test_the_command_tests_in_tiles(command, detector_cfg, detector, tmp_path, monkeypatch, root):
    """Objects of the reports, drawings and results files are in pixels of the images, of 160 x 160."""
    detector_cfg.dump(tmp_path / 'config.py')
    meta = dict(cfg=detector_cfg.pretty_text, dataset_meta=dict(classes=CLASSES))
    torch.save(dict(meta=meta, state_dict=detector.state_dict()), tmp_path / 'epoch_1.pth')
    monkeypatch.chdir(root)
    options = '--tile', '96', '96', '--out', tmp_path / 'results.json', '--show-dir', tmp_path / 'drawings'
    settings = ('test_dataloader.dataset.indices=2', 'test_dataloader.num_workers=0')
    settings += ('test_dataloader.persistent_workers=False', 'model.test_cfg.rcnn.score_thr=0.3')
    done = command('test', tmp_path, *options, '--cfg-options', *settings)
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / 'results.json').read_text())
    assert {tuple(record['segmentation']['size']) for record in records} == {(160, 160)}
    assert max(record['bbox'][0] for record in records) > 96
    assert cv2.imread(str(tmp_path / 'drawings' / 'sheet.png')) is not None


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--tta', '--tile', '96', '96'), '--tta changes whole images, and --tile cuts them: give one of the two'),
        (('--tile-whole',), '--overlap and --tile-whole say how to use tiles: add their size'),
    ],
)
def test_options_that_contradict_are_refused(command, options, message):
    done = command('test', 'shapes/mask_rcnn_fasternet_t0_shapes', 'none.pth', *options)
    assert done.returncode == 2
    assert message in done.stderr
