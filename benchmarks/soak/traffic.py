"""The load: good requests, bad ones, and clients that leave, each with exactly one outcome."""

from __future__ import annotations

import asyncio
import random
import time
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.soak.bad import Bad
from benchmarks.soak.cases import Case
from benchmarks.soak.reloads import Served
from benchmarks.soak.wire import Answer, Connections

BAD_SHARE = 0.01
LEAVING_SHARE = 0.01
_LAST_ANSWERS_S = 60.0
"""After the last request was sent; what has no answer by then is lost."""
_EXAMPLES = 20
_LEFT = (200, 400, 499)
"""What a server may note of a client that left: an answer, half a body, or that it left."""


@dataclass
class Tally:
    """What became of the requests.

    Args:
        sent: all of them.
        outcomes: `right`, `refused` (the documented error of a bad request), `left`, `wrong` (a 200
            with other numbers), `unexpected` (another status), `lost` (no answer at all).
        codes: requests by endpoint and status, as the metrics count them.
        left: requests of clients that left, by endpoint.
        started_s: when good requests were due, in seconds since the load began.
        latencies_s: of these, from when they were due to their answer.
        examples: of what went wrong.
    """

    sent: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    codes: Counter[tuple[str, int]] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    started_s: array[float] = field(default_factory=lambda: array("d"))
    latencies_s: array[float] = field(default_factory=lambda: array("d"))
    examples: list[str] = field(default_factory=list)

    def note(self, outcome: str, kind: str, example: str = "") -> None:
        """One request's outcome."""
        self.outcomes[outcome] += 1
        self.kinds[f"{kind}: {outcome}"] += 1
        # Of each outcome some: a few wrong answers are not to drown in refusals.
        if example and self.outcomes[outcome] <= _EXAMPLES:
            self.examples.append(f"{outcome}, {kind}: {example}")


class Traffic:
    """Sends requests of all kinds, drawn from a seed.

    Args:
        connections: to the server.
        cases: good requests.
        bad: bad ones.
        served: which weights each model may answer with.
        seed: of what is sent when.
    """

    def __init__(
        self,
        connections: Connections,
        cases: Sequence[Case],
        bad: Sequence[Bad],
        served: Mapping[str, Served],
        seed: int = 0,
    ) -> None:
        self._connections = connections
        self._cases = cases
        self._bad = bad
        self._served = served
        self._random = random.Random(seed)
        self._sums = [sum(case.share for case in cases[: n + 1]) for n in range(len(cases))]
        self._begun_s: float | None = None
        self.tally = Tally()

    async def closed(self, connections: int, seconds: float) -> float:
        """So many at a time, each sending its next at once; returns answers a second."""
        started = time.perf_counter()
        before = self.tally.sent

        async def one() -> None:
            while time.perf_counter() < started + seconds:
                await self._one(time.perf_counter())

        await asyncio.gather(*(one() for _ in range(connections)))
        return (self.tally.sent - before) / (time.perf_counter() - started)

    async def open(self, rate: float, seconds: float) -> None:
        """A Poisson process of `rate` requests a second, whatever the answers take."""
        self._begun_s = due = time.perf_counter()
        until = due + seconds
        tasks: set[asyncio.Task[None]] = set()
        while (due := due + self._random.expovariate(rate)) < until:
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            task = asyncio.create_task(self._one(due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            _, waiting = await asyncio.wait(tasks, timeout=_LAST_ANSWERS_S)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _one(self, due_s: float) -> None:
        self.tally.sent += 1
        number = b"soak-%d" % self.tally.sent
        drawn = self._random.random()
        if drawn < LEAVING_SHARE:
            await self._leave(self._case(), number)
        elif drawn < LEAVING_SHARE + BAD_SHARE:
            await self._ask_badly(self._random.choice(self._bad), number)
        else:
            await self._ask(self._case(), number, due_s)

    def _case(self) -> Case:
        [case] = self._random.choices(self._cases, cum_weights=self._sums)
        return case

    async def _ask(self, case: Case, number: bytes, due_s: float) -> None:
        sent_s = time.perf_counter()
        answer = await self._answer(case, number)
        if answer is None:
            return
        answered_s = time.perf_counter()
        if answer.status != 200:
            said = answer.body[:300].decode(errors="replace")
            self.tally.note("unexpected", case.name, f"{answer.status} {said}")
            return
        weights = case.weights_of(answer)
        valid = self._served[case.model].between(sent_s, answered_s)
        if weights in valid:
            self.tally.note("right", case.name)
        else:
            said = f"{case.model} answered with {weights or 'no known'} weights"
            self.tally.note("wrong", case.name, f"{said}; {' or '.join(valid)} were served")
        if self._begun_s is not None:
            self.tally.started_s.append(due_s - self._begun_s)
            self.tally.latencies_s.append(answered_s - due_s)

    async def _ask_badly(self, bad: Bad, number: bytes) -> None:
        answer = await self._answer(bad, number)
        if answer is None:
            return
        if bad.fits(answer):
            self.tally.note("refused", bad.name)
        else:
            said = answer.body[:300].decode(errors="replace")
            self.tally.note("unexpected", bad.name, f"{answer.status} {said}")

    async def _answer(self, asked: Case | Bad, number: bytes) -> Answer | None:
        try:
            answer = await self._connections.ask(asked.before + number + asked.after)
        except OSError as error:
            self.tally.note("lost", asked.name, str(error))
            return None
        except asyncio.CancelledError:
            self.tally.note("lost", asked.name, f"no answer after {_LAST_ANSWERS_S:g} s")
            raise
        self.tally.codes[asked.endpoint, answer.status] += 1
        if answer.headers.get(b"x-request-id") != number:
            self.tally.note("wrong", asked.name, "the answer is that of another request")
            return None
        return answer

    async def _leave(self, case: Case, number: bytes) -> None:
        """In the middle of the body, or while the answer is waited for."""
        content = case.before + number + case.after
        within_body = self._random.random() < 0.5
        if within_body:
            content = content[: -(len(case.after) // 2)]
        try:
            await self._connections.leave(content, self._random.uniform(0.0, 0.02))
        except OSError as error:
            self.tally.note("lost", case.name, str(error))
            return
        self.tally.left[case.endpoint] += 1
        self.tally.note("left", "in its body" if within_body else "waiting")


def unaccounted(tally: Tally, counted: Mapping[tuple[str, int], int]) -> list[str]:
    """Where a server's counts are not those of the load; empty where they agree.

    What clients that left came to is known up to its status only.

    Args:
        tally: of the load.
        counted: by the server, by endpoint and status.
    """
    found = []
    for endpoint in sorted({e for e, _ in tally.codes} | {e for e, _ in counted} | {*tally.left}):
        more = {
            code: count
            for code in {c for e, c in (*tally.codes, *counted) if e == endpoint}
            if (count := counted.get((endpoint, code), 0) - tally.codes[endpoint, code])
        }
        left = tally.left[endpoint]
        fitting = all(count > 0 and code in _LEFT for code, count in more.items())
        if not fitting or sum(more.values()) != left:
            found.append(
                f"{endpoint}: the server counted {more} more than were answered; {left} left"
            )
    return found
