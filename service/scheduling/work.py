"""One request's share of the engine, as the scheduler sees it: sizes and times, no tensors."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Work:
    """One request that waits.

    Args:
        number: unique.
        model: its model's name; models share the engine's time.
        batch_key: works of equal keys may run in one batch; None runs alone.
        rows: B.
        passes: T; 1 for a deterministic pass.
        size_bytes: of its inputs.
        queued_s: when it came (monotonic clock).
    """

    number: int
    model: str
    batch_key: Hashable | None
    rows: int
    passes: int
    size_bytes: int
    queued_s: float

    @property
    def cost(self) -> int:
        """Rows × passes."""
        return self.rows * self.passes


@dataclass(frozen=True, slots=True)
class Step:
    """Works that run together next, all of one batch key, in the order they came."""

    works: tuple[Work, ...]

    @property
    def rows(self) -> int:
        return sum(work.rows for work in self.works)

    @property
    def cost(self) -> int:
        """Rows × passes of all works."""
        return sum(work.cost for work in self.works)
