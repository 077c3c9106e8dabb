"""Samples on their way to the store: written behind, so that no prediction waits for a disk."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from service.errors import StoreError
from service.store.contract import NewSample
from service.store.samples import SampleStore

log = logging.getLogger(__name__)

_BATCH = 500
"""Samples of one transaction, at most."""

_GATHER_S = 0.1
"""How long the first of a batch waits for others."""

TEND_EVERY_S = 60.0
"""How often the store is tended at least, whether or not something is to be written."""

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 10.0
"""Between attempts where the store cannot be used, twice as long each time."""


class SampleWriter:
    """A bounded queue before the store, and the thread that empties it.

    A sample is kept once `kept` was told of it: its transaction is then on the disk. What waits is
    lost when the process is killed. Where the store cannot be used, what waits is tried again until
    it can, and what finds the queue full is dropped and counted.

    Args:
        store: one that can be reached now or later.
        most_bytes: of inputs that may wait.
        kept: told of every batch that was written, with how many of each model were new.
        dropped: told how many found the queue full.
        tend: what is to be done to the store now and then, on the writer's thread: after every
            batch, and every `TEND_EVERY_S` otherwise.
    """

    def __init__(
        self,
        store: SampleStore,
        most_bytes: int,
        kept: Callable[[Sequence[NewSample], Counter[str]], None],
        dropped: Callable[[int], None],
        tend: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._most_bytes = most_bytes
        self._kept = kept
        self._dropped = dropped
        self._tend = tend
        self._waiting: deque[NewSample] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._until_s = 0.0
        self._troubled = False
        self._written = 0
        self._thread = threading.Thread(target=self._work, name="samples", daemon=True)
        self._thread.start()

    @property
    def troubled(self) -> bool:
        """Whether the store could not be used at the last attempt."""
        return self._troubled

    def offer(self, samples: Sequence[NewSample]) -> None:
        """Have samples kept; returns at once, whatever becomes of them."""
        refused = 0
        with self._changed:
            for sample in samples:
                size = sample.input.nbytes
                if self._closing or self._waiting_bytes + size > self._most_bytes:
                    refused += 1
                    continue
                self._waiting.append(sample)
                self._waiting_bytes += size
            self._changed.notify_all()
        if refused:
            self._dropped(refused)

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was offered before is written; whether it was in time."""
        with self._changed:
            goal = self._written + len(self._waiting)
            return self._changed.wait_for(lambda: self._written >= goal, timeout_s)

    def close(self, timeout_s: float) -> bool:
        """Write what waits and end; whether all of it was written in time."""
        with self._changed:
            self._closing = True
            self._until_s = time.monotonic() + timeout_s
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            return not self._waiting

    def _work(self) -> None:
        wait_s = 0.0
        while (batch := self._next()) is not None:
            try:
                if batch:
                    new = self._store.keep(batch)
                    self._take_away(len(batch))
                    self._kept(batch, new)
                self._tend()
            except StoreError as error:
                if not self._troubled:
                    log.error("samples wait, %d of them: %s", len(self._waiting), error.message)
                self._troubled = True
                wait_s = min(2 * wait_s or _FIRST_WAIT_S, _LONGEST_WAIT_S)
                if not self._wait_before_trying_again(wait_s):
                    return
                continue
            if self._troubled:
                log.warning("samples are kept again")
            self._troubled, wait_s = False, 0.0

    def _wait_before_trying_again(self, wait_s: float) -> bool:
        """Whether to try again: once it was closed, as long as whoever closed it waits."""
        with self._changed:
            if not self._closing:
                self._changed.wait_for(lambda: self._closing, wait_s)
                return True
        time.sleep(_FIRST_WAIT_S)
        return time.monotonic() < self._until_s

    def _next(self) -> list[NewSample] | None:
        """What is to be written next, left in the queue until it is; None at the end.

        Empty where nothing came for so long that the store is to be tended.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing, TEND_EVERY_S)
            if not self._waiting:
                return None if self._closing else []
            self._changed.wait_for(lambda: len(self._waiting) >= _BATCH or self._closing, _GATHER_S)
            return [self._waiting[place] for place in range(min(_BATCH, len(self._waiting)))]

    def _take_away(self, count: int) -> None:
        with self._changed:
            for _ in range(count):
                self._waiting_bytes -= self._waiting.popleft().input.nbytes
            self._written += count
            self._changed.notify_all()
