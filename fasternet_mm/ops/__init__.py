"""MMCV's operators where MMCV came without its compiled ones.

MMDetection needs ``mmcv.ops``, which needs the compiled module ``mmcv._ext``. Neither ``mmcv-lite`` nor an ``mmcv``
that was installed beside a current PyTorch brings it, and it does not compile there. `mmcv_ext` takes its place, on
TorchVision's kernels, until MMCV releases wheels for current PyTorch.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path


class _MMCVExtFinder:
    """Finds ``mmcv._ext`` after every other finder has failed, so a compiled one always goes first."""

    @staticmethod
    def find_spec(fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname != 'mmcv._ext':
            return None
        return importlib.util.spec_from_file_location(fullname, Path(__file__).with_name('mmcv_ext.py'))


def provide_mmcv_ext() -> None:
    """Let ``import mmcv._ext`` find `mmcv_ext` where MMCV has no compiled operators. Safe to call again."""
    if _MMCVExtFinder not in sys.meta_path:
        sys.meta_path.append(_MMCVExtFinder)
