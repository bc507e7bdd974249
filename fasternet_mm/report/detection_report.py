"""The report of a detector's results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluation.coco_evaluation import AREAS, Evaluation, evaluate_tasks
from ..evaluation.coco_results import CocoResults, read_results
from ..evaluation.coco_truth import CocoTruth, read_truth
from ..evaluation.table import COCO_COLUMNS, format_figure
from ..visualization.drawing import object_text
from . import plots
from .error_analysis import Matches, ThresholdCurve, confusion, image_losses, match, most_confused, threshold_curve
from .labels_section import labels_section
from .page import ImagePair, Plot, Section, Table, write_report
from .worst_images import WORST_IMAGES, draw_verdicts, find_images, open_image, to_data_url

TASK_NAMES = {'bbox': 'boxes', 'segm': 'masks'}

ERRORS = {
    'Cls': ('classification', 'an object found in its place, under the name of another class'),
    'Loc': ('localization', 'the right class, but IoU with its object only between 0.1 and 0.5'),
    'Both': ('both', 'another class, and IoU between 0.1 and 0.5'),
    'Dupe': ('duplicate', 'an object that a detection with a higher score had found'),
    'Bkg': ('background', 'no object there: IoU below 0.1 with all'),
    'Miss': ('missed', 'objects that no detection is near enough to, whatever its mistake'),
}
"""TIDE's types of errors (Bolya et al., arXiv 2008.08115), with our words for them."""


@dataclass
class Analysis:
    """All that the report says of one task: 'bbox' or 'segm'."""

    task: str
    evaluation: Evaluation
    summary: dict[str, float]
    matches: Matches
    curve: ThresholdCurve
    tide: dict[str, Any]
    calibration: dict[str, Any]

    @property
    def name(self) -> str:
        return TASK_NAMES[self.task]

    @property
    def best_score(self) -> float:
        """The score from which detections have the best F1."""
        return self.curve.best[0]


def analyze(task: str, evaluation: Evaluation, results: CocoResults) -> Analysis:
    matches = match(evaluation, results)
    counted, objects = matches.counted, len(matches.finder_scores)
    return Analysis(
        task=task,
        evaluation=evaluation,
        summary=evaluation.summary(),
        matches=matches,
        curve=threshold_curve(results.scores[counted], matches.right[counted], objects),
        tide=evaluation.coco.tide_errors(pos_thr=0.5, bg_thr=0.1),
        calibration=evaluation.coco.calibration(n_bins=10, iou_threshold=0.5),
    )


def write_detection_report(
    out: str | PathLike,
    results_file: str | PathLike,
    annotations: str | PathLike,
    images: str | PathLike | None = None,
    training: Sequence[Plot] = (),
    title: str | None = None,
) -> None:
    """Write a report of a COCO results file as one HTML page.

    Args:
        out: the page.
        results_file: detections.
        annotations: COCO annotations.
        images: the folder that the file names in the annotations start from. Default: no image is drawn.
        training: training curves. Default: none.
        title: of the page. Default: the results file's name.

    Raises:
        UserError: results, annotations or images cannot be used.
    """
    truth = read_truth(annotations)
    results = read_results(results_file, truth)
    names = {image['id']: image.get('file_name', '') for image in truth.content['images']}
    paths = find_images(images, names) if images else {}
    analyses = [analyze(task, evaluation, results) for task, evaluation in evaluate_tasks(truth, results).items()]
    sections = [
        _summary_section(analyses),
        _classes_section(truth, results, analyses),
        _precision_recall_section(analyses),
        _sizes_section(analyses),
        _confusion_section(truth, results, analyses),
        _errors_section(analyses),
        _calibration_section(analyses),
        _threshold_section(truth, results, analyses),
        _images_section(truth, results, analyses, names, paths),
        labels_section(truth, results, names, paths, analyses[-1].best_score),
    ]
    objects = len(analyses[0].matches.finder_scores)
    subtitle = (
        f'{len(results):,} detections in {len(truth.sizes):,} images with {objects:,} objects of '
        f'{len(truth.category_names)} classes, against {Path(annotations).name}.'
    )
    write_report(out, title or f'Detections: {Path(results_file).name}', subtitle, sections, training)


def _summary_section(analyses: Sequence[Analysis]) -> Section:
    text = (
        'Average precision (AP) is the mean over classes and over IoU from 0.5 to 0.95; AP50 and AP75 are at one IoU. '
        'AR is the recall with 1, 10 and 100 detections per image. Small objects are below 32², large ones above 96² '
        'pixels.'
    )
    rows = [[analysis.name, *map(format_figure, analysis.summary.values())] for analysis in analyses]
    table = Table('Means over classes', ['', *COCO_COLUMNS.values()], rows)
    return Section('summary', 'COCO figures', text, tables=[table])


