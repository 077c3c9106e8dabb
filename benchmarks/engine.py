"""The engine beside the plain loop and the repeated batch, in one run: `make bench`.

Each way turns inputs into mean, standard deviation and entropies. The ways take turns, and the
best time of each counts, so that a busy moment of the machine spoils none of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.networks import NETWORKS, Network, by_loop, by_repeat, stochastic, summarize
from service.inference.prediction import Request, predict
from service.inference.sampler import build_sampler
from service.inference.statistics import SUMMARY_FIELDS
from service.settings import load_settings
from service.types import Masks, SamplePlan, Task

PASSES = 50
ROWS = (1, 32)
ROUNDS = 5


def ways(network: Network, inputs: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Each way by its name, as a function to time."""
    plain = stochastic(deepcopy(network.module))
    sampler = build_sampler(
        network.module,
        lambda rows: torch.randn(rows, *network.shape),
        device=torch.device("cpu"),
        memory_bytes=load_settings(environment={}).memory_bytes,
    )

    def candor(masks: Masks) -> Callable[[], object]:
        plan = SamplePlan(PASSES, 0, masks)
        return lambda: predict(
            sampler, Task.CLASSIFICATION, [Request(inputs, plan, SUMMARY_FIELDS)]
        )

    return {
        "loop": lambda: summarize(by_loop(plain, inputs, PASSES)),
        "repeated batch": lambda: summarize(by_repeat(plain, inputs, PASSES)),
        "Candor, shared": candor(Masks.SHARED),
        "Candor, independent": candor(Masks.INDEPENDENT),
    }


def best_times(functions: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each function's best round, the functions taking turns."""
    best = dict.fromkeys(functions, float("inf"))
    for function in functions.values():
        function()
    for _ in range(ROUNDS):
        for name, function in functions.items():
            started = time.perf_counter()
            function()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def main() -> None:
    """Print a table of rows × passes a second, and Candor's ratio to the better plain way."""
    torch.manual_seed(0)
    table = Table(
        "network", "rows", "loop", "repeated batch", "Candor, shared", "Candor, independent",
        "shared / best plain",
        title=f"engine: rows x passes a second, T = {PASSES}, {torch.get_num_threads()} threads",
    )  # fmt: skip
    for name, build in NETWORKS.items():
        for rows in ROWS:
            network = build()
            inputs = torch.randn(rows, *network.shape)
            times = best_times(ways(network, inputs))
            rates = [f"{rows * PASSES / seconds:,.0f}" for seconds in times.values()]
            plain = min(times["loop"], times["repeated batch"])
            table.add_row(name, str(rows), *rates, f"{plain / times['Candor, shared']:.2f}x")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
