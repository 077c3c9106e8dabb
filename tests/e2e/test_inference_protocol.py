"""The Open Inference Protocol v2 over HTTP, byte for byte."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import httpx
import numpy as np
import orjson
import pytest

from service.api.inference_protocol.tensors import DATATYPES, NUMPY
from tests.e2e.servers import Server

LENGTH = "Inference-Header-Content-Length"
ROW = [0.5, -1.0, 2.0, 0.0]
INPUT: dict[str, Any] = {"name": "input", "shape": [1, 4], "datatype": "FP32", "data": ROW}
GOOD = "/v2/models/good/infer"


def infer(server: Server, body: Any, path: str = GOOD, **headers: str) -> httpx.Response:
    """POST a body, JSON or bytes, without a Content-Type as Triton's client does."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.request("POST", path, content=content, headers=headers)


def outputs(response: httpx.Response) -> dict[str, dict[str, Any]]:
    """Of an answer, by name."""
    assert response.status_code == 200, response.text
    return {one["name"]: one for one in response.json()["outputs"]}


def raw(*parts: Any) -> bytes:
    """The bytes of arrays, one after the other."""
    return b"".join(np.asarray(part, "<f4").tobytes() for part in parts)


def described(shape: list[int], size: int, **more: Any) -> bytes:
    """JSON of a request whose input follows it as bytes."""
    one = {**INPUT, "shape": shape, "parameters": {"binary_data_size": size}}
    del one["data"]
    return json.dumps({"inputs": [one], **more}).encode()


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_server_says_what_it_speaks(odd: Server, path: str) -> None:
    found = odd.get(path).json()
    assert found["name"] == "candor"
    assert {"binary_tensor_data", "statistics", "model_repository", "model_configuration"} <= set(
        found["extensions"]
    )


def test_health_is_json(odd: Server) -> None:
    assert odd.get("/v2/health/live").json() == {"live": True}
    assert odd.get("/v2/health/ready").json() == {"ready": True}


@pytest.mark.parametrize("prefix", ["/v2/models/good", "/v2/models/good/versions/1"])
def test_a_model_describes_itself(odd: Server, prefix: str) -> None:
    assert odd.get(prefix + "/ready").json() == {"name": "good", "ready": True}
    metadata = odd.get(prefix).json()
    assert metadata["name"] == "good"
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 4]}]
    by_name = {one["name"]: (one["datatype"], one["shape"]) for one in metadata["outputs"]}
    assert by_name["mean"] == ("FP32", [-1, 3])
    assert by_name["mutual_information"] == ("FP64", [-1])
    assert by_name["label"] == ("INT64", [-1])
    assert by_name["samples"] == ("FP32", [-1, -1, 3])
    assert "prediction_set" not in by_name
    config = odd.get(prefix + "/config").json()
    assert config["max_batch_size"] == 20_000
    assert config["dynamic_batching"] == {}
    assert config["input"] == [{"name": "input", "data_type": "TYPE_FP32", "dims": [4]}]
    dims = {one["name"]: (one["data_type"], one["dims"]) for one in config["output"]}
    assert dims.keys() == by_name.keys()
    assert dims["mean"] == ("TYPE_FP32", [3])
    assert dims["label"] == ("TYPE_INT64", [])


def test_every_output_of_the_metadata_is_given_as_it_says(shipped: Server) -> None:
    for model, shape in {"digits": [2, 1, 8, 8], "co2": [2, 1], "breast_cancer": [2, 30]}.items():
        metadata = shipped.get(f"/v2/models/{model}").json()
        body = {
            # Those that digits is calibrated for.
            "parameters": {"passes": 50},
            "inputs": [{**INPUT, "shape": shape, "data": [1.0] * int(np.prod(shape))}],
            "outputs": [{"name": one["name"]} for one in metadata["outputs"]],
        }
        given = outputs(infer(shipped, body, f"/v2/models/{model}/infer"))
        assert [*given] == [one["name"] for one in metadata["outputs"]]
        for one in metadata["outputs"]:
            found = given[one["name"]]
            assert found["datatype"] == one["datatype"], one
            assert len(found["shape"]) == len(one["shape"]), one
            fits = zip(found["shape"], one["shape"], strict=True)
            assert all(b in (a, -1) for a, b in fits), one
            assert len(found["data"]) == np.prod(found["shape"])
        sizes = {name: given[name]["shape"] for name in ("samples", "quantiles", "passes")}
        assert sizes["samples"][:2] == [50, 2]
        assert sizes["quantiles"][:2] == [5, 2]
        assert given["passes"]["data"] == [50, 50]


