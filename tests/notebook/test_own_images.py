"""The notebook runs from its first cell to its last, on a few small images. ``make test-notebook``."""

import nbformat
import own_layouts
import pytest
from notebook_execution import NOTEBOOK, execute, shown_images
from PIL import Image

PARAMETERS = """
DATA = 'my_data'
NEW_IMAGES = 'my_data/images/val'
OPTIONS = '--epochs 1 --seed 0 --no-amp --cfg-options model.test_cfg.score_thr=0.0'
SCORE = 0.0
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('notebook')


@pytest.fixture(scope='module')
def cells(folder):
    own_layouts.write_coco(folder / 'my_data', own_layouts.made(train=8, val=2))
    notebook = nbformat.read(NOTEBOOK, 4)
    (parameters,) = [cell for cell in notebook.cells if 'parameters' in cell.metadata.get('tags', [])]
    parameters.source = PARAMETERS
    execute(notebook, folder)
    return {cell.id: cell for cell in notebook.cells}


def test_samples_and_curves_are_shown(cells):
    for name in ('samples', 'curves'):
        ((_, image),) = shown_images([cells[name]])
        assert len(image.getcolors(image.width * image.height)) > 100


def test_images_are_shown_with_what_was_found_drawn_in(cells, folder):
    shown = [image for _, image in shown_images([cells['predict']])]
    paths = sorted((folder / 'my_data/images/val').iterdir())
    assert len(shown) == len(paths) == 2
    for image, path in zip(shown, paths):
        assert image.size == (64, 48)
        assert image.tobytes() != Image.open(path).convert('RGB').tobytes()


def test_the_report_and_the_exported_file_are_there(cells, folder):
    assert '<html' in (folder / 'report.html').read_text()
    assert (folder / 'model.onnx').stat().st_size > 1e6
    assert cells['arrays'].outputs[0]['output_type'] == 'execute_result'
