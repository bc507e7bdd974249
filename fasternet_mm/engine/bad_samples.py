"""Images and annotations that turn out to be unreadable while a training runs, and processes that load them and die."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from typing import Any

from mmengine.logging import print_log
from torch.utils.data import DataLoader

from ..errors import RunError, few

MOST_BAD = 0.01
"""The share of a data set's samples that may be replaced. More are no accidents: the data, or the disk, are broken."""

ATTEMPTS = 10
"""Samples in a row that are tried in the place of one."""


class BadSamples:
    """Reports of samples that could not be read, from whichever process met them.

    Args:
        skip: take the next sample in the place of one that cannot be read. Default: its error is raised.
    """

    def __init__(self, skip: bool = False) -> None:
        self.skip = skip
        self.found: dict[int, str] = {}
        self._reports = multiprocessing.SimpleQueue()

    def read(self, dataset: Any, number: int) -> Any:
        """A sample of a data set, or another one in its place."""
        for attempt in range(ATTEMPTS):
            try:
                return dataset[(number + attempt) % len(dataset)]
            except Exception as error:  # of decoders, transforms, the disk
                bad = (number + attempt) % len(dataset)
                self._reports.put((bad, f'{_files(dataset, bad)} ({_reason(error)})'))
                if not self.skip or attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError

    def receive(self, samples: int) -> None:
        """Tell of what came since the last call.

        Args:
            samples: of the data set.

        Raises:
            RunError: too many samples were replaced.
        """
        while not self._reports.empty():
            number, report = self._reports.get()
            if number not in self.found:
                self.found[number] = report
                if self.skip:
                    print_log(f'{report} cannot be read: another sample takes its place', logger='current')
        if len(self.found) > max(1, MOST_BAD * samples):
            raise RunError(
                f'{len(self.found)} of {samples:,} samples cannot be read, and {MOST_BAD:.0%} may be skipped: '
                f'{few(list(self.found.values()))}; mend or remove them, and go on with --resume'
            )


def batches_of(loader: DataLoader) -> Iterator[Any]:
    """What a data loader of a `SeededDataset` reads.

    Raises:
        RunError: a sample cannot be read, or a process that loads them has died.
    """
    dataset = loader.dataset
    iterator = iter(loader)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except Exception as error:
            dataset.bad_samples.receive(len(dataset))
            raise _run_error(dataset.bad_samples, error) from error
        dataset.bad_samples.receive(len(dataset))
        yield batch


def _run_error(bad_samples: BadSamples, error: Exception) -> Exception:
    text = str(error)
    if bad_samples.found:
        report = list(bad_samples.found.values())[-1]
        return RunError(
            f'{report} cannot be read: mend or remove it and go on with --resume, or add --on-bad-sample skip; --debug '
            'shows where'
        )
    if 'shared memory' in text or 'Bus error' in text:
        return RunError(
            'the processes that load images have no shared memory left (/dev/shm): give --workers 0, or give the '
            'container more (docker run --shm-size 8g), and go on with --resume'
        )
    if 'DataLoader worker' in text and ('killed by signal' in text or 'exited unexpectedly' in text):
        return RunError(
            'a process that loads images was killed, probably since the memory is full: give fewer --workers or a '
            'smaller --batch, and go on with --resume'
        )
    return error


def _files(dataset: Any, number: int) -> str:
    info = dataset.get_data_info(number) if hasattr(dataset, 'get_data_info') else {}
    names = [info[key] for key in ('img_path', 'seg_map_path') if info.get(key)]
    return ' with '.join(names) or f'sample {number}'


def _reason(error: Exception) -> str:
    return getattr(error, 'strerror', None) or str(error).strip().partition('\n')[0] or type(error).__name__
