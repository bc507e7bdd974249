import functools
import logging
import os
import shutil
import signal
import subprocess
from pathlib import Path

# Tests run side by side, one to a core. Set before PyTorch reads it, and inherited by the tools that tests start.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import mmengine.config.utils
import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmengine.runner import set_random_seed
from mmengine.visualization import Visualizer
from small_models import SCALES, SMALL, spread_model

import fasternet_mm  # noqa: F401  first of all, since it gives MMDetection its operators
from fasternet_mm.cli import main

ROOT = Path(__file__).parent.parent


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Each test begins alike, before its fixtures: chance from every source, no scope, and a log without a level.

    Data pipelines draw from NumPy and Python; tools that are run in the tests' own process leave the scope of their
    model behind, in which those of other libraries are not found, and may silence the log.
    """
    set_random_seed(0)
    DefaultScope._instance_dict.clear()
    logger = MMLogger.get_current_instance()
    logger.setLevel('NOTSET')
    for handler in logger.handlers[:]:
        if isinstance(handler, logging.FileHandler) and handler.stream is None:  # closed
            logger.removeHandler(handler)


SLOW_FOLDERS = ('cli', 'own_data', 'deployment', 'benchmark', 'inference', 'models')
"""Where the longest tests are, the longest first: they train, start processes or export."""


def pytest_xdist_auto_num_workers(config):
    """One more than the cores, since some tests wait for processes that they start."""
    return len(os.sched_getaffinity(0) if hasattr(os, 'sched_getaffinity') else range(os.cpu_count() or 1)) + 1


def pytest_configure(config):
    """Where files go to several cores, the order below counts, and not how many tests a file has.

    The longest files have few tests: they would come last, and all cores but one would wait for them.
    """
    if hasattr(config.option, 'loadscopereorder'):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items):
    def place(item):
        folder = item.path.relative_to(ROOT / 'tests').parts[0]
        return SLOW_FOLDERS.index(folder) if folder in SLOW_FOLDERS else len(SLOW_FOLDERS)

    items.sort(key=place)


# A shell that starts the tests in the background has them ignore both, and so would what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, 'SIGHUP'):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope='session', autouse=True)
def _model_indices_are_read_once():
    """MMEngine reads all of MMDetection's for each config, which takes a third of a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmengine.config.utils, 'load', functools.cache(mmengine.config.utils.load))
        yield


@pytest.fixture(scope='session', autouse=True)
def _mmseg_configs():
    from fasternet_mm.extras import mmseg_by_module_name

    with mmseg_by_module_name():
        yield


@pytest.fixture(scope='session')
def root() -> Path:
    return ROOT


@pytest.fixture(scope='session')
def fixtures() -> Path:
    return ROOT / 'tests' / 'fixtures'


@pytest.fixture
def command(capsys, monkeypatch):
    """``fasternet-mm`` in the tests' own process, which spares its imports: a function of its arguments."""

    def run(*args):
        monkeypatch.setenv('LOCAL_RANK', '0')  # training sets it, and it must not outlive the test
        for visualizer in (Visualizer, *Visualizer.__subclasses__()):
            visualizer._instance_dict.clear()  # all have one name in configs, and write where the first one did
        capsys.readouterr()
        try:
            main([str(arg) for arg in args])
            status = 0
        except SystemExit as end:
            status = end.code
        printed = capsys.readouterr()
        return subprocess.CompletedProcess(args, status, printed.out, printed.err)

    return run


@pytest.fixture
def logged_warnings(caplog):
    """What MMEngine's logger warns of in a test, as a function, since its records do not reach pytest by themselves."""
    logger = MMLogger.get_current_instance()
    caplog.handler.setLevel('NOTSET')  # all tests share it, and libraries raise the level of handlers
    logger.addHandler(caplog.handler)
    yield lambda: [record.getMessage() for record in caplog.records if record.levelname == 'WARNING']
    logger.removeHandler(caplog.handler)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub of this test's own, with its cache and its log-in."""
    from hub_server import HubServer
    from huggingface_hub import constants

    server = HubServer()
    monkeypatch.setattr(constants, 'ENDPOINT', server.endpoint)
    template = server.endpoint + '/{repo_id}/resolve/{revision}/{filename}'
    monkeypatch.setattr(constants, 'HUGGINGFACE_CO_URL_TEMPLATE', template)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(constants, 'HF_TOKEN_PATH', str(tmp_path / 'token'))
    monkeypatch.setattr(constants, 'HF_HUB_DISABLE_XET', True)  # uploads go by Git LFS's protocol
    monkeypatch.setenv('HF_TOKEN', server.token)
    monkeypatch.setenv('NO_PROXY', '127.0.0.1,localhost')
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope='module')
def detector_cfg(root):
    cfg = Config.fromfile(root / 'configs/shapes/mask_rcnn_fasternet_t0_shapes.py')
    cfg.model.backbone.arch, cfg.model.neck.in_channels = SMALL, [16, 32, 64, 128]
    cfg.model.test_cfg.rcnn.score_thr = 0.8  # of the random detector's, some on one image and none on another
    return cfg


@pytest.fixture(scope='module')
def segmenter_cfg(root):
    cfg = Config.fromfile(root / 'configs/shapes/upernet_fasternet_t0_shapes.py')
    cfg.model.backbone.arch, cfg.model.auxiliary_head.in_channels = SMALL, 64
    cfg.model.decode_head.update(in_channels=[16, 32, 64, 128], channels=16)
    return cfg


@pytest.fixture(scope='module')
def detector(detector_cfg):
    return spread_model(detector_cfg, SCALES)


@pytest.fixture(scope='module')
def segmenter(segmenter_cfg):
    return spread_model(segmenter_cfg, {'decode_head.conv_seg.weight': 100})


@pytest.fixture(scope='module')
def browser():
    program = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
    if program is None:
        pytest.skip('there is no Chromium (apt-get install chromium)')
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update']
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()
