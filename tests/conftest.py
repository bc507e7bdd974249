from pathlib import Path

import pytest
import torch

import fasternet_mm  # noqa: F401  first of all, since it gives MMDetection its operators

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def root() -> Path:
    return ROOT


@pytest.fixture(scope='session')
def fixtures() -> Path:
    return ROOT / 'tests' / 'fixtures'
