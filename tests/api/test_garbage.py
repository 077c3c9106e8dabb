"""What a request leaves is freed at once: nothing of it refers to itself in circles."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from uvicorn.server import ServerState

from service.api.app import build_app, build_service
from service.api.listening import configuration
from service.api.scope import Service
from service.scheduling import attendant, runner
from service.scheduling.admission import Outlook
from service.scheduling.scheduler import Scheduler
from service.settings import load_settings
from tests.repositories import write_model

MANY = 20
BODIES = {
    "/predict": b'{"inputs": [[0.0, 0.0, 0.0, 0.0]], "passes": 10}',
    "/eval": b'{"inputs": [[0.0, 0.0, 0.0, 0.0]]}',
    "/v2/models/mine/infer": b'{"inputs": [{"name": "input", "shape": [1, 4], "datatype": "FP32", '
    b'"data": [0, 0, 0, 0]}]}',
}


class Transport(asyncio.Transport):
    """Notes how many answers were written, and the last of them."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0
        self.last = b""

    def write(self, data: Any) -> None:
        self.answers += bytes(data).startswith(b"HTTP/1.1 ")
        self.last = bytes(data)

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0


def request(path: str, *more: bytes) -> bytes:
    lines = (b"POST %s HTTP/1.1" % path.encode(), b"Host: x", b"Content-Type: application/json")
    body = BODIES[path]
    return b"\r\n".join([*lines, *more, b"Content-Length: %d" % len(body), b"", body])


@contextlib.contextmanager
def without_collecting() -> Iterator[list[Any]]:
    """Gives what only looking for garbage finds, once it is over."""
    found: list[Any] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("models")
    write_model(root, "mine")
    settings = {"models": root, "database_url": f"sqlite:///{root}/samples.sqlite"}
    own = build_service(load_settings(settings, environment={}))
    own.registry.load_all()
    yield own
    own.runner.close()
    own.collector.close(10.0)
    own.store.close()


def left_by(service: Service, asked: bytes, status: bytes) -> list[Any]:
    """What many such requests, all answered so, leave as garbage."""
    app = build_app(service)
    config = configuration(app, service.settings, service.tally, app)

    async def story() -> list[Any]:
        config.load()
        kind: Callable[..., Any] = config.http_protocol_class
        connection, transport = kind(config, ServerState(), {}), Transport()
        connection.connection_made(transport)

        async def ask(times: int) -> None:
            for _ in range(times):
                due = transport.answers + 1
                connection.data_received(asked)
                while transport.answers < due or connection.tasks:
                    await asyncio.sleep(0)
                assert transport.last.startswith(b"HTTP/1.1 " + status), transport.last

        # What is made once, of the first ones, is nobody's.
        await ask(3)
        rounds = []
        for _ in range(3):
            with without_collecting() as found:
                await ask(MANY)
            rounds.append(found)
        connection.connection_lost(None)
        # What other tests left comes up once; what requests leave comes up each time.
        return min(rounds, key=len)

    return asyncio.run(story())


@pytest.mark.parametrize("path", BODIES)
def test_an_answer_leaves_no_garbage(path: str, service: Service) -> None:
    assert len(left_by(service, request(path), b"200")) < MANY


def test_who_waits_so_long_that_its_client_is_watched_leaves_none(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attendant, "_ATTEND_AFTER_S", 0.0)
    assert len(left_by(service, request("/predict"), b"200")) < MANY


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("full", ["", "9 requests are waiting"])
def test_a_refusal_leaves_no_garbage(
    path: str, full: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_FEW", 0)
    monkeypatch.setattr(
        Scheduler, "outlook", lambda *_: Outlook(end_s=0.7, begin_s=0.6, full=full, each_s=0.1)
    )
    asked = request(path, b"X-Request-Timeout: 1")
    assert len(left_by(service, asked, b"429")) < MANY


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"inputs": [[1]]}', b"422"),
        (b'{"inputs": [["a"]]}', b"422"),
        (b'{"inputs": [[0, 0, 0, 0]], "passes": -1}', b"422"),
        (b'{"inputs": [[0, 0, 0, 0]], "model": "other"}', b"404"),
        (b"{", b"400"),
    ],
)
def test_an_error_leaves_no_garbage(body: bytes, status: bytes, service: Service) -> None:
    asked = request("/predict").replace(BODIES["/predict"], body)
    whole = asked.replace(b"Length: %d" % len(BODIES["/predict"]), b"Length: %d" % len(body))
    assert len(left_by(service, whole, status)) < MANY
