"""Command lines of the docs are understood by the parsers of the commands that they call."""

import argparse
import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import pytest
from markdown_pages import DOCS, PAGES, ROOT, blocks, prose
from setuptools.config.pyprojecttoml import read_configuration

from fasternet_mm.cli import COMMANDS as SUMMARIES
from fasternet_mm.cli.parsing import config_file, existing_file, existing_model

COMMANDS = {name for group in SUMMARIES.values() for name in group}

SHELL = 'shell', 'bash', 'sh', 'console'

TOOLS = {
    path.name: shlex.split(re.search(r'run_tool\(__file__, (.*)\)', path.read_text())[1].replace(',', ' '))
    for path in (ROOT / 'tools').glob('*.py')
}
"""The words of the command that each file of ``tools/`` stands for."""

TARGETS = set(re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))

EXTRAS = read_configuration(ROOT / 'pyproject.toml', expand=False)['tool']['setuptools']['dynamic'][
    'optional-dependencies'
].keys()


def simple_commands(script: str) -> Iterator[list[str]]:
    """The words of each command of a shell script: of pipes and lists each, without comments, prompts and redirections.

    Where lines begin with a prompt, the others are what was printed.
    """
    lines = script.replace('\\\n', ' ').splitlines()
    if any(line.startswith('$ ') for line in lines):
        lines = [line.removeprefix('$ ') for line in lines if line.startswith('$ ')]
    for line in lines:
        lexer = shlex.shlex(re.sub(r'(^|\s)#.*', '', line), posix=True, punctuation_chars='|&;()<>')
        lexer.whitespace_split, lexer.commenters = True, ''
        words, redirected = [], False
        for word in lexer:
            if set(word) <= set('|&;()'):
                yield words
                words = []
            elif set(word) <= set('<>&|'):
                redirected = True
                if words and words[-1].isdigit():
                    words.pop()  # the number of a stream
                continue
            elif not redirected:
                words.append(word)
            redirected = False
        yield words


def called(words: list[str]) -> list[str] | None:
    """The command of this package that a shell command calls, or has another program call, and its arguments."""
    if words and Path(words[0]).name in ('docker', 'pip'):  # to which the package is a name of theirs
        return None
    for place, word in enumerate(words):
        name, rest = Path(word).name, words[place + 1 :]
        if name == 'fasternet-mm' or (word == 'fasternet_mm' and words[place - 1] in ('-m', '-um', '--module')):
            return rest
        if word.endswith(f'tools/{name}') and name in TOOLS:
            return [*TOOLS[name], *rest]
        if word.endswith('tools/dist_train.sh'):
            return ['train', *rest[:1], *rest[2:]]
        if word.endswith('tools/slurm_train.sh'):
            return ['train', *rest[2:]]
    return None


def mistake(words: list[str]) -> str | None:
    """What the parser of the command says against its arguments."""
    if words and words[0] in ('--help', '--version', '--print-completion'):
        return None
    if not words or words[0] not in COMMANDS:
        return f'{" ".join(words[:1])!r} is not a command'
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parser(words[0]).parse_args(words[1:])
    except SystemExit as end:
        return said.getvalue().splitlines()[-1] if end.code else None
    return None


@cache
def parser(command: str) -> argparse.ArgumentParser:
    """The command's own parser, which also takes files that the reader is to have."""
    result = importlib.import_module(f'fasternet_mm.cli.{command.replace("-", "_")}').arguments()
    for action in actions(result):
        if action.type in (config_file, existing_file, existing_model):
            action.type = partial(readers_own, check=action.type)
    return result


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from actions(inner)


def readers_own(word: str, check: Callable[[str], str]) -> str:
    """WORK_DIR, $MODEL, work_dirs/mine, model.onnx; all else is a packaged config, or a file of the repository."""
    if re.fullmatch(r'[A-Z_]+|\$.*|work_dirs/.*|(?!configs/).*\.\w+', word):
        return word
    return check(word)


def wrong_commands(page: str) -> list[str]:
    """What is wrong in the shell commands of a page: arguments of ours, targets of make, extras for pip, files."""
    wrong = []
    for block in blocks(page, *SHELL, ''):
        if block.language == '' and not block.text.startswith('$ '):
            continue
        for words in simple_commands(block.text):
            ours = called(words)
            if ours is not None:
                wrong += [f'{block.line}: {" ".join(words)}: {said}' for said in [mistake(ours)] if said]
            elif words[:1] == ['make']:
                targets = {word for word in words[1:] if '=' not in word and not word.startswith('-')}
                wrong += [f'{block.line}: make {target}: no such target' for target in sorted(targets - TARGETS)]
            elif 'pip' in words:
                extras = re.findall(r'(?:\.|fasternet-mm)\[([\w,]+)\]', ' '.join(words))
                named = {name for group in extras for name in group.split(',')}
                wrong += [f'{block.line}: [{name}]: no such extra' for name in sorted(named - EXTRAS)]
            files = [word for word in words if re.match(r'requirements|(configs|docs|examples|tests|tools)/', word)]
            wrong += [f'{block.line}: {file}: no such file' for file in files if not any(ROOT.glob(file))]
    return wrong


