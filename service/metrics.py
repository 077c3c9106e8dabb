"""What the service tells Prometheus. Labels only ever hold names of known models."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import version as installed
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from service import __version__
from service.collectors import SECONDS, AnsweredRequests, UncertaintyHistogram
from service.types import ModelRef

_ROWS = tuple(2.0**n for n in range(13))


class Tally(Protocol):
    """Counts requests, in whichever process they were answered."""

    def answered(
        self, model: str, version: int | None, endpoint: str, code: int, elapsed_s: float
    ) -> None:
        """A request.

        Args:
            model: one that exists, or empty.
            version: that was chosen; None where none was.
            endpoint: a route's path.
            code: HTTP status.
            elapsed_s: from its first byte to its answer.
        """
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
        own = self.registry = CollectorRegistry()
        ProcessCollector(registry=own)
        build = Gauge("candor_build_info", "Always 1", ["version", "torch"], registry=own)
        build.labels(__version__, installed("torch")).set(1)
        self.requests = AnsweredRequests()
        own.register(self.requests)
        self.queue_seconds = Histogram(
            "candor_queue_seconds",
            "Time a request waited for the engine, in seconds",
            ["model"],
            buckets=SECONDS,
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
            buckets=SECONDS,
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
        self.drift_bin_rows = Gauge(
            "candor_drift_bin_rows",
            "Rows of that window in each bin of the calibration, from that of the lowest values, 1",
            ["model", "version", "measure", "bin"],
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

    def keep_versions(self, refs: Collection[ModelRef]) -> None:
        """Say nothing any more of all versions but these."""
        self.uncertainty.keep(refs)
        self.requests.keep(refs)

    def answered(
        self, model: str, version: int | None, endpoint: str, code: int, elapsed_s: float
    ) -> None:
        """See `Tally`."""
        self.requests.answered(model, version, endpoint, code, elapsed_s)

    def rejected(self, reason: str) -> None:
        """See `Tally`."""
        counter = self._rejected.get(reason)
        if counter is None:
            counter = self._rejected[reason] = self.rejected_total.labels(reason)
        counter.inc()

    def render(self) -> bytes:
        """The text that `/metrics` answers."""
        return generate_latest(self.registry)
