"""A whole request as a message: ASGI in one process, the application in another."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message, Scope

log = logging.getLogger(__name__)

_COPIED = (
    *("type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "headers"),
    *("client", "server"),
)
_SECRET = frozenset({b"authorization", b"cookie"})
"""Of its headers: who asks was found out where it came in, and is told by name."""

_CHANGES = re.compile(r"/(?:models|v2/repository/models)/([^/]+)/(load|unload|reload)")
_PARTS = 4
"""Of an answer that wait to be sent, at most: whoever makes it waits then."""

_ABOUT = ("model", "version", "reason")
"""What a handler notes of a request, for metrics and logs where it came in."""

_REPEATABLE = frozenset({"GET", "HEAD"})
_TIMED = re.compile(r"/query|/label-studio/(?:[^/]+/)?predict")
"""What has the engine compute, within the request's deadline."""

_ASKS = re.compile(rf"{_TIMED.pattern}|/label-studio/(?:[^/]+/)?setup|/v2/repository/index")
"""What is posted and changes nothing."""

BEGUN: Message = {"type": "candor.begun"}
"""Comes before an answer, as soon as somebody has begun with it: it may still take long."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A request with its body.

    Args:
        scope: what ASGI says of it, without what only its own process has.
        body: all of it.
        request_id: of it.
        token: name of the one that it came with.
    """

    scope: Mapping[str, Any]
    body: bytes
    request_id: str
    token: str | None

    @property
    def change(self) -> tuple[str, str] | None:
        """The model, and what is to be done with it, of a request that changes what is served."""
        found = _CHANGES.fullmatch(self.scope["path"])
        if found is None or self.scope["method"] != "POST":
            return None
        return found[1], found[2]

    @property
    def repeatable(self) -> bool:
        """Whether it may be asked of another where the first died over it."""
        asks = self.scope["method"] == "POST" and _ASKS.fullmatch(self.scope["path"]) is not None
        return asks or self.scope["method"] in _REPEATABLE

    @property
    def timed(self) -> bool:
        """Whether it is answered within a deadline."""
        return _TIMED.fullmatch(self.scope["path"]) is not None

    @property
    def of_all(self) -> bool:
        """Whether each replica has to carry it out: rows that are to be deleted may still wait, in
        any of them, to be written."""
        return (self.scope["method"], self.scope["path"]) == ("DELETE", "/samples")


def whole(scope: Scope, body: bytes) -> Whole:
    """A request that came in here, as another process can be given it."""
    state = scope["state"]
    copied = {key: scope[key] for key in _COPIED if key in scope}
    copied["headers"] = [header for header in scope["headers"] if header[0] not in _SECRET]
    return Whole(copied, body, state["request_id"], state.get("token"))


async def answered(
    app: ASGIApp, request: Whole, state: MutableMapping[str, Any]
) -> AsyncIterator[Message]:
    """What an application here answers, part by part.

    Args:
        app: FastAPI's.
        request: from another process.
        state: what its handlers are given, to which they add.

    Yields:
        The messages of ASGI; the first has under `about` what was noted of the request.
    """
    scope: MutableMapping[str, Any] = {
        **request.scope,
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "root_path": "",
        "state": state,
    }
    bodies: list[Message] = [{"type": "http.request", "body": request.body}]
    parts: asyncio.Queue[Message | None] = asyncio.Queue(_PARTS)
    started = False

    async def receive() -> Message:
        if bodies:
            return bodies.pop()
        # Whoever waits for this one's end cancels the task.
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        nonlocal started
        if message["type"] == "http.response.start":
            started = True
            noted = {name: state[name] for name in _ABOUT if name in state}
            route = getattr(scope.get("route"), "path", None)
            message = {**message, "about": {**noted, "route": route}}
        await parts.put(message)

    async def run() -> None:
        try:
            await app(scope, receive, send)
        except Exception:
            # FastAPI answers a bug with a problem, and raises nonetheless.
            if not started:
                log.exception("a request was not answered")
        await parts.put(None)

    task = asyncio.get_running_loop().create_task(run())
    try:
        while (part := await parts.get()) is not None:
            yield part
    finally:
        task.cancel()
