import numpy as np
import pytest
from planted_errors import measure
from pycocotools import mask as rle

from fasternet_mm.evaluation.coco_results import read_results
from fasternet_mm.evaluation.coco_truth import to_truth
from fasternet_mm.report.suspicious_labels import LEAST_SCORE, calibrate, rank_labels

SIZE = 400
CLASSES = {1: 'cat', 2: 'dog', 3: 'cow'}


def labeled(objects):
    """COCO content of images with ``[(category id, box), …]``; a third member has more keys of the annotation."""
    annotations = []
    for image_id, members in enumerate(objects, start=1):
        for category_id, box, *more in members:
            record = dict(id=len(annotations) + 1, image_id=image_id, category_id=category_id, bbox=box, iscrowd=0)
            annotations.append(record | dict(area=box[2] * box[3]) | (more[0] if more else {}))
    images = [dict(id=number, width=SIZE, height=SIZE) for number in range(1, len(objects) + 1)]
    return dict(images=images, annotations=annotations, categories=[dict(id=k, name=v) for k, v in CLASSES.items()])


def grid(image, rng):
    """Four objects far from each other."""
    return [
        (int(rng.integers(1, 4)), [x + float(rng.uniform(0, 20)), y + float(rng.uniform(0, 20)), 90.0, 70.0])
        for x, y in ((20, 20), (220, 20), (20, 220), (220, 220))
    ]


def seen(objects, rng, sure=True):
    """Detections of a model that finds all objects, nearly in their places, with a few unsure mistakes."""
    records = []
    for image_id, members in enumerate(objects, start=1):
        for category_id, box in members:
            jitter = rng.normal(0, 2, 4)
            score = rng.uniform(0.7, 0.95) if sure else rng.beta(5, 2)
            records.append((image_id, category_id, np.add(box, jitter).tolist(), score))
            records.append((image_id, category_id % 3 + 1, np.add(box, jitter).tolist(), rng.uniform(0.05, 0.3)))
        records.append((image_id, 1, [*rng.uniform(0, 300, 2).tolist(), 80.0, 80.0], rng.uniform(0.05, 0.2)))
    keys = ('image_id', 'category_id', 'bbox', 'score')
    return [dict(zip(keys, (*record[:3], float(record[3])))) for record in records]


@pytest.fixture
def objects():
    rng = np.random.default_rng(0)
    return [grid(number, rng) for number in range(30)]


def ranked(content, records):
    truth = to_truth(content, 'labels')
    return rank_labels(truth, read_results(records, truth))


def test_each_kind_of_mistake_comes_before_all_right_labels_and_is_called_by_its_kind(objects):
    records = seen(objects, np.random.default_rng(1))
    category_id, (x, y, width, height) = objects[0][0]
    objects[0][0] = (category_id % 3 + 1, [x, y, width, height])
    category_id, (x, y, width, height) = objects[1][0]
    objects[1][0] = (category_id, [x + width / 2, y, width, height])
    removed = objects[2].pop(0)[1]
    objects[3].append((1, [125.0, 125.0, 80.0, 80.0]))
    suspects = ranked(labeled(objects), records)
    first = {suspect.image_id: suspect for suspect in suspects[:4]}
    assert {number: suspect.kind for number, suspect in first.items()} == {
        1: 'wrong class',
        2: 'shifted box',
        3: 'missing label',
        4: 'superfluous label',
    }
    assert min(suspect.suspicion for suspect in suspects[:4]) > 0.7
    assert suspects[4].suspicion < 0.3
    np.testing.assert_allclose(first[3].box, removed, atol=10)  # where the model sees it
    assert first[2].overlap == pytest.approx(1 / 3, abs=0.05)
    assert [len(suspects), suspects == sorted(suspects, key=lambda suspect: -suspect.suspicion)] == [
        sum(map(len, objects)) + sum(suspect.annotation is None for suspect in suspects),
        True,
    ]


def test_the_sentences_name_label_and_prediction(objects):
    objects = [[(1, box) for _, box in members] for members in objects]
    records = seen(objects, np.random.default_rng(1))
    next(r for r in records if r['image_id'] == 1 and r['category_id'] == 1)['score'] = 0.9
    objects[0][0] = (2, objects[0][0][1])
    names = to_truth(labeled(objects), 'labels').category_names
    assert ranked(labeled(objects), records)[0].describe(names) == 'Labeled “dog”, and the model sees “cat” (0.90).'


