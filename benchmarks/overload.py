"""Candor under more load than it can serve, over HTTP: `make bench`.

Requests arrive at random times (Poisson, seeded), whether earlier ones were answered or not, each
with a deadline. They come through a gateway with at most 2,048 connections, which passes on what is
left of the time (`X-Request-Timeout`) and does not send what is too late. *Goodput* is the answers
within their deadline, a second. The sustainable rate is measured first, with as many connections as
keep the engine busy; then arrivals come at a half, one, two and five times that rate. What should
hold: at five times, goodput stays at 90 % of the best or more, because what cannot be served in
time is refused before its body is read, and what was accepted and became late is not computed. The
rates take turns, round by round, and each one's best round counts, so that a busy moment of the
machine spoils nobody.

The load generator has one processor to itself (with `--generators`, several and as many processes)
and the server the others. On one processor a refusal takes the server some 20 to 50 microseconds,
by how much of its caches the engine's steps leave, and at five times the load there are four for
each answer. So three cases, by what an answer costs: some ten milliseconds, some two, and half a
one. With `--workers`, and processors for them, other processes than the engine's do the refusing.

Retry-After is tried on a burst: five seconds of arrivals in one. Half of the clients come back when
they were told, half after a fixed quarter of a second, each up to three times.

python -m benchmarks.overload --output result.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.load import JSON, Load, post, press
from benchmarks.machine import machine, versions
from benchmarks.servers import candor

TIMES = (0.5, 1.0, 2.0, 5.0)
DEADLINE_S = 1.0
_CONNECTIONS = 32
_MOST_CONNECTIONS = 2048
_TRIES = 3
_IMPATIENT_S = 0.25
_BURST_S = 5.0
_ANSWERED = 200
_NO_ANSWER = 0
_REFUSED = (429, 503)


@dataclass(frozen=True)
class Case:
    """What is sent: so many rows of 60 features, T passes each."""

    name: str
    rows: int
    passes: int

    def request(self, deadline_s: float) -> bytes:
        """As it goes over the wire, to be answered within so many seconds."""
        before, after = self._parts
        return before + b"%.3f" % deadline_s + after

    @cached_property
    def _parts(self) -> tuple[bytes, bytes]:
        """What is before the deadline, and what is behind it."""
        body = {"inputs": torch.zeros(self.rows, 60).tolist(), "passes": self.passes}
        head = {**JSON, "X-Request-Timeout": "@"}
        before, _, after = post(json.dumps(body).encode(), head).partition(b"@")
        return before, after


CASES = (
    Case("1 row, T = 2,000", 1, 2000),
    Case("1 row, T = 300", 1, 300),
    Case("1 row, T = 50", 1, 50),
)


@dataclass(frozen=True)
class Answer:
    """One answer: its status, seconds since its request was due, and its Retry-After."""

    status: int
    seconds: float
    retry_after_s: float


@dataclass(frozen=True)
class Seen:
    """What a run at one rate saw."""

    times: float
    offered_per_s: float
    goodput_per_s: float
    refused: float
    late: float
    p50_s: float
    p99_s: float
    generator_share: float


class _Connection(asyncio.Protocol):
    """Sends one request at a time; answers are read by their Content-Length."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, float]] | None = None
        self._got = b""
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self, request: bytes) -> asyncio.Future[tuple[int, float]]:
        """Status and Retry-After of the answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._got = b""
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, blank, body = self._got.partition(b"\r\n\r\n")
        if not blank or self._answer is None:
            return
        if len(body) < int(_header(head, b"content-length") or 0):
            return
        answer, self._answer = self._answer, None
        if not answer.done():
            answer.set_result((int(head[9:12]), float(_header(head, b"retry-after") or 0.0)))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed a connection"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _header(head: bytes, name: bytes) -> bytes | None:
    _, found, rest = head.lower().partition(b"\r\n" + name + b": ")
    return rest.partition(b"\r\n")[0] if found else None


class _Pool:
    """Connections that are kept; as many as are needed at a time, up to a limit."""

    def __init__(self, port: int, most: int) -> None:
        self._port = port
        self._idle: list[_Connection] = []
        self._free = asyncio.Semaphore(most)

    async def ask(self, case: Case, due_s: float) -> Answer:
        """Send a request that was due at a time of the loop's clock, unless it is too late."""
        async with self._free:
            return await self._ask(case, due_s)

    async def _ask(self, case: Case, due_s: float) -> Answer:
        loop = asyncio.get_running_loop()
        while True:
            waited_s = loop.time() - due_s
            if waited_s >= DEADLINE_S:
                return Answer(_NO_ANSWER, waited_s, 0.0)
            request = case.request(DEADLINE_S - waited_s)
            while self._idle and self._idle[-1].closed:
                self._idle.pop()
            kept = bool(self._idle)
            if kept:
                connection = self._idle.pop()
            else:
                _, connection = await loop.create_connection(_Connection, "127.0.0.1", self._port)
            try:
                status, retry_after_s = await connection.ask(request)
            except ConnectionError:
                # The server may close a connection that was idle just when it is used again.
                if kept:
                    continue
                return Answer(_NO_ANSWER, loop.time() - due_s, 0.0)
            self._idle.append(connection)
            return Answer(status, loop.time() - due_s, retry_after_s)

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


