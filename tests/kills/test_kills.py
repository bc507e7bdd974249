"""Trainings that are killed over and over, and resumed: nothing is lost, and all is as without the kills.

KILLS, in the environment, says how many kills in all; 100 by default.
"""

import os
import random
import time

import forked_trainings
import pytest
import torch
from forked_trainings import equal

KILLS = int(os.environ.get('KILLS', 100))
CASES = [(model, keep) for model in ('detector', 'segmenter') for keep in (1, -1)]


@pytest.mark.parametrize(('model', 'keep'), CASES)
def test_kills_lose_and_damage_nothing_and_the_training_ends_as_without_them(model, keep, shapes, tmp_path):
    cfg = getattr(forked_trainings, model)(shapes)
    cfg.default_hooks.checkpoint.max_keep_ckpts = keep
    cfg.dump(tmp_path / 'config.py')
    begun = time.monotonic()
    assert Training(tmp_path, 'whole').finish() == 0
    seconds = time.monotonic() - begun
    expected = Training(tmp_path, 'whole')
    chance = random.Random(f'{model} {keep}')
    kills, in_saving, runs, different = 0, 0, 0, []
    while kills < KILLS // len(CASES):
        training = Training(tmp_path, f'run {runs}')
        for _ in range(min(chance.randint(1, 5), KILLS // len(CASES) - kills)):
            if kills % 2:
                killed = training.kill_after(chance.uniform(0, seconds))
            else:
                killed = training.kill_while_saving(chance.randint(1, 3), chance.uniform(0, 0.02))
            if not killed:  # it was faster
                break
            kills += 1
            in_saving += training.was_saving()
            training.check()
        assert training.finish() == 0, training.log.read_text()[-3000:]
        assert training.steps() == expected.steps()
        different += [f'run {runs}: {name}' for name in training.differences(expected)]
        runs += 1
    print(f'\n{model}, keep {keep}: {kills} kills, {in_saving} of them in saving: 0 lost, 0 damaged; {runs} runs')
    assert not different


class Training:
    """A training in a folder of its own, started as often as needed."""

    def __init__(self, folder, name):
        self.folder, self.log = folder / name, folder / f'{name}.log'
        self.command = folder / 'config.py', '--work-dir', self.folder, '--seed', 0, '--resume'
        self.known = 0

    def finish(self):
        return forked_trainings.train(*self.command, log=self.log)

    def kill_after(self, seconds):
        """Whether it was still running then."""
        process = forked_trainings.start(*self.command, log=self.log)
        process.join(seconds)
        return self._kill(process)

    def kill_while_saving(self, count, seconds):
        """Kill it some time after the ``count``-th draft of a checkpoint has appeared, if it comes to that."""
        drafts = set(self._drafts())
        process = forked_trainings.start(*self.command, log=self.log)
        while process.is_alive() and count:
            new = set(self._drafts()) - drafts
            count -= bool(new)
            drafts |= new
            time.sleep(0.001)
        time.sleep(seconds)
        return self._kill(process)

    def _kill(self, process):
        process.kill()
        process.join(forked_trainings.SECONDS)
        assert process.exitcode in (0, -9), self.log.read_text()[-3000:]
        return process.exitcode == -9

    def was_saving(self):
        return bool(self._drafts())

    def _drafts(self):
        return [path.name for path in self.folder.glob('.*.pth.*')]

    def checkpoints(self):
        return sorted(path.name for path in self.folder.glob('*.pth'))

    def check(self):
        """Every checkpoint is whole, and the latest one that was ever seen stands, or a later one."""
        for name in self.checkpoints():
            self._read(name)
        steps = self.steps()
        assert steps >= self.known
        self.known = steps

    def steps(self):
        """Those of the latest checkpoint; 0 where there is none."""
        names = [name for name in self.checkpoints() if not name.startswith('best')]
        return max((self._read(name)['meta']['iter'] for name in names), default=0)

    def _read(self, name):
        return torch.load(self.folder / name, map_location='cpu', weights_only=False)

    def differences(self, other):
        if self.checkpoints() != other.checkpoints():
            yield f'{self.checkpoints()} instead of {other.checkpoints()}'
        for name in set(self.checkpoints()) & set(other.checkpoints()):
            states = self._read(name), other._read(name)
            for part in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
                parts = [state.get(part) for state in states]
                if not equal(*parts):
                    yield f'{name}, {part}'
