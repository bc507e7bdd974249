"""fasternet-mm train up to where training would start, as a person runs it."""

import errno
import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from own_layouts import made, write_coco

from fasternet_mm.cli.train import nothing_left
from fasternet_mm.engine.config import load_config
from fasternet_mm.engine.device_memory import GIB, Card
from fasternet_mm.engine.folder_lock import folder_lock
from fasternet_mm.engine.processes import share_of_batch
from fasternet_mm.engine.runner import build_model
from fasternet_mm.errors import UserError
from fasternet_mm.files import MARKER
from fasternet_mm.own_data.plan.run_time import RunTime

MASK_RCNN = 'shapes/mask_rcnn_fasternet_t0_shapes'


@pytest.fixture
def train(command, tmp_path_factory, monkeypatch):
    def train(*args):
        """The status, what was printed, and the error."""
        done = command('train', *args)
        return done.returncode, done.stdout, done.stderr

    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path_factory.mktemp('cache')))
    return train


@pytest.fixture(autouse=True)
def _known_time(monkeypatch):
    """Steps are not measured: tests of how a training is planned are many."""
    time = RunTime(step=0.35, steps=2030, evaluation=7, evaluations=10)
    monkeypatch.setattr('fasternet_mm.own_data.plan.run_time.measure_run_time', lambda *_: time)


@pytest.fixture
def data(tmp_path):
    write_coco(tmp_path / 'data', made(train=20, val=0))
    return tmp_path / 'data'


def snapshot(folder):
    """All that could change in a folder."""
    return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in folder.rglob('*')}


CHECKPOINTS = ['epoch_12.pth', 'iter_400.pth', 'best_coco_bbox_mAP_epoch_3.pth', 'last_checkpoint']


@pytest.mark.parametrize('checkpoint', CHECKPOINTS)
@pytest.mark.parametrize('own', [True, False])
def test_a_training_never_goes_into_the_work_directory_of_another(own, checkpoint, train, data, tmp_path):
    work = tmp_path / 'work'
    work.mkdir()
    (work / checkpoint).touch()
    (work / 'config.py').write_text('# of the training')
    before = snapshot(work)
    status, _, error = train(MASK_RCNN, '--work-dir', work, *(('--data', data) if own else ()))
    assert status == 2
    assert f'{work} holds {checkpoint} of an earlier training: go on with --resume' in error
    assert snapshot(work) == before


def test_without_a_checkpoint_to_go_on_from_an_earlier_training_is_not_begun_anew(train, data, tmp_path):
    work = tmp_path / 'work'
    work.mkdir()
    (work / 'best_coco_bbox_mAP_epoch_3.pth').touch()
    status, _, error = train(MASK_RCNN, '--work-dir', work, '--data', data, '--resume')
    assert status == 2
    assert 'holds best_coco_bbox_mAP_epoch_3.pth' in error


@pytest.mark.parametrize('checkpoint', CHECKPOINTS)
def test_a_dry_run_shows_all_and_changes_nothing_where_a_training_is(checkpoint, train, data, tmp_path):
    work = tmp_path / 'work'
    work.mkdir()
    (work / checkpoint).touch()
    (work / 'config.py').write_text('# of the training')
    before = snapshot(work)
    status, printed, error = train(MASK_RCNN, '--work-dir', work, '--data', data, '--dry-run', '--size', 60, 90)
    assert status == 0, error
    assert 'image size:    60x90 (H x W)' in printed
    assert f'{work} holds {checkpoint}: nothing was written; train with --resume' in printed
    assert snapshot(work) == before


@pytest.mark.parametrize('options', [(), ('--resume',), ('--dry-run',)])
def test_a_work_directory_that_another_process_trains_in_is_refused(options, train, data, tmp_path):
    work = tmp_path / 'work'
    with folder_lock(work):
        before = snapshot(work)
        status, _, error = train(MASK_RCNN, '--work-dir', work, '--data', data, *options)
        assert status == 2
        assert f'{work} is in use: process {os.getpid()} on {socket.gethostname()} has trained in it since' in error
        assert snapshot(work) == before


