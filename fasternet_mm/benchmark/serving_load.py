"""``fasternet-mm serve`` under load, against a Predictor that does nothing else."""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import cv2
import numpy as np
from mmengine.logging import MMLogger

from ..errors import RunError, UserError
from ..inference.predictor import Predictor


def compare_serving(model: Sequence[str], images: Sequence[bytes], clients: int, rounds: int, batch_size: int) -> None:
    """Let a Predictor in this process and a server in another one take turns, and print images a second.

    The clients send from this process, so that on a CPU they take a little of the server's time. The Predictor decodes
    the same files, in batches of the same size, but makes no answers of its predictions.

    Args:
        model: as on the command line: a work directory; a config and its checkpoint; or an exported file.
        images: files; each is predicted once in a round.
        clients: connections on which requests are sent, each after the answer to the last one.
        rounds: turns of each, after one that does not count.
        batch_size: images that go through the network together.

    Raises:
        UserError: the model cannot take an image.
        RunError: the server does not start, or an answer is not one of status 200.
    """
    MMLogger.get_current_instance().setLevel('WARNING')
    predictor = Predictor(*model, batch_size=batch_size)
    alone, served, waits, memory = [], [], [], []
    broken: list[UserError] = []
    with _server(model, batch_size) as address:
        for number in range(rounds + 1):
            started = time.perf_counter()
            for _ in predictor.stream(images, broken):
                pass
            if broken:
                raise broken[0]
            between = time.perf_counter()
            seconds = _ask_all(address, images, clients)
            if number:
                alone.append(len(images) / (between - started))
                served.append(len(images) / (time.perf_counter() - between))
                waits += seconds
            memory.append(_memory(address))
    ratios = [server / alone for server, alone in zip(served, alone)]
    middle, late = np.percentile(waits, [50, 95]) * 1000
    print(f'predictor: {statistics.median(alone):.1f} images/s, in batches of {batch_size}')
    print(
        f'server:    {statistics.median(served):.1f} images/s with {clients} clients, {statistics.median(ratios):.2f} '
        f'of it ({min(ratios):.2f} to {max(ratios):.2f} in {rounds} rounds)'
    )
    print(f'answers:   half of them within {middle:.0f} ms, 95 % within {late:.0f} ms')
    print(f'memory:    {memory[0]:.0f} MB after {len(images)} requests, {memory[-1]:.0f} MB after {len(waits)} more')


def noise_jpeg(number: int, height: int = 480, width: int = 640) -> bytes:
    """An image in which networks find much or nothing, as they please; each number has its own."""
    small = np.random.default_rng(number).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return cv2.imencode('.jpg', cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))[1].tobytes()


@contextmanager
def _server(model: Sequence[str], batch_size: int) -> Iterator[str]:
    """The address of a server for the model, host and port; its own messages go where this process's do."""
    command = [sys.executable, '-m', 'fasternet_mm', 'serve', *model, '--port', '0', '--batch-size', str(batch_size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = next((line for line in process.stdout if line.startswith('serving: ')), None)
            if line is None:
                raise RunError('the server did not start: what it says is above')
            yield urlsplit(line.split()[1]).netloc
        finally:
            process.terminate()


def _ask_all(address: str, images: Sequence[bytes], clients: int) -> list[float]:
    """Send all images, and return how many seconds each answer took."""
    own = threading.local()

    def ask(image: bytes) -> float:
        if not hasattr(own, 'connection'):
            own.connection = http.client.HTTPConnection(address, timeout=300)
        started = time.perf_counter()
        own.connection.request('POST', '/predict', image)
        answer = own.connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RunError(f'the server answered with status {answer.status}: {json.loads(content)["error"]}')
        return time.perf_counter() - started

    with ThreadPoolExecutor(clients) as threads:
        return list(threads.map(ask, images))


def _memory(address: str) -> float:
    """Megabytes that the server's process occupies; nan where the system does not tell."""
    connection = http.client.HTTPConnection(address, timeout=300)
    connection.request('GET', '/metrics')
    lines = connection.getresponse().read().decode().splitlines()
    return next((float(line.split()[1]) / 1e6 for line in lines if line.startswith('process_resident')), float('nan'))
