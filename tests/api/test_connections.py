"""What a connection tells those who work on its requests."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.api.connections import TurnAway, TurnedAway, protocol_for
from service.settings import load_settings

POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


def serve_all(scope: Any) -> TurnedAway | None:
    return None


def connected(app: Any, turn_away: TurnAway = serve_all) -> tuple[Any, Mock]:
    """A connection to an application, and what it writes to."""
    config = uvicorn.Config(app, ws="none", log_config=None, lifespan="off")
    kind = protocol_for(load_settings(environment={}), Mock(), turn_away)
    connection = kind(config, ServerState(), {})
    transport = Mock(asyncio.Transport)
    transport.get_extra_info.return_value = None
    transport.is_closing.return_value = False
    connection.connection_made(transport)
    return connection, transport


@pytest.mark.parametrize("requests", [1, 2, 3])
def test_a_client_that_leaves_is_noticed_however_many_requests_it_has_sent_at_once(
    requests: int,
) -> None:
    seen: list[str] = []
    begun, left = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            seen.append(message["body"].decode())
            begun.set()
        left.set()

    async def leave() -> None:
        connection, transport = connected(app)
        connection.data_received(requests * POST)
        async with asyncio.timeout(60):
            await begun.wait()
            transport.is_closing.return_value = True
            connection.connection_lost(None)
            await left.wait()
            await asyncio.gather(*connection.tasks)

    asyncio.run(leave())
    assert seen == ["{}"]


@pytest.mark.parametrize(
    "second",
    [
        b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nrubbish\r\n",
        b"GET /livez HTTP/1.1\r\nX: " + b"y" * 2**17,
    ],
    ids=["body", "head"],
)
@pytest.mark.parametrize("started", [True, False])
def test_what_is_wrong_with_a_request_is_not_said_in_the_answer_to_the_one_before(
    second: bytes, started: bool
) -> None:
    begun = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if started:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
        begun.set()
        while (await receive())["type"] == "http.request":
            pass

    async def ask() -> bytes:
        connection, transport = connected(app)
        connection.data_received(POST)
        async with asyncio.timeout(60):
            await begun.wait()
            # In two parts, so that the head is seen to grow.
            connection.data_received(second[:40])
            connection.data_received(second[40:])
            connection.connection_lost(None)
            await asyncio.gather(*connection.tasks)
        return b"".join(call.args[0] for call in transport.write.call_args_list)

    written = asyncio.run(ask())
    assert written.count(b"HTTP/1.1") == started
    assert b"problem" not in written


def test_who_is_turned_away_is_answered_by_the_head_alone_and_the_next_one_is_served() -> None:
    served: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        served.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})

    def turn_away(scope: Any) -> TurnedAway | None:
        if scope["path"] != "/full":
            return None
        return TurnedAway(429, [(b"content-length", b"4"), (b"retry-after", b"3")], b"full")

    async def story() -> list[bytes]:
        connection, transport = connected(app, turn_away)
        # The body of the first one comes late, and its answer does not wait for it.
        connection.data_received(b"POST /full HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n{")
        [early] = [call.args[0] for call in transport.write.mock_calls]
        connection.data_received(
            b"  }POST /free HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
        )
        async with asyncio.timeout(60):
            await asyncio.gather(*connection.tasks)
        transport.close.assert_not_called()
        return [early, b"".join(call.args[0] for call in transport.write.mock_calls[1:])]

    refused, answered = asyncio.run(story())
    assert refused.startswith(b"HTTP/1.1 429 ")
    assert refused.endswith(b"retry-after: 3\r\n\r\nfull")
    assert answered.startswith(b"HTTP/1.1 200 ")
    assert served == ["/free"]


def test_any_number_that_came_behind_another_are_turned_away_in_their_order() -> None:
    count = 3000

    async def story() -> bytes:
        go_on = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await go_on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

        def turn_away(scope: Any) -> TurnedAway | None:
            if scope["path"] == "/free":
                return None
            return TurnedAway(429, [(b"content-length", b"0")], b"")

        connection, transport = connected(app, turn_away)
        full = b"POST /full HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
        connection.data_received(full.replace(b"full", b"free") + count * full)
        assert not transport.write.called
        go_on.set()
        async with asyncio.timeout(60):
            while connection.pipeline or not connection.cycle.response_complete:
                await asyncio.sleep(0)
        return b"".join(call.args[0] for call in transport.write.mock_calls)

    written = asyncio.run(story())
    assert written.startswith(b"HTTP/1.1 200 ")
    assert written.count(b"HTTP/1.1 429 ") == count


@pytest.mark.parametrize(
    "head",
    [
        b"POST /full HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        b"POST /full HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n",
        b"POST /full HTTP/1.0\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_nobody_is_turned_away_by_the_head_whose_body_would_be_in_the_way(head: bytes) -> None:
    """It would be taken for the next request, or have the connection reset before its answer."""
    begun = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()

    async def story() -> None:
        connection, _ = connected(app, lambda scope: TurnedAway(429, [], b""))
        connection.data_received(head)
        async with asyncio.timeout(60):
            await begun.wait()
            await asyncio.gather(*connection.tasks)

    asyncio.run(story())
