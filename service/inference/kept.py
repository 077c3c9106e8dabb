"""Passes that are kept, for the fields that no running sum gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from service.inference.progress import Rows

_NUMBERS_AT_ONCE = 2**20
"""Of passes × rows × outputs that are brought together, unless a single row has more."""


@dataclass(slots=True)
class KeptPasses:
    """Raw outputs of one request's passes in the network's own precision, as they came."""

    _parts: list[tuple[Rows, range, Tensor]] = field(default_factory=list)

    def add(self, rows: Rows, passes: range, outputs: Tensor) -> None:
        """Keep outputs [t, b, ...] of these rows of the request."""
        self._parts.append((rows, passes, outputs))

    def together(self, passes_B: Rows) -> Iterator[tuple[Rows, Tensor]]:
        """All passes of some rows at a time, [T, b, ...]; rows of one T come together.

        Args:
            passes_B: how many passes each row of the request has had.
        """
        for passes in np.unique(passes_B).tolist():
            rows = np.flatnonzero(passes_B == passes)
            single = self._parts[0][2][0, 0].numel()
            step = max(1, _NUMBERS_AT_ONCE // (passes * single))
            for start in range(0, len(rows), step):
                some = rows[start : start + step]
                yield some, self._gather(some, passes, len(passes_B))

    def _gather(self, rows: Rows, passes: int, all_rows: int) -> Tensor:
        first = self._parts[0][2]
        whole = first.new_empty(passes, len(rows), *first.shape[2:])
        place_of = np.full(all_rows, -1)
        place_of[rows] = np.arange(len(rows))
        for part_rows, numbers, outputs in self._parts:
            places = place_of[part_rows]
            here = np.flatnonzero(places >= 0)
            if len(here):
                into = places[here].tolist()
                whole[numbers.start : numbers.stop, into] = outputs[:, here.tolist()]
        return whole
