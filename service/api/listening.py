"""How the server speaks HTTP, the same in every process that does."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from service.api.connections import Front, protocol_for
from service.api.exposure import tls_options
from service.metrics import Tally
from service.settings import Settings

_LAST_LOOK_S = 0.4


def configuration(app: ASGIApp, settings: Settings, tally: Tally, front: Front) -> uvicorn.Config:
    """Uvicorn's options.

    Args:
        app: to serve.
        settings: of the server.
        tally: counts the connections that are cut off.
        front: answers before it is asked.
    """
    return uvicorn.Config(
        cast(Any, app),
        http=protocol_for(settings, tally, front),
        host=settings.host,
        port=settings.port,
        log_config=None,
        # `logs.access` says more.
        access_log=False,
        server_header=False,
        # It looks at every client's address; nothing here asks where a request came from.
        proxy_headers=False,
        # There are no routes for them, and the guard knows none.
        ws="none",
        **tls_options(settings),
    )


class LingeringServer(uvicorn.Server):
    """Lets in whoever the kernel has queued on its sockets before it closes them."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._listening: list[socket.socket] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._listening = sockets or []
        await super().startup(sockets)

    async def stop_listening(self) -> None:
        """Closing a socket resets whoever is queued on it: let those in first.

        Answers carry Connection: close by now, so that busy connections end by themselves; what is
        left after a moment is idle.
        """
        for listening in self._listening:
            listening.listen(0)
        await asyncio.sleep(_LAST_LOOK_S)
        for server in self.servers:
            server.close()
        deadline = time.monotonic() + _LAST_LOOK_S
        while self.server_state.connections and time.monotonic() < deadline:
            await asyncio.sleep(_LAST_LOOK_S / 20)
        self.should_exit = True
