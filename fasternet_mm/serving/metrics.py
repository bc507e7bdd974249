"""What the server counts, for Prometheus (https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30
"""Upper ends of the histograms' times, from a small network on a GPU to a large one on a CPU with others waiting."""

BATCHES = 1, 2, 4, 8, 16, 32, 64
"""Upper ends of the histogram of batches."""


class ServerMetrics:
    """Counts and times of one server; besides them, memory and CPU time of its process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            'fasternet_mm_requests', 'Requests for predictions that were answered', ['path', 'status'], **self._here
        )
        self.request_seconds = Histogram(
            'fasternet_mm_request_seconds',
            'From the first byte of a request to its answer, of those with status 200',
            ['path'],
            buckets=SECONDS,
            **self._here,
        )
        self.batch_images = Histogram(
            'fasternet_mm_batch_images', 'Images that were predicted together', buckets=BATCHES, **self._here
        )
        self.batch_seconds = Histogram(
            'fasternet_mm_batch_seconds', 'Time of the model for such a batch', buckets=SECONDS, **self._here
        )
        self.waiting = Gauge('fasternet_mm_waiting_images', 'Images that wait for the model', **self._here)
        self.held = Gauge('fasternet_mm_held_requests', 'Requests that have come and are not answered', **self._here)
        ProcessCollector(**self._here)

    @property
    def _here(self) -> dict[str, CollectorRegistry]:
        return dict(registry=self.registry)

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)
