"""The command line as a whole: its help, its names, its errors, its ends, and completion."""

import ast
import json
import os
import subprocess
import sys

import pytest

from fasternet_mm import cli
from fasternet_mm.cli.parsing import SMALLEST_SIDE
from fasternet_mm.engine.packaged_configs import config_names
from fasternet_mm.errors import RunError, UserError
from fasternet_mm.models.backbone import MIN_INPUT_SIZE, InvalidArgument
from fasternet_mm.version import __version__

NAMES = [name for commands in cli.COMMANDS.values() for name in commands]

HELP = """
import json, sys
from fasternet_mm.cli import main

loaded = []
for name in sys.argv[1:]:
    try:
        main([*name.split(), '--help'])
    except SystemExit as end:
        assert end.code == 0
    loaded.append(sorted(sys.modules))
print(json.dumps(loaded))
"""


def test_help_loads_nothing_heavy_and_no_other_command():
    done = subprocess.run([sys.executable, '-c', HELP, '', *NAMES], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert len(loaded) == len(NAMES) + 1
    for number, modules in enumerate(loaded):
        assert not {'torch', 'numpy', 'mmengine', 'cv2', 'argcomplete'} & set(modules)
        commands = {name for name in NAMES if f'fasternet_mm.cli.{name.replace("-", "_")}' in modules}
        assert commands == set(NAMES[:number])


def test_every_module_with_arguments_is_a_command_and_is_listed_once(root, command):
    modules = {
        path.stem.replace('_', '-')
        for path in (root / 'fasternet_mm/cli').glob('*.py')
        if any(
            isinstance(node, ast.FunctionDef) and node.name == 'arguments' for node in ast.parse(path.read_text()).body
        )
    }
    assert modules == set(NAMES)
    shown = [line.split()[0] for line in command('--help').stdout.splitlines() if line.startswith('    ')]
    assert sorted(set(shown) & modules) == sorted(modules)


@pytest.mark.parametrize('name', NAMES)
def test_help_of_a_command_shows_examples_of_it(name, command):
    done = command(name, '--help')
    assert done.returncode == 0
    assert done.stdout.startswith(f'usage: fasternet-mm {name} ')
    assert f'\n  fasternet-mm {name}' in done.stdout


def test_the_version_is_the_packages(command):
    assert command('--version').stdout == f'fasternet-mm {__version__}\n'


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['trian'], "'trian' is not a command; did you mean 'train'?"),
        (['zzz'], "'zzz' is not a command; there are check-data, convert, train, "),
        (['--gpu'], 'unrecognized arguments: --gpu'),
    ],
)
def test_what_is_no_command_gets_one_line(args, message, command):
    done = command(*args)
    assert done.returncode == 2
    assert done.stderr.startswith(f'fasternet-mm: error: {message}')
    assert done.stderr.count('\n') == 1


def test_without_a_command_the_help_is_shown(command):
    done = command()
    assert done.returncode == 2
    assert done.stdout == command('--help').stdout


@pytest.mark.parametrize(
    ('words', 'prog'),
    [
        (['-m', 'fasternet_mm', 'train'], 'python -m fasternet_mm train'),
        (['tools/train.py'], 'tools/train.py'),
        (['tools/plot_log.py'], 'tools/plot_log.py'),
        (['tools/prepare_coco.py'], 'tools/prepare_coco.py'),
    ],
)
def test_errors_name_the_command_as_it_was_called(words, prog, root):
    done = subprocess.run([sys.executable, *words, '--nonsense', 'x'], capture_output=True, text=True, cwd=root)
    assert done.returncode == 2
    assert done.stderr.startswith(f'{prog}: error: ')
    assert f'(see {prog} --help)' in done.stderr


def test_tools_do_not_hide_modules_of_their_names(root, monkeypatch, capsys, tmp_path):
    (tmp_path / 'link').symlink_to(root / 'tools')
    monkeypatch.syspath_prepend(str(root / 'tools'))
    monkeypatch.syspath_prepend(str(tmp_path / 'link'))
    before = list(sys.path)
    monkeypatch.setattr(sys, 'argv', ['tools/weights.py', '--help'])
    with pytest.raises(SystemExit):
        cli.run_tool(str(tmp_path / 'link/weights.py'), 'weights')
    assert capsys.readouterr().out.startswith('usage: tools/weights.py ')
    assert sys.path == before[2:]


