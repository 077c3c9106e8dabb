"""Which rows run which passes next, when several requests run together. Holds no tensors.

A row leaves when its own request has what it needs, so requests of any T share a batch: passes run
in segments that end wherever a request ends or looks whether some of its rows may stop.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Segment:
    """Passes to run next, of these rows of all the requests' rows."""

    rows: Rows
    passes: range


class Progress:
    """Passes that each row has had.

    Args:
        sizes: rows of each request.
        stops: for each request the numbers of passes, ascending, at which some of its rows may be
            finished; at the last all are.
    """

    def __init__(self, sizes: Sequence[int], stops: Sequence[Sequence[int]]) -> None:
        ends = np.cumsum(sizes)
        self.slices = [slice(e - size, e) for e, size in zip(ends.tolist(), sizes, strict=True)]
        self._stops = stops
        self.passes = np.zeros(sum(sizes), dtype=np.int64)
        self._live = np.ones(sum(sizes), dtype=np.bool_)
        self.live_requests = list(range(len(sizes)))
        """Requests that have rows which are not finished."""

    def next(self) -> Segment | None:
        """What to run next: the rows that are furthest behind; None where all are finished."""
        if not self.live_requests:
            return None
        start = int(self.passes[self._live].min())
        rows = np.flatnonzero(self._live & (self.passes == start))
        coming = [self._stop_after(request, start) for request in self.live_requests]
        return Segment(rows, range(start, min(coming)))

    def ran(self, rows: Rows, passes: range) -> None:
        """Note that these rows have had these passes."""
        self.passes[rows] = passes.stop

    def lacks(self, segment: Segment) -> bool:
        """Whether some row of the segment has not had all its passes."""
        return bool(self.passes[segment.rows].min() < segment.passes.stop)

    def at_stop(self, request: int, passes: int) -> Rows:
        """Rows of the request that have had exactly so many passes, if it may stop there."""
        place = self.slices[request]
        if passes not in self._stops[request]:
            return np.empty(0, dtype=np.intp)
        here = self._live[place] & (self.passes[place] == passes)
        rows: Rows = np.flatnonzero(here) + place.start
        return rows

    def finish(self, request: int, rows: Rows) -> None:
        """These rows of the request need no more passes."""
        self._live[rows] = False
        if not self._live[self.slices[request]].any():
            self.live_requests.remove(request)

    def drop(self, requests: Iterable[int]) -> None:
        """Nobody waits for these requests any more."""
        for request in requests:
            self._live[self.slices[request]] = False
            self.live_requests.remove(request)

    def _stop_after(self, request: int, passes: int) -> int:
        stops = self._stops[request]
        return stops[bisect_right(stops, passes)]
