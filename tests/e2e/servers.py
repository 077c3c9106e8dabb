"""A real server process, as `candor serve` starts it.

Each start costs four seconds of a core, most of them for PyTorch, and each shipped model up to a
second more. So a test asks for one of the session's servers where it can (`conftest.py`): `tiny`
for whatever any model shows, `shipped` for what is said of the shipped ones, `odd` for what is slow
or broken. A file that needs settings of its own shares a server in a fixture of the module, with
models of `write_model` or some of the shipped ones (`copied`).

The tests of a file run in one process, so that a server of the module starts once; one of the
session starts once in each process that has tests for it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

SHIPPED = Path(__file__).parents[2] / "models"
_ADDRESS = re.compile(r"https?://[\d.]+:\d+")
_START_S = 120.0


@dataclass(frozen=True)
class Server:
    """A running server: its address, its process, and what it printed so far."""

    url: str
    process: subprocess.Popen[str]
    printed: list[str]

    def post(
        self, path: str, body: object, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """POST a JSON body."""
        return httpx.post(self.url + path, json=body, headers=headers, timeout=60.0)

    def get(self, path: str) -> httpx.Response:
        """GET a path."""
        return httpx.get(self.url + path, timeout=60.0)


def copied(root: Path, *names: str) -> Path:
    """Some of the shipped models in a repository of their own; returns it."""
    for name in names:
        shutil.copytree(SHIPPED / name, root / name)
    return root


@contextmanager
def serving(
    models: Path, *flags: str, environment: dict[str, str] | None = None
) -> Iterator[Server]:
    """Start a server on a free port, wait until its models were tried, end it afterwards."""
    kept = tempfile.TemporaryDirectory()
    process = subprocess.Popen(
        [sys.executable, "-m", "service", "serve", "--models", str(models), "--port", "0", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "CANDOR_DATABASE_URL": f"sqlite:///{kept.name}/samples.sqlite",
            **(environment or {}),
        },
    )
    printed: list[str] = []
    announced = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            printed.append(line)
            if line.startswith("Candor "):
                announced.set()
        announced.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert announced.wait(_START_S), "".join(printed)
        line = next((line for line in printed if line.startswith("Candor ")), None)
        assert line is not None, "".join(printed)
        address = _ADDRESS.search(line)
        assert address is not None
        yield Server(address.group(), process, printed)
    finally:
        process.kill()
        process.wait()
        reader.join()
        kept.cleanup()
        assert process.stdout is not None
        process.stdout.close()
