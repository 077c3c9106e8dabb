"""The clients against a real server, and their retries against one that refuses at first."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest
import torch

from service.client import BINARY_FROM, AsyncClient, Client
from service.errors import (
    CandorError,
    InvalidInput,
    ModelNotFound,
    QueueFull,
    ServerUnreachable,
)
from tests.e2e.servers import Server

YEARS = [[1975.5], [2030.0]]


def test_lists_arrays_and_tensors_are_all_inputs(shipped: Server) -> None:
    with Client(shipped.url) as client:
        answers = [
            client.predict(inputs, model="co2")
            for inputs in (YEARS, np.array(YEARS), torch.tensor(YEARS))
        ]
    assert answers[0].std is not None
    assert all(np.array_equal(answers[0].std, np.asarray(a.std)) for a in answers[1:])
    assert answers[0].std.shape == (2, 1)
    assert answers[0].aleatoric_std is None
    assert (answers[0].passes, answers[0].seed) == (50, 0)


def test_large_inputs_travel_as_arrays_and_say_the_same(shipped: Server) -> None:
    images = np.random.default_rng(0).integers(0, 17, (BINARY_FROM // 64, 1, 8, 8))
    fields = ["mean", "label", "mutual_information", "quantiles"]
    with Client(shipped.url) as client:
        large = client.predict(images, model="digits", passes=8, fields=fields)
        small = client.predict(images[:1], model="digits", passes=8, fields=fields)
    assert large.mean is not None
    assert large.quantiles is not None
    assert large.mean.shape == (len(images), 10)
    assert small.quantiles is not None
    np.testing.assert_allclose(large.mean[:1], np.asarray(small.mean), atol=1e-6)
    np.testing.assert_allclose(large.quantiles[:, :1], small.quantiles, atol=1e-6)
    assert large.label is not None
    assert small.label is not None
    assert large.label[0] == small.label[0]
    assert type(large.model) is str
    assert type(large.passes) is int


def test_a_tolerance_answers_with_the_passes_of_each_row(shipped: Server) -> None:
    images = np.random.default_rng(0).integers(0, 17, (BINARY_FROM // 64, 1, 8, 8))
    with Client(shipped.url) as client:
        large = client.predict(images, model="digits", tolerance=0.02, max_passes=300)
        small = client.predict(images[:3], model="digits", tolerance=0.02, max_passes=300)
    assert isinstance(large.passes, np.ndarray)
    assert large.passes.shape == (len(images),)
    np.testing.assert_array_equal(small.passes, large.passes[:3])


def test_eval_and_models(shipped: Server) -> None:
    with Client(shipped.url) as client:
        answer = client.eval(YEARS, model="co2")
        names = [model.name for model in client.models()]
    assert answer.mean.shape == (2, 1)
    assert names == ["breast_cancer", "co2", "digits"]


def test_the_async_client_says_the_same(shipped: Server) -> None:
    async def ask() -> tuple[np.ndarray, np.ndarray, int]:
        async with AsyncClient(shipped.url) as client:
            first, second = await asyncio.gather(
                client.predict(YEARS, model="co2"), client.eval(YEARS, model="co2")
            )
            assert first.mean is not None
            return first.mean, second.mean, len(await client.models())

    mean, deterministic, count = asyncio.run(ask())
    with Client(shipped.url) as client:
        assert np.array_equal(mean, np.asarray(client.predict(YEARS, model="co2").mean))
        assert np.array_equal(deterministic, client.eval(YEARS, model="co2").mean)
    assert count == 3


def test_errors_are_those_of_the_service(shipped: Server) -> None:
    with Client(shipped.url) as client:
        with pytest.raises(ModelNotFound, match="digits"):
            client.predict(YEARS, model="nobody")
        with pytest.raises(InvalidInput) as caught:
            client.predict([[1975.5], [float("nan")]], model="co2")
        assert caught.value.field == "inputs[1][0]"
        with pytest.raises(InvalidInput) as caught:
            client.predict(np.full((3000, 1), np.inf), model="co2")
        assert caught.value.field == "inputs[0][0]"
        with pytest.raises(InvalidInput, match="2 elements"):
            client.predict([[1.0], [1.0, 2.0]], model="co2")


def test_no_server_is_said_with_its_address() -> None:
    with (
        Client("http://127.0.0.1:9", retries=1) as client,
        pytest.raises(ServerUnreachable, match=r"127\.0\.0\.1:9.*is the server running"),
    ):
        client.models()


@contextmanager
def _refusing(times: int, status: int) -> Iterator[tuple[str, list[str]]]:
    """A server that refuses some times, then lists no models."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            refuse = len(seen) <= times
            problem = {"type": "urn:candor:problem:queue-full", "detail": "too much waits"}
            body = json.dumps(problem if refuse else {"models": []}).encode()
            self.send_response(status if refuse else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_is_tried_again(status: int) -> None:
    with _refusing(2, status) as (url, seen), Client(url) as client:
        assert client.models() == []
        assert len(seen) == 3


@contextmanager
def _closing(times: int) -> Iterator[tuple[str, list[bytes]]]:
    """A server that reads so many requests and closes their connections, and then answers."""
    seen: list[bytes] = []
    body = b'{"model": "co2", "version": 1, "task": "regression", "mean": [[1.0]]}'
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                seen.append(connection.recv(65536).split(b" ")[1])
                if len(seen) > times:
                    connection.sendall(answer % (len(body), body))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", seen
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_what_changes_nothing_is_sent_again_where_a_connection_closed_under_it() -> None:
    with _closing(2) as (url, seen), Client(url) as client:
        answer = client.eval([[1.0]], model="co2")
        assert answer.mean is not None
        assert answer.mean.tolist() == [[1.0]]
        assert seen == [b"/eval"] * 3


def test_what_changes_something_is_sent_once() -> None:
    with _closing(1) as (url, seen), Client(url) as client:
        with pytest.raises(ServerUnreachable):
            client.label("0123", "three")
        assert seen == [b"/samples/0123/label"]


def test_after_the_last_try_the_refusal_is_raised() -> None:
    with _refusing(9, 429) as (url, seen), Client(url, retries=1) as client:
        with pytest.raises(QueueFull, match="too much waits"):
            client.models()
        assert len(seen) == 2


def test_other_errors_are_not_tried_again() -> None:
    with _refusing(9, 400) as (url, seen), Client(url) as client:
        with pytest.raises(CandorError):
            client.models()
        assert len(seen) == 1
