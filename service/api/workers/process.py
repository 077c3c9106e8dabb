"""A worker's `main`, whose arguments are two open files: the channel and the listening socket."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from service import logs
from service.api.direct import DIRECT
from service.api.front import Front
from service.api.garbage import look_rarely
from service.api.listening import LingeringServer, configuration
from service.api.scope import Desk
from service.api.workers.channel import Head
from service.api.workers.forwarding import Forward
from service.api.workers.remote import Line, RemoteEngine, RemoteTally
from service.errors import ModelNotReady
from service.settings import Settings
from service.tracing import tracing_by

log = logging.getLogger(__name__)


class WorkerApp:
    """Passes on everything that the front does not answer."""

    def __init__(self, front: Front, forward: ASGIApp) -> None:
        self._front = front
        self._forward = forward

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._forward(scope, receive, send)
        except ModelNotReady as error:
            await self._front.refuse(scope, receive, send, error)


class _WorkerServer(LingeringServer):
    """Ends when it is told to, or when nobody is left to tell it."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Signals are the first process's to answer; what it makes of them reaches this one."""


async def serve(channel: socket.socket, listening: socket.socket) -> None:
    """Serve until told to stop."""
    look_rarely()
    loop = asyncio.get_running_loop()
    line = Line()
    told: asyncio.Future[Settings] = loop.create_future()
    stopped = asyncio.Event()

    def configured(head: Head, _: object) -> None:
        told.set_result(Settings.model_validate_json(head["settings"]))

    line.on("settings", configured)
    line.on("stop", lambda *_: stopped.set())
    # These listen, too, and what they listen for may come together with the settings.
    engine, tally = RemoteEngine(line), RemoteTally(line)
    await loop.create_connection(lambda: line.channel, sock=channel)
    gone = loop.create_task(line.gone.wait())
    either: set[asyncio.Future[Any]] = {told, gone}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not told.done():
        return
    settings = told.result()
    logs.set_up(settings.log_level, settings.log_format)
    logs.take_over()
    tracing = tracing_by(settings)
    desk = Desk(settings, engine, tally, tracing)
    forward = Forward(line)
    front = Front(forward, desk, DIRECT)
    config = configuration(WorkerApp(front, forward), settings, tally, front)
    config.lifespan = "off"
    server = _WorkerServer(config)
    serving = loop.create_task(server.serve([listening]))

    async def end() -> None:
        stop = loop.create_task(stopped.wait())
        await asyncio.wait({gone, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not stopped.is_set():
            log.error("the process that computes is gone")
            server.force_exit = server.should_exit = True
            return
        await server.stop_listening()

    ending = loop.create_task(end())
    line.channel.send({"kind": "ready"})
    await serving
    ending.cancel()
    tally.tell()
    line.channel.close()
    if tracing is not None:
        await asyncio.to_thread(tracing.close)


def main() -> None:
    """Run a worker on the files that it was started with."""
    for sig in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sig, signal.SIG_IGN)
    channel, listening = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    loop_factory = uvicorn.Config("", loop="auto").get_loop_factory()
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(serve(channel, listening))
