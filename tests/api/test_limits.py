"""What a server holds of bodies is bounded, and each gives back what it took."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import Request, Response
from hypothesis import given
from hypothesis import strategies as st

from service.api.app import build_app, build_service
from service.api.front import Front
from service.api.limits import BodyBudget
from service.api.scope import hold
from service.errors import QueueFull
from service.settings import load_settings

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