@pytest.mark.parametrize("path", [GOOD, "/v2/models/good/versions/1/infer"])
def test_an_answer_is_that_of_predict(odd: Server, path: str) -> None:
    rows = [ROW, ROW[::-1]]
    body = {
        "id": "mine",
        "parameters": {"passes": 9, "seed": 4, "masks": "independent", "unknown": "ignored"},
        "inputs": [{**INPUT, "shape": [2, 4], "data": rows}],
        "unknown": [],
    }
    expected = odd.post(
        "/predict",
        {"model": "good", "inputs": rows, "passes": 9, "seed": 4, "masks": "independent"},
    ).json()
    response = infer(odd, body, path)
    answer = response.json()
    assert answer["id"] == "mine"
    assert (answer["model_name"], answer["model_version"]) == ("good", "1")
    used = {"mode": "predict", "passes": 9, "seed": 4, "masks": "independent"}
    assert answer["parameters"] == used
    given = outputs(response)
    assert given.keys() == {name for name, value in expected.items() if isinstance(value, list)}
    for name, one in given.items():
        assert one["data"] == np.ravel(expected[name]).tolist(), name
    assert response.headers["X-Request-ID"]


def test_the_deterministic_pass_is_a_mode(odd: Server) -> None:
    expected = odd.post("/eval", {"model": "good", "inputs": [ROW]}).json()
    response = infer(odd, {"inputs": [INPUT], "parameters": {"mode": "eval"}})
    assert response.json()["parameters"] == {"mode": "eval"}
    given = outputs(response)
    assert given.keys() == {"mean", "predictive_entropy", "label"}
    assert given["mean"]["data"] == expected["mean"][0]


def test_under_a_tolerance_the_passes_of_each_row_are_an_output(odd: Server) -> None:
    body = {"inputs": [INPUT], "parameters": {"tolerance": 0.1, "max_passes": 200}}
    response = infer(odd, body)
    [passes] = outputs(response)["passes"]["data"]
    assert 2 <= passes <= 200
    used = response.json()["parameters"]
    assert (used["tolerance"], used["max_passes"]) == (0.1, 200)
    assert "passes" not in used


def test_a_fresh_draw_is_echoed_and_can_be_repeated(odd: Server) -> None:
    first = infer(odd, {"inputs": [INPUT], "parameters": {"seed": "random"}})
    seed = first.json()["parameters"]["seed"]
    again = infer(odd, {"inputs": [INPUT], "parameters": {"seed": seed}})
    assert again.json()["outputs"] == first.json()["outputs"]


def test_labels_with_names_are_bytes(shipped: Server) -> None:
    body = {
        "inputs": [{**INPUT, "shape": [1, 30], "data": [1.0] * 30}],
        "outputs": [{"name": "label"}],
    }
    path = "/v2/models/breast_cancer/infer"
    label = outputs(infer(shipped, body, path))["label"]
    assert label["datatype"] == "BYTES"
    [name] = label["data"]
    assert name in ("malignant", "benign")
    response = infer(shipped, {**body, "parameters": {"binary_data_output": True}}, path)
    binary = response.content[int(response.headers[LENGTH]) :]
    assert binary == len(name).to_bytes(4, "little") + name.encode()


@pytest.mark.parametrize("datatype", [name for name in DATATYPES if name != "BYTES"])
def test_every_datatype_is_read_as_bytes(odd: Server, datatype: str) -> None:
    values = np.array([[1, 0, 1, 1]])
    expected = outputs(infer(odd, {"inputs": [{**INPUT, "data": values.ravel().tolist()}]}))
    if datatype == "BF16":
        upper = values.astype("<f4").view("<u4") >> 16
        body = upper.astype("<u2").tobytes()
    else:
        body = values.astype(NUMPY[datatype]).tobytes()
    head = json.loads(described([1, 4], len(body)))
    head["inputs"][0]["datatype"] = datatype
    text = json.dumps(head).encode()
    assert outputs(infer(odd, text + body, **{LENGTH: str(len(text))})) == expected


