"""What the service tells Prometheus. Labels only ever hold names of known models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version as installed
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from service import __version__

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = tuple(2.0**n for n in range(13))
_UNCERTAINTY = np.array(
    [0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0]
)


_MANY_ROWS = 10_000
"""That wait to be counted before somebody asks, so that they do not fill the memory."""


class UncertaintyHistogram(Collector):
    """`candor_uncertainty{model,measure}`: takes a whole batch of values at a time.

    They are counted when somebody asks or many have come: counting each batch by itself cost more
    than all else that a request leaves in the metrics.
    """

    def __init__(self) -> None:
        self._waiting: defaultdict[tuple[str, str], list[NDArray[Any]]] = defaultdict(list)
        self._waiting_rows = 0
        self._counts: dict[tuple[str, str], NDArray[np.int64]] = {}
        self._sums: dict[tuple[str, str], float] = {}

    def observe(self, model: str, measure: str, values: NDArray[Any]) -> None:
        """Count values [B, D...], of which those that are not finite are passed over.

        Of a dense output the mean of a row's places counts, so that each row counts once.
        """
        # At once, for the places of ten thousand images would fill the memory.
        self._waiting[model, measure].append(_one_a_row(values))
        self._waiting_rows += len(values)
        if self._waiting_rows > _MANY_ROWS:
            self._count()

    def _count(self) -> None:
        for key, batches in self._waiting.items():
            values = np.concatenate(batches)
            finite = values[np.isfinite(values)]
            places = _UNCERTAINTY.searchsorted(finite, side="left")
            counts = np.bincount(places, minlength=len(_UNCERTAINTY) + 1)
            self._counts[key] = self._counts.get(key, np.zeros_like(counts)) + counts
            self._sums[key] = self._sums.get(key, 0.0) + float(finite.sum())
        self._waiting.clear()
        self._waiting_rows = 0

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What Prometheus reads: cumulative counts up to each bound."""
        family = HistogramMetricFamily(
            "candor_uncertainty", "Uncertainty of answered rows", labels=["model", "measure"]
        )
        self._count()
        bounds = [*map(str, _UNCERTAINTY.tolist()), "+Inf"]
        for key, counts in list(self._counts.items()):
            buckets = list(zip(bounds, np.cumsum(counts).tolist(), strict=True))
            family.add_metric(key, buckets, self._sums[key])
        yield family


def _one_a_row(values: NDArray[Any]) -> NDArray[np.float64]:
    if values.ndim == 1:
        return values
    mean_B: NDArray[np.float64] = values.reshape(len(values), -1).mean(axis=1, dtype=np.float64)
    return mean_B


class Tally(Protocol):
    """Counts requests, in whichever process they were answered."""

    def answered(self, model: str, endpoint: str, code: int, elapsed_s: float) -> None:
        """A request; `model` is one that exists or empty, `endpoint` a route's path."""
        ...

    def rejected(self, reason: str) -> None:
        """A request that was refused."""
        ...


@dataclass(frozen=True, slots=True)
class ModelMetrics:
    """What is counted of one model, its labels looked up once."""

    queue_seconds: Histogram
    batch_rows: Histogram
    sampling_seconds: Histogram
    passes_total: Counter
    queue_depth: Gauge
    busy_seconds_total: Counter


