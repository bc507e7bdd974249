"""The report of a test run."""

from __future__ import annotations

from pathlib import Path

from mmengine.runner import Runner
from mmseg.datasets import BaseSegDataset

from ..datasets.image_files import names_of_images
from ..datasets.label_map_checks import ignored_label
from ..engine.config import CONFIG
from ..errors import UserError
from ..files import check_writable
from .detection_report import write_detection_report
from .label_map_errors import LabelMapPairs
from .page import training_plots
from .segmentation_report import write_segmentation_report
from .training_log import PLACES


def check_reportable(runner: Runner, out: str) -> None:
    """Raise `UserError` where a report of the test run could not be made or written."""
    check_writable(str(Path(out).parent))
    dataset = runner.test_dataloader.dataset.dataset  # out of the WatchedDataset
    if isinstance(dataset, BaseSegDataset):
        if dataset.label_map is not None:
            raise UserError(
                "--report: the config's test set renumbers classes, so its label maps are not those on disk"
            )
    elif not runner.cfg.test_evaluator.get('ann_file'):
        raise UserError(
            "--report: the config's test_evaluator has no ann_file: set it to the annotations of the test set"
        )


def write_test_report(runner: Runner, predictions: str, out: str) -> None:
    """Write a report of what a test run predicted, with training curves where the work directory has their log.

    Args:
        runner: after the test.
        predictions: COCO results file, or folder of label maps.
        out: the page.

    Raises:
        UserError: predictions, annotations or images cannot be used.
    """
    dataset, cfg = runner.test_dataloader.dataset.dataset, runner.cfg
    logged = any(Path(runner.work_dir).glob(PLACES[0]))
    config = Path(cfg.filename).resolve()
    # Every work directory has a config.py, whose name says nothing.
    title = config.parent.name if config.name == CONFIG else config.stem
    options = dict(training=training_plots(runner.work_dir) if logged else [], title=title)
    if not isinstance(dataset, BaseSegDataset):
        write_detection_report(
            out, predictions, cfg.test_evaluator.ann_file, images=dataset.data_prefix['img'], **options
        )
        return
    infos, names = [dataset.get_data_info(number) for number in range(len(dataset))], names_of_images(dataset)
    maps = LabelMapPairs(
        predictions=[Path(predictions, f'{names[info["img_path"]]}.png') for info in infos],
        truths=[Path(info['seg_map_path']) for info in infos],
        images=[Path(info['img_path']) for info in infos],
        classes=dataset.metainfo['classes'],
        ignored=ignored_label(cfg, 'test'),
        reduce_zero_label=dataset.reduce_zero_label,
    )
    write_segmentation_report(out, maps, palette=dataset.metainfo['palette'], **options)
