"""A model in seconds, and what visitors of the page send, by the protocol that Gradio's page in a browser speaks."""

import io
import json
from uuid import uuid4

import httpx
import numpy as np
from PIL import Image

from fasternet_mm.inference.prediction import Prediction

UPLOADED, THEN_SHOWN = 0, 1
"""Numbers of the page's first two events: a file is sent, and what was found is drawn."""


class StandIn:
    """In the place of a predictor: finds two circles and a ring in any image, and counts its calls.

    The ring is as high as the image's first pixel is red, which tells one visitor's image from another's.
    """

    classes = ('circle', 'ring')
    is_segmenter = False
    device = 'cpu'

    def __init__(self):
        self.calls = 0

    def __call__(self, image):
        self.calls += 1
        return Prediction(
            image=image[..., ::-1],
            source='',
            classes=self.classes,
            palette=((230, 60, 60), (40, 190, 200)),
            category_ids=[1, 2],
            boxes=np.array([[10, 10, 40, 30], [0, 0, 20, image[0, 0, 2]], [30, 30, 50, 50]], np.float32),
            scores=np.array([0.9, 0.6, 0.2], np.float32),
            labels=np.array([0, 1, 0]),
        )


def png(height=120, width=160, red=50):
    return encoded(Image.fromarray(np.full((height, width, 3), (red, 80, 110), np.uint8)), 'PNG')


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def upload(address, name, content):
    """The path that the file has on the server."""
    answer = httpx.post(f'{address}/gradio_api/upload', files=dict(files=(name, content)), timeout=60)
    answer.raise_for_status()
    return answer.json()[0]


def request(address, session, number, data):
    """The answer to an event, which may fail."""
    body = dict(data=data, fn_index=number, session_hash=session)
    joined = httpx.post(f'{address}/gradio_api/queue/join', json=body, timeout=60)
    joined.raise_for_status()
    options = dict(params=dict(session_hash=session), timeout=60)
    with httpx.stream('GET', f'{address}/gradio_api/queue/data', **options) as answer:
        for line in answer.iter_lines():
            message = json.loads(line.removeprefix('data: ')) if line else {}
            if message.get('msg') == 'process_completed':
                return message
    raise AssertionError('no answer')


def sent_file(path):
    return dict(path=path, meta={'_type': 'gradio.FileData'})


def visit(address, name, content):
    """What the page offers a new visitor for an image: the content of its COCO file."""
    session = uuid4().hex
    sent = request(address, session, UPLOADED, [sent_file(upload(address, name, content))])
    assert sent['success'], sent
    shown = request(address, session, THEN_SHOWN, [None, 0.3, []])
    assert shown['success'], shown
    file = shown['output']['data'][-1]['value']['path']
    return httpx.get(f'{address}/gradio_api/file={file}', timeout=60).json()
