import numpy as np
import pytest

from fasternet_mm.evaluation.coco_evaluation import evaluate_task
from fasternet_mm.evaluation.coco_results import CocoResults
from fasternet_mm.evaluation.coco_truth import to_truth
from fasternet_mm.report.error_analysis import confusion, image_losses, match, threshold_curve

FOUND = [(1, 1, [0, 0, 40, 40], 0.9), (1, 2, [60, 0, 40, 40], 0.7)]
"""Detections (image, class, box, score) of the first cat and the dog."""

TIDE_CASES = [
    ('Cls', [(1, 2, [0, 60, 40, 40], 0.8)], dict(Cls=0.497525), 0.502475),
    ('Loc', [(1, 1, [0, 80, 40, 40], 0.8)], dict(Loc=0.247525), 0.752475),
    ('Both', [(1, 2, [0, 80, 40, 40], 0.8)], dict(Both=0.25, Miss=0.247525), 0.502475),
    ('Dupe', [(1, 1, [0, 0, 40, 38], 0.85), (1, 1, [0, 60, 40, 40], 0.5)], dict(Dupe=0.082508), 0.917492),
    ('Bkg', [(2, 2, [0, 0, 20, 20], 0.8)], dict(Bkg=0.25, Miss=0.247525), 0.502475),
    ('Miss', [], dict(Miss=0.247525), 0.752475),
]
"""What is done wrong with the second cat, and what tidecv 1.0.1 answers: the AP50 that each type costs, and AP50."""


def truth_of(objects, count=2, first=0):
    """Annotations from (image, class, box, crowd); ``first`` is added to ids of images."""
    annotations = [
        dict(id=number, image_id=image + first, category_id=kind, bbox=box, area=box[2] * box[3], iscrowd=crowd)
        for number, (image, kind, box, crowd) in enumerate(objects, start=1)
    ]
    images = [dict(id=n + first, height=200, width=200, file_name=f'{n}.png') for n in range(1, count + 1)]
    categories = [dict(id=1, name='cat'), dict(id=2, name='dog')]
    return to_truth(dict(images=images, annotations=annotations, categories=categories), 'made')


def results_of(detections):
    images, kinds, boxes, scores = zip(*detections)
    return CocoResults(np.array(images), np.array(kinds), np.array(boxes, float), np.array(scores))


@pytest.fixture
def two_cats_and_a_dog():
    return truth_of([(1, 1, [0, 0, 40, 40], 0), (1, 1, [0, 60, 40, 40], 0), (1, 2, [60, 0, 40, 40], 0)])


