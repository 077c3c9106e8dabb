"""What a server holds of bodies is bounded, and each gives back what it took."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import torch
from fastapi import FastAPI, Request, Response
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from service.api.app import build_app, build_service
from service.api.front import Front
from service.api.limits import BodyBudget, check_answer
from service.api.scope import hold
from service.errors import LimitExceeded, QueueFull
from service.inference.devices import Resources
from service.inference.fields import EVALUATION_FIELDS, KEPT_FIELDS, SUMMARY_FIELDS, Fields
from service.inference.prediction import Request as Asked
from service.registry.loading import LoadedModel
from service.registry.registry import Registry
from service.settings import load_settings
from service.types import Masks, SamplePlan
from tests.repositories import write_model

LIMIT_BYTES = 1000

parts = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 600)), max_size=30)


@given(parts)
def test_all_bodies_together_stay_within_the_limit_but_one_alone_may_be_larger(
    arrivals: list[tuple[int, int]],
) -> None:
    budget = BodyBudget(LIMIT_BYTES)
    held = [0, 0, 0, 0]
    for body, size in arrivals:
        alone = sum(held) == held[body]
        fits = sum(held) + size <= LIMIT_BYTES
        if alone or fits:
            budget.take(held[body], size)
            held[body] += size
        else:
            with pytest.raises(QueueFull):
                budget.take(held[body], size)
            budget.give_back(held[body])
            held[body] = 0
        assert budget.held_bytes == sum(held)


def test_a_body_that_finds_no_room_is_answered_429_and_fits_once_the_others_are_gone(
    tmp_path: Path,
) -> None:
    settings = {"models": tmp_path, "body_bytes": LIMIT_BYTES}
    service = build_service(load_settings(settings, environment={}))
    app = build_app(service)
    path = "/predict"

    async def ask() -> list[httpx.Response]:
        held, enough = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield b" " * 900
            held.set()
            await enough.wait()
            yield b" " * 900

        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            first = asyncio.create_task(client.post(path, content=slowly()))
            await held.wait()
            refused = await client.post(path, content=b" " * 200)
            small = await client.post(path, content=b" " * 50)
            enough.set()
            return [refused, small, await first, await client.post(path, content=b" " * 200)]

    refused, *read = asyncio.run(ask())
    service.runner.close()
    assert refused.status_code == 429
    assert refused.json()["detail"].startswith("900 bytes of request bodies are in memory")
    assert refused.headers["Retry-After"] == "1"
    # What was read was looked at: it is not JSON.
    assert [response.status_code for response in read] == [400, 400, 400]


def test_what_a_compressed_body_becomes_is_counted_until_it_is_answered(tmp_path: Path) -> None:
    settings = {"models": tmp_path, "body_bytes": LIMIT_BYTES}
    service = build_service(load_settings(settings, environment={}))
    seen: list[int] = []

    async def endpoint(request: Request) -> Response:
        body = await request.body()
        hold(request, 10 * len(body))
        seen.append(len(body))
        return Response()

    front = Front(build_app(service).app, service, {"/predict": endpoint})

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(front)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

            async def slowly() -> AsyncIterator[bytes]:
                yield b" " * 500
                first.append((await client.post("/predict", content=b" " * 60)).status_code)

            first: list[int] = []
            await client.post("/predict", content=slowly())
            again = await client.post("/predict", content=b" " * 60)
            return [*first, again.status_code]

    assert asyncio.run(ask()) == [429, 200]
    service.runner.close()
    assert seen == [500, 60]


DENSE = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.5), nn.Conv2d(4, 5, 1))
"""