def test_json_and_bytes_may_mix_in_both_directions(odd: Server) -> None:
    plain = outputs(infer(odd, {"inputs": [INPUT]}))
    wanted = [
        {"name": "std", "parameters": {"binary_data": True}},
        {"name": "mean", "parameters": {"binary_data": False}},
        {"name": "label"},
    ]
    parameters = {"binary_data_output": True}
    text = described([1, 4], 16, outputs=wanted, parameters=parameters)
    response = infer(odd, text + raw(ROW), **{LENGTH: str(len(text))})
    assert response.headers["Content-Type"] == "application/octet-stream"
    length = int(response.headers[LENGTH])
    std, mean, label = orjson.loads(response.content[:length])["outputs"]
    assert std["parameters"] == {"binary_data_size": 12}
    assert "data" not in std
    assert mean["data"] == plain["mean"]["data"]
    assert label["parameters"] == {"binary_data_size": 8}
    tail = response.content[length:]
    np.testing.assert_array_equal(np.frombuffer(tail[:12], "<f4"), np.float32(plain["std"]["data"]))
    assert np.frombuffer(tail[12:], "<i8").tolist() == plain["label"]["data"]


def test_without_a_binary_output_there_is_no_header(odd: Server) -> None:
    response = infer(odd, {"inputs": [INPUT]})
    assert LENGTH not in response.headers
    assert response.headers["Content-Type"] == "application/json"


def test_a_raw_request_is_its_input_and_is_answered_in_bytes(odd: Server) -> None:
    expected = outputs(infer(odd, {"inputs": [{**INPUT, "shape": [2, 4], "data": ROW * 2}]}))
    response = infer(odd, raw(ROW, ROW), **{LENGTH: "0"})
    length = int(response.headers[LENGTH])
    first = orjson.loads(response.content[:length])["outputs"][0]
    assert (first["name"], first["shape"]) == ("mean", [2, 3])
    mean = np.frombuffer(response.content[length : length + 24], "<f4")
    np.testing.assert_array_equal(mean, np.float32(expected["mean"]["data"]))


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_bodies_may_be_compressed_both_ways(odd: Server, coding: str) -> None:
    compress = gzip.compress if coding == "gzip" else zlib.compress
    text = described([1, 4], 16)
    # The length counts uncompressed bytes.
    headers = {LENGTH: str(len(text)), "Content-Encoding": coding, "Accept-Encoding": coding}
    response = infer(odd, compress(text + raw(ROW)), **headers)
    assert response.headers["Content-Encoding"] == coding
    assert outputs(response) == outputs(infer(odd, {"inputs": [INPUT]}))


def test_no_limit_is_passed_by_compressing(odd: Server) -> None:
    response = infer(odd, gzip.compress(bytes(50_000_000)), **{"Content-Encoding": "gzip"})
    assert response.status_code == 413
    assert "CANDOR_MAX_BODY_BYTES" in response.json()["error"]


def test_an_infinite_output_is_null_in_json_and_itself_in_bytes(odd: Server) -> None:
    # The logits of so large numbers are infinite, and their softmax is not a number.
    huge = {**INPUT, "data": [3e38] * 4}
    given = outputs(infer(odd, {"inputs": [huge]}))
    assert given["mean"]["data"] == [None] * 3
    body = {"inputs": [huge], "outputs": [{"name": "mean", "parameters": {"binary_data": True}}]}
    response = infer(odd, body)
    assert np.isnan(np.frombuffer(response.content[int(response.headers[LENGTH]) :], "<f4")).all()


