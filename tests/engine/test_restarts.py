import pytest
import torch

from fasternet_mm.engine.restarts import remember_launch, restarted_in


@pytest.fixture
def torchrun(monkeypatch):
    """Sets how often torchrun has started this process again."""
    monkeypatch.delenv('SLURM_JOB_ID', raising=False)
    return lambda times: monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', str(times))


@pytest.fixture
def slurm(monkeypatch):
    """Sets the job, and how often Slurm has started it again."""

    def start(job, times):
        monkeypatch.setenv('SLURM_JOB_ID', str(job))
        if times:  # which Slurm leaves out at the first start
            monkeypatch.setenv('SLURM_RESTART_COUNT', str(times))

    return start


def save_checkpoint(folder):
    torch.save(dict(meta=dict(iter=3)), folder / 'iter_3.pth')


def test_a_launch_that_is_started_again_goes_on_from_its_checkpoint(tmp_path, torchrun):
    torchrun(0)
    remember_launch(str(tmp_path))
    assert not restarted_in(str(tmp_path))
    torchrun(1)
    assert not restarted_in(str(tmp_path))  # it died before its first checkpoint
    save_checkpoint(tmp_path)
    assert restarted_in(str(tmp_path))


def test_a_job_that_is_queued_again_goes_on_from_its_checkpoint(tmp_path, slurm):
    slurm(7, 0)
    remember_launch(str(tmp_path))
    save_checkpoint(tmp_path)
    assert not restarted_in(str(tmp_path))
    slurm(7, 1)
    assert restarted_in(str(tmp_path))


def test_a_launch_does_not_go_on_with_the_training_of_another(tmp_path, slurm, torchrun):
    slurm(7, 0)
    remember_launch(str(tmp_path))
    save_checkpoint(tmp_path)
    slurm(8, 1)
    assert not restarted_in(str(tmp_path))


def test_without_a_launcher_nothing_is_written(tmp_path, monkeypatch):
    for name in ('SLURM_JOB_ID', 'TORCHELASTIC_RESTART_COUNT'):
        monkeypatch.delenv(name, raising=False)
    remember_launch(str(tmp_path))
    assert not any(tmp_path.iterdir())
