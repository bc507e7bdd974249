"""Which checkpoints there are, whatever happens: in MMEngine's way of calling its hook, and in tiny trainings."""

import errno
import math
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import CheckpointHook as MMEngineCheckpointHook
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import HOOKS
from small_models import SMALL
from torch import nn

from fasternet_mm.engine.checkpoint_hook import CheckpointHook
from fasternet_mm.engine.runner import StrictRunner, build_runner
from fasternet_mm.engine.work_dir import latest_checkpoint
from fasternet_mm.errors import RunError
from fasternet_mm.files import sweep_drafts

NAN = float('nan')


class Training:
    """In the place of a runner: what a checkpoint hook asks of one."""

    def __init__(self, folder, **options):
        self.work_dir, self.epoch, self.iter, self.warnings, self._load_from = str(folder), 0, 0, [], None
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


def test_a_best_that_only_its_own_file_knows_of_is_known_to_the_checkpoints_after_it(tmp_path):
    """The training was killed when it had saved the best weights of an epoch, and not yet the state that has them."""
    name = 'best_coco_bbox_mAP_epoch_1.pth'
    own = dict(runtime_info=dict(best_score=0.4, best_ckpt=name))
    torch.save(dict(state_dict={}, meta={}, message_hub=own), tmp_path / name)
    training = Training(tmp_path, save_best='coco/bbox_mAP')
    training.epoch = 1
    assert training.validate(*ap(0.3)) == [name]
    saved = training.message_hub.state_dict()['runtime_info']
    assert (saved['best_score'], saved['best_ckpt']) == (0.4, name)


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


class Metric(BaseMetric):
    """Gives figures that are written here."""

    def __init__(self, figures):
        super().__init__()
        self.figures = list(figures)

    def process(self, data_batch, data_samples):
        self.results.append(None)

    def compute_metrics(self, results):
        return dict(mIoU=self.figures.pop(0))


