"""Tools that need an environment or a system of their own; they run where those are.

`make clients` installs KServe's client. perf_analyzer is `make perf-analyzer` where the system has
glibc 2.38, or whatever command PERF_ANALYZER holds.
"""

from __future__ import annotations

import csv
import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.servers import Server

ROOT = Path(__file__).parents[2]
KSERVE = ROOT / ".venv-clients" / "kserve" / "bin" / "python"
PERF_ANALYZER = ROOT / ".venv-clients" / "perf_analyzer" / "bin" / "perf_analyzer"
SCRIPT = Path(__file__).parent / "kserve_client.py"
ROWS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def _perf_analyzer() -> list[str] | None:
    if "PERF_ANALYZER" in os.environ:
        return shlex.split(os.environ["PERF_ANALYZER"])
    return [str(PERF_ANALYZER)] if PERF_ANALYZER.exists() else None


@pytest.mark.skipif(not KSERVE.exists(), reason="make clients installs KServe's client")
def test_kserves_client_works_unchanged(odd: Server) -> None:
    done = subprocess.run(
        [KSERVE, "-W", "ignore", SCRIPT, odd.url], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert [found[name] for name in ("live", "ready", "model_ready")] == [True] * 3
    assert found["broken_ready"] is False
    assert found["not a number True"]
    assert found["not a number False"]
    assert "at least 2" in found["error"]
    assert "422" in found["error"]
    body = {"model": "good", "inputs": ROWS.tolist(), "passes": 9, "seed": 4}
    expected = odd.post("/predict", {**body, "return": ["mean", "label", "samples"]}).json()
    for binary in (True, False):
        answer = found[f"binary {binary}"]
        assert (answer["id"], answer["model"]) == ("mine", "good")
        assert answer["parameters"]["passes"] == 9
        assert answer["label"] == expected["label"]
        for name in ("mean", "samples"):
            np.testing.assert_allclose(answer[name], expected[name], rtol=1e-6)


@pytest.mark.skipif(_perf_analyzer() is None, reason="there is no perf_analyzer here")
@pytest.mark.parametrize("form", ["binary", "json"])
def test_tritons_perf_analyzer_counts_what_the_server_counts(
    odd: Server, tmp_path: Path, form: str
) -> None:
    command = _perf_analyzer()
    assert command is not None
    flags = ["-m", "good", "-u", odd.url.removeprefix("http://"), "-b", "2"]
    flags += ["--concurrency-range", "3", "--request-count", "60", "-f", str(tmp_path / "out.csv")]
    flags += ["--input-tensor-format", form, "--output-tensor-format", form]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=200)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    assert "Request count: 60" in printed
    assert "Successful request count: 60" in printed
    assert "Inference count: 120" in printed
    with (tmp_path / "out.csv").open() as file:
        [row] = csv.DictReader(file)
    assert float(row["Inferences/Second"]) > 0
    assert float(row["Server Compute Infer"]) > 0
