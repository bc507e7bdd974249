"""What the notebook says and has stored. That it runs is tested by ``make test-notebook``, which takes longer."""

import shlex
from importlib import import_module
from pathlib import Path

import nbformat
import pytest
from notebook_execution import shown_images
from test_readme import links


@pytest.fixture(scope='module')
def path(root):
    return root / 'examples' / 'own_images.ipynb'


@pytest.fixture(scope='module')
def cells(path):
    return nbformat.read(path, 4).cells


def test_its_command_lines_are_those_that_the_commands_accept(cells, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('my_model').mkdir()  # which commands look for when they read their arguments
    lines = [line for cell in cells for line in cell.source.splitlines() if line.startswith('!fasternet-mm ')]
    assert len(lines) == 6
    for line in lines:
        _, command, *words = shlex.split(line.replace('{OPTIONS}', '--epochs 3 --seed 0'))
        import_module(f'fasternet_mm.cli.{command.replace("-", "_")}').arguments().parse_args(words)


def test_its_links_lead_to_pages(cells, path):
    targets = links(''.join(cell.source for cell in cells))
    assert len(targets) >= 4
    assert [target for target in targets if not (path.parent / target.partition('#')[0]).exists()] == []


def test_its_stored_outputs_are_those_of_one_run_and_small(cells, path):
    code = [cell for cell in cells if cell.cell_type == 'code']
    assert [cell.execution_count for cell in code] == [*range(1, len(code) + 1)]
    assert not [output for cell in code for output in cell.outputs if output.output_type == 'error']
    assert len([*shown_images(code)]) == 6
    assert path.stat().st_size < 500_000
    assert '/tmp/' not in path.read_text()