class Weight(BaseModel):
    """A step of SGD takes the learning rate, 1, off its weight, which is 0 at the beginning."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1000))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=self.weight.sum()) if mode == 'loss' else [self.weight]


def runner(folder, figures, resume=False, hooks=(), keep=1, epochs=None, by_epoch=True, **saving):
    """A training of two steps to the epoch, with an evaluation and a checkpoint after each; or after each step."""
    count = epochs or len(figures)
    loader = dict(dataset=[dict(inputs=torch.ones(1))] * 2, batch_size=1)
    length = dict(by_epoch=True, max_epochs=count) if by_epoch else dict(by_epoch=False, max_iters=count)
    saving = dict(type='fasternet_mm.CheckpointHook', by_epoch=by_epoch, interval=1, max_keep_ckpts=keep, **saving)
    return StrictRunner(
        Weight(),
        str(folder),
        train_dataloader=dict(loader, sampler=dict(type='DefaultSampler' if by_epoch else 'InfiniteSampler')),
        val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
        val_evaluator=Evaluator(Metric(figures)),
        val_cfg=dict(),
        train_cfg=dict(val_interval=1, **length),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=1.0)),
        default_hooks=dict(checkpoint=dict(saving, save_best='mIoU', rule='greater')),
        custom_hooks=[dict(type='fasternet_mm.PlainCheckpointHook'), *hooks],
        log_processor=dict(by_epoch=by_epoch),
        experiment_name=f'{folder} {count} {resume}',
        load_from=resume if isinstance(resume, str) else None,
        resume=bool(resume),
        cfg=Config(dict(resume=bool(resume))),
    )


def names(folder):
    """The checkpoints in a folder, and what else begins like one, such as a draft."""
    return sorted(path.name for path in Path(folder).iterdir() if '.pth' in path.name)


def weight(path):
    return torch.load(path, weights_only=True)['state_dict']['weight'][0].item()


class Interruption(BaseException):
    """As of a kill: nothing may handle it."""


def interrupted(runner, monkeypatch, event, call):
    """Train until the ``call``-th time that ``event``, a function of ``os``, is called with a checkpoint."""
    function, calls = getattr(os, event), []

    def interrupt(*args, **options):
        if any('.pth' in str(arg) for arg in args):
            calls.append(args)
            if len(calls) == call:
                raise Interruption
        return function(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, event, interrupt)
        with pytest.raises(Interruption):
            runner.train()


@pytest.mark.parametrize(
    ('event', 'call'), [*(('replace', call) for call in range(2, 9)), *(('remove', call) for call in range(1, 6))]
)
def test_a_training_that_is_stopped_anywhere_has_a_checkpoint_and_ends_like_one_that_is_not(
    event, call, tmp_path, monkeypatch
):
    figures = [0.1, 0.2, 0.3, 0.1, 0.4]
    interrupted(runner(tmp_path, figures), monkeypatch, event, call)
    latest = latest_checkpoint(tmp_path)
    done = torch.load(latest, weights_only=True)['meta']['epoch']
    assert weight(latest) == -2 * done
    runner(tmp_path, figures[done:], resume=latest, epochs=5).train()
    assert names(tmp_path) == ['best_mIoU_epoch_5.pth', 'epoch_5.pth']
    assert weight(tmp_path / 'epoch_5.pth') == -10


def test_mmengines_own_hook_leaves_nothing_there(tmp_path, monkeypatch):
    """Which is why there is one of ours; should this fail, MMEngine has learned it."""
    training = runner(tmp_path, [0.1, 0.1])
    hooks = [hook for hook in training._hooks if not isinstance(hook, CheckpointHook)]
    training._hooks = [*hooks, MMEngineCheckpointHook(interval=1, max_keep_ckpts=1)]
    interrupted(training, monkeypatch, 'replace', 2)
    assert names(tmp_path) == []


@pytest.mark.parametrize(('keep', 'expected'), [(1, [4]), (2, [3, 4]), (-1, [1, 2, 3, 4])])
def test_as_many_checkpoints_stay_as_the_config_says(keep, expected, tmp_path):
    runner(tmp_path, [0.5, 0.1, 0.1], keep=keep).train()
    runner(tmp_path, [0.1], resume=True, epochs=4, keep=keep).train()
    assert names(tmp_path) == ['best_mIoU_epoch_1.pth', *(f'epoch_{epoch}.pth' for epoch in expected)]
    assert Path((tmp_path / 'last_checkpoint').read_text()) == tmp_path / 'epoch_4.pth'


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).glob('*.pth')}


def test_a_copy_of_a_work_directory_leaves_the_original_as_it_is(tmp_path):
    runner(tmp_path / 'original', [0.1, 0.2]).train()
    before = contents(tmp_path / 'original')
    shutil.copytree(tmp_path / 'original', tmp_path / 'copy')
    runner(tmp_path / 'copy', [0.3], resume=str(tmp_path / 'copy/epoch_2.pth'), epochs=3).train()
    assert contents(tmp_path / 'original') == before
    assert names(tmp_path / 'copy') == ['best_mIoU_epoch_3.pth', 'epoch_3.pth']


def test_paths_that_mmengine_recorded_stand_for_names_in_the_folder(tmp_path):
    for folder in ('original', 'copy'):
        (tmp_path / folder).mkdir()
        for name in ('best_mIoU_epoch_1.pth', 'epoch_1.pth'):
            (tmp_path / folder / name).touch()
    training = Training(tmp_path / 'copy', save_best='mIoU')
    best = str(tmp_path / 'original/best_mIoU_epoch_1.pth')
    training.message_hub.update_info_dict(dict(best_score=0.1, best_ckpt=best, keep_ckpt_ids=[1]))
    training.epoch = 1
    assert training.validate(dict(mIoU=0.2)) == ['best_mIoU_epoch_2.pth']
    assert names(tmp_path / 'copy') == ['best_mIoU_epoch_2.pth', 'epoch_2.pth']
    assert names(tmp_path / 'original') == ['best_mIoU_epoch_1.pth', 'epoch_1.pth']


def test_going_on_in_another_folder_removes_nothing_there(tmp_path):
    for folder in ('first', 'second'):
        runner(tmp_path / folder, [0.1, 0.2], keep=-1).train()
    before = contents(tmp_path / 'second')
    runner(tmp_path / 'second', [0.3], resume=str(tmp_path / 'first/epoch_2.pth'), epochs=3).train()
    after = contents(tmp_path / 'second')
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {'best_mIoU_epoch_3.pth', 'epoch_3.pth'}


@pytest.fixture
def disk(monkeypatch):
    """What is wrong with the disk, as an error's number, while that is not None."""
    state = SimpleNamespace(error=None)
    sync, replace = os.fsync, os.replace

    def failing(function):
        def call(*args, **options):
            if state.error:
                raise OSError(state.error, os.strerror(state.error))
            return function(*args, **options)

        return call

    monkeypatch.setattr(os, 'fsync', failing(sync))
    monkeypatch.setattr(os, 'replace', failing(replace))
    return state