class Metrics:
    """One instance a server, with a registry of its own."""

    def __init__(self) -> None:
        self._of_models: dict[str, ModelMetrics] = {}
        self._rejected: dict[str, Counter] = {}
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        own = self.registry = CollectorRegistry()
        ProcessCollector(registry=own)
        build = Gauge("candor_build_info", "Always 1", ["version", "torch"], registry=own)
        build.labels(__version__, installed("torch")).set(1)
        self.requests_total = Counter(
            "candor_requests_total",
            "Requests answered",
            ["model", "endpoint", "code"],
            registry=own,
        )
        self.request_seconds = Histogram(
            "candor_request_seconds",
            "Time from a request's first byte to its answer, in seconds",
            ["model", "endpoint"],
            buckets=_SECONDS,
            registry=own,
        )
        self.queue_seconds = Histogram(
            "candor_queue_seconds",
            "Time a request waited for the engine, in seconds",
            ["model"],
            buckets=_SECONDS,
            registry=own,
        )
        self.batch_rows = Histogram(
            "candor_batch_rows",
            "Rows that ran together",
            ["model"],
            buckets=_ROWS,
            registry=own,
        )
        self.sampling_seconds = Histogram(
            "candor_sampling_seconds",
            "Time a batch of predictions took to compute, in seconds",
            ["model"],
            buckets=_SECONDS,
            registry=own,
        )
        self.passes_total = Counter(
            "candor_passes_total", "Stochastic passes, rows x passes", ["model"], registry=own
        )
        self.uncertainty = UncertaintyHistogram()
        own.register(self.uncertainty)
        self.ood_flagged_total = Counter(
            "candor_ood_flagged_total",
            "Rows flagged as out of distribution",
            ["model"],
            registry=own,
        )
        self.ood_flagged_rate = Gauge(
            "candor_ood_flagged_rate",
            "Share of the last rows flagged as out of distribution",
            ["model", "version"],
            registry=own,
        )
        self.stability_index = Gauge(
            "candor_population_stability_index",
            "Distribution of a measure over the last rows against that at the calibration; some "
            "(bins - 1) / rows where nothing drifts",
            ["model", "version", "measure"],
            registry=own,
        )
        self.drift_rows = Gauge(
            "candor_drift_rows",
            "Rows in the window that drift is seen in",
            ["model", "version"],
            registry=own,
        )
        self.queue_depth = Gauge(
            "candor_queue_depth", "Requests that wait", ["model"], registry=own
        )
        self.queue_size = Gauge(
            "candor_queue_bytes", "Inputs of requests that wait, in bytes", registry=own
        )
        self.requests_in_flight = Gauge(
            "candor_requests_in_flight",
            "Requests that the engine accepted and has not answered",
            registry=own,
        )
        self.engine_busy_seconds_total = Counter(
            "candor_engine_busy_seconds_total",
            "Time the engine spent on a model's requests, in seconds",
            ["model"],
            registry=own,
        )
        self.model_ready = Gauge(
            "candor_model_ready",
            "1 where the version was verified and serves, 0 where it should and does not",
            ["model", "version"],
            registry=own,
        )
        self.calibration_stale = Gauge(
            "candor_calibration_stale",
            "1 where the version has a calibration that does not hold for it and is not applied",
            ["model", "version"],
            registry=own,
        )
        self.rejected_total = Counter(
            "candor_rejected_total", "Requests refused, by reason", ["reason"], registry=own
        )
        self.degraded_total = Counter(
            "candor_degraded_total",
            "Requests answered with fewer passes than their model has, because others waited",
            ["model"],
            registry=own,
        )
        self.engine_restarts_total = Counter(
            "candor_engine_restarts_total",
            "Times that the engine's thread had ended and another took its place",
            registry=own,
        )
        self.samples_kept_total = Counter(
            "candor_samples_kept_total",
            "Rows that are in the sample store and were not before",
            ["model"],
            registry=own,
        )
        self.samples_dropped_total = Counter(
            "candor_samples_dropped_total",
            "Rows that were to be kept and found the queue before the sample store full",
            registry=own,
        )
        self.sample_store_up = Gauge(
            "candor_sample_store_up",
            "0 where the sample store could not be used at the last attempt",
            registry=own,
        )

    def of(self, model: str) -> ModelMetrics:
        """What is counted of a model that is known to exist."""
        found = self._of_models.get(model)
        if found is None:
            found = self._of_models[model] = ModelMetrics(
                self.queue_seconds.labels(model),
                self.batch_rows.labels(model),
                self.sampling_seconds.labels(model),
                self.passes_total.labels(model),
                self.queue_depth.labels(model),
                self.engine_busy_seconds_total.labels(model),
            )
        return found

    def read_when_asked(self, queue_bytes: Callable[[], int], in_flight: Callable[[], int]) -> None:
        """What is not worth noting at every change."""
        self.queue_size.set_function(queue_bytes)
        self.requests_in_flight.set_function(in_flight)

    def answered(self, model: str, endpoint: str, code: int, elapsed_s: float) -> None:
        """See `Tally`."""
        key = (model, endpoint, code)
        found = self._answered.get(key)
        if found is None:
            found = self._answered[key] = (
                self.requests_total.labels(model, endpoint, str(code)),
                self.request_seconds.labels(model, endpoint),
            )
        requests, seconds = found
        requests.inc()
        seconds.observe(elapsed_s)

    def rejected(self, reason: str) -> None:
        """See `Tally`."""
        counter = self._rejected.get(reason)
        if counter is None:
            counter = self._rejected[reason] = self.rejected_total.labels(reason)
        counter.inc()

    def render(self) -> bytes:
        """The text that `/metrics` answers."""
        return generate_latest(self.registry)
