"""The server over real connections, with a predictor whose answers are known."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO

import cv2
import numpy as np
import pytest
import uvicorn
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from pycocotools import mask as coco_masks
from stand_in_predictor import CLASSES, StandIn, StandInSegmenter, color_png

from fasternet_mm.errors import UserError
from fasternet_mm.serving import http_server, sharing
from fasternet_mm.serving.http_protocol import HttpProtocol
from fasternet_mm.serving.http_server import PredictionServer, serve
from fasternet_mm.serving.uploads import Limits


class Client:
    """One connection, which is kept."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)

    def __call__(self, method, path, body=None, **headers):
        """Status, headers, and the body: of JSON what it says."""
        headers = {name.replace('_', '-'): value for name, value in headers.items()}
        self.connection.request(method, path, body, headers)
        answer = self.connection.getresponse()
        content = answer.read()
        return (
            answer.status,
            answer.headers,
            json.loads(content) if 'json' in answer.headers.get('content-type', '') else content,
        )


@contextmanager
def served(predictor, places=32, **limits):
    """The port of a server in a thread of its own."""
    listener = socket.create_server(('127.0.0.1', 0))
    app = PredictionServer(predictor, Limits(**limits), places).app
    config = uvicorn.Config(app, http=HttpProtocol, log_level='critical', timeout_graceful_shutdown=10)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=[[listener]])
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope='module')
def port():
    with served(StandIn()) as port:
        yield port


@pytest.fixture(scope='module')
def segmenters_port():
    with served(StandInSegmenter()) as port:
        yield port


@pytest.fixture
def ask(port):
    return Client(port)


def metrics_of(port):
    """Values by name and, where there are any, labels."""
    families = text_string_to_metric_families(Client(port)('GET', '/metrics')[2].decode())
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def held_by(port):
    return metrics_of(port)['fasternet_mm_held_requests',]


def wait_until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError('it never happened')


def form(*files, name='image', filename='a.png'):
    """A body of multipart/form-data, and its type."""
    disposition = f'Content-Disposition: form-data; name="{name}"' + (f'; filename="{filename}"' if filename else '')
    parts = [b'--edge\r\n' + disposition.encode() + b'\r\n\r\n' + file + b'\r\n' for file in files]
    return b''.join([*parts, b'--edge--\r\n']), 'multipart/form-data; boundary=edge'


@pytest.mark.parametrize('kind', ['image/png', 'application/x-www-form-urlencoded', 'application/octet-stream'])
def test_an_image_is_answered_with_its_objects(ask, kind):
    status, _, answer = ask('POST', '/predict?score_thr=0', color_png(10, 20, 30), Content_Type=kind)
    assert status == 200
    masks = [coco_masks.decode(item.pop('mask')) for item in answer['objects']]
    assert answer == {
        'height': 20,
        'width': 30,
        'objects': [
            {'class': 'bright, or so', 'label': 1, 'category_id': 7, 'score': 0.75, 'box': [10, 20, 30, 30]},
            {'class': 'dark', 'label': 0, 'category_id': 1, 'score': 0.25, 'box': [0.123, 1, 2, 3]},
        ],
    }
    assert masks[0][:10].all()
    assert not masks[0][10:].any()
    np.testing.assert_array_equal(masks[1], 1 - masks[0])


@pytest.mark.parametrize('options', [dict(), dict(name='anything', filename='../../text.txt')])
def test_an_image_may_come_in_a_form(ask, options):
    large = cv2.imencode('.bmp', np.full((700, 800, 3), 40, np.uint8))[1].tobytes()  # more than goes in one piece
    body, kind = form(large, **options)
    status, _, answer = ask('POST', '/predict', body, Content_Type=kind)
    assert (status, answer['height'], answer['objects'][0]['box']) == (200, 700, [40, 40, 40, 800])


