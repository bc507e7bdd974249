import numpy as np
import pytest
import torch
from mmseg.evaluation import IoUMetric
from PIL import Image

from fasternet_mm.errors import UserError
from fasternet_mm.evaluation.label_map_errors import LabelMaps, compare, find_same_names, number_classes

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
    return LabelMaps(write_maps(tmp_path / 'found', predictions), write_maps(tmp_path / 'true', truths), [], CLASSES)


def test_figures_are_mmsegmentations(maps):
    metric = IoUMetric(iou_metrics=['mIoU'])
    metric.dataset_meta = dict(classes=CLASSES)
    for predicted, true in zip(maps.predictions, maps.truths):
        read = [torch.from_numpy(np.array(Image.open(path), dtype=np.int64))[None] for path in (predicted, true)]
        metric.process({}, [dict(pred_sem_seg=dict(data=read[0]), gt_sem_seg=dict(data=read[1]))])
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


def test_a_pictures_loss_is_what_a_perfect_prediction_of_it_alone_would_add(maps):
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
        (np.zeros((7, 6)), r'found/2.png has 6x7 pixels, .*true/2.png 7x6'),
        (np.zeros((6, 7, 3)), 'has 3 channels'),
    ],
)
def test_a_prediction_that_does_not_fit_is_named(labels, message, maps):
    Image.fromarray(labels.astype(np.uint8)).save(maps.predictions[2])
    with pytest.raises(UserError, match=message):
        compare(maps)


def test_files_of_the_same_name_belong_together(maps, tmp_path):
    (tmp_path / 'pictures').mkdir()
    for name in ('0.jpg', '1.PNG', '2.jpg', '2.txt'):
        (tmp_path / 'pictures' / name).touch()
    found = find_same_names(maps.truths[:3], tmp_path / 'pictures', ['.jpg', '.png'])
    assert [path.name for path in found] == ['0.jpg', '1.PNG', '2.jpg']
    with pytest.raises(UserError, match=r'pictures has no 3 with .jpg or .png \(1 of 4 are missing\)'):
        find_same_names(maps.truths, tmp_path / 'pictures', ['.jpg', '.png'])
