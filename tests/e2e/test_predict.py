"""What an answer holds, and that it depends on model, input, passes and seed alone."""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.torch
import torch

from service.api.predict import DEFAULT_FIELDS
from service.client import Client
from tests.e2e.servers import SHIPPED, Server, copied, serving
from tests.repositories import build_network, write_model

DIGITS = json.loads((SHIPPED / "digits" / "example.json").read_text())
SEVERAL_DIGITS = np.random.default_rng(0).integers(0, 17, (12, 1, 8, 8)).tolist()
CO2: dict[str, Any] = {"model": "co2", "inputs": [[1975.5], [2000.5], [2030.5]]}


def test_an_answer_has_the_contracts_fields_in_shape(shipped: Server) -> None:
    answer = shipped.post("/predict", DIGITS).json()
    rows, classes = len(DIGITS["inputs"]), 10
    assert list(answer) == [
        "model",
        "version",
        "task",
        "passes",
        "seed",
        "calibration",
        *DEFAULT_FIELDS,
    ]
    assert (answer["model"], answer["version"], answer["task"]) == ("digits", 1, "classification")
    assert (answer["passes"], answer["seed"]) == (50, 0)
    for name in ("mean", "std", "standard_error"):
        assert np.shape(answer[name]) == (rows, classes)
    for name in ("predictive_entropy", "expected_entropy", "mutual_information", "variance"):
        assert np.shape(answer[name]) == (rows,)
    assert answer["label"] == ["2", "0"]
    assert answer["calibration"] == "applied"
    assert answer["ood"]["flagged"] == [False, False]
    assert answer["prediction_set"] == [["2"], ["0"]]
    for name in ("aleatoric_std", "epistemic_std", "interval"):
        assert answer[name] is None


def test_the_measures_of_an_answer_agree_with_its_samples(shipped: Server) -> None:
    fields = ["samples", "quantiles", *DEFAULT_FIELDS]
    answer = shipped.post("/predict", {**DIGITS, "return": fields}).json()
    samples = np.array(answer["samples"])
    assert samples.shape == (50, 2, 10)
    # float32 in the answer: seven digits.
    np.testing.assert_allclose(answer["mean"], samples.mean(0), atol=1e-6)
    np.testing.assert_allclose(answer["std"], samples.std(0, ddof=1), atol=1e-6)
    np.testing.assert_allclose(
        answer["standard_error"], samples.std(0, ddof=1) / math.sqrt(50), atol=1e-6
    )
    np.testing.assert_allclose(answer["variance"], samples.var(0, ddof=1).mean(-1), atol=1e-6)
    levels = answer["quantiles"]["levels"]
    np.testing.assert_allclose(
        answer["quantiles"]["values"], np.quantile(samples, levels, axis=0), atol=1e-6
    )
    difference = np.subtract(answer["predictive_entropy"], answer["expected_entropy"])
    np.testing.assert_allclose(answer["mutual_information"], difference, atol=1e-12)


def test_only_the_fields_asked_for_come_back(shipped: Server) -> None:
    answer = shipped.post("/predict", {**CO2, "return": ["std", "label"]}).json()
    assert list(answer) == ["model", "version", "task", "passes", "seed", "std", "label"]
    assert answer["label"] is None


def test_doubt_grows_beyond_the_training_years(shipped: Server) -> None:
    body = {"model": "co2", "inputs": [[1980.5], [2010.0], [2030.0], [2050.0]], "passes": 400}
    std = np.array(shipped.post("/predict", body).json()["epistemic_std"])[:, 0]
    assert np.all(np.diff(std) > 0)
    assert std[1] > 2 * std[0]


def test_a_tolerance_gives_each_row_the_passes_it_needs(shipped: Server) -> None:
    body = {"model": "digits", "inputs": SEVERAL_DIGITS, "tolerance": 0.01, "max_passes": 2000}
    answer = shipped.post("/predict", {**body, "return": [*DEFAULT_FIELDS, "quantiles"]}).json()
    passes, error = np.array(answer["passes"]), np.max(answer["standard_error"], axis=1)
    assert passes.shape == (len(SEVERAL_DIGITS),)
    assert passes.min() < passes.max() <= 2000
    assert (error[passes < 2000] <= 0.01).all()
    for row in (passes.argmin(), passes.argmax()):
        rows = SEVERAL_DIGITS[row : row + 1]
        alone = {"model": "digits", "inputs": rows, "passes": int(passes[row])}
        expected = shipped.post("/predict", alone).json()
        np.testing.assert_allclose(answer["mean"][row], expected["mean"][0], atol=1e-5)
        np.testing.assert_allclose(answer["std"][row], expected["std"][0], atol=1e-5)


