"""The board: counts of all, and models that are changed on one replica after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import Metric
from starlette.types import Message

from service.api.replicas import counting
from service.api.replicas.asking import ReplicaLost
from service.api.replicas.board import DOOR, REPLICA, Board, Order, Told
from service.api.replicas.clerk import Clerk
from service.api.replicas.requests import Whole
from service.errors import ModelNotReady
from service.metrics import Metrics
from tests.api.replicas.others import Clock, Here, until
from tests.api.replicas.test_counting import value
from tests.api.replicas.test_requests import request

RELOAD = request("POST", "/models/digits/reload")
LABELS = {"model": "", "endpoint": "/predict", "code": "200"}

Change = Callable[[Whole], Awaitable[list[Message]]]


def said(status: int, by: str = "") -> list[Message]:
    start = {"type": "http.response.start", "status": status}
    return [start, {"type": "http.response.body", "body": by.encode()}]


class Process:
    """One that tells the board, and keeps what it is told."""

    def __init__(self, board: Board, who: str, kind: str, change: Change | None = None) -> None:
        self.metrics = Metrics()
        self.told: list[Told] = []
        self.clerk = Clerk(Here(board), who, kind, self._counted, self.told.append, change)

    def _counted(self) -> list[Metric]:
        return counting.counted(self.metrics.registry)

    @property
    def changing(self) -> bool:
        return self.told[-1].changing


@asynccontextmanager
async def at_work(*processes: Process) -> AsyncIterator[None]:
    for process in processes:
        process.clerk.start()
    await until(lambda: all(process.told for process in processes))
    yield
    for process in processes:
        await process.clerk.stop()


def test_what_is_asked_for_is_what_all_have_counted_until_then() -> None:
    async def run() -> None:
        board = Board()
        one, two = Process(board, "one", DOOR), Process(board, "two", DOOR)
        async with at_work(one, two):
            for number in range(1, 4):
                one.metrics.answered("", None, "/predict", 200, 0.1)
                two.metrics.answered("", None, "/predict", 200, 0.1)
                families = await board.counted()
                assert value(families, "candor_requests_total", **LABELS) == 2 * number

    asyncio.run(run())


def test_what_those_counted_that_ended_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.replicas.board._PAST", 2)

    async def run() -> None:
        board = Board()
        for number in range(5):
            process = Process(board, f"process {number}", DOOR)
            async with at_work(process):
                process.metrics.answered("", None, "/predict", 200, 0.1)
        families = await board.counted()
        assert value(families, "candor_requests_total", **LABELS) == 5

    asyncio.run(run())


def test_who_says_nothing_is_gone_and_counts_once_where_it_comes_back() -> None:
    async def run() -> None:
        clock = Clock()
        board = Board(clock)
        metrics = Metrics()
        metrics.answered("", None, "/predict", 200, 0.1)
        counted = counting.counted(metrics.registry)
        await board.sync("one", DOOR, counted, -1)
        clock.now_s = 60.0
        families = await board.counted()
        assert value(families, "candor_requests_total", **LABELS) == 1
        await board.sync("one", DOOR, counted, -1)
        process = board._processes["one"]
        process.number = 1_000
        assert value(await board.counted(), "candor_requests_total", **LABELS) == 1

    asyncio.run(run())


def test_a_change_is_made_on_one_replica_after_the_other_while_doors_stand_still() -> None:
    async def run() -> None:
        board = Board()
        door = Process(board, "door", DOOR)
        at_a_time = 0
        done: list[str] = []
        replicas: list[Process] = []

        def changing(who: str) -> Change:
            async def change(_request: Whole) -> list[Message]:
                nonlocal at_a_time
                at_a_time += 1
                assert at_a_time == 1
                assert door.changing
                assert all(replica.changing for replica in replicas)
                await asyncio.sleep(0.01)
                at_a_time -= 1
                done.append(who)
                return said(200, who)

            return change

        replicas = [Process(board, who, REPLICA, changing(who)) for who in ("a", "b", "c")]
        async with at_work(door, *replicas):
            answer = await board.change(RELOAD)
            # By now, and not some time later.
            assert not door.changing
            assert not any(replica.changing for replica in replicas)
        assert done == ["a", "b", "c"]
        assert answer == said(200, "c")

    asyncio.run(run())


def test_what_one_refuses_is_not_tried_on_more() -> None:
    async def run() -> None:
        board = Board()
        asked: list[str] = []

        def refusing(who: str) -> Change:
            async def change(_request: Whole) -> list[Message]:
                asked.append(who)
                return said(503, who)

            return change

        processes = [Process(board, who, REPLICA, refusing(who)) for who in ("a", "b")]
        async with at_work(*processes):
            assert await board.change(RELOAD) == said(503, "a")
            assert not processes[1].changing
        assert asked == ["a"]

    asyncio.run(run())


def test_one_that_dies_over_it_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.replicas.board._LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr("service.api.replicas.board._TELL_S", 0.01)
    monkeypatch.setattr("service.api.replicas.board._TOLD_S", 0.05)

    async def run() -> None:
        clock = Clock()
        board = Board(clock)
        dying = asyncio.Event()

        async def die(_request: Whole) -> list[Message]:
            dying.set()
            await asyncio.Event().wait()
            raise AssertionError

        async def change(_request: Whole) -> list[Message]:
            return said(200, "b")

        first = Process(board, "a", REPLICA, die)
        async with at_work(Process(board, "b", REPLICA, change)):
            first.clerk.start()
            await until(lambda: bool(first.told))
            changing = asyncio.create_task(board.change(RELOAD))
            await dying.wait()
            assert first.clerk._task is not None
            first.clerk._task.cancel()
            # The other goes on to say that it is there; this one does not.
            for _ in range(3):
                clock.now_s += 6.0
                await until(lambda: board._processes["b"].seen_s == clock.now_s)
            assert await changing == said(200, "b")
        for task in first.clerk._orders:
            task.cancel()

    asyncio.run(run())


def test_without_a_replica_nothing_is_changed() -> None:
    async def run() -> None:
        board = Board()
        async with at_work(Process(board, "door", DOOR)):
            with pytest.raises(ModelNotReady, match="no replica"):
                await board.change(RELOAD)

    asyncio.run(run())


def test_what_each_carries_out_for_itself_is_asked_of_all_replicas() -> None:
    async def run() -> None:
        board = Board()
        forget = request("DELETE", "/samples")

        def answering(who: str) -> Change:
            async def change(what: Whole) -> list[Message]:
                assert what == forget
                return said(404 if who == "b" else 200, who)

            return change

        replicas = [Process(board, who, REPLICA, answering(who)) for who in ("a", "b", "c")]
        async with at_work(Process(board, "door", DOOR), *replicas):
            answers = await board.by_each(forget)
            # What is served stays as it is.
            assert not any(told.changing for replica in replicas for told in replica.told)
        assert answers == [said(200, "a"), said(404, "b"), said(200, "c")]
        with pytest.raises(ModelNotReady, match="no replica"):
            await board.by_each(forget)

    asyncio.run(run())


def test_what_was_unloaded_is_known_to_those_that_come_later() -> None:
    async def run() -> None:
        board = Board()

        async def change(what: Whole) -> list[Message]:
            return said(404 if "missing" in what.scope["path"] else 200)

        async with at_work(Process(board, "a", REPLICA, change)):
            for path in ("/models/digits/unload", "/models/co2/unload", "/models/missing/unload"):
                await board.change(request("POST", path))
            assert await board.join("b", REPLICA) == ["co2", "digits"]
            await board.leave("b", [])
            await board.change(request("POST", "/v2/repository/models/co2/load"))
            assert await board.join("c", REPLICA) == ["digits"]
            await board.leave("c", [])

    asyncio.run(run())


def test_what_is_changed_while_a_replica_begins_is_changed_on_it_too() -> None:
    async def run() -> None:
        board = Board()
        changed: list[str] = []

        def noting(who: str) -> Change:
            async def change(_request: Whole) -> list[Message]:
                changed.append(who)
                return said(200)

            return change

        beginning = Process(board, "b", REPLICA, noting("b"))
        async with at_work(Process(board, "a", REPLICA, noting("a"))):
            assert await board.join("b", REPLICA) == []
            changing = asyncio.create_task(board.change(RELOAD))
            await until(lambda: board._changing)
            async with at_work(beginning):
                await changing
        assert changed == ["a", "b"]

    asyncio.run(run())


def test_one_that_was_taken_for_gone_makes_up_for_what_it_missed() -> None:
    async def run() -> None:
        clock = Clock()
        board = Board(clock)
        missed: list[Whole] = []

        async def change(_request: Whole) -> list[Message]:
            return said(200)

        async def make_up(request: Whole) -> list[Message]:
            missed.append(request)
            return said(200)

        await board.join("a", REPLICA)
        clock.now_s = 60.0
        async with at_work(Process(board, "b", REPLICA, change)):
            await board.change(RELOAD)
            async with at_work(Process(board, "a", REPLICA, make_up)):
                await until(lambda: missed == [RELOAD])

    asyncio.run(run())


def test_an_order_that_nobody_could_carry_out_keeps_no_other_waiting() -> None:
    async def run() -> None:
        board = Board()

        async def change(_request: Whole) -> list[Message]:
            raise RuntimeError("a bug")

        async with at_work(Process(board, "a", REPLICA, change)):
            for _ in range(2):
                assert await board.change(RELOAD) == []

    asyncio.run(run())


def test_an_order_that_may_not_have_been_heard_is_told_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("service.api.replicas.board._TOLD_S", 0.05)

    async def run() -> None:
        board = Board()
        await board.join("a", REPLICA)
        changing = asyncio.create_task(board.change(RELOAD))
        await until(lambda: board._changing)
        told = await board.sync("a", REPLICA, [], 0)
        while not told.orders:
            told = await board.sync("a", REPLICA, [], told.number)
        again = await board.sync("a", REPLICA, [], 0)
        assert again.orders == told.orders
        await board.done(told.orders[0].number, said(200))
        assert await changing == said(200)
        assert not (await board.sync("a", REPLICA, [], 0)).orders

    asyncio.run(run())


def test_an_order_that_is_told_twice_is_carried_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.api.replicas.clerk._AGAIN_S", 0.01)

    class Twice:
        def __init__(self) -> None:
            self.syncs = 0
            self.done: list[int] = []

        async def ask(self, method: str, *arguments: Any) -> Any:
            if method == "sync":
                self.syncs += 1
                await asyncio.sleep(0.001)
                return Told(1, False, [Order(7, RELOAD)])
            if method == "done":
                if not self.done:
                    self.done.append(0)
                    raise ReplicaLost("unheard")
                self.done.append(arguments[0])
            return None

        def follow(self, method: str, *arguments: Any) -> AsyncIterator[Any]:
            raise AssertionError

    async def run() -> None:
        board, changed = Twice(), 0

        async def change(_request: Whole) -> list[Message]:
            nonlocal changed
            changed += 1
            return said(200)

        clerk = Clerk(board, "a", REPLICA, list, lambda _: None, change)
        clerk.start()
        await until(lambda: board.done == [0, 7] and board.syncs > 5)
        await clerk.stop()
        assert changed == 1

    asyncio.run(run())


def test_a_board_that_follows_another_learns_from_replicas_what_was_unloaded() -> None:
    async def run() -> None:
        board = Board()
        board._tell()
        await board.sync("a", REPLICA, [], 0, ["digits"])
        assert await board.join("b", REPLICA) == ["digits"]

    asyncio.run(run())


def test_a_board_that_died_is_told_anew_by_all() -> None:
    async def run() -> None:
        first, second = Board(), Board()
        process = Process(first, "one", DOOR)
        others = process.clerk._board
        assert isinstance(others, Here)
        async with at_work(process):
            process.metrics.answered("", None, "/predict", 200, 0.1)
            await first.counted()
            others.asked, others.dying = second, 1
            await until(lambda: "one" in second._processes)
            families = await second.counted()
            assert value(families, "candor_requests_total", **LABELS) == 1

    asyncio.run(run())


def test_a_change_goes_on_though_who_asked_for_it_has_left() -> None:
    async def run() -> None:
        board = Board()
        done: list[str] = []
        begun = asyncio.Event()

        def slow(who: str) -> Change:
            async def change(_request: Whole) -> list[Message]:
                begun.set()
                await asyncio.sleep(0.02)
                done.append(who)
                return said(200)

            return change

        processes = [Process(board, who, REPLICA, slow(who)) for who in ("a", "b")]
        async with at_work(*processes):
            asking = asyncio.create_task(board.change(RELOAD))
            await begun.wait()
            asking.cancel()
            await until(lambda: done == ["a", "b"])
            await until(lambda: not processes[0].changing)

    asyncio.run(run())