@pytest.fixture(autouse=True)
def _in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_command_lines_are_those_that_the_commands_accept():
    wrong = [f'{path}:{line}' for path, page in PAGES.items() for line in wrong_commands(page)]
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize(
    ('script', 'said'),
    [
        ('fasternet-mm train --date my_data', '--date'),
        ('fasternet-mm predict WORK_DIR a.jpg --batch-size many', 'many'),
        ('fasternet-mm predict', 'required'),
        ('fasternet-mm train mask_rcnn_fastnet_s', 'mask_rcnn_fastnet_s'),
        ('fasternet-mm tain --data my_data', "'tain' is not a command"),
        ('A=1 time fasternet-mm test WORK_DIR | tee log; fasternet-mm test WORK_DIR --rapport x > y', '--rapport'),
        ("fasternet-mm export WORK_DIR \\\n    --outt model.onnx  # it's wrong", '--outt'),
        ('$ cd x\n$ python tools/prepare_coco.py A --no-such', '--no-such'),
        ('srun python -m fasternet_mm train CONFIG --no-such', '--no-such'),
        ('bash tools/dist_train.sh CONFIG 8 --no-such', '--no-such'),
        ('bash tools/slurm_train.sh gpu name CONFIG --no-such', '--no-such'),
        ('make no-such', 'no-such'),
        ("pip install '.[no_such]'", 'no_such'),
        ('pip install -r requirements-none.txt', 'requirements-none.txt'),
        ('python examples/none.py WORK_DIR', 'examples/none.py'),
    ],
)
def test_a_wrong_command_line_is_found(script, said):
    (line,) = wrong_commands(f'text\n\n```shell\n{script}\n```\n')
    assert line.startswith('4: ')
    assert said in line


def test_right_command_lines_are_accepted():
    script = """
    fasternet-mm train --data "$DATA" --dry-run 2> log && echo 'fasternet-mm tain'  # --no-such, isn't it
    for model in rtmdet_fasternet_t0 $MORE; do fasternet-mm train $model; done
    fasternet-mm predict WORK_DIR "archive/**/*.png" https://example.org/net.pth#sha256=00
    OMP_NUM_THREADS=1 torchrun --nproc_per_node 8 -m fasternet_mm train CONFIG --launcher pytorch
    docker run --gpus all fasternet-mm --no-such
    make demo PYTHON=python3.12
    """
    assert wrong_commands(f'```bash\n{script}```\n') == []


# Options and commands in the text


def options_of(parser: argparse.ArgumentParser, words: list[str]) -> set[str]:
    """The options of a command: its own, and of the command within it that ``words`` name, such as ``weights list``."""
    options = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            chosen = [action.choices[word] for word in words if word in action.choices] or action.choices.values()
            options |= {option for inner in chosen for option in options_of(inner, words)}
    return options


ANY_COMMAND = {'--help', '--version', 'COMMAND', '…'}
"""What may stand after ``fasternet-mm`` in the place of a command."""

OTHERS_OPTIONS = {'--logdir', '--backend-store-uri', '--opt_out', '--data-binary'}
"""Options of other programs that the docs name: TensorBoard's, MLflow's, that of NNCF's ``opt_in_out``, and curl's."""


def spans(page: str) -> list[str]:
    """What is between backticks in a page's text."""
    return [' '.join(span.split()) for span in re.findall(r'`([^`]+)`', prose(page))]


def commands_in_text(page: str) -> Iterator[list[str]]:
    """The words after ``fasternet-mm`` where what is between backticks begins so."""
    for span in spans(page):
        if span.split()[0] == 'fasternet-mm':
            yield span.split()[1:]


def test_commands_and_options_of_the_text_exist():
    wrong, count = [], 0
    for where, page in DOCS.items():
        for words in commands_in_text(page):
            count += 1
            if not words or words[0] in ANY_COMMAND:
                continue
            if words[0] not in COMMANDS:
                wrong.append((where, words[0]))
                continue
            options = {word.partition('=')[0] for word in words if word.startswith('--')}
            unknown = options - options_of(parser(words[0]), words[1:])
            wrong += [(where, words[0], option) for option in sorted(unknown)]
    assert not wrong, '\n'.join(map(' '.join, wrong))
    assert count > 20


def test_every_option_in_the_text_is_a_commands():
    known = {option for command in COMMANDS for option in options_of(parser(command), [])} | {'--version'}
    options = {
        (where, option)
        for where, page in DOCS.items()
        for span in spans(page)
        if not re.search(r'\b(pip|make|docker|git|mim|torchrun|python -m)\b', span)
        for option in re.findall(r'(?<![\w-])--[a-z][\w-]*', span)
    }
    assert len(options) > 20
    wrong = sorted(f'{where}: {option}' for where, option in options if option not in known | OTHERS_OPTIONS)
    assert not wrong, '\n'.join(wrong)


def test_every_command_is_in_the_readme():
    readme = DOCS['README.md']
    in_blocks = [called(words) for block in blocks(readme, *SHELL) for words in simple_commands(block.text)]
    named = {words[0] for words in [*in_blocks, *commands_in_text(readme)] if words}
    assert sorted(COMMANDS - named - {span.split()[0] for span in spans(readme)}) == []
