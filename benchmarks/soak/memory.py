"""Memory of a process and its children over time, and whether it grows."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)
_BLOCKS = 12
"""Of equal length, whose means are fitted: samples of one moment and the next hang together, and
means of blocks hardly do."""


@dataclass(frozen=True)
class Growth:
    """A straight line through measurements.

    Args:
        mean: of all.
        whole: what the line grows over the time measured.
        at_most: upper end of its 95 % confidence interval.
        at_least: lower end.
    """

    mean: float
    whole: float
    at_least: float
    at_most: float


@dataclass
class Memory:
    """Proportional set size, which counts what processes share once."""

    times_s: list[float] = field(default_factory=list)
    used_bytes: list[int] = field(default_factory=list)

    async def watch(self, process: int, every_s: float, stop: asyncio.Event) -> None:
        """Measure until `stop` is set."""
        while not stop.is_set():
            self.times_s.append(time.perf_counter())
            self.used_bytes.append(used_bytes(process))
            try:
                await asyncio.wait_for(stop.wait(), every_s)
            except TimeoutError:
                continue


def used_bytes(process: int) -> int:
    """Of a process and all below it."""
    folder = Path(f"/proc/{process}")
    try:
        found = _PSS.search((folder / "smaps_rollup").read_text())
        children = [
            int(child)
            for thread in (folder / "task").iterdir()
            for child in (thread / "children").read_text().split()
        ]
    except (FileNotFoundError, ProcessLookupError):
        return 0
    own = 1024 * int(found[1]) if found else 0
    return own + sum(used_bytes(child) for child in children)


def growth(times_s: Sequence[float], values: Sequence[float]) -> Growth:
    """Least squares through the means of `_BLOCKS` blocks of the measurements.

    Args:
        times_s: [N], rising; N of at least `_BLOCKS`.
        values: [N].
    """
    times = np.array([part.mean() for part in np.array_split(np.asarray(times_s), _BLOCKS)])
    means = np.array([part.mean() for part in np.array_split(np.asarray(values), _BLOCKS)])
    line = stats.linregress(times, means)
    length = times_s[-1] - times_s[0]
    off = float(stats.t.ppf(0.975, _BLOCKS - 2) * line.stderr) * length
    whole = float(line.slope) * length
    return Growth(float(np.mean(values)), whole, whole - off, whole + off)
