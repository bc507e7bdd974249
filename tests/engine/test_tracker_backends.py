"""Trackers, real ones where they are installed quickly, against the log that a training writes itself."""

import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import mlflow
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.visualization import Visualizer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fasternet_mm.engine import tracker_backends
from fasternet_mm.engine.runner import StrictRunner
from fasternet_mm.registry import VISBACKENDS

STEPS = 3
"""Of an epoch."""


class Line(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, inputs, mode='tensor'):
        error = (self.layer(torch.stack(inputs)) - 1).square().mean()
        return dict(loss=error) if mode == 'loss' else [error]


class Error(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.extend(data_samples)

    def compute_metrics(self, results):
        return {'data/error': float(results[0]), 'data/none': -1.0}


def train(work_dir, *trackers, epochs=2, resume_from=None, visit=None):
    """A training that logs each step; ``visit`` gets the model in each."""
    Visualizer._instance_dict.clear()
    names = 'LocalVisBackend', *trackers
    data = dict(dataset=[dict(inputs=torch.full((1,), 2.0))] * STEPS, sampler=dict(type='DefaultSampler'), batch_size=1)
    cfg = dict(
        work_dir=str(work_dir),
        train_cfg=dict(type='fasternet_mm.EpochLoop', max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        param_scheduler=[dict(type='MultiStepLR', milestones=[1], gamma=0.5)],
        load_from=resume_from and str(resume_from),
        resume=resume_from is not None,
    )
    model = Line()
    if visit:
        model.register_forward_pre_hook(visit)
    runner = StrictRunner(
        model,
        **cfg,
        cfg=Config(cfg),
        train_dataloader=data,
        val_dataloader=data,
        val_cfg=dict(),
        val_evaluator=[Error()],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1), checkpoint=dict(type='CheckpointHook', interval=1)
        ),
        visualizer=dict(type='Visualizer', vis_backends=[dict(type=f'fasternet_mm.{name}') for name in names]),
        experiment_name=str(work_dir),
    )
    runner.train()


def logged(work_dir):
    """What the trainings of a work directory logged themselves: steps and values by name, the last of each step."""
    values = {}
    for file in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in map(json.loads, file.read_text().splitlines()):
            step = line.pop('step')
            for key, value in line.items():
                values.setdefault(key, {})[step] = value
    return values


def logs_of(work_dir):
    """Names of the log and of the file of scalars of each start."""
    return {f'{folder.parent.name}{suffix}' for folder in work_dir.glob('*/vis_data') for suffix in ('.log', '.json')}


@pytest.fixture(scope='module')
def resumed(tmp_path_factory):
    """A work directory after two epochs, of which the second was lost, and a second start that went on to the third."""
    work_dir = tmp_path_factory.mktemp('lines') / 'work'
    work_dir.mkdir()
    drawing = torch.zeros(4, 6, 3).byte().numpy()
    drawing[..., 0] = 200
    cv2.imwrite(str(work_dir / 'samples.png'), drawing)
    (work_dir / 'report.html').write_text('<p>report</p>')
    (work_dir / 'annotations.json').write_text('{}')
    train(work_dir, 'TensorboardVisBackend', 'MLflowVisBackend')
    train(work_dir, 'TensorboardVisBackend', 'MLflowVisBackend', epochs=3, resume_from=work_dir / 'epoch_1.pth')
    return work_dir


@pytest.fixture(scope='module')
def mlflow_run(resumed):
    client = mlflow.MlflowClient(f'sqlite:///{resumed}/mlflow.db')
    (run,) = client.search_runs([client.get_experiment_by_name('fasternet-mm').experiment_id])
    return client, run


def test_mlflow_has_one_run_with_all_that_was_logged_at_the_same_steps(resumed, mlflow_run):
    client, run = mlflow_run
    assert (run.info.run_name, run.info.status) == ('work', 'FINISHED')
    for key, values in logged(resumed).items():
        history = client.get_metric_history(run.info.run_id, key)
        assert {record.step: record.value for record in history} == pytest.approx(values), key
    assert set(logged(resumed)['loss']) == set(range(1, 3 * STEPS + 1))
    assert not any('WARNING - --logger' in log.read_text() for log in resumed.glob('*/*.log'))
    assert set(logged(resumed)['data/error']) == {1, 2, 3}


