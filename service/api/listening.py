"""How the server speaks HTTP, the same in every process that does."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
import time
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from service.api.connections import Front, protocol_for
from service.api.exposure import tls_options
from service.metrics import Tally
from service.settings import Settings

_LAST_LOOK_S = 0.4
_AT_ONCE = 64
"""Connections let in before those that are there are read again, and other processes have theirs.
"""
_TRY_AGAIN_S = 1.0

log = logging.getLogger(__name__)


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


class Entrance:
    """Lets in who has connected, as `asyncio.Server` does for uvicorn.

    uvloop lets in one connection a turn of its loop. Under more load than can be served, with
    turns of a tenth of a second, a thousand clients that reconnect would wait for more than a
    minute, and so would a probe behind them.

    Args:
        listening: a socket that is bound.
        protocol: of a new connection.
        queued: connections that the kernel keeps until they are let in.
        room: gives how many more there may be. Beyond that one is let in a turn: what those before
            it sent has to be read until it is known which of them are idle and make room.
        tls: None for none.
    """

    def __init__(
        self,
        listening: socket.socket,
        protocol: Callable[[], asyncio.Protocol],
        queued: int,
        room: Callable[[], int],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._listening = listening
        self._protocol = protocol
        self._room = room
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._coming: set[asyncio.Task[None]] = set()
        self._closed = False
        listening.setblocking(False)
        listening.listen(queued)
        self._open()

    def close(self) -> None:
        """Let nobody in any more."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._listening)
            self._listening.close()

    async def wait_closed(self) -> None:
        """Return once those that were let in have their connections, or have not come to them."""
        if self._coming:
            _, late = await asyncio.wait(self._coming, timeout=_LAST_LOOK_S)
            for task in late:
                task.cancel()

    def _open(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listening, self._let_in)

    def _let_in(self) -> None:
        room = self._room() - len(self._coming)
        for _ in range(max(1, min(_AT_ONCE, room))):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # Of files or memory none are left, say: to ask again at once only takes time.
                log.warning("no connection can be let in: %s; trying again", error)
                self._loop.remove_reader(self._listening)
                self._loop.call_later(_TRY_AGAIN_S, self._open)
                return
            task = self._loop.create_task(self._take(connection))
            self._coming.add(task)
            task.add_done_callback(self._coming.discard)

    async def _take(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection, ssl=self._tls)
        except OSError as error:
            # Of TLS, or its client has left; it gets no answer in either case.
            connection.close()
            log.debug("a connection came to nothing: %s", error)
        except BaseException:
            connection.close()
            raise


class LingeringServer(uvicorn.Server):
    """Lets in whoever the kernel has queued on its sockets before it closes them."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._listening: list[socket.socket] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on sockets that are bound."""
        self._listening = sockets or []
        # asyncio's own loops let in all who are queued, and that of Windows has no readers.
        if sys.platform == "win32":
            await super().startup(sockets)
            return
        await super().startup([])
        queued, tls = self.config.backlog, self.config.ssl
        self.servers = [
            cast(Any, Entrance(listening, self._connection, queued, self._room, tls))
            for listening in self._listening
        ]

    def _room(self) -> int:
        kind: Any = self.config.http_protocol_class
        most: int = kind.allowance.max_connections
        return most - len(self.server_state.connections)

    def _connection(self) -> asyncio.Protocol:
        """As uvicorn makes it."""
        make: Any = self.config.http_protocol_class
        made: asyncio.Protocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

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
