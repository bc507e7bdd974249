"""The command ``fasternet-mm predict``, under the name that OpenMMLab's users know."""

from fasternet_mm.cli import run_tool

if __name__ == '__main__':
    run_tool(__file__, 'predict')
