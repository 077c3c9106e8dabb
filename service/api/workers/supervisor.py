"""Starts the workers, starts those again that end, and ends them all."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import time
from asyncio.subprocess import Process
from typing import Any

from starlette.types import ASGIApp

from service.api.drain import drain
from service.api.scope import Service
from service.api.workers.switchboard import Extension, Switchboard

log = logging.getLogger(__name__)

_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 10.0
_STEADY_S = 30.0
"""A worker that lasted so long is started again at once."""

_START = "import sys; sys.path[:] = {!r}; from service.api.workers.process import main; main()"


class Supervisor:
    """The workers of a server.

    Args:
        service: computes.
        app: answers what workers pass on.
        switchboard: speaks with them.
        listening: the socket that all accept connections from.
    """

    def __init__(
        self, service: Service, app: ASGIApp, switchboard: Switchboard, listening: socket.socket
    ) -> None:
        self._service = service
        self._app = app
        self._switchboard = switchboard
        self._listening = listening
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Serve until a signal; the first drains, the second ends at once."""
        loop = asyncio.get_running_loop()
        draining, killing = asyncio.Event(), asyncio.Event()

        def signalled() -> None:
            (killing if draining.is_set() else draining).set()

        for sig in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sig, signalled)
        keepers = [loop.create_task(self._keep()) for _ in range(self._service.settings.workers)]
        await draining.wait()
        self._service.runner.draining = True
        self._switchboard.tell("draining")
        ending = loop.create_task(drain(self._service))
        killed = loop.create_task(killing.wait())
        await asyncio.wait({ending, killed}, return_when=asyncio.FIRST_COMPLETED)
        self._stopping.set()
        self._switchboard.tell("stop")
        # What a worker has then not sent or received is cut off with it.
        left_s = ending.result() if ending.done() else 0.0
        ended = asyncio.gather(*keepers, return_exceptions=True)
        either: set[asyncio.Future[Any]] = {ended, killed}
        await asyncio.wait(either, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        for task in (*keepers, ending, killed):
            task.cancel()
        await asyncio.gather(*keepers, ending, killed, return_exceptions=True)

    async def _keep(self) -> None:
        """One worker, again and again."""
        wait_s = _FIRST_WAIT_S
        while not self._stopping.is_set():
            started = time.monotonic()
            try:
                outcome = f"a worker ended with {await self._run_one()}"
            except Exception as error:
                # No memory or no number left for a process, which may be otherwise in a moment.
                outcome = f"a worker could not be started: {error!r}"
            if self._stopping.is_set():
                return
            if time.monotonic() - started > _STEADY_S:
                wait_s = _FIRST_WAIT_S
            log.error("%s; another is started", outcome)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stopping.wait()
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _run_one(self) -> int:
        own, other = socket.socketpair()
        extension = Extension(
            self._service.engine,
            self._service.tally,
            self._app,
            self._switchboard.listens,
            self._switchboard.busy,
            self._switchboard.extensions.discard,
        )
        files = (other.fileno(), self._listening.fileno())
        with other:
            try:
                process = await asyncio.create_subprocess_exec(*command(*files), pass_fds=files)
            except OSError:
                own.close()
                raise
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: extension.channel, sock=own)
            self._switchboard.extensions.add(extension)
            settings = self._service.settings.model_dump_json()
            extension.channel.send({"kind": "settings", "settings": settings})
            if self._service.engine.draining:
                extension.channel.send({"kind": "draining"})
            return await process.wait()
        finally:
            extension.channel.close()
            self._switchboard.extensions.discard(extension)
            await _end(process)


def command(channel: int, listening: int) -> list[str]:
    """What starts a worker on these files.

    It imports what this process does, and nothing that happens to lie where this was started.
    """
    return [sys.executable, "-P", "-c", _START.format(sys.path), str(channel), str(listening)]


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()
