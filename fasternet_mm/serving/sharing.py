"""One model that many share: what arrives together goes through the network together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from anyio import create_task_group

from ..cpus import usable_cpus
from ..errors import RunError, UserError
from ..inference.prediction import Prediction
from ..inference.predictor import Predictor, named_error
from ..models.backbone import InvalidArgument
from .metrics import ServerMetrics

Answer = TypeVar('Answer')


class Busy(RunError):
    """All places are taken."""


class SharedPredictor:
    """A `Predictor` for many requests at once, of a program that runs on asyncio.

    One thread owns the model. While it computes, images gather; then it takes up to the predictor's ``batch_size`` of
    them. Nobody waits for a batch to fill: where the model has nothing to do, a single image is predicted at once.
    Images are read, and answers made, in other threads, one per CPU.

    Args:
        predictor: it is used by nobody else.
        places: how many requests are held at a time, from their first byte to their answer. Of these at most twice the
            predictor's ``batch_size`` have their image decoded, so that memory is bounded.
        metrics: where counts and times go.
    """

    def __init__(self, predictor: Predictor, places: int, metrics: ServerMetrics) -> None:
        self.predictor, self.places, self.metrics = predictor, places, metrics
        self._held = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While this lasts, `predict` may be called. It ends when all that was begun is done."""
        self._gathered: asyncio.Queue[tuple[np.ndarray, asyncio.Future[Prediction]]] = asyncio.Queue()
        self.metrics.waiting.set_function(self._gathered.qsize)
        self._decoded = asyncio.Semaphore(2 * self.predictor.batch_size)
        with ThreadPoolExecutor(usable_cpus(), 'images') as self._helpers, ThreadPoolExecutor(1, 'model') as model:
            async with create_task_group() as tasks:
                tasks.start_soon(self._predict_batches, model)
                yield
                tasks.cancel_scope.cancel()

    @contextmanager
    def place(self) -> Iterator[None]:
        """One of the places.

        Raises:
            Busy: all are taken.
        """
        if self._held >= self.places:
            raise Busy(f'all {self.places} places are taken: try again in a moment')
        self._held += 1
        self.metrics.held.set(self._held)
        try:
            yield
        finally:
            self._held -= 1
            self.metrics.held.set(self._held)

    async def predict(self, read: Callable[[], np.ndarray], answer: Callable[[Prediction], Answer]) -> Answer:
        """What ``answer`` makes of the prediction for the image that ``read`` gives; both run in other threads.

        Raises:
            UserError: by ``read`` or ``answer``, or the model cannot take the image.
            RunError: the model failed on the image.
        """
        loop = asyncio.get_running_loop()
        async with self._decoded:
            image = await loop.run_in_executor(self._helpers, read)
            predicted: asyncio.Future[Prediction] = loop.create_future()
            self._gathered.put_nowait((image, predicted))
            return await loop.run_in_executor(self._helpers, answer, await predicted)

    async def _predict_batches(self, model: ThreadPoolExecutor) -> None:
        while True:
            await self._predict_batch(model)

    async def _predict_batch(self, model: ThreadPoolExecutor) -> None:
        batch = [await self._gathered.get()]
        while len(batch) < self.predictor.batch_size and not self._gathered.empty():
            batch.append(self._gathered.get_nowait())
        images = [image for image, _ in batch]
        results = await asyncio.get_running_loop().run_in_executor(model, self._predict, images)
        for (_, predicted), result in zip(batch, results):
            if predicted.done():  # its request was given up
                continue
            if isinstance(result, Exception):
                predicted.set_exception(result)
            else:
                predicted.set_result(result)

    def _predict(self, images: Sequence[np.ndarray]) -> list[Prediction | Exception]:
        """In the model's thread: the prediction of each image, or what was wrong with it."""
        started = perf_counter()
        order = sorted(range(len(images)), key=lambda number: images[number].shape)  # only one size makes a batch
        results: list[Any] = [None] * len(images)
        try:
            for number, prediction in zip(order, self.predictor.stream(images[number] for number in order)):
                results[number] = prediction
        except Exception as error:  # because of one image, which is not known, or of all
            return [_as_answer(error)] if len(images) == 1 else [self._predict([image])[0] for image in images]
        self.metrics.batch_images.observe(len(images))
        self.metrics.batch_seconds.observe(perf_counter() - started)
        return results


def _as_answer(error: Exception) -> UserError | RunError:
    """What a client is told: what is wrong with its image, or that the program failed, which the log tells in full."""
    named = named_error(error, 'the image')
    if isinstance(error, UserError | InvalidArgument):
        return UserError(str(named).removeprefix('image 1: '))  # it has no number for the client
    logging.getLogger('uvicorn.error').error('the model failed on an image', exc_info=error)
    return RunError(str(named))
