"""Many visitors one after the other: neither memory nor disk keeps them all. ``make test-page``."""

import gc
import os
from pathlib import Path

from page_visitors import StandIn, png, upload, visit

from fasternet_mm.serving.gradio_page import KEPT_SESSIONS, open_page

GROWTH = 20
"""Megabytes that the process may grow by in 200 uploads, each of which has 3 MB of pixels."""


def resident():
    """Memory of this process, in units of 10^6 bytes."""
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 1e6


def test_memory_and_disk_are_flat_after_200_uploads():
    with open_page(StandIn(), 'stand-in') as address:
        address = address.rstrip('/')
        folder = Path(upload(address, 'first.png', png())).parent.parent
        for number in range(KEPT_SESSIONS + 20):
            visit(address, 'image.png', png(1000, 1000, red=number))
        gc.collect()
        before, kept = resident(), len([*folder.glob('upload-*')])
        for number in range(200):
            visit(address, 'image.png', png(1000, 1000, red=number))
        gc.collect()
        growth = resident() - before
        print(f'{growth:+.1f} MB in 200 uploads, at {before:.0f} MB')
        assert len([*folder.glob('upload-*')]) == kept <= KEPT_SESSIONS + 1
        assert growth < GROWTH
