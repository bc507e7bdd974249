"""What a web page of Gradio's answers: what its own page asks for, and nothing else that Gradio could."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ANSWERED = re.compile(
    r'/|/(config|theme\.css|favicon\.ico|manifest\.json|robots\.txt)/?|/(assets|static|svelte)/.*'
    r'|/gradio_api/(upload|upload_progress|queue/join|queue/data|cancel|reset|app_id|startup-events)/?'
    r'|/gradio_api/(file=|heartbeat/).*'
)
"""Paths that the page in a browser asks for. Gradio has more, such as one that fetches other hosts' files."""

EVENT_BYTES = 100_000
"""The largest request but for uploads: a moved slider takes a few hundred bytes."""

FORM_BYTES = 10_000
"""What a form may have around the file that is uploaded with it."""

POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'; form-action 'self'; "
    "object-src 'none'; base-uri 'self'"
)
"""The browser fetches from no other host. Gradio's own page has scripts and styles in its text, and compiles some."""


class Guard:
    """A layer around an app of Gradio's (ASGI) that refuses what its page does not send.

    Requests with a body must tell its size. Where Gradio takes the place of a file, that may not be a URL, which it
    would fetch.

    Args:
        app: what answers.
        file_bytes: of the largest file that may be uploaded.
    """

    def __init__(self, app: ASGIApp, file_bytes: int) -> None:
        self.app, self.file_bytes = app, file_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope['type'] == 'lifespan':
            await self.app(scope, receive, send)
            return
        if scope['type'] != 'http' or not ANSWERED.fullmatch(scope['path']):
            await PlainTextResponse('not found', 404)(scope, receive, send)
            return
        if scope['method'] == 'POST':
            is_upload = scope['path'].startswith('/gradio_api/upload')
            most = self.file_bytes + FORM_BYTES if is_upload else EVENT_BYTES
            length = Headers(scope=scope).get('content-length', '')
            if not length.isdecimal():
                await PlainTextResponse('tell the size of what you send (Content-Length)', 411)(scope, receive, send)
                return
            if int(length) > most:
                await PlainTextResponse(f'more than {most} bytes: send less', 413)(scope, receive, send)
                return
            if not is_upload:
                body = await _body(receive)
                if not _names_no_url(body):
                    await PlainTextResponse('files are uploaded, not named by a URL', 400)(scope, receive, send)
                    return
                receive = _again(body, receive)

        async def send_with_policy(message: Message) -> None:
            if message['type'] == 'http.response.start':
                headers = [(b'content-security-policy', POLICY.encode()), (b'referrer-policy', b'no-referrer')]
                message = {**message, 'headers': [*message.get('headers', ()), *headers]}
            await send(message)

        await self.app(scope, receive, send_with_policy)


async def _body(receive: Receive) -> bytes:
    body, more = b'', True
    while more:
        message = await receive()
        body += message.get('body', b'')
        more = message.get('more_body', False)
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that gives a body that was read already, and then what comes after it."""
    messages: list[Message] = [dict(type='http.request', body=body, more_body=False)]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def _names_no_url(body: bytes) -> bool:
    """Whether no file in a body of JSON is at a URL."""
    try:
        waiting: list[Any] = [json.loads(body or b'null')]
    except (ValueError, RecursionError):
        return False
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            path = value.get('path')
            if isinstance(path, str) and '://' in path:
                return False
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return True
