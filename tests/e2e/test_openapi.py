"""What /openapi.json says is what the server does: schemathesis, with all of its checks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.servers import Server, serving
from tests.repositories import write_model

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5"))
"""Of each operation, beside those that cover each limit of each field; more with `make fuzz`."""

UNLOAD = r"/unload$"
"""Afterwards a model does not serve, and all the others would be answered 503."""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One small model, whose rows are kept."""
    root = tmp_path_factory.mktemp("described")
    write_model(root, "good")
    with serving(root, "--keep-samples", "all") as server:
        rows = [[float(number)] * 4 for number in range(20)]
        assert server.post("/predict", {"model": "good", "inputs": rows}).status_code == 200
        yield server


def _run(server: Server, folder: Path, *chosen: str) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION)),
            *("run", f"{server.url}/openapi.json", "--checks", "all", *chosen),
            *("--max-examples", str(EXAMPLES), "--seed", "1", "--no-color"),
            *("--continue-on-failure", "--generation-database", "none"),
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(60 * EXAMPLES)
def test_the_server_does_what_its_description_says(described: Server, tmp_path: Path) -> None:
    _run(described, tmp_path, "--exclude-path-regex", UNLOAD)


@pytest.mark.timeout(60 * EXAMPLES)
def test_so_it_does_where_models_are_unloaded(described: Server, tmp_path: Path) -> None:
    _run(described, tmp_path, "--include-path-regex", UNLOAD)
