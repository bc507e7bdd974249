"""A web page to try a model on images and short videos, made of Gradio's widgets."""

from __future__ import annotations

import html
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from gradio.exceptions import ServerFailedToStartError
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ..errors import UserError, few
from ..inference.predictor import Predictor, named_error
from ..visualization.drawing import write_drawing
from .guard import Guard
from .listening import listen
from .predicted_upload import PredictedUpload, predict_upload, view_upload
from .uploads import Limits

THRESHOLD = 0.3
"""The score from which objects are drawn at first, as `Prediction.draw` has it."""

LOCAL_HOSTS = ('127.0.0.1', 'localhost', '::1')
"""Names of this machine under which nobody else reaches it."""

KEPT_SESSIONS = 64
"""Visitors whose last upload is kept; more than may well come at once, and their label maps fit into memory."""

DRAWN_TOGETHER = 4
"""Drawings that are made at a time, so that one of a video does not hold up all others."""

WAITING = 200
"""Requests that may wait for their turn; more are told to try again."""

CLEANING = 60, 3600
"""Every minute, files that were uploaded or shown an hour ago are deleted: a queue of videos may take that long."""

STYLE = """
h1 { overflow-wrap: anywhere; }
.message:not(:has(p)) { display: none; }
.message p { border-left: 4px solid var(--color-accent); padding: 0.5rem 0.75rem; margin: 0; }
.drawing img { width: 100% !important; height: min(60vh, 36rem) !important; object-fit: contain; }
.examples .grid-wrap { min-height: 0 !important; }
.examples .grid-container { grid-template-columns: repeat(auto-fill, minmax(4rem, 1fr)) !important; }
.drawing [data-testid='block-label'] { position: static; } /* above the drawing, whose labels it would hide */
.drawing video { max-height: min(60vh, 36rem); }
:focus-visible { outline: 3px solid var(--color-accent) !important; outline-offset: 2px; }
"""


@contextmanager
def open_page(
    predictor: Predictor,
    model: str,
    host: str = '127.0.0.1',
    port: int | None = None,
    limits: Limits | None = None,
    examples: Sequence[np.ndarray] = (),
) -> Iterator[str]:
    """Serve the page while the context lasts; gives its address.

    What is uploaded and drawn lies in a temporary folder, which is removed at the end.

    Args:
        predictor: the model.
        model: its name, for the heading.
        host: the address to listen at: '0.0.0.0' lets others in. Default: this machine alone.
        port: default: the first that is free from 7860 on.
        limits: what is accepted of uploads. Default: `Limits()`.
        examples: images to click on, uint8 ``(H, W, 3)``, RGB. Default: none.

    Raises:
        UserError: host or port cannot be used.
    """
    limits = limits or Limits()
    listen(host, port or 0).close()  # in vain Gradio would try a hundred ports, five seconds each
    with tempfile.TemporaryDirectory(prefix='fasternet-mm-app-', ignore_cleanup_errors=True) as folder:
        # Gradio takes these from the environment alone. It keeps a record of each of the last 10,000 events, and makes
        # a table of all of them after each event, for its monitoring, which is off.
        os.environ.update(
            GRADIO_TEMP_DIR=folder,
            GRADIO_ANALYTICS_ENABLED='False',
            GRADIO_ANALYTICS_MAX_EVENTS='1',
            GRADIO_ANALYTICS_CACHE_FREQUENCY=str(sys.maxsize),
        )
        page = _build(predictor, model, Path(folder), limits, examples)
        layers = [Middleware(Guard, file_bytes=limits.bytes)]
        if host in LOCAL_HOSTS:  # another site's name that leads here is refused
            layers.append(Middleware(TrustedHostMiddleware, allowed_hosts=['127.0.0.1', 'localhost', '[::1]']))
        page.queue(max_size=WAITING, api_open=False)
        try:
            page.launch(
                server_name=host,
                server_port=port,
                prevent_thread_lock=True,
                share=False,
                quiet=True,
                ssr_mode=False,
                run_history=False,
                footer_links=[],
                max_file_size=limits.bytes,
                state_session_capacity=KEPT_SESSIONS,
                app_kwargs=dict(middleware=layers, docs_url=None, redoc_url=None, openapi_url=None),
                css=STYLE,
            )
        except (OSError, ServerFailedToStartError) as error:
            raise UserError(
                f'the page cannot be opened at {host}:{port or "7860 and above"}: name an address of this machine with '
                '--host and a free --port'
            ) from error
        try:
            yield page.local_url
        finally:
            page.close(verbose=False)


