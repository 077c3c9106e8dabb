"""A bug is answered with an id to find in the log, and nothing of the traceback."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from service import logs
from service.api.app import build_app, build_service
from service.settings import load_settings


def test_a_bug_is_a_problem_with_an_id_that_stands_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = build_service(load_settings({"models": tmp_path}, environment={}))
    app = build_app(service)

    routes = app.app
    assert isinstance(routes, FastAPI)

    @routes.get("/bug")
    async def bug() -> None:
        raise KeyError("a secret")

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/bug", headers={"X-Request-ID": "id-42"})

    with caplog.at_level(logging.ERROR):
        response = asyncio.run(ask())
    service.runner.close()
    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.headers["X-Request-ID"] == "id-42"
    assert response.json()["request_id"] == "id-42"
    assert "secret" not in response.text
    [record] = [r for r in caplog.records if r.levelno == logging.ERROR]
    line = json.loads(logs.JSONFormatter().format(record))
    assert line["request_id"] == "id-42"
    assert "a secret" in line["exception"]
    assert 'code="500",endpoint="/bug"' in service.metrics.render().decode()