@pytest.mark.parametrize(
    ('query', 'names'),
    [
        ('', ['bright, or so']),
        ('?score_thr=0.2', ['bright, or so', 'dark']),
        ('?score_thr=0.2&classes=dark', ['dark']),
        ('?score_thr=0.2&classes=dark&classes=bright,+or+so', ['bright, or so', 'dark']),
    ],
)
def test_options_choose_among_the_objects(ask, query, names):
    _, _, answer = ask('POST', '/predict' + query, color_png(1, 2, 3))
    assert [item['class'] for item in answer['objects']] == names


def test_a_drawing_is_the_image_with_what_is_asked_for(ask):
    content = color_png(10, 20, 230, size=(200, 300))
    drawings = {}
    for query in ('', '?score_thr=0', '?score_thr=0.9'):
        status, headers, png = ask('POST', '/drawing' + query, content)
        assert (status, headers['content-type']) == (200, 'image/png')
        drawings[query] = np.asarray(Image.open(BytesIO(png)))
    np.testing.assert_array_equal(drawings['?score_thr=0.9'], np.full((200, 300, 3), (10, 20, 230)))
    changed = [(drawings[query] != drawings['?score_thr=0.9']).any(axis=2) for query in ('', '?score_thr=0')]
    assert changed[0][:100].mean() > 0.9  # the mask of one object covers the upper half
    assert changed[0][120:].mean() < 0.5
    assert changed[1].mean() > 0.9


def test_a_segmenter_answers_with_label_maps(segmenters_port):
    ask = Client(segmenters_port)
    content = color_png(10, 20, 30)
    expected = np.zeros((20, 30), np.uint8)
    expected[10:], expected[:, -1] = 1, 255

    _, headers, png = ask('POST', '/label-map', content)
    assert headers['content-type'] == 'image/png'
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(png))), expected)

    _, _, answer = ask('POST', '/predict', content)
    label_map = np.full((answer['height'], answer['width']), 255, np.uint8)
    for segment in answer['segments']:
        mask = coco_masks.decode(segment['mask']).astype(bool)
        assert mask.sum() == segment['pixels']
        label_map[mask] = segment['label']
    np.testing.assert_array_equal(label_map, expected)
    assert [segment['class'] for segment in answer['segments']] == list(CLASSES)

    _, _, answer = ask('POST', '/predict?classes=dark', content)
    assert [segment['class'] for segment in answer['segments']] == ['dark']
    assert ask('POST', '/drawing', content)[0] == 200
    status, _, answer = ask('POST', '/predict?score_thr=0.5', content)
    assert (status, answer['error']) == (400, "'score_thr' is not an option; there is classes")


PNG = color_png(1, 2, 3)


BAD_REQUESTS = [
    ('POST', '/predict', b'', '', 400, 'the file is empty: send an image'),
    ('POST', '/predict', b'text', 'image/jpeg', 400, 'the file is not an image of a kind that is accepted: send'),
    ('POST', '/predict', PNG[:-60], 'image/png', 400, 'the file is cut off, it is only the beginning of an image'),
    ('POST', '/predict?score_thr=2', PNG, '', 400, 'score_thr=2 is not a score: give a number from 0 to 1'),
    ('POST', '/predict?score_thr=high', PNG, '', 400, 'score_thr=high is not a score: give a number from 0'),
    ('POST', '/predict?score_thr=nan', PNG, '', 400, 'score_thr=nan is not a score: give a number from 0'),
    ('POST', '/predict?score=0.5', PNG, '', 400, "'score' is not an option; did you mean 'score_thr'?"),
    ('POST', '/predict?classes=drak', PNG, '', 400, "the model has no class 'drak'; did you mean 'dark'?"),
    ('POST', '/drawing', color_png(0, 0, 254), '', 400, 'the image: an image of this blue is not accepted'),
    ('POST', '/predict', color_png(0, 0, 255), '', 500, 'the image failed (RuntimeError: too blue)'),
    ('POST', '/predict', *form(), 400, 'the form has no file: send one as "curl -F image=@FILE" does'),
    ('POST', '/predict', *form(PNG, PNG), 400, 'the form is not one file (Too many files. Maximum number of f'),
    ('POST', '/predict', *form(PNG, filename=''), 400, 'the form is not one file (Too many fields. Maximum num'),
    ('POST', '/predict', PNG, 'multipart/form-data', 400, 'the form is not one file (Missing boundary in multi'),
    ('POST', '/predict', PNG, 'multipart/form-data; boundary=a', 400, 'the form is not one file ('),
    ('POST', '/predict', bytes(300_000), '', 413, 'the file has more than 0.1 MB, the most that is accepted: send'),
    ('POST', '/predict', bytes(100_001), '', 413, 'the file has more than 0.1 MB, the most that is accepted: send'),
    ('POST', '/predict', *form(bytes(300_000)), 413, 'the file has more than 0.1 MB, the most that is accepted: s'),
    ('POST', '/drawing', color_png(0, 0, 0, (501, 500)), '', 413, 'the image has more than 0.25 megapixels, the m'),
    ('GET', '/predict', None, '', 405, '/predict does not take GET: see /docs'),
    ('GET', '/nowhere', None, '', 404, 'there is no /nowhere: the server has /predict, /drawing, /health, '),
    ('POST', '/label-map', PNG, '', 404, 'there is no /label-map: the server has /predict, /drawing, /health'),
]  # fmt: skip
"""Method, path, body and its type; status and how the sentence begins."""


