"""A machine learning backend for Label Studio: a trained detector labels images, and a person corrects them.

Example:
    python examples/label_studio/label_studio_backend.py work_dirs/mine --label-studio http://localhost:8080

The README beside this file has the whole walk. The protocol is that of Label Studio 1.x: GET /health, POST /setup,
POST /predict and POST /webhook, in JSON.
"""

from __future__ import annotations

import argparse
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urljoin, urlsplit
from urllib.request import Request as UrlRequest
from urllib.request import urlopen
from xml.etree.ElementTree import ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fasternet_mm.annotation_formats.mask_outlines import one_polygon
from fasternet_mm.errors import UserError
from fasternet_mm.inference import Prediction, Predictor

MAX_BYTES = 100_000_000
"""The largest image that is fetched."""

TIMEOUT = 30
"""Seconds that Label Studio may take to send an image."""

log = logging.getLogger('label_studio_backend')


@dataclass(frozen=True)
class Control:
    """The tag of a project's labeling interface that is filled in.

    Attributes:
        kind: 'rectanglelabels' or 'polygonlabels'.
        name: that of the tag.
        image: the name of the tag of the image.
        key: of the image's address in a task's data.
        labels: the project's labels.
    """

    kind: str
    name: str
    image: str
    key: str
    labels: frozenset[str]


def find_control(label_config: str) -> Control:
    """The control for outlines, or else that for boxes, of a labeling interface.

    Raises:
        UserError: it is not XML, or has none of them.
    """
    try:
        root = fromstring(label_config)
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise UserError(f'the labeling interface is not XML ({error}): save it again in the project') from error
    keys = {tag.get('name'): tag.get('value', '').lstrip('$') for tag in root.iter('Image')}
    for kind in ('PolygonLabels', 'RectangleLabels'):
        for tag in root.iter(kind):
            if tag.get('toName') in keys:
                labels = frozenset(label.get('value', '') for label in tag.iter('Label'))
                return Control(kind.lower(), tag.get('name', ''), tag.get('toName'), keys[tag.get('toName')], labels)
    raise UserError('the labeling interface has no RectangleLabels or PolygonLabels for an Image: add one')


def to_regions(prediction: Prediction, control: Control) -> list[dict[str, Any]]:
    """The objects whose classes are labels of the project as Label Studio's regions, in percent of the image.

    Where outlines are asked for, an object without a mask is the four corners of its box.
    """
    image = prediction.to_labeled_image('')
    height, width = image.size
    regions = []
    for number, obj in enumerate(image.objects):
        name = prediction.classes[obj.label]
        if name not in control.labels:
            continue
        x, y, w, h = obj.box
        if control.kind == 'polygonlabels':
            corners = [x, y, x + w, y, x + w, y + h, x, y + h]
            polygon = one_polygon(obj.segmentation or [corners], image.size)
            points = [[100 * a / width, 100 * b / height] for a, b in zip(polygon[::2], polygon[1::2])]
            value = dict(points=points, closed=True)
        else:
            value = dict(
                x=100 * x / width, y=100 * y / height, width=100 * w / width, height=100 * h / height, rotation=0
            )
        regions.append(
            dict(
                id=f'found{number}',
                type=control.kind,
                from_name=control.name,
                to_name=control.image,
                original_width=width,
                original_height=height,
                image_rotation=0,
                value=value | {control.kind: [name]},
                score=obj.score,
            )
        )
    return regions


