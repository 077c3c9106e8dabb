"""A door's application: it answers what carries the load, and has replicas answer the rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import orjson
from fastapi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, Metric
from starlette.types import Message, Receive, Scope, Send

from service.api import errors
from service.api.bodies import JSON
from service.api.direct import DIRECT
from service.api.front import WITHOUT_BODY, Front
from service.api.limits import timeout_s
from service.api.replicas import counting
from service.api.replicas.asking import Others, ReplicaLost
from service.api.replicas.board import DOOR, Told, succeeded
from service.api.replicas.clerk import Clerk
from service.api.replicas.engine import ReplicatedEngine
from service.api.replicas.requests import BEGUN, Whole, whole
from service.api.replies import send_whole
from service.api.scope import READ_S, Desk, client_left
from service.errors import ClientLeft, DeadlineExceeded, ModelNotReady, QueueFull
from service.metrics import Metrics
from service.settings import Settings
from service.tracing import tracing_by

_METRICS = "/metrics"
_LIVE = frozenset({"/livez", "/v2/health/live"})
_READY = frozenset({"/readyz", "/v2/health/ready"})
_READY_S = 5.0
_GRACE_S = 1.0
"""It is the replica's to watch; one that says nothing is given up so much later."""

_NOT_FOUND = 404
_REQUEST_ID = b"x-request-id"
_COUNTED = (
    *("candor_requests", "candor_request_seconds", "candor_rejected"),
    *("candor_version_requests", "candor_version_request_seconds"),
)
"""What a door counts; all else is counted where it is computed."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 1.0


@dataclass(frozen=True, slots=True)
class _Route:
    """For the metrics: the route of a request that was routed elsewhere."""

    path: str


class Door:
    """The ASGI application of a process that speaks HTTP.

    Args:
        settings: of the service.
        replicas: that compute.
        board: of all processes.
        who: name of this one.
    """

    def __init__(self, settings: Settings, replicas: Others, board: Others, who: str) -> None:
        self._metrics = Metrics()
        self._engine = ReplicatedEngine(replicas, settings.request_timeout_s)
        tracing = tracing_by(settings)
        self._tracing = tracing
        desk = Desk(settings, self._engine, self._metrics, tracing)
        forward = _Forward(replicas, board, settings.request_timeout_s)
        self._front = Front(forward, desk, DIRECT)
        self._clerk = Clerk(board, who, DOOR, self._counted, self._told)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            return
        path, root = scope["path"], scope.get("root_path", "")
        if root and path.startswith(root):
            path = path.removeprefix(root) or "/"
        state: dict[str, Any] = {}
        own = {**scope, "path": path, "state": state}
        send = _without_request_id(send)
        if self._front.serves(own) and (refused := self._front.turn_away(own)) is not None:
            await send_whole(refused, send)
            return
        await self._front(own, _noting_its_end(receive, state), send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """From start to end, as the server around this tells."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self._clerk.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._clerk.stop()
                if self._tracing is not None:
                    await asyncio.to_thread(self._tracing.close)
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _told(self, told: Told) -> None:
        self._engine.told(changing=told.changing)

    def _counted(self) -> list[Metric]:
        return counting.counted(self._metrics.registry, _COUNTED)


def _noting_its_end(receive: Receive, state: dict[str, Any]) -> Receive:
    """From when all of a request has come its time counts, as `connections` notes elsewhere."""

    async def receive_noted() -> Message:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            state.setdefault(READ_S, time.monotonic())
        return message

    return receive_noted


def _without_request_id(send: Send) -> Send:
    """Ray's proxy, through which an answer goes, adds the same by itself."""

    async def send_rest(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message["headers"] if name != _REQUEST_ID]
            message = {**message, "headers": headers}
        await send(message)

    return send_rest


