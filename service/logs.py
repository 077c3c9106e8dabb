"""The server's log: a line an event, as JSON or for people, and nothing that comes can forge one.

Lines say what they are about in fields of their own (`FIELDS`). What is written while a request is
answered carries that request's fields by itself; a thread that works for several says whose they
are in `extra`.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

FIELDS = (
    "request_id",
    "trace_id",
    "token",
    "method",
    "path",
    "endpoint",
    "model",
    "version",
    "status",
    "seconds",
    "reason",
)
"""What a line may be about, beside its message."""

HUMAN, JSON, AUTO = "human", "json", "auto"

_OWN = ("service", "uvicorn")
_OF_ANY_CLIENT = ("Invalid HTTP request", "Unsupported upgrade", "No supported WebSocket library")
"""What uvicorn warns of, a line a request: whoever reaches the server could fill the disk with it.
`candor_rejected_total` counts what is no HTTP."""
_LONGEST_PATH = 500
"""Characters."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_request: ContextVar[Mapping[str, Any]] = ContextVar("request", default=_NOTHING)

_access = logging.getLogger("service.access")


def set_up(level: str, form: str) -> None:
    """Write the log of this process.

    Args:
        level: debug, info, warning or error. Of libraries only warnings and errors are written: at
            other levels some say what they were given.
        form: human, json, or auto: for people where stderr is a terminal, else JSON.
    """
    human = form == HUMAN or (form == AUTO and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(HumanFormatter() if human else JSONFormatter())
    handler.addFilter(_is_worth_a_line)
    logging.basicConfig(level=level.upper(), handlers=[handler])


def take_over() -> None:
    """Have warnings, and what ends a thread, logged like everything else."""
    logging.captureWarnings(True)
    threading.excepthook = _thread_ended


def concerning(request: Mapping[str, Any]) -> None:
    """What this task logs from now on is about a request, whose state may yet be added to."""
    _request.set(request)


def access(method: str, path: str, endpoint: str, status: int, seconds: float) -> None:
    """Note that a request was answered, at level debug; `path` is without its query."""
    if _access.isEnabledFor(logging.DEBUG):
        path = path[:_LONGEST_PATH]
        fields = {"method": method, "path": path, "endpoint": endpoint, "status": status}
        about = {**fields, "seconds": round(seconds, 6)}
        _access.debug("%s %s: %d", method, path, status, extra=about)


class Repeated:
    """Notes what may happen often: the first time at once, then how often once in a while.

    Args:
        log: to write to.
        message: with a %d for the number.
        every_s: seconds between two lines of one reason, at least.
        clock: in seconds.
    """

    def __init__(
        self,
        log: logging.Logger,
        message: str,
        every_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._message = message
        self._every_s = every_s
        self._clock = clock
        self._last_s: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, reason: str) -> None:
        """Count one, of a known reason."""
        self._counts[reason] = self._counts.get(reason, 0) + 1
        now = self._clock()
        if now - self._last_s.get(reason, -self._every_s) >= self._every_s:
            self._last_s[reason] = now
            # It is about all of them, not about the request that happened to be the last.
            about = {**dict.fromkeys(FIELDS), "reason": reason}
            self._log.warning(self._message, self._counts.pop(reason), extra=about)


class JSONFormatter(logging.Formatter):
    """One line a record, whatever stands in it; an exception is a field."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_about(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # In ASCII, so that no character ends a line for anybody who reads it.
        return json.dumps(line, default=str)


class HumanFormatter(logging.Formatter):
    """Time, level, who, what, and what it is about; an exception below it, behind a bar."""

    def format(self, record: logging.LogRecord) -> str:
        about = ", ".join(f"{name}={value}" for name, value in _about(record).items())
        said = f"{record.getMessage()} ({about})" if about else record.getMessage()
        lines = [f"{_time(record)} {record.levelname:<7} {record.name}: {_visible(said)}"]
        if record.exc_info:
            trace = self.formatException(record.exc_info)
            lines += [f"  | {_visible(line)}" for line in trace.splitlines()]
        return "\n".join(lines)


def _time(record: logging.LogRecord) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    told = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return told.replace("+00:00", "Z")


def _about(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a record: its own, else those of the request that this task answers."""
    found = {**_request.get(), **record.__dict__}
    return {name: found[name] for name in FIELDS if found.get(name) not in (None, "")}


def _visible(text: str) -> str:
    """Whatever is no visible character is spelled out: line breaks, escapes, marks that reverse."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    if record.name == "uvicorn.error" and str(record.msg).startswith(_OF_ANY_CLIENT):
        return False
    return record.levelno >= logging.WARNING or record.name.split(".")[0] in _OWN


def _thread_ended(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is SystemExit:
        return
    name = args.thread.name if args.thread is not None else "unknown"
    error = args.exc_value or args.exc_type()
    logging.getLogger(__name__).error("the thread %s ended", name, exc_info=error)
