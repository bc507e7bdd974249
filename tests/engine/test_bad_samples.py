"""Samples that cannot be read in the middle of a training or evaluation."""

import logging
import random
import traceback
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from fasternet_mm.engine.bad_samples import MOST_REPORTS, SkippedSamplesHook, UnreadableSample, WatchedDataset
from fasternet_mm.engine.data_order import Draw, SeededDataset
from fasternet_mm.engine.runner import StrictRunner
from fasternet_mm.errors import RunError


class Numbers:
    """Of which some cannot be read."""

    def __init__(self, count=20, bad=(), error=None, names=('img_path',), folder='images'):
        self.count, self.bad, self.names, self.folder = count, bad, names, folder
        self.error = error or ValueError('no image\nat all')

    def __len__(self):
        return self.count

    def get_data_info(self, number):
        return {name: f'{self.folder}/{name}_{number}.png' for name in self.names}

    def __getitem__(self, number):
        if number in self.bad:
            raise self.error
        return number


class Varied(Numbers):
    def __getitem__(self, number):
        noise = random.random()
        return super().__getitem__(number), noise


def write_pair(folder, number, damaged):
    """An image and its label map, of which one is cut off."""
    for name in ('img_path', 'seg_map_path'):
        file = folder / f'{name}_{number}.png'
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20), np.uint8)).save(file)
        if name == damaged:
            file.write_bytes(file.read_bytes()[:100])


def read(dataset, workers=0):
    loader = dict(dataset=dataset, sampler=dict(type='DefaultSampler', shuffle=False), batch_size=2, collate_fn=list)
    return [number for batch in StrictRunner.build_dataloader({**loader, 'num_workers': workers}) for number in batch]


def failure(dataset, workers=0):
    """The error of `read`, whose traceback keeps no processes alive."""
    with pytest.raises(UnreadableSample) as error:
        read(dataset, workers)
    traceback.clear_frames(error.tb)
    return error.value


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('damaged', ['img_path', 'seg_map_path'])
def test_the_file_that_cannot_be_read_is_named_whichever_process_met_it(damaged, workers, tmp_path):
    write_pair(tmp_path, 3, damaged)
    dataset = Numbers(bad=[3], names=('img_path', 'seg_map_path'), folder=tmp_path)
    assert str(failure(dataset, workers)) == (
        f'{tmp_path}/{damaged}_3.png cannot be read (image file is truncated): mend it and begin again, a training '
        'with --resume; --debug shows where'
    )


def test_the_reason_of_the_operating_system_is_given():
    missing = FileNotFoundError(2, 'No such file or directory', 'images/7.jpg')
    message = str(failure(Numbers(bad=[7], error=missing)))
    assert message.startswith('images/7.jpg cannot be read (No such file or directory): mend it')


def test_where_the_files_are_sound_the_error_is_named(tmp_path):
    write_pair(tmp_path, 3, damaged=None)
    dataset = Numbers(bad=[3], names=('img_path', 'seg_map_path'), folder=tmp_path)
    files = f'{tmp_path}/img_path_3.png with {tmp_path}/seg_map_path_3.png'
    assert str(failure(dataset)).startswith(f'{files} cannot be prepared (ValueError: no image): mend it')


def test_files_are_found_under_a_data_set_that_mixes_images():
    class Mixing:
        dataset = Numbers(bad=[3])

        def __len__(self):
            return 20

        def __getitem__(self, number):
            return self.dataset[number]

    with pytest.raises(UnreadableSample, match=r'^images/img_path_3.png does not exist: mend it'):
        WatchedDataset(Mixing())[3]


def test_the_traceback_of_the_process_that_met_it_is_kept_for_debug():
    cause = failure(Numbers(bad=[3]), workers=1).__cause__
    assert 'in __getitem__\n    raise self.error' in str(cause)


def test_lack_of_memory_is_no_bad_sample():
    with pytest.raises(MemoryError):
        WatchedDataset(Numbers(bad=[3], error=MemoryError()), skip_bad=True)[3]


@pytest.mark.parametrize('workers', [0, 2])
def test_a_sample_that_is_skipped_is_replaced_by_the_next_one(workers):
    dataset = dict(type='fasternet_mm.WatchedDataset', dataset=Numbers(bad=[19]), skip_bad=True)
    assert read(dataset, workers) == [*range(19), 0]


def test_a_replacement_varies_as_that_image_does_itself():
    assert SeededDataset(Varied(bad=[3]), 0, skip_bad=True)[Draw(3, 5)] == SeededDataset(Varied(), 0)[Draw(4, 5)]


def test_not_more_than_ten_are_tried_in_the_place_of_one():
    dataset = SeededDataset(Numbers(bad=range(3, 13)), 0, skip_bad=True)
    assert dataset[Draw(4, 0)] == 13
    with pytest.raises(UnreadableSample, match=r'img_path_12.png does not exist, nor can the 9 samples before it:'):
        dataset[Draw(3, 0)]


def test_processes_do_not_wait_until_their_reports_are_read():
    bad = [number for number in range(2000) if number % 10]
    dataset = WatchedDataset(Numbers(2000, bad, folder='folder/' * 60), skip_bad=True)
    loader = DataLoader(dataset, batch_size=500, num_workers=1, collate_fn=list, timeout=30)
    assert len([number for batch in loader for number in batch]) == 2000  # a pipe holds about 150 such reports
    assert len(dataset.reports.receive()) == MOST_REPORTS


@pytest.fixture
def skip(caplog):
    """Run the hook over a data set, as a training of some epochs does."""

    def skip(dataset, epochs=1):
        dataset = SeededDataset(dataset, 0, skip_bad=True)
        logger = logging.getLogger('skip')
        runner = SimpleNamespace(train_dataloader=SimpleNamespace(dataset=dataset), logger=logger)
        hook = SkippedSamplesHook()
        for epoch in range(epochs):
            for number in range(len(dataset)):
                dataset[Draw(number, epoch)]
                hook.before_train_iter(runner, number)
        hook.after_train(runner)
        return caplog.messages

    return skip


def test_more_than_a_hundredth_of_the_samples_are_not_skipped(skip):
    skip(Numbers(300, bad=[5, 6, 250]))
    with pytest.raises(RunError, match=r'^2 of 199 samples cannot be read, and 1% may be skipped: images/img_path_5'):
        skip(Numbers(199, bad=[5, 100]))


def test_what_was_skipped_is_told_once_and_listed_at_the_end(skip):
    problem = 'images/img_path_7.png does not exist'
    assert skip(Numbers(20, bad=[7]), epochs=3) == [
        f'{problem}: another sample takes its place',
        f'Samples that others took the place of (1):\n{problem}',
    ]


def test_without_bad_samples_nothing_is_told(skip):
    assert skip(Numbers()) == []
