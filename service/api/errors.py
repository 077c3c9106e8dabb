"""Every error's HTTP form, in one table: problem+json, RFC 9457."""

from __future__ import annotations

import http
import json
import logging
import math
import reprlib
from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match

from service import errors, logs
from service.api.bodies import JSON, expectation
from service.api.inference_protocol.errors import covers, refusal
from service.api.replies import Reply
from service.api.scope import desk_of, note_reason, request_id
from service.metrics import Tally

log = logging.getLogger(__name__)

# 499 is what nginx notes of a client that left; nobody is there to read it but the metrics.
STATUS: dict[type[errors.CandorError], int] = {
    errors.MalformedBody: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.ModelNotFound: 404,
    errors.ReportNotFound: 404,
    errors.SampleNotFound: 404,
    errors.SampleConflict: 409,
    errors.LimitExceeded: 413,
    errors.UnsupportedMedia: 415,
    errors.InvalidInput: 422,
    errors.CalibrationFailed: 422,
    errors.QueueFull: 429,
    errors.ClientLeft: 499,
    errors.EngineFailure: 500,
    errors.QueueTimeout: 503,
    errors.ModelNotReady: 503,
    errors.ModelBroken: 503,
    errors.StoreError: 503,
    errors.DeadlineExceeded: 504,
    errors.CandorError: 500,
}

_REASONS: dict[type[errors.CandorError], str] = {
    errors.LimitExceeded: "limit",
    errors.DeadlineUnreachable: "deadline_unreachable",
    errors.QueueFull: "queue_full",
    errors.QueueTimeout: "queue_timeout",
    errors.ModelNotReady: "not_ready",
    errors.DeadlineExceeded: "deadline",
    errors.ClientLeft: "client_left",
    errors.InvalidInput: "invalid",
    errors.Unauthenticated: "unauthenticated",
    errors.Forbidden: "forbidden",
}
"""The label `reason` of candor_rejected_total."""

_OUR_OWN = frozenset(
    {"queue_full", "queue_timeout", "deadline_unreachable", "deadline", "not_ready"}
)
"""Reasons that are not the client's fault, and worth a line of the log."""

_refusals = logs.Repeated(log, "requests were refused: %d")

_DEFAULT_RETRY_AFTER_S = 1.0
_STORE_ERROR = (
    "the sample store cannot be used now; the server's log says why under this request's id"
)
_LONGEST_RECEIVED = 500
_LONGEST_DETAIL = 2000
"""Characters."""


def install(app: FastAPI) -> None:
    """Have FastAPI answer every exception as a problem."""

    async def handle(request: Request, error: Exception) -> Response:
        return answer(request, error)

    for kind in (errors.CandorError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, handle)


def answer(request: Request, error: Exception) -> Response:
    """The answer to a request that ended in `error`; an error nobody raised on purpose is a bug."""
    if isinstance(error, errors.CandorError):
        return _candor_error(request, error)
    if isinstance(error, RequestValidationError):
        return _candor_error(request, _in_words(request, error))
    if isinstance(error, HTTPException):
        return _http_exception(request, error)
    return _bug(request, error)