WRONG: list[tuple[Any, int, str]] = [
    (b"{", 400, "JSON"),
    (b"", 400, "JSON"),
    (b"[" * 40_000 + b"]" * 40_000, 400, "JSON"),
    ([], 400, "list"),
    ({}, 400, "`inputs`"),
    ({"inputs": 3}, 400, "`inputs`"),
    ({"inputs": []}, 400, "none"),
    ({"inputs": [INPUT, INPUT]}, 400, "'input', 'input'"),
    ({"inputs": [{**INPUT, "name": "x"}]}, 400, "'x'"),
    ({"inputs": [INPUT], "id": 3}, 400, "`id`"),
    ({"inputs": [INPUT], "parameters": []}, 400, "`parameters`"),
    ({"inputs": [INPUT], "parameters": {"passes": [3]}}, 400, "`passes`"),
    ({"inputs": [INPUT], "parameters": {"passes": 1}}, 422, "at least 2"),
    ({"inputs": [INPUT], "parameters": {"passes": "9"}}, 422, "`passes`"),
    ({"inputs": [INPUT], "parameters": {"passes": 10**8}}, 413, "CANDOR_MAX_WORK"),
    ({"inputs": [INPUT], "parameters": {"seed": 2**70}}, 422, "`seed`"),
    ({"inputs": [INPUT], "parameters": {"mode": "train"}}, 422, "predict, eval"),
    ({"inputs": [INPUT], "parameters": {"mode": "eval", "passes": 9}}, 422, "`passes`"),
    ({"inputs": [INPUT], "parameters": {"timeout": -1}}, 422, "microseconds"),
    ({"inputs": [INPUT], "parameters": {"priority": "first"}}, 422, "high, normal, low"),
    ({"inputs": [INPUT], "parameters": {"priority": -1}}, 422, "high, normal, low"),
    ({"inputs": [INPUT], "parameters": {"binary_data_output": 1}}, 400, "true or false"),
    ({"inputs": [INPUT], "outputs": {}}, 400, "`outputs`"),
    ({"inputs": [INPUT], "outputs": [{}]}, 400, "`name`"),
    ({"inputs": [INPUT], "outputs": [{"name": "median"}]}, 400, "no output 'median'"),
    ({"inputs": [INPUT], "outputs": [{"name": "interval"}]}, 400, "no output"),
    ({"inputs": [INPUT], "outputs": [{"name": "std"}] * 2}, 400, "twice"),
    (
        {"inputs": [INPUT], "outputs": [{"name": "std", "parameters": {"classification": 1}}]},
        400,
        "`classification`",
    ),
    (
        {
            "inputs": [INPUT],
            "outputs": [{"name": "samples"}],
            "parameters": {"tolerance": 0.1},
        },
        422,
        "samples",
    ),
    (
        {"inputs": [INPUT], "outputs": [{"name": "std"}], "parameters": {"mode": "eval"}},
        422,
        "`std`",
    ),
    (
        {"inputs": [{**INPUT, "parameters": {"shared_memory_region": "mine"}}]},
        400,
        "`shared_memory_region`",
    ),
    ({"inputs": [{**INPUT, "datatype": "FP99"}]}, 400, "FP99"),
    ({"inputs": [{**INPUT, "datatype": None}]}, 400, "`datatype`"),
    ({"inputs": [{**INPUT, "datatype": "BF16"}]}, 400, "no form in JSON"),
    ({"inputs": [{**INPUT, "datatype": "BYTES", "data": ["a"] * 4}]}, 422, "takes FP32"),
    ({"inputs": [{**INPUT, "datatype": "INT8", "data": [0, 0, 0, 300]}]}, 422, "`input[0][3]`"),
    ({"inputs": [{**INPUT, "shape": None}]}, 400, "`shape`"),
    ({"inputs": [{**INPUT, "shape": [-1, 4]}]}, 400, "-1"),
    ({"inputs": [{**INPUT, "shape": [1, "4"]}]}, 400, "'4'"),
    ({"inputs": [{**INPUT, "shape": [2**62, 4]}]}, 400, "64 bits"),
    ({"inputs": [{**INPUT, "shape": [2**61]}]}, 400, "64 bits"),
    ({"inputs": [{**INPUT, "shape": [1] * 65, "data": [0]}]}, 400, "65 dimensions"),
    ({"inputs": [{**INPUT, "shape": [2**40, 4]}]}, 400, "the data"),
    ({"inputs": [{**INPUT, "shape": [0, 4], "data": []}]}, 422, "at least one row"),
    ({"inputs": [{**INPUT, "shape": [4]}]}, 422, "[B, 4]"),
    ({"inputs": [{**INPUT, "shape": [2, 2]}]}, 422, "[B, 4]"),
    ({"inputs": [{**INPUT, "data": [[ROW]]}]}, 400, "has the shape [1, 1, 4]"),
    ({"inputs": [{**INPUT, "data": [0, 0, 0]}]}, 400, "[3]"),
    ({"inputs": [{**INPUT, "data": [0, None, 0, 0]}]}, 400, "more than numbers"),
    ({"inputs": [{**INPUT, "data": [0, "1", 0, 0]}]}, 400, "more than numbers"),
    ({"inputs": [{**INPUT, "data": [0, float("nan"), 0, 0]}]}, 422, "`input[0][1]` is nan"),
    ({"inputs": [{**INPUT, "data": [0, 0, float("inf"), 0]}]}, 422, "`input[0][2]` is inf"),
    (b'{"inputs":[{"name":"input","shape":[1,4],"datatype":"FP32","data":[0,0,0,1e999]}]}', 422,
     "`input[0][3]`"),
    ({"inputs": [{**INPUT, "parameters": {"binary_data_size": 16}}]}, 400, "both"),
    ({"inputs": [{k: v for k, v in INPUT.items() if k != "data"}]}, 400, "list of elements"),
    (described([1, 4], 16), 400, "0 bytes follow"),
    (described([1, 4], -16), 400, "`binary_data_size`"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "said"), WRONG)
