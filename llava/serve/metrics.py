"""What Prometheus reads: requests, decisions, failures, queues."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
SIZES = (1, 2, 4, 8, 16, 32, 64)
SCORES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


class Metrics:
    """The counters of one server; labels take their values from short fixed lists, never from a request."""

    def __init__(self) -> None:
        """Register every counter in a registry of its own, so that two servers in one process do not share any."""
        self.registry = CollectorRegistry()
        name = "mllm_protector"
        registry: Any = {"registry": self.registry}
        self.requests = Counter(f"{name}_requests", "Requests answered.", ["route", "method", "status"], **registry)
        self.seconds = Histogram(
            f"{name}_request_seconds", "Time to the end of an answer.", ["route"], buckets=SECONDS, **registry
        )
        self.decisions = Counter(f"{name}_decisions", "Texts judged.", ["route", "action"], **registry)
        self.failures = Counter(
            f"{name}_guard_failures", "Texts without a judgement, by what failed.", ["part", "error"], **registry
        )
        self.failed_open = Counter(
            f"{name}_failed_open", "Texts that passed unjudged because of --fail-open.", ["route"], **registry
        )
        self.turned_away = Counter(f"{name}_turned_away", "Requests turned away unread.", ["reason"], **registry)
        self.scores = Histogram(f"{name}_harm_score", "Harm scores.", buckets=SCORES, **registry)
        self.batches = Histogram(f"{name}_batch_texts", "Texts in a batch.", ["part"], buckets=SIZES, **registry)
        self.batch_seconds = Histogram(
            f"{name}_batch_seconds", "Time of a batch.", ["part"], buckets=SECONDS, **registry
        )
        self.pending = Gauge(f"{name}_pending_texts", "Texts that requests wait for.", **registry)
        self.streams = Gauge(f"{name}_open_streams", "Guarded streams under way.", **registry)

    def render(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self.registry)