def test_a_box_far_from_its_mask_is_suspicious_though_the_model_agrees_with_it(objects):
    records = seen(objects, np.random.default_rng(1))
    x, y, width, height = objects[5][1][1]
    mask = np.zeros((SIZE, SIZE), np.uint8, order='F')
    mask[round(y) : round(y + height / 4), round(x) : round(x + width)] = 1
    encoded = rle.encode(mask)
    for segmentation in (
        [[x, y, x + width, y, x + width, y + height / 4, x, y + height / 4]],
        dict(encoded, counts=encoded['counts'].decode()),
    ):
        objects[5][1] = (*objects[5][1][:2], dict(segmentation=segmentation))
        suspect = ranked(labeled(objects), records)[0]
        assert (suspect.kind, suspect.image_id) == ('box off its mask', 6)
        assert suspect.suspicion == pytest.approx(0.75, abs=0.02)


def test_one_object_with_two_labels_has_a_superfluous_one(objects):
    records = seen(objects, np.random.default_rng(1))
    category_id, box = objects[7][2]
    objects[7].append((category_id, [box[0] + 4, *box[1:]]))
    first, second = ranked(labeled(objects), records)[:2]
    assert (first.kind, first.image_id) == ('superfluous label', 8)
    assert second.suspicion < 0.3


def test_nothing_is_missing_in_a_crowd_and_a_crowd_is_not_judged(objects):
    records = seen(objects, np.random.default_rng(1))
    boxes = [box for _, box in objects[0]]
    objects[0] = [(1, [0, 0, SIZE, SIZE], dict(iscrowd=1))]
    suspects = [suspect for suspect in ranked(labeled(objects), records) if suspect.image_id == 1]
    assert suspects == []
    assert len(boxes) == 4


@pytest.mark.parametrize('sure', [True, False])
def test_without_mistakes_in_the_labels_a_good_model_suspects_few(sure, objects):
    records = seen(objects, np.random.default_rng(1), sure)
    suspects = ranked(labeled(objects), records)
    assert sum(suspect.suspicion >= 0.5 for suspect in suspects) <= 0.05 * sum(map(len, objects))


def test_images_without_labels_without_detections_and_without_either_are_ranked(objects):
    records = [record for record in seen(objects, np.random.default_rng(1)) if record['image_id'] != 1]
    objects[1], objects[2] = [], []
    records = [record for record in records if record['image_id'] != 3]
    kinds = [(s.image_id, s.kind) for s in ranked(labeled(objects), records)[:8]]
    assert sorted(kinds) == [(1, 'superfluous label')] * 4 + [(2, 'missing label')] * 4


def test_scores_that_are_too_modest_are_worth_what_the_labels_say():
    """Detections with score 0.3 are right in nine of ten cases, those with 0.1 in one of ten."""
    scores = np.repeat([0.3, 0.1], 1000)
    right = np.tile(np.arange(10) < 9, 200)
    right[1000:] = ~right[1000:]
    chances = calibrate(scores, right)
    assert chances[0] == pytest.approx(0.9, abs=0.005)
    assert chances[-1] == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize('right', [[], [True], [False], [True] * 5, [True, False], [False, True]])
def test_few_detections_have_a_chance_too(right):
    chances = calibrate(np.linspace(0, 1, len(right)), np.array(right, bool))
    assert chances.shape == (len(right),)
    assert ((chances > 0) & (chances < 1)).all()
    assert (np.diff(chances) >= 0).all()


def test_detections_of_no_score_tell_nothing(objects):
    records = seen(objects, np.random.default_rng(1))
    extra = [dict(records[0], bbox=[120.0, 120.0, 60.0, 60.0], score=LEAST_SCORE - 0.01)] * 50
    content = labeled(objects)
    suspicions = [[suspect.suspicion for suspect in ranked(content, given)] for given in (records, records + extra)]
    assert suspicions[0] == suspicions[1]


def test_of_labels_with_5_percent_mistakes_the_first_tenth_of_the_list_has_four_fifths_of_them():
    """The model has unsure mistakes of its own: of 30 objects it misses one, and takes one for another class."""
    rng = np.random.default_rng(2)
    objects = [grid(number, rng) for number in range(100)]
    records = [record for record in seen(objects, rng, sure=False) if rng.random() > 1 / 30]
    for record in records:
        if record['score'] > 0.3 and rng.random() < 1 / 30:
            record.update(category_id=record['category_id'] % 3 + 1, score=record['score'] * 0.7)
    boxes = [[*rng.uniform(0, 300, 2).tolist(), 80.0, 80.0] for _ in range(100)]
    records += [
        dict(image_id=number, category_id=2, bbox=box, score=float(rng.beta(2, 5)))
        for number, box in enumerate(boxes, start=1)
        if rng.random() < 1 / 3
    ]
    content = labeled(objects)
    totals, hits, shares = measure(content, read_results(records, to_truth(content, 'labels')), repetitions=5)
    assert totals.total() == 100
    assert np.mean(shares) >= 0.8
    assert min(hits.values()) > 0
