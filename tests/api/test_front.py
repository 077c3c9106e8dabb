"""Who is let in, by the head of a request."""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any
from unittest.mock import ANY, AsyncMock, Mock

import pytest
from fastapi import Request, Response

from service.api.front import Front
from service.api.scope import Desk, has_come
from service.errors import DeadlineUnreachable, Standing
from service.scheduling import admission
from service.settings import load_settings
from service.types import Priority


class Engine:
    """Notes who was said to be coming, and refuses while it is full."""

    draining = False
    full = False

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []
        self.looks = 0
        self.stands: Standing | None = None

    def look(self) -> None:
        self.looks += 1

    def check_door(self, timeout_s: float, priority: Priority, coming: int) -> None:
        self.seen.append((timeout_s, coming))
        if self.full:
            error = DeadlineUnreachable("too late", retry_after_s=2.0)
            error.standing = self.stands
            raise error


def request(timeout_s: int = 4) -> dict[str, Any]:
    headers = [(b"x-request-timeout", b"%d" % timeout_s), (b"x-request-id", b"mine")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers}
    return {**scope, "query_string": b"", "state": {}}


def front(engine: Engine, **settings: Any) -> tuple[Front, Mock]:
    async def endpoint(request: Request) -> Response:
        # As `compute` does once the request is given to the engine.
        has_come(request)
        return Response(b"served")

    tally = Mock()
    own = load_settings(settings, environment={})
    desk = Desk(own, engine, tally, None)  # type: ignore[arg-type]
    return Front(Mock(), desk, {"/predict": endpoint}), tally


async def serve(own: Front, scope: dict[str, Any]) -> int:
    codes: list[int] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            codes.append(message["status"])

    await own(scope, Mock(), send)
    [code] = codes
    return code


def test_who_was_let_in_is_coming_until_the_engine_has_it_or_it_is_over() -> None:
    async def story() -> list[int]:
        engine = Engine()
        own, _ = front(engine)
        scopes = [request() for _ in range(3)]
        assert [own.turn_away(scope) for scope in scopes] == [None] * 3
        assert [await serve(own, scope) for scope in scopes] == [200] * 3
        own.turn_away(request())
        # Each was asked for once, at the door.
        return [coming for _, coming in engine.seen]

    assert asyncio.run(story()) == [0, 1, 2, 0]


def test_who_is_turned_away_is_answered_counted_and_not_coming() -> None:
    async def story() -> None:
        engine = Engine()
        engine.full = True
        own, tally = front(engine)
        answer = own.turn_away(request())
        assert answer is not None
        headers = dict(answer.raw_headers)
        assert answer.status_code == 429
        assert headers[b"retry-after"] == b"2"
        assert headers[b"x-request-id"] == b"mine"
        tally.rejected.assert_called_once_with("deadline_unreachable")
        [counted] = tally.answered.call_args_list
        assert "/predict" in counted.args
        assert 429 in counted.args
        engine.full = False
        assert own.turn_away(request()) is None
        assert engine.seen == [(4.0, 0), (4.0, 0)]

    asyncio.run(story())


def test_who_was_let_in_by_the_head_and_passed_on_after_all_is_not_coming_any_more() -> None:
    async def story() -> list[int]:
        engine = Engine()
        own, _ = front(engine)
        own.app = AsyncMock()
        passed_on = request()
        assert own.turn_away(passed_on) is None
        passed_on["path"] = "/other"
        await own(passed_on, AsyncMock(return_value={"type": "http.request"}), AsyncMock())
        own.turn_away(request())
        return [coming for _, coming in engine.seen]

    assert asyncio.run(story()) == [0, 0]


def test_a_server_that_drains_turns_nobody_away_by_the_head() -> None:
    async def story() -> None:
        engine = Engine()
        engine.full = engine.draining = True
        own, _ = front(engine)
        assert own.turn_away(request()) is None
        assert engine.seen == []

    asyncio.run(story())


HEADERS = [
    (b"host", b"here"),
    (b"x-request-timeout", b"4"),
    (b"x-request-id", b"mine"),
    (b"content-length", b"2"),
]


