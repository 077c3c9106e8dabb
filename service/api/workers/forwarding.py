"""A whole request as messages: ASGI in one process, the application in another.

Bodies are asked for and sent part by part, each when the one before was taken, so that neither
process holds more of a long one than that.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.workers.channel import Buffer, Channel, Head
from service.api.workers.remote import Line, engine_gone

_COPIED = ("type", "http_version", "method", "scheme", "path", "root_path", "client", "server")


class Forward:
    """The application of a worker for all that it does not answer itself.

    Raises:
        ModelNotReady: the process that computes has ended before it began to answer.
    """

    def __init__(self, line: Line) -> None:
        self._line = line

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        answers: asyncio.Queue[tuple[Head, list[bytearray]]] = asyncio.Queue()
        number = self._line.ask(
            _packed(scope), [], lambda head, buffers: answers.put_nowait((head, buffers))
        )
        parts: set[asyncio.Task[None]] = set()

        async def part() -> None:
            message = await receive()
            kind = "part" if message["type"] == "http.request" else "left"
            body = message.get("body", b"")
            head = {"kind": kind, "number": number, "more": message.get("more_body", False)}
            self._line.channel.send(head, [body])

        started = ended = False
        try:
            while not ended:
                head, buffers = await answers.get()
                kind = head["kind"]
                if kind == "gone":
                    if started:
                        return
                    raise engine_gone()
                if kind == "more":
                    task = asyncio.create_task(part())
                    parts.add(task)
                    task.add_done_callback(parts.discard)
                elif kind == "start":
                    started = True
                    await send(_start(head))
                elif kind == "body":
                    ended = not head["more"]
                    body = bytes(buffers[0])
                    await send({"type": "http.response.body", "body": body, "more_body": not ended})
                    if not ended:
                        self._line.channel.send({"kind": "sent", "number": number})
                else:
                    ended = True
        finally:
            for task in parts:
                task.cancel()
            self._line.forget(number)
            if not ended:
                self._line.channel.send({"kind": "left", "number": number})


class Forwarded:
    """A request that a worker passed on, as the application here sees it.

    Args:
        channel: to the worker.
        head: of the message that began it.
    """

    def __init__(self, channel: Channel, head: Head) -> None:
        self._channel = channel
        self._number: int = head["number"]
        self._scope = _unpacked(head)
        self._parts: asyncio.Queue[Message] = asyncio.Queue()
        self._sent = asyncio.Event()
        self._left = False

    async def run(self, app: ASGIApp) -> None:
        """Have it answered."""
        await app(self._scope, self._receive, self._send)

    def received(self, head: Head, buffers: list[bytearray]) -> None:
        """A message about this request."""
        if head["kind"] == "sent":
            self._sent.set()
        elif head["kind"] == "part":
            body = bytes(buffers[0])
            self._parts.put_nowait(
                {"type": "http.request", "body": body, "more_body": head["more"]}
            )
        else:
            self._left = True
            self._sent.set()
            self._parts.put_nowait({"type": "http.disconnect"})

    async def _receive(self) -> Message:
        if self._left and self._parts.empty():
            return {"type": "http.disconnect"}
        if self._parts.empty():
            self._channel.send({"kind": "more", "number": self._number})
        return await self._parts.get()

    async def _send(self, message: Message) -> None:
        if self._left:
            return
        if message["type"] == "http.response.start":
            headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in message["headers"]]
            self._tell({"kind": "start", "status": message["status"], "headers": headers})
            return
        more = message.get("more_body", False)
        self._sent.clear()
        self._tell({"kind": "body", "more": more}, message.get("body", b""))
        if more:
            await self._sent.wait()

    def _tell(self, head: Head, *buffers: Buffer) -> None:
        self._channel.send({**head, "number": self._number}, buffers)


def _packed(scope: Scope) -> Head:
    copied = {key: scope[key] for key in _COPIED if key in scope}
    return {
        "kind": "http",
        "scope": copied,
        "raw_path": scope.get("raw_path", b"").decode("latin-1"),
        "query_string": scope["query_string"].decode("latin-1"),
        "headers": [(k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]],
    }


def _unpacked(head: Head) -> MutableMapping[str, Any]:
    scope = head["scope"]
    encode = functools.partial(str.encode, encoding="latin-1")
    return {
        **scope,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "client": tuple(scope["client"]) if scope.get("client") else None,
        "server": tuple(scope["server"]) if scope.get("server") else None,
        "raw_path": encode(head["raw_path"]),
        "query_string": encode(head["query_string"]),
        "headers": [(encode(key), encode(value)) for key, value in head["headers"]],
        "state": {},
    }


def _start(head: Head) -> Message:
    return {
        "type": "http.response.start",
        "status": head["status"],
        "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in head["headers"]],
    }
