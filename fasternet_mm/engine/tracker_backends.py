"""MMEngine's backends for experiment trackers, mended: a run goes on where it stopped, and ends no training."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.visualization import BaseVisBackend, Visualizer
from mmengine.visualization import ClearMLVisBackend as MMEngineClearMLVisBackend
from mmengine.visualization import MLflowVisBackend as MMEngineMLflowVisBackend
from mmengine.visualization import TensorboardVisBackend as MMEngineTensorboardVisBackend
from mmengine.visualization import WandbVisBackend as MMEngineWandbVisBackend

from ..datasets.image_reading import read_image
from ..files import write_atomically
from ..registry import VISBACKENDS
from ..weights.reading import read_meta
from ..weights.sources import local_file
from .loggers import without_secrets
from .resumed_settings import COMPARED

PROJECT = 'fasternet-mm'
"""The experiment or project that runs are in, unless the user names another; a run has its work directory's name."""

RUNS = 'tracked_runs.json'
"""The file in a work directory with the run of each tracker, by which it is found again."""

REST = 300
"""Seconds without another attempt after a tracker has failed: one may wait for a server in vain for half a minute."""

PATIENCE = 60.0
"""Seconds that Weights & Biases may take to begin and to end; what it did not upload is still on the disk."""

LAST_ATTEMPTS = 3
"""How many of the last records may fail when a training ends."""

FINISHED, FAILED, STOPPED = 'finished', 'failed', 'stopped'
"""How a training ended. A stopped one was ended by a signal or its user."""


class TrackerBackend(BaseVisBackend):
    """What all trackers have in common, before MMEngine's backend among the bases of a class.

    What is to be recorded waits in a queue until the tracker has taken it. Where that fails, a line says so, training
    goes on, and after `REST` seconds the tracker gets another chance. What fails twice is left out, since it may be the
    reason; what came after it is sent.
    """

    name: str
    """The package."""

    config: Config

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: deque[Callable[[], None]] = deque()
        self._failed: Callable[[], None] | None = None
        self._resting_until = 0.0
        self._run: str | None = None

    def add_config(self, config: Config, **_: Any) -> None:
        self.config = config
        self._record(self.send_config)
        self._record(self._send_samples)

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **_: Any) -> None:
        self._record(partial(self.send_image, name, image, step))

    def add_scalar(self, name: str, value: Any, step: int = 0, **_: Any) -> None:
        self.add_scalars({name: value}, step)

    def add_scalars(self, scalar_dict: dict[str, Any], step: int = 0, file_path: str | None = None, **_: Any) -> None:
        self._record(partial(self.send_scalars, dict(_numbers(scalar_dict)), step))

    def close(self, outcome: str = FINISHED) -> None:
        """End the run, with what is left to send and the files of the training."""
        if not (self._waiting or self._env_initialized):
            return
        self._waiting += [self.send_files, partial(self.end, outcome)]
        for _ in range(LAST_ATTEMPTS):
            if not (self._waiting and self._send_waiting()):
                break
        if self._waiting:
            self._tell(f'{len(self._waiting)} records did not get there; losses and metrics are in {self._log_dir}')
            self._waiting.clear()

    @abstractmethod
    def send_config(self) -> None:
        """Send ``self.config``: as text, and the `hyperparameters` in it."""

    @abstractmethod
    def send_image(self, name: str, image: np.ndarray, step: int) -> None:
        """Send an image, uint8 RGB ``(H, W, 3)``."""

    @abstractmethod
    def send_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        """Send losses, learning rate and metrics; the step is the one in ``scalars.json``."""

    @abstractmethod
    def send_files(self) -> None:
        """Send `files`."""

    @abstractmethod
    def end(self, outcome: str) -> None:
        """End the run."""

    def _record(self, send: Callable[[], None]) -> None:
        self._waiting.append(send)
        if time.monotonic() >= self._resting_until:
            self._send_waiting()

    def _send_waiting(self) -> bool:
        """Send what is in the queue, up to the first failure, and return whether the tracker was there."""
        try:
            while self._waiting:
                if not self._env_initialized:
                    self._init_env()
                    self._env_initialized = True
                self._waiting[0]()
                self._waiting.popleft()
            if self._resting_until:
                self._resting_until = 0.0
                self._tell('it answers again', logging.INFO)
            return True
        except Exception as error:  # whatever a tracker's package raises
            connected, self._env_initialized = self._env_initialized, False  # the next attempt connects anew
            self._resting_until = time.monotonic() + REST
            if connected and self._waiting[0] is self._failed:
                self._waiting.popleft()
            elif connected:
                self._failed = self._waiting[0]
            reason = without_secrets(str(error).strip().partition('\n')[0]) or type(error).__name__
            self._tell(f'{reason[:200]}: training goes on, and records may be missing there')
            return connected

    def _send_samples(self) -> None:
        file = self.work_dir / 'samples.png'
        if file.is_file():
            self.send_image('samples', np.ascontiguousarray(read_image(str(file))[..., ::-1]), 0)

    def _tell(self, what: str, level: int = logging.WARNING) -> None:
        print_log(f'--logger {self.name}: {what}', logger='current', level=level)

    @property
    def _log_dir(self) -> Path:
        """The folder of this start of the training; the visualizer gives its backends one in it."""
        return Path(self._save_dir).parent

    @property
    def work_dir(self) -> Path:
        return Path(self.config.work_dir).resolve()

    def files(self) -> list[Path]:
        """What is kept with a run when it ends: logs, and reports that are in the work directory."""
        start = self._log_dir.name
        # The figures of scalars.json are also under a name that no other start has.
        logs = [self._log_dir / f'{start}.log', Path(self._save_dir, f'{start}.json')]
        return [*filter(Path.is_file, logs), *self.work_dir.glob('*.html')]

    def run_to_go_on(self) -> str | None:
        """The tracker's name for the run that this training is part of; None where it begins."""
        if self._run is None and self._goes_on():
            self._run = _runs(self.work_dir).get(self.name)
        return self._run

    def remember_run(self, run: str) -> None:
        self._run = run
        runs = {**_runs(self.work_dir), self.name: run}
        write_atomically(self.work_dir / RUNS, json.dumps(runs, indent=1).encode())

    def _goes_on(self) -> bool:
        """Whether this is the training of the work directory, and not a new one from a checkpoint of another."""
        checkpoint = self.config.get('resume') and self.config.get('load_from')
        return bool(checkpoint) and Path(checkpoint).resolve().parent == self.work_dir


