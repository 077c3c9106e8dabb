"""The thread that computes, and nothing else: steps in their order, a slice of each at a time.

What `run_in_executor` does with two futures, a callback on each and a look at what kind of function
it was given, is one queue here. That matters because it happens while the engine waits for the
interpreter's lock to begin its next step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

from service.errors import EngineFailure
from service.scheduling.computation import Computation, Outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Slice:
    """What a turn of the engine brought.

    Args:
        seconds: that it took.
        outcomes: of the step's jobs, in their order; None where it was put aside unfinished.
    """

    seconds: float
    outcomes: list[Outcome] | None


Told = Callable[[Slice], None]
"""Gets the slice, on the event loop."""


@dataclass(slots=True)
class _Turn:
    computation: Computation
    loop: asyncio.AbstractEventLoop
    told: Told
    longer: float
    chunk_s: float | None = None
    """When its current chunk began."""
    delivered: bool = False

    def deliver(self, slice_: Slice) -> None:
        """Tell, once: a thread may end after it told and before it noted so."""
        if not self.delivered:
            self.delivered = True
            self.told(slice_)


class EngineThread:
    """Computes steps one after the other and tells the event loop of each.

    Should its thread end, by whatever ends threads, `revive` starts another, and only what was
    being computed is lost: turns leave the queue when they are over, not when they begin.

    Args:
        slice_s: seconds after which a step is put aside if others wait.
        others_wait: whether anything does beside what was submitted. Any thread may ask.
    """

    def __init__(
        self, slice_s: float = 0.0, others_wait: Callable[[], bool] = lambda: False
    ) -> None:
        self._slice_s = slice_s
        self._others_wait = others_wait
        self._turns: deque[_Turn] = deque()
        self._news: deque[tuple[_Turn, Slice]] = deque()
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._closed = False
        self._thread = self._start()

    def submit(self, computation: Computation, told: Told, longer: float = 1.0) -> None:
        """Have a step computed after those that were submitted before; call from the loop.

        Args:
            computation: of the step.
            told: gets what a turn of it brought.
            longer: so many times `slice_s` it is not put aside.
        """
        self._turns.append(_Turn(computation, asyncio.get_running_loop(), told, longer))
        self._bell.put(None)

    def look(self) -> None:
        """Tell of what is over; call from the loop.

        It is done anyway, when the loop comes to it. A loop that has a thousand requests to read
        before that would keep the engine waiting for its next step meanwhile.
        """
        # What is over by now: to tell of it starts the next, which may be over as soon.
        for _ in range(len(self._news)):
            turn, slice_ = self._news.popleft()
            try:
                turn.deliver(slice_)
            except Exception:
                log.exception("what the engine computed could not be handed on")

    def close(self) -> None:
        """End once the current slice is over; what waits is not computed."""
        self._closed = True
        self._bell.put(None)

    @property
    def busy_s(self) -> float:
        """Seconds since the current chunk began; 0 where there is none."""
        try:
            turn = self._turns[0]
        except IndexError:
            return 0.0
        # A turn that was told of is over, though its thread may not have come to note it.
        if turn.chunk_s is None or turn.delivered:
            return 0.0
        return time.monotonic() - turn.chunk_s

    def revive(self) -> bool:
        """Start another thread if this one has ended without being told to; whether it had."""
        if self._closed or self._thread.is_alive():
            return False
        log.critical("the engine's thread ended; another takes its place")
        if self._turns and self._turns[0].chunk_s is not None:
            lost = self._turns.popleft()
            failure = EngineFailure("the engine's thread ended while it computed this request")
            none = [Outcome(None, failure, 0.0) for _ in lost.computation.jobs]
            self._tell(lost, Slice(0.0, none))
        self._thread = self._start()
        self._bell.put(None)
        return True

    def _start(self) -> threading.Thread:
        # A step that never ends must not keep the process from ending.
        thread = threading.Thread(target=self._work, name="engine", daemon=True)
        thread.start()
        return thread

    def _work(self) -> None:
        while not self._closed:
            self._bell.get()
            while self._turns and not self._closed:
                turn = self._turns[0]
                self._compute(turn)
                self._turns.popleft()

    def _compute(self, turn: _Turn) -> None:
        turn.chunk_s = begun_s = time.monotonic()
        until_s = begun_s + turn.longer * self._slice_s

        def enough() -> bool:
            # It is asked between chunks, however long a step that nobody waits behind goes on.
            turn.chunk_s = now_s = time.monotonic()
            return now_s >= until_s and (len(self._turns) > 1 or self._others_wait())

        outcomes = turn.computation.advance(enough)
        self._tell(turn, Slice(time.monotonic() - begun_s, outcomes))

    def _tell(self, turn: _Turn, slice_: Slice) -> None:
        self._news.append((turn, slice_))
        # A loop that was closed meanwhile has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            turn.loop.call_soon_threadsafe(self.look)
