"""The command ``fasternet-mm prepare coco``."""

from fasternet_mm.cli import run_tool

if __name__ == '__main__':
    run_tool(__file__, 'prepare', 'coco')
