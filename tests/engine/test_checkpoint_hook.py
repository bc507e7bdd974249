"""Which validation's checkpoint stays as the best, in MMEngine's way of calling its hook."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.logging import MessageHub
from mmengine.registry import HOOKS
from small_models import SMALL

from fasternet_mm.engine.checkpoint_hook import CheckpointHook
from fasternet_mm.engine.runner import build_runner

NAN = float('nan')


class Training:
    """In the place of a runner: what a checkpoint hook asks of one."""

    def __init__(self, folder, **options):
        self.work_dir, self.epoch, self.iter, self.warnings = str(folder), 0, 0, []
        self.message_hub = MessageHub('test')
        self.logger = SimpleNamespace(info=lambda text: None, warning=self.warnings.append)
        self.hook = HOOKS.build(dict(type='fasternet_mm.CheckpointHook', interval=1, max_keep_ckpts=1, **options))

    def save_checkpoint(self, out_dir, filename, *_, **__):
        Path(out_dir, filename).write_text(f'{self.epoch}')

    def validate(self, *validations):
        """Epochs, each with what its validation says; the best checkpoints that are there at the end."""
        self.hook.before_train(self)
        for metrics in validations:
            self.hook._save_checkpoint(self)
            self.epoch += 1
            self.hook.after_val_epoch(self, metrics)
        return sorted(path.name for path in Path(self.work_dir).glob('best_*'))


def ap(*values, key='coco/bbox_mAP'):
    return [{key: value, 'coco/bbox_mAP_50': 'a string'} for value in values]


@pytest.mark.parametrize('nothing', [-1.0, -1, NAN, math.inf])
def test_a_validation_without_a_figure_is_never_the_best_and_is_said(nothing, tmp_path):
    training = Training(tmp_path, save_best='coco/bbox_mAP', rule='greater')
    assert training.validate(*ap(nothing, nothing)) == []
    assert len(training.warnings) == 2
    assert training.warnings[0].startswith(
        f'This validation chooses no best checkpoint: coco/bbox_mAP is {nothing}: there were no objects'
    )


@pytest.mark.parametrize('nothing', [-1.0, NAN])
def test_a_real_figure_is_the_best_before_and_after_one_that_is_none(nothing, tmp_path):
    training = Training(tmp_path, save_best='coco/bbox_mAP', rule='greater')
    assert training.validate(*ap(nothing, 0.0)) == ['best_coco_bbox_mAP_epoch_2.pth']
    assert training.validate(*ap(nothing, 0.2, nothing, 0.1)) == ['best_coco_bbox_mAP_epoch_4.pth']
    assert training.message_hub.get_info('best_score') == 0.2


def test_of_mean_iou_nan_is_never_the_best(tmp_path):
    training = Training(tmp_path, save_best='mIoU', rule='greater')
    assert training.validate(dict(mIoU=NAN), dict(mIoU=12.5), dict(mIoU=NAN)) == ['best_mIoU_epoch_2.pth']


def test_the_smallest_loss_is_the_best_and_minus_one_is_a_figure_of_it(tmp_path):
    training = Training(tmp_path, save_best='loss', rule='less')
    assert training.validate(*({'loss': value} for value in (NAN, 3, -1, 2))) == ['best_loss_epoch_3.pth']


def test_auto_takes_the_first_metric_of_the_first_validation(tmp_path):
    training = Training(tmp_path, save_best='auto')
    assert training.validate(*ap(-1, 0.3, 0.2)) == ['best_coco_bbox_mAP_epoch_2.pth']


def test_several_metrics_choose_one_by_one(tmp_path):
    training = Training(tmp_path, save_best=['coco/bbox_mAP', 'coco/segm_mAP'])
    validations = [{'coco/bbox_mAP': box, 'coco/segm_mAP': mask} for box, mask in ((0.1, -1), (NAN, 0.2), (0.05, 0.1))]
    assert training.validate(*validations) == ['best_coco_bbox_mAP_epoch_1.pth', 'best_coco_segm_mAP_epoch_2.pth']


def test_a_metric_that_the_validation_lacks_is_said_and_does_not_end_the_training(tmp_path):
    training = Training(tmp_path, save_best='coco/segm_mAP')
    assert training.validate(*ap(0.1)) == []
    assert training.warnings == [
        'This validation chooses no best checkpoint: save_best asks for coco/segm_mAP, and it has '
        'coco/bbox_mAP, coco/bbox_mAP_50'
    ]


@pytest.mark.parametrize('score', [-1.0, NAN])
@pytest.mark.parametrize('save_best', ['coco/bbox_mAP', 'auto'])
def test_resuming_takes_back_a_best_that_was_chosen_without_a_figure(score, save_best, tmp_path):
    training = Training(tmp_path, save_best=save_best)
    wrong = tmp_path / 'best_coco_bbox_mAP_epoch_1.pth'
    wrong.touch()
    training.message_hub.update_info_dict(dict(best_score=score, best_ckpt=str(wrong)))
    assert training.validate(*ap(-1)) == []
    assert training.warnings[0].startswith(
        f'{wrong} is removed: it was saved as the best checkpoint with a metric of {score}'
    )
    assert training.validate(*ap(0.0)) == ['best_coco_bbox_mAP_epoch_2.pth']


def test_resuming_keeps_a_best_with_a_figure(tmp_path):
    training = Training(tmp_path, save_best='coco/bbox_mAP')
    (tmp_path / 'best_coco_bbox_mAP_epoch_1.pth').touch()
    right = str(tmp_path / 'best_coco_bbox_mAP_epoch_1.pth')
    training.message_hub.update_info_dict(dict(best_score=0.4, best_ckpt=right))
    assert training.validate(*ap(0.3)) == ['best_coco_bbox_mAP_epoch_1.pth']
    assert training.validate(*ap(0.5)) == ['best_coco_bbox_mAP_epoch_2.pth']
    assert training.warnings == []


def test_a_best_checkpoint_of_another_training_is_said(tmp_path):
    (tmp_path / 'best_mIoU_iter_900.pth').touch()
    training = Training(tmp_path, save_best='mIoU')
    assert training.validate(dict(mIoU=3.0)) == ['best_mIoU_epoch_1.pth', 'best_mIoU_iter_900.pth']
    assert [warning.partition(',')[0] for warning in training.warnings] == [
        f'{tmp_path / "best_mIoU_iter_900.pth"}: not of this training'
    ]


def test_a_config_that_names_mmengines_hook_gets_this_one(root, tmp_path):
    cfg = Config.fromfile(root / 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py')
    cfg.model.backbone.arch, cfg.model.neck.in_channels = SMALL, [16, 32, 64, 128]
    assert cfg.default_hooks.checkpoint.type == 'CheckpointHook'
    cfg.work_dir, cfg.default_hooks.checkpoint.save_best = str(tmp_path), 'coco/segm_mAP'
    hooks = [hook for hook in build_runner(cfg, ()).hooks if isinstance(hook, MMEngineCheckpointHook)]
    assert [type(hook) for hook in hooks] == [CheckpointHook]
    assert hooks[0].save_best == ['coco/segm_mAP']
