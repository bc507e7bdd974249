import os

import pytest
import torch

from fasternet_mm.cpus import cpus_per_process, leave_computing_to_gpu, limit_threads, usable_cpus

HAS = 8


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    """Eight CPUs, whatever the tests run on."""
    monkeypatch.setattr('os.sched_getaffinity', lambda process: set(range(HAS)), raising=False)
    monkeypatch.delenv('LOCAL_WORLD_SIZE', raising=False)


def grant(root, groups, files):
    (root / 'proc/self').mkdir(parents=True)
    (root / 'proc/self/cgroup').write_text(groups)
    for name, content in files.items():
        path = root / 'sys/fs/cgroup' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


@pytest.mark.parametrize(
    ('groups', 'files', 'cpus'),
    [
        ('0::/\n', {}, HAS),
        ('0::/\n', {'cpu.max': 'max 100000\n'}, HAS),
        ('0::/\n', {'cpu.max': '200000 100000\n'}, 2),
        ('0::/\n', {'cpu.max': '150000 100000\n'}, 2),
        ('0::/\n', {'cpu.max': '10000 100000\n'}, 1),
        ('0::/\n', {'cpu.max': '1600000 100000\n'}, HAS),
        # a service's, whose own group has no limit and that around it has
        ('0::/a.slice/b.scope\n', {'a.slice/cpu.max': '300000 100000', 'a.slice/b.scope/cpu.max': 'max 100000'}, 3),
        ('0::/a.slice/b.scope\n', {'a.slice/cpu.max': 'max 100000', 'a.slice/b.scope/cpu.max': '300000 100000'}, 3),
        ('0::/a.slice/b.scope\n', {'other.slice/cpu.max': '300000 100000'}, HAS),
        # the first generation; a container sees its own folder, and often the host's path
        ('3:cpu,cpuacct:/\n', {'cpu,cpuacct/cpu.cfs_quota_us': '400000', 'cpu,cpuacct/cpu.cfs_period_us': '100000'}, 4),
        ('3:cpu,cpuacct:/docker/1f\n', {'cpu/cpu.cfs_quota_us': '250000', 'cpu/cpu.cfs_period_us': '50000'}, 5),
        ('1:cpu:/\n0::/\n', {'cpu/cpu.cfs_quota_us': '-1', 'cpu/cpu.cfs_period_us': '100000'}, HAS),
        ('2:cpuset:/\n', {'cpu.cfs_quota_us': '100000', 'cpu.cfs_period_us': '100000'}, HAS),
        # both at once, the second beside the first
        ('1:cpu:/\n0::/\n', {'unified/cpu.max': '600000 100000'}, 6),
        ('0::/\n', {'cpu.max': 'nonsense'}, HAS),
        ('0::/\n', {'cpu.max': '100000 0'}, HAS),
        ('nonsense\n\n0::/\n', {'cpu.max': '300000 100000'}, 3),
    ],
)
def test_no_more_cpus_are_used_than_the_control_groups_grant(tmp_path, groups, files, cpus):
    grant(tmp_path, groups, files)
    assert usable_cpus(tmp_path) == cpus


def test_a_system_without_control_groups_has_all_that_the_process_is_bound_to(tmp_path):
    assert usable_cpus(tmp_path) == HAS


def test_a_process_uses_the_cpus_that_it_is_bound_to(monkeypatch, tmp_path):
    monkeypatch.undo()
    if not hasattr(os, 'sched_setaffinity'):
        pytest.skip('this system does not bind processes')
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cpus(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.fixture
def _usable(monkeypatch):
    monkeypatch.setattr('fasternet_mm.cpus.usable_cpus', lambda: 3)


@pytest.mark.usefixtures('_usable')
def test_processes_of_one_machine_share_its_cpus(monkeypatch):
    assert cpus_per_process() == 3
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '2')
    assert cpus_per_process() == 1
    monkeypatch.setenv('LOCAL_WORLD_SIZE', '8')
    assert cpus_per_process() == 1


@pytest.mark.usefixtures('_usable')
@pytest.mark.parametrize(
    ('before', 'said', 'after'), [(8, None, 3), (2, None, 2), (8, 'OMP_NUM_THREADS', 8), (8, 'MKL_NUM_THREADS', 8)]
)
def test_pytorch_computes_in_no_more_threads_unless_told_to(monkeypatch, before, said, after):
    opencv = []
    monkeypatch.setattr('cv2.getNumThreads', lambda: before)
    monkeypatch.setattr('cv2.setNumThreads', opencv.append)
    for variable in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        monkeypatch.delenv(variable, raising=False)
    if said:
        monkeypatch.setenv(said, '8')
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(before)
        limit_threads()
        assert torch.get_num_threads() == after
        assert opencv == [min(before, 3)]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(('gpu', 'said', 'after'), [(True, None, 1), (False, None, 2), (True, 'OMP_NUM_THREADS', 2)])
def test_beside_a_gpu_one_thread_computes_unless_the_user_says_otherwise(gpu, said, after, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    for variable in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS'):
        monkeypatch.delenv(variable, raising=False)
    if said:
        monkeypatch.setenv(said, '2')
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        leave_computing_to_gpu()
        assert torch.get_num_threads() == after
    finally:
        torch.set_num_threads(threads)
