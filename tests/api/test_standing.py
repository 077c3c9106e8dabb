"""A refusal that stands is said again to whom it is for, each with its own id and its own time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from fastapi import Request

from service.api import errors
from service.api.scope import CAME_S, Desk
from service.api.standing import _MOST, StandingRefusals
from service.errors import DeadlineUnreachable, InvalidInput, Standing
from service.settings import load_settings
from service.types import Priority


def request(
    number: str = "mine", path: str = "/predict", timeout: str = "1", **headers: str
) -> Request:
    named = {"x-request-timeout": timeout, **{f"x-request-{k}": v for k, v in headers.items()}}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    desk = Desk(load_settings(environment={}), Mock(), Mock(), None)
    state: dict[str, Any] = {"desk": desk, "request_id": number}
    return Request({"type": "http", "path": path, "headers": raw, "state": state})


def standing(retry_after_s: Callable[[float], float], lasts_s: float = 1e9) -> Standing:
    """For whoever has up to a second."""
    now_s = time.monotonic()
    return Standing(now_s + lasts_s, 1.001, retry_after_s)


def refused(asked: Request, stands: Standing | None = None) -> tuple[StandingRefusals, bytes]:
    """What was said to it, and what is remembered of that."""
    error = DeadlineUnreachable("it is late", retry_after_s=2.0)
    error.standing = stands or standing(lambda now_s: 7.2)
    answer = errors.answer(asked, error)
    said = StandingRefusals()
    said.note(asked, error, answer)
    return said, bytes(answer.body)


@pytest.mark.parametrize("first", ["mine", 'a"b', "back\\slash", "it", "429"])
@pytest.mark.parametrize("second", ["yours", '"', "\\", "type"])
def test_the_next_one_is_told_the_same_under_its_own_id(first: str, second: str) -> None:
    said, told = refused(request(first))
    answer = said.answer(request(second))
    assert answer is not None
    assert answer.status_code == 429
    assert json.loads(bytes(answer.body)) == {**json.loads(told), "request_id": second}
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["content-length"] == str(len(answer.body))


@pytest.mark.parametrize("number", ["mine", "error", "it is late"])
def test_the_inference_protocol_names_no_id(number: str) -> None:
    path = "/v2/models/a/infer"
    said, told = refused(request(number, path))
    answer = said.answer(request("yours", path))
    assert answer is not None
    assert answer.body == told


def test_each_is_told_a_time_of_its_own_to_come_back() -> None:
    times = iter([7.2, 8.0, 8.1, -0.5])
    said, _ = refused(request(), standing(lambda now_s: next(times)))
    answers = [said.answer(request()) for _ in range(4)]
    assert [answer and answer.headers["retry-after"] for answer in answers] == [
        *("8", "8", "9", "1")
    ]


def test_it_is_for_nobody_who_has_more_time_another_priority_or_another_question() -> None:
    said, _ = refused(request(timeout="0.5"))
    assert said.answer(request(timeout="1")) is not None
    assert said.answer(request(timeout="1.01")) is None
    assert said.answer(request(priority="high")) is None
    assert said.answer(request(priority="normal")) is not None
    assert said.answer(request(path="/eval")) is None


def test_it_stands_for_its_time_and_no_longer() -> None:
    said, _ = refused(request(), standing(lambda now_s: 1.0, lasts_s=-1.0))
    assert said.answer(request()) is None


def test_what_does_not_stand_is_not_said_again() -> None:
    asked, error = request(), DeadlineUnreachable("it is late", retry_after_s=2.0)
    said = StandingRefusals()
    said.note(asked, error, errors.answer(asked, error))
    assert said.answer(request()) is None


def test_everyone_who_is_refused_is_counted() -> None:
    said, _ = refused(request())
    asked = request()
    said.answer(asked)
    tally = asked.scope["state"]["desk"].tally
    tally.rejected.assert_called_once_with("deadline_unreachable")
    assert asked.scope["state"]["reason"] == "deadline_unreachable"


def test_a_header_that_does_not_fit_is_an_error_as_it_is_elsewhere() -> None:
    said, _ = refused(request())
    with pytest.raises(InvalidInput):
        said.answer(request(timeout="soon"))


def test_paths_that_anybody_makes_up_do_not_fill_the_memory() -> None:
    said = StandingRefusals()
    for number in range(3 * _MOST):
        asked = request(path=f"/v2/models/{number}/infer")
        error = DeadlineUnreachable("it is late", retry_after_s=2.0)
        error.standing = standing(lambda now_s: 1.0)
        said.note(asked, error, errors.answer(asked, error))
    assert len(said._said) <= _MOST


def test_it_is_known_whether_any_stands() -> None:
    said = StandingRefusals()
    assert not said.any
    over, _ = refused(request(), standing(lambda now_s: 1.0, lasts_s=-1.0))
    assert not over.any
    stands, _ = refused(request())
    assert stands.any


def test_what_is_left_of_the_time_counts_and_not_what_it_was() -> None:
    said, _ = refused(request())
    asked = request(timeout="1.5")
    assert said.answer(asked) is None
    asked = request(timeout="1.5")
    asked.scope["state"][CAME_S] = time.monotonic() - 1.0
    assert said.answer(asked) is not None
    assert said.of("/predict", Priority.NORMAL, 0.5, "mine") is not None
    assert said.of("/predict", Priority.NORMAL, 1.5, "mine") is None