@pytest.fixture
def run(train, data, tmp_path):
    """A work directory as a training with ``--size 90x60 --seed 5`` leaves it, but with random weights."""
    work = tmp_path / 'work'
    options = ('--data', data, '--work-dir', work)
    assert train(MASK_RCNN, *options, '--dry-run', '--size', 60, 90, '--seed', 5)[0] == 0
    cfg = load_config(str(work / 'config.py'))
    meta = dict(epoch=1, iter=1, dataset_meta=dict(classes=cfg.train_dataloader.dataset.metainfo.classes))
    state = dict(optimizer=dict(state={}, param_groups=[]), param_schedulers=[], message_hub={})
    torch.save(dict(state_dict=build_model(cfg).state_dict(), meta=meta, **state), work / 'epoch_1.pth')
    return work


def test_a_dry_run_with_resume_changes_nothing_either_and_keeps_split_and_size(run, train, data):
    before = snapshot(run)
    status, printed, error = train(MASK_RCNN, '--work-dir', run, '--data', data, '--dry-run', '--resume', '--seed', 6)
    assert status == 0, error
    assert printed.startswith(f'resume: {run / "epoch_1.pth"}, epoch 1, step 1\n')
    assert 'image size:    60x90 (H x W): as the run has it' in printed
    assert f'as the run has it ({run / "data"}), whatever --seed and --group; new images' in printed
    assert '(seed 6): 0; gone: 0' in printed
    assert f'{run / "epoch_1.pth"}, where it stopped' in printed
    assert snapshot(run) == before


def test_where_there_is_nothing_to_resume_that_is_said(train, data, tmp_path):
    work = tmp_path / 'work'
    status, printed, error = train(MASK_RCNN, '--work-dir', work, '--data', data, '--dry-run', '--resume')
    assert status == 0, error
    assert printed.startswith(f'resume: {work} holds no checkpoint: the training begins anew\n')


def test_what_fails_before_a_resumed_training_starts_changes_nothing(run, train, data):
    (run / 'epoch_1.pth').write_bytes(b'broken')
    before = snapshot(run)
    status, _, error = train(MASK_RCNN, '--work-dir', run, '--data', data, '--resume', '--size', 80, 120)
    assert status == 2
    assert 'epoch_1.pth is broken' in error
    assert snapshot(run) == before


@pytest.mark.parametrize('resume', [['--resume'], ['--cfg-options', 'resume=True']])
def test_a_resumed_training_has_the_split_and_the_size_of_the_run(resume, run, train, data, monkeypatch):
    before = {part: json.loads((run / f'data/{part}.json').read_text()) for part in ('train', 'val')}
    monkeypatch.setattr('fasternet_mm.engine.runner.build_runner', lambda *_: sys.exit(0))
    status, _, error = train(MASK_RCNN, '--work-dir', run, '--data', data, '--seed', 6, *resume)
    assert status == 0, error
    assert {part: json.loads((run / f'data/{part}.json').read_text()) for part in ('train', 'val')} == before
    cfg = load_config(str(run / 'config.py'))
    assert [step.scale for step in cfg.val_dataloader.dataset.pipeline if 'scale' in step] == [(90, 60)]
    assert cfg.train_dataloader.dataset.ann_file == str(run / 'data/train.json')
    assert (cfg.load_from, cfg.resume) == (None, False)
    assert {path.name for path in run.iterdir()} == {MARKER, 'config.py', 'data', 'epoch_1.pth', 'samples.png'}


def test_what_is_refused_leaves_no_work_directory(train, data, tmp_path):
    (data / 'images/train/p00000.png').write_bytes(b'')
    status, _, error = train(MASK_RCNN, '--data', data, '--work-dir', tmp_path / 'work')
    assert status == 2
    assert 'p00000.png' in error
    assert not (tmp_path / 'work').exists()


