"""What fits into a GPU. The measuring itself is the same on a CPU but for PyTorch's count of a GPU's memory."""

import copy

import pytest
import torch
from own_layouts import made, write_coco
from own_plans import planned

from fasternet_mm.engine.device_memory import GIB, Card
from fasternet_mm.errors import UserError
from fasternet_mm.own_data.plan import gpu_batch

MASK_RCNN = 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py'


@pytest.fixture(autouse=True)
def _in_the_project(root, monkeypatch):
    monkeypatch.chdir(root)


@pytest.fixture(scope='module')
def plan(tmp_path_factory, root):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        folder = tmp_path_factory.mktemp('data')
        write_coco(folder, made(train=8, val=2))
        return planned(MASK_RCNN, folder, tmp_path_factory.mktemp('out'), size=(64, 96), mixed=False)


def card(free):
    return Card('a card', int(free * GIB), 8 * GIB, True)


@pytest.mark.parametrize(
    ('free', 'at_once', 'said'),
    [
        ((8,), 16, 'a step with 16 at once takes 4.5 GiB of 8.0 GiB that are free'),
        ((8, 4.6), 8, '16 would take 4.5 GiB; a step with 8 at once takes 2.5 GiB of 4.6 GiB that are free'),
        ((2,), 4, '8 would take more than there is; a step with 4 at once takes 1.5 GiB of 2.0 GiB that are free'),
    ],
)
def test_half_the_images_are_tried_until_they_fit_with_room_to_spare(free, at_once, said, plan, monkeypatch):
    def peak(cfg, data, images):
        if images / 4 + 0.5 > free[0]:
            raise torch.cuda.OutOfMemoryError
        return (images / 4 + 0.5) * GIB

    monkeypatch.setattr(gpu_batch, 'peak_memory', peak)
    cfg, made_plan = plan
    cards = [card(part) for part in free]
    assert gpu_batch.measure_images_at_once(cfg, made_plan.data, 16, 1, cards) == (at_once, said)


def test_where_the_fewest_images_do_not_fit_a_sentence_says_what_was_tried(plan, monkeypatch):
    tried = []
    monkeypatch.setattr(gpu_batch, 'peak_memory', lambda cfg, data, images: tried.append(images) or 9 * GIB)
    with pytest.raises(
        UserError, match=r'a training step with 2 images of 64x96 \(H x W\) at once in float32: add --amp'
    ):
        gpu_batch.measure_images_at_once(plan[0], plan[1].data, 16, 2, [card(8)])
    assert tried == [16, 8, 4, 2]


@pytest.mark.parametrize(('grouped', 'first'), [(True, [3, 5]), (False, [3, 1])])
def test_the_batch_that_is_tried_is_padded_most_and_has_the_largest_images_with_most_objects(grouped, first, plan):
    """Upright images share a batch with wide ones only where no sampler keeps them apart."""
    cfg, data = copy.deepcopy((plan[0], plan[1].data))
    content = data.splits['train']
    for number, size in ((3, (300, 40)), (5, (64, 64)), (1, (40, 64))):
        content['images'][number].update(zip(('width', 'height'), size))
    if not grouped:
        cfg.train_dataloader.batch_sampler = None
    batch = gpu_batch.largest_batch(cfg, data, 10)
    assert len(batch['inputs']) == 10  # of 8 images
    paths = [sample.img_path.rpartition('/')[2] for sample in batch['data_samples']]
    names = [image['file_name'].rpartition('/')[2] for image in content['images']]
    assert paths[:2] == [names[number] for number in first]
    assert (names[1] in paths) is not grouped
    assert len(batch['data_samples'][2].gt_instances) == 2  # the most that an image has
    assert {tuple(image.shape[1:]) for image in batch['inputs']} == {(80, 107)}  # 64x48 in 64x96 times 1.25


def test_the_steps_that_are_tried_are_whole_training_steps(plan, monkeypatch):
    cfg, made_plan = plan
    steps = []
    monkeypatch.setattr('torch.optim.AdamW.step', lambda self, *_: steps.append(self))
    batch = gpu_batch.largest_batch(cfg, made_plan.data, 2)
    assert gpu_batch.train_briefly(cfg, batch, torch.device('cpu')) > 1_000_000
    assert len(steps) >= 2
