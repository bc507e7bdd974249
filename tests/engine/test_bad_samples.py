"""Samples that cannot be read in the middle of a training, and processes that load them and die."""

import os
import signal

import pytest
from torch.utils.data import DataLoader, Dataset, get_worker_info

from fasternet_mm.engine.bad_samples import batches_of
from fasternet_mm.engine.data_order import BatchOrder, SeededDataset
from fasternet_mm.errors import RunError


class Numbers(Dataset):
    """Of which some cannot be read, and one ends the process that reads it."""

    def __init__(self, count=20, bad=(), deadly=None):
        self.count, self.bad, self.deadly = count, bad, deadly

    def __len__(self):
        return self.count

    def get_data_info(self, number):
        return dict(img_path=f'images/{number}.jpg', seg_map_path=f'maps/{number}.png' if number == 4 else None)

    def __getitem__(self, number):
        if number in self.bad:
            raise ValueError('no image\nat all')
        if number == self.deadly and get_worker_info():
            os.kill(os.getpid(), signal.SIGKILL)
        return number


def load(dataset, workers, skip=False):
    order = BatchOrder(InOrder(dataset), 2)
    return DataLoader(SeededDataset(dataset, 0, skip), batch_sampler=order, num_workers=workers, collate_fn=list)


def read(*args, **options):
    return [number for batch in batches_of(load(*args, **options)) for number in batch]


class InOrder:
    def __init__(self, dataset):
        self.dataset = dataset

    def __iter__(self):
        return iter(range(len(self.dataset)))

    def __len__(self):
        return len(self.dataset)


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize(('bad', 'files'), [(3, 'images/3.jpg'), (4, 'images/4.jpg with maps/4.png')])
def test_a_sample_that_cannot_be_read_ends_the_training_with_its_files_and_the_reason(bad, files, workers):
    with pytest.raises(RunError) as error:
        read(Numbers(bad=[bad]), workers)
    assert str(error.value) == (
        f'{files} (no image) cannot be read: mend or remove it and go on with --resume, or add --on-bad-sample skip; '
        '--debug shows where'
    )


@pytest.mark.parametrize('workers', [0, 2])
def test_a_sample_that_is_skipped_is_replaced_by_the_next_one(workers):
    assert read(Numbers(bad=[19]), workers, skip=True) == [*range(19), 0]


def test_more_than_a_hundredth_of_the_samples_are_not_skipped():
    assert len(read(Numbers(300, bad=[5, 6, 250]), 0, skip=True)) == 300
    with pytest.raises(RunError, match=r'^2 of 199 samples cannot be read, and 1% may be skipped: images/5.jpg \(no'):
        read(Numbers(199, bad=[5, 100]), 0, skip=True)


def test_a_sample_that_is_met_in_each_epoch_counts_once():
    loader = load(Numbers(20, bad=[7]), 0, skip=True)
    assert [len(list(batches_of(loader))) for _ in range(3)] == [10] * 3


def test_a_process_that_was_killed_is_explained():
    with pytest.raises(RunError, match=r'was killed, probably since the memory is full: give fewer --workers or'):
        read(Numbers(deadly=6), workers=2)


@pytest.mark.parametrize(
    'text',
    [
        'DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ...',
        'unable to write to file </torch_1>: No space left on device (28), shared memory',
    ],
)
def test_a_lack_of_shared_memory_is_explained(text):
    class Failing(Numbers):
        def __iter__(self):
            raise RuntimeError(text)
            yield

    loader = type('Loader', (), dict(dataset=SeededDataset(Numbers(), 0), __iter__=Failing.__iter__))()
    with pytest.raises(RunError, match=r'no shared memory left \(/dev/shm\): give --workers 0'):
        list(batches_of(loader))
