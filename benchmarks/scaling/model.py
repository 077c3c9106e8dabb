"""What a replica does a second, on paper: from what its threads take of each request."""

from __future__ import annotations

import math
from dataclasses import dataclass

_DAY_S = 86_400.0
_HOUR_S = 3600.0
_MILLION = 1e6
HTTP, ENGINE, NETWORK = "HTTP", "engine", "network"


@dataclass(frozen=True)
class Cost:
    """Seconds of a processor that requests of one kind take of a replica's two threads.

    Args:
        http_batch_s: of the thread that reads and writes, once for all requests of a batch.
        http_s: of the same, for each request.
        engine_batch_s: of the thread that computes, once for all requests of a batch.
        engine_s: of the same, for each request.
    """

    http_batch_s: float
    http_s: float
    engine_batch_s: float
    engine_s: float

    def http_of(self, together: float) -> float:
        """Of one request among so many."""
        return self.http_s + self.http_batch_s / together

    def engine_of(self, together: float) -> float:
        """Of one request among so many."""
        return self.engine_s + self.engine_batch_s / together

    def of(self, together: float) -> float:
        """Both threads together."""
        return self.http_of(together) + self.engine_of(together)


def split(alone_s: float, full_s: float, together: float) -> tuple[float, float]:
    """What a batch takes, and what each request in it adds.

    From alone = batch + each and full = batch / together + each. Where requests never go together,
    or are no cheaper together, all of it is each one's.

    Args:
        alone_s: a request that comes alone.
        full_s: one among `together`.
        together: requests of a batch, on average; at least 1.
    """
    if together <= 1 or alone_s <= full_s:
        return 0.0, full_s
    batch_s = min((alone_s - full_s) / (1 - 1 / together), full_s * together)
    return batch_s, full_s - batch_s / together


def bounds(
    cost: Cost, together: float, request_bytes: float, network_bytes_per_s: float
) -> dict[str, float]:
    """Requests a second at which each part is full that had a processor, or a link, of its own."""
    return {
        HTTP: _at_most(cost.http_of(together)),
        ENGINE: _at_most(cost.engine_of(together)),
        NETWORK: network_bytes_per_s / request_bytes,
    }


def first_full(limits: dict[str, float]) -> str:
    """The part that is full first."""
    return min(limits, key=lambda name: limits[name])


def capacity(cost: Cost, together: float, processors: float) -> float:
    """Requests a second of a replica that has so many processors for its two threads."""
    most = max(cost.of(together) / processors, cost.http_of(together), cost.engine_of(together))
    return _at_most(most)


def _at_most(seconds: float) -> float:
    """A second of what takes so long each."""
    return 1 / seconds if seconds else math.inf


@dataclass(frozen=True)
class Plan:
    """What is assumed of the traffic and of prices.

    Args:
        predictions_a_day: rows.
        peak: of the traffic over its mean.
        processor_hour: the price of a processor for an hour.
        network_bits_per_s: of the link before the replicas.
        spare: replicas more than needed, for one that fails or is being replaced.
    """

    predictions_a_day: float = 1e9
    peak: float = 2.0
    processor_hour: float = 0.04
    network_bits_per_s: float = 10e9
    spare: int = 1

    @property
    def rows_per_s(self) -> float:
        """At the peak."""
        return self.predictions_a_day / _DAY_S * self.peak

    @property
    def network_bytes_per_s(self) -> float:
        """One way: links carry as much the other way at the same time."""
        return self.network_bits_per_s / 8

    def replicas(self, rows_per_s: float, load: float) -> int:
        """How many at the peak.

        Args:
            rows_per_s: that one does when it is full.
            load: how full it may be, from 0 to 1.
        """
        return math.ceil(self.rows_per_s / (rows_per_s * load)) + self.spare

    def price_of_a_million(self, processor_s: float) -> float:
        """Rows.

        Args:
            processor_s: seconds of a processor that a row takes.
        """
        return self.hours_of_a_million(processor_s) * self.processor_hour

    @staticmethod
    def hours_of_a_million(processor_s: float) -> float:
        """Hours of a processor for a million rows."""
        return processor_s * _MILLION / _HOUR_S
