"""Clients of other servers, unchanged, against ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.e2e.servers import Server

ROWS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
USED = {"mode": "predict", "passes": 9, "seed": 4, "masks": "shared"}


def sent(datatype: str = "FP32", *, binary: bool = True) -> Any:
    """The input as Triton's clients take it."""
    one = triton.InferInput("input", [3, 4], datatype)
    one.set_data_from_numpy(ROWS, binary_data=binary)
    return one


def address(server: Server) -> str:
    return server.url.removeprefix("http://")


@pytest.fixture
def client(odd: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(address(odd)) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(odd: Server) -> dict[str, Any]:
    body = {"model": "good", "inputs": ROWS.tolist(), "passes": 9, "seed": 4}
    answer: dict[str, Any] = odd.post("/predict", body).json()
    return answer


def test_triton_asks_who_is_there(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("good")
    assert client.is_model_ready("good", "1")
    assert not client.is_model_ready("raises")
    assert not client.is_model_ready("nobody")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("good", "1")
    config = client.get_model_config("good")
    assert [one["name"] for one in metadata["inputs"]] == ["input"]
    assert config["input"][0]["data_type"] == "TYPE_FP32"


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("request_coding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_coding", [None, "gzip", "deflate"])
def test_triton_infers(
    client: Any,
    expected: dict[str, Any],
    binary: bool,
    request_coding: str | None,
    response_coding: str | None,
) -> None:
    found = client.infer(
        "good",
        [sent(binary=binary)],
        request_id="mine",
        parameters={"passes": 9, "seed": 4},
        request_compression_algorithm=request_coding,
        response_compression_algorithm=response_coding,
    )
    response = found.get_response()
    assert response["id"] == "mine"
    assert response["parameters"] == USED
    # Triton's client asks for bytes where it names no outputs.
    assert all("binary_data_size" in one["parameters"] for one in response["outputs"])
    for name in ("mean", "mutual_information", "label"):
        np.testing.assert_allclose(found.as_numpy(name), expected[name], rtol=1e-6)


@pytest.mark.parametrize("binary", [True, False])
def test_triton_gets_the_outputs_that_it_asks_for(client: Any, binary: bool) -> None:
    wanted = [
        triton.InferRequestedOutput(name, binary_data=binary) for name in ("samples", "passes")
    ]
    found = client.infer("good", [sent()], outputs=wanted, parameters={"passes": 9})
    assert [one["name"] for one in found.get_response()["outputs"]] == ["samples", "passes"]
    assert found.as_numpy("samples").shape == (9, 3, 3)
    assert found.as_numpy("passes").tolist() == [9, 9, 9]


def test_triton_infers_without_waiting(client: Any, expected: dict[str, Any]) -> None:
    waiting = client.async_infer("good", [sent()], parameters={"passes": 9, "seed": 4})
    mean = waiting.get_result().as_numpy("mean")
    np.testing.assert_allclose(mean, expected["mean"], rtol=1e-6)


def test_triton_reads_an_output_that_is_not_a_number(client: Any) -> None:
    huge = triton.InferInput("input", [1, 4], "FP32")
    huge.set_data_from_numpy(np.full((1, 4), 3e38, np.float32))
    for binary in (True, False):
        wanted = [triton.InferRequestedOutput("mean", binary_data=binary)]
        assert np.isnan(client.infer("good", [huge], outputs=wanted).as_numpy("mean")).all()


def test_triton_is_told_what_is_wrong(client: Any) -> None:
    with pytest.raises(InferenceServerException, match="at least 2") as caught:
        client.infer("good", [sent()], parameters={"passes": 1})
    assert caught.value.status() == "422"
    with pytest.raises(InferenceServerException, match="there is no model"):
        client.get_model_metadata("nobody")
    slow = triton.InferInput("input", [1, 1], "FP32")
    slow.set_data_from_numpy(np.full((1, 1), 800, np.float32))
    with pytest.raises(InferenceServerException, match=r"0\.2 seconds"):
        client.infer("slow", [slow], timeout=200_000)


def test_triton_reads_statistics(client: Any) -> None:
    [before] = client.get_inference_statistics("good", "1")["model_stats"]
    client.infer("good", [sent()])
    [after] = client.get_inference_statistics("good")["model_stats"]
    assert after["inference_count"] == before["inference_count"] + 3
    listed = client.get_inference_statistics()["model_stats"]
    assert {"good", "slow", "fragile"} <= {one["name"] for one in listed}


def test_triton_loads_and_unloads(client: Any) -> None:
    states = {one["name"]: one["state"] for one in client.get_model_repository_index()}
    assert states["good"] == "READY"
    assert states["raises"] == "UNAVAILABLE"
    client.unload_model("fragile")
    assert not client.is_model_ready("fragile")
    client.load_model("fragile")
    assert client.is_model_ready("fragile")
    with pytest.raises(InferenceServerException, match="no such layer"):
        client.load_model("raises")


def test_tritons_asynchronous_client_does_all_that(odd: Server, expected: dict[str, Any]) -> None:
    async def ask() -> None:
        async with triton_aio.InferenceServerClient(address(odd)) as client:
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("good")
            assert (await client.get_model_metadata("good"))["versions"] == ["1"]
            assert (await client.get_model_config("good"))["name"] == "good"
            for coding in (None, "gzip", "deflate"):
                found = await client.infer(
                    "good",
                    [sent()],
                    parameters={"passes": 9, "seed": 4},
                    request_compression_algorithm=coding,
                    response_compression_algorithm=coding,
                )
                np.testing.assert_allclose(found.as_numpy("mean"), expected["mean"], rtol=1e-6)
            await client.unload_model("fragile")
            await client.load_model("fragile")
            index = await client.get_model_repository_index()
            assert "fragile" in [one["name"] for one in index if one["state"] == "READY"]
            assert (await client.get_inference_statistics("good"))["model_stats"]
            with pytest.raises(InferenceServerException, match="at least 2"):
                await client.infer("good", [sent()], parameters={"passes": 1})

    asyncio.run(ask())