def test_a_tolerance_may_be_written_as_an_integer(shipped: Server) -> None:
    answer = shipped.post("/predict", {**CO2, "tolerance": 1000, "max_passes": 5}).json()
    assert answer["passes"] == [5, 5, 5]


def test_a_repeat_is_equal_and_another_seed_is_not(shipped: Server) -> None:
    first, again = (shipped.post("/predict", CO2).json() for _ in range(2))
    assert first == again
    other = shipped.post("/predict", {**CO2, "seed": 1}).json()
    assert other["seed"] == 1
    assert other["mean"] != first["mean"]


def test_a_random_seed_is_echoed_and_repeats_the_answer(shipped: Server) -> None:
    first = shipped.post("/predict", {**CO2, "seed": "random"}).json()
    second = shipped.post("/predict", {**CO2, "seed": "random"}).json()
    assert first["seed"] != second["seed"]
    assert shipped.post("/predict", {**CO2, "seed": first["seed"]}).json() == first


def test_a_restarted_server_gives_the_same_answer(shipped: Server, tmp_path: Path) -> None:
    with serving(copied(tmp_path, "co2")) as restarted:
        assert restarted.post("/predict", CO2).json() == shipped.post("/predict", CO2).json()


@pytest.mark.parametrize("masks", ["shared", "independent"])
def test_200_concurrent_clients_each_get_their_own_rows(shipped: Server, masks: str) -> None:
    generator = np.random.default_rng(0)
    bodies = [
        {
            "model": "digits",
            "inputs": generator.integers(0, 17, (generator.integers(1, 9), 1, 8, 8)).tolist(),
            "passes": 10,
            "masks": masks,
        }
        for _ in range(200)
    ]
    with httpx.Client(timeout=60.0, limits=httpx.Limits(max_connections=200)) as client:

        def ask(body: dict[str, Any]) -> dict[str, Any]:
            # Whoever is told to come back does: one long pause of a busy machine makes all that
            # waits look late.
            while (response := client.post(shipped.url + "/predict", json=body)).status_code == 429:
                time.sleep(float(response.headers["Retry-After"]))
            assert response.status_code == 200, response.text
            answer: dict[str, Any] = response.json()
            return answer

        before = _batches(shipped, "digits")
        with ThreadPoolExecutor(200) as pool:
            crowd = list(pool.map(ask, bodies))
        batches = _batches(shipped, "digits") - before
        alone = [ask(body) for body in bodies]
    assert batches < len(bodies), "requests that waited should have run together"
    for together, single in zip(crowd, alone, strict=True):
        for name in ("mean", "std", "predictive_entropy", "mutual_information", "variance"):
            np.testing.assert_allclose(together[name], single[name], rtol=0, atol=1e-5)


def _batches(server: Server, model: str) -> float:
    name = f'candor_batch_rows_count{{model="{model}"}} '
    lines = server.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def test_eval_is_the_plain_forward_pass_bit_for_bit(shipped: Server) -> None:
    network = build_network(SHIPPED / "digits")
    safetensors.torch.load_model(network, SHIPPED / "digits" / "1" / "weights.safetensors")
    with torch.no_grad():
        logits = network.eval()(torch.tensor(DIGITS["inputs"], dtype=torch.float32))
    expected = logits.softmax(-1).numpy()
    for _ in range(2):
        answer = shipped.post("/eval", DIGITS).json()
        assert np.array_equal(np.array(answer["mean"], dtype=np.float32), expected)
    assert answer["label"] == ["2", "0"]
    assert list(answer) == ["model", "version", "task", "mean", "predictive_entropy", "label"]


def test_arrays_in_and_out_say_the_same_as_json(shipped: Server) -> None:
    body = io.BytesIO()
    np.save(body, np.array(DIGITS["inputs"], dtype=np.uint8))
    response = httpx.post(
        shipped.url + "/predict",
        params={"model": "digits", "passes": 7, "return": "mean,label,samples"},
        content=body.getvalue(),
        headers={"Content-Type": "application/x-npy", "Accept": "application/x-npz"},
    )
    assert response.headers["Content-Type"] == "application/x-npz"
    arrays = np.load(io.BytesIO(response.content), allow_pickle=False)
    fields = ["mean", "label", "samples"]
    expected = shipped.post("/predict", {**DIGITS, "passes": 7, "return": fields}).json()
    assert set(arrays) == set(expected)
    np.testing.assert_array_equal(arrays["label"], expected["label"])
    np.testing.assert_allclose(arrays["mean"], expected["mean"], atol=1e-7)
    np.testing.assert_allclose(arrays["samples"], expected["samples"], atol=1e-7)
    assert arrays["passes"] == 7