def test_mlflow_has_hyperparameters_config_logs_samples_and_report_and_not_all_json_files(resumed, mlflow_run):
    client, run = mlflow_run
    assert run.data.params['optim_wrapper.optimizer.lr'] == '0.1'
    assert run.data.params['param_scheduler.0.milestones'] == '[1]'
    assert run.data.params['train_cfg.max_epochs'] == '2'  # at the beginning, since MLflow lets nothing be changed
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert files == {'config.py', 'samples.png', 'report.html', *logs_of(resumed)}
    config = Path(mlflow.artifacts.download_artifacts(f'{run.info.artifact_uri}/config.py'))
    assert 'max_epochs=3' in config.read_text()


def test_mlflow_goes_on_in_the_experiment_of_the_run_although_another_is_named_now(tmp_path, monkeypatch):
    monkeypatch.setenv('MLFLOW_TRACKING_URI', f'sqlite:///{tmp_path}/mlflow.db')
    monkeypatch.setenv('MLFLOW_EXPERIMENT_NAME', 'cells')
    train(tmp_path, 'MLflowVisBackend', epochs=1)
    monkeypatch.delenv('MLFLOW_EXPERIMENT_NAME')
    train(tmp_path, 'MLflowVisBackend', epochs=2, resume_from=tmp_path / 'epoch_1.pth')
    client = mlflow.MlflowClient(f'sqlite:///{tmp_path}/mlflow.db')
    assert {experiment.name for experiment in client.search_experiments()} == {'Default', 'cells'}
    (run,) = client.search_runs([client.get_experiment_by_name('cells').experiment_id])
    steps = {record.step for record in client.get_metric_history(run.info.run_id, 'loss')}
    assert steps == set(range(1, 2 * STEPS + 1))


def test_a_run_that_is_in_another_database_of_mlflow_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv('MLFLOW_TRACKING_URI', f'sqlite:///{tmp_path}/one.db')
    train(tmp_path, 'MLflowVisBackend', epochs=1)
    monkeypatch.setenv('MLFLOW_TRACKING_URI', f'sqlite:///{tmp_path}/another.db')
    train(tmp_path, 'MLflowVisBackend', epochs=2, resume_from=tmp_path / 'epoch_1.pth')
    logs = [log.read_text() for log in sorted(tmp_path.glob('*/*.log'))]
    assert ['a new one begins' in log for log in logs] == [False, True]


def test_tensorboard_has_each_step_once_of_a_training_that_went_on(resumed):
    events = EventAccumulator(str(resumed / 'tensorboard'))
    events.Reload()
    for key, values in logged(resumed).items():
        recorded = [(event.step, event.value) for event in events.Scalars(key)]
        assert dict(recorded) == pytest.approx(values), key
        if key == 'loss':
            assert [step for step, _ in recorded] == list(range(1, 3 * STEPS + 1))
    assert events.Images('samples')[0].height == 4
    assert 'optim_wrapper.optimizer.lr' in str(events.SummaryMetadata('_hparams_/session_start_info').plugin_data)
    assert 'data/error' in str(events.SummaryMetadata('_hparams_/experiment').plugin_data)
    assert 'max_epochs=2' in events.Tensors('config/text_summary')[0].tensor_proto.string_val[0].decode()


class Recorder(tracker_backends.TrackerBackend):
    """Keeps what it gets; ``away`` is what is raised where it would connect, ``broken`` where it would record.

    What is ``refused`` cannot be recorded, all else can.
    """

    name = 'recorder'
    away = broken = refused = None
    got = ()

    def _init_env(self):
        if self.away:
            raise self.away

    def send_config(self):
        self._send('config')

    def send_image(self, name, image, step):
        self._send(name)

    def send_scalars(self, scalars, step):
        self._send(step)

    def send_files(self):
        self._send('files')

    def end(self, outcome):
        self._send(outcome)
        self._env_initialized = False

    def _send(self, what):
        if self.broken or what == self.refused:
            raise self.broken or ValueError(what)
        type(self).got = (*self.got, what)

    @property
    def experiment(self):
        return self


@pytest.fixture
def recorder():
    class Recording(Recorder):
        pass

    VISBACKENDS.register_module(module=Recording, force=True)
    return Recording


