"""The report of a segmenter's label maps."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import numpy as np

from ..visualization.drawing import draw_labels
from ..visualization.palette import Color, default_palette
from . import plots
from .error_analysis import most_confused
from .label_map_errors import LabelErrors, LabelMapPairs, compare
from .page import ImagePair, Plot, Section, Table, write_report
from .worst_images import WORST_IMAGES, open_image, resize_labels, to_data_url


def write_segmentation_report(
    out: str | PathLike,
    maps: LabelMapPairs,
    palette: Sequence[Sequence[int]] | None = None,
    training: Sequence[Plot] = (),
    title: str = 'Segmentation',
) -> None:
    """Write a report of predicted label maps as one HTML page.

    Args:
        out: the page.
        maps: predicted and true label maps, and images, if they are to be drawn.
        palette: RGB of each class. Default: `default_palette`.
        training: training curves. Default: none.
        title: of the page.

    Raises:
        UserError: label maps or images cannot be used.
    """
    errors = compare(maps)
    sections = [
        _summary_section(errors),
        _classes_section(maps, errors),
        _confusion_section(maps, errors),
        _images_section(maps, errors, palette or default_palette(len(maps.classes))),
    ]
    subtitle = f'{len(maps.truths):,} images, {errors.matrix.sum():,} pixels of {len(maps.classes)} classes.'
    write_report(out, title, subtitle, sections, training)


def _summary_section(errors: LabelErrors) -> Section:
    figures = {
        'mIoU': np.nanmean(errors.iou),
        'mAcc': np.nanmean(errors.accuracy),
        'aAcc': errors.pixel_accuracy,
    }
    text = (
        'mIoU is the mean over classes of intersection over union; mAcc the mean share of a class that is found; aAcc '
        'the share of all pixels that is right.'
    )
    rows = [[name, _format(value)] for name, value in figures.items()]
    return Section('summary', 'Figures', text, tables=[Table('Figures', ['', 'all images'], rows)])


def _classes_section(maps: LabelMapPairs, errors: LabelErrors) -> Section:
    iou, accuracy = errors.iou, errors.accuracy
    order = np.argsort(-np.nan_to_num(iou, nan=-1), kind='stable')
    values = {maps.classes[label]: float(np.nan_to_num(iou[label], nan=-1)) for label in order}
    share = errors.matrix.sum(1) / max(errors.matrix.sum(), 1)
    rows = [[maps.classes[i], _format(iou[i]), _format(accuracy[i]), f'{share[i]:.2%}'] for i in order]
    table = Table('Figures per class', ['class', 'IoU', 'found (Acc)', 'share of pixels'], rows, folded=True)
    plot = Plot(plots.class_bars(values, 'IoU'), 'IoU per class, the best on top')
    return Section('classes', 'Classes', 'Classes that occur nowhere count nowhere.', [plot], [table])


def _confusion_section(maps: LabelMapPairs, errors: LabelErrors) -> Section:
    figure = plots.confusion_heatmap(errors.matrix, maps.classes)
    of_all = errors.matrix / max(errors.matrix.sum(), 1)
    of_class = errors.matrix / np.maximum(errors.matrix.sum(1, keepdims=True), 1)
    rows = [
        [f'{maps.classes[i]} → {maps.classes[j]}', f'{of_all[i, j]:.3%}', f'{of_class[i, j]:.1%}']
        for i, j in most_confused(errors.matrix)
    ]
    table = Table('What is confused most', ['truth → predicted', 'of all pixels', 'of the class'], rows)
    text = 'Which class (row) is taken for which (column), in shares of the row.'
    return Section('confusion', 'Confusion', text, [Plot(figure, 'Each row adds up to one')], [table])


def _images_section(maps: LabelMapPairs, errors: LabelErrors, palette: Sequence[Color]) -> Section:
    losses = errors.losses
    worst = [number for number in np.argsort(-losses, kind='stable')[:WORST_IMAGES] if losses[number] > 0]
    names = maps.names
    rows = [[names[i], f'{losses[i]:.4f}', f'{errors.missed[i].sum():,}'] for i in worst]
    pairs = []
    for number in worst if maps.images else ():
        image = open_image(maps.images[number])
        label_maps = [maps.read_truth(maps.truths[number]), maps.read_prediction(maps.predictions[number])]
        drawings = [draw_labels(image, resize_labels(labels, image.shape[:2]), palette) for labels in label_maps]
        occurring = [label for label in np.unique(label_maps) if label >= 0]
        pairs.append(
            ImagePair(
                name=names[number],
                caption=f'{names[number]}: {losses[number]:.4f} mIoU.',
                truth=to_data_url(drawings[0]),
                prediction=to_data_url(drawings[1]),
                legend=[(maps.classes[i], 'rgb({}, {}, {})'.format(*palette[i])) for i in occurring],
            )
        )
    text = 'The images that, predicted without error, would raise mIoU most. First the truth, then the prediction.'
    table = Table('Images that cost most', ['image', 'mIoU lost', 'wrong pixels'], rows, folded=bool(pairs))
    return Section('images', 'Worst images', text, tables=[table], images=pairs)


def _format(value: float) -> str:
    return '–' if np.isnan(value) else f'{value:.3f}'