class Backend:
    """The answers to Label Studio's requests.

    Args:
        predictor: a `Predictor`, or what takes an image's bytes and gives a `Prediction` as it does.
        fetch: gives the bytes of the image at an address of a task.
        version: the model's name, which Label Studio shows beside what it found.
        score_thr: objects below it are left out.
    """

    def __init__(
        self, predictor: Callable[[bytes], Prediction], fetch: Callable[[str], bytes], version: str, score_thr: float
    ) -> None:
        self.predictor, self.fetch, self.version, self.score_thr = predictor, fetch, version, score_thr
        self.lock = threading.Lock()  # one image at a time: requests come in threads

    def app(self) -> Starlette:
        routes = [
            Route('/', self.health),
            Route('/health', self.health),
            Route('/setup', self.setup, methods=['POST']),
            Route('/predict', self.predict, methods=['POST']),
            Route('/webhook', self.webhook, methods=['POST']),
        ]
        return Starlette(routes=routes, exception_handlers={UserError: _bad_request})

    async def health(self, request: Request) -> JSONResponse:
        return JSONResponse(dict(status='UP', model_class='fasternet-mm'))

    async def setup(self, request: Request) -> JSONResponse:
        """Label Studio connects, or the labeling interface has changed."""
        content = await _json(request)
        find_control(str(content.get('schema', '')))
        return JSONResponse(dict(model_version=self.version))

    async def predict(self, request: Request) -> JSONResponse:
        content = await _json(request)
        control = find_control(str(content.get('label_config', '')))
        tasks = content.get('tasks')
        if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
            raise UserError('tasks: a list of tasks is needed')
        results = [await run_in_threadpool(self.predict_task, task, control) for task in tasks]
        return JSONResponse(dict(results=results, model_version=self.version))

    async def webhook(self, request: Request) -> JSONResponse:
        """What people do in Label Studio; nothing is trained by it."""
        return JSONResponse({}, status_code=201)

    def predict_task(self, task: dict[str, Any], control: Control) -> dict[str, Any]:
        """The prediction for a task; empty where its image cannot be had, so that the other tasks keep theirs."""
        regions = []
        try:
            address = (task.get('data') or {}).get(control.key)
            image = self.fetch(str(address))
            with self.lock:
                regions = to_regions(self.predictor(image).above(self.score_thr), control)
        except UserError as error:
            log.warning('task %s is left out: %s', task.get('id'), error)
        scores = [region['score'] for region in regions]
        score = sum(scores) / len(scores) if scores else 0.0
        return dict(result=regions, score=score, model_version=self.version)


async def _json(request: Request) -> dict[str, Any]:
    try:
        content = await request.json()
    except ValueError as error:
        raise UserError(f'the request is not JSON ({error})') from error
    if not isinstance(content, dict):
        raise UserError('the request is JSON, but no object')
    return content


async def _bad_request(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse(dict(error=str(error)), status_code=400)


def fetch_from(label_studio: str, token: str) -> Callable[[str], bytes]:
    """A function that gets images from Label Studio, and from nowhere else: a task may name any address.

    Args:
        label_studio: its address, such as 'http://localhost:8080'.
        token: the access token of an account that may see the project.
    """

    def fetch(address: str) -> bytes:
        url = urljoin(label_studio, address)
        if urlsplit(url)[:2] != urlsplit(label_studio)[:2]:
            raise UserError(f'{address} is not an image that {label_studio} serves: upload it, or use a local storage')
        request = UrlRequest(url)
        if token:
            request.add_unredirected_header('Authorization', f'Token {token}')  # for nobody else
        try:
            with urlopen(request, timeout=TIMEOUT) as answer:
                content = answer.read(MAX_BYTES + 1)
        except (URLError, OSError, ValueError) as error:
            raise UserError(
                f'{url} cannot be fetched ({error}): check --label-studio and LABEL_STUDIO_API_KEY'
            ) from error
        if len(content) > MAX_BYTES:
            raise UserError(f'{url} has more than {MAX_BYTES:,} bytes')
        return content

    return fetch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', metavar='WORK_DIR', help='work directory of a training, or an exported file')
    parser.add_argument('--label-studio', default='http://localhost:8080', metavar='URL', help='default: %(default)s')
    parser.add_argument('--score-thr', type=float, default=0.3, help='leave out objects below it; default: 0.3')
    parser.add_argument('--host', default='127.0.0.1', help='address to listen at; default: this machine alone')
    parser.add_argument('--port', type=int, default=9090, help='default: 9090')
    args = parser.parse_args()
    import uvicorn

    try:
        predictor = Predictor(args.model)
    except UserError as error:
        parser.error(str(error))
    if predictor.is_segmenter:
        parser.error(f'{args.model} labels pixels: give a detector')
    fetch = fetch_from(args.label_studio, os.environ.get('LABEL_STUDIO_API_KEY', ''))
    backend = Backend(predictor, fetch, Path(args.model).name, args.score_thr)
    uvicorn.run(backend.app(), host=args.host, port=args.port)


if __name__ == '__main__':
    main()
