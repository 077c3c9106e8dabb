"""The servers that are measured: Candor, the tutorial's FastAPI service, and installed peers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import safetensors.torch

from benchmarks.networks import NETWORKS

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-peers"
CANDOR = "Candor"
_START_S = 180.0
_STOP_S = 20.0

NETWORK = "from benchmarks.networks import {name}\n\n\ndef build():\n    return {name}().module\n"
MANIFEST = 'task = "classification"\n\n[input]\nshape = {shape}\n'


@dataclass(frozen=True)
class Peer:
    """A server to compare with.

    Args:
        name: as the table shows it.
        program: its environment's Python, or a script beside it.
        words: its arguments; {port} is filled in.
        environment: further variables.
    """

    name: str
    program: Path
    words: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


def _plain(how: str) -> Peer:
    words = ("-m", "benchmarks.plain_service")
    return Peer(f"FastAPI, {how}", Path(sys.executable), words, {"HOW": how})


ALL_PEERS = (
    _plain("loop"),
    _plain("repeat"),
    Peer("LitServe", PEERS / "litserve/bin/python", ("-m", "benchmarks.peers.with_litserve")),
    Peer(
        "BentoML",
        PEERS / "bentoml/bin/bentoml",
        ("serve", "benchmarks.peers.with_bentoml:Service", "--port", "{port}"),
    ),
    Peer("Ray Serve", PEERS / "ray/bin/python", ("-m", "benchmarks.peers.with_ray")),
)


@contextmanager
def candor(**environment: str) -> Iterator[int]:
    """Candor with one model and, but for `environment`, its defaults; the port it listens on."""
    with tempfile.TemporaryDirectory() as folder:
        write_repository(Path(folder))
        words = ("-m", "service", "serve", "--models", folder, "--port", "{port}")
        with running(Peer(CANDOR, Path(sys.executable), words, environment)) as port:
            yield port


def write_repository(root: Path, names: Sequence[str] = ("mlp",)) -> None:
    """A model repository with networks of `benchmarks.networks`; the first is what all serve."""
    for name in names:
        network = NETWORKS[name]()
        folder = root / name
        (folder / "1").mkdir(parents=True)
        (folder / "network.py").write_text(NETWORK.format(name=name))
        (folder / "model.toml").write_text(MANIFEST.format(shape=list(network.shape)))
        safetensors.torch.save_model(network.module, str(folder / "1" / "weights.safetensors"))


@contextmanager
def running(peer: Peer) -> Iterator[int]:
    """Start a server, wait until it answers a prediction, end it and its children afterwards.

    Raises:
        RuntimeError: it did not start.
    """
    with started(peer, _predicts) as (port, _):
        yield port


@contextmanager
def started(
    peer: Peer, ready: Callable[[int], bool]
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Start a server, wait until it is ready, end it and its children afterwards.

    Args:
        peer: the server.
        ready: whether the one at this port is; may raise `httpx.TransportError`.

    Returns:
        Its port and its process.

    Raises:
        RuntimeError: it did not start.
    """
    port = _free_port()
    process = subprocess.Popen(
        [str(peer.program), *(word.format(port=port) for word in peer.words)],
        env={
            **os.environ,
            **peer.environment,
            "PORT": str(port),
            "PYTHONPATH": str(ROOT),
            "PATH": f"{peer.program.parent}{os.pathsep}{os.environ['PATH']}",
        },
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait_until(ready, peer, process, port)
        yield port, process
    finally:
        _end(process)


def _predicts(port: int) -> bool:
    body = {"inputs": [[0.0] * 60]}
    return httpx.post(f"http://127.0.0.1:{port}/predict", json=body).status_code == 200


def _wait_until(
    ready: Callable[[int], bool], peer: Peer, process: subprocess.Popen[bytes], port: int
) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.TransportError):
            if ready(port):
                return
        time.sleep(0.2)
    raise RuntimeError(f"{peer.name} did not start")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask, then insist; the children of the server are in its session."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
