"""A server whose models are on a GPU, beside one whose models are on the CPU."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from tests.e2e.servers import SHIPPED, Server, serving

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

NAMES = sorted(folder.parent.name for folder in SHIPPED.glob("*/model.toml"))
TOLERANCE = 1e-3
"""Of a mean's own size and of 1: what is summed in another order rounds otherwise."""


def server_on(device: str, precision: str = "float32") -> Any:
    environment = {"CANDOR_DEVICE": device, "CANDOR_PRECISION": precision}
    # A fork of a process in which CUDA was looked for cannot use it.
    return serving(SHIPPED, environment=environment, fresh=True)


@pytest.fixture(scope="module")
def gpu() -> Iterator[Server]:
    with server_on("cuda") as server:
        yield server


@pytest.fixture(scope="module")
def cpu() -> Iterator[Server]:
    with server_on("cpu") as server:
        yield server


def body_of(name: str, **more: object) -> dict[str, Any]:
    example = json.loads((SHIPPED / name / "example.json").read_text())
    return {"model": name, "inputs": example["inputs"], "seed": 3, "passes": 64, **more}


def fields_of(server: Server, body: dict[str, Any]) -> dict[str, np.ndarray]:
    answer = server.post("/predict", body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    numbers = ("mean", "std", "predictive_entropy", "mutual_information", "epistemic")
    return {name: np.array(found[name]) for name in numbers if found.get(name) is not None}


def assert_alike(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert got.keys() == expected.keys()
    assert {"mean", "std"} <= got.keys()
    for name in got:
        np.testing.assert_allclose(
            got[name], expected[name], rtol=TOLERANCE, atol=TOLERANCE, err_msg=name
        )


def test_models_say_that_they_are_on_the_gpu_and_are_recorded(gpu: Server) -> None:
    models = gpu.get("/models").json()["models"]
    assert sorted(model["name"] for model in models) == NAMES
    for model in models:
        [version] = model["versions"]
        assert version["device"] == "cuda:0"
        assert version["strategy"]["name"] == "sampling_program"
        assert "CUDA graph" not in version["strategy"]["reason"]


@pytest.mark.parametrize("masks", ["shared", "independent"])
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_answers_as_a_cpu_does(gpu: Server, cpu: Server, name: str, masks: str) -> None:
    body = body_of(name, masks=masks)
    assert_alike(fields_of(gpu, body), fields_of(cpu, body))
    means = []
    for server in (gpu, cpu):
        answer = server.post("/eval", {"model": name, "inputs": body["inputs"]})
        assert answer.status_code == 200, answer.text
        means.append(np.array(answer.json()["mean"]))
    np.testing.assert_allclose(means[0], means[1], rtol=TOLERANCE, atol=TOLERANCE)


def test_models_are_loaded_anew_while_requests_of_new_shapes_come(gpu: Server, cpu: Server) -> None:
    inputs = body_of("digits")["inputs"]
    over = threading.Event()

    def reload() -> int:
        reloads = 0
        while not over.is_set():
            answer = gpu.post("/v2/repository/models/digits/load", {})
            assert answer.status_code == 200, answer.text
            reloads += 1
        return reloads

    with ThreadPoolExecutor(1) as pool:
        reloading = pool.submit(reload)
        try:
            for passes in range(5, 45, 4):
                for rows in (1, 2, 4, 7):
                    repeated = (inputs * rows)[:rows]
                    body = body_of("digits", inputs=repeated, passes=passes)
                    assert_alike(fields_of(gpu, body), fields_of(cpu, body))
        finally:
            over.set()
        assert reloading.result() > 0


def test_lower_precision_is_chosen_only_where_it_changes_next_to_nothing(cpu: Server) -> None:
    with server_on("cuda", "auto") as server:
        for name in NAMES:
            got, expected = (fields_of(s, body_of(name)) for s in (server, cpu))
            scale = np.abs(expected["mean"]).max()
            np.testing.assert_allclose(got["mean"], expected["mean"], rtol=0, atol=0.02 * scale)