def test_what_is_wrong_is_said_in_the_protocols_form(
    odd: Server, body: Any, status: int, said: str
) -> None:
    response = infer(odd, body)
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Request-ID"]
    assert response.json().keys() == {"error"}
    assert said in response.json()["error"]


@pytest.mark.parametrize(
    ("length", "more", "said"),
    [
        ("99999999999", 16, LENGTH),
        ("-1", 16, LENGTH),
        ("all", 16, LENGTH),
        (None, 16, "JSON"),
        ("right", 15, "15 bytes follow"),
        ("right", 17, "17 bytes follow"),
        ("0", 16, "32 bytes"),
    ],
)
def test_bytes_that_are_not_what_the_json_says_are_refused(
    odd: Server, length: str | None, more: int, said: str
) -> None:
    text = described([1, 4], 16)
    headers = {} if length is None else {LENGTH: str(len(text)) if length == "right" else length}
    body = bytes(17) if length == "0" else text + bytes(more)
    response = infer(odd, body, **headers)
    assert response.status_code == 400, response.text
    assert said in response.json()["error"] or length == "0"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/good/", 404),
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/nobody/ready", 404),
        ("GET", "/v2/models/good/versions/9", 404),
        ("GET", "/v2/models/good/versions/one/ready", 404),
        ("GET", "/v2/models/good/versions/" + "9" * 5000, 404),
        ("GET", "/v2/models/" + "x" * 256, 404),
        ("GET", "/v2/models/a%2Fb/ready", 404),
        ("GET", "/v2/models/%20good", 404),
        ("GET", "/v2/models/raises/ready", 503),
        ("GET", "/v2/models/unknown_key/config", 503),
        ("GET", GOOD, 405),
        ("POST", "/v2/models/good", 405),
        ("POST", "/v2/models/nobody/infer", 404),
        ("POST", "/v2/models/../infer", 404),
        ("POST", "/v2/models//infer", 404),
        ("POST", "/v2/models/a/../b/infer", 404),
        ("POST", "/v2/models/good/versions/0/infer", 404),
        ("POST", "/v2/models/raises/infer", 503),
        ("POST", "/v2/repository/models/nobody/load", 404),
        ("POST", "/v2/repository/models/nobody/unload", 404),
        ("POST", "/v2/repository/models/raises/load", 503),
        ("GET", "/v2/repository/index", 405),
        ("DELETE", "/v2", 405),
    ],
)
def test_every_error_below_v2_has_the_protocols_form(
    odd: Server, method: str, path: str, status: int
) -> None:
    # httpx would take the dots out of the path.
    url = httpx.URL(odd.url).copy_with(raw_path=path.encode())
    response = httpx.request(method, url)
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error"}
    assert response.headers["X-Request-ID"]
    assert ("Retry-After" in response.headers) == (status == 503)


@pytest.mark.parametrize("prefix", ["/models", "/v2/models"])
@pytest.mark.parametrize("version", ["%C2%B2", "9" * 5000, "-1", "0", "one"])
def test_a_version_that_is_none_is_not_found_on_either_route(
    odd: Server, prefix: str, version: str
) -> None:
    assert odd.get(f"{prefix}/good/versions/{version}").status_code == 404


def test_a_coding_that_is_not_known_and_a_body_too_large_are_refused(odd: Server) -> None:
    assert infer(odd, b"{}", **{"Content-Encoding": "br"}).status_code == 415
    large = infer(odd, b" " * 100_001)
    assert large.status_code == 413
    assert "CANDOR_MAX_BODY_BYTES" in large.json()["error"]
    assert odd.post("/v2/repository/index", " " * 100_001).json().keys() == {"error"}


def test_a_deadline_stands_in_the_parameters_in_microseconds(odd: Server) -> None:
    body = {
        "inputs": [{"name": "input", "shape": [1, 1], "datatype": "FP32", "data": [800.0]}],
        "parameters": {"timeout": 200_000, "passes": 2},
    }
    response = infer(odd, body, "/v2/models/slow/infer")
    assert response.status_code == 504
    assert "0.2 seconds" in response.json()["error"]


