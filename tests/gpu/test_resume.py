"""The way from training to figures on a GPU: what only shows where tensors are on another device than NumPy reads."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from printed import printed_rows

from fasternet_mm import CocoMetric, FasterNet, FasterNetClassifier, Predictor, load_weights
from fasternet_mm.datasets.shapes import ensure_shapes
from fasternet_mm.engine.config import load_config
from fasternet_mm.engine.runner import build_runner

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
DEVICE = 'cuda'

DETECTOR = 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py'
SEGMENTER = 'configs/shapes/upernet_fasternet_t0_shapes.py'
FEW = (
    'train_dataloader.dataset.indices=8',
    'val_dataloader.dataset.indices=4',
    'test_dataloader.dataset.indices=4',
)
EPOCHS = (*FEW, 'train_cfg.val_interval=1')
ITERATIONS = (*FEW, 'train_dataloader.batch_size=2', 'train_cfg.val_interval=2', 'default_hooks.checkpoint.interval=2')


@pytest.fixture(scope='module', autouse=True)
def shapes(root):
    return ensure_shapes(root / 'data' / 'shapes')


@pytest.fixture(autouse=True)
def _in_the_project(root, monkeypatch):
    monkeypatch.chdir(root)


def run(root, name, *args):
    command = [sys.executable, '-m', 'fasternet_mm', name, *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope='module', params=[(), ('--amp',)], ids=['float32', 'amp'])
def trained(request, root, shapes, tmp_path_factory):
    """A work directory after one epoch of two steps."""
    work = tmp_path_factory.mktemp('work')
    options = ('--seed', 3, *request.param, '--cfg-options', *EPOCHS, 'train_cfg.max_epochs=1')
    run(root, 'train', DETECTOR, '--work-dir', work, *options)
    return work, request.param


def test_resuming_brings_back_step_rate_and_momentum_onto_the_gpu(trained, tmp_path):
    saved = torch.load(trained[0] / 'epoch_1.pth', weights_only=True)
    cfg = load_config(DETECTOR, (*EPOCHS, 'train_cfg.max_epochs=1'))
    cfg.work_dir, cfg.load_from, cfg.resume = str(tmp_path), str(trained[0] / 'epoch_1.pth'), True
    if trained[1]:
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
    runner = build_runner(cfg, ('train', 'val'))
    runner.train()  # nothing is left to do
    assert (runner.epoch, runner.iter) == (1, 2)
    assert runner.optim_wrapper.get_lr()['lr'][0] == saved['optimizer']['param_groups'][0]['lr']
    assert runner.message_hub.get_scalar('train/loss').current() > 0
    states = runner.optim_wrapper.optimizer.state_dict()['state']
    assert states.keys() == saved['optimizer']['state'].keys()
    for number, state in states.items():
        for moment in ('exp_avg', 'exp_avg_sq'):
            assert state[moment].device.type == DEVICE
            assert torch.equal(state[moment].cpu(), saved['optimizer']['state'][number][moment])
    for name, value in runner.model.state_dict().items():
        assert value.device.type == DEVICE
        assert torch.equal(value.cpu(), saved['state_dict'][name]), name


def skipped_steps(saved):
    """Steps that mixed precision left out: each halves the scale of the loss, which begins at 2**16."""
    return 16 - round(math.log2((saved['optimizer'].get('loss_scaler') or dict(scale=2**16))['scale']))


def test_training_resumes_where_it_stopped(trained, root):
    work, amp = trained
    options = ('--resume', *amp, '--cfg-options', *EPOCHS, 'train_cfg.max_epochs=2')
    printed = run(root, 'train', DETECTOR, '--work-dir', work, *options)
    assert 'Epoch(train) [1]' not in printed
    saved = torch.load(work / 'epoch_2.pth', weights_only=True)
    assert (saved['meta']['epoch'], saved['meta']['iter']) == (2, 4)
    assert {int(state['step']) for state in saved['optimizer']['state'].values()} == {4 - skipped_steps(saved)}
    assert saved['param_schedulers'][0]['last_step'] == 4


@pytest.mark.parametrize('engine', [(), ('--no-optimize',), ('--bf16',)], ids=['optimized', 'as trained', 'bfloat16'])
def test_a_trained_detector_is_tested_and_predicts(trained, root, shapes, tmp_path, engine):
    work, amp = trained
    if amp and engine:
        pytest.skip('the engines are seen on the other training')
    drawn = ('--show-dir', tmp_path / 'drawings', '--report', tmp_path / 'report.html')
    printed = run(root, 'test', work, '--work-dir', tmp_path, *drawn, *engine, '--cfg-options', *FEW)
    assert printed_rows(printed).keys() == {'bbox', 'segm'}
    assert (tmp_path / 'drawings/sheet.png').is_file()
    images = sorted((shapes / 'images/test').iterdir())[:2]
    run(root, 'predict', work, *images, '--out-dir', tmp_path / 'found', *engine)
    records = json.loads((tmp_path / 'found/results.json').read_text())
    assert len({record['image_id'] for record in records}) == 2


def test_a_predictor_answers_in_numpy_as_on_the_cpu(trained, shapes):
    image = min((shapes / 'images/test').iterdir())
    found, expected = (Predictor(trained[0], device=device, optimize=False)(image) for device in (DEVICE, 'cpu'))
    assert isinstance(found.boxes, np.ndarray)
    assert isinstance(found.scores, np.ndarray)
    assert len(expected) > 0
    # A GPU multiplies with ten bits of the fractions.
    np.testing.assert_allclose(found.scores[:1], expected.scores[:1], atol=0.05)


@pytest.mark.parametrize('amp', [(), ('--amp',)], ids=['float32', 'amp'])
def test_a_segmenter_trains_resumes_is_tested_and_predicts(root, shapes, tmp_path, amp):
    for steps in (2, 4):
        options = (*amp, '--resume', '--cfg-options', *ITERATIONS, f'train_cfg.max_iters={steps}')
        run(root, 'train', SEGMENTER, '--work-dir', tmp_path, *options)
    saved = torch.load(tmp_path / 'iter_4.pth', weights_only=True)
    assert {int(state['step']) for state in saved['optimizer']['state'].values()} == {4 - skipped_steps(saved)}
    printed = run(root, 'test', tmp_path, '--show-dir', tmp_path / 'drawings', '--cfg-options', *FEW)
    assert 0 < printed_rows(printed)['mIoU'][0] <= 100
    run(root, 'predict', tmp_path, min((shapes / 'images/test').iterdir()), '--out-dir', tmp_path / 'found')
    assert list((tmp_path / 'found/labels').glob('*.png'))


def test_weights_load_into_a_model_on_the_gpu(tmp_path):
    tiny = dict(embed_dim=16, depths=(1, 1, 1, 1))
    saved = FasterNetClassifier(tiny).state_dict()
    torch.save({name: value.to(DEVICE) for name, value in saved.items()}, tmp_path / 'net.pth')
    net = FasterNet(tiny).to(DEVICE)
    load_weights(net, str(tmp_path / 'net.pth'))
    assert net.patch_embed.proj.weight.device.type == DEVICE
    assert torch.equal(net.patch_embed.proj.weight.cpu(), saved['patch_embed.proj.weight'])


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_the_metric_takes_detections_from_the_gpu(dtype):
    masks = torch.zeros(1, 20, 20, dtype=torch.bool)
    masks[0, 4:12, 2:10] = True
    truth = dict(bbox=[2, 4, 10, 12], bbox_label=0, mask=dict(size=[20, 20], counts=[44, *[8, 12] * 7, 8, 208]))
    found = InstanceData(
        bboxes=torch.tensor([[2.0, 4, 10, 12]], dtype=dtype, device=DEVICE),
        scores=torch.tensor([0.5], dtype=dtype, device=DEVICE),
        labels=torch.tensor([0], device=DEVICE),
        masks=masks.to(DEVICE),
    )
    sample = DetDataSample(metainfo=dict(img_id=1, ori_shape=(20, 20)), pred_instances=found)
    metric = CocoMetric(metric=['bbox', 'segm'])
    metric.dataset_meta = dict(classes=('cat',))
    metric.process({}, [sample.to_dict() | dict(img_id=1, ori_shape=(20, 20), instances=[truth])])
    figures = metric.evaluate(size=1)
    assert figures['coco/bbox_mAP'] == 1
    assert figures['coco/segm_mAP'] == 1


BOXES = [[0.0, 0, 10, 10], [1, 1, 11, 11], [30, 30, 50, 50], [31, 29, 50, 52], [5, 60, 25, 80]]
SCORES = [0.9, 0.8, 0.7, 0.95, 0.3]


def nms(boxes, scores, x, rois):
    from mmcv.ops import nms

    return nms(boxes, scores, 0.5)


def soft_nms(boxes, scores, x, rois):
    from mmcv.ops import soft_nms

    return soft_nms(boxes, scores, 0.3, method='gaussian')


def nms_match(boxes, scores, x, rois):
    from mmcv.ops import nms_match

    return nms_match(torch.cat((boxes, scores[:, None]), dim=1), 0.5)


def bbox_overlaps(boxes, scores, x, rois):
    from mmcv.ops import bbox_overlaps

    return (bbox_overlaps(boxes, boxes),)


def roi_align(boxes, scores, x, rois):
    from mmcv.ops import roi_align

    return (roi_align(x, rois, (7, 7), 0.25, 0, 'avg', True),)


def roi_pool(boxes, scores, x, rois):
    from mmcv.ops import roi_pool

    # Into 4 x 4 bins, whose edges are exact: of 7 x 7, CPU and GPU round some edges to different pixels.
    return (roi_pool(x, rois, (4, 4), 0.25),)


def deform_conv(boxes, scores, x, rois):
    from mmcv.ops import modulated_deform_conv2d

    offset, mask = x[:, :18], x[:, 18:27].sigmoid()
    weight = torch.linspace(-1, 1, 4 * 32 * 9, device=x.device).view(4, 32, 3, 3)
    return (modulated_deform_conv2d(x, offset, mask, weight, None, 1, 1),)


def focal_loss(boxes, scores, x, rois):
    from mmcv.ops import sigmoid_focal_loss

    return (
        sigmoid_focal_loss(x.flatten(1).T, torch.zeros(x[0].numel(), dtype=torch.long, device=x.device), 2.0, 0.25),
    )


@pytest.mark.parametrize(
    'operator', [nms, soft_nms, nms_match, bbox_overlaps, roi_align, roi_pool, deform_conv, focal_loss]
)
def test_mmcvs_operators_answer_as_on_the_cpu(operator):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 32, 20, 20, generator=generator)
    boxes, scores = torch.tensor(BOXES), torch.tensor(SCORES)
    inputs = boxes, scores, x, torch.cat((torch.zeros(len(boxes), 1), boxes), dim=1)
    found, expected = (operator(*(value.to(device) for value in inputs)) for device in (DEVICE, 'cpu'))
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        one, other = torch.as_tensor(one), torch.as_tensor(other)
        torch.testing.assert_close(one.cpu(), other, atol=1e-4, rtol=1e-4)
