"""The server process: on SIGTERM it finishes what it accepted, refuses the rest, then ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from service.api.app import build_app, build_service
from service.api.exposure import refuse_open_door, tls_options
from service.api.scope import Service
from service.settings import Settings

_LAST_LOOK_S = 0.4
_ANY_ADDRESS = ("0.0.0.0", "::")

log = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """Between the signal and the end it keeps listening and answers 503.

    Closing the sockets at once, as uvicorn does, would reset connections that clients and load
    balancers still open in good faith.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self._listening: list[socket.socket] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = sockets or []
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain, then exit. Second: exit now."""
        if self._loop is None or self._service.runner.draining:
            super().handle_exit(sig, frame)
            return
        self._captured_signals.append(sig)
        self._service.runner.draining = True
        self._loop.call_soon_threadsafe(self._start_draining)

    def _start_draining(self) -> None:
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        settings = self._service.settings
        log.info("draining: accepted requests finish, new ones are answered 503")
        started = time.monotonic()
        if not await self._service.runner.drain(settings.drain_timeout_s):
            log.error("requests were cut off: not done after %g s", settings.drain_timeout_s)
        elapsed = time.monotonic() - started
        await asyncio.sleep(max(0.0, settings.drain_linger_s - elapsed))
        await self._stop_listening()
        self.should_exit = True

    async def _stop_listening(self) -> None:
        """Closing a socket resets whoever the kernel has queued on it: let those in first.

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


def serve(settings: Settings, announce: Callable[[Service, str], None]) -> None:
    """Run until a signal ends it.

    Args:
        settings: of the server.
        announce: called once, in a thread of its own, when all models were tried, with the
            server's address.

    Raises:
        ModelBroken: the model repository is missing.
        InvalidInput: a device that is not there, an address beyond loopback without a token, or a
            certificate that cannot be used.
        OSError: the port is taken.
    """
    refuse_open_door(settings)
    tls = tls_options(settings)
    service = build_service(settings)
    config = uvicorn.Config(
        build_app(service),
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
        **tls,
    )
    listening = config.bind_socket()
    port = listening.getsockname()[1]
    address = f"{'https' if tls else 'http'}://{_shown(settings.host)}:{port}"

    def wait_and_announce() -> None:
        service.registry.loaded.wait()
        # What loading left behind stays: nobody has to look through it for garbage again.
        gc.collect()
        gc.freeze()
        announce(service, address)

    threading.Thread(target=wait_and_announce, name="announce", daemon=True).start()
    # uvicorn raises the signal again once it has ended; the drain was the answer to it.
    with contextlib.suppress(KeyboardInterrupt), _no_default(signal.SIGTERM):
        DrainingServer(config, service).run(sockets=[listening])


def _shown(host: str) -> str:
    """As it stands in an address that this machine can use."""
    if host in _ANY_ADDRESS:
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


@contextlib.contextmanager
def _no_default(sig: signal.Signals) -> Iterator[None]:
    previous = signal.signal(sig, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(sig, previous)
