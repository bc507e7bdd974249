import numpy as np
import pytest
import torch
from mmseg.datasets import LoadAnnotations
from mmseg.evaluation import IoUMetric
from PIL import Image

from fasternet_mm.errors import UserError
from fasternet_mm.report.label_map_errors import (
    LabelMapPairs,
    compare,
    find_label_maps,
    find_same_names,
    number_classes,
)

CLASSES = ['sky', 'road', 'tree', 'never']


def write_maps(folder, labels):
    folder.mkdir()
    paths = [folder / f'{number}.png' for number in range(len(labels))]
    for path, one in zip(paths, labels):
        Image.fromarray(one.astype(np.uint8)).save(path)
    return paths


@pytest.fixture
def maps(tmp_path):
    rng = np.random.default_rng(0)
    truths = rng.integers(0, 3, (4, 6, 7))
    predictions = np.where(rng.random(truths.shape) < 0.7, truths, rng.integers(0, 3, truths.shape))
    truths[rng.random(truths.shape) < 0.1] = 255
    return LabelMapPairs(
        write_maps(tmp_path / 'found', predictions), write_maps(tmp_path / 'true', truths), [], CLASSES
    )


@pytest.mark.parametrize(('ignored', 'reduced'), [*((label, False) for label in (0, 1, 2, 3, 11, 255)), (255, True)])
def test_figures_are_mmsegmentations_whatever_is_ignored(ignored, reduced, maps, tmp_path):
    for path in maps.truths:
        labels = np.array(Image.open(path))
        labels[labels == 255] = ignored
        labels = np.where(labels == 255, 0, labels + 1) if reduced else labels
        Image.fromarray(labels.astype(np.uint8)).save(path)
    maps.ignored, maps.reduce_zero_label = ignored, reduced
    metric = IoUMetric(iou_metrics=['mIoU'], ignore_index=ignored)
    metric.dataset_meta = dict(classes=CLASSES)
    for predicted, true in zip(maps.predictions, maps.truths):
        results = LoadAnnotations()(dict(seg_map_path=str(true), reduce_zero_label=reduced, seg_fields=[]))
        labels = np.array(Image.open(predicted), dtype=np.int64)
        read = [torch.from_numpy(one.astype(np.int64))[None] for one in (labels, results['gt_seg_map'])]
        metric.process({}, [dict(pred_sem_seg=dict(data=read[0]), gt_sem_seg=dict(data=read[1]))])
        Image.fromarray((labels + reduced).astype(np.uint8)).save(predicted)
    theirs = metric.evaluate(4)
    ours = compare(maps)
    figures = np.nanmean(ours.iou), np.nanmean(ours.accuracy), ours.pixel_accuracy
    assert [100 * value for value in figures] == pytest.approx(
        [theirs[key] for key in ('mIoU', 'mAcc', 'aAcc')], abs=0.006
    )
    assert np.isnan(ours.iou[3])


def test_zero_is_left_out_and_classes_begin_with_one_where_asked(maps):
    plain = compare(maps)
    for path in (*maps.predictions, *maps.truths):
        labels = np.array(Image.open(path))
        Image.fromarray(np.where(labels == 255, 0, labels + 1).astype(np.uint8)).save(path)
    maps.reduce_zero_label = True
    np.testing.assert_array_equal(compare(maps).matrix, plain.matrix)
    assert number_classes(maps) == ['1', '2', '3']


def test_an_images_loss_is_what_a_perfect_prediction_of_it_alone_would_add(maps):
    before = compare(maps)
    losses = before.losses
    for number, path in enumerate(maps.predictions):
        kept = path.read_bytes()
        true = np.array(Image.open(maps.truths[number]))
        mended = np.where(true == 255, 0, true)
        Image.fromarray(mended).save(path)
        assert losses[number] == pytest.approx(np.nanmean(compare(maps).iou) - np.nanmean(before.iou))
        path.write_bytes(kept)
    assert losses.min() > 0.01


@pytest.mark.parametrize(
    ('labels', 'message'),
    [
        (np.full((6, 7), 9), 'has the label 9, which is none of the 4 classes'),
        (np.full((6, 7), 255), 'has pixels without a class'),
        (np.zeros((7, 6)), r'found/2.png has 7x6 pixels .H x W., .*true/2.png 6x7'),
        (np.zeros((6, 7, 3)), 'has mode RGB: a label map has one channel'),
    ],
)
def test_a_prediction_that_does_not_fit_is_named(labels, message, maps):
    Image.fromarray(labels.astype(np.uint8)).save(maps.predictions[2])
    with pytest.raises(UserError, match=message):
        compare(maps)


def test_files_of_the_same_name_belong_together_in_whatever_folders(tmp_path):
    for name in ('found/a/0.png', 'found/b/0.png', 'found/1.png', 'images/a/0.jpg', 'images/b/0.PNG', 'images/0.jpg'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    names = find_label_maps(tmp_path / 'found')
    assert names == ['1', 'a/0', 'b/0']
    found = find_same_names(names[1:], tmp_path / 'images', ['.jpg', '.png'])
    assert found == [tmp_path / 'images/a/0.jpg', tmp_path / 'images/b/0.PNG']
    with pytest.raises(UserError, match=r'images has no 1 with .jpg or .png \(1 of 3 are missing\)'):
        find_same_names(names, tmp_path / 'images', ['.jpg', '.png'])
    (tmp_path / 'images/a/0.png').touch()
    with pytest.raises(UserError, match=r'images has both 0.jpg and 0.png: leave one'):
        find_same_names(['a/0'], tmp_path / 'images', ['.jpg', '.png'])
