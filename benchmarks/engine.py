"""The engine beside the plain loop and the repeated batch, in one run: `make bench`.

Each way turns inputs into mean, standard deviation and entropies. The ways take turns, and the
best time of each counts, so that a busy moment of the machine spoils none of them. A plain way that
would take long runs fewer passes, and its time is scaled up to T; such cells are marked with ~.

The limit is what the matrix products that the program still has would take at the rate of one
large product, measured in the same run.

python -m benchmarks.engine --output result.json
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from benchmarks import products
from benchmarks.machine import machine, versions
from benchmarks.networks import NETWORKS, Network, by_loop, by_repeat, stochastic, summarize
from benchmarks.render import engine_table
from service.inference.devices import pick_device
from service.inference.fields import SUMMARY_FIELDS
from service.inference.outputs import values
from service.inference.prediction import Request, predict
from service.inference.sampler import Sampler, build_sampler
from service.settings import load_settings
from service.types import Masks, SamplePlan, Task

PASSES = 50
ROWS = (1, 32, 256)
ROUNDS = 5
_LONG_S = 1.5
"""A plain way that would take longer is given fewer passes."""

_ENOUGH_S = 5.0
"""Of all rounds of one case."""

_TURN_S = 0.1
"""A turn repeats what is shorter, as a server does: each finds the caches as it left them."""

PRECISIONS = ("float32", "bfloat16")


def sampler_of(network: Network, precision: str, device: torch.device) -> Sampler:
    """The network as a server would load it."""
    settings = load_settings(environment={})

    def example(rows: int) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(rows, *network.shape, generator=generator).to(device)

    return build_sampler(
        network.module,
        example,
        device=device,
        memory_bytes=settings.memory_bytes,
        noise_bytes=settings.noise_bytes,
        passes=PASSES,
        precision=precision,
        to_values=functools.partial(values, Task.CLASSIFICATION),
    )


def best_times(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each function's best round, the functions taking turns."""
    best = dict.fromkeys(functions, float("inf"))
    for function in functions.values():
        function()
    products.finish()
    started_all = time.perf_counter()
    for _ in range(ROUNDS):
        for name, function in functions.items():
            until = time.perf_counter() + _TURN_S
            while True:
                started = time.perf_counter()
                function()
                products.finish()
                ended = time.perf_counter()
                best[name] = min(best[name], ended - started)
                if ended >= until:
                    break
        if time.perf_counter() - started_all > _ENOUGH_S:
            break
    return best


def _few_passes(plain: nn.Module, inputs: Tensor) -> int:
    """How many passes a plain way gets: T, or fewer where T would take long."""
    started = time.perf_counter()
    by_loop(plain, inputs, 1)
    products.finish()
    one_s = time.perf_counter() - started
    return PASSES if one_s * PASSES < _LONG_S else max(2, min(PASSES, int(_LONG_S / one_s)))


def measure(network: Network, samplers: dict[str, Sampler], rows: int) -> dict[str, Any]:
    """One row of the table: seconds of each way, and of the limit in each precision."""
    plain = stochastic(deepcopy(network.module))
    device = next(iter(samplers.values())).device
    inputs = torch.randn(rows, *network.shape).to(device)
    few = _few_passes(plain, inputs)
    request = Request(inputs, SamplePlan(PASSES, 0, Masks.SHARED), SUMMARY_FIELDS)

    def candor(sampler: Sampler) -> object:
        return predict(sampler, Task.CLASSIFICATION, [request])

    times = best_times(
        {
            "loop": lambda: summarize(by_loop(plain, inputs, few)),
            "repeat": lambda: summarize(by_repeat(plain, inputs, few)),
            **{name: functools.partial(candor, s) for name, s in samplers.items()},
        }
    )
    for name in ("loop", "repeat"):
        times[name] *= PASSES / few
    limits = {
        name: products.multiply_adds(functools.partial(candor, sampler))
        / products.rate(getattr(torch, name), device)
        for name, sampler in samplers.items()
    }
    better = min(times["loop"], times["repeat"])
    return {
        "rows": rows,
        "seconds": times,
        "plain_passes": few,
        "limit_seconds": limits,
        "ratio": {name: better / times[name] for name in samplers},
        "times_limit": {name: times[name] / limits[name] for name in samplers},
    }


def measure_network(name: str, device: torch.device) -> dict[str, Any]:
    """All rows of a network, and how it was loaded."""
    torch.manual_seed(0)
    network = NETWORKS[name]()
    network.module.to(device)
    samplers = {precision: sampler_of(network, precision, device) for precision in PRECISIONS}
    chosen = sampler_of(network, "auto", device)
    return {
        "network": name,
        "description": (NETWORKS[name].__doc__ or "").split(". ")[0],
        "auto": chosen.precision,
        "strategy": chosen.strategy.reason,
        "cases": [measure(network, samplers, rows) for rows in ROWS],
    }


def main() -> None:
    """Print the table and write it where `--output` says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, help="write the result as JSON here")
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    result: dict[str, Any] = {
        "machine": machine(device),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "passes": PASSES,
        "multiply_adds_a_second": {
            name: products.rate(getattr(torch, name), device) for name in PRECISIONS
        },
        "networks": [],
    }
    console = Console(width=120)
    for name in arguments.networks:
        with console.status(name):
            result["networks"].append(measure_network(name, device))
    console.print(engine_table(result), markup=False)
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
