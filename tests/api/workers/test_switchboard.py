"""What a worker asks is answered by the engine of another process, and by no other version."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service import logs
from service.api.engine import Call, Computed
from service.api.workers import messages, process, remote, switchboard
from service.api.workers.channel import Channel, Head
from service.api.workers.remote import Line, RemoteEngine, RemoteTally
from service.api.workers.switchboard import Extension, Switchboard
from service.errors import ClientLeft, DeadlineUnreachable, EngineFailure, ModelNotReady, QueueFull
from service.registry.verified import VerifiedModel
from service.scheduling.admission import Outlook
from service.scheduling.attendant import Watch, by_waiting
from service.settings import load_settings
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
        self.unresolved: Exception | None = None
        self.never = False
        self.cancelled = asyncio.Event()

    def look(self) -> None:
        pass

    def check_door(self, timeout_s: float, priority: Priority, coming: int) -> None:
        pass

    async def resolve(self, name: str | None, version: int | str | None, key: str) -> VerifiedModel:
        if self.unresolved is not None:
            raise self.unresolved
        return self.serving

    async def compute(
        self,
        model: VerifiedModel,
        inputs: NDArray[Any],
        call: Call,
        left: Watch | None,
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
        self.requests: list[tuple[str, int | None, str, int]] = []
        self.reasons: list[str] = []

    def answered(
        self, model: str, version: int | None, endpoint: str, code: int, elapsed_s: float
    ) -> None:
        self.requests.append((model, version, endpoint, code))

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
        self.outlooks: list[Outlook] | None = None
        self.switchboard = Switchboard(1, lambda: self.outlooks)
        self.extension = Extension(
            *(self.engine, self.counted, _no_app, lambda: None, self.switchboard.busy),
            self.gone.append,
        )
        self.switchboard.extensions.add(self.extension)


async def _no_app(*_: object) -> None:
    raise AssertionError("nothing is passed on here")


@asynccontextmanager
async def ends() -> AsyncIterator[Ends]:
    both = Ends()
    loop = asyncio.get_running_loop()
    one, other = socket.socketpair()
    await loop.create_connection(lambda: both.extension.channel, sock=one)
    await loop.create_connection(lambda: both.line.channel, sock=other)
    both.extension._received({"kind": "ready"}, [])
    try:
        async with asyncio.timeout(60):
            yield both
    finally:
        both.line.channel.close()
        both.extension.channel.close()
        await both.line.gone.wait()


async def ask(both: Ends, left: Callable[[], Awaitable[object]] | None = None) -> Computed:
    model = await both.remote.resolve("mine", None, "id")
    return await both.remote.compute(
        model, INPUTS, CALL, None if left is None else by_waiting(left)
    )


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
            await both.remote.compute(model, INPUTS, CALL, None)
            assert both.engine.computed == [old]
            assert (await both.remote.resolve("mine", None, "id")).parameters == 11

    asyncio.run(run())


def test_versions_that_serve_no_more_and_nobody_asked_for_lately_are_let_go_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(switchboard, "_HELD_S", 0.05)

    async def run() -> None:
        async with ends() as both:
            model = await both.remote.resolve("mine", None, "id")
            both.engine.serving = version()
            while both.extension._loads or both.remote._models:
                await asyncio.sleep(0.01)
            with pytest.raises(ModelNotReady, match="unloaded meanwhile"):
                await both.remote.compute(model, INPUTS, CALL, None)
            # It is told of again, and serves on.
            await ask(both)

    asyncio.run(run())


def test_a_version_that_was_just_asked_for_is_held() -> None:
    async def run() -> None:
        async with ends() as both:
            model = await both.remote.resolve("mine", None, "id")
            both.engine.serving = version()
            await both.extension._let_go_now()
            await both.remote.compute(model, INPUTS, CALL, None)

    asyncio.run(run())


def test_a_version_that_serves_is_kept_for_whoever_takes_long_to_send_its_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(switchboard, "_HELD_S", -1.0)

    async def run() -> None:
        async with ends() as both:
            model = await both.remote.resolve("mine", None, "id")
            await both.extension._let_go_now()
            await both.remote.compute(model, INPUTS, CALL, None)
            both.engine.unresolved = ModelNotReady("unloaded")
            await both.extension._let_go_now()
            assert not both.extension._loads

    asyncio.run(run())


def test_what_is_forgotten_in_the_same_turn_was_read_before() -> None:
    async def run() -> None:
        async with ends() as both:
            model = await both.remote.resolve("mine", None, "id")
            again = asyncio.create_task(both.remote.resolve("mine", None, "id"))
            await asyncio.sleep(0)
            [load] = both.extension._loads
            both.line._received({"kind": "resolved", "number": 2, "load": load}, [])
            both.line._received({"kind": "forget", "load": load}, [])
            assert await again is model

    asyncio.run(run())


def test_what_is_left_before_it_was_begun_leaves_nothing_behind() -> None:
    async def run() -> None:
        async with ends() as both:
            # One message behind the other, so that both are read in one turn.
            for kind in ("resolve", "left"):
                head = {"kind": kind, "number": 5, "name": None, "version": None, "key": ""}
                both.line.channel.send(head)
            await both.remote.resolve("mine", None, "id")
            assert not both.extension._tasks

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(run())
        gc.collect()


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
    [record] = caplog.records
    assert (record.levelno, record.__dict__["request_id"]) == (logging.ERROR, CALL.request_id)


def test_an_error_that_cannot_be_written_is_a_bug_and_keeps_nobody_waiting() -> None:
    async def run() -> None:
        async with ends() as both:
            both.engine.unresolved = ModelNotReady("no", expected={1: "not a string"})
            with pytest.raises(RuntimeError, match="TypeError"):
                await ask(both)

    asyncio.run(run())


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


def test_a_worker_refuses_what_the_queue_could_not_do_in_time_as_long_as_so_much_waits() -> None:
    def refuses(both: Ends, timeout_s: float, coming: int = 0) -> bool:
        try:
            both.remote.check_door(timeout_s, Priority.NORMAL, coming)
        except DeadlineUnreachable:
            return True
        return False

    async def crowd() -> None:
        async with ends() as both:
            assert not refuses(both, 0.001)
            # Of two workers that each let in as many.
            both.outlooks = [Outlook(10.0, 9.0, each_s=1.0)] * len(Priority)
            both.switchboard.extensions.add(Ends().extension)
            await ask(both)
            while not refuses(both, 1.0):
                await asyncio.sleep(0.001)
            assert not refuses(both, 100.0)
            assert not refuses(both, 100.0, coming=28)
            assert refuses(both, 100.0, coming=29)
            both.outlooks = None
            while refuses(both, 1.0):
                await asyncio.sleep(0.001)

    asyncio.run(crowd())


def test_a_worker_counts_what_it_asked_for_since_it_heard_how_much_waits() -> None:
    async def alone() -> None:
        async with ends() as both:
            written = messages.write_outlooks([Outlook(0.1, 0.1, each_s=1.0)] * len(Priority))
            both.switchboard.tell("outlook", at_s=time.monotonic(), outlooks=written)
            # Messages keep their order.
            await both.remote.resolve("mine", None, "id")
            both.remote.check_door(1.0, Priority.NORMAL, 0)
            await ask(both)
            with pytest.raises(DeadlineUnreachable):
                both.remote.check_door(1.0, Priority.NORMAL, 0)

    asyncio.run(alone())


def test_a_worker_refuses_nothing_by_what_it_heard_long_ago() -> None:
    async def late() -> None:
        async with ends() as both:
            written = messages.write_outlooks([Outlook(1e6, 1e6)] * len(Priority))
            ago_s = 2 * remote._OLD_S
            both.switchboard.tell("outlook", at_s=time.monotonic() - ago_s, outlooks=written)
            # Messages keep their order.
            await ask(both)
            both.remote.check_door(1.0, Priority.NORMAL, 0)

    asyncio.run(late())


def test_where_there_is_no_room_a_worker_says_why() -> None:
    async def full() -> None:
        async with ends() as both:
            crowded = Outlook(0.0, 0.0, "9 requests are waiting", each_s=0.5)
            both.outlooks = [Outlook(0.0, 0.0), crowded, crowded]
            both.switchboard.busy()
            await ask(both)
            both.remote.check_door(1.0, Priority.HIGH, 0)
            with pytest.raises(QueueFull, match="9 requests are waiting") as caught:
                both.remote.check_door(1.0, Priority.NORMAL, 0)
            assert caught.value.retry_after_s == pytest.approx(0.5)
            both.outlooks = None

    asyncio.run(full())


def test_what_a_worker_counted_is_counted_before_a_report_is_over() -> None:
    async def run() -> Counted:
        async with ends() as both:
            both.tally.answered("mine", 1, "/predict", 200, 0.1)
            both.tally.answered("mine", None, "/predict", 429, 0.1)
            both.tally.rejected("queue_full")
            await both.extension.report()
            return both.counted

    counted = asyncio.run(run())
    assert counted.requests == [("mine", 1, "/predict", 200), ("mine", None, "/predict", 429)]
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


def test_whoever_asks_when_the_engine_is_gone_hears_so_at_once() -> None:
    async def run() -> None:
        async with ends() as both:
            both.extension.channel.close()
            await both.line.gone.wait()
            with pytest.raises(ModelNotReady, match="has ended"):
                await ask(both)

    asyncio.run(run())


def test_a_worker_that_still_starts_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        both = Ends()
        # Nobody is at the other end yet.
        await both.extension.report()
        assert not caplog.records

    asyncio.run(run())


def test_what_comes_together_with_the_settings_ends_no_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A scrape of the metrics, for one, while the worker was still starting."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        own, other = socket.socketpair()
        told: asyncio.Queue[Head] = asyncio.Queue()
        engine = Channel(lambda head, _: told.put_nowait(head), lambda: None)
        await loop.create_connection(lambda: engine, sock=own)
        settings = load_settings({"port": 0}, environment={}).model_dump_json()
        for head in ({"kind": "settings", "settings": settings}, {"kind": "draining"}):
            engine.send(head)
        engine.send({"kind": "report", "report": 7})
        with socket.create_server(("127.0.0.1", 0)) as listening:
            served = loop.create_task(process.serve(other, listening))
            async with asyncio.timeout(60):
                kinds = {(await told.get())["kind"] for _ in range(2)}
                engine.send({"kind": "stop"})
                await served
        assert kinds == {"ready", "reported"}

    for name in ("set_up", "take_over"):
        monkeypatch.setattr(logs, name, lambda *_: None)
    thread = threading.Thread(target=lambda: done.append(asyncio.run(run())))
    done: list[None] = []
    # uvicorn takes signals where it is in the main thread, and here they are the tests'.
    thread.start()
    thread.join()
    assert done == [None]
