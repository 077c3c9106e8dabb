"""Requests that have to be refused, and clients that leave."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import orjson

from benchmarks.load import ARRAYS, JSON
from benchmarks.soak.wire import Answer, request

_ROW = [1990.0]
_GOOD: dict[str, Any] = {"model": "co2", "inputs": [_ROW]}


@dataclass(frozen=True)
class Bad:
    """A request and how it has to be refused.

    Args:
        name: of its kind.
        endpoint: as the metrics name it.
        before: its bytes up to the id.
        after: its bytes behind the id.
        status: documented.
        field: that the problem has to name; None where it need not.
    """

    name: str
    endpoint: str
    before: bytes
    after: bytes
    status: int
    field: str | None

    def fits(self, answer: Answer) -> bool:
        """Whether it was refused as documented."""
        if answer.status != self.status:
            return False
        if answer.headers.get(b"content-type") != b"application/problem+json":
            return False
        problem = orjson.loads(answer.body)
        said = all(problem.get(key) for key in ("type", "title", "detail", "request_id"))
        field = self.field is None or problem.get("field") == self.field
        return said and field and problem.get("status") == self.status


def bad_requests() -> list[Bad]:
    """One of each kind."""
    changed: list[tuple[str, dict[str, Any], int, str]] = [
        ("unknown model", {"model": "nobody"}, 404, "model"),
        ("name that leads out", {"model": "../co2"}, 404, "model"),
        ("unknown version", {"version": 7}, 404, "version"),
        ("wrong shape", {"inputs": [[1.0, 2.0]]}, 422, "inputs"),
        ("no rows", {"inputs": []}, 422, "inputs"),
        ("not a number", {"inputs": [_ROW, [float("nan")]]}, 422, "inputs[1][0]"),
        ("one pass", {"passes": 1}, 422, "passes"),
        ("unknown field", {"colour": 1}, 422, "colour"),
        ("too much work", {"passes": 10**9}, 413, "passes"),
    ]
    posted = [
        _bad(name, "/predict", "POST", JSON, json.dumps({**_GOOD, **change}).encode(), status, at)
        for name, change, status, at in changed
    ]
    good = json.dumps(_GOOD).encode()
    deep = b'{"inputs": ' + b"[" * 2000 + b"]" * 2000 + b"}"
    late = {**JSON, "X-Request-Timeout": "soon"}
    return [
        *posted,
        _bad("not JSON", "/predict", "POST", JSON, good[:-1], 400),
        _bad("deep JSON", "/predict", "POST", JSON, deep, 400),
        _bad("no array", "/predict", "POST", ARRAYS, b"\x93NUMPY\x01\x00", 400),
        _bad("content type", "/eval", "POST", {"Content-Type": "text/plain"}, good, 415),
        _bad("deadline", "/predict", "POST", late, good, 422, "X-Request-Timeout"),
        _bad("method", "/predict", "GET", {}, b"", 405),
        _bad("path", "/nothing/here", "GET", {}, b"", 404, label="other"),
        _bad("unknown model's reload", "/models/nobody/reload", "POST", {}, b"", 404, "model",
             label="/models/{name}/reload"),
    ]  # fmt: skip


def _bad(
    name: str,
    path: str,
    method: str,
    headers: dict[str, str],
    body: bytes,
    status: int,
    field: str | None = None,
    label: str | None = None,
) -> Bad:
    before, after = request(method, path, headers, body)
    return Bad(name, label or path, before, after, status, field)
