"""Connections that cannot hold the server up: what a client may take, in time and in memory.

uvicorn reads whatever comes for as long as it comes. Here the head of a request has a size and a
time, its body has to arrive at some least rate, an answer has to be taken at that rate, too, and
connections have a number. One look at all of them a second finds those that overstay: a request
costs a few clock readings, and no timer of its own.
"""

from __future__ import annotations

import asyncio
import enum
import functools
import http
import random
import re
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, cast

import orjson
from fastapi import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.backlog import Backlog
from service.api.inference_protocol.errors import covers
from service.api.replies import send_whole
from service.api.scope import CAME_S, CLIENT, READ_S, Client
from service.metrics import Tally
from service.settings import Settings

LEAST_BYTES_PER_S = 16 * 2**10
"""Bodies and answers that move faster get more time than their setting says."""

_LOOK_S = 1.0
_RETRY_AFTER_S = 1
_CHUNK_OVERHEAD = 16
"""Bytes around a chunk for each byte in it: more than the smallest chunks have."""
_SPARE_FILES = 256
_PLAIN_PATH = re.compile(rb"[\w/.~:-]+")
"""What stands for itself: of other paths it is not known before they are parsed what they are."""
_JOINED_BYTES = 2**16
"""A body up to this goes out together with its head; to copy a larger one would take longer."""
_LARGE_HEAD = "the head has over {} bytes (CANDOR_MAX_HEADER_BYTES)"
_TOO_MANY = "the server has as many connections as it may (CANDOR_MAX_CONNECTIONS); try again"

_random = random.Random()


class _Phase(enum.Enum):
    """What a connection waits for."""

    FIRST = enum.auto()
    HEAD = enum.auto()
    BODY = enum.auto()
    ANSWER = enum.auto()
    NEXT = enum.auto()


_BETWEEN = frozenset({_Phase.FIRST, _Phase.NEXT})
"""Nothing of a request has come."""