def told(work_dir):
    (log,) = work_dir.glob('*/*.log')  # in which MMEngine says the same only once
    return re.findall('WARNING - --logger recorder: (.*)', log.read_text())


def test_a_tracker_gets_config_steps_files_and_the_end(recorder, tmp_path):
    train(tmp_path, 'Recording', epochs=1)
    assert recorder.got == ('config', 1, 2, 3, 1, 'files', 'finished')


@pytest.mark.parametrize(('error', 'outcome'), [(RuntimeError('out of memory'), 'failed'), (SystemExit(1), 'stopped')])
def test_a_tracker_learns_how_a_training_ended(recorder, tmp_path, error, outcome):
    def end_third_step(*_):
        if len(recorder.got) == 3:
            raise error

    with pytest.raises(type(error)):
        train(tmp_path, 'Recording', visit=end_third_step)
    assert recorder.got == ('config', 1, 2, 'files', outcome)


def test_a_tracker_that_is_away_ends_no_training_and_gets_the_rest_when_it_is_back(recorder, tmp_path, monkeypatch):
    monkeypatch.setattr(tracker_backends, 'REST', 0)
    recorder.away = ConnectionError('http://ann:secret@server/api does not answer\nat line 7')

    def come_back(*_):
        if len(list(tmp_path.glob('*/vis_data/scalars.json'))) and recorder.away:
            recorder.away = None

    train(tmp_path, 'Recording', epochs=1, visit=come_back)
    assert recorder.got == ('config', 1, 2, 3, 1, 'files', 'finished')
    assert (tmp_path / 'epoch_1.pth').is_file()
    assert set(told(tmp_path)) == {
        'http://server/api does not answer: training goes on, and records may be missing there'
    }


def test_a_tracker_that_takes_nothing_is_asked_seldom_and_told_of(recorder, tmp_path):
    recorder.broken = OSError('No space left on device')
    train(tmp_path, 'Recording')
    assert (tmp_path / 'epoch_2.pth').is_file()
    assert told(tmp_path) == [
        'No space left on device: training goes on, and records may be missing there',
        f'9 records did not get there; losses and metrics are in {next(tmp_path.glob("*/vis_data")).parent}',
    ]


def test_what_a_tracker_accepts_is_recorded_although_it_refuses_something(recorder, tmp_path):
    recorder.refused = 2
    train(tmp_path, 'Recording', epochs=1)
    assert recorder.got == ('config', 1, 3, 1, 'files', 'finished')


def test_a_tracker_that_has_nothing_to_record_is_not_begun(recorder, tmp_path):
    """As in all processes but the first, where the visualizer records nothing."""
    recorder.away = AssertionError('it was begun')
    backend = recorder(str(tmp_path))
    backend.close()
    assert not backend._env_initialized


class StandInForWandb(ModuleType):
    """What of Weights & Biases a training uses; the server, where there is a key, answers as ``answers`` says."""

    def __init__(self, folder, key, answers=True):
        super().__init__('wandb')
        self.errors = SimpleNamespace(CommError=ConnectionError, AuthenticationError=PermissionError)
        self.Image, self.Settings = np.shape, dict
        self.folder, self.key, self.answers = folder, key, answers
        self.began, self.history, self.files, self.config, self.exit_codes = [], [], set(), {}, []

    def login(self, prompt, verify):
        assert (prompt, verify) == (False, False)  # neither a question nor a wait
        return self.key

    def init(self, **options):
        self.began.append(options)
        if options.get('mode') != 'offline' and not self.answers:
            raise ConnectionError('https://ann:hunter2@api.example timed out')
        return SimpleNamespace(
            id=options['id'] or f'run{len(self.began)}',
            dir=str(self.folder),
            offline=options.get('mode') == 'offline',
            config=SimpleNamespace(update=lambda values, allow_val_change: self.config.update(values)),
            define_metric=lambda name, step_metric: self.history.append((name, step_metric)),
            log=self.history.append,
            save=lambda file, base_path, policy: self.files.add(Path(file).name),
            finish=lambda exit_code: self.exit_codes.append(exit_code),
        )


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    for name in ('WANDB_MODE', 'WANDB_PROJECT', 'WANDB_NAME'):
        monkeypatch.delenv(name, raising=False)

    def stand_in(**settings):
        (tmp_path / 'wandb').mkdir()
        monkeypatch.setitem(sys.modules, 'wandb', StandInForWandb(tmp_path / 'wandb', **settings))
        return sys.modules['wandb']

    return stand_in