def problem(
    request: Request,
    status: int,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Response:
    """One problem document; members that are None are left out.

    Under `/v2` it is what the protocol there has instead.
    """
    shown = detail if len(detail) <= _LONGEST_DETAIL else detail[:_LONGEST_DETAIL] + "…"
    path: str = request.scope["path"]
    if covers(path):
        return refusal(status, shown, headers)
    slug = title.lower().replace(" ", "-")
    body = {
        "type": f"urn:candor:problem:{slug}",
        "title": title,
        "status": status,
        "detail": shown,
        "instance": path,
        **{key: value for key, value in members.items() if value is not None},
        "request_id": request_id(request),
    }
    return Reply(_dump(body), "application/problem+json", status, headers)


def _dump(body: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(body, default=str)
    except TypeError:
        # What came may hold halves of characters, which JSON can say and UTF-8 cannot.
        return json.dumps(body, default=str).encode()


def _shortened(value: Any) -> Any:
    """What came, or its beginning: an error need not send a large body back."""
    text = repr(value)
    return value if len(text) <= _LONGEST_RECEIVED else text[:_LONGEST_RECEIVED] + "…"


def _known_fields(request: Request) -> list[str]:
    """Of the body or the query that a route takes."""
    for name, hint in get_type_hints(request.scope["endpoint"]).items():
        for kind in (hint, *get_args(hint)):
            if name != "return" and isinstance(kind, type) and issubclass(kind, BaseModel):
                return [*kind.model_fields]
    return []


def _in_words(request: Request, error: RequestValidationError) -> errors.InvalidInput:
    known = _known_fields(request)
    kind = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    place = first["loc"][0]
    if first["type"] == "json_invalid":
        return errors.MalformedBody(f"the body is not JSON: {first['ctx']['error']}", field="body")
    if place == "body" and kind != JSON:
        return errors.UnsupportedMedia(
            f"bodies of {kind} are not read here; send Content-Type: {JSON}",
            field="Content-Type",
            expected=[JSON],
            received=kind,
        )
    if len(first["loc"]) == 1:
        return errors.InvalidInput(
            "the body is no JSON object" if first["type"] != "missing" else "the body is missing",
            field="body",
            expected="a JSON object",
        )
    name = str(first["loc"][-1])
    if first["type"] == "missing":
        return errors.InvalidInput(f"`{name}` is missing in the {place}", field=name)
    if first["type"] == "extra_forbidden":
        return errors.InvalidInput(
            f"`{name}` is not a field of the {place} here; known are {', '.join(known)}",
            field=name,
            expected=known,
        )
    expected = expectation(first["msg"])
    return errors.InvalidInput(
        f"`{name}` is {reprlib.repr(first['input'])}; expected {expected}",
        field=name,
        expected=expected,
        received=first["input"],
    )


_answers: dict[type[errors.CandorError], tuple[int, str, str | None]] = {}


def _answered_as(kind: type[errors.CandorError]) -> tuple[int, str, str | None]:
    """Status, title and label of an error: those of the closest of its classes that has them."""
    found = _answers.get(kind)
    if found is None:
        status = next(STATUS[base] for base in kind.__mro__ if base in STATUS)
        reason = next((_REASONS[base] for base in kind.__mro__ if base in _REASONS), None)
        title = kind.slug().replace("-", " ").capitalize()
        found = _answers[kind] = status, title, reason
    return found


def reason(error: errors.QueueFull) -> str:
    """As a refusal is counted."""
    found = _answered_as(type(error))[2]
    assert found is not None
    return found


def count(tally: Tally, reason: str) -> None:
    """Count a request that is refused."""
    tally.rejected(reason)
    if reason in _OUR_OWN:
        _refusals.add(reason)


def retry_after(wait_s: float) -> int:
    """For the header: whole seconds that are enough; at once is too soon after a refusal."""
    return max(1, math.ceil(wait_s))


def _candor_error(request: Request, error: errors.CandorError) -> Response:
    if isinstance(error, errors.StoreError):
        # What a database says of itself (hosts, users, paths) is for the log.
        log.error("the sample store: %s", error.message, extra={"request_id": request_id(request)})
        error = errors.StoreError(_STORE_ERROR)
    status, title, reason = _answered_as(type(error))
    if reason is not None:
        count(desk_of(request).tally, reason)
        note_reason(request, reason)
    headers = None
    if status in (409, 429, 503):
        wait_s = error.retry_after_s or _DEFAULT_RETRY_AFTER_S
        headers = {"Retry-After": str(retry_after(wait_s))}
    response = problem(
        request,
        status,
        title,
        error.message,
        headers,
        field=error.field,
        expected=error.expected,
        received=None if error.received is None else _shortened(error.received),
    )
    if isinstance(error, errors.Unauthenticated):
        # Each in a header of its own: browsers do not part them at a comma.
        for challenge in error.challenges:
            response.headers.append("WWW-Authenticate", challenge)
    return response


def _http_exception(request: Request, error: HTTPException) -> Response:
    phrase = http.HTTPStatus(error.status_code).phrase
    detail = str(error.detail)
    if detail == phrase:
        detail = f"{request.method} {request.url.path}: {phrase.lower()}; see /docs"
    response = problem(request, error.status_code, phrase.capitalize(), detail)
    response.headers.update(error.headers or {})
    if error.status_code == 405:
        response.headers["Allow"] = ", ".join(_methods(request))
    return response


def _methods(request: Request) -> list[str]:
    """That the path has: FastAPI names those of the first of its routes alone."""
    documented = request.app.openapi()["paths"].get(request.url.path)
    if documented is not None:
        return sorted(method.upper() for method in documented)
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def _bug(request: Request, error: Exception) -> Response:
    number = request_id(request)
    log.error("a bug ended the request", exc_info=error, extra={"request_id": number})
    return problem(
        request,
        500,
        "Internal error",
        f"this is a bug of the server; its log says more under request id {number}",
    )
