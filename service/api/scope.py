"""What a request carries with it, and the server's parts that its handler may use."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass
from typing import cast

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics
from service.registry.registry import Registry
from service.scheduling.runner import Runner
from service.settings import Settings

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
REQUEST_ID_HEADER = "X-Request-ID"


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of one server."""

    settings: Settings
    registry: Registry
    runner: Runner
    metrics: Metrics


def service_of(request: Request) -> Service:
    """The parts of the server that got this request."""
    return cast(Service, request.app.state.service)


def request_id(request: Request) -> str:
    """The caller's X-Request-ID, or one that was made."""
    return cast(str, request.state.request_id)


def served_by(request: Request, model: str) -> None:
    """Note which model a request is for, once it is known to exist; metrics are labelled by it."""
    request.state.model = model


class RequestScope:
    """Gives every request its id, counts and times it, and ends connections while draining."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        number = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state = scope.setdefault("state", {})
        state["request_id"] = number
        started_s = time.perf_counter()
        code = 500

        async def send_with_id(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = number
                if self._service.runner.draining:
                    headers["Connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            self._observe(scope, code, time.perf_counter() - started_s)

    def _observe(self, scope: Scope, code: int, elapsed_s: float) -> None:
        route = scope.get("route")
        endpoint = getattr(route, "path", "other")
        model = scope["state"].get("model", "")
        metrics = self._service.metrics
        metrics.requests_total.labels(model, endpoint, str(code)).inc()
        metrics.request_seconds.labels(model, endpoint).observe(elapsed_s)