@pytest.mark.parametrize(('kind', 'detections', 'costs', 'ap'), TIDE_CASES)
def test_each_type_of_error_costs_what_tidecv_says(kind, detections, costs, ap, two_cats_and_a_dog):
    found = evaluate_task(two_cats_and_a_dog, results_of(FOUND + detections), 'bbox').coco.tide_errors()
    expected = dict.fromkeys(('Cls', 'Loc', 'Both', 'Dupe', 'Bkg', 'Miss'), 0.0) | costs
    assert {name: found['delta_ap'][name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert found['ap_base'] == pytest.approx(ap, abs=1e-6)
    assert found['counts'][kind] == 1


def test_a_detection_in_a_crowd_counts_nowhere():
    truth = truth_of([(1, 1, [0, 0, 40, 40], 0), (1, 1, [100, 100, 90, 90], 1)])
    results = results_of([(1, 1, [0, 0, 40, 40], 0.9), (1, 1, [110, 110, 20, 20], 0.8), (2, 2, [0, 0, 9, 9], 0.3)])
    matches = match(evaluate_task(truth, results, 'bbox'), results)
    assert matches.counted.tolist() == [True, False, True]
    assert matches.right.tolist() == [True, False, False]
    assert matches.finder_scores == {1: 0.9}
    assert confusion(truth, results, matches, 'bbox', 0).tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_confusion_counts_only_detections_from_the_score_on(two_cats_and_a_dog):
    results = results_of([*FOUND, (1, 2, [0, 60, 40, 40], 0.4), (2, 1, [0, 0, 9, 9], 0.3)])
    matches = match(evaluate_task(two_cats_and_a_dog, results, 'bbox'), results)
    assert confusion(two_cats_and_a_dog, results, matches, 'bbox', 0).tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert confusion(two_cats_and_a_dog, results, matches, 'bbox', 0.5).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


def test_threshold_curve_counts_what_is_kept_from_each_score_on():
    scores, right = np.array([0.5, 0.9, 0.5, 0.7, 0.2]), np.array([True, True, False, False, True])
    curve = threshold_curve(scores, right, objects=4)
    assert curve.scores.tolist() == [0.9, 0.7, 0.5, 0.2]  # of two detections with 0.5, both or none
    assert curve.precision.tolist() == [1, 1 / 2, 2 / 4, 3 / 5]
    assert curve.recall.tolist() == [1 / 4, 1 / 4, 2 / 4, 3 / 4]
    assert curve.best == pytest.approx((0.2, 0.6, 0.75, 2 * 0.6 * 0.75 / (0.6 + 0.75)))


def area_under_curve(detections, objects):
    """AP without interpolation of (score, right), the mean over objects of the precision at which each is found."""
    hits, total = 0, 0.0
    for rank, (_, right) in enumerate(sorted(detections, key=lambda one: -one[0]), start=1):
        hits += right
        total += right * hits / rank
    return total / objects


def test_an_images_loss_is_the_sum_of_what_mending_each_mistake_alone_gives():
    rng = np.random.default_rng(5)
    objects = [(image, kind, [20 * n, 0, 15, 15], 0) for n in range(8) for image in (1, 2, 3) if (kind := 1 + n % 2)]
    truth = truth_of(objects, count=3)
    detections = []
    for image, kind, box, _ in objects:
        if rng.random() < 0.7:
            detections.append((image, kind, box, rng.random()))
        if rng.random() < 0.5:
            detections.append((image, kind, [box[0], 100, 15, 15], rng.random()))
    results = results_of(detections)
    matches = match(evaluate_task(truth, results, 'bbox'), results)
    expected = dict.fromkeys((1, 2, 3), 0.0)
    for kind in (1, 2):
        ranked = [(score, box[1] == 0) for _, category, box, score in detections if category == kind]
        before, total = area_under_curve(ranked, 12), len(truth.category_names)
        for image, category, box, score in detections:
            if category == kind and box[1] != 0:
                mended = [one for one in ranked if one[0] != score]
                expected[image] += (area_under_curve(mended, 12) - before) / total
        for number, (image, category, _, _) in enumerate(objects, start=1):
            if category == kind and matches.finder_scores[number] is None:
                expected[image] += (area_under_curve([*ranked, (2, True)], 12) - before) / total
    assert 0 < sum(matches.right) < len(detections) - 3
    assert image_losses(truth, results, matches) == pytest.approx(expected)


@pytest.mark.parametrize('first', [10**18, 2**63 - 3])
def test_analyses_do_not_depend_on_the_size_of_image_ids(first):
    objects = [(1, 1, [0, 0, 40, 40], 0), (1, 1, [0, 60, 40, 40], 0), (2, 2, [60, 0, 40, 40], 0)]
    detections = [*FOUND, (2, 1, [60, 0, 40, 40], 0.8), (2, 2, [60, 0, 40, 40], 0.6)]
    truth, results = truth_of(objects), results_of(detections)
    large, same = truth_of(objects, first=first), results_of(detections)
    same.image_ids += first
    analyses = []
    for start, annotations, found in ((0, truth, results), (first, large, same)):
        evaluation = evaluate_task(annotations, found, 'bbox')
        matches = match(evaluation, found)
        analyses.append(
            dict(
                summary=evaluation.summary(),
                tide=evaluation.coco.tide_errors(),
                found=matches.finder_scores,
                right=matches.right.tolist(),
                confusion=confusion(annotations, found, matches, 'bbox', 0.5).tolist(),
                losses={number - start: loss for number, loss in image_losses(annotations, found, matches).items()},
            )
        )
    assert analyses[0] == analyses[1]
    assert analyses[0]['found'] == {1: pytest.approx(0.9), 2: None, 3: pytest.approx(0.6)}