def test_every_tool_runs_a_command(root):
    tools = sorted((root / 'tools').glob('*.py'))
    calls = [ast.parse(path.read_text()).body[-1].body[0].value for path in tools]
    assert len(calls) > 10
    for path, call in zip(tools, calls):
        name, *words = (argument.value for argument in call.args[1:])
        assert name in NAMES
        assert path.stem == '_'.join([name, *words]).replace('-', '_')


# Errors


@pytest.fixture
def converting(monkeypatch, command):
    """Runs a command in which an error is raised; where it seems to come from does not count."""

    def run(error, *options):
        def fail(*args):
            raise error

        code = compile('def convert(*args):\n    fail()', '/clone/fasternet_mm/weights/conversion.py', 'exec')
        scope = dict(fail=fail)
        exec(code, scope)
        monkeypatch.setattr('fasternet_mm.weights.conversion.convert', scope['convert'])
        return command('weights', 'convert', 'a.pth', 'b.pth', *options)

    return run


@pytest.mark.parametrize('error', [UserError('name another'), InvalidArgument('name another')])
def test_a_mistake_of_the_users_is_one_sentence(error, converting):
    done = converting(error)
    assert (done.returncode, done.stderr) == (2, 'fasternet-mm weights: error: name another\n')


def test_what_happened_to_the_machine_is_one_sentence_with_another_status(converting):
    done = converting(RunError('the disk is full'))
    assert (done.returncode, done.stderr) == (1, 'fasternet-mm weights: error: the disk is full\n')


@pytest.mark.parametrize('error', [ValueError('a bug'), RuntimeError('a bug'), KeyError('a bug'), OSError('a bug')])
def test_a_bug_is_no_mistake_of_the_users(error, converting):
    with pytest.raises(type(error), match='a bug'):
        converting(error)


def test_debug_shows_the_traceback_of_a_mistake(monkeypatch, command):
    with pytest.raises(UserError):
        command('weights', '--debug', 'convert', 'nowhere.pth', 'b.pth')


def test_ctrl_c_has_the_shells_status(converting):
    done = converting(KeyboardInterrupt())
    assert (done.returncode, done.stderr) == (130, '')


def test_a_broken_pipe_that_is_not_the_output_is_shown(converting):
    with pytest.raises(BrokenPipeError):
        converting(BrokenPipeError())


def test_output_that_nobody_reads_ends_quietly(root):
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, '-m', 'fasternet_mm', '--print-completion', 'bash']
    done = subprocess.run(words, stdout=write, stderr=subprocess.PIPE, text=True, cwd=root)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, '')


# Completion


@pytest.mark.parametrize(
    ('line', 'completions'),
    [
        ('fasternet-mm tr', {'train'}),
        ('fasternet-mm plot-log --tr', {'--transparent'}),
        ('fasternet-mm train shapes/', {name for name in config_names() if name.startswith('shapes/')}),
        ('fasternet-mm test work_d', {'work_dirs/'}),
        ('fasternet-mm weights ins', {'inspect'}),
    ],
)
def test_the_tab_key_completes_commands_options_configs_and_folders(line, completions, tmp_path):
    (tmp_path / 'work_dirs').mkdir()
    asked = dict(_ARGCOMPLETE='1', _ARGCOMPLETE_SHELL='bash', COMP_LINE=line, COMP_POINT=str(len(line)))
    asked |= dict(_ARGCOMPLETE_STDOUT_FILENAME=str(tmp_path / 'answer'), _ARGCOMPLETE_IFS='\n')
    script = 'from fasternet_mm.cli import main; main()'
    subprocess.run([sys.executable, '-c', script], env={**os.environ, **asked}, cwd=tmp_path, check=True)
    assert {answer.strip() for answer in (tmp_path / 'answer').read_text().splitlines()} == completions


def test_shells_are_told_how_to_complete(command):
    assert 'fasternet-mm' in command('--print-completion', 'bash').stdout


def test_the_least_size_is_the_networks():
    assert SMALLEST_SIDE == MIN_INPUT_SIZE