@pytest.mark.parametrize(
    ('method', 'path', 'body', 'kind', 'status', 'sentence'),
    BAD_REQUESTS,
    ids=[request[-1] for request in BAD_REQUESTS],
)
def test_what_cannot_be_answered_is_told_in_a_sentence(small_limits, method, path, body, kind, status, sentence):
    got, _, answer = small_limits(method, path, body, Content_Type=kind)
    assert got == status
    assert list(answer) == ['error']
    assert answer['error'].startswith(sentence)


@pytest.fixture(scope='module')
def small_limits():
    with served(StandIn(), megabytes=0.1, megapixels=0.25) as port:
        yield Client(port)  # one connection for all: it lasts through refusals


def test_of_a_thousand_requests_each_gets_its_own_answer():
    bad = [b'', b'text', PNG[:40], bytes(150_000), color_png(0, 0, 0, (900, 900)), color_png(0, 0, 254)]
    with served(StandIn(), megabytes=0.1, megapixels=0.25) as port:
        clients = threading.local()

        def request(number):
            if not hasattr(clients, 'ask'):
                clients.ask = Client(port)
            color = number % 251, number // 251, number % 7
            content = (
                bad[number // 20 % len(bad)] if number % 20 == 0 else color_png(*color, size=(20 + number % 3, 30))
            )
            body, kind = form(content) if number % 2 else (content, 'image/png')
            return color, clients.ask('POST', '/predict', body, Content_Type=kind)

        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(request, range(1000)))
        counts = metrics_of(port)
    for number, (color, (status, _, answer)) in enumerate(answers):
        if number % 20:
            assert (status, answer['height'], answer['objects'][0]['box']) == (200, 20 + number % 3, [*color, 30])
        else:
            assert 400 <= status < 500
            assert len(answer['error'].split()) > 4
    assert counts['fasternet_mm_requests_total', '/predict', '200'] == 950
    assert sum(count for (name, *_), count in counts.items() if name == 'fasternet_mm_requests_total') == 1000
    assert counts['fasternet_mm_request_seconds_count', '/predict'] == 950
    assert counts['fasternet_mm_batch_images_sum',] == 950
    assert counts['fasternet_mm_held_requests',] == 0
    assert counts['process_resident_memory_bytes',] > 1e6


def test_what_arrives_together_is_predicted_together():
    predictor = StandIn()
    predictor.gate.clear()
    with served(predictor) as port, ThreadPoolExecutor(10) as threads:
        first = threads.submit(Client(port), 'POST', '/predict', PNG)
        wait_until(lambda: predictor.batches)
        others = [threads.submit(Client(port), 'POST', '/predict', PNG) for _ in range(7)]
        wait_until(lambda: metrics_of(port)['fasternet_mm_waiting_images',] == 7)
        predictor.gate.set()
        assert [future.result()[0] for future in (first, *others)] == [200] * 8
    assert predictor.batches == [1, 4, 3]


