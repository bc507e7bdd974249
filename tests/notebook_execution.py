"""The notebook of ``examples/``, run cell by cell in a folder of its own.

``make notebook`` runs it as it is, which takes minutes, and stores in it what its cells print and show, for those who
read it without running it.
"""

import base64
import io
import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOK = Path(__file__).parents[1] / 'examples' / 'own_images.ipynb'


def execute(notebook, folder, timeout=None):
    """Fills a notebook's cells with their outputs; ``folder`` is where its kernel runs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    # The kernel's cells call the command, which is beside this Python also where its environment is not activated.
    os.environ['PATH'] = os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']])
    where = dict(metadata=dict(path=str(folder)))
    NotebookClient(notebook, timeout=timeout, resources=where, coalesce_streams=True).execute()


def shown_images(cells):
    """The images that cells show, with the data of their outputs: ``image/png`` or ``image/jpeg``."""
    for data in (output.get('data', {}) for cell in cells for output in cell.get('outputs', [])):
        for kind in {'image/png', 'image/jpeg'} & data.keys():
            yield data, Image.open(io.BytesIO(base64.b64decode(data[kind])))


def store_outputs(path=NOTEBOOK):
    notebook = nbformat.read(path, 4)
    with tempfile.TemporaryDirectory() as folder:
        execute(notebook, folder)
    shrink(notebook)
    text = nbformat.writes(notebook).replace(f'{folder}/', '').replace(str(Path.home()), '~')
    path.write_text(text + '\n')


def shrink(notebook):
    """Stored images become JPEG and at most 800 pixels wide, since the file is in the repository; warnings go.

    These are of libraries that miss others, and name folders of this machine.
    """
    for cell in notebook.cells:
        if 'outputs' in cell:
            cell.outputs = [output for output in cell.outputs if output.get('name') != 'stderr']
    for data, image in shown_images(notebook.cells):
        image = image.convert('RGB')
        image.thumbnail((800, 800))
        jpeg = io.BytesIO()
        image.save(jpeg, 'JPEG', quality=80)
        data.pop('image/png', None)
        data['image/jpeg'] = base64.b64encode(jpeg.getvalue()).decode()


if __name__ == '__main__':
    store_outputs()
