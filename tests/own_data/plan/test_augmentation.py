import numpy as np
import pytest
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.dataset import Compose
from mmengine.registry import init_default_scope

from fasternet_mm.own_data.plan.augmentation import detection_pipelines, segmentation_pipelines
from fasternet_mm.own_data.plan.recipe import choose_recipe


def recipe(task='detection', count=20, **changes):
    settings = dict(batch=2, processes=1, lr=2e-4, base_batch=16, size=(60, 90), size_reason='')
    return choose_recipe(task, count, **{**settings, **changes})


def kinds(steps):
    return [step['type'] for step in steps]


def test_images_are_varied_until_the_last_part_of_the_training():
    pipelines = detection_pipelines(recipe(), masks=True)
    assert {'CachedMosaic', 'YOLOXHSVRandomAug', 'RandomFlip'} <= {*kinds(pipelines['train'])}
    assert kinds(pipelines['last']) == [
        'LoadImageFromFile',
        'LoadAnnotations',
        'RandomResize',
        'RandomFlip',
        'PackDetInputs',
    ]


@pytest.mark.parametrize(
    ('without', 'left_out', 'stays'),
    [('mosaic', 'CachedMosaic', 'YOLOXHSVRandomAug'), ('color', 'YOLOXHSVRandomAug', 'CachedMosaic')],
)
def test_each_ingredient_can_be_left_out(without, left_out, stays):
    steps = kinds(detection_pipelines(recipe(without=[without]), masks=False)['train'])
    assert left_out not in steps
    assert stays in steps


def test_a_mosaic_needs_four_images():
    assert 'mosaic' in recipe(count=4).ingredients
    assert 'mosaic' not in recipe(count=3).ingredients
    assert 'CachedMosaic' not in kinds(detection_pipelines(recipe(count=1), masks=False)['train'])


def test_segmenters_have_no_mosaic_and_vary_in_color():
    assert 'mosaic' not in recipe('segmentation').ingredients
    assert 'PhotoMetricDistortion' in kinds(segmentation_pipelines(recipe('segmentation'))['train'])
    assert 'PhotoMetricDistortion' not in kinds(
        segmentation_pipelines(recipe('segmentation', without=['color']))['train']
    )


@pytest.fixture
def mosaic():
    """The train pipeline's steps between reading and packing."""
    init_default_scope('mmdet')
    return Compose(detection_pipelines(recipe(), masks=True)['train'][2:-1])


def an_image(number):
    """Gray 50, with a white square that is an object; or an ignored region, where the number is odd."""
    x, y = 10 + 5 * number, 8 + 4 * number
    image = np.full((60, 90, 3), 50, np.uint8)
    image[y : y + 20, x : x + 24] = 255
    mask = np.zeros((1, 60, 90), np.uint8)
    mask[0, y : y + 20, x : x + 24] = 1
    return dict(
        img=image,
        img_shape=(60, 90),
        gt_bboxes=HorizontalBoxes(np.float32([[x, y, x + 24, y + 20]])),
        gt_bboxes_labels=np.array([number % 2]),
        gt_ignore_flags=np.array([number % 2 == 1]),
        gt_masks=BitmapMasks(mask, 60, 90),
    )


def test_in_a_mosaic_boxes_masks_and_ignored_regions_stay_with_their_objects(mosaic):
    mosaics = [mosaic(an_image(number % 5)) for number in range(40)][10:]
    count = 0
    for result in mosaics:
        assert result['img'].shape == (64, 96, 3)  # whole strides of the coarsest map
        boxes, masks = result['gt_bboxes'].numpy(), result['gt_masks'].masks
        assert len(boxes) == len(masks) == len(result['gt_bboxes_labels'])
        # Odd images have label 1 and are ignored, wherever they came to lie.
        assert np.array_equal(result['gt_ignore_flags'], result['gt_bboxes_labels'] == 1)
        for (x1, y1, x2, y2), mask in zip(boxes, masks):
            rows, columns = np.nonzero(mask)
            assert np.abs([columns.min() - x1, rows.min() - y1, columns.max() + 1 - x2, rows.max() + 1 - y2]).max() <= 2
            inside = result['img'][mask.astype(bool)].reshape(-1, 3).max(axis=1)
            assert inside.mean() > 150  # white, of any brightness
            count += 1
    assert count > 20
