"""While requests are refused the engine need not wait for the interpreter's lock."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

from service.api import precedence
from service.api.precedence import Precedence

USUAL_S = 0.004


@pytest.fixture(autouse=True)
def usual() -> Iterator[None]:
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(USUAL_S)
    yield
    sys.setswitchinterval(before_s)


def test_the_lock_is_given_up_sooner_until_nothing_has_been_refused_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precedence, "_LASTS_S", 0.2)

    async def story() -> None:
        own = Precedence()
        own.refused()
        assert sys.getswitchinterval() < USUAL_S / 10
        await asyncio.sleep(0.1)
        own.refused()
        until_s = asyncio.get_running_loop().time() + 60.0
        while sys.getswitchinterval() < USUAL_S / 10:
            assert asyncio.get_running_loop().time() < until_s
            await asyncio.sleep(0.01)

    asyncio.run(story())
    assert sys.getswitchinterval() == pytest.approx(USUAL_S)
