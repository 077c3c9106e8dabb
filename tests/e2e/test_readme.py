"""The README's code runs, its output is what comes out, and nothing is left undocumented."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from service.client import Client
from service.flags import default_of
from service.inference.fields import FIELDS
from service.registry.manifest import Manifest
from service.settings import Settings
from service.types import Task
from tests.e2e.servers import SHIPPED, Server, copied, serving
from tests.waiting import wait_for

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


def _blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    return found


def _shell(command: str, folder: Path) -> str:
    command = command.replace(".venv/bin/", f"{BIN}/")
    done = subprocess.run(
        command, shell=True, cwd=folder, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_curl_lines_answer_what_stands_below_them(shipped: Server) -> None:
    lines = [block for block in _blocks("sh") if block.startswith("curl")]
    shown = [json.loads(block) for block in _blocks("json")]
    assert len(lines) == 3
    for line, expected in zip(lines, [*shown, None], strict=True):
        answer = json.loads(_shell(line.replace("http://127.0.0.1:8000", shipped.url), ROOT))
        if expected is None:
            assert answer["label"] == ["2", "0"]
            continue
        assert answer.keys() == expected.keys()
        # Other processors round other bits, which the ReLUs of a pass can only pass on.
        np.testing.assert_allclose(answer["mean"], expected["mean"], rtol=1e-4)
        if "std" in answer:
            np.testing.assert_allclose(answer["std"], expected["std"], rtol=1e-3)


def test_your_own_model_is_served_as_described(tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "models")
    commands = [block for block in _blocks("sh") if "wine" in block]
    copy, use = commands
    _shell(copy, tmp_path)
    files = {
        "model.toml": _blocks("toml")[0],
        "network.py": _blocks("python")[0],
        "train.py": _blocks("python")[1],
    }
    before = (tmp_path / "models" / "wine" / "model.toml").read_text().splitlines()
    for name, content in files.items():
        (tmp_path / "models" / "wine" / name).write_text(content)
    kept = {line.split("#")[0].strip() for line in before}
    changed = [line for line in files["model.toml"].splitlines() if line.strip() not in kept]
    assert len(changed) == 4
    printed = _shell(use, tmp_path)
    assert re.search(r"wine \*\s+1\s+ready\s+classification\s+1\s+2 of 2 live", printed)
    answer = json.loads(printed[printed.index("{") :])
    shown = json.loads(_blocks("text")[0])
    assert answer.keys() == shown.keys()
    assert answer["label"] == shown["label"]
    # Training adds up rounding that differs between processors; what the example shows does not.
    assert answer["mutual_information"][0] < 0.1 < answer["mutual_information"][1]


def test_the_query_example_runs(shipped: Server, capsys: pytest.CaptureFixture[str]) -> None:
    [code] = [block for block in _blocks("python") if ".query(" in block]
    pool = load_digits().images[:40, None]
    names = {"pool": pool, "labelled": [0, 1, 2]}
    exec(code.replace("http://127.0.0.1:8000", shipped.url), names)
    assert capsys.readouterr().out.count("[") == 2


def test_the_labelling_example_runs(tmp_path: Path) -> None:
    [code] = [block for block in _blocks("python") if ".lease(" in block]
    environment = {
        "CANDOR_DATABASE_URL": f"sqlite:///{tmp_path}/samples.sqlite",
        "CANDOR_KEEP_SAMPLES": "digits=all",
    }
    models = copied(tmp_path / "models", "digits")
    with (
        serving(models, environment=environment) as server,
        Client(server.url) as client,
    ):
        client.predict(load_digits().images[:12, None], model="digits")
        wait_for(lambda: len(client.samples().samples) >= 12, patience_s=30.0)
        names: dict[str, Any] = {"look_at": lambda row: int(row.sum()) % 10}
        exec(code.replace("http://127.0.0.1:8000", server.url), names)
    found = names["training_set"]
    assert len(found["x"]) == 10
    assert found["y"].tolist() == [int(row.sum()) % 10 for row in found["x"]]


def test_the_python_client_example_runs(
    shipped: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    code = _blocks("python")[2].replace("http://127.0.0.1:8000", shipped.url)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.count("[") == 2


def test_the_triton_client_example_runs(
    shipped: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    [code] = [block for block in _blocks("python") if "tritonclient" in block]
    address = shipped.url.removeprefix("http://")
    exec(compile(code.replace("127.0.0.1:8000", address), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "[b'" in printed
    assert "'passes': 100" in printed


def test_every_setting_field_task_key_and_route_is_documented(shipped: Server) -> None:
    for name, field in Settings.model_fields.items():
        assert (
            f"| `CANDOR_{name.upper()}` | {default_of(field)} | {field.description} |\n" in README
        )
    for name in (*FIELDS, *Task, *Manifest.model_fields):
        assert f"`{name}`" in README, name
    for path in shipped.get("/openapi.json").json()["paths"]:
        # Label Studio finds the routes by itself.
        known = "/label-studio" if path.startswith("/label-studio") else path.split("/{")[0]
        assert known in README, path


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = README + (ROOT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"\bmake ([\w-]+)", texts)) - {"PIP_OPTIONS"} <= targets