def _classes_section(truth: CocoTruth, results: CocoResults, analyses: Sequence[Analysis]) -> Section:
    objects = _objects_per_class(truth, analyses[0].matches)
    detections = Counter(results.category_ids.tolist())
    ids = {name: number for number, name in truth.category_names.items()}
    figures, tables = [], []
    for analysis in analyses:
        ordered = sorted(analysis.evaluation.classes(truth).items(), key=lambda item: -item[1][0])
        figure = plots.class_bars({name: values[0] for name, values in ordered}, f'AP of {analysis.name}')
        figures.append(Plot(figure, f'AP of {analysis.name} per class, the best on top'))
        rows = [
            [name, *map(format_figure, values), f'{objects[ids[name]]:,}', f'{detections[ids[name]]:,}']
            for name, values in ordered
        ]
        header = ['class', *list(COCO_COLUMNS.values())[:6], 'objects', 'detections']
        tables.append(Table(f'Figures of {analysis.name} per class', header, rows, folded=True))
    text = 'Classes without objects have no AP and count nowhere.'
    return Section('classes', 'Classes', text, figures, tables)


def _precision_recall_section(analyses: Sequence[Analysis]) -> Section:
    figures = []
    for analysis in analyses:
        precision = analysis.evaluation.precision[:, :, :, 0, -1]
        counted = (precision > -1).any(axis=(0, 1))
        curves = dict(zip(analysis.evaluation.iou_thrs, precision[:, :, counted].mean(axis=2)))
        recalls = np.linspace(0, 1, precision.shape[1])
        figure = plots.precision_recall(curves, recalls)
        figures.append(Plot(figure, f'Precision and recall of {analysis.name} at each IoU, mean over the classes'))
    text = 'The area under a line is the AP at its IoU. Lines that fall apart show boxes or masks that sit loosely.'
    return Section('precision-recall', 'Precision and recall', text, figures)


def _sizes_section(analyses: Sequence[Analysis]) -> Section:
    figures = []
    for label, key in (('AP', 'mAP_{}'), ('AR with 100 detections', 'AR_{}@100')):
        groups = {analysis.name: [analysis.summary[key.format(a[0])] for a in AREAS[1:]] for analysis in analyses}
        figures.append(Plot(plots.bars(groups, AREAS[1:], label), f'{label} by size of the object'))
    return Section('sizes', 'Object sizes', 'Small is below 32², medium below 96² pixels.', figures)


def _confusion_section(truth: CocoTruth, results: CocoResults, analyses: Sequence[Analysis]) -> Section:
    figures, tables = [], []
    for analysis in analyses:
        names = [truth.category_names[number] for number in analysis.evaluation.category_ids] + ['background']
        matrix = confusion(truth, results, analysis.matches, analysis.task, analysis.best_score)
        caption = f'{analysis.name.capitalize()}: each row adds up to one'
        figures.append(Plot(plots.confusion_heatmap(matrix, names), caption))
        rows = [[f'{names[i]} → {names[j]}', f'{matrix[i, j]:,}'] for i, j in most_confused(matrix)]
        tables.append(Table(f'What {analysis.name} are confused most', ['truth → predicted', 'times'], rows))
    text = (
        'Which class (row) is taken for which (column), at IoU 0.5, among detections from the best score threshold on. '
        'The last column has missed objects, the last row detections that found none.'
    )
    return Section('confusion', 'Confusion', text, figures, tables)


def _errors_section(analyses: Sequence[Analysis]) -> Section:
    groups = {analysis.name: [analysis.tide['delta_ap'][key] for key in ERRORS] for analysis in analyses}
    figure = plots.bars(groups, [name for name, _ in ERRORS.values()], 'AP50 lost')
    rows = [
        [name, *(text for a in analyses for text in (_lost(a, key), f'{a.tide["counts"][key]:,}')), meaning]
        for key, (name, meaning) in ERRORS.items()
    ]
    together = {
        'FP': ('all wrong detections', 'together, recall as it is'),
        'FN': ('all missed objects', 'together, precision as it is'),
    }
    rows += [
        [name, *(text for a in analyses for text in (_lost(a, key), '')), meaning]
        for key, (name, meaning) in together.items()
    ]
    header = ['error', *(f'{what}, {a.name}' for a in analyses for what in ('AP50 lost', 'times')), 'what it is']
    table = Table('Types of errors', header, rows, sentences='what it is')
    text = 'TIDE (arXiv 2008.08115): the AP50 that would be gained if all errors of one type were mended, others left.'
    return Section('errors', 'Errors', text, [Plot(figure, 'AP50 that each type of error costs')], [table])


def _lost(analysis: Analysis, error: str) -> str:
    return f'{analysis.tide["delta_ap"][error]:.4f}'


def _calibration_section(analyses: Sequence[Analysis]) -> Section:
    figures = []
    for analysis in analyses:
        caption = (
            f'{analysis.name.capitalize()}: score and share that is right; expected calibration error '
            f'{analysis.calibration["ece"]:.3f}, largest {analysis.calibration["mce"]:.3f}'
        )
        figures.append(Plot(plots.reliability(analysis.calibration['bins']), caption))
    text = (
        'Of detections with score 0.8, eight in ten should be right (IoU at least 0.5). Bars above the line: the model '
        'is too modest; below: too sure of itself.'
    )
    return Section('calibration', 'Calibration', text, figures)


