"""A wait ends by its answer, its deadline, or the client that leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from service.errors import ClientLeft, DeadlineExceeded
from service.scheduling import attendant
from service.scheduling.attendant import Attendant, by_waiting


class Client:
    """Is watched, and leaves when it is told to."""

    def __init__(self) -> None:
        self.tell: Callable[[], None] | None = None
        self.watched = asyncio.Event()

    def watch(self, tell: Callable[[], None]) -> Callable[[], object]:
        self.tell = tell
        self.watched.set()
        return self.forget

    def forget(self) -> None:
        self.tell = None


def test_a_deadline_ends_the_wait_and_says_how_long_it_was() -> None:
    async def story() -> None:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        own = Attendant(asyncio.get_running_loop(), answer, 0.25, None, waited_s=0.2)
        with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.25 seconds"):
            await answer
        own.dismiss()

    asyncio.run(story())


def test_a_client_that_leaves_ends_the_wait() -> None:
    async def story() -> None:
        client = Client()
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        own = Attendant(asyncio.get_running_loop(), answer, 60.0, client.watch)
        await client.watched.wait()
        assert client.tell is not None
        client.tell()
        with pytest.raises(ClientLeft):
            await answer
        own.dismiss()
        assert client.tell is None

    asyncio.run(story())


def test_an_answer_that_is_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attendant, "_ATTEND_AFTER_S", 0.0)

    async def story() -> int:
        client = Client()
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        own = Attendant(asyncio.get_running_loop(), answer, 0.01, client.watch)
        await client.watched.wait()
        answer.set_result(7)
        assert client.tell is not None
        client.tell()
        await asyncio.sleep(0.05)
        own.dismiss()
        return await answer

    assert asyncio.run(story()) == 7


def test_nobody_is_watched_whose_answer_comes_soon() -> None:
    async def story() -> None:
        client = Client()
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        own = Attendant(asyncio.get_running_loop(), answer, 60.0, client.watch)
        own.dismiss()
        await asyncio.sleep(2 * attendant._ATTEND_AFTER_S)
        assert not client.watched.is_set()

    asyncio.run(story())


def test_a_task_may_watch_and_ends_with_the_wait() -> None:
    async def story() -> list[str]:
        told: list[str] = []
        left, ended = asyncio.Event(), asyncio.Event()

        async def leaves() -> None:
            try:
                await left.wait()
            finally:
                ended.set()

        by_waiting(leaves)(lambda: told.append("first"))
        stop = by_waiting(leaves)(lambda: told.append("second"))
        await asyncio.sleep(0)
        stop()
        await ended.wait()
        left.set()
        for _ in range(3):
            await asyncio.sleep(0)
        return told

    assert asyncio.run(story()) == ["first"]
