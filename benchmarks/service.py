"""Candor beside the tutorial's FastAPI service, over HTTP, in one run: `make bench`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import safetensors.torch
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.load import press
from benchmarks.networks import mlp

ROOT = Path(__file__).parents[1]
CONNECTIONS = (1, 16, 64)
SECONDS = 4.0
ROUNDS = 3
_START_S = 60.0

NETWORK = "from benchmarks.networks import mlp\n\n\ndef build():\n    return mlp().module\n"
MANIFEST = 'task = "classification"\n\n[input]\nshape = [60]\n'


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def _process(port: int, path: str, words: list[str], **environment: str) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-m", *words],
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        else:
            raise RuntimeError(f"{' '.join(words)} did not start")
        yield port
    finally:
        process.kill()
        process.wait()


def _write_repository(root: Path) -> None:
    folder = root / "mlp"
    (folder / "1").mkdir(parents=True)
    (folder / "network.py").write_text(NETWORK)
    (folder / "model.toml").write_text(MANIFEST)
    safetensors.torch.save_model(mlp().module, str(folder / "1" / "weights.safetensors"))


def main() -> None:
    """Print requests a second and latencies, one row of 60 features a request, T = 50."""
    torch.manual_seed(0)
    body = json.dumps({"inputs": torch.randn(1, 60).tolist()}).encode()
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _write_repository(root)
        servers = {}
        for how in ("loop", "repeat"):
            port = _free_port()
            words = ["benchmarks.plain_service"]
            servers[f"FastAPI, {how}"] = stack.enter_context(
                _process(port, "/docs", words, HOW=how, PORT=str(port))
            )
        port = _free_port()
        words = ["service", "serve", "--models", str(root), "--port", str(port)]
        servers["Candor"] = stack.enter_context(_process(port, "/readyz", words))
        table = Table(
            "connections", *servers, "Candor / best plain",
            title="service: requests a second (median ms, 99th percentile ms); one row, T = 50",
        )  # fmt: skip
        for connections in CONNECTIONS:
            rounds = [
                {n: press(p, body, connections, SECONDS) for n, p in servers.items()}
                for _ in range(ROUNDS)
            ]
            best = {n: max((r[n] for r in rounds), key=lambda s: s.requests_per_s) for n in servers}
            cells = [
                f"{s.requests_per_s:,.0f} ({1e3 * s.p50_s:.1f}, {1e3 * s.p99_s:.1f})"
                for s in best.values()
            ]
            plain = max(s.requests_per_s for n, s in best.items() if n != "Candor")
            ratio = best["Candor"].requests_per_s / plain
            table.add_row(str(connections), *cells, f"{ratio:.2f}x")
        Console(width=120).print(table)


if __name__ == "__main__":
    main()
