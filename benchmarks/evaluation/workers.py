"""Parts of the evaluation side by side, each in a process with one thread, and one progress bar.

What a part computes depends on neither the number of processes nor the order in which they take
the parts.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from multiprocessing.sharedctypes import Synchronized
from typing import Any, TypeVar

import torch
from tqdm import tqdm  # type: ignore[import-untyped]

Advance = Callable[[float], None]
"""Says which further share of a part, between 0 and 1, is done."""

T = TypeVar("T")

_REFRESH_S = 0.5
_BAR = "{desc} {percentage:3.0f}% |{bar}| {elapsed}, about {remaining} left"

_KEEP_MEMORY = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")
"""Otherwise glibc gives a step's memory back and faults it in again at the next: half the time."""

_done: Synchronized[float] | None = None


class Workers:
    """Processes that run parts.

    Args:
        processes: how many.
        title: of the progress bar.
    """

    def __init__(self, processes: int, title: str = "evaluation") -> None:
        self._title = title
        for threshold in _KEEP_MEMORY:
            os.environ.setdefault(threshold, str(2**30))
        context = multiprocessing.get_context("spawn")
        self._done: Synchronized[float] = context.Value("d", 0.0)
        self._pool = ProcessPoolExecutor(processes, context, _start, (self._done,))

    def submit(self, cost: float, part: Callable[..., T], *arguments: object) -> Future[T]:
        """Run `part(*arguments, advance)` in a process.

        Args:
            cost: of the part in the progress bar; say, seconds.
            part: a function at the top of a module.
            arguments: that can be pickled.
        """
        return self._pool.submit(_run, cost, part, arguments)

    def run(self, sections: Sequence[Callable[[], T]], cost: float) -> list[T]:
        """What all sections return, each a sequence of parts that it submits and waits for.

        Args:
            sections: called in threads of this process.
            cost: of all their parts.
        """
        with ThreadPoolExecutor(len(sections)) as threads:
            waiting = [threads.submit(section) for section in sections]
            try:
                self._show(waiting, cost)
            except BaseException:
                self._pool.shutdown(wait=False, cancel_futures=True)
                raise
            return [section.result() for section in waiting]

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)

    def _show(self, waiting: Sequence[Future[Any]], cost: float) -> None:
        with tqdm(total=round(cost, 1), desc=self._title, bar_format=_BAR) as bar:
            while True:
                done, left = wait(waiting, _REFRESH_S)
                for section in done:
                    section.result()
                bar.n = min(round(self._done.value, 1), bar.total)
                bar.refresh()
                if not left:
                    return


def _start(done: Synchronized[float]) -> None:
    global _done
    _done = done
    torch.set_num_threads(1)


def _run(cost: float, part: Callable[..., T], arguments: Sequence[object]) -> T:
    assert _done is not None
    counter = _done
    left = 1.0

    def advance(share: float) -> None:
        nonlocal left
        share = min(share, left)
        left -= share
        with counter.get_lock():
            counter.value += cost * share

    result = part(*arguments, advance)
    advance(1.0)
    return result
