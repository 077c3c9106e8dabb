"""What should not come over HTTP and does is refused in the documented form, and harms nobody."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.raw import Answer, connect, request
from tests.e2e.servers import Server, serving
from tests.repositories import write_model

JSON = {"Content-Type": "application/json"}
NPY = {"Content-Type": "application/x-npy"}
ROW = [0.0, 0.0, 0.0, 0.0]
GOOD: dict[str, Any] = {"model": "good", "inputs": [ROW]}
BODY = json.dumps(GOOD).encode()
POST = request("POST", "/predict", BODY, JSON)
LONG = "x" * 256
NAMES = ["..", "../x", "a/../b", "/etc", "good/", " good", "good ", "", ".", LONG, "a\x00b", "ä"]


@pytest.fixture(autouse=True)
def _still_serves(odd: Server) -> Iterator[None]:
    """After each fault a normal request gets its answer."""
    yield
    assert odd.post("/predict", GOOD).status_code == 200


def ask(server: Server, content: bytes) -> Answer:
    with connect(server) as connection:
        connection.send(content)
        return connection.answer()


def post(server: Server, body: bytes, headers: dict[str, str] = JSON) -> Answer:
    path = "/predict" if headers == JSON else "/predict?model=good"
    return ask(server, request("POST", path, body, headers))


@pytest.mark.parametrize("name", NAMES)
def test_names_that_no_model_has_are_refused_in_bodies(odd: Server, name: str) -> None:
    answer = post(odd, json.dumps({**GOOD, "model": name}).encode())
    assert answer.status == 404
    assert answer.problem()["field"] == "model"


@pytest.mark.parametrize("name", [name for name in NAMES if name])
@pytest.mark.parametrize("path", ["/models/{}", "/models/{}/versions/1", "/label-studio/{}/health"])
def test_names_that_no_model_has_are_refused_in_paths(odd: Server, name: str, path: str) -> None:
    encoded = "".join(f"%{byte:02X}" for byte in name.encode())
    answer = ask(odd, request("GET", path.format(encoded)))
    assert answer.status == 404
    assert answer.problem()


def nested(depth: int, around: bytes) -> bytes:
    return around % (b"[" * depth + b"]" * depth)


@pytest.mark.parametrize(
    "around",
    [
        b'{"model": "good", "inputs": %s}',
        b'{"model": %s, "inputs": [[0, 0, 0, 0]]}',
        b'{"model": "good", "inputs": [[0, 0, 0, 0]], "return": %s}',
        b'{"%s": 1}',
        b"%s",
    ],
)
@pytest.mark.parametrize("depth", [110, 40_000])
def test_nesting_is_refused_however_deep(odd: Server, depth: int, around: bytes) -> None:
    answer = post(odd, nested(depth, around))
    assert answer.status in (400, 422)
    assert answer.problem()


def test_deep_nesting_within_a_large_limit_is_refused(shipped: Server) -> None:
    for around in (b'{"inputs": %s}', b'{"model": %s}', b"%s"):
        assert post(shipped, nested(250_000, around)).status == 400
    assert shipped.post("/predict", {"model": "co2", "inputs": [[1990.0]]}).status_code == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model": "good", "model": "nobody", "inputs": [[0, 0, 0, 0]]}', (404, 400)),
        (b'{"model": "good", "inputs": [[1e999, 0, 0, 0]]}', (422,)),
        (b'{"model": "good", "inputs": [[-1e999, 0, 0, 0]]}', (422,)),
        (b'{"model": "good", "inputs": [[NaN, 0, 0, 0]]}', (422,)),
        (b'{"model": "good", "inputs": [[Infinity, 0, 0, 0]]}', (422,)),
        (b'{"model": "good", "inputs": [[%s, 0, 0, 0]]}' % (b"9" * 400), (422,)),
        (b'{"model": "good", "inputs": [[%s, 0, 0, 0]]}' % (b"9" * 5000), (400, 422)),
        (b'{"model": "good", "inputs": [[0, 0, 0, 0]], "seed": %s}' % (b"9" * 400), (422,)),
        (b'{"model": "good", "inputs": [[0, 0, 0, 0]], "passes": 1e999}', (422,)),
        (b'{"model": "good", "inputs": [[0, 0, 0, 0]], "tolerance": NaN}', (422,)),
        (b'{"model": "\xff\xfe", "inputs": [[0, 0, 0, 0]]}', (400,)),
        (b'{"model": "\\ud800", "inputs": [[0, 0, 0, 0]]}', (400, 404)),
        (b'{"\\udfff": 1, "inputs": [[0, 0, 0, 0]]}', (400, 422)),
        (b"\xef\xbb\xbf" + BODY, (400,)),
        (BODY.decode().encode("utf-16"), (400,)),
        (b"\x00" * 100, (400,)),
        (b"null", (400,)),
        (b"1", (400,)),
    ],
)
def test_json_that_is_not_what_it_seems(odd: Server, body: bytes, status: tuple[int, ...]) -> None:
    answer = post(odd, body)
    assert answer.status in status
    assert answer.problem()


def npy(shape: object, data: bytes = b"\0" * 16, kind: object = "<f4") -> bytes:
    """A file whose header says what it wants."""
    said = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}}}\n"
    return npy_with(said.encode("latin-1"), data)


def npy_with(header: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x02\x00" + len(header).to_bytes(4, "little") + header + data


@pytest.mark.parametrize(
    "body",
    [
        npy((2**62, 4)),
        npy((2**40, 2**40)),
        npy((10**400,)),
        npy((-1, 4)),
        npy((-1, -4)),
        npy((True, 4)),
        npy((0, 2**63), b""),
        npy((0, 2**31, 4), b""),
        npy((1, 4), kind="|O"),
        npy((1, 4), b"", kind="|V0"),
        npy((1, 4), kind=[("a", "<f4")]),
        npy("(" * 5000 + ")" * 5000),
        npy("[" * 150 + "]" * 150),
        npy("(1, 4)" + " " * 90_000),
        npy_with(b"-" * 50_000 + b"1"),
        npy_with(b"'a' * 9**9**9"),
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + b" " * 16,
        b"\x93NUMPY\x01\x00\xff\xff" + b" " * 16,
        b"\x93NUMPY\x03\x00" + b"\0" * 20,
        b"\x93NUMPY",
        b"",
    ],
)
def test_headers_of_npy_that_promise_or_nest_too_much(odd: Server, body: bytes) -> None:
    answer = post(odd, body, NPY)
    assert answer.status in (400, 422)
    assert answer.problem()


@pytest.mark.parametrize("length", ["99999999999", "9" * 30, "-1", "1e3", "0x10", "+5", "5, 6", ""])
def test_lengths_that_are_none(odd: Server, length: str) -> None:
    content = request("POST", "/predict", b"", {**JSON, "Content-Length": length}) + BODY
    with connect(odd) as connection:
        connection.send(content)
        answers = connection.answer()
        assert answers.status in (400, 413)
        assert answers.problem()


def test_two_lengths_or_a_length_and_chunks_are_refused(odd: Server) -> None:
    twice = POST.replace(b"Host: x\r\n", b"Host: x\r\nContent-Length: 3\r\n")
    both = POST.replace(b"Host: x\r\n", b"Host: x\r\nTransfer-Encoding: chunked\r\n")
    for content in (twice, both):
        assert ask(odd, content).status == 400


def chunked(parts: list[bytes]) -> bytes:
    head = request("POST", "/predict", b"", JSON)
    head = head.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    return head + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def test_a_body_in_over_65536_chunks_is_read_or_refused_by_its_size(odd: Server) -> None:
    padding = [b" "] * 70_000
    assert ask(odd, chunked([*padding, BODY])).status == 200
    answer = ask(odd, chunked([b" "] * 110_000))
    assert answer.status == 413
    assert "CANDOR_MAX_BODY_BYTES" in answer.problem()["detail"]


@pytest.mark.parametrize("size", [b"zz", b"-1", b"fffffffffffffffff", b"", b"5;x\r\n"])
def test_chunks_that_are_none(odd: Server, size: bytes) -> None:
    content = chunked([])[: -len(b"0\r\n\r\n")] + size + b"\r\nabc\r\n0\r\n\r\n"
    answer = ask(odd, content)
    assert answer.status == 400
    assert answer.problem()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "gzip, gzip", "identity, gzip"])
def test_compressed_bodies_are_refused_before_anything_is_unpacked(
    odd: Server, encoding: str
) -> None:
    bomb = gzip.compress(bytes(50_000_000)) if "gzip" in encoding else zlib.compress(bytes(10**7))
    answer = post(odd, bomb, {**JSON, "Content-Encoding": encoding})
    assert answer.status == 415
    assert answer.problem()["field"] == "Content-Encoding"


def test_requests_one_behind_the_other_are_answered_in_their_order(odd: Server) -> None:
    posts = [
        request("POST", "/predict", BODY, {**JSON, "X-Request-ID": f"n{n}"}) for n in range(200)
    ]
    with connect(odd) as connection:
        connection.send(b"".join(posts))
        answers = [connection.answer() for _ in posts]
    assert [answer.headers["x-request-id"] for answer in answers] == [f"n{n}" for n in range(200)]
    # More than may wait at a time came at once, and were taken one after the other.
    assert {answer.status for answer in answers} == {200}


@pytest.mark.parametrize(
    "content",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
        b"GET / HTTP/9.9\r\n\r\n",
        b"get / http/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nA\x00B: c\r\n\r\n",
        b"GET /li\xffvez HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT host:80 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\n" * 10 + b"nothing\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_a_problem_and_its_connection_is_closed(
    odd: Server, content: bytes
) -> None:
    with connect(odd) as connection:
        connection.send(content)
        answer = connection.answer()
        assert answer.status in (400, 404, 405)
        assert answer.problem()
        if answer.status == 400:
            assert answer.headers["connection"] == "close"
            assert connection.to_the_end() == []


def test_rubbish_behind_a_request_does_not_take_its_answer(odd: Server) -> None:
    with connect(odd) as connection:
        connection.send(POST + b"rubbish\r\n\r\n")
        answers = connection.to_the_end()
    assert [answer.status for answer in answers] in ([200], [200, 400])


def test_a_body_is_asked_for_where_the_client_waits_for_that(odd: Server) -> None:
    head = request("POST", "/predict", b"", {**JSON, "Content-Length": str(len(BODY)),
                                             "Expect": "100-continue"})  # fmt: skip
    with connect(odd) as connection:
        connection.send(head)
        first = connection.socket.recv(1000)
        assert first.startswith(b"HTTP/1.1 100")
        connection.send(BODY)
        assert connection.answer().status == 200
    large = head.replace(b"Content-Length: %d" % len(BODY), b"Content-Length: 1000000")
    assert ask(odd, large).status == 413, "a body that is too large is not even asked for"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predict", {"POST"}),
        ("PUT", "/eval", {"POST"}),
        ("POST", "/models", {"GET"}),
        ("PATCH", "/samples", {"GET", "DELETE"}),
        ("POST", "/samples/1", {"GET", "DELETE"}),
        ("DELETE", "/models/good/reload", {"POST"}),
        ("BREW", "/livez", {"GET"}),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(
    odd: Server, method: str, path: str, allowed: set[str]
) -> None:
    if method == "BREW":
        method = "TRACE"
    answer = ask(odd, request(method, path))
    assert answer.status == 405
    assert answer.problem()
    assert set(re.split(r",\s*", answer.headers["allow"])) - {"HEAD"} == allowed


@pytest.mark.parametrize("path", ["/nothing", "//predict", "/predict/", "/models/a/b/c", "/%00"])
def test_a_wrong_path_is_a_problem(odd: Server, path: str) -> None:
    answer = ask(odd, request("POST", path, BODY, JSON))
    assert answer.status == 404
    assert answer.problem()


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "ä", "\x01", "a\tb"])
def test_request_ids_that_are_none_are_replaced(odd: Server, given: str) -> None:
    answer = ask(odd, request("POST", "/predict", BODY, {**JSON, "X-Request-ID": given}))
    if answer.status == 400:  # What may not stand in any header.
        assert answer.problem()
        return
    assert answer.status == 200
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


@pytest.mark.parametrize("given", ["", "soon", "-1", "0", "nan", "1e999", "0x10", "1,5", "١"])
def test_deadlines_that_are_none(odd: Server, given: str) -> None:
    if not given.isascii():
        given = given.encode().decode("latin-1")
    answer = ask(odd, request("POST", "/predict", BODY, {**JSON, "X-Request-Timeout": given}))
    if given == "1e999":  # Longer than the server's own, which holds.
        assert answer.status == 200
        return
    assert answer.status == 422
    assert answer.problem()["field"] == "X-Request-Timeout"


@pytest.mark.parametrize("cut", [1, 40, len(POST) - len(BODY), len(POST) - 10, len(POST)])
def test_clients_that_leave_anywhere_harm_nobody(odd: Server, cut: int) -> None:
    """Fewer than this server lets wait: whoever leaves is seen to have left a moment later."""
    for _ in range(7):
        with connect(odd) as connection:
            connection.send(POST[:cut])
    large = {"model": "good", "inputs": [ROW] * 400, "passes": 500, "return": ["samples"]}
    with connect(odd) as connection:
        connection.send(request("POST", "/predict", json.dumps(large).encode(), JSON))
        assert connection.socket.recv(100).startswith(b"HTTP/1.1 200")


def test_after_a_kill_under_load_the_same_numbers_come_again(tmp_path: Path) -> None:
    """Of a model with dots in its name, which is none of a path."""
    write_model(tmp_path, "model..1")
    asked = {**GOOD, "model": "model..1"}
    content = request("POST", "/predict", json.dumps(asked).encode(), JSON)
    answers = []
    for _ in range(2):
        with serving(tmp_path) as server:
            assert server.get("/models/model%2E%2E1").status_code == 200
            answers.append(server.post("/predict", asked).json())
            with connect(server) as waiting:
                waiting.send(content)
                server.process.kill()
                server.process.wait()
                # The one in flight was answered or its connection ended; it does not hang.
                assert len(waiting.to_the_end()) <= 1
    assert answers[0]["mean"] == answers[1]["mean"]