@VISBACKENDS.register_module()
class TensorboardVisBackend(TrackerBackend, MMEngineTensorboardVisBackend):
    """Writes into ``tensorboard`` in the work directory, where a training that is resumed goes on.

    MMEngine's has another folder for each start of a training, which are several runs then. Settings are for
    TensorBoard's table of hyperparameters as well.
    """

    name = 'tensorboard'

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir)
        self._metrics: set[str] = set()

    def _init_env(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._tensorboard = SummaryWriter(self.work_dir / 'tensorboard', purge_step=self._first_step())

    def _first_step(self) -> int | None:
        """The first step that this start of a resumed training makes: what came from there on before was lost."""
        if not self._goes_on() or self._run:
            return None
        self._run = 'begun'
        with local_file(self.config.load_from) as path:
            return read_meta(path, self.config.load_from).get('iter', 0) + 1

    def send_config(self) -> None:
        self._tensorboard.add_text('config', f'```python\n{self.config.pretty_text}\n```')

    def send_image(self, name: str, image: np.ndarray, step: int) -> None:
        self._tensorboard.add_image(name, image, step, dataformats='HWC')

    def send_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        for key, value in scalars.items():
            self._tensorboard.add_scalar(key, value, step)
        self._metrics.update(key for key in scalars if '/' in key)

    def send_files(self) -> None:
        """TensorBoard shows no files; the hyperparameters come last, since their table names the metrics."""
        from torch.utils.tensorboard.summary import hparams

        for summary in hparams(hyperparameters(self.config), dict.fromkeys(sorted(self._metrics), 0.0)):
            self._tensorboard.file_writer.add_summary(summary)

    def end(self, outcome: str) -> None:
        self._tensorboard.close()
        self._env_initialized = False


@VISBACKENDS.register_module()
class WandbVisBackend(TrackerBackend, MMEngineWandbVisBackend):
    """Records offline where there is no key, or where the server does not answer.

    MMEngine's gives no steps, so that a run that goes on has others than before, takes along all Python files below the
    current folder, and ends by a function that was removed.
    """

    name = 'wandb'

    def _init_env(self) -> None:
        import wandb

        self._wandb = wandb
        given = self._init_kwargs or {}
        options = dict(
            dir=str(self.work_dir),
            project=os.environ.get('WANDB_PROJECT', PROJECT),
            name=os.environ.get('WANDB_NAME', self.work_dir.name),
            id=self.run_to_go_on(),
            settings=wandb.Settings(quiet=True, init_timeout=PATIENCE, finish_timeout=PATIENCE),
        )
        if not ('mode' in given or 'WANDB_MODE' in os.environ or wandb.login(prompt=False, verify=False)):
            options['mode'] = 'offline'
        options = {**options, **given}
        try:
            run = wandb.init(**{'resume': None if options.get('mode') == 'offline' else 'allow', **options})
        except (wandb.errors.CommError, wandb.errors.AuthenticationError) as error:
            self._tell(f'{without_secrets(str(error))[:300]}: recorded offline')
            run = wandb.init(**{**options, 'mode': 'offline'})
        self._experiment = run
        self.remember_run(run.id)
        if run.offline:
            self._tell(f'offline; to upload it: wandb sync {Path(run.dir).parent}')
        run.define_metric('*', step_metric='step')

    def send_config(self) -> None:
        self._experiment.config.update(hyperparameters(self.config), allow_val_change=True)
        file = Path(self._experiment.dir, 'config.py')
        file.write_text(self.config.pretty_text)
        self._experiment.save(str(file), base_path=self._experiment.dir, policy='now')

    def send_image(self, name: str, image: np.ndarray, step: int) -> None:
        self._experiment.log({name: self._wandb.Image(image), 'step': step})

    def send_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        self._experiment.log({**scalars, 'step': step})

    def send_files(self) -> None:
        for file in self.files():
            copy = shutil.copy(file, self._experiment.dir)
            self._experiment.save(copy, base_path=self._experiment.dir, policy='now')

    def end(self, outcome: str) -> None:
        self._experiment.finish(exit_code=int(outcome != FINISHED))
        self._env_initialized = False


@VISBACKENDS.register_module()
class MLflowVisBackend(TrackerBackend, MMEngineMLflowVisBackend):
    """Writes into a database in the work directory, unless a server is named: in MLFLOW_TRACKING_URI or the config.

    MMEngine's writes into files, which today's MLflow refuses, in another folder for each start of a training; its runs
    cannot go on, and it takes along all JSON files in the work directory, annotations among them.
    """

    name = 'mlflow'

    def _init_env(self) -> None:
        os.environ.setdefault('MLFLOW_HTTP_REQUEST_MAX_RETRIES', '1')  # 7 would keep the training waiting for minutes
        os.environ.setdefault('MLFLOW_HTTP_REQUEST_TIMEOUT', '10')
        import mlflow

        self._mlflow = mlflow
        uri = self._tracking_uri or os.environ.get('MLFLOW_TRACKING_URI') or f'sqlite:///{self.work_dir}/mlflow.db'
        artifacts = self._artifact_location
        if uri.startswith('sqlite:///') and not artifacts:  # MLflow would put them into the current folder
            artifacts = (Path(uri.removeprefix('sqlite:///')).resolve().parent / 'mlartifacts').as_uri()
        if without_secrets(uri) != uri:
            os.environ['MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT'] = 'true'
        mlflow.set_tracking_uri(uri)
        run = self._existing_run()
        if run:  # MLflow refuses to go on with it in another experiment
            mlflow.set_experiment(experiment_id=run.info.experiment_id)
        else:
            experiment = self._exp_name or os.environ.get('MLFLOW_EXPERIMENT_NAME') or PROJECT
            if mlflow.get_experiment_by_name(experiment) is None:
                mlflow.create_experiment(experiment, artifact_location=artifacts)
            mlflow.set_experiment(experiment)
        if not (mlflow.active_run() and mlflow.active_run().info.run_id == self._run):  # after a failure it goes on
            name = None if run else self._run_name or self.work_dir.name
            mlflow.start_run(run and run.info.run_id, run_name=name, tags=self._tags)
        self.remember_run(mlflow.active_run().info.run_id)

    def _existing_run(self) -> Any:
        """MLflow's run that this training is part of; None where it begins, or where that is on another server."""
        run = self.run_to_go_on()
        try:
            return run and self._mlflow.get_run(run)
        except self._mlflow.MlflowException as error:
            if error.error_code != 'RESOURCE_DOES_NOT_EXIST':
                raise
            self._tell('the run of this training is in another database or on another server: a new one begins here')
            return None

    def send_config(self) -> None:
        self._mlflow.log_text(self.config.pretty_text, 'config.py')
        known = self._mlflow.get_run(self._run).data.params  # which cannot be changed
        settings = {**hyperparameters(self.config), **(self._params or {})}
        self._mlflow.log_params({key: value for key, value in _plain_keys(settings).items() if key not in known})

    def send_image(self, name: str, image: np.ndarray, step: int) -> None:
        self._mlflow.log_image(image, f'{name}.png')

    def send_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        self._mlflow.log_metrics(_plain_keys(scalars), step)

    def send_files(self) -> None:
        for file in self.files():
            self._mlflow.log_artifact(str(file))

    def end(self, outcome: str) -> None:
        self._mlflow.end_run({FINISHED: 'FINISHED', FAILED: 'FAILED', STOPPED: 'KILLED'}[outcome])
        self._env_initialized = False


@VISBACKENDS.register_module()
class ClearMLVisBackend(TrackerBackend, MMEngineClearMLVisBackend):
    """Records offline where ClearML has no server.

    MMEngine's overwrites the last run that has the same name, which none has by default, and uploads all checkpoints.
    """

    name = 'clearml'

    def _init_env(self) -> None:
        import clearml
        from clearml.backend_api.session.defs import MissingConfigError

        self._clearml = clearml
        run = self.run_to_go_on()
        options = dict(
            project_name=PROJECT,
            task_name=self.work_dir.name,
            reuse_last_task_id=run or False,
            continue_last_task=0 if run else False,  # 0: steps are ours, and do not begin after the last one
            auto_connect_arg_parser=False,
            auto_connect_frameworks=False,  # it would upload all checkpoints
        )
        options.update(self._init_kwargs or {})
        try:
            self._task = clearml.Task.init(**options)
        except MissingConfigError:
            clearml.Task.set_offline(True)
            self._task = clearml.Task.init(**{**options, 'reuse_last_task_id': False, 'continue_last_task': False})
        self._logger = self._task.get_logger()
        if not self._task.is_offline():
            self.remember_run(self._task.id)

    def send_config(self) -> None:
        self._task.connect(hyperparameters(self.config), name='settings')
        self._task.set_configuration_object('config.py', config_text=self.config.pretty_text)

    def send_image(self, name: str, image: np.ndarray, step: int) -> None:
        self._logger.report_image(title=name, series=name, iteration=step, image=image)

    def send_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        for key, value in scalars.items():
            self._logger.report_scalar(title=key, series=key, value=value, iteration=step)

    def send_files(self) -> None:
        for file in self.files():
            self._task.upload_artifact(file.name, file, wait_on_upload=True)

    def end(self, outcome: str) -> None:
        if outcome == FAILED:
            self._task.mark_failed(ignore_errors=True)
        elif outcome == STOPPED:
            self._task.mark_stopped(force=True)
        self._task.close()
        self._env_initialized = False


@contextmanager
def tracked(visualizer: Visualizer) -> Iterator[None]:
    """Where a training ends by an error or a signal, trackers get the rest and learn of it."""
    try:
        yield
    except BaseException as error:
        outcome = FAILED if isinstance(error, Exception) else STOPPED
        for backend in visualizer._vis_backends.values():
            if isinstance(backend, TrackerBackend):
                backend.close(outcome)
        raise


def hyperparameters(config: Config) -> dict[str, bool | int | float | str]:
    """Settings that say what is trained and how, by their path, such as 'optim_wrapper.optimizer.lr'."""
    values = config.to_dict()
    return dict(_flat({part: values[part] for part in (*COMPARED, 'randomness', 'load_from') if part in values}))


def _flat(value: Any, name: str = '') -> Iterator[tuple[str, bool | int | float | str]]:
    """Settings by their path; lists of plain values, such as classes, stay together."""
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, (list, tuple)) and any(isinstance(part, (Mapping, list, tuple)) for part in value):
        parts = enumerate(value)
    else:
        yield name, value if isinstance(value, (bool, int, float)) else str(value)
        return
    for key, part in parts:
        yield from _flat(part, f'{name}.{key}' if name else str(key))


def _numbers(scalars: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for key, value in scalars.items():
        if isinstance(value, (int, float, np.number, np.ndarray, torch.Tensor)) and np.size(value) == 1:
            yield key, float(value)


def _plain_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Names as MLflow accepts them: without brackets, for example, which names of classes may have."""
    return {re.sub(r'[^\w./: -]', '_', key): value for key, value in values.items()}


def _runs(work_dir: Path) -> dict[str, str]:
    try:
        runs = json.loads((work_dir / RUNS).read_text())
    except (OSError, ValueError):
        return {}
    return {key: run for key, run in runs.items() if isinstance(run, str)} if isinstance(runs, dict) else {}
