"""A server under load for a long time, every answer checked: `make soak`, `make soak SECONDS=3600`.

A server of its own (`candor serve`, loopback, three of the shipped models) gets what is good, bad
and impatient at once:

- the rate that it can sustain is measured first, in a closed loop with reloads going on: that of
  the slowest of several spans of ten seconds, since what a machine does in its best moments it does
  not do for an hour;
- then requests come at 80 % of it as a Poisson process from a seed, whatever the answers take:
  /predict as JSON and as .npy, /eval, /v2 infer, /query now and then, of three models;
- every 10 s a model gets other weights (its file changes, then POST /models/NAME/reload); each
  fifth time the file is broken instead, and the old weights have to go on serving, and each third
  time it is POST /models/NAME/load instead of reload;
- 1 % are bad requests of many kinds, whose documented error is checked;
- 1 % come from clients that leave, in the middle of their body or before their answer.

Every answer is compared with what the engine computed beforehand for these inputs, passes and seed
with each set of weights; one of those served between the request and its answer has to match, up to
rounding (`cases.ROUNDING`). Every request has one outcome, latency counts from when a request was
due, and in the end the server's /metrics have to say the same. Then SIGTERM: a clean exit.

python -m benchmarks.soak --seconds 300 --output benchmarks/results/soak.json

Exit status 0 where all holds, 1 where something does not, 2 where the soak could not be run. What
follows `--` are further flags of `candor serve`, `--workers 3` for one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvloop
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.machine import machine, versions
from benchmarks.servers import CANDOR, Peer, started
from benchmarks.soak.bad import bad_requests
from benchmarks.soak.cases import PRECISION, Case, cases
from benchmarks.soak.memory import Memory
from benchmarks.soak.reloads import Reloads
from benchmarks.soak.repository import Repository
from benchmarks.soak.traffic import Tally, Traffic, unaccounted
from benchmarks.soak.verdict import Finding, answers, by_minute, steadiness
from benchmarks.soak.wire import Connections

_CONNECTIONS = 16
_LOAD = 0.8
_RELOAD_EVERY_S = 10.0
_STOP_S = 60.0
_LAST_COUNTS_S = 10.0
"""What clients that left is counted once the server noticed."""


@dataclass(frozen=True)
class Plan:
    """How long and how hard.

    Args:
        seconds: of the load.
        seed: of what is sent when.
        rate: requests a second; None: 80 % of what is measured.
        reload_every_s: from one reload to the next.
    """

    seconds: float
    seed: int = 0
    rate: float | None = None
    reload_every_s: float = _RELOAD_EVERY_S

    @property
    def span_s(self) -> float:
        """Seconds over which the rate is measured at a time: a reload is in each of them."""
        return min(_RELOAD_EVERY_S, max(2.0, self.seconds / 20))

    @property
    def spans(self) -> int:
        """How often it is."""
        return max(2, min(12, round(self.seconds / 150)))

    @property
    def warm_up_s(self) -> float:
        """What is left out of the questions whether memory and latency are flat: an allocator that
        serves reloads and requests at once comes to what it needs within some tens of reloads."""
        return min(600.0, self.seconds / 5)


async def soak(
    port: int, process: int, repository: Repository, good: Sequence[Case], plan: Plan
) -> tuple[dict[str, Any], list[Finding]]:
    """Load a running server, all of whose models hold the first weights.

    Args:
        port: of the server.
        process: its number.
        repository: that it serves.
        good: requests, with their answers.
        plan: of the load.

    Returns:
        Its figures, and what was found.
    """
    before = counted(port)
    connections = Connections(port)
    reloads = Reloads(repository, connections, plan.reload_every_s)
    traffic = Traffic(connections, good, bad_requests(), reloads.served, plan.seed)
    memory = Memory()
    stop = asyncio.Event()
    reloading = asyncio.create_task(reloads.go_on(stop))
    sustained = None
    if plan.rate is None:
        await traffic.closed(_CONNECTIONS, plan.span_s / 2)
        spans = [await traffic.closed(_CONNECTIONS, plan.span_s) for _ in range(plan.spans)]
        sustained = min(spans)
    rate = plan.rate if sustained is None else _LOAD * sustained
    assert rate is not None
    watching = asyncio.create_task(memory.watch(process, min(1.0, plan.seconds / 60), stop))
    used = time.process_time()
    await traffic.open(rate, plan.seconds)
    generator_share = (time.process_time() - used) / plan.seconds
    stop.set()
    await asyncio.gather(reloading, watching)
    connections.close()
    traffic.tally.codes.update(reloads.codes)
    unlike = await _unlike(port, before, traffic.tally)
    found = [
        *answers(traffic.tally, reloads, unlike),
        *steadiness(traffic.tally, memory, plan.warm_up_s, plan.seconds),
    ]
    figures = {
        "seconds": plan.seconds,
        "seed": plan.seed,
        "sustained_requests_per_s": sustained,
        "requests_per_s": rate,
        "sent": traffic.tally.sent,
        "outcomes": dict(traffic.tally.outcomes),
        "kinds": dict(sorted(traffic.tally.kinds.items())),
        "examples": traffic.tally.examples,
        "reloads": dict(reloads.done),
        "longest_reload_s": reloads.longest_s,
        "generator_share": generator_share,
        "minutes": by_minute(traffic.tally),
        "memory_bytes": _thinned(memory.used_bytes),
    }
    return figures, found


def _thinned(values: Sequence[int], most: int = 120) -> list[int]:
    return list(values[:: max(1, len(values) // most)])


def counted(port: int) -> Counter[tuple[str, int]]:
    """What a server counted, by endpoint and status, the asking for it left out."""
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30.0).text
    found: Counter[tuple[str, int]] = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "candor_requests_total" and sample.labels["endpoint"] != "/metrics":
                found[sample.labels["endpoint"], int(sample.labels["code"])] += int(sample.value)
    return found


async def _unlike(port: int, before: Counter[tuple[str, int]], tally: Tally) -> list[str]:
    deadline = time.monotonic() + _LAST_COUNTS_S
    while True:
        found = unaccounted(tally, counted(port) - before)
        if not found or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.2)


def _ready(port: int) -> bool:
    return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200


def _ended(process: subprocess.Popen[bytes]) -> Finding:
    process.send_signal(signal.SIGTERM)
    try:
        said = f"exit status {process.wait(_STOP_S)} after SIGTERM"
    except subprocess.TimeoutExpired:
        said = f"it still ran {_STOP_S:g} s after SIGTERM"
    return Finding("clean exit", process.returncode == 0, said)


def run(plan: Plan, flags: Sequence[str]) -> tuple[dict[str, Any], list[Finding]]:
    """A server of its own, loaded and ended.

    Args:
        plan: of the load.
        flags: of `candor serve`, beside those that the soak gives.

    Raises:
        RuntimeError: the server did not start, or no test of its answers could fail.
    """
    with tempfile.TemporaryDirectory() as folder:
        root, aside = Path(folder, "models"), Path(folder, "aside")
        root.mkdir()
        aside.mkdir()
        repository = Repository(root, aside)
        good = cases(repository)
        words = ("-m", "service", "serve", "--models", str(root), "--port", "{port}")
        environment = {"CANDOR_PRECISION": PRECISION, "CANDOR_LOG_LEVEL": "error"}
        environment["CANDOR_DATABASE_URL"] = f"sqlite:///{folder}/samples.sqlite"
        peer = Peer(CANDOR, Path(sys.executable), (*words, *flags), environment)
        with started(peer, _ready) as (port, process):
            figures, found = uvloop.run(soak(port, process.pid, repository, good, plan))
            found.append(_ended(process))
    return figures, found


def main() -> int:
    """Run, print what was found, and write it where `--output` says."""
    arguments = _arguments()
    plan = Plan(arguments.seconds, arguments.seed, arguments.rate)
    try:
        figures, found = run(plan, arguments.flags)
    except RuntimeError as error:
        print(f"the soak could not be run: {error}", file=sys.stderr)
        return 2
    holds = all(finding.holds for finding in found)
    for finding in found:
        print(f"{'holds' if finding.holds else 'FAILS'}  {finding.name}: {finding.said}")
    for example in figures["examples"]:
        print(f"       {example}")
    rate, share = figures["requests_per_s"], figures["generator_share"]
    print(
        f"{plan.seconds:g} s at {rate:,.0f} requests a second; the load generator took {share:.0%} "
        f"of a core: {'all holds' if holds else 'NOT ALL HOLDS'}"
    )
    if arguments.output:
        result = {
            "machine": machine(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "flags": arguments.flags,
            **figures,
            "findings": [asdict(finding) for finding in found],
            "holds": holds,
        }
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if holds else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=300.0, help="of the load")
    parser.add_argument("--seed", type=int, default=0, help="of what is sent when")
    parser.add_argument("--rate", type=float, help="requests a second instead of 80 %% of the most")
    parser.add_argument("--output", type=Path, help="write the result as JSON here")
    parser.add_argument("flags", nargs="*", help="of candor serve, after --")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
