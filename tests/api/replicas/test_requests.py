"""A request that is answered elsewhere is answered as it would be where it came."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Message

from service.api.direct import DIRECT
from service.api.replicas.requests import Whole, answered, whole
from service.api.scope import client_left, served_by
from service.api.security import ACCESS


def request(method: str, path: str, body: bytes = b"") -> Whole:
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"a=1",
        "headers": [(b"x-one", b"1"), (b"authorization", b"Bearer secret")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "extensions": {"only": object()},
        "state": {"request_id": "abc", "token": "anna", "desk": object()},
    }
    return whole(scope, body)


def app() -> FastAPI:
    found = FastAPI()

    @found.post("/echo/{name}")
    async def echo(request: Request, name: str) -> Response:
        served_by(request, name, 3)
        return Response(await request.body() + request.headers["x-one"].encode())

    @found.get("/parts")
    async def parts() -> StreamingResponse:
        return StreamingResponse(f"{number}," for number in range(50))

    @found.get("/bug")
    async def bug() -> None:
        raise RuntimeError("a bug")

    @found.get("/waits")
    async def waits(request: Request) -> None:
        try:
            await client_left(request)
        finally:
            found.state.cancelled.set()

    return found


async def all_of(what: Whole, to: FastAPI) -> list[Message]:
    state: dict[str, Any] = {"request_id": what.request_id}
    return [part async for part in answered(to, what, state)]


def body_of(parts: list[Message]) -> bytes:
    return b"".join(part.get("body", b"") for part in parts[1:])


def test_the_answer_and_what_was_noted_of_the_request() -> None:
    first, *rest = asyncio.run(all_of(request("POST", "/echo/digits", b"body"), app()))
    assert first["status"] == 200
    assert body_of([first, *rest]) == b"body1"
    assert first["about"] == {"model": "digits", "version": 3, "route": "/echo/{name}"}


def test_an_answer_in_many_parts() -> None:
    parts = asyncio.run(all_of(request("GET", "/parts"), app()))
    assert body_of(parts) == b"".join(b"%d," % number for number in range(50))


def test_a_bug_is_answered_and_ends_nothing_else() -> None:
    first, *_ = asyncio.run(all_of(request("GET", "/bug"), app()))
    assert first["status"] == 500


def test_who_wants_no_more_parts_ends_what_makes_them() -> None:
    async def leave() -> None:
        waiting = app()
        waiting.state.cancelled = asyncio.Event()
        task = asyncio.create_task(all_of(request("GET", "/waits"), waiting))
        await asyncio.sleep(0.01)
        task.cancel()
        async with asyncio.timeout(30.0):
            await waiting.state.cancelled.wait()

    asyncio.run(leave())


@pytest.mark.parametrize(
    ("method", "path", "change"),
    [
        ("POST", "/models/digits/load", ("digits", "load")),
        ("POST", "/models/a.b/unload", ("a.b", "unload")),
        ("POST", "/v2/repository/models/digits/unload", ("digits", "unload")),
        ("POST", "/models/digits/reload", ("digits", "reload")),
        ("GET", "/models/digits/load", None),
        ("POST", "/v2/models/digits/infer", None),
        ("POST", "/models/digits/versions/load", None),
        ("POST", "/query", None),
    ],
)
def test_which_requests_change_models(
    method: str, path: str, change: tuple[str, str] | None
) -> None:
    assert request(method, path).change == change


@pytest.mark.parametrize(
    ("method", "path", "repeatable"),
    [
        ("GET", "/models", True),
        ("HEAD", "/livez", True),
        ("POST", "/query", True),
        ("POST", "/samples/0/label", False),
        ("DELETE", "/samples", False),
        ("POST", "/samples/lease", False),
        ("POST", "/samples/lease/renew", False),
        ("POST", "/label-studio/predict", True),
        ("POST", "/label-studio/digits/setup", True),
        ("POST", "/label-studio/digits/other", False),
        ("POST", "/v2/repository/index", True),
        ("GET", "/samples/counts", True),
        ("GET", "/reports", True),
    ],
)
def test_which_requests_may_be_asked_twice(method: str, path: str, repeatable: bool) -> None:
    assert request(method, path).repeatable is repeatable


def test_every_route_that_changes_something_is_asked_once_or_of_all() -> None:
    """A new one that is posted has to be looked at."""
    asks = {"/query", "/v2/repository/index", "/label-studio/setup", "/label-studio/predict"}
    asks |= {"/label-studio/{model}/setup", "/label-studio/{model}/predict"}
    of_engine = {*DIRECT, "/v2/models/{name}/infer", "/v2/models/{name}/versions/{version}/infer"}
    for path, methods in ACCESS.items():
        for method in methods:
            found = request(method, path)
            assert found.repeatable is (method == "GET" or path in asks), path
            assert found.of_all is ((method, path) == ("DELETE", "/samples"))
            changes = path.endswith(("/load", "/unload", "/reload"))
            assert (found.change is not None) is changes, path
            if method == "POST" and methods[method] == {"predict"}:
                assert path in asks | of_engine, path


@pytest.mark.parametrize(
    ("path", "timed"),
    [("/query", True), ("/label-studio/a/predict", True), ("/label-studio/a/setup", False)],
)
def test_what_computes_has_a_deadline(path: str, timed: bool) -> None:
    assert request("POST", path).timed is timed


def test_what_only_its_own_process_has_stays_there() -> None:
    assert not {"state", "extensions"} & request("GET", "/").scope.keys()
    assert request("GET", "/").token == "anna"
    assert request("GET", "/").scope["headers"] == [(b"x-one", b"1")]