@pytest.fixture(scope="module", params=["[3, 16, 16]", "[3, -1, -1]", "[4]"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Of two that answer for each place of an image one takes images of any size."""
    root = tmp_path_factory.mktemp("answers")
    if request.param == "[4]":
        write_model(root, "one")
    else:
        write_model(root, "one", DENSE, shape=request.param)
    registry = Registry(root, Resources(torch.device("cpu"), memory_bytes=2**20))
    registry.scan()
    registry.load_all()
    return registry.resolve("one", None)


@pytest.mark.parametrize("wanted", [SUMMARY_FIELDS, ("mean", "samples"), ("quantiles",), None])
def test_the_size_of_an_answer_is_known_before_it_is_computed(
    model: LoadedModel, wanted: tuple[str, ...] | None
) -> None:
    row = (4,) if model.manifest.input.shape == (4,) else (3, 16, 16)
    inputs = torch.randn(2, *row, generator=torch.Generator().manual_seed(0))
    plan = None if wanted is None else SamplePlan(7, 0, Masks.SHARED)
    fields = EVALUATION_FIELDS if wanted is None else wanted
    if plan is None:
        answer: Fields | None = model.evaluate(inputs)
    else:
        [answer] = model.predict([Asked(inputs, plan, {*fields, "samples"})])
    assert answer is not None
    counted = {*fields, *(() if set(fields).isdisjoint(KEPT_FIELDS) else ("samples",))}
    arrays = [answer[name] for name in counted]
    size_bytes = sum(array.nbytes for array in arrays if array is not None)
    check_answer(model, inputs.shape, plan, fields, size_bytes)
    with pytest.raises(LimitExceeded, match=f"would have {size_bytes} bytes.*MAX_ANSWER_BYTES"):
        check_answer(model, inputs.shape, plan, fields, size_bytes - 1)


def test_an_answer_over_the_limit_is_refused_by_every_endpoint_that_computes(
    tmp_path: Path,
) -> None:
    write_model(tmp_path, "one", DENSE, shape="[3, -1, -1]")
    settings = {"models": tmp_path, "max_answer_bytes": 10_000}
    service = build_service(load_settings(settings, environment={}))
    service.registry.load_all()
    small, large = (torch.zeros(1, 3, size, size).tolist() for size in (2, 100))

    async def ask(path: str, inputs: object) -> int:
        transport = httpx.ASGITransport(build_app(service))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.post(path, json={"inputs": inputs})).status_code

    for path in ("/predict", "/eval"):
        assert asyncio.run(ask(path, small)) == 200
        assert asyncio.run(ask(path, large)) == 413
    service.runner.close()


def test_every_route_that_takes_a_body_says_that_it_may_find_no_room(tmp_path: Path) -> None:
    service = build_service(load_settings({"models": tmp_path}, environment={}))
    app = build_app(service).app
    assert isinstance(app, FastAPI)
    for path, methods in app.openapi()["paths"].items():
        if "post" in methods:
            assert {"413", "429"} <= methods["post"]["responses"].keys(), path
    service.runner.close()


def test_what_comes_as_the_body_of_a_get_is_thrown_away_and_counts_nowhere(
    tmp_path: Path,
) -> None:
    settings = {
        "models": tmp_path,
        "database_url": f"sqlite:///{tmp_path}/samples.sqlite",
        "body_bytes": LIMIT_BYTES,
    }
    service = build_service(load_settings(settings, environment={}))
    app = build_app(service)
    asked, answered = 0, asyncio.Event()

    async def receive() -> Message:
        nonlocal asked
        asked += 1
        if asked > 10:
            await answered.wait()
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b" " * LIMIT_BYTES, "more_body": True}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            while asked < 10:
                await asyncio.sleep(0)
            other = await client.post("/predict", content=b" " * 200)
            assert other.status_code == 400
            answered.set()

    scope = {
        "type": "http",
        "asgi": {"spec_version": "2.3"},
        "method": "GET",
        "path": "/samples/export",
        "query_string": b"",
        "headers": [],
        "scheme": "http",
        "server": ("candor", 80),
    }

    async def ask() -> None:
        async with asyncio.timeout(60):
            await app(scope, receive, send)

    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")
    asyncio.run(ask())
    service.runner.close()
    service.store.close()
    assert answered.is_set()


def test_what_is_refused_before_it_is_routed_is_counted_of_its_route(tmp_path: Path) -> None:
    settings = {"models": tmp_path, "max_body_bytes": LIMIT_BYTES}
    service = build_service(load_settings(settings, environment={}))
    app = build_app(service)

    async def ask(path: str) -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return (await client.post(path, content=b" " * 2 * LIMIT_BYTES)).status_code

    assert [asyncio.run(ask(path)) for path in ("/query", "/nowhere")] == [413, 413]
    service.runner.close()
    text = service.metrics.render().decode()
    for endpoint in ("/query", "other"):
        assert f'candor_requests_total{{code="413",endpoint="{endpoint}",model=""}} 1.0' in text