@pytest.mark.parametrize('place', ['data', 'data/deeper'])
def test_annotations_never_go_over_the_users_own(place, train, tmp_path):
    write_coco(tmp_path / place, made(train=20, val=0))
    before = snapshot(tmp_path / place)
    status, _, error = train(MASK_RCNN, '--data', tmp_path / place, '--work-dir', tmp_path)
    assert status == 2
    assert 'where a training writes files of its own: name another --work-dir' in error
    assert snapshot(tmp_path / place) == before


@pytest.mark.parametrize('place', ['.', 'images', 'images/train'])
def test_a_training_never_mixes_its_files_with_the_data(place, train, tmp_path):
    write_coco(tmp_path, made(train=20, val=0))
    before = snapshot(tmp_path)
    status, _, error = train(MASK_RCNN, '--data', tmp_path, '--work-dir', tmp_path / place, '--dry-run')
    assert status == 2
    assert 'where a training writes files of its own: name another --work-dir' in error
    assert {path for path in before if path.is_file()} == {path for path in tmp_path.rglob('*') if path.is_file()}


def test_a_full_disk_is_one_sentence_and_leaves_nothing(train, tmp_path, monkeypatch):
    def full(number):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_coco(tmp_path / 'data', made(train=20, val=0))
    monkeypatch.setattr(os, 'fsync', full)
    status, _, error = train(MASK_RCNN, '--data', tmp_path / 'data', '--work-dir', tmp_path / 'work')
    assert status == 2
    assert 'cannot be written (No space left on device): make room' in error
    assert not (tmp_path / 'work').exists()


@pytest.fixture
def gpu(monkeypatch):
    """A machine with a GPU as far as planning goes: 8 GiB, of which a training step takes half a one per image."""

    def peak(cfg, data, images):
        if images > 14:
            raise torch.cuda.OutOfMemoryError('CUDA out of memory')
        return images * GIB // 2

    threads = torch.get_num_threads()
    for variable in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(
        'fasternet_mm.engine.device_memory.card_at_hand', lambda: Card('A card', 7 * GIB, 8 * GIB, True)
    )
    monkeypatch.setattr('fasternet_mm.own_data.plan.gpu_batch.peak_memory', peak)
    monkeypatch.setattr('fasternet_mm.own_data.plan.computing.cpus_per_process', lambda: 4)
    yield monkeypatch
    torch.set_num_threads(threads)


@pytest.fixture
def many(tmp_path):
    write_coco(tmp_path / 'many', made(train=160, val=2))
    return tmp_path / 'many'


@pytest.mark.usefixtures('gpu')
def test_on_a_gpu_the_plan_says_batch_precision_and_workers_with_their_reasons(train, many, tmp_path):
    work = tmp_path / 'work'
    status, printed, error = train(MASK_RCNN, '--work-dir', work, '--data', many, '--dry-run', '--size', 60, 90)
    assert status == 0, error
    assert '120 epochs, 1,200 steps of 16 images (as the published recipes have), evaluated' in printed
    assert 'device:        A card, 7.0 of 8.0 GiB free\n' in printed
    assert 'precision:     bfloat16 mixed with float32, which this GPU computes in by itself: faster' in printed
    assert 'memory:        8 images at once, and the gradients of the 16 are added up: 16 would take more' in printed
    assert 'a step with 8 at once takes 4.0 GiB of 7.0 GiB that are free' in printed
    assert 'workers:       3 processes prepare images, of 4 CPUs per process; one thread computes beside' in printed
    assert torch.get_num_threads() == 1
    cfg = load_config(str(work / 'config.py'))
    assert (cfg.optim_wrapper.type, cfg.optim_wrapper.dtype) == ('AmpOptimWrapper', 'bfloat16')
    loop = dict(type='fasternet_mm.EpochLoop', images_at_once=8, least_images=1)
    assert cfg.train_cfg == dict(loop, max_epochs=120, val_interval=12)
    loader = cfg.train_dataloader
    assert (loader.batch_size, loader.num_workers, loader.persistent_workers, loader.pin_memory) == (16, 3, True, True)


