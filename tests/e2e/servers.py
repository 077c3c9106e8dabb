"""A real server process, which does what `candor serve` does.

Most of the four seconds of a core that a start takes are for PyTorch, so servers are forked from a
process that has loaded it (`forking.py`); where a start, an end or memory is what is tested, a
server starts as a user's does (`fresh`). Either way each model takes time to load, a shipped one up
to a second. So a test asks for one of the session's servers where it can (`conftest.py`): `tiny`
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
from typing import IO, Any, Protocol

import httpx

from tests.e2e.forking import Forked
from tests.waiting import wait_for

SHIPPED = Path(__file__).parents[2] / "models"
_ADDRESS = re.compile(r"https?://[\d.]+:\d+")
_START_S = 240.0
_TRUSTED = httpx.create_ssl_context()
"""Those whom the system trusts. To read who they are takes longer than most requests."""


class Process(Protocol):
    """A server's."""

    @property
    def pid(self) -> int: ...

    def kill(self) -> None: ...

    def send_signal(self, signal: int, /) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


@dataclass(frozen=True)
class Server:
    """A running server: its address, its process, and what it printed so far."""

    url: str
    process: Process
    printed: list[str]

    def post(
        self, path: str, body: object, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """POST a JSON body."""
        return self.request("POST", path, json=body, headers=headers)

    def get(self, path: str) -> httpx.Response:
        """GET a path."""
        return self.request("GET", path)

    def says(self, words: str) -> list[str]:
        """Waits until it has printed a line that holds these words; all such lines."""

        def found() -> list[str]:
            return [line for line in self.printed if words in line]

        wait_for(lambda: bool(found()), otherwise=lambda: "".join(self.printed))
        return found()

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Any request, on a connection of its own; `more` as httpx takes it."""
        options = {"timeout": 60.0, **more}
        return httpx.request(method, self.url + path, verify=_TRUSTED, trust_env=False, **options)


def copied(root: Path, *names: str) -> Path:
    """Some of the shipped models in a repository of their own; returns it."""
    for name in names:
        shutil.copytree(SHIPPED / name, root / name)
    return root


@contextmanager
def serving(
    models: Path, *flags: str, environment: dict[str, str] | None = None, fresh: bool = False
) -> Iterator[Server]:
    """Start a server on a free port, wait until its models were tried, end it afterwards.

    Args:
        models: the repository.
        flags: of `candor serve`.
        environment: added to this process's.
        fresh: whether its process starts with nothing loaded, as a user's does.
    """
    kept = tempfile.TemporaryDirectory()
    words = ["serve", "--models", str(models), "--port", "0", *flags]
    variables = {
        **os.environ,
        "CANDOR_DATABASE_URL": f"sqlite:///{kept.name}/samples.sqlite",
        **(environment or {}),
    }
    process = _started(words, variables) if fresh else Forked(words, variables)
    output = process.stdout
    assert output is not None
    printed = Printed(output, "Candor ")
    try:
        address = _ADDRESS.search(printed.awaited(_START_S))
        assert address is not None
        yield Server(address.group(), process, printed.lines)
    finally:
        process.kill()
        process.wait()
        printed.close()
        kept.cleanup()


class Printed:
    """What a process prints, read to its end: a pipe that fills would stop it.

    Args:
        output: of the process.
        beginning: of the line that is waited for.
    """

    def __init__(self, output: IO[str], beginning: str) -> None:
        self.lines: list[str] = []
        self._output = output
        self._beginning = beginning
        self._said = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def awaited(self, patience_s: float) -> str:
        """The line; fails where it does not come in time, or the process ends without it."""
        assert self._said.wait(patience_s), "".join(self.lines)
        line = next((line for line in self.lines if line.startswith(self._beginning)), None)
        assert line is not None, "".join(self.lines)
        return line

    def close(self) -> None:
        """Once the process has ended."""
        self._reader.join()
        self._output.close()

    def _read(self) -> None:
        for line in self._output:
            self.lines.append(line)
            if line.startswith(self._beginning):
                self._said.set()
        self._said.set()


def _started(words: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "service", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
