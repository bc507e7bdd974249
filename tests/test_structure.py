"""How the package is built: which room may import which, one name for one thing, and nothing that nobody uses."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from markdown_pages import DOCS
from setuptools.config.pyprojecttoml import read_configuration

import fasternet_mm

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / 'fasternet_mm'
MODULES = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path
    for path in sorted(PACKAGE.rglob('*.py'))
}
"""The package's modules by dotted name."""

LAYERS = (
    {'errors', 'files', 'cpus', 'devices', 'parallel', 'download', 'extras', 'signals', 'version'},
    {'ops', 'registry'},
    {'models'},
    {'datasets'},
    {'weights'},
    {'engine'},
    {'acceleration', 'annotation_formats', 'evaluation', 'visualization'},
    {'deployment', 'report'},
    {'inference'},
    {'own_data', 'benchmark', 'hub', 'serving'},
    {'cli'},
    {'__main__'},
)
"""The rooms from the ground up. A room imports from layers below its own; only those on the ground know each other."""

FRONT_DOOR = 'fasternet_mm'
"""The package itself gives the public names, lazily, and so refers to every room; no room imports from it."""

LAYER = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imported(module: str, path: Path) -> Iterator[str]:
    """What a module imports, anywhere in it: dotted names, those of ``from … import`` with the name that is taken."""
    package = module.split('.') if path.name == '__init__.py' else module.split('.')[:-1]
    for node in ast.walk(parsed(path)):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                base = [*package[: len(package) - level + 1], *([source] if source else [])] if level else [source]
                yield from ('.'.join([*base, name.name]) for name in names)
            case ast.Call(
                func=ast.Name(id='import_module') | ast.Attribute(attr='import_module'),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def imports_of_package(module: str, path: Path) -> set[str]:
    """The modules of the package that a module imports; from a package its ``__init__``, or a module in it."""
    names = [name for name in imported(module, path) if name.partition('.')[0] == 'fasternet_mm']
    return {name if name in MODULES else name.rpartition('.')[0] for name in names}


def defined(tree: ast.AST) -> Iterator[str]:
    """The names that a module has: what it defines, sets or imports, but for what is inside functions and classes."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (name.asname or name.name.partition('.')[0] for name in names)
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case _:
                yield from defined(node)


NAMES = {module: set(defined(parsed(path))) for module, path in MODULES.items()}

IMPORTS = {
    module: {name for name in imports_of_package(module, path) if name in MODULES} for module, path in MODULES.items()
}


def test_what_is_imported_exists():
    """Lazily too, where a wrong name shows only when somebody calls the function around it."""
    files = [
        *MODULES.items(),
        *(('', path) for folder in ('tools', 'tests', 'examples') for path in (ROOT / folder).rglob('*.py')),
    ]
    wrong = [
        f'{path.relative_to(ROOT)} imports {name}'
        for module, path in files
        for name in imported(module, path)
        if name.partition('.')[0] == 'fasternet_mm' and name not in MODULES
        if name.rpartition('.')[2] not in NAMES.get(name.rpartition('.')[0], set()) | fasternet_mm.PUBLIC.keys()
    ]
    assert not wrong, '\n'.join(wrong)


def room(module: str) -> str:
    return module.split('.')[1] if '.' in module else FRONT_DOOR


def test_every_room_has_its_layer():
    assert {room(module) for module in MODULES} - {FRONT_DOOR} == set(LAYER)


def test_rooms_import_downwards_alone():
    wrong = [
        f'{MODULES[module].relative_to(ROOT)} imports {target}'
        for module, targets in IMPORTS.items()
        for target in sorted(targets)
        if not may_import(room(module), room(target))
    ]
    assert not wrong, '\n'.join(wrong)


def may_import(importer: str, target: str) -> bool:
    if importer in (target, FRONT_DOOR):
        return True
    if target == FRONT_DOOR:
        return False
    return LAYER[target] < LAYER[importer] or LAYER[target] == LAYER[importer] == 0


def test_no_modules_import_each_other_in_a_circle():
    assert circle(IMPORTS) is None


def test_no_folders_import_each_other_in_a_circle():
    """Folders in a room too: the plan of a training knows the layouts of annotations, not the other way round."""
    folders = defaultdict(set)
    for module, targets in IMPORTS.items():
        folders[folder(module)] |= {folder(target) for target in targets} - {folder(module)}
    assert circle(folders) is None


def folder(module: str) -> str:
    """The folder that a module is in; modules that are in no room count as folders."""
    inside = MODULES[module].parent != PACKAGE and MODULES[module].name != '__init__.py'
    return module.rpartition('.')[0] if inside else module


def circle(graph: dict[str, set[str]]) -> list[str] | None:
    try:
        TopologicalSorter({node: targets - {node} for node, targets in graph.items()}).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_the_backbone_can_be_taken_out_of_the_package():
    path = PACKAGE / 'models' / 'backbone.py'
    libraries = {name.partition('.')[0] for name in imported('fasternet_mm.models.backbone', path)}
    assert libraries - sys.stdlib_module_names == {'torch', 'mmengine'}


def test_importing_the_package_loads_nothing_heavy():
    script = 'import json, sys; import fasternet_mm; print(json.dumps(sorted(sys.modules)))'
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition('.')[0] for name in json.loads(done.stdout)}
    assert 'fasternet_mm' in loaded
    assert loaded & {'torch', 'torchvision', 'numpy', 'cv2', 'mmengine', 'mmcv', 'mmdet', 'mmseg'} == set()


# One name, one thing


def repeated(places: list[tuple[str, str]]) -> list[str]:
    by_name = defaultdict(list)
    for name, place in places:
        by_name[name].append(place)
    return [f'{name}: {", ".join(where)}' for name, where in sorted(by_name.items()) if len(where) > 1]


def test_a_public_class_name_occurs_once():
    classes = [
        (node.name, module)
        for module, path in MODULES.items()
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and not node.name.startswith('_')
    ]
    assert len(classes) > 20
    assert not repeated(classes), '\n'.join(repeated(classes))


def test_a_module_file_name_occurs_once():
    files = [(path.name, module) for module, path in MODULES.items() if path.name not in ('__init__.py', '__main__.py')]
    assert not repeated(files), '\n'.join(repeated(files))


# Words

IMAGE_IS_THE_WORD = re.compile(r'pictur\w*', re.IGNORECASE)

BRITISH = re.compile(
    r"""
    \w*colour\w* | gr[e]y(s|scale|level|ed|ish)?\b | \w*behaviour\w* | \w*favour\w* | \w*honour\w* | \w*neighbour\w*
    | \w*flavour\w* | centre[ds]?\b | licences? | catalogues? | \w*labell(ed|ing)\w* | modell(ed|ing|er)\w*
    | cancell(ed|ing)\w* | travell\w* | signall(ed|ing)\w* | analys(e|ed|ing)\b | artefact\w* | programmes?
    | judgement\w* | whilst | fulfil(s|ment)?\b | defence | ageing | sceptic\w* | (milli|centi|kilo)?metres?\b
    | \w*(normal|initial|optim|organ|recogn|serial|visual|util|summar|general|minim|maxim|parametr|parameter|quant
          |random|real|special|synchron|token|vector|categor|emphas|custom|penal|standard|character|regular|local
          |binar|digit|equal|final|harmon|ideal|memor|prior|stabil|symbol|capital|discret|factor|linear|author
          |central|neutral|crystall|familiar|material|modern|modular|monet|optional|reorgan|sanit)
      is(e|ed|er|ers|es|ing|ation|ations)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)

