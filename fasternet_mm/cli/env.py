"""Show versions, device, and what is wrong with the installation. It works whatever is missing or broken."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path

from ..extras import EXTRAS
from ..version import __version__
from .parsing import command_parser

EPILOG = """examples:
  fasternet-mm env            what is installed, on which device it runs, and what to mend
  fasternet-mm env --json     the same for a bug report

The exit status is 1 where something must be mended, else 0.
"""

DISTRIBUTION = 'fasternet-mm'

OPENMMLAB = 'mmengine', 'mmcv', 'mmdet', 'mmseg'
"""Libraries that OpenMMLab and OneDL publish under the same import names; an extra of ours brings either's."""

LIBRARIES = 'torch', 'torchvision', *OPENMMLAB, 'numpy', 'cv2'
"""The libraries that everything needs, as they are imported."""

REASONS = {'setuptools': ' (newer ones lack pkg_resources, which MMEngine imports)'}
"""Why a distribution must not be newer, where its own error message would not say it."""


def arguments(prog: str | None = None) -> argparse.ArgumentParser:
    result = command_parser(prog, 'Show versions, device, and what is wrong with the installation.', EPILOG)
    result.add_argument('--json', action='store_true', help='print JSON')
    return result


def main(args: argparse.Namespace) -> None:
    facts, problems = describe()
    if args.json:
        print(json.dumps({**facts, 'problems': problems}, indent=1))
    else:
        width = max(map(len, facts)) + 2
        lines = [f'{name:{width}}{value}' for name, value in facts.items()]
        conclusion = ['to mend:', *(f'- {problem}' for problem in problems)] if problems else ['all is well']
        print('\n'.join([*lines, '', *conclusion]))
    sys.exit(bool(problems))


def describe() -> tuple[dict[str, str], list[str]]:
    """Facts by their names, and sentences on what is wrong and how to mend it."""
    providers = importlib.metadata.packages_distributions()
    stack = 'onedl' if any(name.startswith('onedl-') for names in providers.values() for name in names) else 'openmmlab'
    problems = [*_doubled(providers), *_outside_ranges(stack)]
    facts = {
        'fasternet-mm': f'{__version__} in {Path(__file__).parent.parent}',
        'Python': f'{platform.python_version()} in {sys.prefix}',
        'system': platform.platform(),
        'CPU': _fact(_cpu),
    }
    for name in LIBRARIES:
        facts[name] = _library(name, sorted(set(providers.get(name, []))), stack, problems)
    facts["mmcv's operators"] = _operators(problems)
    facts['GPU'] = _fact(_gpu)
    facts['precision'] = _fact(_precision)
    for extra in sorted(set(EXTRAS.values())):
        facts[f'extra {extra}'] = _fact(_extra, extra)
    facts['downloads'] = _fact(_downloads)
    return facts, problems


def _fact(find: Callable[..., str], *args: str) -> str:
    try:
        return find(*args)
    except Exception as error:
        return f'unknown ({_sentence(error)})'


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f'{type(error).__name__}: {lines[0]}' if lines else type(error).__name__


def _cpu() -> str:
    from ..cpus import processor_name, usable_cpus

    return f'{processor_name()}, {usable_cpus()} usable, {_fact(_threads)}'


def _threads() -> str:
    threads = importlib.import_module('torch').get_num_threads()
    return '1 thread' if threads == 1 else f'{threads} threads'


def _gpu() -> str:
    from ..devices import device_of_choice, unused_gpu

    torch = importlib.import_module('torch')
    if device_of_choice() == 'cuda':
        return ', '.join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    built_for = f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPUs'
    return unused_gpu() or f'none that PyTorch can use (it is built for {built_for})'


def _precision() -> str:
    from ..acceleration.precision import supported_dtypes
    from ..devices import device_of_choice

    device = device_of_choice()
    return f'{device} computes in ' + ', '.join(str(dtype).removeprefix('torch.') for dtype in supported_dtypes(device))


def _library(name: str, distributions: list[str], stack: str, problems: list[str]) -> str:
    """Version and distribution of a library; what is wrong with it goes to ``problems``."""
    try:
        library = importlib.import_module(name)
    except Exception as error:
        source = f"'{DISTRIBUTION}[{stack}]'" if name in OPENMMLAB else f'--upgrade {DISTRIBUTION}'
        problems.append(f'{name} cannot be imported ({_sentence(error)}): pip install {source}')
        return f'cannot be imported, from {", ".join(distributions)}' if distributions else 'not installed'
    sources = [f'{each} {_fact(importlib.metadata.version, each)}' for each in distributions]
    return f'{getattr(library, "__version__", "no version")} from {", ".join(sources) or "no distribution"}'


def _operators(problems: list[str]) -> str:
    try:
        module = importlib.import_module('mmcv._ext')
    except Exception as error:
        problems.append(
            f"mmcv's operators cannot be loaded ({_sentence(error)}): pip uninstall --yes mmcv mmcv-lite, then pip "
            'install mmcv-lite, for which this package brings them'
        )
        return 'missing'
    ours = Path(module.__file__).is_relative_to(Path(__file__).parent.parent)
    return f'{"of this package" if ours else "compiled, of mmcv"}: {module.__file__}'


def _doubled(providers: dict[str, list[str]]) -> list[str]:
    """Libraries that two distributions have written into one folder, so that neither is whole."""
    problems = []
    for name in LIBRARIES:
        both = sorted(set(providers.get(name, [])))
        if len(both) > 1:
            uninstall = f'pip uninstall --yes {" ".join(both)}'
            problems.append(f'{" and ".join(both)} overwrite each other: {uninstall}, then install one of them')
    return problems


def _outside_ranges(stack: str) -> list[str]:
    """Distributions that are missing, or outside the versions that this package's metadata accept.

    Args:
        stack: the extra that says which of OpenMMLab's or of OneDL's are accepted.
    """
    try:
        from packaging.requirements import Requirement

        requirements = [Requirement(text) for text in importlib.metadata.requires(DISTRIBUTION) or []]
    except Exception as error:
        return [f'the versions that are needed cannot be read ({_sentence(error)}): pip install {DISTRIBUTION}']
    problems = []
    for requirement in requirements:
        if requirement.marker and not requirement.marker.evaluate({'extra': stack}):
            continue
        mend = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            problems.append(f'{requirement.name} is not installed: {mend}')
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            reason = REASONS.get(requirement.name, '')
            problems.append(f'{requirement.name} is {version}, which is not accepted{reason}: {mend}')
    return problems


def _extra(extra: str) -> str:
    packages = [package for package, needed_by in EXTRAS.items() if needed_by == extra]
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        return f"without {', '.join(missing)}; to install: pip install '{DISTRIBUTION}[{extra}]'"
    return ', '.join(f'{package} {_fact(importlib.metadata.version, package)}' for package in packages)


def _downloads() -> str:
    from ..download import cache_path
    from ..weights.catalog import RELEASE

    return f'kept in {cache_path(RELEASE + "name").parent}'
