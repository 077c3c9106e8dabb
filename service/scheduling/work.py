"""One request's share of the engine, as the scheduler sees it: sizes and times, no tensors."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from service.types import Priority


class Need(NamedTuple):
    """What a work needs of the engine.

    Args:
        cost: rows × passes.
        alone: whether it gets a step of its own.
    """

    cost: float
    alone: bool


@dataclass(frozen=True, slots=True)
class Work:
    """One request that waits. Times are those of one monotonic clock.

    Args:
        number: unique.
        model: its model's name; models share the engine's time.
        batch_key: works of equal keys may run in one batch; None runs alone.
        rows: B.
        passes: T; 1 for a deterministic pass.
        size_bytes: of its inputs.
        queued_s: when it came.
        begin_by_s: it is given up if it still waits then.
        deadline_s: nobody waits for its answer after that.
        priority: of its request.
        waited_s: seconds that were over when it came.
        cost: rows × passes.
        need: what it needs of the engine.
    """

    number: int
    model: str
    batch_key: Hashable | None
    rows: int
    passes: int
    size_bytes: int
    queued_s: float
    begin_by_s: float = math.inf
    deadline_s: float = math.inf
    priority: Priority = Priority.NORMAL
    waited_s: float = 0.0
    cost: int = field(init=False)
    need: Need = field(init=False)

    def __post_init__(self) -> None:
        # Asked for some thirty times while it waits.
        object.__setattr__(self, "cost", self.rows * self.passes)
        object.__setattr__(self, "need", Need(self.cost, self.batch_key is None))


@dataclass(frozen=True, slots=True)
class Step:
    """Works that run together next, all of one batch key, in the order they go.

    Args:
        works: they.
        longer: so many times as long as others it may take before it is put aside.
    """

    works: tuple[Work, ...]
    longer: float = 1.0

    @property
    def number(self) -> int:
        """That of its first work: a step's own, since every work is in one step."""
        return self.works[0].number

    @property
    def rows(self) -> int:
        return sum(work.rows for work in self.works)

    @property
    def cost(self) -> int:
        """Rows × passes of all works."""
        return sum(work.cost for work in self.works)