class Front(Protocol):
    """Answers some requests by itself, and not as an ASGI application does, piece by piece."""

    def serves(self, scope: Scope) -> bool:
        """Whether it answers this one."""
        ...

    def turn_away(self, scope: Scope) -> Response | None:
        """The answer to one that it serves by its head alone; None where it takes more."""
        ...

    def remember(self, data: bytes, scope: Scope) -> None:
        """Note what came of one that was turned away: all of it and nothing else."""
        ...

    def repeat(self, data: bytes, came_s: float) -> tuple[int, bytes] | None:
        """The answer to what came, where it is turned away as one before: its status, and all that
        is behind the headers that every answer has."""
        ...

    async def respond(self, scope: Scope, receive: Receive) -> Response:
        """The answer to one that it serves, whose bytes are all there."""
        ...


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a connection may take; the settings of the same names."""

    header_timeout_s: float
    body_timeout_s: float
    idle_timeout_s: float
    max_header_bytes: int
    max_connections: int


def protocol_for(settings: Settings, tally: Tally, front: Front) -> type[HttpToolsProtocol]:
    """What uvicorn serves each connection by.

    Args:
        settings: of the server.
        tally: counts what is cut off.
        front: answers before the application is asked.
    """
    allowance = Allowance(
        settings.header_timeout_s,
        settings.body_timeout_s,
        settings.idle_timeout_s,
        settings.max_header_bytes,
        settings.max_connections,
    )
    _allow_files(2 * settings.max_connections)
    members = {
        "allowance": allowance,
        "guard": _Guard(allowance),
        "backlog": Backlog(),
        "tally": tally,
        "front": front,
    }
    return type("Guarded", (_Guarded,), members)


def _allow_files(connections: int) -> None:
    """Let the process open a file for each connection, as far as it may decide that itself."""
    if sys.platform == "win32":
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + _SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Guard:
    """Looks at all connections of a server as long as there are some."""

    def __init__(self, allowance: Allowance) -> None:
        smallest_s = min(
            allowance.header_timeout_s, allowance.body_timeout_s, allowance.idle_timeout_s
        )
        self._every_s = min(_LOOK_S, smallest_s / 4)
        self._looking = False

    def watch(self, loop: asyncio.AbstractEventLoop, connections: set[Any]) -> None:
        """Begin, where it has not begun."""
        if not self._looking:
            self._looking = True
            due_s = loop.time() + self._every_s
            loop.call_at(due_s, self._look, loop, connections, due_s)

    def _look(self, loop: asyncio.AbstractEventLoop, connections: set[Any], due_s: float) -> None:
        now_s = loop.time()
        # Who comes late has not read what came meanwhile, and blames nobody.
        if now_s - due_s < self._every_s:
            for connection in tuple(connections):
                connection.look(now_s)
        self._looking = False
        if connections:
            self.watch(loop, connections)


class _Guarded(HttpToolsProtocol):
    """One connection."""

    allowance: ClassVar[Allowance]
    guard: ClassVar[_Guard]
    backlog: ClassVar[Backlog]
    tally: ClassVar[Tally]
    front: ClassVar[Front]
    default_headers: ClassVar[Any] = None
    """Those that uvicorn gives all answers, and makes anew each second."""
    beginnings: ClassVar[dict[int, bytes]] = {}
    """Of answers with them, by status."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It is watched from now on; where there are too many, an idle one goes or this does."""
        if len(self.connections) >= self.allowance.max_connections:
            self._make_room()
        super().connection_made(transport)
        self._segment_bytes = 0
        """Of what came last."""
        self._came_s = 0.0
        self._waiting = 0
        """Parts of what came that are in the backlog."""
        self._held = False
        """Nothing more is read until they are not."""
        self._answered: Any = None
        """The request that is being answered, or was last."""
        self._stalled_s: float | None = None
        self._stalled_bytes = 0
        self._turned_away = False
        """The request that comes was answered by its head."""
        self._refused: Scope | None = None
        """The one that came last, if it was."""
        self._enter(_Phase.FIRST)
        surplus = len(self.connections) - self.allowance.max_connections
        if surplus > 0:
            self.tally.rejected("connections")
            self.app = _refusal(503, _TOO_MANY)
        if surplus > self.allowance.max_connections:
            transport.abort()
        self.guard.watch(self.loop, self.connections)

    def data_received(self, data: bytes) -> None:
        """Serve what came, at once or once others had their turn."""
        now_s = time.monotonic()
        if self.backlog.has_room(self.loop, now_s):
            self._read(data, now_s)
            return
        self._waiting += 1
        much = self._waiting > 1 or len(data) > _JOINED_BYTES
        if much and not self.transport.is_closing():
            # Nobody fills the memory meanwhile, though others may have it read on.
            self._held = True
            self.transport.pause_reading()
        self.backlog.add(self, data, now_s, self.loop)

    def read(self, data: bytes, came_s: float) -> None:
        """Serve what came earlier, unless its client has left since."""
        self._waiting -= 1
        if self.transport.is_closing():
            return
        try:
            self._read(data, came_s)
        except Exception as error:
            # As the loop does where it has called itself.
            context = {"message": "a request could not be read", "exception": error}
            self.loop.call_exception_handler(context)
            self.transport.abort()
            return
        if self._held and not self._waiting:
            self._held = False
            if not self.flow.read_paused and not self.transport.is_closing():
                self.transport.resume_reading()

    def _read(self, data: bytes, came_s: float) -> None:
        """Count what is no body: neither a head nor what is around chunks may grow for ever."""
        self._came_s = came_s
        begins = self._phase in _BETWEEN and self._may_be_turned_away()
        if begins and self._repeat(data):
            return
        self._segment_bytes = len(data)
        self._received_bytes += self._segment_bytes
        self._refused = None
        super().data_received(data)
        if self.transport.is_closing():
            return
        if begins and self._refused is not None and self._phase is _Phase.NEXT:
            self.front.remember(data, self._refused)
            self._refused = None
        limit = self.allowance.max_header_bytes
        if self._phase is _Phase.HEAD:
            if self._received_bytes > limit:
                self._cut_off(431, "invalid_http", _LARGE_HEAD.format(limit))
        elif self._phase is _Phase.BODY:
            limit += (1 + _CHUNK_OVERHEAD) * self._body_bytes
            if self._received_bytes > limit:
                self._cut_off(400, "invalid_http", "there is far more around the body than in it")

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        """Of requests that come one behind the other this one's turn has come."""
        self._answered = cycle
        if app is self.config.loaded_app and self.front.serves(cycle.scope):
            cycle.scope["state"][CLIENT] = Client(self.flow.resume_reading)
            app = functools.partial(self._respond, cycle)
        super()._start_asgi_task(cycle, app)

    def _turn_away(self) -> bool:
        """Whether a request was answered by its head alone, before uvicorn makes what serving one
        takes.

        Who waits to be told to go on has to be, or what comes next is taken for a body; and a
        connection that ends with the answer is reset if its body is still on the way. The same
        holds for whoever waits for the answer to an earlier request: its turn comes later.
        """
        parser = self.parser
        scope: MutableMapping[str, Any] = cast(Any, self.scope)
        if not self._may_be_turned_away() or self.expect_100_continue:
            return False
        if _PLAIN_PATH.fullmatch(self.url) is None:
            return False
        if parser.get_http_version() != "1.1" or not parser.should_keep_alive():
            return False
        scope["method"], scope["path"] = parser.get_method().decode(), self.url.decode()
        scope["state"][CAME_S] = self._came_s
        if not self.front.serves(scope):
            return False
        answer = self.front.turn_away(scope)
        if answer is None:
            return False
        self._write(answer)
        self.server_state.total_requests += 1
        self._turned_away = True
        self._refused = scope
        return True

    def _may_be_turned_away(self) -> bool:
        """Whether an answer that goes out now is that to what comes now."""
        served = self.app is self.config.loaded_app
        return served and not self._answers() and not self.flow.write_paused

    def _repeat(self, data: bytes) -> bool:
        """Whether it is a request that was answered as one before, without being read."""
        answer = self.front.repeat(data, self._came_s)
        if answer is None:
            return False
        status, rest = answer
        self.transport.write(self._beginning(status) + rest)
        self.server_state.total_requests += 1
        self._enter(_Phase.NEXT)
        return True

    async def _respond(self, cycle: Any, scope: Scope, receive: Receive, send: Send) -> None:
        """An application that has the front answer."""
        answer = await self.front.respond(scope, receive)
        plain = cycle.keep_alive and not cycle.waiting_for_100_continue
        if not plain or cycle.disconnected or self.flow.write_paused or _ends(answer):
            await send_whole(answer, send)
        else:
            self._answer_at_once(cycle, answer)

    def _answer_at_once(self, cycle: Any, answer: Response) -> None:
        self._write(answer)
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        cycle.on_response()

    def _write(self, answer: Response) -> None:
        """What uvicorn does in two messages, each header of which it looks at."""
        lines: list[bytes | memoryview] = [self._beginning(answer.status_code)]
        lines += [b"%s: %s\r\n" % pair for pair in answer.raw_headers]
        lines.append(b"\r\n")
        if small := len(answer.body) <= _JOINED_BYTES:
            lines.append(answer.body)
        self.transport.write(b"".join(lines))
        if not small:
            self.transport.write(answer.body)

    def _beginning(self, status: int) -> bytes:
        headers = self.server_state.default_headers
        if self.default_headers is not headers:
            type(self).default_headers, type(self).beginnings = headers, {}
        found = self.beginnings.get(status)
        if found is None:
            lines = (b"%s: %s\r\n" % pair for pair in headers)
            found = self.beginnings[status] = b"".join([STATUS_LINE[status], *lines])
        return found

    def shutdown(self) -> None:
        """Take no more; what came is answered."""
        self.backlog.empty()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever works on an answer is told; uvicorn tells of the last request that came."""
        super().connection_lost(exc)
        if self._answered is not None and not self._answered.response_complete:
            _tell_of_leaving(self._answered)

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._enter(_Phase.HEAD)

    def on_headers_complete(self) -> None:
        """Its head is there."""
        limit = self.allowance.max_header_bytes
        # A head that is this large within one segment was not counted as it came.
        if self._segment_bytes > limit and self._head_bytes() > limit:
            self.tally.rejected("invalid_http")
            self.app = _refusal(431, _LARGE_HEAD.format(limit))
        if not self._turn_away():
            super().on_headers_complete()
        self._enter(_Phase.BODY)

    def on_body(self, body: bytes) -> None:
        """A part of its body is there."""
        self._body_bytes += len(body)
        if not self._turned_away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """All of it is there."""
        if self._turned_away:
            self._turned_away = False
            self._enter(_Phase.NEXT)
            return
        self.cycle.scope["state"][READ_S] = self._came_s
        super().on_message_complete()
        self._enter(_Phase.ANSWER)
        if self.cycle.response_complete:
            self._enter(_Phase.NEXT)

    def on_response_complete(self) -> None:
        """It was answered, maybe before all of it was there.

        As uvicorn has it, without the timer that it sets each time: `look` ends idle connections.
        """
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._phase is _Phase.ANSWER:
            self._enter(_Phase.NEXT)

    def pause_writing(self) -> None:
        """The client takes its answer slower than it is written."""
        super().pause_writing()
        self._stalled_s = self.loop.time()
        self._stalled_bytes = self.transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """It has caught up."""
        super().resume_writing()
        self._stalled_s = None

    def look(self, now_s: float) -> None:
        """Cut the connection off if it overstays."""
        if self._stalled_s is not None:
            taken_bytes = max(0, self._stalled_bytes - self.transport.get_write_buffer_size())
            if now_s - self._stalled_s > self._allowed_s(taken_bytes):
                self.tally.rejected("slow_client")
                self.transport.abort()
            return
        if self.transport.is_closing():
            return
        held = self.flow.read_paused or self._waiting
        if held or (self._phase is _Phase.HEAD and self._answers()):
            # It is the server that keeps the client from sending.
            self._since_s = now_s
            return
        waited_s = now_s - self._since_s
        if self._phase in (_Phase.FIRST, _Phase.HEAD):
            longest_s = self.allowance.header_timeout_s
            if waited_s > longest_s:
                self._cut_off(
                    408,
                    "slow_client",
                    f"the head was not there after {longest_s:g} s (CANDOR_HEADER_TIMEOUT_S)",
                )
        elif self._phase is _Phase.BODY:
            # What comes after the answer is read and thrown away, but not for ever.
            counted = self._body_bytes if self._answers() else 0
            if waited_s > self._allowed_s(counted):
                self._cut_off(
                    408,
                    "slow_client",
                    f"the body was not there after {waited_s:.0f} s; it may take "
                    f"{self.allowance.body_timeout_s:g} s (CANDOR_BODY_TIMEOUT_S), and a second "
                    f"more for every {LEAST_BYTES_PER_S} bytes",
                )
        elif self._phase is _Phase.NEXT and waited_s > self.allowance.idle_timeout_s:
            self.transport.close()

    def idle_since_s(self) -> float | None:
        """When it last had something to do; None where it has."""
        idle = self._phase in (_Phase.FIRST, _Phase.HEAD, _Phase.NEXT) and not self._answers()
        idle = idle and not self._waiting
        return self._since_s if idle and not self.transport.is_closing() else None

    def send_400_response(self, msg: str) -> None:
        """What came is no HTTP: uvicorn's answer in the form of all others."""
        if self._answers() and self._phase is not _Phase.BODY:
            # The answers that go out next are to requests before it, which were right.
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        self._cut_off(400, "invalid_http", msg)

    def _enter(self, phase: _Phase) -> None:
        self._phase = phase
        self._since_s = self.loop.time()
        self._received_bytes = 0
        self._body_bytes = 0

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _answers(self) -> bool:
        """Whether an answer is being worked on."""
        return self.cycle is not None and not self.cycle.response_complete

    def _allowed_s(self, moved_bytes: int) -> float:
        return self.allowance.body_timeout_s + moved_bytes / LEAST_BYTES_PER_S

    def _make_room(self) -> None:
        """Close the connection that has been idle the longest, if any is."""
        idle = [
            (since_s, id(connection), connection)
            for connection in self.connections
            if isinstance(connection, _Guarded)
            and (since_s := connection.idle_since_s()) is not None
        ]
        if idle:
            self.tally.rejected("connections")
            longest = min(idle)[2]
            longest.transport.close()
            # It leaves by itself a moment later, and its place is free now.
            self.connections.discard(longest)

    def _cut_off(self, status: int, reason: str, detail: str) -> None:
        """Say why, where the client waits for an answer that has not begun; then close."""
        self.tally.rejected(reason)
        answering = self._answers()
        waits = not self.cycle.response_started if answering else self._phase is _Phase.HEAD
        # Where an earlier request has not had its answer, this one would be taken for it.
        if waits and not self.pipeline and not (answering and self._phase is _Phase.HEAD):
            path = self.cycle.scope["path"] if answering else ""
            headers, body = _problem(status, detail, path)
            lines = [STATUS_LINE[status], *(b"%s: %s\r\n" % pair for pair in headers), b"\r\n"]
            self.transport.write(b"".join([*lines, body]))
        if answering:
            # Whoever works on the answer is told that nobody waits for it.
            _tell_of_leaving(self.cycle)
        self.transport.close()


def _tell_of_leaving(cycle: Any) -> None:
    cycle.disconnected = True
    cycle.message_event.set()
    client: Client | None = cycle.scope["state"].get(CLIENT)
    if client is not None:
        client.leaves()


def _ends(answer: Response) -> bool:
    """Whether the connection ends with an answer."""
    return any(name == b"connection" for name, _ in answer.raw_headers)


def _refusal(status: int, detail: str) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """An application that refuses whatever it is asked, and ends the connection."""

    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        headers, body = _problem(status, detail, scope["path"])
        if status == 503:
            headers.append((b"retry-after", b"%d" % _RETRY_AFTER_S))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return refuse


def _problem(status: int, detail: str, path: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of an answer that ends its connection; the path is empty if not known."""
    title = http.HTTPStatus(status).phrase.capitalize()
    number = f"{_random.getrandbits(128):032x}"
    problem = {
        "type": f"urn:candor:problem:{title.lower().replace(' ', '-')}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": path,
        "request_id": number,
    }
    protocol = covers(path)
    body = orjson.dumps({"error": detail} if protocol else problem)
    headers = [
        (b"content-type", b"application/json" if protocol else b"application/problem+json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", number.encode()),
        (b"connection", b"close"),
    ]
    return headers, body
