"""Who is let in, by the head of a request."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import AsyncMock, Mock

from fastapi import Request, Response

from service.api.front import Front
from service.api.scope import Desk, has_come
from service.errors import DeadlineUnreachable
from service.settings import load_settings
from service.types import Priority


class Engine:
    """Notes who was said to be coming, and refuses while it is full."""

    draining = False
    full = False

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    def check_door(self, timeout_s: float, priority: Priority, coming: int) -> None:
        self.seen.append((timeout_s, coming))
        if self.full:
            raise DeadlineUnreachable("too late", retry_after_s=2.0)


def request(timeout_s: int = 4) -> dict[str, Any]:
    headers = [(b"x-request-timeout", b"%d" % timeout_s), (b"x-request-id", b"mine")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers}
    return {**scope, "query_string": b"", "state": {}}


def front(engine: Engine) -> tuple[Front, Mock]:
    async def endpoint(request: Request) -> Response:
        # As `compute` does once the request is given to the engine.
        has_come(request)
        return Response(b"served")

    tally = Mock()
    desk = Desk(load_settings(environment={}), engine, tally, None)  # type: ignore[arg-type]
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
