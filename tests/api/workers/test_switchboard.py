"""What a worker asks is answered by the engine of another process, and by no other version."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.api.engine import Call, Computed
from service.api.workers import switchboard
from service.api.workers.remote import Line, RemoteEngine, RemoteTally
from service.api.workers.switchboard import Extension
from service.errors import ClientLeft, EngineFailure, ModelNotReady, QueueFull
from service.registry.verified import VerifiedModel
from service.types import Priority
from tests.api.workers.test_messages import version

CALL = Call("id", None, ("mean",), False, 30.0)
INPUTS = np.arange(6, dtype=np.float32).reshape(3, 2)


class Engine:
    """Doubles its inputs, or does what it is told."""

    draining = False

    def __init__(self) -> None:
        self.serving = version()
        self.computed: list[VerifiedModel] = []
        self.error: Exception | None = None
        self.never = False
        self.cancelled = asyncio.Event()

    def check_door(self, timeout_s: float, priority: Priority) -> None:
        pass

    async def resolve(self, name: str | None, version: int | str | None, key: str) -> VerifiedModel:
        return self.serving

    async def compute(
        self,
        model: VerifiedModel,
        inputs: NDArray[Any],
        call: Call,
        left: Callable[[], Awaitable[object]],
    ) -> Computed:
        self.computed.append(model)
        if self.error is not None:
            raise self.error
        if self.never:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        return Computed({"mean": 2 * inputs, "std": None}, call.plan)


class Counted:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, int]] = []
        self.reasons: list[str] = []

    def answered(self, model: str, endpoint: str, code: int, elapsed_s: float) -> None:
        self.requests.append((model, endpoint, code))

    def rejected(self, reason: str) -> None:
        self.reasons.append(reason)


class Ends:
    """Both ends of a channel, in one process."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.counted = Counted()
        self.line = Line()
        self.remote = RemoteEngine(self.line)
        self.tally = RemoteTally(self.line)
        self.gone: list[Extension] = []
        self.extension = Extension(
            self.engine, self.counted, _no_app, lambda: None, self.gone.append
        )


async def _no_app(*_: object) -> None:
    raise AssertionError("nothing is passed on here")


@asynccontextmanager
async def ends() -> AsyncIterator[Ends]:
    both = Ends()
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    await loop.create_connection(lambda: both.extension.channel, sock=one)
    await loop.create_connection(lambda: both.line.channel, sock=other)
    try:
        yield both
    finally:
        both.line.channel.close()
        both.extension.channel.close()
        await both.line.gone.wait()


async def never() -> None:
    await asyncio.Event().wait()


async def ask(both: Ends, left: Callable[[], Awaitable[object]] = never) -> Computed:
    model = await both.remote.resolve("mine", None, "id")
    return await both.remote.compute(model, INPUTS, CALL, left)


def test_an_answer_comes_back_whole() -> None:
    async def run() -> Computed:
        async with ends() as both:
            return await ask(both)

    answer = asyncio.run(run())
    assert answer.fields["std"] is None
    np.testing.assert_array_equal(answer.fields["mean"], 2 * INPUTS)
    assert answer.plan == CALL.plan


def test_what_began_on_a_version_is_computed_on_it_though_another_serves_by_then() -> None:
    async def run() -> None:
        async with ends() as both:
            old = both.engine.serving
            model = await both.remote.resolve("mine", None, "id")
            both.engine.serving = version(parameters=11)
            assert model.parameters == old.parameters
            await both.remote.compute(model, INPUTS, CALL, never)
            assert both.engine.computed == [old]
            assert (await both.remote.resolve("mine", None, "id")).parameters == 11

    asyncio.run(run())


def test_versions_that_nobody_asked_for_lately_are_let_go_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(switchboard, "_HELD_S", 0.05)

    async def run() -> None:
        async with ends() as both:
            model = await both.remote.resolve("mine", None, "id")
            while both.extension._loads or both.remote._models:
                await asyncio.sleep(0.01)
            with pytest.raises(ModelNotReady, match="unloaded meanwhile"):
                await both.remote.compute(model, INPUTS, CALL, never)
            # It is told of again, and serves on.
            await ask(both)

    asyncio.run(run())


def test_a_version_that_was_just_asked_for_is_held() -> None:
    async def run() -> None:
        async with ends() as both:
            model = await both.remote.resolve("mine", None, "id")
            both.extension._let_go()
            await both.remote.compute(model, INPUTS, CALL, never)

    asyncio.run(run())


@pytest.mark.parametrize("error", [QueueFull("full", retry_after_s=3.5), EngineFailure("raised")])
def test_errors_that_were_raised_on_purpose_are_raised_again(error: Exception) -> None:
    async def run() -> None:
        async with ends() as both:
            both.engine.error = error
            await ask(both)

    with pytest.raises(type(error), match=str(error)) as raised:
        asyncio.run(run())
    assert vars(raised.value) == vars(error)


def test_a_bug_is_logged_where_it_is_and_ends_no_channel(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with ends() as both:
            both.engine.error = KeyError("lost")
            with pytest.raises(RuntimeError, match="KeyError"):
                await ask(both)
            both.engine.error = None
            await ask(both)

    with caplog.at_level(logging.ERROR):
        asyncio.run(run())
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_for_a_client_that_left_nothing_is_computed_any_more() -> None:
    async def run() -> None:
        async with ends() as both:
            both.engine.never = True

            async def leaves() -> None:
                while not both.engine.computed:
                    await asyncio.sleep(0.01)

            with pytest.raises(ClientLeft):
                await ask(both, leaves)
            await both.engine.cancelled.wait()

    asyncio.run(run())


def test_what_a_worker_counted_is_counted_before_a_report_is_over() -> None:
    async def run() -> Counted:
        async with ends() as both:
            both.tally.answered("mine", "/predict", 200, 0.1)
            both.tally.answered("mine", "/predict", 429, 0.1)
            both.tally.rejected("queue_full")
            await both.extension.report()
            return both.counted

    counted = asyncio.run(run())
    assert counted.requests == [("mine", "/predict", 200), ("mine", "/predict", 429)]
    assert counted.reasons == ["queue_full"]


def test_when_a_worker_is_gone_nothing_is_computed_for_it_and_nobody_waits_for_its_report() -> None:
    async def run() -> None:
        async with ends() as both:
            both.engine.never = True
            asked = asyncio.create_task(ask(both))
            while not both.engine.computed:
                await asyncio.sleep(0.01)
            both.line.channel.close()
            await both.extension.report()
            await both.engine.cancelled.wait()
            assert both.gone == [both.extension]
            with pytest.raises(ModelNotReady):
                await asked

    asyncio.run(run())
