"""How far the event loop is behind is known by the length of its turns."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace

import pytest

from service.api import turns
from service.api.turns import Turns


async def _pass(seconds: list[float], own: Turns) -> None:
    """Turns of the loop that are as long as this, each with a request at its start."""
    for busy_s in seconds:
        own.note()
        # It is timed from its first request to that of the next turn.
        time.sleep(busy_s)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def test_it_is_behind_by_the_turns_that_a_request_waits_for_while_all_are_long() -> None:
    async def story() -> tuple[float, float]:
        own = Turns()
        await _pass([0.02] * 6, own)
        return own.before_s(), own.after_s()

    for seconds in asyncio.run(story()):
        # A turn and a half, of at least what each slept.
        assert seconds >= 1.5 * 0.02


@pytest.mark.parametrize("seconds", [[], [0.0] * 6, [0.0, 0.05, 0.0, 0.0, 0.0]])
def test_one_long_turn_is_no_load(seconds: list[float]) -> None:
    async def story() -> tuple[float, float]:
        own = Turns()
        await _pass(seconds, own)
        return own.before_s(), own.after_s()

    assert asyncio.run(story()) == (0.0, 0.0)


def test_what_was_seen_long_ago_counts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> Turns:
        own = Turns()
        await _pass([0.02] * 6, own)
        return own

    own = asyncio.run(story())
    later_s = time.monotonic() + 10.0
    monkeypatch.setattr(turns, "time", SimpleNamespace(monotonic=lambda: later_s))
    assert own.before_s() == 0.0