@pytest.mark.usefixtures('gpu')
def test_what_the_user_says_counts_more_than_the_gpu(train, many, tmp_path):
    options = ('--batch', 4, '--no-amp', '--workers', 0, '--size', 60, 90)
    work = tmp_path / 'work'
    status, printed, error = train(MASK_RCNN, '--work-dir', work, '--data', many, '--dry-run', *options)
    assert status == 0, error
    assert 'steps of 4 images (as you say)' in printed
    assert 'precision:     float32, as you say' in printed
    assert 'memory:        a step with 4 at once takes 2.0 GiB' in printed
    assert 'workers:       0 processes prepare images, as you say' in printed
    cfg = load_config(str(work / 'config.py'))
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    loader = cfg.train_dataloader
    assert (loader.batch_size, loader.num_workers, loader.persistent_workers) == (4, 0, False)


def test_a_resumed_run_keeps_its_images_per_step(run, gpu, train, data):
    """The run began on a CPU with four; on a GPU a new one would have two."""
    status, printed, error = train(MASK_RCNN, '--work-dir', run, '--data', data, '--dry-run', '--resume')
    assert status == 0, error
    assert 'steps of 4 images (as the run has it)' in printed


def test_on_a_cpu_without_bfloat16_the_plan_is_the_configs(train, data, tmp_path, monkeypatch):
    monkeypatch.setattr('fasternet_mm.own_data.plan.computing.cpu_computes_bfloat16', lambda: False)
    status, printed, error = train(MASK_RCNN, '--work-dir', tmp_path / 'work', '--data', data, '--dry-run')
    assert status == 0, error
    assert 'steps of 4 images (a tenth of the training images, but 4 at least), evaluated' in printed
    assert not {'device:', 'precision:', 'memory:', 'workers:'} & {line.split(' ')[0] for line in printed.splitlines()}
    cfg = load_config(str(tmp_path / 'work/config.py'))
    assert (cfg.optim_wrapper.type, cfg.train_cfg.type) == ('OptimWrapper', 'EpochBasedTrainLoop')


@pytest.mark.parametrize(('option', 'kind'), [((), 'fasternet_mm.CpuAmpOptimWrapper'), (('--no-amp',), 'OptimWrapper')])
def test_a_cpu_with_bfloat16_computes_in_it_unless_the_user_says_no(option, kind, train, data, tmp_path, monkeypatch):
    monkeypatch.setattr('fasternet_mm.own_data.plan.computing.cpu_computes_bfloat16', lambda: True)
    status, printed, error = train(MASK_RCNN, '--work-dir', tmp_path / 'work', '--data', data, '--dry-run', *option)
    assert status == 0, error
    assert ('precision:     bfloat16 mixed with float32, which this CPU' in printed) is not bool(option)
    assert load_config(str(tmp_path / 'work/config.py')).optim_wrapper.type == kind