def arrivals(rate_per_s: float, seconds: float, seed: int) -> Iterator[float]:
    """Times of a Poisson process, from 0 on."""
    draw = random.Random(seed)
    at = draw.expovariate(rate_per_s)
    while at < seconds:
        yield at
        at += draw.expovariate(rate_per_s)


@dataclass(frozen=True)
class Share:
    """What one of several generators does of all that is sent.

    Args:
        port: of the server.
        number: of the generator, from 0.
        of: so many.
    """

    port: int
    number: int
    of: int

    def connections(self) -> _Pool:
        return _Pool(self.port, _MOST_CONNECTIONS // self.of)

    def press(self, case: Case, seconds: float) -> Load:
        """As many connections as keep the engine busy."""
        request = case.request(deadline_s=30.0)
        return press(self.port, request, max(1, _CONNECTIONS // self.of), seconds)

    def offer(self, case: Case, rate_per_s: float, seconds: float) -> tuple[list[Answer], float]:
        """Arrivals at its share of a rate: their answers, and how much of a core it took."""
        used_s = time.process_time()
        answers = asyncio.run(self._offer(case, rate_per_s / self.of, seconds))
        return answers, (time.process_time() - used_s) / seconds

    async def _offer(self, case: Case, rate_per_s: float, seconds: float) -> list[Answer]:
        loop = asyncio.get_running_loop()
        pool = self.connections()
        began_s = loop.time()
        tasks = []
        for at in arrivals(rate_per_s, seconds, seed=self.number):
            due_s = began_s + at
            if due_s > loop.time():
                await asyncio.sleep(due_s - loop.time())
            tasks.append(loop.create_task(pool.ask(case, due_s)))
        answers = await asyncio.gather(*tasks)
        pool.close()
        return answers

    def burst(self, case: Case, clients: int) -> dict[str, list[tuple[bool, int]]]:
        """Its share of so many clients within a second: of those that come back as they were told,
        and of those that do after a fixed time, whether each was served and how often it asked."""
        return asyncio.run(self._burst(case, clients // self.of))

    async def _burst(self, case: Case, clients: int) -> dict[str, list[tuple[bool, int]]]:
        loop = asyncio.get_running_loop()
        pool = self.connections()
        draw = random.Random(self.number)
        began_s = loop.time()
        names = [tuple(_WAITS)[number % len(_WAITS)] for number in range(clients)]
        results = await asyncio.gather(
            *(_come_back(pool, case, began_s + draw.random(), _WAITS[name]) for name in names)
        )
        pool.close()
        return {
            wanted: [result for result, name in zip(results, names, strict=True) if name == wanted]
            for wanted in _WAITS
        }


async def _come_back(
    pool: _Pool, case: Case, due_s: float, wait_s: Callable[[Answer], float]
) -> tuple[bool, int]:
    """Whether a client that comes back was served in the end, and how often it asked."""
    loop = asyncio.get_running_loop()
    await asyncio.sleep(max(0.0, due_s - loop.time()))
    for attempt in range(1, _TRIES + 1):
        answer = await pool.ask(case, loop.time())
        if answer.status == _ANSWERED:
            return True, attempt
        await asyncio.sleep(wait_s(answer))
    return False, _TRIES


def seen(times: float, seconds: float, parts: Sequence[tuple[list[Answer], float]]) -> Seen:
    """A run of so many seconds at a multiple of the sustainable rate, from what each generator's
    `Share.offer` gave."""
    answers = [answer for some, _ in parts for answer in some]
    good = sorted(a.seconds for a in answers if a.status == _ANSWERED and a.seconds <= DEADLINE_S)
    codes = Counter(answer.status for answer in answers)
    refused = sum(codes[code] for code in _REFUSED)
    return Seen(
        times,
        len(answers) / seconds,
        len(good) / seconds,
        refused / len(answers),
        1 - (len(good) + refused) / len(answers),
        good[len(good) // 2] if good else 0.0,
        good[int(0.99 * len(good))] if good else 0.0,
        max(share for _, share in parts),
    )


_WAITS: dict[str, Callable[[Answer], float]] = {
    "as_told": lambda answer: answer.retry_after_s,
    "fixed": lambda _: _IMPATIENT_S,
}
"""Seconds until a client asks again."""


class Generators:
    """Processes that send together.

    Args:
        processes: that run them.
        port: of the server.
        count: how many.
    """

    def __init__(self, processes: Executor, port: int, count: int) -> None:
        self._processes = processes
        self._shares = [Share(port, number, count) for number in range(count)]

    def press(self, case: Case, seconds: float) -> float:
        """Answers a second with as many connections as keep the engine busy."""
        loads = self._processes.map(Share.press, *self._with(case, seconds))
        return sum(load.requests_per_s for load in loads)

    def offer(self, case: Case, times: float, sustainable: float, seconds: float) -> Seen:
        """A run at a multiple of the sustainable rate."""
        words = self._with(case, times * sustainable, seconds)
        return seen(times, seconds, [*self._processes.map(Share.offer, *words)])

    def burst(self, case: Case, clients: int) -> dict[str, float]:
        """Of each kind of client the share that was served, and how often one asked."""
        parts = [*self._processes.map(Share.burst, *self._with(case, clients))]
        found = {}
        for name in _WAITS:
            own = [result for part in parts for result in part[name]]
            found[f"{name}_served"] = sum(served for served, _ in own) / len(own)
            found[f"{name}_asked"] = sum(asked for _, asked in own) / len(own)
        return found

    def _with(self, *words: Any) -> tuple[Sequence[Any], ...]:
        """Each generator's arguments, as `Executor.map` takes them."""
        return self._shares, *([word] * len(self._shares) for word in words)


@contextmanager
def _server(workers: int, count: int) -> Iterator[Generators]:
    """Candor on all processors but those of the generators."""
    usable = sorted(os.sched_getaffinity(0))
    own, its = set(usable[-count:]), set(usable[:-count]) or set(usable)
    spawn = multiprocessing.get_context("spawn")
    os.sched_setaffinity(0, its)
    try:
        environment = {"CANDOR_PRECISION": "float32", "CANDOR_WORKERS": str(workers)}
        with candor(**environment, CANDOR_LOG_LEVEL="error") as port:
            os.sched_setaffinity(0, own)
            with ProcessPoolExecutor(count, mp_context=spawn) as processes:
                yield Generators(processes, port, count)
    finally:
        os.sched_setaffinity(0, usable)


def measure(
    case: Case, seconds: float, rounds: int, workers: int = 1, count: int = 1
) -> dict[str, Any]:
    """All rates of one case, in rounds; of each rate the run of the best goodput."""
    with _server(workers, count) as generators:
        generators.press(case, 2.0)
        sustainable = generators.press(case, seconds)
        runs = [
            [generators.offer(case, times, sustainable, seconds) for times in TIMES]
            for _ in range(rounds)
        ]
        best_runs = [
            max(of_rate, key=lambda run: run.goodput_per_s) for of_rate in zip(*runs, strict=True)
        ]
        burst = generators.burst(case, int(_BURST_S * sustainable))
    best = max(run.goodput_per_s for run in best_runs)
    return {
        "case": case.name,
        "sustainable_per_s": sustainable,
        "deadline_s": DEADLINE_S,
        "runs": [asdict(run) for run in best_runs],
        "goodput_at_5": best_runs[-1].goodput_per_s / best,
        "retry_after": burst,
    }


def main() -> None:
    """Print a table of each case and write all where `--output` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the result as JSON here")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="see CANDOR_WORKERS")
    parser.add_argument("--generators", type=int, default=1, help="processes that send")
    parser.add_argument("--passes", type=int, nargs="*", help="only the cases of so many")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    arguments = parser.parse_args()
    console = Console(width=140)
    cases = []
    for case in CASES:
        if arguments.passes and case.passes not in arguments.passes:
            continue
        cases.append(
            measure(
                case, arguments.seconds, arguments.rounds, arguments.workers, arguments.generators
            )
        )
        console.print(_table(cases[-1]))
    if arguments.output:
        result = {
            "machine": machine(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "workers": arguments.workers,
            "generators": arguments.generators,
            "cases": cases,
        }
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _table(case: dict[str, Any]) -> Table:
    table = Table(
        "load", "offered/s", "in time/s", "refused", "late", "median ms", "99th ms", "generator",
        title=f"{case['case']}: {case['sustainable_per_s']:.0f} a second sustainable; at 5 times "
        f"{case['goodput_at_5']:.0%} of the best; burst {case['retry_after']}",
    )  # fmt: skip
    for run in case["runs"]:
        table.add_row(
            f"{run['times']:g}x",
            *(f"{run[key]:.0f}" for key in ("offered_per_s", "goodput_per_s")),
            *(f"{run[key]:.1%}" for key in ("refused", "late")),
            *(f"{1e3 * run[key]:.0f}" for key in ("p50_s", "p99_s")),
            f"{run['generator_share']:.0%}",
        )
    return table


if __name__ == "__main__":
    main()
