"""Candor beside other servers, over HTTP, in one run: `make bench`, `make bench-peers`.

Two tables. *Small requests*: one row of 60 features, T = 50, as JSON, at 1, 16 and 64 connections;
the servers take turns, round by round, each started for its turn and ended after it (an idle server
takes processor time, too), and each one's best round counts, so that a busy moment of the machine
spoils nobody. *Large bodies*: 256 rows as .npy, answers as .npz, beside what the engine does with
the same rows when nothing stands before it, both in float32: the median of the ratios of turns. The
load generator runs on the same processors; what it took of them the engine alone is not given.

python -m benchmarks.service --output result.json
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.load import ARRAYS, JSON, Load, post, press
from benchmarks.machine import machine, versions
from benchmarks.servers import ALL_PEERS, CANDOR, PEERS, ROOT, candor, running

CONNECTIONS = (1, 16, 64)
LARGE_CONNECTIONS = (1, 2, 4)
ROWS = 256
"""Of a large body, as in `benchmarks.bare_engine`."""
_PAIRS = 7
"""Of turns with large bodies: what the two get differs by a few hundredths, and so do turns."""
_PRECISION = "float32"
"""Of large bodies: `auto` measures, and two processes that measure may choose differently."""


@dataclass(frozen=True)
class Effort:
    """How long to measure: rounds, and seconds of each measurement in each round."""

    rounds: int
    seconds: float


def main() -> None:
    """Print both tables and write them where `--output` says."""
    arguments = _arguments()
    effort = Effort(arguments.rounds, arguments.seconds)
    torch.manual_seed(0)
    console = Console(width=140)
    small = [] if arguments.large_only else _measure_all_small(console, effort)
    with candor(CANDOR_PRECISION=_PRECISION) as port:
        large = measure_large(port, effort)
    _print_large(console, large)
    if arguments.output:
        result = {
            "machine": machine(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": _versions(),
            "rows": small,
            "ratio_to_best_peer": {str(n): r for n, r in ratios(small).items()},
            "large_bodies": large,
        }
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the result as JSON here")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--large-only", action="store_true", help="leave the small requests out")
    return parser.parse_args()


def _measure_all_small(console: Console, effort: Effort) -> list[dict[str, Any]]:
    servers: dict[str, Callable[[], AbstractContextManager[int]]] = {CANDOR: candor}
    for peer in ALL_PEERS:
        if peer.program.exists():
            servers[peer.name] = partial(running, peer)
        else:
            console.print(f"{peer.name} is not installed and left out: make bench-peers")
    rows = measure_small(servers, effort)
    _print_small(console, rows, list(servers))
    return rows


def measure_small(
    servers: dict[str, Callable[[], AbstractContextManager[int]]], effort: Effort
) -> list[dict[str, Any]]:
    """Each server's best round at each number of connections."""
    request = post(json.dumps({"inputs": torch.randn(1, 60).tolist()}).encode(), JSON)
    best: dict[tuple[int, str], Load] = {}
    for _ in range(effort.rounds):
        for name, started in servers.items():
            with started() as port:
                for connections in CONNECTIONS:
                    load = press(port, request, connections, effort.seconds)
                    so_far = best.setdefault((connections, name), load)
                    if load.requests_per_s > so_far.requests_per_s:
                        best[connections, name] = load
    return [
        {"server": name, "connections": connections, **asdict(best[connections, name])}
        for connections in CONNECTIONS
        for name in servers
    ]


def ratios(rows: list[dict[str, Any]]) -> dict[int, float]:
    """Candor's rate over that of the best other server, by connections."""
    found = {}
    for connections in CONNECTIONS:
        rates = {r["server"]: r["requests_per_s"] for r in rows if r["connections"] == connections}
        own = rates.pop(CANDOR, None)
        if own is not None and rates:
            found[connections] = own / max(rates.values())
    return found


def measure_large(port: int, effort: Effort) -> list[dict[str, Any]]:
    """Requests a second through HTTP and through the engine alone, in turns; medians."""
    rows = np.random.default_rng(0).normal(size=(ROWS, 60)).astype(np.float32)
    body = io.BytesIO()
    np.save(body, rows)
    request = post(body.getvalue(), ARRAYS)
    found = []
    with bare_engine() as alone:
        for connections in LARGE_CONNECTIONS:
            pairs = [
                (
                    alone(connections, effort.seconds),
                    press(port, request, connections, effort.seconds),
                )
                for _ in range(_PAIRS)
            ]
            found.append(
                {
                    "connections": connections,
                    "requests_per_s": median(http.requests_per_s for _, http in pairs),
                    "engine_requests_per_s": median(engine for engine, _ in pairs),
                    "generator_share": median(http.generator_share for _, http in pairs),
                    "share": median(share(http, engine) for engine, http in pairs),
                }
            )
    return found


def share(http: Load, engine_requests_per_s: float) -> float:
    """Of what the engine alone would do in the processor time that the load generator left."""
    processors = os.cpu_count() or 1
    left = 1 - http.generator_share / processors
    return http.requests_per_s / (engine_requests_per_s * left)


@contextmanager
def bare_engine() -> Iterator[Callable[[int, float], float]]:
    """`benchmarks.bare_engine` as a function of connections and seconds."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bare_engine"],
        cwd=ROOT,
        # As service/__main__.py has it: both sides of the share wait for threads alike.
        env={"GOMP_SPINCOUNT": "10000", **os.environ, "CANDOR_PRECISION": _PRECISION},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def measure(connections: int, seconds: float) -> float:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{connections} {seconds}\n")
        process.stdin.flush()
        return float(process.stdout.readline())

    try:
        measure(1, 0.5)
        yield measure
    finally:
        process.communicate()


def _print_small(console: Console, rows: list[dict[str, Any]], servers: list[str]) -> None:
    table = Table(
        "connections", *servers, "Candor / best other",
        title="requests a second (median ms, 99th percentile ms); one row, T = 50",
    )  # fmt: skip
    ratio = ratios(rows)
    for connections in CONNECTIONS:
        cells = {
            r["server"]: f"{r['requests_per_s']:,.0f} "
            f"({1e3 * r['p50_s']:.1f}, {1e3 * r['p99_s']:.1f})"
            for r in rows
            if r["connections"] == connections
        }
        last = f"{ratio[connections]:.2f}x" if connections in ratio else "-"
        table.add_row(str(connections), *(cells[name] for name in servers), last)
    console.print(table)


def _print_large(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table(
        "connections", "over HTTP", "engine alone", "generator, of a core", "share",
        title=f"requests a second; {ROWS} rows as .npy, T = 50, answers as .npz; {_PRECISION}",
    )  # fmt: skip
    for row in rows:
        rates = (f"{row[key]:,.1f}" for key in ("requests_per_s", "engine_requests_per_s"))
        generator = f"{row['generator_share']:.1%}"
        table.add_row(str(row["connections"]), *rates, generator, f"{row['share']:.1%}")
    console.print(table)


def _versions() -> dict[str, str]:
    own = versions()
    for name in ("litserve", "bentoml", "ray"):
        python = PEERS / name / "bin" / "python"
        if python.exists():
            code = f"from importlib.metadata import version; print(version({name!r}))"
            done = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
            own[name] = done.stdout.strip()
    return own


if __name__ == "__main__":
    main()
