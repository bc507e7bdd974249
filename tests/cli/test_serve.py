"""The command ``serve`` with a real, small model."""

import http.client
import json
import logging
import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from small_models import image

from fasternet_mm.datasets.shapes import CLASSES
from fasternet_mm.inference import Predictor


@pytest.fixture
def work_dir(tmp_path, detector_cfg, detector):
    detector_cfg.dump(tmp_path / 'config.py')
    meta = dict(cfg=detector_cfg.pretty_text, dataset_meta=dict(classes=CLASSES, palette=[(9, 9, 9)] * len(CLASSES)))
    torch.save(dict(meta=meta, state_dict=detector.state_dict()), tmp_path / 'epoch_1.pth')
    return tmp_path


def post(port, content):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    connection.request('POST', '/predict?score_thr=0', content)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


@pytest.mark.skipif(os.name == 'nt', reason='Windows has no SIGTERM that can be handled')
def test_a_trained_model_is_served_until_sigterm(command, work_dir, monkeypatch):
    monkeypatch.setattr(logging, 'raiseExceptions', False)  # of a logger of an earlier test, whose output is closed
    images = [image(160, 160, seed).permute(1, 2, 0).numpy() for seed in range(4)]
    predictor = Predictor(work_dir, device='cpu')
    expected = [predictor(pixels) for pixels in images]
    with socket.create_server(('127.0.0.1', 0)) as free:
        port = free.getsockname()[1]

    def ask_all():
        while socket.socket().connect_ex(('127.0.0.1', port)):
            time.sleep(0.05)
        files = [cv2.imencode('.png', pixels)[1].tobytes() for pixels in images]
        with ThreadPoolExecutor(4) as threads:
            answers.extend(threads.map(post, [port] * 4, files))
        os.kill(os.getpid(), signal.SIGTERM)

    answers = []
    client = threading.Thread(target=ask_all, daemon=True)
    client.start()
    done = command('serve', work_dir, '--port', port, '--device', 'cpu', '--batch-size', 2)
    client.join()

    assert (done.returncode, done.stderr) == (0, '')
    assert f'serving: http://127.0.0.1:{port}  (how to ask: http://127.0.0.1:{port}/docs; Ctrl-C' in done.stdout
    assert sum(len(prediction) for prediction in expected) > 4
    for (status, answer), prediction in zip(answers, expected):
        assert (status, [item['class'] for item in answer['objects']]) == (200, prediction.names)
        boxes = np.array([item['box'] for item in answer['objects']]).reshape(-1, 4)
        np.testing.assert_allclose(boxes, prediction.boxes, atol=0.02)


@pytest.mark.parametrize(
    ('options', 'sentence'),
    [
        (['--port', '70000'], 'argument --port: 70000: give a whole number from 0 to 65535'),
        (
            ['--max-megapixels', '1000'],
            'a limit of 1000 megapixels is not possible: give a number above 0, at most 178',
        ),
        (['--places', '0'], 'argument --places: 0: give a whole number, at least 1'),
    ],
)
def test_options_that_cannot_be_are_refused_before_the_model_is_read(command, options, sentence):
    done = command('serve', '.', *options)
    assert done.returncode == 2
    assert sentence in done.stderr
