"""What of the metrics is counted by whole batches, and what of it is told by version.

Values wait in lists until somebody asks or many have come: counting each by itself would cost more
than all else that a request leaves in the metrics.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from service.types import ModelRef

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Bounds of what takes a request's time."""

_UNCERTAINTY = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)
_MANY = 10_000
"""Values that wait to be counted before somebody asks, so that they do not fill the memory."""


class _Distribution:
    """How many values were up to each bound, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = np.zeros(len(bounds) + 1, dtype=np.int64)
        self.sum = 0.0

    def add(self, values_B: ArrayLike) -> None:
        values_B = np.asarray(values_B, dtype=np.float64)
        places_B = np.searchsorted(self._bounds, values_B, side="left")
        self._counts += np.bincount(places_B, minlength=len(self._counts))
        self.sum += float(values_B.sum())

    def merge(self, other: _Distribution) -> None:
        self._counts += other._counts
        self.sum += other.sum

    def buckets(self) -> list[tuple[str, int]]:
        """As Prometheus has them: cumulative."""
        bounds = [*map(str, self._bounds), "+Inf"]
        return list(zip(bounds, np.cumsum(self._counts).tolist(), strict=True))


class UncertaintyHistogram(Collector):
    """`candor_uncertainty{model,measure}`, and the same by version."""

    def __init__(self) -> None:
        # By model, version and measure.
        self._waiting: defaultdict[tuple[str, int, str], list[NDArray[Any]]] = defaultdict(list)
        self._waiting_rows = 0
        self._counted: dict[tuple[str, int, str], _Distribution] = {}
        self._gone: dict[tuple[str, str], _Distribution] = {}
        """Of versions that are no more: what is counted of a model never falls."""

    def observe(self, ref: ModelRef, measure: str, values: NDArray[Any]) -> None:
        """Count values [B, D...], of which those that are not finite are passed over.

        Of a dense output the mean of a row's places counts, so that each row counts once.
        """
        # At once, for the places of ten thousand images would fill the memory.
        self._waiting[ref.name, ref.version, measure].append(_one_a_row(values))
        self._waiting_rows += len(values)
        if self._waiting_rows > _MANY:
            self._count()

    def keep(self, refs: Collection[ModelRef]) -> None:
        """Forget all versions but these; their models' sums stay."""
        self._count()
        for key in [key for key in self._counted if ModelRef(*key[:2]) not in refs]:
            model, _, measure = key
            gone = self._gone.setdefault((model, measure), _Distribution(_UNCERTAINTY))
            gone.merge(self._counted.pop(key))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """What Prometheus reads."""
        self._count()
        of_models: dict[tuple[str, str], _Distribution] = {}
        by_version = HistogramMetricFamily(
            "candor_version_uncertainty",
            "Uncertainty of answered rows, by version",
            labels=["model", "version", "measure"],
        )
        for (model, version, measure), counted in self._counted.items():
            of_models.setdefault((model, measure), _Distribution(_UNCERTAINTY)).merge(counted)
            labels = (model, str(version), measure)
            by_version.add_metric(labels, counted.buckets(), counted.sum)
        for key, counted in self._gone.items():
            of_models.setdefault(key, _Distribution(_UNCERTAINTY)).merge(counted)
        of_all = HistogramMetricFamily(
            "candor_uncertainty", "Uncertainty of answered rows", labels=["model", "measure"]
        )
        for key, counted in of_models.items():
            of_all.add_metric(key, counted.buckets(), counted.sum)
        yield of_all
        yield by_version

    def _count(self) -> None:
        for key, batches in self._waiting.items():
            values = np.concatenate(batches)
            counted = self._counted.setdefault(key, _Distribution(_UNCERTAINTY))
            counted.add(values[np.isfinite(values)])
        self._waiting.clear()
        self._waiting_rows = 0


class AnsweredRequests(Collector):
    """`candor_requests_total{model,endpoint,code}` and how long they took, and, of those that a
    version was chosen for, the same by version."""

    def __init__(self) -> None:
        # By model, version, endpoint and code.
        self._waiting: defaultdict[tuple[str, int | None, str, int], list[float]]
        self._waiting = defaultdict(list)
        self._waiting_requests = 0
        self._of_models = _Requests[str]()
        self._of_versions = _Requests[tuple[str, int]]()

    def answered(
        self, model: str, version: int | None, endpoint: str, code: int, elapsed_s: float
    ) -> None:
        """A request, and the version that was chosen for it, if one was."""
        self._waiting[model, version, endpoint, code].append(elapsed_s)
        self._waiting_requests += 1
        if self._waiting_requests > _MANY:
            self._count()

    def keep(self, refs: Collection[ModelRef]) -> None:
        """Forget all versions but these; their models' sums stay."""
        self._count()
        self._of_versions.keep(lambda version: ModelRef(*version) in refs)

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        """What Prometheus reads."""
        self._count()
        yield from self._of_models.families(
            "candor_request", "Requests answered", "", ["model"], lambda model: [model]
        )
        yield from self._of_versions.families(
            "candor_version_request",
            "Requests answered for which a version was chosen",
            " by version",
            ["model", "version"],
            lambda version: [version[0], str(version[1])],
        )

    def _count(self) -> None:
        for (model, version, endpoint, code), taken in self._waiting.items():
            self._of_models.add(model, endpoint, code, taken)
            if version is not None:
                self._of_versions.add((model, version), endpoint, code, taken)
        self._waiting.clear()
        self._waiting_requests = 0


OwnerT = TypeVar("OwnerT")


class _Requests(Generic[OwnerT]):
    """How many requests of each owner, endpoint and code there were, and how long they took."""

    def __init__(self) -> None:
        self._codes: defaultdict[tuple[OwnerT, str, int], int] = defaultdict(int)
        self._seconds: dict[tuple[OwnerT, str], _Distribution] = {}

    def add(self, owner: OwnerT, endpoint: str, code: int, taken: Sequence[float]) -> None:
        self._codes[owner, endpoint, code] += len(taken)
        self._seconds.setdefault((owner, endpoint), _Distribution(SECONDS)).add(taken)

    def keep(self, stays: Callable[[OwnerT], bool]) -> None:
        for key in [key for key in self._codes if not stays(key[0])]:
            del self._codes[key]
        for timed in [timed for timed in self._seconds if not stays(timed[0])]:
            del self._seconds[timed]

    def families(
        self,
        name: str,
        counted: str,
        how: str,
        labels: Sequence[str],
        values: Callable[[OwnerT], Sequence[str]],
    ) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        requests = CounterMetricFamily(f"{name}s", counted, labels=[*labels, "endpoint", "code"])
        for (owner, endpoint, code), count in self._codes.items():
            requests.add_metric([*values(owner), endpoint, str(code)], count)
        yield requests
        seconds = HistogramMetricFamily(
            f"{name}_seconds",
            f"Time from a request's first byte to its answer{how}, in seconds",
            labels=[*labels, "endpoint"],
        )
        for (owner, endpoint), taken in self._seconds.items():
            seconds.add_metric([*values(owner), endpoint], taken.buckets(), taken.sum)
        yield seconds


def _one_a_row(values: NDArray[Any]) -> NDArray[np.float64]:
    if values.ndim == 1:
        return values
    mean_B: NDArray[np.float64] = values.reshape(len(values), -1).mean(axis=1, dtype=np.float64)
    return mean_B
