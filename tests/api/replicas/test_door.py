"""What a door does not answer itself is answered elsewhere, once, whoever dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from prometheus_client import Metric
from starlette.types import Message

from service.api.replicas import counting, door
from service.api.replicas.asking import ReplicaLost
from service.api.replicas.door import Door
from service.api.replicas.requests import BEGUN, Whole
from service.api.scope import READ_S
from service.errors import QueueFull
from service.metrics import Metrics
from service.settings import load_settings
from service.tokens import hash_of
from tests.api.replicas.others import Here, until
from tests.api.replicas.test_board import said


class Replica:
    """Says what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Whole] = []
        self.never = False
        self.begins = True
        self.full = False

    async def answer(self, request: Whole) -> AsyncIterator[Message]:
        self.asked.append(request)
        if self.full:
            raise QueueFull("full", retry_after_s=1.0)
        if self.begins:
            yield {**BEGUN}
        if self.never:
            await asyncio.Event().wait()
        start: Message = {"type": "http.response.start", "status": 200, "headers": []}
        yield {**start, "about": {"model": "mine", "route": "/models/{name}"}}
        yield {"type": "http.response.body", "body": request.body, "more_body": True}
        yield {"type": "http.response.body", "body": b"."}


class Board:
    """Keeps what it is asked to change."""

    def __init__(self) -> None:
        self.changed: list[tuple[str, str] | None] = []
        self.dies = False
        self.says_nothing = False
        self.deleted: list[int | str] = []

    async def change(self, request: Whole) -> list[Message]:
        self.changed.append(request.change)
        if self.says_nothing:
            return []
        first, *rest = said(200, "changed")
        return [{**first, "headers": []}, *rest]

    async def by_each(self, request: Whole) -> list[list[Message]]:
        assert request.of_all
        answers = []
        for count in self.deleted:
            status = {"unknown": 404, "no store": 503}.get(str(count), 200)
            first, *rest = said(status, f'{{"deleted":{count}}}' if status == 200 else str(count))
            answers.append([{**first, "headers": [], "about": {"route": "/samples"}}, *rest])
        return answers

    async def counted(self) -> list[Metric]:
        if self.dies:
            raise ReplicaLost("killed")
        metrics = Metrics()
        metrics.answered("mine", None, "/predict", 200, 0.1)
        return counting.counted(metrics.registry)


class Doors:
    """A door and all behind it."""

    def __init__(self, dying: int = 0, **settings: Any) -> None:
        self.replica, self.board = Replica(), Board()
        self.replicas = Here(self.replica, dying)
        own = load_settings(settings, environment={})
        self.door = Door(own, self.replicas, Here(self.board), "door")

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(self.door)
            async with httpx.AsyncClient(transport=transport, base_url="http://door") as http:
                return await http.request(method, path, **more)

        return asyncio.run(run())

    def counted(self) -> set[tuple[str, ...]]:
        [family] = [f for f in self.door._counted() if f.name == "candor_requests"]
        return {
            tuple(sample.labels.values())
            for sample in family.samples
            if sample.name.endswith("_total")
        }


def test_an_answer_comes_back_in_its_parts_and_is_counted_for_its_route() -> None:
    doors = Doors()
    response = doors.ask("POST", "/samples/lease?a=1", content=b"body")
    assert (response.status_code, response.content) == (200, b"body.")
    [asked] = doors.replica.asked
    assert asked.scope["query_string"] == b"a=1"
    assert doors.counted() == {("mine", "/models/{name}", "200")}


def test_reading_is_asked_of_another_where_the_first_dies() -> None:
    doors = Doors(dying=2)
    assert doors.ask("GET", "/models").status_code == 200
    assert len(doors.replicas.calls) == 3


def test_what_changes_something_is_asked_once() -> None:
    doors = Doors(dying=1)
    response = doors.ask("POST", "/samples/0/skip")
    assert response.status_code == 503
    assert "it is not known whether it did" in response.json()["detail"]
    assert doors.replicas.calls == ["answer"]


def test_changes_of_models_go_to_all() -> None:
    doors = Doors()
    assert doors.ask("POST", "/models/mine/reload").content == b"changed"
    assert doors.board.changed == [("mine", "reload")]
    assert not doors.replica.asked


@pytest.mark.parametrize(
    ("deleted", "status", "says"),
    [
        ([3, 0, 4], 200, b'{"deleted":7}'),
        ([5, "unknown"], 200, b'{"deleted":5}'),
        (["unknown", "unknown"], 404, b"unknown"),
        ([5, "no store", 3], 503, b"no store"),
    ],
)
def test_rows_are_deleted_by_all_or_one_says_why_not(
    deleted: list[int | str], status: int, says: bytes
) -> None:
    doors = Doors()
    doors.board.deleted = deleted
    response = doors.ask("DELETE", "/samples?model=mine")
    assert (response.status_code, response.content) == (status, says)
    assert not doors.replica.asked


def test_metrics_are_those_of_all() -> None:
    text = Doors().ask("GET", "/metrics").text
    assert 'candor_requests_total{code="200",endpoint="/predict",model="mine"} 1.0' in text


def test_a_board_that_dies_over_it_is_a_reason_to_ask_again() -> None:
    doors = Doors()
    doors.board.dies = True
    response = doors.ask("GET", "/metrics")
    assert response.status_code == 503
    assert "Retry-After" in response.headers


