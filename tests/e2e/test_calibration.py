"""From `candor calibrate` to what a running server answers, and what makes it stale."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import held_out
from service.client import Client
from tests.e2e.servers import SHIPPED, Server, serving
from tests.e2e.test_cli import candor


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped digits and co2, both uncalibrated, and held-out rows of both beside them."""
    root = tmp_path_factory.mktemp("calibrated")
    for name in ("digits", "co2"):
        shutil.copytree(SHIPPED / name, root / "models" / name)
        (root / "models" / name / "1" / "calibration.json").unlink(missing_ok=True)
        x, y = held_out(name)
        np.savez(root / f"{name}.npz", x=x, y=y)
    noise = np.random.default_rng(0).uniform(0, 16, (200, 1, 8, 8)).astype(np.float32)
    np.savez(root / "noise.npz", x=noise)
    return root


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    with serving(repository / "models", "--default-model", "digits") as running:
        yield running


def calibrate(repository: Path, *words: str, code: int = 0) -> str:
    done = candor("calibrate", *words, "--models", str(repository / "models"), code=code)
    return done.stdout + done.stderr


def rows(repository: Path, name: str) -> list[object]:
    with np.load(repository / f"{name}.npz") as arrays:
        found: list[object] = arrays["x"].tolist()
        return found


@pytest.fixture(scope="module")
def calibrated(repository: Path, server: Server) -> Server:
    """The server, which took up while it ran what digits was calibrated to."""
    before = server.post("/predict", {"inputs": rows(repository, "digits")[:2]}).json()
    assert [before[name] for name in ("ood", "prediction_set", "calibrated_mean")] == [None] * 3
    assert "calibration" not in before
    said = calibrate(
        repository,
        *("digits", "--data", str(repository / "digits.npz"), "--score", "predictive_entropy"),
        *("--false-positive-rate", "0.05", "--coverage", "0.9"),
        *("--ood", str(repository / "noise.npz")),
    )
    assert "are flagged" in said
    assert "AUROC" in said
    [version] = server.post("/models/digits/reload", {}).json()["versions"]
    assert version["calibration"]["state"] == "applied"
    assert version["calibration"]["score"] == "predictive_entropy"
    return server


def flagged_so_far(server: Server) -> float:
    start = 'candor_ood_flagged_total{model="digits"} '
    lines = server.get("/metrics").text.splitlines()
    return sum(float(line.removeprefix(start)) for line in lines if line.startswith(start))


def test_a_running_server_takes_a_calibration_up_on_reload(
    repository: Path, calibrated: Server
) -> None:
    server = calibrated
    flagged_before = flagged_so_far(server)
    digits, noise = rows(repository, "digits")[:100], rows(repository, "noise")[:100]
    known = server.post("/predict", {"inputs": digits}).json()
    assert known["calibration"] == "applied"
    ood = known["ood"]
    assert ood["score"] == "predictive_entropy"
    assert ood["false_positive_rate"] == 0.05
    assert ood["values"] == known["predictive_entropy"]
    assert ood["flagged"] == [value > ood["threshold"] for value in ood["values"]]
    # The rows that it was fitted on: of 450 at most 22, wherever they stand.
    assert sum(ood["flagged"]) <= 22
    assert all(set(labels) <= set("0123456789") for labels in known["prediction_set"])
    np.testing.assert_allclose(np.sum(known["calibrated_mean"], axis=1), 1, atol=1e-9)

    strange = server.post("/predict", {"inputs": noise}).json()
    assert sum(strange["ood"]["flagged"]) > 50
    metrics = server.get("/metrics").text
    flagged = sum(ood["flagged"]) + sum(strange["ood"]["flagged"])
    assert flagged_so_far(server) == flagged_before + flagged
    assert 'candor_ood_flagged_rate{model="digits",version="1"} 0.' in metrics
    assert 'candor_population_stability_index{measure="variance",model="digits"' in metrics


def test_passes_it_was_not_made_for_get_none_of_it_and_are_told_why(calibrated: Server) -> None:
    other = calibrated.post("/predict", {"inputs": np.zeros((1, 1, 8, 8)).tolist(), "passes": 20})
    answer = other.json()
    assert answer["ood"] is None
    assert answer["calibration"] == "not applied: it was made for 50 passes, not 20"


def test_the_inference_protocol_has_the_calibrated_outputs(
    repository: Path, calibrated: Server
) -> None:
    inputs = rows(repository, "digits")[:3]
    expected = calibrated.post("/predict", {"inputs": inputs}).json()
    sent = {"name": "input", "shape": [3, 1, 8, 8], "datatype": "FP32", "data": inputs}
    answer = calibrated.post("/v2/models/digits/infer", {"inputs": [sent]}).json()
    assert answer["parameters"]["calibration"] == "applied"
    assert answer["parameters"]["ood_score"] == "predictive_entropy"
    assert answer["parameters"]["ood_threshold"] == expected["ood"]["threshold"]
    metadata = calibrated.get("/v2/models/digits").json()["outputs"]
    given = {one["name"]: one for one in answer["outputs"]}
    described = {one["name"]: one for one in metadata}
    for name in ("ood_values", "ood_flagged", "prediction_set", "calibrated_mean"):
        assert given[name]["datatype"] == described[name]["datatype"]
        assert given[name]["shape"] == [3, *described[name]["shape"][1:]]
    assert given["ood_flagged"]["data"] == expected["ood"]["flagged"]
    holds = np.reshape(given["prediction_set"]["data"], (3, 10))
    named = [[str(place) for place in np.flatnonzero(row)] for row in holds]
    assert named == expected["prediction_set"]

    other: dict[str, object] = {"inputs": [sent], "parameters": {"passes": 20}}
    without = calibrated.post("/v2/models/digits/infer", other).json()
    assert without["parameters"]["calibration"].startswith("not applied: ")
    assert "ood_flagged" not in [one["name"] for one in without["outputs"]]
    asked = calibrated.post(
        "/v2/models/digits/infer", {**other, "outputs": [{"name": "ood_flagged"}]}
    )
    assert asked.status_code == 422
    assert "made for 50 passes" in asked.json()["error"]