def hook_at(moment, function):
    """A hook that calls a function with the runner at one moment."""

    def call(self, runner, *_, **__):
        function(runner)

    return type('At', (Hook,), {moment: call, 'priority': 'LOWEST'})()


def not_saved(capsys):
    """The lines of the log on what could not be saved."""
    return [line for line in capsys.readouterr().out.splitlines() if 'is not saved' in line]


def disk_fails_from(disk, error, first, last):
    def at_epoch(runner):
        disk.error = error if first <= runner.epoch + 1 <= last else None

    return hook_at('before_train_epoch', at_epoch)


ERRORS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES]


@pytest.mark.parametrize('error', ERRORS)
def test_where_nothing_can_be_written_all_that_stands_stays_and_training_goes_on(error, disk, tmp_path):
    training = runner(tmp_path, [0.5, 0.1, 0.9, 0.1], hooks=[disk_fails_from(disk, error, 3, 4)])
    with pytest.raises(RunError, match=f'{os.strerror(error)}.*go on with --resume'):
        training.train()
    assert training.epoch == 4
    assert names(tmp_path) == ['best_mIoU_epoch_1.pth', 'epoch_2.pth']
    assert weight(tmp_path / 'epoch_2.pth') == -4


def test_a_failure_is_one_line_with_the_file_and_the_reason(disk, tmp_path, capsys):
    training = runner(tmp_path, [0.5, 0.1, 0.1], hooks=[disk_fails_from(disk, errno.ENOSPC, 2, 2)])
    training.train()
    [warning] = not_saved(capsys)
    assert warning.endswith(
        f' warning: {tmp_path}/epoch_2.pth is not saved (No space left on device): the checkpoints from before stay, '
        'and training goes on'
    )
    assert names(tmp_path) == ['best_mIoU_epoch_1.pth', 'epoch_3.pth']


def test_when_the_disk_has_room_again_all_is_as_if_it_always_had(disk, tmp_path):
    runner(tmp_path, [0.1, 0.2, 0.3, 0.4], hooks=[disk_fails_from(disk, errno.ENOSPC, 2, 3)]).train()
    assert names(tmp_path) == ['best_mIoU_epoch_4.pth', 'epoch_4.pth']
    assert weight(tmp_path / 'epoch_4.pth') == -8


def test_a_last_state_that_could_not_be_saved_is_saved_when_the_training_ends(disk, tmp_path):
    def repair(runner):
        disk.error = None

    repaired = hook_at('after_train', repair)
    repaired.priority = 'HIGH'
    training = runner(tmp_path, [0.5, 0.1], hooks=[disk_fails_from(disk, errno.ENOSPC, 2, 2), repaired])
    training.train()
    assert names(tmp_path) == ['best_mIoU_epoch_1.pth', 'epoch_2.pth']
    assert torch.load(tmp_path / 'epoch_2.pth', weights_only=True)['meta']['epoch'] == 2


def test_a_best_that_could_not_be_saved_does_not_keep_a_lesser_one_from_being_the_best(disk, tmp_path):
    runner(tmp_path, [0.1, 0.9, 0.5], hooks=[disk_fails_from(disk, errno.ENOSPC, 2, 2)]).train()
    assert names(tmp_path) == ['best_mIoU_epoch_3.pth', 'epoch_3.pth']


@pytest.mark.parametrize('value', [math.nan, math.inf])
def test_weights_that_are_not_finite_are_never_the_best(value, tmp_path, capsys):
    def spoil(runner):
        if runner.epoch == 2:
            runner.model.weight.data[7] = value

    training = runner(tmp_path, [0.1, 0.9], hooks=[hook_at('before_val', spoil)])
    training.train()
    assert names(tmp_path) == ['best_mIoU_epoch_1.pth', 'epoch_2.pth']
    [warning] = not_saved(capsys)
    assert 'best_mIoU_epoch_2.pth is not saved (weight has NaN or infinite numbers)' in warning
    assert training.message_hub.get_info('best_score') == 0.1


