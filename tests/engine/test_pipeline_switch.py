from types import SimpleNamespace

import pytest
from mmengine.logging import MMLogger
from mmengine.registry import TRANSFORMS
from torch.utils.data import DataLoader, Dataset

from fasternet_mm.engine.pipeline_switch import PipelineSwitchHook


@pytest.fixture(scope='module', autouse=True)
def _plain_step():
    @TRANSFORMS.register_module(name='Plain', force=True)
    class Plain:
        def __call__(self, image):
            return image * 10

    yield
    del TRANSFORMS.module_dict['Plain']


class Images(Dataset):
    def __init__(self):
        self.pipeline = lambda image: -image

    def __len__(self):
        return 3

    def __getitem__(self, number):
        return self.pipeline(number + 1)


class Wrapper(Images):
    def __init__(self, dataset):
        self.dataset = dataset

    def __getitem__(self, number):
        return self.dataset[number]


def seen(hook, loader, epochs):
    """The images of each epoch, as a training that calls the hook before it reads them."""
    images = []
    for epoch in epochs:
        hook.before_train_epoch(
            SimpleNamespace(epoch=epoch, train_dataloader=loader, logger=MMLogger.get_current_instance())
        )
        images.append(sorted(int(image) for image in loader))
    return images


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('dataset', [Images(), Wrapper(Wrapper(Images()))])
def test_images_change_at_the_epoch_that_is_said_in_wrappers_and_in_workers_that_live_on(dataset, workers):
    hook = PipelineSwitchHook(2, [dict(type='Plain')])
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    varied, plain = [-3, -2, -1], [10, 20, 30]
    innermost = dataset
    while hasattr(innermost, 'dataset'):
        innermost = innermost.dataset
    innermost.pipeline = lambda image: -image
    assert seen(hook, loader, range(4)) == [varied, varied, plain, plain]


def test_a_training_that_is_resumed_after_the_change_has_plain_images_at_once():
    loader = DataLoader(Images(), batch_size=None)
    assert seen(PipelineSwitchHook(2, [dict(type='Plain')]), loader, [3]) == [[10, 20, 30]]