READ_FROM_PEOPLES_FILES = {
    'fasternet_mm/datasets/large_images.py': {'colourspace'},  # a method of libvips
    'fasternet_mm/own_data/layouts/folder_words.py': {'picture'},  # folders of images are called "pictures" too
    'fasternet_mm/own_data/layouts/class_files.py': {'colour', 'unlabelled'},  # heads and names in lists of classes
    'fasternet_mm/report/page.html': {'labelledby'},  # HTML's attribute
    'tests/deployment/test_exporter.py': {'pictures'},  # the input's name in files that were exported earlier
}
"""Words of other people: what their folders and files say is understood in every spelling."""


def texts() -> dict[str, str]:
    """All that the project says, by path: code, settings and docs. This file names the words that it looks for."""
    folders = [
        path
        for name in ('fasternet_mm', 'tools', 'configs', 'tests', 'docs', 'examples')
        for path in sorted((ROOT / name).rglob('*'))
        if path.suffix in ('.py', '.md', '.html', '.sh', '.txt', '.yml', '.toml', '.cff')
    ]
    top = [ROOT / 'Makefile', *(path for path in sorted(ROOT.iterdir()) if path.suffix in ('.py', '.md', '.toml'))]
    paths = {str(path.relative_to(ROOT)): path for path in (*folders, *top) if path != Path(__file__)}
    return {name: path.read_text() for name, path in paths.items()}