def _build(predictor: Predictor, model: str, folder: Path, limits: Limits, examples: Sequence[np.ndarray]) -> gr.Blocks:
    files = [folder / 'examples' / f'example-{number}.png' for number in range(1, len(examples) + 1)]
    for file, image in zip(files, examples):
        write_drawing(file, image)

    def predict(upload: str | Path | None) -> tuple[Any, str, None]:
        """The answer to keep, the message to show, and an empty place for the next upload."""
        if upload is None:
            return gr.skip(), gr.skip(), None
        try:
            return predict_upload(predictor, Path(upload), folder, limits), '', None
        except Exception as error:  # of the model or a decoder, too: the page goes on
            return gr.skip(), _message(named_error(error, Path(upload).name), Path(upload).name), None

    def predict_example(clicked: gr.SelectData) -> tuple[Any, str, None]:
        return predict(files[clicked.index])

    def show(answer: PredictedUpload | None, threshold: float, classes: Sequence[str]) -> list[Any]:
        if answer is None:  # none was sent, or so many others since
            return [gr.skip(), gr.skip(), 'There is no image to draw on: send one, or send it again.', *[gr.skip()] * 3]
        view = view_upload(answer, threshold, classes, limits)
        is_image = answer.fps is None
        return [
            gr.update(value=view.drawing if is_image else None, visible=is_image),
            gr.update(value=None if is_image else view.drawing, visible=not is_image),
            html.escape(view.summary),
            gr.update(value=view.drawing, label='Download PNG' if is_image else 'Download WebM', interactive=True),
            gr.update(value=view.description, interactive=True),
            gr.update(value=view.exact, interactive=view.exact is not None),
        ]

    with gr.Blocks(title=f'{model} · FasterNet', analytics_enabled=False, delete_cache=CLEANING) as page:
        gr.Markdown(f'# {model}\nIt knows {_known(predictor.classes)}, and runs on {predictor.device}.')
        answer = gr.State()
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                upload = gr.File(label='Image or short video', file_types=['image', 'video'], height=160)
                accepted = (
                    f'At most {limits.megabytes:g} MB: {limits.megapixels:g} megapixels, or ten seconds of video.'
                )
                gr.Markdown(f'{accepted} Or an example:' if files else accepted)
                samples = gr.Gallery(
                    files,
                    label='Examples',
                    show_label=False,
                    elem_classes='examples',
                    columns=6,
                    height='auto',
                    allow_preview=False,
                    interactive=False,
                    buttons=[],
                    visible=bool(files),
                )
            with gr.Column(scale=3, min_width=320):
                message = gr.HTML(elem_classes='message')
                image = gr.Image(
                    label='What the model found',
                    elem_classes='drawing',
                    alt_text='The image with what was found drawn in',
                    interactive=False,
                    buttons=['fullscreen'],
                )
                video = gr.Video(
                    label='What the model found', elem_classes='drawing', visible=False, interactive=False, buttons=[]
                )
                summary = gr.HTML(elem_classes='summary')
                threshold = gr.Slider(
                    0,
                    1,
                    THRESHOLD,
                    step=0.01,
                    label='Threshold: the lowest score to draw',
                    visible=not predictor.is_segmenter,
                )
                classes = gr.Dropdown(
                    [*predictor.classes], value=[], multiselect=True, label='Classes: all where none is chosen'
                )
                with gr.Row():
                    downloads = [
                        gr.DownloadButton(label, interactive=False, size='md', min_width=140)
                        for label in (
                            'Download PNG',
                            'Download JSON',
                            f'Download {"label map" if predictor.is_segmenter else "COCO"}',
                        )
                    ]
        shown = [image, video, summary, *downloads]
        drawing = dict(concurrency_id='drawing', concurrency_limit=DRAWN_TOGETHER, api_visibility='private')
        for trigger, function, source in [
            (upload.upload, predict, upload),
            (samples.select, predict_example, None),
            *([(page.load, lambda: predict(files[0]), None)] if files else []),
        ]:
            trigger(
                function,
                source,
                [answer, message, upload],
                concurrency_id='model',
                concurrency_limit=1,
                api_visibility='private',
            ).then(show, [answer, threshold, classes], shown, **drawing)
        gr.on(
            [threshold.change, classes.change],
            show,
            [answer, threshold, classes],
            shown,
            trigger_mode='always_last',
            show_progress='hidden',
            **drawing,
        )
    return page


def _known(classes: Sequence[str]) -> str:
    return (
        'one class, ' + classes[0] if len(classes) == 1 else f'{len(classes)} classes: {few(classes, 12, counted=True)}'
    )


def _message(error: UserError, name: str) -> str:
    """A sentence about a file of this name, which screen readers tell at once."""
    text = str(error)
    text = text if text.startswith(name) else text[:1].upper() + text[1:]
    return f'<p role="alert">{html.escape(text)}.</p>'
