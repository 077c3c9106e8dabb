"""The server process: on SIGTERM it finishes what it accepted, refuses the rest, then ends."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from service.api.app import build_app, build_service, running
from service.api.drain import drain
from service.api.exposure import refuse_open_door, tls_options
from service.api.front import Front
from service.api.garbage import look_rarely
from service.api.listening import LingeringServer, configuration
from service.api.scope import Service
from service.api.workers.supervisor import Supervisor
from service.api.workers.switchboard import Switchboard
from service.settings import Settings

_ANY_ADDRESS = ("0.0.0.0", "::")

log = logging.getLogger(__name__)


class DrainingServer(LingeringServer):
    """Between the signal and the end it keeps listening and answers 503.

    Closing the sockets at once, as uvicorn does, would reset connections that clients and load
    balancers still open in good faith.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain, then exit. Second: exit now."""
        if self._loop is None or self._service.runner.draining:
            self.config.timeout_graceful_shutdown = 0
            super().handle_exit(sig, frame)
            return
        self._captured_signals.append(sig)
        self._service.runner.draining = True
        self._loop.call_soon_threadsafe(self._start_draining)

    def _start_draining(self) -> None:
        self._draining = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        left_s = await drain(self._service)
        if not self.should_exit:
            # None is for ever, which is what infinite seconds are, too.
            whole_s = None if math.isinf(left_s) else math.ceil(left_s)
            self.config.timeout_graceful_shutdown = whole_s
        await self.stop_listening()


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
    look_rarely()
    tls = tls_options(settings)
    service = build_service(settings)
    several = settings.workers > 1
    switchboard = Switchboard(
        settings.workers if several else 0,
        functools.partial(service.runner.outlooks, service.registry.serving),
    )
    if several:
        service = dataclasses.replace(service, gather=switchboard.gather)
    app = build_app(service)
    config = configuration(app, settings, service.tally, app)
    listening = config.bind_socket()
    port = listening.getsockname()[1]
    address = f"{'https' if tls else 'http'}://{_shown(settings.host)}:{port}"

    def wait_and_announce() -> None:
        service.registry.loaded.wait()
        switchboard.ready.wait()
        announce(service, address)

    threading.Thread(target=wait_and_announce, name="announce", daemon=True).start()
    # uvicorn raises the signal again once it has ended; the drain was the answer to it.
    with contextlib.suppress(KeyboardInterrupt), _no_default(signal.SIGTERM):
        if several:
            with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
                runner.run(_run_workers(service, app, switchboard, listening))
        else:
            DrainingServer(config, service).run(sockets=[listening])


async def _run_workers(
    service: Service, app: Front, switchboard: Switchboard, listening: socket.socket
) -> None:
    async with running(service):
        await Supervisor(service, app, switchboard, listening).run()
        # Nobody lets in any more who comes now: better refused than kept waiting for the end.
        listening.close()


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