def saving_at(moment, when):
    """A hook that saves where ``when(runner)``; the paths that it was told."""
    told = []

    def save(runner):
        if when(runner):
            hook = next(hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
            told.append(hook.save_now(runner))

    return hook_at(moment, save), told


def test_a_state_within_an_epoch_is_saved_with_the_steps_that_are_done(tmp_path):
    saving, told = saving_at('after_train_iter', lambda runner: runner.iter == 2)  # which are done before its hooks
    training = runner(tmp_path, [0.1, 0.1], hooks=[saving, hook_at('after_train_iter', stop_after(3))])
    with pytest.raises(Interruption):
        training.train()
    assert told == [str(tmp_path / 'iter_3.pth')]
    assert names(tmp_path) == ['best_mIoU_epoch_1.pth', 'iter_3.pth']
    meta = torch.load(tmp_path / 'iter_3.pth', weights_only=True)['meta']
    assert (meta['epoch'], meta['iter'], weight(tmp_path / 'iter_3.pth')) == (1, 3, -3)


def stop_after(steps):
    def stop(runner):
        if runner.iter + 1 == steps:
            raise Interruption

    return stop


def test_it_goes_when_the_next_epoch_is_saved(tmp_path):
    saving, _ = saving_at('after_train_iter', lambda runner: runner.iter == 2)
    runner(tmp_path, [0.1, 0.1], hooks=[saving]).train()
    assert names(tmp_path) == ['best_mIoU_epoch_1.pth', 'epoch_2.pth']


def test_a_state_after_an_epoch_is_saved_under_its_number(tmp_path):
    saving, told = saving_at('after_val', lambda runner: True)
    runner(tmp_path, [0.1], hooks=[saving], save_last=False, save_begin=9).train()
    assert told == [str(tmp_path / 'epoch_1.pth')]
    meta = torch.load(tmp_path / 'epoch_1.pth', weights_only=True)['meta']
    assert (meta['epoch'], meta['iter'], weight(tmp_path / 'epoch_1.pth')) == (1, 2, -2)


def test_a_training_by_steps_saves_under_the_number_of_steps(tmp_path):
    saving, told = saving_at('after_train_iter', lambda runner: runner.iter == 1)
    runner(tmp_path, [0.1, 0.1, 0.1], hooks=[saving], by_epoch=False, save_last=False, save_begin=9).train()
    assert told == [str(tmp_path / 'iter_2.pth')]
    meta = torch.load(tmp_path / 'iter_2.pth', weights_only=True)['meta']
    assert (meta['iter'], weight(tmp_path / 'iter_2.pth')) == (2, -2)


def test_a_state_that_cannot_be_saved_now_is_told(disk, tmp_path):
    def break_disk(runner):
        disk.error = errno.ENOSPC

    saving, told = saving_at('after_train', lambda runner: True)
    with pytest.raises(RunError, match=r'the last state of this training is not saved: .* and train again'):
        runner(tmp_path, [0.1], hooks=[hook_at('before_train_epoch', break_disk), saving]).train()
    assert told == []  # the training's own hook comes first
    assert names(tmp_path) == []


def test_what_a_killed_training_had_begun_to_write_is_removed_and_nothing_else(tmp_path):
    drafts = ['.epoch_3.pth.ab12cd_x', '.best_mIoU_iter_9.pth.k2', '.last_checkpoint.9', '.config.py.7', '.draft-a1b2']
    others = ['.epoch_3.json.ab12', '.results.json.k3', '.git', '.hidden.pth', 'epoch_3.pth.x']
    for name in (*drafts, *others):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'epoch_3.pth').touch()
    (tmp_path / '.epoch_4.pth.file').touch()
    sweep_drafts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*others, '.epoch_4.pth.file'}
    (tmp_path / drafts[0]).mkdir()
    Training(tmp_path).validate()
    assert not (tmp_path / drafts[0]).exists()