def sent(headers: list[tuple[bytes, bytes]]) -> bytes:
    lines = [b"POST /predict HTTP/1.1", *(b"%b: %b" % pair for pair in headers)]
    return b"\r\n".join([*lines, b"", b"{}"])


def changed(name: bytes, value: bytes) -> bytes:
    return sent([(found, value if found == name else old) for found, old in HEADERS])


def full(
    headers: list[tuple[bytes, bytes]] = HEADERS, lasts_s: float = 1e6, **settings: Any
) -> tuple[Front, Mock, Engine, Response]:
    """A front that has refused a request, which stands for whoever has less than five seconds."""
    engine = Engine()
    engine.full = True
    engine.stands = Standing(time.monotonic() + lasts_s, 5.0, lambda now_s: 7.2)
    own, tally = front(engine, **settings)
    scope = {**request(), "headers": headers}
    answer = own.turn_away(scope)
    assert answer is not None
    own.remember(sent(headers), scope)
    return own, tally, engine, answer


def repeated(own: Front, data: bytes) -> tuple[int, dict[bytes, bytes], dict[str, Any]] | None:
    found = own.repeat(data, time.monotonic())
    if found is None:
        return None
    status, rest = found
    head, _, body = rest.partition(b"\r\n\r\n")
    named = dict(line.split(b": ", 1) for line in head.split(b"\r\n"))
    assert named[b"content-length"] == b"%d" % len(body)
    return status, named, json.loads(body)


@pytest.mark.parametrize("settings", [{}, {"cors_origins": ["http://other"]}])
def test_who_sends_the_same_is_answered_the_same_without_being_read(
    settings: dict[str, Any],
) -> None:
    async def story() -> None:
        own, tally, engine, answer = full(**settings)
        tally.reset_mock()
        looks = engine.looks
        found = repeated(own, changed(b"x-request-id", b"yours"))
        assert found is not None
        status, headers, body = found
        first = dict(answer.raw_headers)
        own_headers = {b"x-request-id": b"yours", b"retry-after": b"8", b"content-length": ANY}
        assert headers == {**first, **own_headers}
        assert body == {**json.loads(bytes(answer.body)), "request_id": "yours"}
        assert status == answer.status_code == 429
        tally.rejected.assert_called_once_with("deadline_unreachable")
        tally.answered.assert_called_once_with("", None, "/predict", 429, 0.0)
        # The door was not asked, and what computes goes on.
        assert len(engine.seen) == 1
        assert engine.looks == looks + 1

    asyncio.run(story())


def test_an_id_is_made_for_who_gives_none() -> None:
    async def story() -> list[bytes]:
        headers = [pair for pair in HEADERS if pair[0] != b"x-request-id"]
        own, _, _, _ = full(headers)
        found = [repeated(own, sent(headers)) for _ in range(3)]
        return [one[1][b"x-request-id"] for one in found if one is not None]

    made = asyncio.run(story())
    assert len({*made}) == 3
    assert all(re.fullmatch(rb"[0-9a-f]{32}", number) for number in made)


@pytest.mark.parametrize(
    "data",
    [
        changed(b"x-request-timeout", b"5.5"),
        changed(b"x-request-timeout", b"soon"),
        changed(b"x-request-timeout", b"-1"),
        changed(b"x-request-timeout", b"nan"),
        changed(b"x-request-id", 129 * b"x"),
        changed(b"host", b"elsewhere"),
        sent([*HEADERS, (b"x-request-priority", b"high")]),
        sent(HEADERS)[:-1],
    ],
)
def test_who_sends_anything_else_is_read(data: bytes) -> None:
    async def story() -> None:
        own, _, _, _ = full()
        assert own.repeat(data, time.monotonic()) is None
        assert own.repeat(sent(HEADERS), time.monotonic()) is not None

    asyncio.run(story())


def test_who_waited_has_less_time_than_it_says() -> None:
    async def story() -> None:
        own, _, _, _ = full()
        data = changed(b"x-request-timeout", b"5.5")
        assert own.repeat(data, time.monotonic()) is None
        assert own.repeat(data, time.monotonic() - 1.0) is not None

    asyncio.run(story())


