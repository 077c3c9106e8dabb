"""A fuzzer over every URL: whatever comes, no 5xx but a 503, and answers in the documented form."""

from __future__ import annotations

import io
import itertools
import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

from tests.e2e.raw import Answer, connect
from tests.e2e.servers import Server, serving
from tests.repositories import write_model

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "600"))
CLIENTS = 8
SEED = int(os.environ.get("FUZZ_SEED", "0"))
ROW = [0.1, 0.2, 0.3, 0.4]
METHODS = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "GE T"]
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 2**31, 2**63, -(2**63) - 1, 10**30, 0.5, -0.0, 1e308),
    *(float("nan"), float("inf"), "", "good", "..", "random", "\ud800", "\x00", "x" * 300, "1"),
    *([], {}, [[]], [ROW], [[ROW]], {"a": 1}, [None], ["mean"], [1e400]),
]
NEW = ["x", "passes", "return", "\ud800", ""]
"""Fields that are put in."""
HEADERS = {
    "Content-Type": ["application/json", "application/x-npy", "text/plain", "", "a;b=c", "*/*"],
    "Accept": ["application/x-npz", "application/json", "*/*", "", "\xff"],
    "Content-Encoding": ["gzip", "deflate", "identity", "br", ""],
    "X-Request-Timeout": ["1", "0", "-1", "nan", "1e9", "x", ""],
    "X-Request-ID": ["a", "", "\xff", "x" * 200, "a b"],
    "Inference-Header-Content-Length": ["0", "1", "99999999999", "-1", "x", ""],
    "Authorization": ["Bearer x", "Basic eDp5", "", "Bearer"],
    "Origin": ["http://x", "null", ""],
    "Range": ["bytes=0-1"],
    "Expect": ["100-continue", "x"],
    "Transfer-Encoding": ["chunked", "gzip", "identity"],
    "Content-Length": ["0", "5", "-1", "x", "99999999999999999999"],
    "Connection": ["close", "keep-alive", "upgrade", "\x01"],
    "Upgrade": ["h2c", "websocket"],
}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two models, rows kept, limits that a fuzzer reaches."""
    root = tmp_path_factory.mktemp("fuzzed")
    write_model(root, "good")
    write_model(root, "other", shape="[4]", task="multilabel")
    limits = ("--max-body-bytes", "100000", "--max-work", "10000", "--header-timeout-s", "1")
    with serving(root, "--keep-samples", "all", "--body-timeout-s", "1", *limits) as server:
        assert server.post("/predict", {"model": "good", "inputs": [ROW]}).status_code == 200
        yield server


def _npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([ROW], dtype=np.float32))
    return stream.getvalue()


def _bodies() -> list[tuple[str, dict[str, str], Any]]:
    """Good requests: the path, headers, and a body as bytes or as what stands in it."""
    kind = {"Content-Type": "application/json"}
    tensor = {"name": "input", "shape": [1, 4], "datatype": "FP32", "data": ROW}
    binary = {**tensor, "parameters": {"binary_data_size": 16}}
    del binary["data"]
    head = json.dumps({"inputs": [binary]}).encode()
    v2 = "/v2/models/good/infer"
    return [
        ("/predict", kind, {"model": "good", "inputs": [ROW], "passes": 5, "seed": 1}),
        ("/predict", kind, {"model": "other", "inputs": [ROW], "tolerance": 0.5, "max_passes": 9}),
        ("/predict?model=good&passes=3", {"Content-Type": "application/x-npy"}, _npy()),
        ("/eval", kind, {"model": "good", "inputs": [ROW, ROW]}),
        ("/query", kind, {"model": "good", "inputs": [ROW, ROW], "k": 1, "strategy": "bald"}),
        ("/samples/lease", kind, {"model": "good", "limit": 2, "seconds": 0.1}),
        ("/samples/1/label", kind, {"label": 1}),
        ("/samples/1/skip", kind, {}),
        ("/label-studio/good/predict", kind, {"tasks": [{"data": {"input": ROW}}]}),
        ("/label-studio/good/setup", kind, {"project": "1", "schema": "<View/>"}),
        (v2, kind, {"inputs": [tensor], "parameters": {"passes": 3, "seed": 1}}),
        (v2, {"Inference-Header-Content-Length": str(len(head))}, head + bytes(16)),
        ("/v2/repository/index", kind, {"ready": True}),
    ]


class Fuzzer:
    """Requests that were good once, from a seed."""

    def __init__(self, paths: Sequence[str], seed: int) -> None:
        self._random = random.Random(seed)
        self._paths = [path for path in paths if not path.endswith("/unload")]

    def request(self) -> bytes:
        """A whole request."""
        draw = self._random
        path, headers, content = draw.choice(_bodies())
        method = "POST"
        if draw.random() < 0.4:
            path = self._path(draw.choice(self._paths))
            content = content if draw.random() < 0.5 else b""
            method = draw.choice(["GET", "POST", "DELETE"])
        if draw.random() < 0.15:
            method = draw.choice(METHODS)
        if draw.random() < 0.3:
            path = self._mutated_text(path)
        body = content if isinstance(content, bytes) else self._json(content)
        if draw.random() < 0.3:
            body = self._mutated(body)
        given = {"Host": "x", "Content-Length": str(len(body)), **headers}
        for _ in range(draw.choice([0, 0, 0, 1, 2])):
            name = draw.choice(list(HEADERS))
            given[name] = draw.choice(HEADERS[name])
        lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in given.items())]
        whole = "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body
        if draw.random() < 0.05:
            whole = self._mutated(whole)
        return whole

    def parts(self, content: bytes) -> list[bytes]:
        """Cut anywhere, as a network may."""
        count = self._random.choice([0, 0, 1, 3])
        cuts = sorted(self._random.randrange(len(content) + 1) for _ in range(count))
        edges = [0, *cuts, len(content)]
        return [content[a:b] for a, b in itertools.pairwise(edges)]

    def _path(self, template: str) -> str:
        names = [
            "good",
            "other",
            "1",
            "2",
            "nobody",
            "..",
            "%2e%2e",
            "%00",
            "%ff",
            "x" * 300,
            "stable",
        ]
        path = re.sub(r"{\w+}", lambda _: self._random.choice(names), template)
        if self._random.random() < 0.4:
            keys = ["model", "status", "order", "limit", "after", "format", "request_id", "passes"]
            values = [
                "good",
                "",
                "0",
                "-1",
                "1e9",
                "npz",
                "parquet",
                "%00",
                "%ff",
                "all",
                "labelled",
            ]
            pairs = self._random.choices(keys, k=2), self._random.choices(values, k=2)
            path += "?" + "&".join(f"{key}={value}" for key, value in zip(*pairs, strict=True))
        return path

    def _json(self, content: Any) -> bytes:
        content = json.loads(json.dumps(content))
        for _ in range(self._random.choice([0, 1, 1, 2])):
            content = self._changed(content)
        try:
            return json.dumps(content).encode()
        except ValueError:
            return b"{}"

    def _changed(self, value: Any) -> Any:
        """One place of a structure replaced, taken out or doubled."""
        draw = self._random
        if isinstance(value, dict) and value and draw.random() < 0.9:
            key = draw.choice(list(value))
            act = draw.random()
            if act < 0.1:
                return {other: kept for other, kept in value.items() if other != key}
            if act < 0.2:
                return {
                    **value,
                    draw.choice(NEW): draw.choice(ODD),
                }
            return {**value, key: self._changed(value[key])}
        if isinstance(value, list) and value and draw.random() < 0.7:
            place = draw.randrange(len(value))
            act = draw.random()
            if act < 0.1:
                return value[:place] + value[place + 1 :]
            if act < 0.2:
                return value * draw.choice([2, 50])
            return [*value[:place], self._changed(value[place]), *value[place + 1 :]]
        return draw.choice(ODD)

    def _mutated(self, content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(self._random.choice([1, 1, 2, 8])):
            act, place = self._random.random(), self._random.randrange(len(changed) + 1)
            if act < 0.4 and place < len(changed):
                changed[place] = self._random.randrange(256)
            elif act < 0.6:
                del changed[place : place + self._random.choice([1, 2, 50])]
            elif act < 0.8:
                changed[place:place] = self._random.randbytes(self._random.choice([1, 4, 30]))
            else:
                changed[place:place] = changed[:place][-20:] * self._random.choice([1, 5])
        return bytes(changed)

    def _mutated_text(self, text: str) -> str:
        changed = self._mutated(text.encode()).decode("latin-1")
        return re.sub(r"[\r\n]", "", changed)


def _check(answer: Answer, sent: bytes) -> None:
    told = f"{answer}\nto {sent[:1000]!r}"
    assert answer.status < 500 or answer.status == 503, told
    if answer.status == 503:
        assert answer.headers.get("retry-after"), told
    assert answer.headers.get("x-request-id"), told
    if answer.status >= 400:
        kind = answer.headers["content-type"]
        assert kind in ("application/problem+json", "application/json"), told
        said = json.loads(answer.body)
        if kind == "application/json":
            # The Open Inference Protocol's own form.
            assert set(said) == {"error"}, told
        else:
            assert said["status"] == answer.status, told
    if answer.status == 405:
        assert answer.headers.get("allow"), told


def _ask(server: Server, fuzzer: Fuzzer) -> int:
    """One request; the status of its answer, 0 where the connection was closed without one."""
    content = fuzzer.request()
    with connect(server) as connection:
        # It may have been refused before it was all sent.
        with suppress(OSError):
            for part in fuzzer.parts(content):
                connection.send(part)
        answer = connection.answer_or_end()
    if answer is None:
        return 0
    _check(answer, content)
    return answer.status


@pytest.mark.timeout(max(300, REQUESTS))
def test_whatever_comes_is_answered_as_documented(target: Server) -> None:
    paths = list(target.get("/openapi.json").json()["paths"])

    def ask(seed: int) -> Counter[int]:
        fuzzer = Fuzzer(paths, seed)
        return Counter(_ask(target, fuzzer) for _ in range(REQUESTS // CLIENTS))

    with ThreadPoolExecutor(CLIENTS) as pool:
        codes = sum(pool.map(ask, range(SEED, SEED + CLIENTS)), Counter())
    assert codes[200] > REQUESTS / 50, codes
    assert codes[422] > REQUESTS / 50, codes
    assert codes[0] < REQUESTS / 50, codes
    assert target.post("/predict", {"model": "good", "inputs": [ROW]}).status_code == 200
