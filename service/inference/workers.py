"""Threads that compute on one core each, where that is faster than all cores on one thing."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """Threads whose operations are not spread over further threads.

    Operations of a few microseconds lose much of what several cores gain to waiting for each other
    after every one of them; whole runs of a network side by side wait once.

    Args:
        count: of threads.
    """

    def __init__(self, count: int) -> None:
        everybody = threading.Barrier(count + 1)
        usual = torch.get_num_threads()

        def begin() -> None:
            torch.set_num_threads(1)
            # The first to ask in a thread gives it what was last set anywhere: that is still one.
            torch.get_num_threads()
            everybody.wait()

        self._count = count
        self._threads = ThreadPoolExecutor(count, "sampling", initializer=begin)
        for _ in range(count):
            self._threads.submit(int)
        everybody.wait()
        # It is a thread's own, and what threads to come begin with.
        torch.set_num_threads(usual)

    def __len__(self) -> int:
        return self._count

    def in_order(
        self, function: Callable[[Item], Result], items: Iterable[Item]
    ) -> Generator[Result]:
        """What `function` gives for each item, in their order; one more than threads are begun.

        An item is asked for only when a thread is free or about to be. An error is raised in its
        place; then, and when nobody wants more, what has begun is waited for.
        """
        coming = iter(items)
        begun: deque[Future[Result]] = deque()
        try:
            while True:
                while len(begun) <= self._count and (item := next(coming, _END)) is not _END:
                    begun.append(self._threads.submit(function, item))  # type: ignore[arg-type]
                if not begun:
                    return
                yield begun.popleft().result()
        finally:
            for future in begun:
                if not future.cancel():
                    future.exception()


_END = object()


@functools.cache
def workers(count: int) -> Workers:
    """The process's own, of so many threads."""
    return Workers(count)
