"""What predictions cost, what is full first, and how many replicas: `make scaling`.

1. *Measured*: a replica of one processor is asked for one row as JSON and for 32 rows as .npy of
   several networks with several T, one request at a time and with as many as it takes to keep it
   busy; the load generator has the other processor. The kernel says what each of the replica's
   threads took.
2. *On paper* (`model`): the price of a million predictions, the part that is full first where each
   had a processor of its own, how full a replica may be before one in a hundred requests is late
   (`simulation`), and from that how many processors do the day's predictions.
3. *Checked*: requests at random at three loads, beside what the simulation says of them; and one,
   two and four replicas side by side, beside what the processors that the load generator leaves
   them can do.

Two processors cannot show that a hundred replicas do a hundred times the work. They show that
replicas share nothing: what a request takes stays the same however many there are, and two of them,
on two processors, do what the processors can. What they would share elsewhere, the link and
whatever parts the connections among them, is not on this machine; the link is on paper alone.

python -m benchmarks.scaling --output result.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.machine import machine, versions
from benchmarks.networks import NETWORKS
from benchmarks.overload import Case, Share, seen
from benchmarks.scaling import model, report, simulation
from benchmarks.scaling.measure import (
    GENERATOR,
    Kind,
    Seen,
    connections_for,
    cost,
    generating_on,
    load,
    measure,
    replicas,
    wire_bytes,
)
from benchmarks.scaling.model import Plan
from benchmarks.servers import ROOT
from service.settings import Settings

NETWORKS_MEASURED = ("mlp", "cnn", "resnet")
PASSES = (10, 50, 200)
ROWS = 32
"""Of a body of .npy; `make check-gpu` measures as many."""
COUNTS = (1, 2, 4)
LOADS = (0.5, 0.7, 0.9)
LATE_S = 0.1
"""What is late, or ten times what a request takes alone where that is more."""
GPU = ROOT / "benchmarks" / "results" / "engine_cuda.json"
CHECKED = (Kind("mlp", 1, 50), Kind("cnn", ROWS, 50, arrays=True))


def kinds(networks: Sequence[str]) -> list[Kind]:
    """What is measured."""
    return [
        Kind(network, rows, passes, arrays=rows > 1)
        for network in networks
        for rows in (1, ROWS)
        for passes in PASSES
    ]


def on_one_processor(networks: Sequence[str], plan: Plan, seconds: float) -> list[dict[str, Any]]:
    """Every kind of request: what was measured, and what follows on paper."""
    found = []
    with generating_on({GENERATOR}), replicas(networks, [0]) as [replica]:
        for kind in kinds(networks):
            alone, full = measure(replica, kind, seconds)
            sizes = wire_bytes(replica, kind)
            found.append(
                {**asdict(kind), "form": kind.form, **on_paper(kind, alone, full, sizes, plan)}
            )
    return found


def on_paper(
    kind: Kind, alone: Seen, full: Seen, sizes: tuple[int, int], plan: Plan
) -> dict[str, Any]:
    """What follows from what was measured of a replica on one processor.

    Args:
        kind: what is asked.
        alone: one request at a time.
        full: as many as keep it busy.
        sizes: bytes of a request and of its answer.
        plan: the assumptions.
    """
    of_one = cost(alone, full)
    together = full.together
    limits = model.bounds(of_one, together, max(sizes), plan.network_bytes_per_s)
    late_s = max(LATE_S, 10 * alone.p50_s)
    may = simulation.highest_load(late_s, of_one, together=together, processors=1, **batching(kind))
    rows_per_s = kind.rows * full.requests_per_s
    return {
        "alone": asdict(alone),
        "full": asdict(full),
        "bytes_in": sizes[0],
        "bytes_out": sizes[1],
        "cost": asdict(of_one),
        "bounds_per_s": limits,
        "first_full": model.first_full(limits),
        "rows_per_s": rows_per_s,
        "paper_rows_per_s": kind.rows * model.capacity(of_one, together, 1),
        "late_s": late_s,
        "load": may,
        "replicas": None if may is None else plan.replicas(rows_per_s, may),
        "processor_hours": plan.hours_of_a_million(1 / rows_per_s),
        "price": plan.price_of_a_million(1 / rows_per_s),
    }


def batching(kind: Kind) -> dict[str, Any]:
    """How the server joins requests of a kind: seconds and number of a batch."""
    settings = Settings()
    most = max(1, settings.batch_work // (kind.rows * kind.passes))
    return {"batch_s": settings.batch_seconds, "most": most}


def at_loads(kind: Kind, seconds: float) -> dict[str, Any]:
    """Requests that come at random, measured and simulated."""
    runs = []
    with generating_on({GENERATOR}), replicas([kind.network], [0]) as [replica]:
        alone, full = measure(replica, kind, seconds)
        for times in LOADS:
            case = Case("", kind.rows, kind.passes)
            rate_per_s = times * full.requests_per_s
            run = seen(times, seconds, [Share(replica.port, 0, 1).offer(case, rate_per_s, seconds)])
            simulated = simulation.at_load(
                times, cost(alone, full), together=full.together, processors=1, **batching(kind)
            )
            runs.append(
                {
                    "load": times,
                    "offered_per_s": run.offered_per_s,
                    "in_time_per_s": run.goodput_per_s,
                    "p50_s": run.p50_s,
                    "p99_s": run.p99_s,
                    "simulated_p50_s": simulation.quantile(simulated, 0.5),
                    "simulated_p99_s": simulation.quantile(simulated, 0.99),
                }
            )
    return {**asdict(kind), "form": kind.form, "full_per_s": full.requests_per_s, "runs": runs}


def side_by_side(kind: Kind, seconds: float) -> dict[str, Any]:
    """One, two and four replicas: what they did, and what was to be expected of them.

    One replica has a processor, and the load generator the other. More share both of them with the
    generator: what it takes is theirs no more.
    """
    processors = os.cpu_count() or 1
    runs = []
    for count in COUNTS:
        places = [number % processors for number in range(count)]
        on = {GENERATOR} if count == 1 else set(range(processors))
        with generating_on(on), replicas([kind.network], places) as all_of_them:
            for replica in all_of_them:
                alone, _ = measure(replica, kind, seconds / 4)
            connections = count * connections_for(alone.p50_s)
            seen = load(all_of_them, kind, connections, seconds)
        left = 1.0 if count == 1 else min(count, processors) - seen.generator_share
        runs.append({"count": count, "processors": left, **asdict(seen)})
    one = runs[0]
    for run in runs:
        expected = one["requests_per_s"] * run["processors"]
        run["expected_per_s"] = expected
        run["of_expected"] = run["requests_per_s"] / expected
        run["processor_s"] = run["http_s"] + run["engine_s"]
    return {**asdict(kind), "form": kind.form, "runs": runs}


def beside_a_gpu(cases: Sequence[dict[str, Any]], engine: dict[str, Any]) -> list[dict[str, Any]]:
    """What a GPU does, by `make check-gpu`, and how many processors its HTTP takes.

    Args:
        cases: as `on_one_processor` gives them.
        engine: what `benchmarks.engine` wrote on that GPU.
    """
    found = []
    for network in engine["networks"]:
        for row in network["cases"]:
            for case in cases:
                same = (network["network"], row["rows"], engine["passes"])
                if (case["network"], case["rows"], case["passes"]) == same:
                    seconds = min(row["seconds"][name] for name in ("float32", "bfloat16"))
                    http = case["full"]["http_s"] / seconds
                    found.append(
                        {
                            "network": case["network"],
                            "rows": case["rows"],
                            "passes": case["passes"],
                            "rows_per_s": case["rows"] / seconds,
                            "http_processors": http,
                            "first_full": model.HTTP if http > 1 else model.ENGINE,
                        }
                    )
    return found


def main() -> int:
    """Measure, compute, print, and write it where `--output` says."""
    arguments = _arguments()
    if (os.cpu_count() or 1) < 2 or not hasattr(os, "sched_setaffinity"):
        print("this needs Linux and two processors: one for the load generator", file=sys.stderr)
        return 2
    console = Console(width=120)
    plan = Plan(predictions_a_day=arguments.a_day, processor_hour=arguments.processor_hour)
    with console.status("one replica, every kind of request"):
        cases = on_one_processor(arguments.networks, plan, arguments.seconds)
    with console.status("requests at random"):
        random = at_loads(CHECKED[0], 2 * arguments.seconds)
    with console.status("one, two and four replicas"):
        beside = [side_by_side(kind, 2 * arguments.seconds) for kind in CHECKED]
    result: dict[str, Any] = {
        "machine": {**machine(), "torch_threads": 1},
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "seconds": arguments.seconds,
        "plan": asdict(plan),
        "cases": cases,
        "at_random": random,
        "side_by_side": beside,
        "gpu": None,
    }
    if GPU.exists():
        engine = json.loads(GPU.read_text(encoding="utf-8"))
        name = engine["machine"]["processor"]
        result["gpu"] = {"name": name, "cases": beside_a_gpu(cases, engine)}
    console.print(report.section(result), markup=False)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the result as JSON here")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument(
        "--networks", nargs="*", default=list(NETWORKS_MEASURED), choices=list(NETWORKS)
    )
    plan = Plan()
    parser.add_argument(
        "--a-day", type=float, default=plan.predictions_a_day, help="predictions, rows"
    )
    parser.add_argument(
        "--processor-hour", type=float, default=plan.processor_hour, help="its price"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
