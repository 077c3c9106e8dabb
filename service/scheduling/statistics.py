"""What was computed of each version so far: requests, rows, batches and their time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from service.types import ModelRef

_EXACT_ROWS = 256


@dataclass(slots=True)
class Duration:
    """How often something was done and how long that took in all, in nanoseconds."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.ns += max(0, round(seconds * 1e9))


@dataclass(slots=True)
class VersionStatistics:
    """Of one version.

    Args:
        rows: that were answered.
        batches: that ran.
        last_s: when a request was last computed, seconds since 1970.
        success: requests that were answered, from the queue to the answer.
        fail: requests on which the model failed.
        queue: of the answered, how long they waited.
        compute: of the answered, how long the batch took that they ran in.
        by_rows: batches by how many rows they had; many are rounded up to a power of two, so that
            there are not as many entries as there may be rows.
    """

    rows: int = 0
    batches: int = 0
    last_s: float = 0.0
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute: Duration = field(default_factory=Duration)
    by_rows: dict[int, Duration] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ran:
    """A request that was in a batch.

    Args:
        rows: B.
        elapsed_s: since it was queued.
        failed: the model raised on it.
    """

    rows: int
    elapsed_s: float
    failed: bool


class Statistics:
    """Sums since the start, by version."""

    def __init__(self) -> None:
        self._versions: dict[ModelRef, VersionStatistics] = {}

    def add(self, ref: ModelRef, ran: Sequence[Ran], seconds: float) -> None:
        """A batch is over.

        Args:
            ref: of which version.
            ran: requests that were waited for to its end; none where nobody did.
            seconds: that it took.
        """
        if not ran:
            return
        found = self._versions.setdefault(ref, VersionStatistics())
        found.batches += 1
        found.last_s = time.time()
        for one in ran:
            if one.failed:
                found.fail.add(one.elapsed_s)
                continue
            found.rows += one.rows
            found.success.add(one.elapsed_s)
            found.queue.add(one.elapsed_s - seconds)
            found.compute.add(seconds)
        rows = sum(one.rows for one in ran)
        size = rows if rows <= _EXACT_ROWS else 1 << (rows - 1).bit_length()
        found.by_rows.setdefault(size, Duration()).add(seconds)

    def of(self, ref: ModelRef) -> VersionStatistics:
        """Those of a version, which may have computed nothing yet."""
        return self._versions.get(ref, VersionStatistics())
