"""What a connection tells those who work on its requests."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.api.connections import protocol_for
from service.settings import load_settings

POST = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


def connected(app: Any) -> tuple[Any, Mock]:
    """A connection to an application, and what it writes to."""
    config = uvicorn.Config(app, ws="none", log_config=None, lifespan="off")
    kind = protocol_for(load_settings(environment={}), Mock())
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
