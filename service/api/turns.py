"""How far the event loop is behind what it is sent."""

from __future__ import annotations

import asyncio
import time
from collections import deque

_LOOKED_AT = 4
"""Turns of which the shortest counts: one large body makes one long turn, too many requests make
all of them long."""

_SHORT_S = 0.0005
"""What is read in less time comes from a loop with little to do, which need not be timed further.
"""

_REMEMBERED_S = 1.0

_TURNS_BEFORE = 1.5
_TURNS_AFTER = 1.5
"""Of a request: it waits half a turn until it is read and another until the engine has it; the
engine's answer waits half a turn until it is seen and another until it is written."""


class Turns:
    """Times the turns of the running event loop while requests come.

    A turn reads what has come on all connections and then runs all tasks that can go on. What a
    request waits for on its way through a busy process is known by their length alone: nobody else
    knows how long it lay unread.
    """

    def __init__(self) -> None:
        self._turns: deque[float] = deque([0.0], maxlen=_LOOKED_AT)
        self._timed_s = 0.0
        self._timing = False

    def note(self) -> None:
        """A request was read."""
        if not self._timing:
            self._timing = True
            asyncio.get_running_loop().call_soon(self._read, time.monotonic())

    def before_s(self) -> float:
        """Estimate of the seconds from when a request has come until the engine has it."""
        return _TURNS_BEFORE * self._turn_s()

    def after_s(self) -> float:
        """Estimate of the seconds from the engine's answer to the client's."""
        return _TURNS_AFTER * self._turn_s()

    def _turn_s(self) -> float:
        recent = time.monotonic() - self._timed_s <= _REMEMBERED_S
        return min(self._turns) if recent else 0.0

    def _read(self, began_s: float) -> None:
        """All connections have been read, and tasks begin."""
        if time.monotonic() - began_s < _SHORT_S:
            self._note(0.0)
        else:
            asyncio.get_running_loop().call_soon(self._ended, began_s)

    def _ended(self, began_s: float) -> None:
        self._note(time.monotonic() - began_s)

    def _note(self, seconds: float) -> None:
        self._timing = False
        self._timed_s = time.monotonic()
        self._turns.append(seconds)
