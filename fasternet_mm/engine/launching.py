"""torchrun for ``tools/dist_train.sh``, that passes SIGUSR1 on too, and ends with the status of the training.

torchrun itself ends by SIGUSR1 at once, and after other signals and failures with status 1 and a traceback of its own
below that of the process that failed.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from types import FrameType

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from ..signals import exit_status


def main(argv: Sequence[str]) -> None:
    """Start the processes, and wait for them.

    Args:
        argv: of torchrun: options and a command.

    Raises:
        SystemExit: a signal or a process ended it; the status is that of the process that ended first.
    """
    if hasattr(signal, 'SIGUSR1'):
        signal.signal(signal.SIGUSR1, _end)
    try:
        run.main(list(argv))
    except SignalException as end:
        sys.exit(exit_status(end.sigval))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        sys.exit(failure.exitcode if failure.exitcode > 0 else exit_status(-failure.exitcode))


def _end(number: int, frame: FrameType | None) -> None:
    raise SignalException(f'{signal.Signals(number).name} came', signal.Signals(number))


if __name__ == '__main__':
    main(sys.argv[1:])