def test_an_image_that_fails_spoils_no_other():
    predictor = StandIn()
    predictor.gate.clear()
    with served(predictor) as port, ThreadPoolExecutor(10) as threads:
        first = threads.submit(Client(port), 'POST', '/predict', PNG)
        wait_until(lambda: predictor.batches)
        blues = [10, 255, 20, 254]
        others = [threads.submit(Client(port), 'POST', '/predict', color_png(0, 0, blue)) for blue in blues]
        wait_until(lambda: metrics_of(port)['fasternet_mm_waiting_images',] == 4)
        predictor.gate.set()
        assert first.result()[0] == 200
        answers = [future.result() for future in others]
    assert [status for status, _, _ in answers] == [200, 500, 200, 400]
    assert [answer['objects'][0]['box'][2] for status, _, answer in answers if status == 200] == [10, 20]
    assert predictor.batches == [1, 4, 1, 1, 1, 1]


def test_what_the_model_says_of_an_image_comes_without_a_number():
    refused = sharing._as_answer(UserError('image 1: an image of 3x5000 pixels (H x W) cannot be resized'))
    assert str(refused) == 'an image of 3x5000 pixels (H x W) cannot be resized'


def test_when_all_places_are_taken_a_client_is_told_to_come_again():
    predictor = StandIn()
    predictor.gate.clear()
    with served(predictor, places=2) as port, ThreadPoolExecutor(2) as threads:
        taken = [threads.submit(Client(port), 'POST', '/predict', PNG) for _ in range(2)]
        wait_until(lambda: held_by(port) == 2)
        ask = Client(port)
        status, headers, answer = ask('POST', '/predict', PNG)
        assert (status, headers['retry-after']) == (503, '1')
        assert answer == {'error': 'all 2 places are taken: try again in a moment'}
        assert ask('GET', '/health')[::2] == (200, {'status': 'ok'})
        predictor.gate.set()
        assert [future.result()[0] for future in taken] == [200, 200]
        assert ask('POST', '/predict', PNG)[0] == 200


def test_a_body_without_end_is_cut():
    with served(StandIn(), megabytes=0.01) as port:
        with socket.create_connection(('127.0.0.1', port), timeout=30) as connection:
            connection.sendall(b'POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n')
            chunk = b'8000\r\n' + bytes(0x8000) + b'\r\n'
            sent = 0
            try:
                while sent < 50e6:
                    connection.sendall(chunk)
                    sent += len(chunk)
            except OSError:  # the server has closed the connection
                pass
        assert sent < 20e6  # ten times the limit and its envelope, and what the system keeps of both sides
        wait_until(lambda: metrics_of(port).get(('fasternet_mm_requests_total', '/predict', '413')) == 1)
        assert Client(port)('POST', '/predict', PNG)[0] == 200


@pytest.mark.parametrize('endless', [b'X: a\r\n', b'a'], ids=['headers', 'header'])
def test_a_head_without_end_is_cut(port, endless):
    with socket.create_connection(('127.0.0.1', port), timeout=30) as connection:
        connection.sendall(b'GET /health HTTP/1.1\r\nHost: a\r\nX: ')
        sent = 0
        try:
            while sent < 50e6:
                connection.sendall(endless * 10_000)
                sent += len(endless) * 10_000
        except OSError:  # the server has closed the connection
            pass
    assert sent < 20e6
    assert Client(port)('GET', '/health')[0] == 200


def test_ten_gigabytes_are_refused_before_they_come():
    with served(StandIn()) as port, socket.create_connection(('127.0.0.1', port), timeout=30) as connection:
        connection.sendall(b'POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\n')
        answer = connection.makefile('rb').read()  # to the end of the connection
    assert answer.startswith(b'HTTP/1.1 413')
    assert b'the file has more than 20 MB' in answer


