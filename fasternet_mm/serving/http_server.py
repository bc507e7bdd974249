"""A trained model behind HTTP: images come by POST, predictions go back."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

import jinja2
import uvicorn
from anyio import fail_after, move_on_after
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Message

from ..errors import RunError, UserError
from ..inference.prediction import Prediction
from ..inference.predictor import Predictor
from .answers import Options, as_json, drawing_png, label_map_png
from .http_protocol import HttpProtocol
from .listening import listen
from .metrics import ServerMetrics
from .openapi import openapi_document
from .sharing import Busy, SharedPredictor
from .uploads import Limits, UploadTooLarge, check_bytes, read_upload

ENVELOPE = 64 * 1024
"""Bytes that a body may have beyond its file: what multipart puts around it."""

RECEIVING_SECONDS = 30
"""The time that a body may take to arrive, so that nobody holds a place for longer."""

DISCARDED = 10
"""A refused body of up to this many times the largest one is still taken in, and dropped, since many clients read no
answer before they have sent all. Above it, the connection is closed."""

ENDING_SECONDS = 60
"""The time that requests have for their end once the server is to end."""


class PredictionServer:
    """The HTTP application for a predictor.

    Args:
        predictor: what answers; it is used by nobody else.
        limits: of images.
        places: see `SharedPredictor`.
    """

    def __init__(self, predictor: Predictor, limits: Limits, places: int) -> None:
        self.limits = limits
        self.metrics = ServerMetrics()
        self.shared = SharedPredictor(predictor, places, self.metrics)
        self.classes, self.is_segmenter = predictor.classes, predictor.is_segmenter
        self.document = openapi_document(self.classes, self.is_segmenter, limits, RECEIVING_SECONDS)
        answers = {'/predict': _json_answer, '/drawing': _png_answer(drawing_png)}
        if self.is_segmenter:
            answers['/label-map'] = _png_answer(label_map_png)
        self.app = Starlette(
            routes=[
                *(Route(path, partial(self._answer, make=make), methods=['POST']) for path, make in answers.items()),
                Route('/health', lambda request: JSONResponse(dict(status='ok'))),
                Route(
                    '/metrics', lambda request: Response(self.metrics.text(), media_type='text/plain; version=0.0.4')
                ),
                Route('/openapi.json', lambda request: JSONResponse(self.document)),
                Route('/docs', self._docs),
                Route('/', lambda request: RedirectResponse('/docs')),
            ],
            exception_handlers={HTTPException: self._refuse_request, Exception: _tell_failure},
            lifespan=self._running,
        )

    @asynccontextmanager
    async def _running(self, app: Starlette) -> AsyncIterator[None]:
        async with self.shared.running():
            yield

    async def _answer(self, request: Request, make: Callable[[Prediction], Response]) -> Response:
        started = perf_counter()
        body = _Body(request, self.limits)
        try:
            with self.shared.place():
                options = Options.of(request.query_params, self.classes, self.is_segmenter)
                content = await body.file()
                response = await self.shared.predict(
                    read=partial(read_upload, content, self.limits),
                    answer=lambda prediction: make(options.select(prediction)),
                )
            self.metrics.request_seconds.labels(request.url.path).observe(perf_counter() - started)
        except (UserError, RunError) as error:
            response = _refusal(error, close=not await body.discard())
        except ClientDisconnect:
            response = Response(status_code=499)  # as nginx counts it: nobody reads this
        self.metrics.requests.labels(request.url.path, response.status_code).inc()
        return response

    def _docs(self, request: Request) -> Response:
        environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
        page = environment.from_string(Path(__file__).with_name('api.html').read_text('utf-8'))
        return HTMLResponse(page.render(api=self.document, host=request.url.netloc))

    def _refuse_request(self, request: Request, error: HTTPException) -> Response:
        paths = ', '.join(self.document['paths'])
        sentences = {
            404: f'there is no {request.url.path}: the server has {paths}',
            405: f'{request.url.path} does not take {request.method}: see /docs',
        }
        sentence = sentences.get(error.status_code, error.detail)
        return JSONResponse(dict(error=sentence), error.status_code, headers=error.headers)


def _json_answer(prediction: Prediction) -> Response:
    return JSONResponse(as_json(prediction))


def _png_answer(make: Callable[[Prediction], bytes]) -> Callable[[Prediction], Response]:
    return lambda prediction: Response(make(prediction), media_type='image/png')


class Late(UserError):
    """A body did not arrive in time."""


class _Body:
    """The body of a request, of which no more is kept than an image may have."""

    def __init__(self, request: Request, limits: Limits) -> None:
        self.limits, self.largest = limits, limits.bytes + ENVELOPE
        self._receive, self._size, self._ended = request.receive, 0, False
        length = request.headers.get('content-length', '')
        self._length = int(length) if length.isdecimal() else None
        self._request = Request(request.scope, self._receive_limited)

    async def file(self) -> bytes:
        """The one file in a body of multipart/form-data, whatever its field's name; else the body itself.

        Raises:
            UploadTooLarge: more than `largest` bytes came, or are to come.
            UserError: the time was over, or multipart has something else than one file.
        """
        if (self._length or 0) > self.largest:
            check_bytes(self._length, self.limits)
        try:
            with fail_after(RECEIVING_SECONDS):
                content = await self._request.body()
                if not self._request.headers.get('content-type', '').lower().startswith('multipart/'):
                    return content
                async with self._request.form(max_files=1, max_fields=0) as form:
                    files = [await file.read() for file in form.values()]
        except TimeoutError as error:
            raise Late(f'the image did not arrive within {RECEIVING_SECONDS} seconds: send it faster') from error
        except HTTPException as error:
            raise UserError(
                f'the form is not one file ({error.detail}): send it as "curl -F image=@FILE" does'
            ) from error
        if not files:
            raise UserError('the form has no file: send one as "curl -F image=@FILE" does')
        return files[0]

    async def discard(self) -> bool:
        """Drop what is left of the body, if that is not too much. Returns whether nothing is left."""
        most = DISCARDED * self.largest
        waits = not self._size and 'expect' in self._request.headers  # it sends nothing before it is told to
        if waits or (self._length or 0) > most:
            return self._ended
        with move_on_after(RECEIVING_SECONDS):
            while not self._ended and self._size <= most:
                await self._receive_more()
        return self._ended

    async def _receive_limited(self) -> Message:
        message = await self._receive_more()
        if self._size > self.largest:
            check_bytes(self._size, self.limits)
        return message

    async def _receive_more(self) -> Message:
        message = await self._receive()
        self._size += len(message.get('body', b''))
        self._ended = not message.get('more_body', False)  # at its end, and where the client is gone
        return message


def _refusal(error: UserError | RunError, close: bool) -> Response:
    statuses = {UploadTooLarge: 413, Late: 408, Busy: 503, RunError: 500}
    headers = {
        **({'Connection': 'close'} if close else {}),
        **({'Retry-After': '1'} if isinstance(error, Busy) else {}),
    }
    return JSONResponse(dict(error=str(error)), statuses.get(type(error), 400), headers=headers)


def _tell_failure(request: Request, error: Exception) -> Response:
    """What uvicorn's log tells in full."""
    return JSONResponse(dict(error=f'the server failed ({type(error).__name__}): its log tells more'), 500)


def serve(predictor: Predictor, host: str, port: int, limits: Limits, places: int) -> None:
    """Answer until SIGINT or SIGTERM, and then what was accepted before.

    Args:
        predictor: what answers.
        host: address to listen on.
        port: 0 for any that is free.
        limits: of images.
        places: how many requests are held at a time; others are answered with status 503.

    Raises:
        UserError: host and port cannot be listened on.
    """
    listener = listen(host, port)
    config = uvicorn.Config(
        PredictionServer(predictor, limits, places).app,
        http=HttpProtocol,
        log_level='warning',
        server_header=False,
        ws='none',
        timeout_graceful_shutdown=ENDING_SECONDS,
    )
    server = uvicorn.Server(config)
    _tell_address(listener)
    try:
        server.run([listener])
    except (KeyboardInterrupt, SystemExit):  # uvicorn repeats the signal that ended it, once all is answered
        if server.force_exit or not server.should_exit:
            raise


def _tell_address(listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f'http://[{host}]:{port}' if ':' in host else f'http://{host}:{port}'
    print(f'serving: {address}  (how to ask: {address}/docs; Ctrl-C ends it)')
    print(f'try:     curl {address}/predict -F image=@street.jpg', flush=True)
