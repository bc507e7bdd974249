"""Completion of commands, options, configs and files by the Tab key, in bash, zsh, fish and PowerShell.

The shell runs the command itself at each Tab (argcomplete), so that names of configs are those of the installed
package. Nothing heavy is imported.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import argcomplete


def script(shell: str) -> str:
    """What a shell must evaluate, once, so that the Tab key completes."""
    return argcomplete.shellcode(['fasternet-mm'], shell=shell)


def complete(commands: Mapping[str, argparse.ArgumentParser]) -> None:
    """Answer the shell and end the process; nothing happens where no shell asks.

    Args:
        commands: the parsers of all commands.
    """
    parser = argparse.ArgumentParser()
    names = parser.add_subparsers()
    for name, command in commands.items():
        names.add_parser(name, parents=[command], add_help=False)
    argcomplete.autocomplete(parser)
