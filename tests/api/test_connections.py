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
        config = uvicorn.Config(app, ws="none", log_config=None, lifespan="off")
        kind = protocol_for(load_settings(environment={}), Mock())
        connection = kind(config, ServerState(), {})
        transport = Mock(asyncio.Transport)
        transport.get_extra_info.return_value = None
        transport.is_closing.return_value = False
        connection.connection_made(transport)
        connection.data_received(requests * POST)
        async with asyncio.timeout(60):
            await begun.wait()
            transport.is_closing.return_value = True
            connection.connection_lost(None)
            await left.wait()
            await asyncio.gather(*connection.tasks)

    asyncio.run(leave())
    assert seen == ["{}"]
