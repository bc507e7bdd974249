"""Images and annotations that turn out to be unreadable while a command runs."""

from __future__ import annotations

import io
import multiprocessing
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.registry import DATASETS as MMENGINE_DATASETS
from mmengine.runner import Runner
from torch.utils.data import get_worker_info

from ..datasets.image_files import IMAGE_SUFFIXES, ImageFileError, open_image_file
from ..errors import RunError, few
from ..registry import DATASETS, HOOKS
from .loader_processes import move_to_shared_memory

MOST_BAD = 0.01
"""The share of a data set's samples that may be replaced. More are no accidents: the data, or the disk, are broken."""

ATTEMPTS = 10
"""Samples in a row that are tried in the place of one."""

MOST_REPORTS = 32
"""Reports that wait to be read at a time. A pipe holds them all, so that no process has to wait for its reader."""

LONGEST_REPORT = 500
"""Characters of a report; see `MOST_REPORTS`."""


class UnreadableSample(RunError):
    """A sample cannot be read.

    Args:
        text: the message, or what a data loader's process made of it: a traceback that ends with it.
    """

    def __init__(self, text: str) -> None:
        traceback, _, message = text.rpartition(f'{type(self).__name__}: ')
        super().__init__(message.strip())
        if traceback:
            self.__cause__ = RuntimeError(text)


class Reports:
    """What processes that load samples tell the one that trains. What finds no room is lost."""

    def __init__(self) -> None:
        self._queue = multiprocessing.SimpleQueue()
        self._room = multiprocessing.Semaphore(MOST_REPORTS)
        self._sent: set[int] = set()  # by this process

    def send(self, number: int, problem: str) -> None:
        """Say what is wrong with the sample of a number, once."""
        if number not in self._sent and self._room.acquire(block=False):
            self._sent.add(number)
            self._queue.put((number, problem[:LONGEST_REPORT]))

    def receive(self) -> dict[int, str]:
        """What was sent since the last call."""
        received = {}
        while not self._queue.empty():
            number, problem = self._queue.get()
            self._room.release()
            received[number] = problem
        return received


@DATASETS.register_module()
class WatchedDataset:
    """A data set that says what is wrong with a sample that cannot be read. In all else it is the data set itself.

    Args:
        dataset: a data set, or its config.
        skip_bad: read the next sample in the place of one that cannot be read, for up to `ATTEMPTS` of them, and report
            that to a `SkippedSamplesHook`. Default: False.
    """

    remedy = 'begin again, a training with --resume'
    """What to do once the sample is mended, for messages."""

    def __init__(self, dataset: Any, skip_bad: bool = False) -> None:
        if isinstance(dataset, Mapping):
            with redirect_stdout(io.StringIO()):  # pycocotools tells what it does
                dataset = MMENGINE_DATASETS.build(dataset)
        self.__dict__.update(dataset=dataset, reports=Reports() if skip_bad else None)

    def __getitem__(self, number: int) -> Any:
        sample = self._read_or_replace(number)
        if get_worker_info() is not None:
            move_to_shared_memory(sample)
        return sample

    def _read_or_replace(self, drawn: int) -> Any:
        for attempt in range(ATTEMPTS if self.reports else 1):
            number = (drawn + attempt) % len(self.dataset)
            try:
                return self.read(drawn, number)
            except MemoryError:
                raise
            except Exception as error:  # of decoders, transforms, the disk
                problem, last = _problem(self.dataset, number, error), error
                if self.reports:
                    self.reports.send(number, problem)
        if self.reports:
            problem += f', nor can the {ATTEMPTS - 1} samples before it'
        raise UnreadableSample(f'{problem}: mend it and {self.remedy}; --debug shows where') from last

    def read(self, drawn: int, number: int) -> Any:
        """A sample.

        Args:
            drawn: which one the sampler asked for.
            number: which one is read.
        """
        return self.dataset[number]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str) -> Any:
        if name in ('dataset', 'reports') or name.startswith('__'):  # while it is copied or unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.dataset, name, value)  # as a hook that exchanges the pipeline does


def watched(dataset: Any) -> Any:
    """The config of a data set, or the data set, as a `WatchedDataset`; one that is such a data set stays."""
    kind = dataset['type'] if isinstance(dataset, Mapping) else type(dataset).__name__
    if str(kind).endswith(('WatchedDataset', 'SeededDataset')):
        return dataset
    return dict(type='fasternet_mm.WatchedDataset', dataset=dataset)


def _problem(dataset: Any, number: int, error: Exception) -> str:
    """What is wrong with a sample, in a line: the file that cannot be read, or else all its files and the error."""
    text = str(error).strip().partition('\n')[0]
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f'{error.filename} cannot be read ({error.strerror})'
    files = _files(dataset, number)
    for file in files:
        if Path(file).suffix.lower() in IMAGE_SUFFIXES:
            try:
                open_image_file(file)
            except ImageFileError as problem:
                return ' '.join(str(problem).split())
    return f'{" with ".join(files) or f"sample {number}"} cannot be prepared ({type(error).__name__}: {text})'


def _files(dataset: Any, number: int) -> list[str]:
    while not hasattr(dataset, 'get_data_info') and hasattr(dataset, 'dataset'):  # MMDetection's that mixes images
        dataset = dataset.dataset
    try:
        info = dataset.get_data_info(number)
    except Exception:  # the sample's record itself may be what cannot be read
        return []
    return [info[key] for key in ('img_path', 'seg_map_path') if info.get(key)]


@HOOKS.register_module()
class SkippedSamplesHook(Hook):
    """Tells of samples that others take the place of, lists them at the end, and ends trainings with too many."""

    def __init__(self) -> None:
        self.skipped: dict[int, str] = {}

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        dataset = runner.train_dataloader.dataset
        for number, problem in dataset.reports.receive().items():
            if number not in self.skipped:
                self.skipped[number] = problem
                runner.logger.warning(f'{problem}: another sample takes its place')
        if len(self.skipped) > max(1, MOST_BAD * len(dataset)):
            raise RunError(
                f'{len(self.skipped)} of {len(dataset):,} samples cannot be read, and {MOST_BAD:.0%} may be skipped: '
                f'{few(list(self.skipped.values()))}; mend them and go on with --resume'
            )

    def after_train(self, runner: Runner) -> None:
        skipped = {number: problem for part in all_gather_object(self.skipped) for number, problem in part.items()}
        if skipped:
            lines = '\n'.join(skipped[number] for number in sorted(skipped))
            runner.logger.warning(f'Samples that others took the place of ({len(skipped)}):\n{lines}')