def test_a_change_of_which_nobody_says_how_it_ended_is_not_known_to_be_made() -> None:
    doors = Doors()
    doors.board.says_nothing = True
    response = doors.ask("POST", "/models/mine/reload")
    assert response.status_code == 503
    assert "it is not known whether it did" in response.json()["detail"]


def test_health_waits_for_no_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_READY_S", 0.05)
    doors = Doors()
    doors.replica.never = True
    response = doors.ask("GET", "/readyz")
    assert response.status_code == 503
    assert "Retry-After" in response.headers
    for path in ("/livez", "/v2/health/live"):
        response = doors.ask("GET", path)
        assert (response.status_code, response.json()) == (200, {"live": True})


def test_replicas_that_have_too_much_to_do_are_not_ready_and_the_door_lives() -> None:
    doors = Doors()
    doors.replica.full = True
    assert doors.ask("GET", "/readyz").status_code == 503
    assert doors.ask("GET", "/models").status_code == 429
    assert doors.ask("GET", "/livez").status_code == 200


def test_where_no_replica_takes_it_nobody_waits_for_ever() -> None:
    doors = Doors(request_timeout_s="0.05")
    doors.replica.never, doors.replica.begins = True, False
    response = doors.ask("GET", "/models")
    assert response.status_code == 503
    assert "no replica took it within 0.05 seconds" in response.json()["detail"]
    assert "Retry-After" in response.headers
    response = doors.ask("POST", "/samples/0/skip")
    assert response.status_code == 503
    assert "it is not known whether it did" in response.json()["detail"]


def test_what_has_begun_may_take_long(monkeypatch: pytest.MonkeyPatch) -> None:
    doors = Doors(request_timeout_s="0.02")

    async def slow(request: Whole) -> AsyncIterator[Message]:
        yield {**BEGUN}
        await asyncio.sleep(0.1)
        yield {"type": "http.response.start", "status": 200, "headers": []}
        yield {"type": "http.response.body", "body": b"done"}

    monkeypatch.setattr(doors.replica, "answer", slow)
    response = doors.ask("GET", "/samples/export")
    assert (response.status_code, response.content) == (200, b"done")


class Behind:
    """A loop that is so far behind, see `Turns`."""

    def note(self) -> None:
        """A request was read."""

    def before_s(self) -> float:
        return 20.0

    def after_s(self) -> float:
        return 20.0


def test_who_cannot_be_in_time_is_turned_away_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    doors = Doors()
    monkeypatch.setattr(doors.door._front, "_turns", Behind())
    monkeypatch.setattr(doors.door._front, "_precedence", Mock())
    read: list[Message] = []
    answers: list[Message] = []

    async def run() -> None:
        async def receive() -> Message:
            read.append({"type": "http.request", "body": b"{}"})
            return read[-1]

        async def send(message: Message) -> None:
            answers.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
        await doors.door({**scope, "query_string": b""}, receive, send)

    asyncio.run(run())
    assert not read
    start, _ = answers
    assert start["status"] == 429
    names = [name for name, _ in start["headers"]]
    assert b"retry-after" in names
    # Ray's proxy adds it.
    assert b"x-request-id" not in names
    assert doors.counted() == {("", "/predict", "429")}


def test_a_choice_has_a_deadline_though_no_replica_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "_GRACE_S", 0.0)
    doors = Doors()
    doors.replica.never = True
    response = doors.ask("POST", "/query", headers={"X-Request-Timeout": "0.05"})
    assert response.status_code == 504


def test_who_may_not_ask_gets_no_further_than_the_door() -> None:
    doors = Doors(token=hash_of("secret"))
    assert doors.ask("GET", "/models").status_code == 401
    assert not doors.replica.asked
    allowed = doors.ask("GET", "/models", headers={"Authorization": "Bearer secret"})
    assert allowed.status_code == 200
    assert doors.replica.asked[0].token == "token"
    assert doors.ask("POST", "/models/mine/unload").status_code == 401
    assert not doors.board.changed


def test_too_large_a_body_gets_no_further_than_the_door() -> None:
    doors = Doors(max_body_bytes="10")
    assert doors.ask("POST", "/query", content=b"x" * 11).status_code == 413
    assert not doors.replica.asked


def test_a_request_that_ray_ends_since_its_client_left_is_none_that_failed() -> None:
    doors = Doors()
    doors.replica.never = True

    async def run() -> None:
        transport = httpx.ASGITransport(doors.door)
        async with httpx.AsyncClient(transport=transport, base_url="http://door") as http:
            asking = asyncio.create_task(http.get("/models"))
            await until(lambda: bool(doors.replica.asked))
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking

    asyncio.run(run())
    assert {labels[-1] for labels in doors.counted()} == {"499"}


def test_the_time_of_a_request_counts_from_when_all_of_it_had_come() -> None:
    async def run() -> None:
        parts: list[Message] = [
            {"type": "http.request", "body": b"a", "more_body": True},
            {"type": "http.request", "body": b"b"},
        ]

        async def receive() -> Message:
            return parts.pop(0)

        state: dict[str, Any] = {}
        noted = door._noting_its_end(receive, state)
        await noted()
        assert READ_S not in state
        await noted()
        assert READ_S in state

    asyncio.run(run())


def test_an_application_below_a_prefix_knows_its_routes_without_it() -> None:
    doors = Doors()

    async def run() -> None:
        transport = httpx.ASGITransport(doors.door, root_path="/large")
        async with httpx.AsyncClient(transport=transport, base_url="http://door") as http:
            await http.get("/large/models")

    asyncio.run(run())
    assert doors.replica.asked[0].scope["path"] == "/models"