@pytest.mark.parametrize('words', [IMAGE_IS_THE_WORD, BRITISH], ids=['picture', 'british'])
def test_one_word_for_one_thing_in_american_spelling(words):
    wrong = [
        f'{path}: {word}'
        for path, text in texts().items()
        for word in sorted(words_in(text, words) - READ_FROM_PEOPLES_FILES.get(path, set()))
    ]
    assert not wrong, '\n'.join(wrong)


def words_in(text: str, words: re.Pattern[str]) -> set[str]:
    """In identifiers an underscore parts words, as a space does."""
    return {match[0].lower() for match in words.finditer(text.replace('_', ' '))}


def test_the_words_are_found_where_they_stand():
    text = 'Pictures colour_map grey normalised labelled neighbouring of the metre'
    assert words_in(text, IMAGE_IS_THE_WORD) == {'pictures'}
    assert words_in(text, BRITISH) == {'colour', 'grey', 'normalised', 'labelled', 'neighbouring', 'metre'}
    assert not words_in('parameters raised kilometers perimeter gray color realizes advised exercise noise', BRITISH)


def test_public_names_are_known_to_type_checkers_and_checked():
    front_door = parsed(PACKAGE / '__init__.py')
    for_types = {
        name.asname: node.module
        for node in ast.walk(front_door)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
        if name.asname
    }
    assert for_types == {**fasternet_mm.PUBLIC, '__version__': 'version'}
    settings = read_configuration(ROOT / 'pyproject.toml', expand=False)['tool']['mypy']
    checked = {path.removeprefix('fasternet_mm/').removesuffix('.py').replace('/', '.') for path in settings['files']}
    assert set(fasternet_mm.PUBLIC.values()) <= checked


# Nothing without a use


def definitions(path: Path) -> Iterator[tuple[str, ast.AST]]:
    """What a module defines: functions, classes, constants, and methods of classes that inherit from nothing.

    What is decorated may be called by whoever decorates it, and methods of heirs by their ancestors.
    """
    for node in parsed(path).body:
        match node:
            case ast.FunctionDef(decorator_list=[]):
                yield node.name, node
            case ast.ClassDef():
                if not any(registers(decorator) for decorator in node.decorator_list):
                    yield node.name, node
                if not [base for base in node.bases if not isinstance(base, ast.Name) or base.id != 'NamedTuple']:
                    yield from ((inner.name, inner) for inner in node.body if isinstance(inner, ast.FunctionDef))
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name, node


def registers(decorator: ast.expr) -> bool:
    return 'register_module' in ast.unparse(decorator)


def uses(node: ast.AST) -> Counter[str]:
    """How often a name is used in a piece of code: as a name, an attribute, or in a string that is a name or a path."""
    names = Counter()
    for inner in ast.walk(node):
        match inner:
            case ast.Assign(targets=[ast.Name(id='__all__')]):
                names.subtract(element.value for element in ast.walk(inner) if isinstance(element, ast.Constant))
            case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name):
                names[name] += 1
            case ast.Constant(value=str(text)) if ' ' not in text:
                names.update(re.findall(r'\w+', text))
    return names


def test_nothing_is_there_for_tests_alone():
    code = [*MODULES.values(), *(ROOT / 'tools').glob('*.py'), *(ROOT / 'configs').rglob('*.py'), ROOT / 'setup.py']
    used = Counter()
    for path in code:
        used += uses(parsed(path))
    texts = [
        *DOCS.values(),
        *(path.read_text() for path in PACKAGE.rglob('*.html')),
        (ROOT / 'pyproject.toml').read_text(),
    ]
    used.update(name for text in texts for name in re.findall(r'(?<=\.)[A-Za-z_]\w*', text))
    unused = [
        f'{path.relative_to(ROOT)}: {name}'
        for module, path in MODULES.items()
        if room(module) != 'ops'  # MMCV takes its operators by name
        for name, node in definitions(path)
        if not re.fullmatch(r'__\w+__', name) and used[name] <= uses(node)[name]
    ]
    assert not unused, '\n'.join(unused)