def test_weights_and_biases_has_the_steps_of_the_log_and_one_run_for_a_training_that_goes_on(wandb, tmp_path):
    used, work_dir = wandb(key=True), tmp_path / 'work'
    train(work_dir, 'WandbVisBackend', epochs=1)
    train(work_dir, 'WandbVisBackend', epochs=2, resume_from=work_dir / 'epoch_1.pth')
    rows = [row for row in used.history if isinstance(row, dict)]
    assert ('*', 'step') in used.history
    for key, values in logged(work_dir).items():
        assert {row['step']: row[key] for row in rows if key in row} == pytest.approx(values), key
    first, second = used.began
    assert (first['id'], first['project'], first['name'], first.get('mode')) == (None, 'fasternet-mm', 'work', None)
    assert (second['id'], second['resume']) == ('run1', 'allow')
    assert used.config['optim_wrapper.optimizer.lr'] == 0.1
    assert used.files == {'config.py', *logs_of(work_dir)}
    assert used.exit_codes == [0, 0]


@pytest.mark.parametrize(('key', 'tried'), [(False, ['offline']), (True, [None, 'offline'])])
def test_weights_and_biases_without_a_key_or_a_server_records_offline(wandb, tmp_path, key, tried):
    used = wandb(key=key, answers=False)
    train(tmp_path / 'work', 'WandbVisBackend', epochs=1)
    assert [options.get('mode') for options in used.began] == tried
    (log,) = (tmp_path / 'work').glob('*/*.log')
    assert f'offline; to upload it: wandb sync {tmp_path}' in log.read_text()
    assert 'hunter2' not in log.read_text()
    assert used.exit_codes == [0]


class StandInForTask:
    """ClearML's task, and all that was called of it."""

    def __init__(self):
        self.calls, self.offline, self.id = [], False, 'task1'

    def init(self, **options):
        self.calls.append(('init', options))
        if not self.offline and not self.configured:
            raise LookupError('ClearML is not configured')
        return self

    def set_offline(self, offline):
        self.offline = offline

    def is_offline(self):
        return self.offline

    def get_logger(self):
        return self

    def __getattr__(self, name):
        return lambda *args, **kwargs: self.calls.append((name, args or kwargs))

    def called(self, name):
        return [arguments for function, arguments in self.calls if function == name]


@pytest.fixture
def task(monkeypatch):
    task = StandInForTask()
    defs = SimpleNamespace(MissingConfigError=LookupError)
    for name, module in {'clearml': SimpleNamespace(Task=task), 'clearml.backend_api.session.defs': defs}.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ('clearml.backend_api', 'clearml.backend_api.session'):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    return task


def test_clearml_has_the_steps_of_the_log_and_goes_on_with_the_task(task, tmp_path):
    task.configured = True
    train(tmp_path, 'ClearMLVisBackend', epochs=1)
    train(tmp_path, 'ClearMLVisBackend', epochs=2, resume_from=tmp_path / 'epoch_1.pth')
    reported = task.called('report_scalar')
    for key, values in logged(tmp_path).items():
        assert {call['iteration']: call['value'] for call in reported if call['title'] == key} == pytest.approx(values)
    first, second = task.called('init')
    assert (first['project_name'], first['task_name']) == ('fasternet-mm', tmp_path.name)
    assert (first['reuse_last_task_id'], first['continue_last_task']) == (False, False)
    assert (second['reuse_last_task_id'], second['continue_last_task']) == ('task1', 0)
    assert not first['auto_connect_frameworks']  # it would upload all checkpoints
    assert task.called('connect')[0][0]['train_cfg.max_epochs'] == 1
    assert {name for name, _ in task.called('upload_artifact')} == logs_of(tmp_path)
    assert len(task.called('close')) == 2


def test_clearml_without_a_server_records_offline_in_a_session_for_each_start(task, tmp_path):
    task.configured = False
    train(tmp_path, 'ClearMLVisBackend', epochs=1)
    train(tmp_path, 'ClearMLVisBackend', epochs=2, resume_from=tmp_path / 'epoch_1.pth')
    assert task.offline
    assert all(options['continue_last_task'] is False for options in task.called('init'))
    assert len(task.called('close')) == 2
