import os
from pathlib import Path

# Tests run side by side, one to a core. Set before PyTorch reads it, and inherited by the tools that tests start.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest
from mmengine.logging import MMLogger
from mmengine.runner import set_random_seed

import fasternet_mm  # noqa: F401  first of all, since it gives MMDetection its operators

ROOT = Path(__file__).parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Each test begins alike, before its fixtures: chance from every source, and a log without a level.

    Data pipelines draw from NumPy and Python; tools that are run in the tests' own process may silence the log.
    """
    set_random_seed(0)
    MMLogger.get_current_instance().setLevel('NOTSET')


@pytest.fixture(scope='session')
def root() -> Path:
    return ROOT


@pytest.fixture(scope='session')
def fixtures() -> Path:
    return ROOT / 'tests' / 'fixtures'


@pytest.fixture
def logged_warnings(caplog):
    """What MMEngine's logger warns of in a test, as a function, since its records do not reach pytest by themselves."""
    logger = MMLogger.get_current_instance()
    caplog.handler.setLevel('NOTSET')  # all tests share it, and libraries raise the level of handlers
    logger.addHandler(caplog.handler)
    yield lambda: [record.getMessage() for record in caplog.records if record.levelname == 'WARNING']
    logger.removeHandler(caplog.handler)
