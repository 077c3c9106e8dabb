"""The log: one line an event, whatever stands in it."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from service import logs


def record(message: str, *args: object, error: bool = False, **about: object) -> logging.LogRecord:
    exc_info = None
    if error:
        try:
            raise ValueError("of\ntwo lines")
        except ValueError:
            exc_info = sys.exc_info()
    made = logging.LogRecord("service.x", logging.ERROR, "", 0, message, args, exc_info)
    made.__dict__.update(about)
    return made


def as_json(made: logging.LogRecord) -> dict[str, Any]:
    line = logs.JSONFormatter().format(made)
    assert line.isascii()
    assert line.isprintable()
    found: dict[str, Any] = json.loads(line)
    return found


def test_json_says_when_how_bad_who_what_and_about_what() -> None:
    line = as_json(record("%d rows", 3, model="digits", seconds=0.25, irrelevant=1))
    when = datetime.fromisoformat(line.pop("time"))
    assert when.tzinfo == UTC
    assert abs(datetime.now(UTC) - when) < timedelta(minutes=5)
    assert line == {
        "level": "error",
        "logger": "service.x",
        "message": "3 rows",
        "model": "digits",
        "seconds": 0.25,
    }


def test_an_exception_is_a_field_of_the_same_line() -> None:
    line = as_json(record("failed", error=True))
    assert line["message"] == "failed"
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: of\ntwo lines")


@given(st.text(), st.text(min_size=1))
def test_nothing_that_comes_begins_a_line_of_its_own(message: str, path: str) -> None:
    made = record("%s", message, path=path)
    found = as_json(made)
    assert (found["message"], found["path"]) == (message, path)
    line = logs.HumanFormatter().format(made)
    assert line.isprintable()


def test_a_line_break_in_an_exception_does_not_look_like_another_line_to_people_either() -> None:
    first, *others = (
        logs.HumanFormatter().format(record("failed\r\n\x1b[31m", error=True)).split("\n")
    )
    assert first.endswith(r" ERROR   service.x: failed\r\n\x1b[31m")
    assert len(others) > 2
    assert all(line.startswith("  | ") and line.isprintable() for line in others)


def test_lines_are_about_the_request_that_is_being_answered_unless_they_say_otherwise() -> None:
    def inside() -> None:
        state = {"request_id": "r1", "service": object()}
        logs.concerning(state)
        state["model"] = "digits"
        line = as_json(record("x"))
        assert (line["request_id"], line["model"]) == ("r1", "digits")
        assert as_json(record("x", request_id="r2"))["request_id"] == "r2"
        assert "request_id" not in as_json(record("x", request_id=None))
        assert "service" not in line
        human = logs.HumanFormatter().format(record("x"))
        assert human.endswith("service.x: x (request_id=r1, model=digits)")

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert "request_id" not in as_json(record("x"))


@contextmanager
def bare_root() -> Iterator[logging.Logger]:
    """The root logger without the handlers of the tests."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    try:
        yield root
    finally:
        root.handlers[:] = before
        root.setLevel(level)


@pytest.mark.parametrize(
    ("form", "terminal", "human"),
    [
        ("auto", True, True),
        ("auto", False, False),
        ("human", False, True),
        ("json", True, False),
    ],
)
def test_the_form_is_for_people_on_a_terminal_unless_said(
    form: str, terminal: bool, human: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    with bare_root() as root:
        logs.set_up("info", form)
        [handler] = root.handlers
    assert isinstance(handler.formatter, logs.HumanFormatter) == human


def test_of_libraries_only_what_is_wrong_is_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with bare_root():
        logs.set_up("debug", "json")
        logging.getLogger("sqlalchemy.pool").debug("INSERT ... %s", "somebody's input")
        logging.getLogger("other").info("INSERT ... %s", "somebody's input")
        logging.getLogger("other").warning("slow")
        logging.getLogger("service.store").debug("ours")
    said = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert said == ["slow", "ours"]


async def nothing(scope: Any, receive: Any, send: Any) -> None:
    """Answers nothing."""


def test_whoever_speaks_no_http_cannot_fill_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    with bare_root():
        logs.set_up("debug", "json")
        config = uvicorn.Config(nothing, ws="none", log_config=None)
        protocol = HttpToolsProtocol(config, ServerState(), {}, Mock())
        protocol.transport = Mock(asyncio.Transport)
        protocol.data_received(b"rubbish\r\n\r\n")
        protocol._unsupported_upgrade_warning()
        protocol.logger.error("a bug")
    said = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert said == ["a bug"]


def test_what_happens_often_is_told_at_once_and_then_once_in_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 100.0
    often = logs.Repeated(logging.getLogger("service.x"), "refused: %d", 10.0, lambda: now)
    for _ in range(5):
        often.add("queue_full")
        now += 1.0
    often.add("deadline")
    now = 110.0
    often.add("queue_full")
    assert [(r.getMessage(), r.__dict__["reason"]) for r in caplog.records] == [
        ("refused: 1", "queue_full"),
        ("refused: 1", "deadline"),
        ("refused: 5", "queue_full"),
    ]


def test_every_field_is_documented() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    section = readme.partition("### Logs, metrics, traces")[2].partition("**Metrics**")[0]
    for name in (*logs.FIELDS, "time", "level", "logger", "message", "exception"):
        assert f"`{name}`" in section, name