def test_a_deadline_that_no_float_holds_is_the_servers(odd: Server) -> None:
    response = infer(odd, {"inputs": [INPUT], "parameters": {"timeout": 10**400}})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("priority", ["high", "normal", "LOW", 0, 1, 2, 3, 4000])
def test_a_priority_stands_in_the_parameters_by_name_or_by_tritons_number(
    odd: Server, priority: str | int
) -> None:
    response = infer(odd, {"inputs": [INPUT], "parameters": {"priority": priority}})
    assert response.status_code == 200, response.text


def test_a_model_that_fails_answers_500_and_is_counted(odd: Server) -> None:
    before = odd.get("/v2/models/fragile/stats").json()["model_stats"][0]
    one = {"name": "input", "shape": [1, 1], "datatype": "FP32", "data": [200.0]}
    response = infer(odd, {"inputs": [one]}, "/v2/models/fragile/infer")
    assert response.status_code == 500
    assert "above one hundred" in response.json()["error"]
    after = odd.get("/v2/models/fragile/stats").json()["model_stats"][0]
    failed = [one["inference_stats"]["fail"]["count"] for one in (before, after)]
    assert failed[1] == failed[0] + 1


def test_statistics_count_rows_batches_and_times(odd: Server) -> None:
    def now(path: str = "/v2/models/good/versions/1/stats") -> dict[str, Any]:
        [found] = [s for s in odd.get(path).json()["model_stats"] if s["name"] == "good"]
        return dict(found)

    before = now()
    infer(odd, {"inputs": [{**INPUT, "shape": [3, 4], "data": ROW * 3}]})
    odd.post("/eval", {"model": "good", "inputs": [ROW]})
    after = now()
    assert after["version"] == "1"
    assert after["inference_count"] == before["inference_count"] + 4
    assert after["execution_count"] == before["execution_count"] + 2
    assert after["last_inference"] > 1_600_000_000_000
    spent, earlier = after["inference_stats"], before["inference_stats"]
    for name in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert spent[name]["count"] == earlier[name]["count"] + 2
    parts = spent["queue"]["ns"] + spent["compute_infer"]["ns"]
    assert 0 < spent["compute_infer"]["ns"] < parts
    assert parts == pytest.approx(spent["success"]["ns"], abs=spent["success"]["count"])
    assert {batch["batch_size"] for batch in after["batch_stats"]} >= {1, 3}
    executed = sum(batch["compute_infer"]["count"] for batch in after["batch_stats"])
    assert executed == after["execution_count"]
    assert now("/v2/models/stats") == now("/v2/models/good/stats") == after


def test_the_repository_is_listed_loaded_and_unloaded(odd: Server) -> None:
    def index(body: bytes = b"") -> dict[str, tuple[str, str]]:
        listed = odd.request("POST", "/v2/repository/index", content=body).json()
        return {one["name"]: (one["state"], one["reason"]) for one in listed}

    found = index()
    assert found["good"] == ("READY", "")
    assert found["raises"][0] == found["unknown_key"][0] == "UNAVAILABLE"
    assert "no such layer" in found["raises"][1]
    assert index(b'{"ready": true}').keys() == {"good", "slow", "fragile"}

    def change(what: str, body: bytes = b"") -> httpx.Response:
        return odd.request("POST", f"/v2/repository/models/good/{what}", content=body)

    unload = change("unload", b'{"parameters": {"unload_dependents": false}}')
    assert (unload.status_code, unload.json()) == (200, {"name": "good", "unload": True})
    try:
        assert index()["good"][0] == "UNAVAILABLE"
        assert odd.get("/v2/models/good/ready").status_code == 503
        assert infer(odd, {"inputs": [INPUT]}).status_code == 503
    finally:
        assert change("load").json() == {"name": "good", "load": True}
    assert infer(odd, {"inputs": [INPUT]}).status_code == 200
    refused = change("load", b'{"parameters": {"config": "{}"}}')
    assert refused.status_code == 400
    assert "`config`" in refused.json()["error"]
    for what in ("load", "unload"):
        for body in (b"[]", b"{", b'{"parameters": false}'):
            assert change(what, body).status_code == 400
    assert infer(odd, {"inputs": [INPUT]}).status_code == 200


def test_what_is_counted_names_the_route_not_the_path(odd: Server) -> None:
    infer(odd, {"inputs": [INPUT]}, "/v2/models/good/versions/1/infer")
    metrics = odd.get("/metrics").text
    labels = 'candor_requests_total{code="200",endpoint="/v2/models/{name}/infer",model="good"}'
    assert labels in metrics
