"""Parts of a training run on the GPU: optimizers, steps in parts, what is logged, measured and evaluated."""

import copy

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.structures import InstanceData
from small_models import SMALL
from torch import nn

from fasternet_mm import CocoMetric, FasterNet
from fasternet_mm.engine.micro_batches import MicroBatches
from fasternet_mm.engine.optimizer import in_few_operators, keep_implementation

OPTIMIZERS = {
    'AdamW': dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    'SGD': dict(type='SGD', lr=0.1, momentum=0.9, weight_decay=1e-4),
}


def gradients_of_steps(net, steps):
    generator = torch.Generator().manual_seed(0)
    return [[torch.randn(p.shape, generator=generator) for p in net.parameters()] for _ in range(steps)]


def optimized(net, optimizer):
    """As the runner makes it."""
    settings = dict(optimizer=optimizer, clip_grad=dict(max_norm=1.0))
    wrapper = build_optim_wrapper(net, in_few_operators(settings, net))
    keep_implementation(wrapper.optimizer)
    return wrapper


def learn(net, wrapper, gradients):
    for step in gradients:
        for parameter, gradient in zip(net.parameters(), step):
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        wrapper.step()


def assert_equal_parameters(net, expected):
    for (name, parameter), other in zip(net.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(parameter.cpu(), other.cpu(), rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize('optimizer', OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_a_fused_step_is_the_plain_one_of_the_cpu(optimizer, device):
    plain = FasterNet(SMALL)
    net = copy.deepcopy(plain).to(device)
    gradients = gradients_of_steps(plain, 5)
    wrapper = optimized(net, optimizer)
    assert wrapper.optimizer.defaults['fused']
    learn(net, wrapper, gradients)
    learn(plain, optimized(plain, {**optimizer, 'fused': False}), gradients)
    assert_equal_parameters(net, plain)


@pytest.mark.parametrize('channels_last', [False, True], ids=['contiguous', 'channels_last'])
def test_a_fused_step_goes_on_from_a_checkpoint_of_the_cpus_plain_one(channels_last, device, tmp_path):
    plain = FasterNet(SMALL)
    gradients = gradients_of_steps(plain, 4)
    wrapper = optimized(plain, {**OPTIMIZERS['AdamW'], 'fused': False})
    learn(plain, wrapper, gradients[:2])
    torch.save(wrapper.state_dict(), tmp_path / 'optimizer.pth')
    net = copy.deepcopy(plain).to(device)
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
    resumed = optimized(net, OPTIMIZERS['AdamW'])
    resumed.load_state_dict(torch.load(tmp_path / 'optimizer.pth', weights_only=True))
    assert resumed.optimizer.param_groups[0]['fused']
    learn(net, resumed, gradients[2:])
    learn(plain, wrapper, gradients[2:])
    assert_equal_parameters(net, plain)


class Wide(BaseModel):
    """Takes about 250 MB for each image of 512x512 pixels; its loss is a mean over images."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 64, 3)

    def forward(self, inputs, data_samples=None, mode='loss'):
        return dict(loss=self.layer(torch.stack(inputs)).square().mean())


@pytest.mark.parametrize('at_once', [8, 3])
def test_a_step_in_parts_is_the_whole_step(at_once, device):
    batch = dict(inputs=[*torch.randn(8, 3, 32, 32, device=device)])
    whole = Wide().to(device)
    parted = copy.deepcopy(whole)
    loss = whole.train_step(batch, optimized_by_sgd(whole))['loss']
    logged = MicroBatches(at_once).step(parted, batch, optimized_by_sgd(parted))
    torch.testing.assert_close(logged['loss'], loss.detach(), rtol=1e-5, atol=1e-6)
    assert_equal_parameters(parted, whole)


def optimized_by_sgd(model):
    return OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.cuda
def test_a_step_that_the_memory_does_not_hold_is_made_in_parts(device, little_memory, logged_warnings):
    batch = dict(inputs=[*torch.randn(8, 3, 512, 512, device=device)])
    whole = Wide().to(device)
    parted = copy.deepcopy(whole)
    whole.train_step(batch, optimized_by_sgd(whole))
    whole.zero_grad()
    little_memory(700 * 2**20)
    micro_batches = MicroBatches(8)
    micro_batches.step(parted, batch, optimized_by_sgd(parted))
    assert 1 <= micro_batches.images_at_once <= 4
    assert "The GPU's memory did not hold 8 images at once" in logged_warnings()[0]
    assert_equal_parameters(parted, whole)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_the_metric_takes_detections_from_the_device(dtype, device):
    masks = torch.zeros(1, 20, 20, dtype=torch.bool)
    masks[0, 4:12, 2:10] = True
    truth = dict(bbox=[2, 4, 10, 12], bbox_label=0, mask=dict(size=[20, 20], counts=[44, *[8, 12] * 7, 8, 208]))
    objects = InstanceData(
        bboxes=torch.tensor([[2.0, 4, 10, 12]], dtype=dtype, device=device),
        scores=torch.tensor([0.5], dtype=dtype, device=device),
        labels=torch.tensor([0], device=device),
        masks=masks.to(device),
    )
    sample = DetDataSample(metainfo=dict(img_id=1, ori_shape=(20, 20)), pred_instances=objects)
    metric = CocoMetric(metric=['bbox', 'segm'])
    metric.dataset_meta = dict(classes=('cat',))
    metric.process({}, [sample.to_dict() | dict(img_id=1, ori_shape=(20, 20), instances=[truth])])
    figures = metric.evaluate(size=1)
    assert figures['coco/bbox_mAP'] == 1
    assert figures['coco/segm_mAP'] == 1
