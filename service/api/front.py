"""What every request meets first: its id, its measurement, and the short way to its endpoint.

FastAPI describes every route in `/openapi.json`, and serves all but those that carry the load.
Between the socket and an endpoint it has seven layers and a solver of dependencies, which cost
several times what reading and answering a request of one row does. The endpoints given here as
`direct` take the request as it is and need none of that.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import logs
from service.api import errors
from service.api.bodies import read_body
from service.api.direct import Endpoint
from service.api.engine import check_door
from service.api.headers import AnswerHeaders, Headers
from service.api.inference_protocol.infer import PATH, ROUTE
from service.api.known_heads import Facts, KnownHeads
from service.api.limits import BodyBudget, BodyShare, allowed_s, priority
from service.api.origins import Origins, answer_preflight
from service.api.precedence import Precedence
from service.api.replies import send_whole
from service.api.scope import COMING, READ_S, SPARE_S, Desk, has_come
from service.api.security import ACCESS, Guard
from service.api.standing import StandingRefusals
from service.api.turns import Turns
from service.errors import CandorError, ClientLeft, QueueFull

if TYPE_CHECKING:
    from service.tracing.spans import RequestSpans

WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
_INFER = "/infer"
_REQUEST_ID_HEADER = b"x-request-id"
_TRACE_HEADERS = (b"traceparent", b"tracestate")
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_REQUEST_ID_BITS = 128
_HEAD_OF_REPETITION = (
    b"content-length: %d\r\ncontent-type: %b\r\nretry-after: %d\r\nx-request-id: %b\r\n%b\r\n%b"
)
_LET_IN = "let_in"
"""Of a request's state: it is known who sent it, and that it can be answered in time."""

# Seeded by the operating system once. Asking it for each request (uuid4) is a system call that
# lets go of the interpreter's lock, just when the engine wants it.
_random = random.Random()


