"""What comes in a long turn waits in its order, and all else has its turn in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.api import backlog
from service.api.backlog import _SLICE_S, Backlog


class Loop:
    """An event loop whose turns are run by hand, and its clock."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.now_s = 1000.0

    def call_soon(self, call: Callable[..., None], *words: Any) -> None:
        self.soon.append(lambda: call(*words))

    def monotonic(self) -> float:
        return self.now_s

    def turn(self) -> None:
        due, self.soon = self.soon, []
        for call in due:
            call()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Any:
    made = Loop()
    monkeypatch.setattr(backlog, "time", made)
    return made


class Reader:
    """Takes a share of a slice for each part that came."""

    def __init__(self, loop: Loop, share: float = 0.0) -> None:
        self._loop = loop
        self._share = share
        self.read_parts: list[tuple[bytes, float]] = []

    def read(self, data: bytes, came_s: float) -> None:
        self._loop.now_s += self._share * _SLICE_S
        self.read_parts.append((data, came_s))


def test_there_is_room_for_the_first_milliseconds_of_each_turn(loop: Any) -> None:
    waiting = Backlog()
    for _ in range(3):
        assert waiting.has_room(loop, loop.now_s)
        assert waiting.has_room(loop, loop.now_s + 0.9 * _SLICE_S)
        assert not waiting.has_room(loop, loop.now_s + 1.1 * _SLICE_S)
        loop.now_s += 10 * _SLICE_S
        loop.turn()


def test_who_comes_while_others_wait_waits_behind_them(loop: Any) -> None:
    waiting, reader = Backlog(), Reader(loop)
    waiting.add(reader, b"first", 1.0, loop)
    assert not waiting.has_room(loop, loop.now_s)
    waiting.add(reader, b"second", 2.0, loop)
    loop.turn()
    assert reader.read_parts == [(b"first", 1.0), (b"second", 2.0)]
    assert waiting.has_room(loop, loop.now_s)


def test_it_is_served_a_slice_at_a_time_and_all_else_has_its_turn_in_between(loop: Any) -> None:
    waiting, reader = Backlog(), Reader(loop, share=0.4)
    for number in range(7):
        waiting.add(reader, b"%d" % number, 0.0, loop)
    seen: list[int] = []
    for _ in range(4):
        loop.call_soon(lambda: seen.append(len(reader.read_parts)))
        loop.turn()
    # A slice ends with the one that fills it.
    assert seen == [3, 6, 7, 7]
    assert [data for data, _ in reader.read_parts] == [b"%d" % number for number in range(7)]


def test_one_that_takes_longer_than_a_slice_does_not_stop_the_others(loop: Any) -> None:
    waiting, reader = Backlog(), Reader(loop, share=5.0)
    for _ in range(3):
        waiting.add(reader, b"", 0.0, loop)
    for served in (1, 2, 3):
        loop.turn()
        assert len(reader.read_parts) == served


def test_a_server_that_ends_serves_all_at_once(loop: Any) -> None:
    waiting, reader = Backlog(), Reader(loop, share=1.0)
    for _ in range(5):
        waiting.add(reader, b"", 0.0, loop)
    waiting.empty()
    assert len(reader.read_parts) == 5
    loop.turn()
    assert len(reader.read_parts) == 5


def test_one_that_breaks_keeps_nobody_else_waiting(loop: Any) -> None:
    class Broken(Reader):
        def read(self, data: bytes, came_s: float) -> None:
            raise RuntimeError("broken")

    waiting, reader = Backlog(), Reader(loop)
    for one in (Broken(loop), reader):
        waiting.add(one, b"", 0.0, loop)
    with pytest.raises(RuntimeError):
        loop.turn()
    loop.turn()
    assert len(reader.read_parts) == 1
