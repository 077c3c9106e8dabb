"""Work aside: its result, its errors, its deadline, and no more of it than may wait."""

from __future__ import annotations

import asyncio
import threading

import pytest

from service.errors import DeadlineExceeded, QueueFull
from service.scheduling.aside import MOST_WAITING, Aside


def test_a_result_and_an_error_come_back() -> None:
    async def both() -> int:
        aside = Aside()
        with pytest.raises(ZeroDivisionError):
            await aside.run(lambda: 1 // 0, 10.0)
        found = await aside.run(lambda: 7, 10.0)
        aside.close()
        return found

    assert asyncio.run(both()) == 7


def test_what_is_too_much_is_refused_and_there_is_room_again_afterwards() -> None:
    go_on = threading.Event()

    async def crowd() -> None:
        aside = Aside()
        running = [asyncio.ensure_future(aside.run(go_on.wait, 30.0)) for _ in range(MOST_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="waiting or running already") as caught:
            await aside.run(go_on.wait, 30.0)
        assert caught.value.retry_after_s
        go_on.set()
        await asyncio.gather(*running)
        assert await aside.run(lambda: 3, 10.0) == 3
        aside.close()

    asyncio.run(crowd())


def test_a_deadline_ends_the_wait() -> None:
    go_on = threading.Event()

    async def late() -> None:
        aside = Aside()
        with pytest.raises(DeadlineExceeded, match=r"within 0\.05 seconds"):
            await aside.run(go_on.wait, 0.05)
        go_on.set()
        aside.close()

    asyncio.run(late())