def test_who_sends_without_end_in_small_pieces_loses_the_place(monkeypatch):
    monkeypatch.setattr(http_server, 'RECEIVING_SECONDS', 0.3)
    with served(StandIn(), places=1) as port, socket.create_connection(('127.0.0.1', port), timeout=30) as connection:
        connection.sendall(b'POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nsome')
        wait_until(lambda: held_by(port) == 1)
        wait_until(lambda: held_by(port) == 0)
        answer = connection.makefile('rb').read()
    assert answer.startswith(b'HTTP/1.1 408')
    assert b'the image did not arrive within 0.3 seconds: send it faster' in answer


def test_a_client_that_leaves_gives_its_place_back():
    with served(StandIn(), places=1) as port:
        with socket.create_connection(('127.0.0.1', port)) as connection:
            connection.sendall(b'POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nsome')
            wait_until(lambda: held_by(port) == 1)
        wait_until(lambda: held_by(port) == 0)
        assert Client(port)('POST', '/predict', PNG)[0] == 200


@pytest.mark.parametrize('kind', ['detector', 'segmenter'])
def test_answers_are_as_the_openapi_document_says(port, segmenters_port, kind):
    ask = Client(port if kind == 'detector' else segmenters_port)
    document = ask('GET', '/openapi.json')[2]
    OpenAPIV31SpecValidator(document).validate()
    predict = document['paths']['/predict']['post']
    schemas = {
        status: {**response['content']['application/json']['schema'], 'additionalProperties': False}
        for status, response in predict['responses'].items()
    }
    for content in (PNG, b'text', color_png(0, 0, 255)):
        status, _, answer = ask('POST', '/predict', content)
        Draft202012Validator(schemas[str(status)]).validate(answer)
    assert {path: list(methods) for path, methods in document['paths'].items()} == {
        '/predict': ['post'],
        '/drawing': ['post'],
        **({'/label-map': ['post']} if kind == 'segmenter' else {}),
        '/health': ['get'],
        '/metrics': ['get'],
    }


def test_the_page_tells_all_paths_options_and_classes(port):
    ask = Client(port)
    assert ask('GET', '/')[1]['location'] == '/docs'
    page = ask('GET', '/docs')[2].decode()
    for text in ('POST /predict', 'POST /drawing', 'GET /health', 'GET /metrics', 'score_thr', 'bright, or so', '503'):
        assert text in page
    assert f'curl http://127.0.0.1:{port}/predict -F image=@street.jpg' in page


def test_a_port_that_is_taken_is_told(port):
    with pytest.raises(
        UserError, match=rf'^127.0.0.1, port {port}, cannot be listened on \(Address already in use\): '
    ):
        serve(StandIn(), '127.0.0.1', port, Limits(), 1)


COMMAND = """
import fasternet_mm.inference.predictor
from stand_in_predictor import StandIn
from fasternet_mm.cli import main

fasternet_mm.inference.predictor.Predictor = lambda *args, **options: StandIn(seconds=0.2)
main(['serve', '.', '--port', '0'])
"""


@pytest.mark.skipif(os.name == 'nt', reason='Windows has no SIGTERM that can be handled')
def test_what_was_accepted_is_answered_after_sigterm(root):
    environment = {**os.environ, 'PYTHONPATH': f'{root}{os.pathsep}{root / "tests"}'}
    with subprocess.Popen(
        [sys.executable, '-c', COMMAND], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            address = server.stdout.readline()
            assert address.startswith('serving: http://127.0.0.1:')
            port = int(address.split(':')[3].split()[0])
            with ThreadPoolExecutor(6) as threads:
                requests = [
                    threads.submit(Client(port), 'POST', '/predict', color_png(0, 0, blue)) for blue in range(6)
                ]
                wait_until(lambda: held_by(port) == 6)
                server.send_signal(signal.SIGTERM)
                answers = [future.result() for future in requests]
            assert [status for status, _, _ in answers] == [200] * 6
            assert [answer['objects'][0]['box'][2] for _, _, answer in answers] == [*range(6)]
            assert server.wait(20) == 0
            assert server.stdout.readline() == f'try:     curl http://127.0.0.1:{port}/predict -F image=@street.jpg\n'
            assert server.stderr.read() == ''
        finally:
            server.kill()
