import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for forked_trainings.py

from fasternet_mm.datasets.shapes import ensure_shapes


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    """The embedded data."""
    folder = tmp_path_factory.mktemp('data') / 'shapes'
    ensure_shapes(str(folder))
    return folder