@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        (('--batch', 0), 'argument --batch: 0'),
        (('--batch', 'many'), 'argument --batch: many'),
        (('--workers', -1), 'argument --workers: -1: give a whole number from 0'),
        (('--workers', 'all'), 'argument --workers: all: give a whole number from 0'),
        (('--start', 'x.pth', '--resume'), '--start begins a new training from weights, --resume goes on with one'),
        (('--start', 'nothing'), 'checkpoint nothing does not exist; give a file, a URL, or a published name'),
        (('--fast',), '--ignore-label, --group, --fast and --accurate are for --data DIR: name the folder'),
        (('--patience', 0), 'argument --patience: 0'),
        (('--without', 'mosaics'), "argument --without: invalid choice: 'mosaics'"),
        (('--no-balance',), '--without, --no-balance, --ignore-label, --group, --fast and --accurate are for --data'),
        (('--data', '.', '--accurate'), '--accurate chooses the model, and '),
        (('--data', '.', '--fast', '--accurate'), 'argument --accurate: not allowed with argument --fast'),
        (
            ('--amp',),
            '--amp needs a GPU with CUDA, or a CPU that computes in bfloat16, and PyTorch sees neither: train',
        ),
        (('--cfg-options', 'optim_wrapper.type=AmpOptimWrapper'), "the config's mixed precision needs a GPU with CUDA"),
    ],
)
def test_wrong_options_are_one_sentence(options, reason, train, tmp_path, monkeypatch):
    monkeypatch.setattr('fasternet_mm.devices.cpu_computes_bfloat16', lambda: False)
    status, _, error = train(MASK_RCNN, '--work-dir', tmp_path / 'work', *options)
    assert status == 2
    assert reason in error
    assert error.count('\n') == 1


def test_without_a_config_and_without_data_there_is_nothing_to_train(train):
    status, _, error = train()
    assert status == 2
    assert error.endswith(
        'error: name what to train: a CONFIG, such as rtmdet_fasternet_t0, or --data DIR with your own images, which '
        'choose it\n'
    )


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_data_alone_choose_the_model_and_the_plan_says_why_and_how_long(nowhere, train, data):
    status, printed, error = train('--data', data, '--dry-run', '--size', 64, 96)
    assert status == 0, error
    assert 'model:         rtmdet_ins_fasternet_t0, for boxes and masks; T0, the smallest variant, since' in printed
    assert 'time:          about 13 minutes (0.35 s a step on this machine, measured; 10 evaluations of 7 s)' in printed
    cfg = load_config('work_dirs/rtmdet_ins_fasternet_t0_data/config.py')
    assert (cfg.model.type, cfg.model.bbox_head.num_classes) == ('RTMDet', 3)
    assert cfg.val_evaluator.metric == ['bbox', 'segm']
    assert cfg.default_hooks.logger.interval == 28


def test_what_the_user_says_of_the_log_holds_and_a_named_config_is_the_model(nowhere, train, data):
    options = ('--dry-run', '--size', 64, 96, '--cfg-options', 'default_hooks.logger.interval=7')
    status, printed, error = train(MASK_RCNN, '--data', data, *options)
    assert status == 0, error
    assert 'model:         mask_rcnn_fasternet_t0_shapes, as you say' in printed
    assert load_config('work_dirs/mask_rcnn_fasternet_t0_shapes_data/config.py').default_hooks.logger.interval == 7


def test_a_long_run_on_a_cpu_gets_advice(nowhere, train, data, monkeypatch):
    time = RunTime(step=8, steps=2000, evaluation=7, evaluations=10)
    monkeypatch.setattr('fasternet_mm.own_data.plan.run_time.measure_run_time', lambda *_: time)
    printed = train(MASK_RCNN, '--data', data, '--dry-run', '--size', 64, 96)[1]
    assert 'time:          about 4.5 hours (8 s a step' in printed
    assert (
        '               that is long: leave out CONFIG, for the fastest model, give a smaller --size, give' in printed
    )


def test_a_resumed_run_keeps_its_model_whatever_the_data_would_choose(run, train, data):
    status, printed, error = train('--work-dir', run, '--data', data, '--dry-run', '--resume')
    assert status == 0, error
    assert 'model:         mask_rcnn_fasternet_t0_shapes, as the run has it' in printed


def test_a_run_starts_from_another_ones_weights(nowhere, run, train, data):
    status, printed, error = train(MASK_RCNN, '--data', data, '--dry-run', '--size', 64, 96, '--start', run)
    assert status == 0, error
    tensors = len(torch.load(run / 'epoch_1.pth', weights_only=True)['state_dict'])
    assert f'start:         {run}, epoch 1: {tensors} of {tensors} tensors\n' in printed
    assert load_config('work_dirs/mask_rcnn_fasternet_t0_shapes_data/config.py').load_from == str(run / 'epoch_1.pth')


