"""Candor on Ray with one and with two processes that compute, beside one server without Ray.

Requests a second at 16 connections, of one row and T = 50, which costs more for HTTP than for the
engine, and of 64 rows and T = 200, of which the engine is nearly all. Every process computes on
one thread, and the three take turns; each one's best round counts.

What it can show depends on the processors. On two, a second process that computes shares them with
the first, with the one that speaks HTTP, with Ray's proxy and with the load generator, so that two
can never be twice as fast as one; and what Ray costs a request is seen in the small ones. That two
machines are twice one is not seen on one.

python -m benchmarks.ray --output result.json
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.load import JSON, Load, post, press
from benchmarks.machine import machine, versions
from benchmarks.servers import candor

CONNECTIONS = 16
CASES = {"1 row, T = 50": (1, 50), "64 rows, T = 200": (64, 200)}
_ALONE = {"OMP_NUM_THREADS": "1"}
# Half a processor is what Ray reserves; there are no more threads than that for it.
_ON_RAY = {**_ALONE, "CANDOR_RAY": "local", "CANDOR_RAY_CPUS": "0.5"}
SERVERS = {
    "one server": _ALONE,
    "Ray, 1 computes": {**_ON_RAY, "CANDOR_RAY_REPLICAS": "1"},
    "Ray, 2 compute": {**_ON_RAY, "CANDOR_RAY_REPLICAS": "2"},
}


def main() -> None:
    """Print the table and write it where `--output` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the result as JSON here")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    arguments = parser.parse_args()
    best = measure(arguments.rounds, arguments.seconds)
    Console(width=120).print(_table(best))
    if arguments.output is not None:
        found = {
            "machine": machine(),
            "versions": {**versions(), "ray": version("ray")},
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "connections": CONNECTIONS,
            "rows": [
                {"server": server, "case": case, **vars(load)}
                for (server, case), load in best.items()
            ],
        }
        arguments.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def measure(rounds: int, seconds: float) -> dict[tuple[str, str], Load]:
    """Each server's best round of each case."""
    best: dict[tuple[str, str], Load] = {}
    for _ in range(rounds):
        for server, environment in SERVERS.items():
            with candor(**environment) as port:
                for case, (rows, passes) in CASES.items():
                    load = press(port, _request(rows, passes), CONNECTIONS, seconds)
                    so_far = best.setdefault((server, case), load)
                    if load.requests_per_s > so_far.requests_per_s:
                        best[server, case] = load
    return best


def _request(rows: int, passes: int) -> bytes:
    inputs = np.random.default_rng(0).normal(size=(rows, 60)).round(4)
    body: dict[str, Any] = {"inputs": inputs.tolist(), "passes": passes, "return": ["mean", "std"]}
    return post(json.dumps(body).encode(), JSON)


def _table(best: dict[tuple[str, str], Load]) -> Table:
    table = Table(
        "", *SERVERS, "2 / 1",
        title=f"requests a second (median ms, 99th percentile ms); {CONNECTIONS} connections",
    )  # fmt: skip
    for case in CASES:
        loads = [best[server, case] for server in SERVERS]
        cells = [
            f"{x.requests_per_s:,.1f} ({1e3 * x.p50_s:.1f}, {1e3 * x.p99_s:.1f})" for x in loads
        ]
        ratio = loads[2].requests_per_s / loads[1].requests_per_s
        table.add_row(case, *cells, f"{ratio:.2f}x")
    return table


if __name__ == "__main__":
    main()
