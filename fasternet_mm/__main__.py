"""``python -m fasternet_mm``: the command ``fasternet-mm``."""

from .cli import main

if __name__ == '__main__':
    main(prog='python -m fasternet_mm')
