"""What a training with MMEngine's ``EMAHook`` saves is read as the averaged weights, whoever reads it."""

import copy

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from small_models import image, sample

from fasternet_mm.deployment.exported_models import ExportedDetector
from fasternet_mm.deployment.exporter import export
from fasternet_mm.engine.runner import build_runner
from fasternet_mm.inference.predictor import Predictor

WEIGHT = 'roi_head.bbox_head.fc_cls.weight'


@pytest.fixture(scope='module')
def averaged_cfg(detector_cfg):
    cfg = copy.deepcopy(detector_cfg)
    cfg.custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0002, update_buffers=True)]
    return cfg


@pytest.fixture(scope='module')
def checkpoint(detector, tmp_path_factory):
    """As ``EMAHook`` saves it in a training whose averages are the weights of ``detector``, and its weights others."""
    runner, hook = Runner.__new__(Runner), EMAHook(update_buffers=True)
    runner.model = copy.deepcopy(detector)
    hook.before_run(runner)
    for parameter in runner.model.parameters():
        parameter.data.mul_(0.5)
    content = dict(state_dict=runner.model.state_dict())
    hook.before_save_checkpoint(runner, content)
    path = tmp_path_factory.mktemp('averaged') / 'epoch_1.pth'
    torch.save(content, path)
    assert not torch.equal(content['ema_state_dict'][f'module.{WEIGHT}'], content['state_dict'][WEIGHT])
    return str(path)


def test_export_writes_the_averaged_weights(detector_cfg, detector, checkpoint, tmp_path):
    export(detector_cfg, checkpoint, out=tmp_path / 'net.torchscript')
    exported = ExportedDetector(str(tmp_path / 'net.torchscript'), trust_program=True)
    data = dict(inputs=[image(160, 160)], data_samples=[sample(160, 160)])
    with torch.no_grad():
        objects, expected = (model.test_step(copy.deepcopy(data))[0].pred_instances for model in (exported, detector))
    assert len(expected) > 1
    torch.testing.assert_close(objects.scores, expected.scores, rtol=0, atol=1e-5)


def test_the_predictor_takes_the_averaged_weights(detector_cfg, detector, checkpoint):
    predictor = Predictor(detector_cfg, checkpoint, device='cpu', optimize=False)
    for name, value in predictor.model.state_dict().items():
        assert torch.equal(value, detector.state_dict()[name])


@pytest.mark.parametrize('has_hook', [False, True])
def test_a_test_is_of_the_averaged_weights(averaged_cfg, detector, checkpoint, root, tmp_path, has_hook):
    cfg = copy.deepcopy(averaged_cfg)
    cfg.custom_hooks = cfg.custom_hooks if has_hook else []
    cfg.test_dataloader.dataset.update(data_root=str(root / 'data/shapes'), indices=1)
    cfg.test_evaluator.ann_file = str(root / 'data/shapes/annotations/val.json')
    cfg.update(work_dir=str(tmp_path), load_from=checkpoint, resume=False)
    runner = build_runner(cfg, ('test',))
    for step in ('before_run', 'load', 'before_test_epoch'):  # as `Runner.test` does
        runner.load_or_resume() if step == 'load' else runner.call_hook(step)
    for name, value in detector.state_dict().items():
        assert torch.equal(runner.model.state_dict()[name], value)
