"""Blocks of Python in the docs name what exists, configs are read and built, and all else runs as it stands there."""

import ast
import importlib
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import mmengine
import numpy as np
import pytest
import torch
import yaml
from markdown_pages import DOCS, PAGES, ROOT, Block, blocks
from mmengine.config import Config, ConfigDict

import fasternet_mm
from fasternet_mm import registry
from fasternet_mm.engine.config import load_config
from fasternet_mm.engine.runner import build_model
from fasternet_mm.weights.catalog import CATALOG

NOT_RUN = {
    ('docs/faq.md', 'ultralytics'): 'needs a package that is no extra of this one',
    ('docs/architecture.md', ''): 'goes into the code; test_architecture.py puts it there',
    ('docs/hub.md', ''): 'needs the hub; tests/hub has a stand-in',
}
"""Blocks that cannot run in a test, by their page and words in them, '' for all of the page; and the reason.

Their names are looked up all the same.
"""

REGISTRIES = [value for value in vars(registry).values() if isinstance(value, mmengine.Registry)]


def python_blocks(page: str) -> list[Block]:
    return blocks(page, 'python')


def is_config(block: Block) -> bool:
    """Whether a block is a config: nothing but settings, some of which are dicts."""
    tree = ast.parse(block.text)
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return calls == {'dict'} and all(isinstance(statement, ast.Assign) for statement in tree.body)


# Names


def unknown_names(code: str) -> list[str]:
    """What Python code imports or takes from this package that is not there, and keywords that a call does not have."""
    wrong, tree = [], ast.parse(code)
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                wrong += [name.name for name in names if is_ours(name.name) and found(name.name) is None]
            case ast.ImportFrom(module=str(module), names=names) if is_ours(module):
                wrong += [f'{module}.{name.name}' for name in names if found(f'{module}.{name.name}') is None]
            case ast.Attribute() if is_ours(name := ast.unparse(node)) and re.fullmatch(r'[\w.]+', name):
                if found(name) is None:
                    wrong.append(name)
            case ast.Call(func=ast.Attribute() as function, keywords=keywords):
                called = found(ast.unparse(function)) if is_ours(ast.unparse(function)) else None
                wrong += [f'{ast.unparse(function)}({name})' for name in unknown_arguments(called, keywords)]
    return wrong


def is_ours(name: str) -> bool:
    return name.partition('.')[0] == 'fasternet_mm'


def found(name: str) -> Any:
    """A module of this package, or what is in one, by its dotted name; None where there is no such thing."""
    thing, path = fasternet_mm, 'fasternet_mm'
    for part in name.split('.')[1:]:
        path = f'{path}.{part}'
        try:
            thing = getattr(thing, part) if hasattr(thing, part) else importlib.import_module(path)
        except ImportError:
            return None
    return thing


def unknown_arguments(called: Any, keywords: list[ast.keyword]) -> list[str]:
    if called is None:
        return []
    parameters = inspect.signature(called).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return []
    return [keyword.arg for keyword in keywords if keyword.arg and keyword.arg not in parameters]


@pytest.mark.parametrize('path', [path for path, page in PAGES.items() if python_blocks(page)])
def test_names_of_blocks_exist(path):
    wrong = [
        f'{path}:{block.line}: {name}' for block in python_blocks(PAGES[path]) for name in unknown_names(block.text)
    ]
    assert not wrong, '\n'.join(wrong)


def test_a_wrong_name_is_found():
    code = """
import fasternet_mm.models.backbones
from fasternet_mm.inference.video import open_video, open_vid
fasternet_mm.Predictor('WORK_DIR', batch=2)('street.jpg')
fasternet_mm.Predicter('WORK_DIR')
fasternet_mm.weights.pretrained.strict_loading()
"""
    assert sorted(unknown_names(code)) == [
        'fasternet_mm.Predicter',
        'fasternet_mm.Predictor(batch)',
        'fasternet_mm.inference.video.open_vid',
        'fasternet_mm.models.backbones',
    ]


def test_public_names_are_in_the_docs_and_exist():
    for name, module in fasternet_mm.PUBLIC.items():
        public = getattr(fasternet_mm, name)
        assert (public.__module__, public.__name__) == (f'fasternet_mm.{module}', name)
        assert any(re.search(rf'\b{name}\b', text) for text in DOCS.values()), name


def test_the_reference_has_every_public_name_and_nothing_else_than_what_exists():
    pages = ''.join(page for path, page in DOCS.items() if path.startswith('docs/reference/'))
    places = re.findall(r'^::: (\S+)$', pages, re.MULTILINE)
    assert {f'fasternet_mm.{module}.{name}' for name, module in fasternet_mm.PUBLIC.items()} <= {*places}
    assert [place for place in places if found(place) is None] == []


def test_names_in_the_text_exist():
    """``fasternet_mm.NAME`` is a public name, a module and what is in it, or a type that configs name."""
    named = {
        (where, name) for where, text in DOCS.items() for name in re.findall(r'\bfasternet_mm\.\w+(?:\.\w+)*', text)
    }
    assert len(named) > 5
    wrong = sorted(
        f'{where}: {name}'
        for where, name in named
        if found(name) is None and not any(each.get(name.partition('.')[2]) for each in REGISTRIES)
    )
    assert not wrong, '\n'.join(wrong)


# Configs

CONFIGS = [
    pytest.param(block, id=f'{path}:{block.line}')
    for path, page in PAGES.items()
    for block in python_blocks(page)
    if is_config(block)
]


