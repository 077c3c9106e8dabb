"""Workers are started, whatever stands in the way for a moment."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from service.api.app import build_app, build_service
from service.api.workers.supervisor import Supervisor, command
from service.api.workers.switchboard import Switchboard
from service.settings import load_settings


def test_a_worker_imports_nothing_that_lies_where_it_is_started_and_ends_with_its_line(
    tmp_path: Path,
) -> None:
    for name in ("service", "asyncio", "uvicorn"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')")
    own, other = socket.socketpair()
    with own, other, socket.socket() as listening:
        files = (other.fileno(), listening.fileno())
        # Whoever started it has ended before it said anything.
        own.close()
        done = subprocess.run(
            command(*files),
            pass_fds=files,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_worker_for_which_there_is_no_process_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[Any] = []

    async def no_process(*arguments: Any, **_: Any) -> None:
        tried.append(arguments)
        raise BlockingIOError("no more processes")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", no_process)
    service = build_service(load_settings({"models": tmp_path, "workers": 1}, environment={}))
    with socket.socket() as listening:
        supervisor = Supervisor(service, build_app(service), Switchboard(1), listening)

        async def twice() -> None:
            keeper = asyncio.create_task(supervisor._keep())
            while len(tried) < 2 and not keeper.done():
                await asyncio.sleep(0.01)
            supervisor._stopping.set()
            await keeper

        asyncio.run(twice())
    service.runner.close()
    assert "no more processes'); another is started" in caplog.text
