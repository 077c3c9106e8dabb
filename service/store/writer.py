"""Samples on their way to the store: written behind, so that no prediction waits for a disk."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from service.errors import SampleRefused, StoreError
from service.store.contract import NewRows, NewSample
from service.store.samples import SampleStore

log = logging.getLogger(__name__)

_BATCH_ROWS = 500
_BATCH_BYTES = 2**24
"""Of one transaction, at most."""

ROW_BYTES = 1024
"""What a row takes beside its input, about."""

_GATHER_S = 0.1
"""How long the first of a batch waits for others."""

TEND_EVERY_S = 60.0
"""How often the store is tended at least, whether or not something is to be written."""

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 10.0
"""Between attempts where the store cannot be used, twice as long each time."""

_LONGEST_ATTEMPT_S = 20.0
"""From which on a store that does not answer counts as one that cannot be used."""


class SampleWriter:
    """A bounded queue before the store, and the thread that empties it.

    A sample is kept once `kept` was told of it: its transaction is then on the disk. What waits is
    lost when the process is killed. Where the store cannot be used, what waits is tried again until
    it can, and what finds the queue full is dropped and counted, as is a row that the database does
    not take.

    Args:
        store: one that can be reached now or later.
        most_bytes: of rows that may wait.
        kept: told of every batch that was written, with how many of each model were new.
        dropped: told how many rows will not be kept.
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
        self._waiting: deque[NewRows] = deque()
        self._waiting_bytes = 0
        self._writing: list[NewRows] = []
        self._changed = threading.Condition()
        self._closing = False
        self._until_s = 0.0
        self._troubled = False
        self._attempt_s: float | None = None
        self._offered = self._settled = 0
        self._thread = threading.Thread(target=self._work, name="samples", daemon=True)
        self._thread.start()

    @property
    def troubled(self) -> bool:
        """Whether the store could not be used at the last attempt, or does not answer this one."""
        began_s = self._attempt_s
        silent = began_s is not None and time.monotonic() - began_s > _LONGEST_ATTEMPT_S
        return self._troubled or silent

    def room(self, row_bytes: int) -> int:
        """How many rows of this size may wait now."""
        return max(0, (self._most_bytes - self._waiting_bytes) // (row_bytes + ROW_BYTES))

    def offer(self, rows: NewRows) -> None:
        """Have rows kept; returns at once, whatever becomes of them."""
        if not len(rows):
            return
        size = _row_bytes(rows)
        with self._changed:
            taken = 0 if self._closing else min(len(rows), self.room(size - ROW_BYTES))
            for piece in _pieces(rows.some(slice(taken)), size):
                self._waiting.append(piece)
                self._waiting_bytes += size * len(piece)
                self._offered += len(piece)
            self._changed.notify_all()
        if taken < len(rows):
            self._dropped(len(rows) - taken)

    def flush(self, timeout_s: float) -> bool:
        """Wait until what was offered before is settled; whether it was in time."""
        with self._changed:
            goal = self._offered
            return self._changed.wait_for(lambda: self._settled >= goal, timeout_s)

    def discard(self, unwanted: Callable[[NewRows], NDArray[np.bool_]], timeout_s: float) -> int:
        """Forget rows that wait, and wait until those that are being written are there.

        Args:
            unwanted: says which rows, [K].
            timeout_s: seconds for those that are being written.

        Returns:
            How many were forgotten; those that are there now are not among them.

        Raises:
            StoreError: some are still being written after the timeout.
        """
        gone = 0
        with self._changed:
            in_hand = {id(rows) for rows in self._writing}
            awaited: set[int] = set()
            left: deque[NewRows] = deque()
            for rows in self._waiting:
                gone_K = unwanted(rows)
                count = int(gone_K.sum())
                if not count or id(rows) in in_hand:
                    left.append(rows)
                    awaited |= {id(rows)} if count else set()
                    continue
                gone += count
                self._settled += count
                self._waiting_bytes -= count * _row_bytes(rows)
                if count < len(rows):
                    left.append(rows.some(~gone_K))
            self._waiting = left
            self._changed.notify_all()

            def over() -> bool:
                return awaited.isdisjoint(map(id, self._writing))

            if not self._changed.wait_for(over, timeout_s):
                raise StoreError("samples are being written, and the database does not answer")
            # An attempt that failed leaves them waiting.
            again = any(id(rows) in awaited for rows in self._waiting)
        return gone + (self.discard(unwanted, timeout_s) if again else 0)

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
            self._attempt_s = time.monotonic()
            try:
                if batch:
                    self._write([sample for rows in batch for sample in rows.samples()])
                self._tend()
            except Exception as error:
                # Whatever it is: a thread that ended would keep nothing ever after.
                self._say(error)
                wait_s = min(2 * wait_s or _FIRST_WAIT_S, _LONGEST_WAIT_S)
            else:
                if self._troubled:
                    log.warning("samples are kept again")
                self._troubled, wait_s = False, 0.0
            finally:
                self._attempt_s = None
                with self._changed:
                    self._writing = []
                    self._changed.notify_all()
            if self._troubled and not self._wait_before_trying_again(wait_s):
                return

    def _write(self, batch: Sequence[NewSample]) -> None:
        """In one transaction; rows that the database refuses one by one are dropped."""
        refused = 0
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            try:
                self._kept(part, self._store.keep(part))
            except SampleRefused as error:
                if len(part) == 1:
                    refused += 1
                    [sample] = part
                    log.error(
                        "a sample of %s is dropped: %s",
                        *(sample.model, error.message),
                        extra={
                            "request_id": sample.request_id,
                            "model": sample.model,
                            "version": sample.version,
                        },
                    )
                else:
                    middle = len(part) // 2
                    waiting += [part[middle:], part[:middle]]
        if refused:
            self._dropped(refused)
        with self._changed:
            self._settle(self._writing)

    def _say(self, error: Exception) -> None:
        if not self._troubled:
            with self._changed:
                waiting = sum(map(len, self._waiting))
            if isinstance(error, StoreError):
                log.error("samples wait, %d of them: %s", waiting, error.message)
            else:
                log.error("samples wait, %d of them", waiting, exc_info=error)
        self._troubled = True

    def _wait_before_trying_again(self, wait_s: float) -> bool:
        """Whether to try again: once it was closed, as long as whoever closed it waits."""
        with self._changed:
            if not self._closing:
                self._changed.wait_for(lambda: self._closing, wait_s)
                return True
        time.sleep(_FIRST_WAIT_S)
        return time.monotonic() < self._until_s

    def _next(self) -> list[NewRows] | None:
        """What is to be written next, left in the queue until it is; None at the end.

        Empty where nothing came for so long that the store is to be tended.
        """

        def enough() -> bool:
            return self._closing or sum(map(len, self._waiting)) >= _BATCH_ROWS

        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing, TEND_EVERY_S)
            if self._waiting:
                self._changed.wait_for(enough, _GATHER_S)
            count = size = 0
            for rows in self._waiting:
                count += len(rows)
                size += _row_bytes(rows) * len(rows)
                if self._writing and (count > _BATCH_ROWS or size > _BATCH_BYTES):
                    break
                self._writing.append(rows)
            return None if self._closing and not self._writing else list(self._writing)

    def _settle(self, done: Sequence[NewRows]) -> None:
        """Take rows off the queue; under the lock."""
        numbers = {id(rows) for rows in done}
        left: deque[NewRows] = deque()
        for rows in self._waiting:
            if id(rows) in numbers:
                self._waiting_bytes -= _row_bytes(rows) * len(rows)
                self._settled += len(rows)
            else:
                left.append(rows)
        self._waiting = left
        self._changed.notify_all()


def _row_bytes(rows: NewRows) -> int:
    return rows.inputs.nbytes // max(1, len(rows)) + ROW_BYTES


def _pieces(rows: NewRows, row_bytes: int) -> Iterator[NewRows]:
    """Parts that fit one transaction."""
    most = max(1, min(_BATCH_ROWS, _BATCH_BYTES // row_bytes))
    for start in range(0, len(rows), most):
        yield rows.some(slice(start, start + most))