def test_arrays_say_what_json_says(repository: Path, calibrated: Server) -> None:
    with np.load(repository / "digits.npz") as arrays:
        x = arrays["x"]
    with Client(calibrated.url) as client:
        many, few = client.predict(x[:100]), client.predict(x[:2])
    for answer, count in ((many, 100), (few, 2)):
        assert answer.ood is not None
        assert answer.ood["score"] == "predictive_entropy"
        assert answer.ood["values"].shape == answer.ood["flagged"].shape == (count,)
        assert answer.prediction_set is not None
    assert many.ood is not None
    assert few.ood is not None
    np.testing.assert_allclose(many.ood["values"][:2], few.ood["values"], atol=1e-6)
    sets = [np.flatnonzero(row).astype(str).tolist() for row in np.asarray(many.prediction_set)[:2]]
    assert sets == few.prediction_set


@pytest.fixture(scope="module")
def calibrated_regression(repository: Path, server: Server) -> Server:
    said = calibrate(repository, "co2", "--data", str(repository / "co2.npz"))
    assert "Standard deviation of the noise" in said
    server.post("/models/co2/reload", {})
    return server


def test_a_regression_has_intervals_and_the_noise_that_was_fitted(
    calibrated_regression: Server,
) -> None:
    server = calibrated_regression
    answer = server.post("/predict", {"model": "co2", "inputs": [[1975.5], [2030.0]]}).json()
    (low, high) = answer["interval"][0][0]
    assert low < answer["mean"][0][0] < high
    assert answer["aleatoric_std"][0] == answer["aleatoric_std"][1]
    assert answer["interval"][1][0][1] - answer["interval"][1][0][0] > high - low


def test_the_command_line_says_what_the_server_says(
    repository: Path, calibrated_regression: Server
) -> None:
    server = calibrated_regression
    words = ("predict", "--model", "co2", "--inputs", "[[1975.5]]", "--return", "interval,ood")
    here = json.loads(candor(*words, "--models", str(repository / "models")).stdout)
    there = server.post(
        "/predict", {"model": "co2", "inputs": [[1975.5]], "return": ["interval", "ood"]}
    ).json()
    assert here == there


def test_another_network_makes_it_stale_and_says_so(repository: Path, calibrated: Server) -> None:
    network = repository / "models" / "digits" / "network.py"
    before = network.read_text()
    try:
        network.write_text(before + "\n# changed\n")
        [version] = calibrated.post("/models/digits/reload", {}).json()["versions"]
        assert version["calibration"]["state"] == "stale"
        assert "other weights or another network" in version["calibration"]["reason"]
        answer = calibrated.post("/predict", {"inputs": np.zeros((1, 1, 8, 8)).tolist()}).json()
        assert answer["ood"] is None
        assert answer["calibration"].startswith("not applied: it was made for other weights")
    finally:
        network.write_text(before)
        calibrated.post("/models/digits/reload", {})


def test_reloading_what_is_not_there_is_404(server: Server) -> None:
    assert server.post("/models/nothing/reload", {}).status_code == 404


@pytest.mark.parametrize(
    ("arrays", "words", "sentence"),
    [
        ({"x": np.zeros((10, 1, 8, 8)), "y": np.zeros(10)}, (), "at least 19 rows"),
        ({"x": np.zeros((30, 1, 8, 8)), "y": np.full(30, 10)}, (), "from 0 to 9"),
        ({"x": np.zeros((30, 64)), "y": np.zeros(30)}, (), "shape"),
        ({"x": np.zeros((30, 1, 8, 8)), "y": np.zeros(29)}, (), "29"),
        ({"x": np.zeros((30, 1, 8, 8))}, (), "y"),
        (
            {"x": np.zeros((30, 1, 8, 8)), "y": np.zeros(30)},
            ("--false-positive-rate", "0.01"),
            "at least 99 rows",
        ),
    ],
)
def test_data_that_cannot_serve_is_a_sentence(
    arrays: dict[str, np.ndarray],
    words: tuple[str, ...],
    sentence: str,
    repository: Path,
    tmp_path: Path,
) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)  # type: ignore[arg-type]
    said = calibrate(repository, "digits", "--data", str(tmp_path / "bad.npz"), *words, code=1)
    assert said.strip().startswith("error: ")
    assert sentence in said