@pytest.fixture
def built(gpu):
    """Configs that training would start with."""
    configs = []

    def stop(cfg, splits):
        configs.append(cfg)
        sys.exit(0)

    gpu.setattr('fasternet_mm.engine.runner.build_runner', stop)
    return configs


def test_on_a_gpu_mixed_precision_is_recommended_until_it_is_chosen(built, train, tmp_path):
    advice = 'Mixed precision (bfloat16) is faster on this GPU and takes about half the memory: add --amp.\n'
    assert train(MASK_RCNN, '--work-dir', tmp_path / 'work')[1] == advice
    for choice in ('--amp', '--no-amp'):
        assert train(MASK_RCNN, '--work-dir', tmp_path / 'work', choice) == (0, '', '')
    assert [cfg.optim_wrapper.get('dtype') for cfg in built] == [None, 'bfloat16', None]


def test_batch_and_workers_are_for_every_config(built, train, tmp_path):
    assert train(MASK_RCNN, '--work-dir', tmp_path / 'work', '--no-amp', '--batch', 6, '--workers', 2)[0] == 0
    loader = built[0].train_dataloader
    assert (loader.batch_size, loader.num_workers, loader.persistent_workers) == (6, 2, True)
    built.clear()
    assert train(MASK_RCNN, '--work-dir', tmp_path / 'work', '--no-amp')[0] == 0
    assert built[0].train_dataloader.batch_size == 4


def test_a_batch_that_processes_cannot_share_is_refused():
    assert share_of_batch(6, 3) == 2
    with pytest.raises(UserError, match=r'--batch 8 is for all 3 processes together.*give a multiple of 3'):
        share_of_batch(8, 3)


SCRIPT = """
import os, sys
from fasternet_mm.cli import main
from fasternet_mm.engine import runner

def stop(cfg, splits):
    open(os.environ['CONFIG'], 'w').write(cfg.pretty_text)
    sys.exit()

runner.build_runner = stop
main(['train', *sys.argv[1:]])
"""


@pytest.mark.slow
def test_two_processes_take_the_first_ones_plan(tmp_path):
    """Each sees other data under the same path, as on two machines."""
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        home = tmp_path / str(rank)
        write_coco(home / 'data', made(train=20 + rank, val=0))
        environment = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, MASTER_ADDR='localhost', MASTER_PORT=port)
        environment |= dict(CONFIG=tmp_path / f'{rank}.py', XDG_CACHE_HOME=home / 'cache', CUDA_VISIBLE_DEVICES='')
        environment = {**os.environ, **{key: str(value) for key, value in environment.items()}}
        options = [MASK_RCNN, '--launcher', 'pytorch', '--data', 'data', '--work-dir', 'work']
        command = [sys.executable, '-c', SCRIPT, *options]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        processes.append(subprocess.Popen(command, cwd=home, env=environment, **pipes))
    outputs = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[1][0] == ''
    assert (tmp_path / '0.py').read_text() == (tmp_path / '1.py').read_text()
    assert '0/work/data/train.json' in (tmp_path / '1.py').read_text()
    assert not (tmp_path / '1/work').exists()


@pytest.mark.parametrize(
    ('ended_early', 'reason'),
    [
        (True, 'ended since evaluations did not get better; train longer with a larger --patience'),
        (False, 'has gone through all of it; train longer with more epochs'),
    ],
)
def test_a_resumed_training_that_was_over_says_why_and_how_to_train_longer(ended_early, reason):
    said = nothing_left(Config(dict(work_dir='my work', load_from='my work/epoch_9.pth')), ended_early)
    assert said == (
        f"nothing was left to train: my work/epoch_9.pth {reason}, or evaluate: fasternet-mm test 'my work'"
    )
