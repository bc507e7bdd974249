"""Tests of what runs on a GPU. Without CUDA they are skipped.

``make test-gpu`` runs them, and ``python -m pytest tests/gpu`` in any Python that has pytest and what the package
needs. With ``FASTERNET_MM_TEST_DEVICE=cpu`` in the environment all compute on the CPU that are not marked ``cuda``, as
those are that need a GPU by their nature: a way to try the tests' own code where there is no GPU.
"""

import os

import pytest
import torch

from fasternet_mm.datasets.shapes import ensure_shapes

DEVICE = os.environ.get('FASTERNET_MM_TEST_DEVICE', 'cuda')
if DEVICE == 'cpu':
    os.environ['CUDA_VISIBLE_DEVICES'] = ''  # commands take a GPU where they see one


def pytest_configure(config):
    config.addinivalue_line('markers', 'cuda: a test that needs a GPU, whatever FASTERNET_MM_TEST_DEVICE says')


def pytest_runtest_setup(item):
    if DEVICE == 'cuda' and not torch.cuda.is_available():
        pytest.skip('needs a GPU')
    if DEVICE != 'cuda' and item.get_closest_marker('cuda'):
        pytest.skip('needs a GPU, and FASTERNET_MM_TEST_DEVICE names another device')


@pytest.fixture(scope='session')
def device():
    """The type of the device, as ``torch.device`` takes it."""
    return DEVICE


@pytest.fixture(autouse=True)
def _exact_float32():
    """By default a GPU multiplies float32 in convolutions with 10 bits of the fractions."""
    default = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = default


@pytest.fixture(scope='session')
def shapes(root):
    """The folder of the embedded data."""
    return ensure_shapes(root / 'data' / 'shapes')


@pytest.fixture
def run(root, shapes, command, monkeypatch):
    """``fasternet-mm`` in the tests' own process, in the project's folder: it has to succeed, and says what it says."""
    monkeypatch.chdir(root)

    def run(*args):
        done = command(*args)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def little_memory():
    """A function that leaves so many bytes of the GPU to PyTorch, beyond what it holds, until the test ends."""

    def leave(free):
        torch.cuda.empty_cache()
        _, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + free) / total)

    yield leave
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()