def test_a_token_is_asked_for_each_head_that_has_another() -> None:
    async def story() -> None:
        right = [*HEADERS, (b"authorization", b"Bearer right")]
        own, _, _, _ = full(right, token="right")
        assert own.repeat(sent(right), time.monotonic()) is not None
        for headers in (HEADERS, [*HEADERS, (b"authorization", b"Bearer wrong")]):
            assert own.repeat(sent(headers), time.monotonic()) is None

    asyncio.run(story())


def test_a_server_that_drains_repeats_nothing() -> None:
    async def story() -> None:
        own, _, engine, _ = full()
        engine.draining = True
        assert own.repeat(sent(HEADERS), time.monotonic()) is None

    asyncio.run(story())


def test_nothing_is_repeated_once_it_does_not_stand_any_more() -> None:
    async def story() -> None:
        own, _, _, _ = full(lasts_s=-1.0)
        assert own.repeat(sent(HEADERS), time.monotonic()) is None

    asyncio.run(story())


def test_who_waited_long_to_be_read_needs_to_have_more_time_left() -> None:
    """Where much waits unread, those with little time are refused first, and refusing is quick."""

    async def story() -> list[int | None]:
        codes: list[int | None] = []
        for waited_s, timeout_s in [(0.0, 4), (0.5, 4), (1.2, 4), (1.2, 8)]:
            own, _ = front(Engine())
            asked = request(timeout_s)
            asked["state"]["came_s"] = time.monotonic() - waited_s
            answer = own.turn_away(asked)
            codes.append(None if answer is None else answer.status_code)
        return codes

    assert asyncio.run(story()) == [None, None, 429, None]


def test_what_a_request_waited_is_not_of_its_time_any_more() -> None:
    async def story() -> float:
        engine = Engine()
        own, _ = front(engine)
        asked = request(4)
        asked["state"]["came_s"] = time.monotonic() - 0.5
        own.turn_away(asked)
        [(left_s, _)] = engine.seen
        return left_s

    assert 3.0 < asyncio.run(story()) <= 3.5


def test_a_refusal_stands_for_those_whom_the_event_loop_would_have_made_late() -> None:
    async def story() -> None:
        engine = Engine()
        engine.full = True
        engine.stands = Standing(time.monotonic() + 1e6, 5.0, lambda now_s: 7.2)
        own, _ = front(engine)
        # What the engine said is of the time beside that.
        own._turns = Mock(**{"before_s.return_value": 0.3, "after_s.return_value": 0.2})
        scope = {**request(), "headers": HEADERS}
        assert own.turn_away(scope) is not None
        own.remember(sent(HEADERS), scope)
        assert own.repeat(changed(b"x-request-timeout", b"5.4"), time.monotonic()) is not None
        assert own.repeat(changed(b"x-request-timeout", b"5.6"), time.monotonic()) is None

    asyncio.run(story())


def test_the_engine_goes_on_before_a_request_is_answered() -> None:
    async def story() -> int:
        engine = Engine()
        own, _ = front(engine)
        assert await serve(own, request()) == 200
        return engine.looks

    assert asyncio.run(story()) == 1


def test_who_has_as_little_time_left_as_one_that_waited_too_long_is_refused_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A busy machine may take longer than a refusal stands.
    monkeypatch.setattr(admission, "_STANDS_S", 1e6)
    monkeypatch.setattr(admission, "_OF_WAITING", 1e6)

    async def story() -> None:
        own, _ = front(Engine())
        scope = {**request(), "headers": HEADERS}
        scope["state"]["came_s"] = time.monotonic() - 1.2
        assert own.turn_away(scope) is not None
        own.remember(sent(HEADERS), scope)
        # Three times as much.
        assert own.repeat(changed(b"x-request-timeout", b"3.5"), time.monotonic()) is not None
        assert own.repeat(changed(b"x-request-timeout", b"9"), time.monotonic()) is None

    asyncio.run(story())
