"""The backend over HTTP, beside a Label Studio that has one image and a model that finds the same in each."""

import importlib.util
import json
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import cv2
import numpy as np
import pytest

from fasternet_mm.datasets.image_reading import read_image
from fasternet_mm.errors import UserError
from fasternet_mm.evaluation.coco_results import encode_masks
from fasternet_mm.inference import Prediction

pytest.importorskip('starlette')
uvicorn = pytest.importorskip('uvicorn')

BOXES = """
<View><Image name="photo" value="$picked"/>
<RectangleLabels name="things" toName="photo"><Label value="cat"/><Label value="traffic light"/></RectangleLabels>
</View>
"""
OUTLINES = BOXES.replace('RectangleLabels', 'PolygonLabels')
TOKEN = 'secret'


@pytest.fixture(scope='module')
def backend_module(root):
    file = root / 'examples/label_studio/label_studio_backend.py'
    spec = importlib.util.spec_from_file_location('label_studio_backend', file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module


class LabelStudio(BaseHTTPRequestHandler):
    """Serves an upload to those who have the token."""

    def do_GET(self):
        allowed = self.headers.get('Authorization') == f'Token {TOKEN}'
        self.send_response(200 if allowed and self.path == '/data/upload/1/a%20b.png' else 404)
        self.end_headers()
        if allowed:
            self.wfile.write(cv2.imencode('.png', np.zeros((40, 80, 3), np.uint8))[1].tobytes())

    def log_message(self, *_):
        pass


@pytest.fixture(scope='module')
def label_studio():
    server = ThreadingHTTPServer(('127.0.0.1', 0), LabelStudio)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_address[1]}'
    server.shutdown()
    server.server_close()


def predict(image):
    """Two confident objects, one of a class that the project has no label for, and an unsure one."""
    pixels = read_image(image)
    masks = np.zeros((4, *pixels.shape[:2]), bool)
    for mask, (left, top, right, bottom) in zip(masks, ((8, 4, 40, 20), (0, 0, 8, 8), (0, 0, 8, 8), (0, 0, 8, 8))):
        mask[top:bottom, left:right] = True
    return Prediction(
        image=pixels,
        source='',
        classes=('dog', 'traffic light', 'cat'),
        palette=[(0, 0, 0)] * 3,
        category_ids=[1, 2, 3],
        boxes=np.array([[8, 4, 40, 20], [0, 0, 8, 8], [0, 0, 8, 8], [60, 30, 80, 40]], np.float32),
        scores=np.array([0.9, 0.8, 0.6, 0.1], np.float32),
        labels=np.array([1, 0, 2, 2]),
        encoded_masks=encode_masks(masks),
    )


@pytest.fixture(scope='module')
def ask(backend_module, label_studio):
    """A function that sends a request to the backend, and gives the status and the JSON of its answer."""
    fetch = backend_module.fetch_from(label_studio, TOKEN)
    app = backend_module.Backend(predict, fetch, 'mine', score_thr=0.5).app()
    with served(app) as address:

        def ask(path, content=None):
            data = content if content is None or isinstance(content, bytes) else json.dumps(content).encode()
            request = Request(address + path, data, {'Content-Type': 'application/json'})
            try:
                with urlopen(request, timeout=20) as answer:
                    return answer.status, json.load(answer)
            except HTTPError as error:
                return error.code, json.load(error)

        yield ask


@contextmanager
def served(app):
    server = uvicorn.Server(uvicorn.Config(app, host='127.0.0.1', port=0, log_level='error'))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
        assert thread.is_alive()
    yield f'http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}'
    server.should_exit = True
    thread.join()


def task(number=1, address='/data/upload/1/a%20b.png'):
    return dict(id=number, data=dict(picked=address))


def request_of(*tasks, label_config=BOXES):
    """As Label Studio 1.x sends it."""
    return dict(
        tasks=tasks,
        project='7.1690000000',
        label_config=label_config,
        model_version='mine',
        params=dict(login=None, password=None, context=None),
    )


def test_it_is_up_and_connects(ask):
    assert ask('/health') == (200, {'status': 'UP', 'model_class': 'fasternet-mm'})
    setup = dict(project='7.1690000000', schema=BOXES, hostname='http://localhost:8080', access_token='x')
    assert ask('/setup', setup) == (200, {'model_version': 'mine'})
    assert ask('/webhook', dict(action='ANNOTATION_CREATED')) == (201, {})


def test_boxes_are_rectangles_in_percent(ask):
    status, answer = ask('/predict', request_of(task(), task(2)))
    assert status == 200
    assert answer['model_version'] == 'mine'
    first, second = answer['results']
    assert first == second
    assert first['score'] == pytest.approx((0.9 + 0.6) / 2)  # the dog is no label, the last cat is unsure
    light, cat = first['result']
    assert light['value'] == {
        'x': 10,
        'y': 10,
        'width': 40,
        'height': 40,
        'rotation': 0,
        'rectanglelabels': ['traffic light'],
    }
    expected = dict(type='rectanglelabels', from_name='things', to_name='photo', image_rotation=0)
    expected |= dict(original_width=80, original_height=40, score=0.9)
    assert {key: light[key] for key in expected} == expected
    assert light['id'] != cat['id']


def test_outlines_are_polygons_in_percent(ask):
    _, answer = ask('/predict', request_of(task(), label_config=OUTLINES))
    light, _ = answer['results'][0]['result']
    assert light['type'] == 'polygonlabels'
    assert light['value']['polygonlabels'] == ['traffic light']
    assert {tuple(point) for point in light['value']['points']} == {(10, 10), (50, 10), (50, 50), (10, 50)}


def test_an_image_that_cannot_be_had_costs_the_other_tasks_nothing(ask, caplog):
    addresses = ['/data/upload/1/gone.png', 'http://169.254.169.254/secret', 's3://bucket/a.png', None]
    _, answer = ask(
        '/predict', request_of(*(task(number, address) for number, address in enumerate(addresses)), task())
    )
    assert [len(result['result']) for result in answer['results']] == [0, 0, 0, 0, 2]
    assert '169.254.169.254/secret is not an image that' in caplog.text


@pytest.mark.parametrize(
    ('content', 'sentence'),
    [
        (b'no json', 'is not JSON'),
        (b'[]', 'no object'),
        (dict(tasks=[], label_config='<View>'), 'is not XML'),
        (dict(tasks=[], label_config='<View><Image name="i" value="$image"/></View>'), 'no RectangleLabels'),
        (dict(tasks='all', label_config=BOXES), 'a list of tasks is needed'),
    ],
)
def test_what_is_no_request_is_refused_in_a_sentence(ask, content, sentence):
    status, answer = ask('/predict', content)
    assert status == 400
    assert sentence in answer['error']


def test_the_token_is_needed(backend_module, label_studio):
    with pytest.raises(UserError, match=r'cannot be fetched .*404.*LABEL_STUDIO_API_KEY'):
        backend_module.fetch_from(label_studio, '')('/data/upload/1/a%20b.png')