HETEROSCEDASTIC = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))
"""

TOKENS = """
from torch import nn

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(50, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, 0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, tokens):
        return self.head(self.encoder(self.embedding(tokens)).mean(1))

def build():
    return Tokens()
"""


PIXELS = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Dropout2d(0.5), nn.Conv2d(4, 3, 1))
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("tasks")
    write_model(root, "noisy", HETEROSCEDASTIC, task="heteroscedastic_regression")
    write_model(root, "tags", task="multilabel", more='labels = ["a", "b", "c"]')
    write_model(root, "tokens", TOKENS, shape="[-1]", dtype="int64")
    for task in ("classification", "multilabel"):
        names = 'labels = ["a", "b", "c"]'
        write_model(root, f"pixels_{task}", PIXELS, task=task, shape="[1, -1, -1]", more=names)
    with serving(root) as server:
        yield server


def test_every_task_answers_what_it_has(tasks: Server) -> None:
    rows = [[0.1, 0.2, 0.3, 0.4], [1.0, -1.0, 1.0, -1.0]]
    noisy = tasks.post("/predict", {"model": "noisy", "inputs": rows}).json()
    assert np.shape(noisy["aleatoric_std"]) == np.shape(noisy["epistemic_std"]) == (2, 1)
    whole = np.square(noisy["aleatoric_std"]) + np.square(noisy["epistemic_std"])
    entropy = 0.5 * np.log(2 * np.pi * np.e * whole[:, 0])
    np.testing.assert_allclose(noisy["predictive_entropy"], entropy, rtol=1e-5)
    assert noisy["label"] is None

    tags = tasks.post("/predict", {"model": "tags", "inputs": rows}).json()
    yes = np.array(tags["mean"]) >= 0.5
    assert tags["label"] == [[n for n, y in zip("abc", row, strict=True) if y] for row in yes]

    for length in (3, 11):
        body = {"model": "tokens", "inputs": [list(range(length))]}
        tokens = tasks.post("/predict", body).json()
        assert np.max(tokens["std"]) > 0


def test_every_pixel_has_its_prediction(tasks: Server) -> None:
    image = np.random.default_rng(0).standard_normal((2, 1, 4, 6)).tolist()
    fields = [*DEFAULT_FIELDS, "quantiles", "samples"]
    with Client(tasks.url) as client:
        body = {"model": "pixels_classification", "inputs": image, "passes": 7, "return": fields}
        answer = tasks.post("/predict", body).json()
        assert np.shape(answer["mean"]) == np.shape(answer["std"]) == (2, 3, 4, 6)
        assert np.shape(answer["mutual_information"]) == np.shape(answer["variance"]) == (2, 4, 6)
        assert np.shape(answer["samples"]) == (7, 2, 3, 4, 6)
        assert np.shape(answer["quantiles"]["values"]) == (5, 2, 3, 4, 6)
        best = np.array(list("abc"))[np.argmax(answer["mean"], axis=1)]
        np.testing.assert_array_equal(answer["label"], best)
        by_client = client.predict(image, model="pixels_classification", passes=7, fields=fields)
        np.testing.assert_allclose(np.asarray(by_client.samples), answer["samples"], atol=1e-7)
        np.testing.assert_array_equal(np.asarray(by_client.label), best)
        plain = client.eval(image, model="pixels_classification")
        assert plain.label is not None
        assert plain.label.shape == (2, 4, 6)
        tags = tasks.post("/predict", {"model": "pixels_multilabel", "inputs": image}).json()
        np.testing.assert_array_equal(tags["label"], np.array(tags["mean"]) >= 0.5)
        lines = tasks.get("/metrics").text
        assert 'candor_uncertainty_count{measure="variance",model="pixels_multilabel"} 2' in lines


def test_the_front_door_is_the_page_and_the_documentation_needs_no_other_host(
    shipped: Server,
) -> None:
    page = shipped.get("/")
    assert page.status_code == 200
    assert 'src="page/shell.js"' in page.text
    documentation = shipped.get("/docs")
    assert documentation.status_code == 200
    assert "https://" not in documentation.text
    paths = shipped.get("/openapi.json").json()["paths"]
    assert {"/predict", "/eval", "/models", "/livez", "/readyz", "/metrics"} <= set(paths)


def test_the_announced_curl_line_works_when_pasted(shipped: Server) -> None:
    import subprocess

    line = shipped.says("  curl ")[0]
    done = subprocess.run(line, shell=True, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout)["passes"] == 50
