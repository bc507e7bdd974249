import hashlib
import json
import multiprocessing

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from fasternet_mm.datasets import shapes


@pytest.fixture
def few(monkeypatch):
    """The data set, with few images."""
    monkeypatch.setattr(shapes, 'SPLITS', {'train': 6, 'val': 3, 'test': 3})


def digest(root):
    files = sorted(path for path in root.rglob('*') if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(few, tmp_path):
    first, again, other = (
        digest(shapes.ensure_shapes(tmp_path / name, seed)) for name, seed in (('first', 0), ('again', 0), ('other', 1))
    )
    assert first == again
    assert first['images/train/0000.png'] != other['images/train/0000.png']
    assert first['images/train/0000.png'] != first['images/val/0000.png']


def test_masks_boxes_areas_and_labels_agree(few, tmp_path):
    root = shapes.ensure_shapes(tmp_path / 'shapes')
    coco = COCO(root / 'annotations' / 'train.json')
    assert [coco.cats[i]['name'] for i in sorted(coco.cats)] == list(shapes.CLASSES)
    assert len(coco.imgs) == 6
    for image in coco.imgs.values():
        pixels = cv2.imread(str(root / 'images/train' / image['file_name']))
        labels = cv2.imread(str(root / 'labels/train' / image['file_name']), cv2.IMREAD_UNCHANGED)
        assert pixels.shape == (image['height'], image['width'], 3)
        assert labels.shape == pixels.shape[:2]
        drawn = np.zeros_like(labels)
        for annotation in coco.imgToAnns[image['id']]:
            mask = coco.annToMask(annotation).astype(bool)
            ys, xs = np.nonzero(mask)
            assert annotation['area'] == mask.sum()
            assert annotation['bbox'] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
            assert not drawn[mask].any(), 'visible masks do not overlap'
            drawn[mask] = annotation['category_id']
        np.testing.assert_array_equal(drawn, labels)


def test_shapes_overlap_and_enough_of_each_stays_visible():
    hidden = 0
    for index in range(40):
        _, objects = shapes.draw_image(np.random.default_rng(index))
        assert objects
        for _, mask in objects:
            assert mask.sum() >= 28  # MIN_VISIBLE of the smallest area accepted
            filled = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9)))
            hidden += filled.sum() > 1.1 * mask.sum()
    assert hidden >= 3


def test_every_class_appears_about_equally_often():
    counts = np.zeros(len(shapes.CLASSES))
    for index in range(150):
        for category, _ in shapes.draw_image(np.random.default_rng(index))[1]:
            counts[category] += 1
    assert counts.min() > 0.6 * counts.mean()


def test_an_interruption_leaves_nothing_behind(few, tmp_path, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes.json, 'dumps', interrupted)
    with pytest.raises(KeyboardInterrupt):
        shapes.ensure_shapes(tmp_path / 'shapes')
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_made_again_unless_it_is_of_another_version(few, tmp_path, monkeypatch):
    root = shapes.ensure_shapes(tmp_path / 'shapes')
    made = (root / 'images/train/0000.png').stat().st_ino
    shapes.ensure_shapes(root)
    assert (root / 'images/train/0000.png').stat().st_ino == made
    monkeypatch.setattr(shapes, 'VERSION', shapes.VERSION + 1)
    shapes.ensure_shapes(root)
    assert json.loads((root / 'recipe.json').read_text())['version'] == shapes.VERSION
    assert (root / 'images/train/0000.png').stat().st_ino != made


def test_a_folder_of_something_else_is_never_touched(tmp_path):
    (tmp_path / 'shapes').mkdir()
    (tmp_path / 'shapes' / 'holiday.jpg').write_text('mine')
    with pytest.raises(FileExistsError, match='not the shapes data set'):
        shapes.ensure_shapes(tmp_path / 'shapes')
    assert (tmp_path / 'shapes' / 'holiday.jpg').read_text() == 'mine'


def test_processes_that_make_it_at_once_do_not_disturb_each_other(few, tmp_path):
    context = multiprocessing.get_context('fork')
    workers = [context.Process(target=shapes.ensure_shapes, args=(tmp_path / 'shapes',)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert [path.name for path in tmp_path.iterdir()] == ['shapes']
    assert len(digest(tmp_path / 'shapes')) == 2 * 12 + 3 + 1
