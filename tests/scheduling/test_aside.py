"""Work aside: its result, its errors, its deadline, and no more of it than may wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from service.errors import DeadlineExceeded, ModelNotReady, QueueFull
from service.scheduling.aside import MOST_WAITING, Aside


def test_a_result_and_an_error_come_back() -> None:
    async def both() -> int:
        aside = Aside()
        with pytest.raises(ZeroDivisionError):
            await aside.run(lambda _: 1 // 0, 10.0)
        found = await aside.run(lambda _: 7, 10.0)
        aside.close()
        return found

    assert asyncio.run(both()) == 7


def test_what_is_too_much_is_refused_and_there_is_room_again_afterwards() -> None:
    go_on = threading.Event()

    async def crowd() -> None:
        aside = Aside()
        running = [
            asyncio.ensure_future(aside.run(lambda _: go_on.wait(), 30.0))
            for _ in range(MOST_WAITING)
        ]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="waiting or running already") as caught:
            await aside.run(lambda _: go_on.wait(), 30.0)
        assert caught.value.retry_after_s
        go_on.set()
        await asyncio.gather(*running)
        assert await aside.run(lambda _: 3, 10.0) == 3
        aside.close()

    asyncio.run(crowd())


def _until_nobody_waits(
    begun: threading.Event, ended: threading.Event
) -> Callable[[Callable[[], bool]], None]:
    def function(wanted: Callable[[], bool]) -> None:
        begun.set()
        while wanted():
            time.sleep(0.001)
        ended.set()

    return function


def test_a_deadline_ends_the_wait_and_what_was_waited_for() -> None:
    begun, ended = threading.Event(), threading.Event()

    async def late() -> None:
        aside = Aside()
        running = asyncio.ensure_future(aside.run(_until_nobody_waits(begun, ended), 0.5))
        assert await asyncio.to_thread(begun.wait, 30.0)
        with pytest.raises(DeadlineExceeded, match=r"within 0\.5 seconds"):
            await running
        assert await asyncio.to_thread(ended.wait, 30.0)
        aside.close()

    asyncio.run(late())


def test_the_end_of_the_server_ends_what_runs_and_begins_nothing_more() -> None:
    begun, ended, never = threading.Event(), threading.Event(), threading.Event()

    async def closed() -> None:
        aside = Aside()
        running = asyncio.ensure_future(aside.run(_until_nobody_waits(begun, ended), 30.0))
        assert await asyncio.to_thread(begun.wait, 30.0)
        next_one = asyncio.ensure_future(aside.run(lambda _: never.set(), 30.0))
        await asyncio.sleep(0)
        aside.close()
        await running
        with pytest.raises(ModelNotReady, match="the server ends"):
            await next_one

    asyncio.run(closed())
    assert ended.is_set()
    assert not never.is_set()
