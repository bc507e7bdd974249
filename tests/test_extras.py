import pytest

from fasternet_mm.errors import UserError
from fasternet_mm.extras import EXTRAS, require


def test_a_folder_without_the_package_is_no_package(tmp_path, monkeypatch):
    """Gradio, uninstalled, leaves a folder of its name, and Weights & Biases makes one where it runs."""
    (tmp_path / 'left_behind').mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(EXTRAS, 'left_behind', 'app')
    with pytest.raises(UserError, match=r"the page needs the package left_behind: pip install 'fasternet-mm\[app\]'"):
        require('left_behind', 'the page')