class Front:
    """The server's application: gives every request its id, counts and times it, asks who sent it.

    While the server drains, its answers also end the connections they go to.

    Args:
        app: serves what is not direct.
        desk: what requests are answered with.
        direct: endpoints by route, for POST; all have the engine compute.
    """

    def __init__(self, app: ASGIApp, desk: Desk, direct: Mapping[str, Endpoint]) -> None:
        self.app = app
        self._desk = desk
        self._direct = direct
        self._guard = Guard(desk.settings)
        self._bodies = BodyBudget(desk.settings.body_bytes)
        self._headers = AnswerHeaders(desk.settings)
        self._origins = Origins(desk.settings.cors_origins)
        self._turns = Turns()
        self._precedence = Precedence()
        self._standing = StandingRefusals()
        self._known_heads = KnownHeads(desk.settings.max_header_bytes)
        self._coming = 0

    def serves(self, scope: Scope) -> bool:
        """Whether a request takes the short way to an endpoint."""
        return (
            scope["type"] == "http" and scope["method"] == "POST" and _route(scope) in self._direct
        )

    def turn_away(self, scope: Scope) -> Response | None:
        """The answer to a request on the short way that is refused whatever it holds, by its head.

        Under a load far above what can be served this is most of what a process does: so it makes
        no task, and nothing of what serving a request needs.
        """
        self._turns.note()
        self._desk.engine.look()
        if self._desk.tracing is not None or self._desk.engine.draining:
            return None
        number, state = self._known(scope)
        request = Request(scope)
        try:
            response = self._refusal(request)
        except Exception:
            # Serving it ends there, too, and says why.
            state.pop(_LET_IN, None)
            return None
        if response is not None:
            self._precedence.refused()
            self._complete(scope, response.raw_headers, number)
            self._note(scope, _route(scope), response.status_code, state)
        return response

    def remember(self, data: bytes, scope: Scope) -> None:
        """Note what came of a request that was turned away by its head, all of it and no more."""
        more = b"".join(b"%b: %b\r\n" % pair for pair in self._of_all_answers(scope))
        facts = Facts(scope["path"], _route(scope), priority(Request(scope)), more)
        self._known_heads.note(data, scope["headers"], facts)

    def repeat(self, data: bytes, came_s: float) -> tuple[int, bytes] | None:
        """The answer to what came, where it is a request that would be turned away as another was
        whose head was the same: its status, and the bytes behind the headers of all answers.

        Nothing is made for it, and nothing is read that need not be.
        """
        self._desk.engine.look()
        if not self._standing.any or self._desk.engine.draining:
            return None
        known = self._known_heads.read(data)
        if known is None:
            return None
        path, route, urgency, more = known.facts
        number = known.number
        if number is None:
            number = _made_id()
        elif _REQUEST_ID.fullmatch(number) is None:
            return None
        may_take_s = allowed_s(known.timeout, self._desk.settings.request_timeout_s)
        if may_take_s is None:
            return None
        left_s = may_take_s - (time.monotonic() - came_s)
        found = self._standing.of(path, urgency, left_s, number.decode())
        if found is None:
            return None
        self._turns.note()
        self._precedence.refused()
        errors.count(self._desk.tally, found.reason)
        self._desk.tally.answered("", None, route, found.status, 0.0)
        logs.access("POST", path, route, found.status, 0.0)
        return found.status, _HEAD_OF_REPETITION % (
            *(len(found.body), found.media_type, found.retry_after),
            *(number, more, found.body),
        )

    def _refusal(self, request: Request) -> Response | None:
        """The answer to a request that finds too much waiting; it is let in otherwise."""
        state = request.scope["state"]
        state["token"] = self._guard.check(request.scope)
        response = self._standing.answer(request)
        if response is not None:
            return response
        try:
            self._let_in(request)
        except QueueFull as error:
            response = errors.answer(request, error)
            self._standing.note(request, error, response)
            return response
        return None

    async def respond(self, scope: Scope, receive: Receive) -> Response:
        """The answer to a request on the short way."""
        started_s = time.perf_counter()
        self._desk.engine.look()
        number, state = self._begin(scope)
        trace = self._begin_trace(scope, state)
        route = _route(scope)
        body = self._bodies.share()
        state["hold"] = body.take
        code = 500
        try:
            response = await self._answer(
                self._direct[route], Request(scope, body.counted(receive))
            )
            self._complete(scope, response.raw_headers, number)
            code = response.status_code
            return response
        except asyncio.CancelledError:
            # So Ray ends a request whose client has left; it is counted.
            code = _left(Request(scope))
            raise
        finally:
            self._ended(scope, route, code, state, started_s, trace, body)

    def _let_in(self, request: Request) -> None:
        """Ask who sent a request that the engine is to compute, and whether it can be in time."""
        if _LET_IN not in (state := request.scope["state"]):
            state[_LET_IN] = True
            if "token" not in state:
                state["token"] = self._guard.check(request.scope)
            state[SPARE_S] = after_s = self._turns.after_s()
            check_door(request, self._turns.before_s() + after_s, self._coming)
            self._coming += 1
            state[COMING] = self._came

    def _came(self) -> None:
        self._coming -= 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.serves(scope):
            await send_whole(await self.respond(scope, receive), send)
        elif scope["type"] == "http":
            await self._pass_on(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_s = time.perf_counter()
        number, state = self._begin(scope)
        trace = self._begin_trace(scope, state)
        body = self._bodies.share()
        state["hold"] = body.take
        code = 500

        async def send_noted(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                self._complete(scope, message["headers"], number)
            await send(message)

        try:
            if self._origins.is_preflight(scope):
                await answer_preflight(send_noted)
                return
            try:
                state["token"] = self._guard.check(scope)
            except CandorError as error:
                await send_whole(errors.answer(Request(scope, receive), error), send_noted)
                return
            await self._through_the_app(scope, receive, body.counted(receive), send_noted)
        except asyncio.CancelledError:
            if code == 500:
                # No answer was begun.
                code = _left(Request(scope))
            raise
        finally:
            has_come(Request(scope))
            # What was refused before it was routed is of the route that it asked for.
            unrouted = scope["path"] if scope["path"] in ACCESS else "other"
            route = str(getattr(scope.get("route"), "path", unrouted))
            self._ended(scope, route, code, state, started_s, trace, body)

    def _ended(
        self,
        scope: Scope,
        route: str,
        code: int,
        state: dict[str, Any],
        started_s: float,
        trace: RequestSpans | None,
        body: BodyShare,
    ) -> None:
        body.give_back()
        self._note(scope, route, code, state, time.perf_counter() - started_s)
        if trace is not None:
            trace.end(route, code, state.get("model", ""))

    def _note(
        self, scope: Scope, route: str, code: int, state: dict[str, Any], elapsed_s: float = 0.0
    ) -> None:
        model, version = state.get("model", ""), state.get("version")
        self._desk.tally.answered(model, version, route, code, elapsed_s)
        logs.access(scope["method"], scope["path"], route, code, elapsed_s)

    def _begin_trace(self, scope: Scope, state: dict[str, Any]) -> RequestSpans | None:
        tracing = self._desk.tracing
        if tracing is None:
            return None
        headers = {
            name.decode(): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in _TRACE_HEADERS
        }
        number = state["request_id"]
        trace = state["trace"] = tracing.request(scope["method"], scope["path"], headers, number)
        state["trace_id"] = trace.trace_id
        return trace

    async def _answer(self, endpoint: Endpoint, request: Request) -> Response:
        try:
            self._let_in(request)
            response = await endpoint(request)
        except Exception as error:
            if isinstance(error, QueueFull):
                self._precedence.refused()
            response = errors.answer(request, error)
        finally:
            has_come(request)
        if self._desk.engine.draining:
            await _read_to_the_end(request)
        return response

    async def refuse(self, scope: Scope, receive: Receive, send: Send, error: CandorError) -> None:
        """Answer a request with an error, whatever it asks for."""
        number, _ = self._begin(scope)
        response = errors.answer(Request(scope, receive), error)
        self._complete(scope, response.raw_headers, number)
        await send_whole(response, send)

    def _begin(self, scope: Scope) -> tuple[bytes, dict[str, Any]]:
        """The request's id, and what its handlers are given; what this task logs is of it."""
        number, state = self._known(scope)
        logs.concerning(state)
        return number, state

    def _known(self, scope: Scope) -> tuple[bytes, dict[str, Any]]:
        state: dict[str, Any] = scope.setdefault("state", {})
        if "request_id" in state:
            return state["request_id"].encode(), state
        number = _request_id(scope)
        state["desk"] = self._desk
        state["request_id"] = number.decode()
        return number, state

    async def _through_the_app(
        self, scope: Scope, receive: Receive, receive_counted: Receive, send: Send
    ) -> None:
        """FastAPI reads bodies whole, however large: here with the limit of all others."""
        if scope["method"] in WITHOUT_BODY:
            # Where one comes nevertheless, it is thrown away as it comes and takes no memory.
            await self.app(scope, receive, send)
            return
        request = Request(scope, receive_counted)
        try:
            body = await read_body(request, self._desk.settings.max_body_bytes)
        except CandorError as error:
            await send_whole(errors.answer(request, error), send)
            return
        messages: list[Message] = [{"type": "http.request", "body": bytes(body)}]

        async def receive_again() -> Message:
            return messages.pop() if messages else await receive_counted()

        await self.app(scope, receive_again, send)

    def _complete(self, scope: Scope, headers: list[tuple[bytes, bytes]], number: bytes) -> None:
        headers.append((_REQUEST_ID_HEADER, number))
        headers += self._of_all_answers(scope)
        if self._desk.engine.draining:
            headers.append((b"connection", b"close"))

    def _of_all_answers(self, scope: Scope) -> Headers:
        return self._headers.of(scope["path"]) + self._origins.headers(scope)


def _route(scope: Scope) -> str:
    """The path, or the route of the inference protocol that it is of, whose parts it then notes."""
    path: str = scope["path"]
    if path.endswith(_INFER) and (found := PATH.fullmatch(path)) is not None:
        scope["path_params"] = found.groupdict()
        return ROUTE
    return path


async def _read_to_the_end(request: Request) -> None:
    """Before an answer that ends the connection: whoever still sends would find it reset, and maybe
    never see the answer."""
    while READ_S not in request.scope["state"]:
        if not (await request.receive()).get("more_body"):
            return


def _left(request: Request) -> int:
    """Count a request whose client has left before it was answered; the code that is noted."""
    left = ClientLeft("the client left before the answer was there")
    return errors.answer(request, left).status_code


def _request_id(scope: Scope) -> bytes:
    """The caller's, where it is one line of visible characters, or one that is made."""
    for name, value in scope["headers"]:
        if name == _REQUEST_ID_HEADER and _REQUEST_ID.fullmatch(value):
            return bytes(value)
    return _made_id()


def _made_id() -> bytes:
    return b"%032x" % _random.getrandbits(_REQUEST_ID_BITS)
