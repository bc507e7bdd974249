"""Where a server or the page listens."""

from __future__ import annotations

import socket

from ..errors import UserError


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: the address.
        port: 0 for any that is free.

    Raises:
        UserError: host and port cannot be listened on.
    """
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ':' in host else socket.AF_INET, backlog=128
        )
    except OSError as error:
        reason = error.strerror.partition(' (')[0]  # in some releases of Python the address comes once more
        place = f'{host}, port {port},' if port else host
        raise UserError(f'{place} cannot be listened on ({reason}): name another --port or --host') from error
