"""Samples on their way to the store: written behind, so that no prediction waits for a disk."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from service.errors import StoreError
from service.store.contract import NewSample
from service.store.samples import SampleStore

log = logging.getLogger(__name__)

_BATCH = 500
"""Samples of one transaction, at most."""

_GATHER_S = 0.1
"""How long the first of a batch waits for others."""

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 10.0
"""Between attempts where the store cannot be used, twice as long each time."""


class SampleWriter:
    """A bounded queue before the store, and the thread that empties it.

    A sample is kept once `kept` was told of it: its transaction is then on the disk. What waits is
    lost when the process is killed. Where the store cannot be used, what waits is tried again until
    it can, and what finds the queue full is dropped and counted.

    Args:
        store: prepared, or one that will be once it can be reached.
        most_bytes: of inputs that may wait.
        kept: told of every batch that was written, with how many of it were new.
        dropped: told how many found the queue full.
    """

    def __init__(
        self,
        store: SampleStore,
        most_bytes: int,
        kept: Callable[[Sequence[NewSample], int], None],
        dropped: Callable[[int], None],
    ) -> None:
        self._store = store
        self._most_bytes = most_bytes
        self._kept = kept
        self._dropped = dropped
        self._waiting: deque[NewSample] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._prepared = False
        self._troubled = False
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
            self._changed.notify()
        if refused:
            self._dropped(refused)

    def close(self, timeout_s: float) -> bool:
        """Write what waits and end; whether all of it was written in time."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout_s)
        with self._changed:
            return not self._waiting

    def _work(self) -> None:
        wait_s = _FIRST_WAIT_S
        while (batch := self._next()) is not None:
            try:
                if not self._prepared:
                    self._store.prepare()
                    self._prepared = True
                new = self._store.keep(batch)
            except StoreError as error:
                if not self._troubled:
                    log.error("samples wait, %d of them: %s", len(self._waiting), error.message)
                self._troubled = True
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, wait_s)
                    if self._closing and wait_s >= _LONGEST_WAIT_S:
                        return
                wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
                continue
            if self._troubled:
                log.warning("samples are kept again")
            self._troubled, wait_s = False, _FIRST_WAIT_S
            self._take_away(len(batch))
            self._kept(batch, new)

    def _next(self) -> list[NewSample] | None:
        """What is to be written next, left in the queue until it is; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return None
            self._changed.wait_for(lambda: len(self._waiting) >= _BATCH or self._closing, _GATHER_S)
            return [self._waiting[place] for place in range(min(_BATCH, len(self._waiting)))]

    def _take_away(self, count: int) -> None:
        with self._changed:
            for _ in range(count):
                self._waiting_bytes -= self._waiting.popleft().input.nbytes
