"""The command ``fasternet-mm prepare ade20k``."""

from fasternet_mm.cli import run_tool

if __name__ == '__main__':
    run_tool(__file__, 'prepare', 'ade20k')
