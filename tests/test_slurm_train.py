"""tools/slurm_train.sh, with programs in the place of Slurm's that write down how they are called."""

import os
import subprocess

import pytest


@pytest.fixture
def slurm_train(root, tmp_path):
    """Runs the script, where srun ends with a status: the script's status, and what it called."""

    def run(status, *options, **environment):
        for program, end in (('srun', status), ('scontrol', 0)):
            (tmp_path / program).write_text(f'#!/bin/sh\necho {program} "$@" >> {tmp_path}/calls\nexit {end}\n')
            (tmp_path / program).chmod(0o755)
        environment = {**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}', **environment}
        command = ['bash', 'tools/slurm_train.sh', 'gpu', 'shapes', 'mask_rcnn_fasternet_s', *options]
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
        assert not done.stderr
        return done.returncode, (tmp_path / 'calls').read_text().splitlines()

    return run


BATCH = dict(ENVIRONMENT='BATCH', SLURM_JOB_ID='7')


def test_slurm_is_asked_for_a_signal_before_the_time_limit(slurm_train):
    status, (srun,) = slurm_train(0, '--seed', '3')
    assert status == 0
    assert '--signal=USR1@120' in srun
    assert srun.endswith('python -um fasternet_mm train mask_rcnn_fasternet_s --launcher slurm --seed 3')


def test_a_batch_job_that_the_time_limit_cuts_is_queued_again(slurm_train):
    status, (_, requeue) = slurm_train(138, **BATCH)
    assert (status, requeue) == (138, 'scontrol requeue 7')


@pytest.mark.parametrize('status', [0, 1, 2, 143])
def test_a_batch_job_that_ended_otherwise_is_not(slurm_train, status):
    assert len(slurm_train(status, **BATCH)[1]) == 1


def test_what_is_no_batch_job_cannot_be_queued_again(slurm_train):
    status, calls = slurm_train(138, SLURM_JOB_ID='7')
    assert (status, len(calls)) == (138, 1)