def dicts_in(value: Any) -> Iterator[dict]:
    if isinstance(value, dict):
        yield value
    if isinstance(value, (dict, list, tuple)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from dicts_in(inner)


def wrong_settings(cfg: dict) -> list[str]:
    """Settings of this package's types that their classes do not have."""
    wrong = []
    for part in dicts_in(cfg):
        if isinstance(name := part.get('type'), str) and is_ours(name):
            classes = [found for each in REGISTRIES if (found := each.get(name.partition('.')[2]))]
            if not classes:
                wrong.append(name)
                continue
            settings = {key: value for key, value in part.items() if key not in ('type', '_delete_', '_scope_')}
            try:
                inspect.signature(classes[0]).bind_partial(**settings)
            except TypeError as error:
                wrong.append(f'{name}: {error}')
    return wrong


@pytest.mark.parametrize('block', CONFIGS)
def test_a_config_is_read_and_its_model_is_built(block, tmp_path):
    file = tmp_path / 'config.py'
    file.write_text(block.text.replace("'_base_/", f"'{ROOT}/configs/_base_/"))  # as if it were there
    alone = {}
    exec(block.text, alone)
    assert wrong_settings({name: value for name, value in alone.items() if not name.startswith('__')}) == []
    if '_base_' not in alone:
        Config.fromfile(file)
        return
    cfg = load_config(str(file))
    cfg.model.backbone.init_cfg = None
    with torch.device('meta'):  # without the arithmetic of initial weights
        build_model(cfg)


def test_a_wrong_setting_is_found():
    backbone = dict(type='fasternet_mm.FasterNet', arch='t0', out_indexes=(1, 2))
    assert wrong_settings(ConfigDict(model=dict(backbone=backbone), hooks=[dict(type='fasternet_mm.NoHook')])) == [
        "fasternet_mm.FasterNet: got an unexpected keyword argument 'out_indexes'",
        'fasternet_mm.NoHook',
    ]


# Data

READERS = {'json': json.loads, 'yaml': yaml.safe_load, 'yml': yaml.safe_load}


def test_json_and_yaml_can_be_read():
    for path, page in PAGES.items():
        for block in blocks(page, *READERS):
            try:
                READERS[block.language](block.text)
            except ValueError as error:
                pytest.fail(f'{path}:{block.line}: {error}')


# Programs


CODE = ' '.join(
    ' '.join(path.read_text().split())
    for folder in ('examples', 'fasternet_mm')
    for path in (ROOT / folder).rglob('*.py')
)


def programs(path: str) -> list[Block]:
    """The blocks of a page that run: no configs, and no parts of a file of the project's, as they stand there."""
    reasons = {words for page, words in NOT_RUN if page == path}
    return [
        block
        for block in python_blocks(DOCS[path])
        if not is_config(block)
        and ' '.join(block.text.split()) not in CODE
        and not any(words in block.text for words in reasons)
    ]


CLASSES = 'person', 'dog', 'car', 'bicycle', 'bus', 'cat'


@pytest.fixture(scope='module')
def readers_folder(tmp_path_factory, detector_cfg, detector):
    """What the docs take for granted: a trained model under each name, published weights, images, a video."""
    folder = tmp_path_factory.mktemp('reader')
    code = ''.join(block.text for path in DOCS for block in programs(path))
    save_model(folder / 'WORK_DIR', detector_cfg, detector)
    for name in set(re.findall(r"'(work_dirs/\w+)'", code)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(folder / 'WORK_DIR')
    for arch in set(re.findall(r"'fasternet_(\w+)_in1k'", code)):
        save_published(folder / 'cache/hub/checkpoints', arch)
    image = np.full((160, 160, 3), (40, 120, 200), np.uint8)
    cv2.circle(image, (80, 80), 40, (200, 40, 40), -1)
    for name in set(re.findall(r"'(\w+\.(?:jpg|png|tif))'", code)):
        cv2.imwrite(str(folder / name), image)
    for name in set(re.findall(r"'(\w+\.mp4)'", code)):
        video = cv2.VideoWriter(str(folder / name), cv2.VideoWriter_fourcc(*'mp4v'), 10, (160, 160))
        for shift in range(4):
            video.write(np.roll(image, 4 * shift, axis=1))
        video.release()
    for name in set(re.findall(r"'(model\.(?:onnx|xml))'", code)):
        fasternet_mm.export(folder / 'WORK_DIR', out=folder / name)
    return folder


def save_model(folder: Path, cfg: Config, model: torch.nn.Module) -> None:
    cfg = cfg.copy()
    cfg.test_dataloader.dataset.metainfo = dict(classes=CLASSES)
    folder.mkdir()
    cfg.dump(folder / 'config.py')
    torch.save(
        dict(meta=dict(dataset_meta=dict(classes=CLASSES)), state_dict=model.state_dict()), folder / 'epoch_1.pth'
    )


def save_published(folder: Path, arch: str) -> None:
    """Random weights under the name of the authors' file, where a download would be kept."""
    folder.mkdir(parents=True, exist_ok=True)
    state_dict = fasternet_mm.FasterNetClassifier(arch).state_dict()
    torch.save(state_dict, folder / CATALOG[f'fasternet_{arch}_in1k'].file)


@pytest.mark.parametrize('path', [path for path in DOCS if programs(path)])
def test_programs_run(path, readers_folder, monkeypatch):
    monkeypatch.chdir(readers_folder)
    monkeypatch.setenv('TORCH_HOME', str(readers_folder / 'cache'))
    monkeypatch.syspath_prepend(ROOT / 'examples')
    names = {}
    for block in programs(path):
        exec(compile('\n' * (block.line - 1) + block.text, path, 'exec'), names)


def test_what_is_not_run_is_there():
    blocks = [(path, block.text) for path, page in DOCS.items() for block in python_blocks(page)]
    assert [
        (page, words) for page, words in NOT_RUN if not any(page == path and words in text for path, text in blocks)
    ] == []
