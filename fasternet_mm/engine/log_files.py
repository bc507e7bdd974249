"""Logs on a disk that may be full: a line that cannot be written ends no training."""

from __future__ import annotations

import logging
import os
import sys
from functools import cache, partial
from typing import Any

from mmengine.visualization import LocalVisBackend as MMEngineLocalVisBackend

from ..registry import VISBACKENDS


@VISBACKENDS.register_module()
class LocalVisBackend(MMEngineLocalVisBackend):
    """MMEngine's backend, with the same arguments, which ends the training where a figure cannot be written.

    Here the figures of that step are missing in its files, and one line says so.
    """

    def _dump(self, value_dict: dict[str, Any], file_path: str, file_format: str) -> None:
        size = os.path.getsize(file_path) if os.path.exists(file_path) else None
        try:
            super()._dump(value_dict, file_path, file_format)
        except OSError as error:
            if size is not None:
                os.truncate(file_path, size)  # half a line would spoil the next one
            _tell(file_path, error.strerror)


def survive_full_disk(logger: logging.Logger) -> None:
    """Have a run's logger say once that its file cannot be written, where logging shows a traceback for each line."""
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = partial(_tell_failure, handler)


def _tell_failure(handler: logging.FileHandler, record: logging.LogRecord) -> None:
    error = sys.exc_info()[1]
    if isinstance(error, OSError):
        _tell(handler.baseFilename, error.strerror)
    else:
        logging.Handler.handleError(handler, record)


@cache  # so that each reason is told once
def _tell(file: str, reason: str) -> None:
    print(f'{file} cannot be written ({reason}): training goes on, and lines of it may be missing', file=sys.stderr)
