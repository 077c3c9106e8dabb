"""Every so often a model gets other weights while it serves; sometimes a file that is broken."""

from __future__ import annotations

import asyncio
import itertools
import time
from bisect import bisect_right
from collections import Counter
from typing import Any

import orjson

from benchmarks.soak.repository import WEIGHTS, Repository
from benchmarks.soak.wire import Connections, request

_BROKEN_EVERY = 5
_LOAD_EVERY = 3


class Served:
    """Which weights a model may answer with, at any time so far."""

    def __init__(self) -> None:
        self._since_s = [0.0]
        self._valid = [frozenset({WEIGHTS[0]})]

    @property
    def now(self) -> frozenset[str]:
        """Of a request that is sent now."""
        return self._valid[-1]

    def change(self, valid: frozenset[str]) -> None:
        """From now on these."""
        self._since_s.append(time.perf_counter())
        self._valid.append(valid)

    def between(self, sent_s: float, answered_s: float) -> frozenset[str]:
        """Of a request that was under way then; in seconds of `time.perf_counter`."""
        first = bisect_right(self._since_s, sent_s) - 1
        last = bisect_right(self._since_s, answered_s)
        return frozenset().union(*self._valid[first:last])


class Reloads:
    """Puts other weights into one model after the other, and has the server take them.

    Args:
        repository: that the server serves; all models hold the first weights.
        connections: to it.
        every_s: seconds from one to the next.
    """

    def __init__(self, repository: Repository, connections: Connections, every_s: float) -> None:
        self._repository = repository
        self._connections = connections
        self._every_s = every_s
        self._models = itertools.cycle(repository.models)
        self._numbers = itertools.count(1)
        self.served = {name: Served() for name in repository.models}
        self.done: Counter[str] = Counter()
        self.codes: Counter[tuple[str, int]] = Counter()
        """Of the requests for them, by endpoint and status, as the metrics count them."""
        self.longest_s = 0.0
        self.wrong: list[str] = []

    async def go_on(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; the last is finished."""
        while not stop.is_set():
            try:
                await asyncio.wait_for(stop.wait(), self._every_s)
            except TimeoutError:
                await self._one(next(self._models), next(self._numbers))

    async def _one(self, model: str, number: int) -> None:
        broken = number % _BROKEN_EVERY == 0
        served = self.served[model]
        [old] = served.now
        new = old if broken else next(w for w in WEIGHTS if w != old)
        if broken:
            self._repository.spoil(model)
        else:
            self._repository.put(model, new)
            served.change(frozenset({old, new}))
        started = time.perf_counter()
        status, answer = await self._ask(model, "reload" if number % _LOAD_EVERY else "load")
        self.longest_s = max(self.longest_s, time.perf_counter() - started)
        if broken:
            self._repository.put(model, old)
        served.change(frozenset({new}))
        self.done["broken" if broken else "good"] += 1
        states = [version["state"] for version in answer.get("versions", [])]
        if not broken and (status, states) != (200, ["ready"]):
            self.wrong.append(f"reload of {model} answered {status}: {answer}")

    async def _ask(self, model: str, what: str) -> tuple[int, dict[str, Any]]:
        before, after = request("POST", f"/models/{model}/{what}", {}, b"")
        answer = await self._connections.ask(before + b"soak-reload" + after)
        self.codes[f"/models/{{name}}/{what}", answer.status] += 1
        return answer.status, orjson.loads(answer.body)