def _threshold_section(truth: CocoTruth, results: CocoResults, analyses: Sequence[Analysis]) -> Section:
    figures, tables, best = [], [], []
    for analysis in analyses:
        best.append(f'{analysis.name} {analysis.best_score:.2f}')
        caption = '{}: best from score {:.2f} on, precision {:.3f}, recall {:.3f}, F1 {:.3f}'
        caption = caption.format(analysis.name.capitalize(), *analysis.curve.best)
        figures.append(Plot(plots.threshold(analysis.curve), caption))
        header, rows = ['class', 'from score', 'precision', 'recall', 'F1'], _class_thresholds(truth, results, analysis)
        tables.append(Table(f'Best score threshold for {analysis.name} per class', header, rows, folded=True))
    text = (
        'What is kept when only detections from a score on are: precision (how many are right), recall (how many '
        f'objects are found) and F1, their harmonic mean, at IoU 0.5. Best F1 for {", ".join(best)}.'
    )
    return Section('threshold', 'Score threshold', text, figures, tables)


def _class_thresholds(truth: CocoTruth, results: CocoResults, analysis: Analysis) -> list[list[str]]:
    objects = _objects_per_class(truth, analysis.matches)
    rows = []
    for number, name in truth.category_names.items():
        members = analysis.matches.counted & (results.category_ids == number)
        if members.any() and objects[number]:
            curve = threshold_curve(results.scores[members], analysis.matches.right[members], objects[number])
            rows.append([name, *(f'{value:.3f}' for value in curve.best)])
    return rows


def _images_section(
    truth: CocoTruth,
    results: CocoResults,
    analyses: Sequence[Analysis],
    names: Mapping[int, str],
    paths: Mapping[int, Path],
) -> Section:
    analysis = analyses[-1]  # masks, where there are
    losses = image_losses(truth, results, analysis.matches)
    worst = sorted(losses, key=lambda number: -losses[number])[:WORST_IMAGES]
    score = analysis.best_score
    objects, detections = _verdicts(truth, results, analysis, set(worst), score)
    rows, pairs = [], []
    for number in worst:
        missed = sum(not item['right'] for item in objects[number])
        mistakes = sum(not item['right'] for item in detections[number])
        rows.append([names[number] or str(number), f'{losses[number]:.4f}', f'{missed}', f'{mistakes}'])
        if paths:
            image, size = open_image(paths[number]), truth.sizes[number]
            pairs.append(
                ImagePair(
                    name=names[number],
                    caption=f'{names[number]}: {losses[number]:.4f} AP50, {missed} missed, {mistakes} wrong',
                    truth=to_data_url(draw_verdicts(image, objects[number], size)),
                    prediction=to_data_url(draw_verdicts(image, detections[number], size)),
                )
            )
    text = (
        f'The images whose mistakes cost most AP50 of {analysis.name} (to first order: what mending each mistake '
        'alone would give, added up). First the truth, missed objects orange; then the detections, wrong '
        f'ones orange; both from score {score:.2f} on.'
    )
    header = ['image', 'AP50 lost', 'missed', f'wrong from {score:.2f} on']
    table = Table('Images that cost most', header, rows, folded=bool(pairs))
    return Section('images', 'Worst images', text, tables=[table], images=pairs)


def _verdicts(
    truth: CocoTruth, results: CocoResults, analysis: Analysis, images: set[int], score: float
) -> tuple[dict[int, list[dict]], dict[int, list[dict]]]:
    """Objects and detections of some images, each with what to write beside it and whether it is right."""
    objects: dict[int, list[dict]] = {number: [] for number in images}
    detections: dict[int, list[dict]] = {number: [] for number in images}
    for annotation in truth.content['annotations']:
        if annotation['image_id'] in images and annotation['id'] in analysis.matches.finder_scores:
            finder_score = analysis.matches.finder_scores[annotation['id']]
            verdict = dict(right=finder_score is not None and finder_score >= score)
            name = truth.category_names[annotation['category_id']]
            objects[annotation['image_id']].append(annotation | verdict | dict(text=name))
    drawn = analysis.matches.counted & (results.scores >= score) & np.isin(results.image_ids, list(images))
    for record, right in zip(results.subset(drawn).records(), analysis.matches.right[drawn]):
        text = object_text(truth.category_names[record['category_id']], record['score'])
        detections[record['image_id']].append(record | dict(text=text, right=bool(right)))
    return objects, detections


def _objects_per_class(truth: CocoTruth, matches: Matches) -> Counter[int]:
    return Counter(a['category_id'] for a in truth.content['annotations'] if a['id'] in matches.finder_scores)