class _Forward:
    """Has a whole request answered elsewhere.

    Args:
        replicas: that answer it.
        board: that has it answered by all of them, one after the other, where it changes models.
        patience_s: until a request that no replica takes, or whose replicas die, is given up.
    """

    def __init__(self, replicas: Others, board: Others, patience_s: float) -> None:
        self._replicas = replicas
        self._board = board
        self._patience_s = patience_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        # Of methods without a body none was read.
        body = b"" if scope["method"] in WITHOUT_BODY else await _all(receive)
        started = False

        async def send_noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        loop = asyncio.get_running_loop()
        asked = whole(scope, body)
        passing = loop.create_task(self._pass(asked, scope, send_noted))
        left = loop.create_task(client_left(request))
        try:
            limit_s = timeout_s(request) + _GRACE_S if asked.timed else None
            either = {passing, left}
            await asyncio.wait(either, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
            if left.done() and not passing.done():
                raise ClientLeft("the client closed its connection before the answer was there")
            if limit_s is not None and not passing.done():
                raise DeadlineExceeded(
                    f"no answer within {limit_s:g} seconds; send fewer rows or passes, or allow "
                    "more time (X-Request-Timeout)"
                )
            passing.result()
        except Exception as error:
            if started:
                # What was begun cannot be taken back; the connection ends with it.
                raise
            await errors.answer(request, error)(scope, receive, send)
        finally:
            passing.cancel()
            left.cancel()

    async def _pass(self, request: Whole, scope: Scope, send: Send) -> None:
        async for message in self._answer(request):
            about: dict[str, Any] = message.pop("about", {})
            if (route := about.pop("route", None)) is not None:
                scope["route"] = _Route(route)
            scope["state"].update(about)
            await send(message)

    async def _answer(self, request: Whole) -> AsyncIterator[Message]:
        if request.scope["path"] == _METRICS and request.scope["method"] in ("GET", "HEAD"):
            families = await self._asked_of_the_board("counted")
            text = counting.render(families)
            for part in _parts(Response(text, media_type=CONTENT_TYPE_LATEST), _METRICS):
                yield part
        elif request.change is not None:
            parts = await self._asked_of_the_board("change", request)
            if not parts:
                raise _lost()
            for part in parts:
                yield part
        elif request.of_all:
            for part in _removed(await self._asked_of_the_board("by_each", request)):
                yield part
        elif request.scope["path"] in _LIVE and request.scope["method"] == "GET":
            # This process does. Ray itself looks after replicas, which may have too much to do to
            # say so.
            for part in _parts(Response(_LIVES, media_type=JSON), request.scope["path"]):
                yield part
        elif request.scope["path"] in _READY:
            # Whoever watches over this asks again soon, and is not kept waiting for a replica.
            for part in await self._ready(request):
                yield part
        else:
            async for part in self._by_a_replica(request):
                yield part

    async def _asked_of_the_board(self, method: str, *arguments: Any) -> Any:
        try:
            return await self._board.ask(method, *arguments)
        except ReplicaLost:
            raise _lost() from None

    async def _ready(self, request: Whole) -> list[Message]:
        try:
            async with asyncio.timeout(_READY_S):
                return [part async for part in self._by_a_replica(request)]
        except (TimeoutError, QueueFull):
            raise ModelNotReady(
                f"no replica answered within {_READY_S:g} seconds; they are starting, or have too "
                "much to do",
                retry_after_s=_READY_S,
            ) from None

    async def _by_a_replica(self, request: Whole) -> AsyncIterator[Message]:
        """Asked of another where the first died before it began to answer and nothing changes.

        Raises:
            ModelNotReady: no replica took it, or it is not known what became of it.
        """
        loop = asyncio.get_running_loop()
        until_s, pause_s = loop.time() + self._patience_s, _FIRST_PAUSE_S
        started = False
        while True:
            try:
                async for part in _once_begun(self._replicas.follow("answer", request), until_s):
                    started = True
                    yield part
                return
            except TimeoutError:
                if not request.repeatable:
                    raise _lost() from None
                raise ModelNotReady(
                    f"no replica took it within {self._patience_s:g} seconds; they are starting, "
                    "or have too much to do",
                    retry_after_s=_READY_S,
                ) from None
            except ReplicaLost:
                if started or not request.repeatable or loop.time() > until_s:
                    raise _lost() from None
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


_LIVES = b'{"live":true}'


async def _once_begun(parts: AsyncIterator[Message], until_s: float) -> AsyncIterator[Message]:
    """An answer with which somebody begins until then; raises TimeoutError where nobody does."""
    async with asyncio.timeout_at(until_s):
        first = await anext(parts)
    if first["type"] != BEGUN["type"]:
        yield first
    async for part in parts:
        yield part


def _removed(answers: list[list[Message]]) -> list[Message]:
    """What was deleted by all. Where one could not, it says why; that it found nothing of a model
    that there is not, which has left rows elsewhere, is no such reason."""
    for answer in answers:
        if not answer:
            raise _lost()
        if not succeeded(answer) and answer[0]["status"] != _NOT_FOUND:
            return answer
    done = [answer for answer in answers if succeeded(answer)]
    if not done:
        return answers[0]
    bodies = (b"".join(part.get("body", b"") for part in answer[1:]) for answer in done)
    deleted = sum(orjson.loads(body)["deleted"] for body in bodies)
    summed = Response(orjson.dumps({"deleted": deleted}), media_type=JSON)
    return _parts(summed, done[0][0]["about"]["route"])


def _parts(response: Response, route: str) -> list[Message]:
    """An answer of this process, as another would have given it."""
    start = {"type": "http.response.start", "status": response.status_code}
    return [
        {**start, "headers": response.raw_headers, "about": {"route": route}},
        {"type": "http.response.body", "body": response.body},
    ]


def _lost() -> ModelNotReady:
    return ModelNotReady(
        "the process that was to answer has died, and it is not known whether it did what was "
        "asked; look, then send it again",
        retry_after_s=1.0,
    )


async def _all(receive: Receive) -> bytes:
    """The body, which `Front` has read as a whole."""
    message = await receive()
    return bytes(message.get("body", b""))
