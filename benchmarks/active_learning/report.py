"""What the curves say, as Markdown."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.active_learning.figure import NAMES


def section(result: dict[str, Any]) -> str:
    """Both tables, what they say in a sentence each, the figure, and where it was seen."""
    plain, tripled = result["pools"]
    machine, processes = result["machine"], result["processes"]
    each = len({run["seed"] for run in plain["runs"]})
    return "\n".join(
        [
            f"Seen on {machine['processor']}, {processes} processes of one thread each, torch",
            f"{result['versions']['torch']}, {result['date'][:10]}: {result['seconds'] / 60:.0f} "
            f"minutes for {_trainings(result):,} trainings. Pools of {result['pictures']:,} "
            "pictures,",
            f"{plain['runs'][0]['labels'][0]} labels to start, {result['batch']} at a time, "
            f"{each} seeds, T = {plain['passes']}; accuracy on {result['test_pictures']:,} "
            f"others, mean of {plain['test_passes']} passes.",
            "",
            *_needed_table(plain, result["wanted_accuracy"]),
            "",
            *_accuracy_table(tripled),
            "",
            "![Test accuracy against labels](benchmarks/results/active_learning.svg)",
        ]
    )


def mean_labels(pool: dict[str, Any], strategy: str) -> float:
    """Labels needed, mean over seeds; where a curve ended before, those at its end."""
    found = [run["labels_needed"] or run["labels"][-1] for run in _runs(pool, strategy)]
    return float(np.mean(found))


def ahead_of_random(pool: dict[str, Any], strategy: str) -> float:
    """By how much accuracy, mean over each curve and over seeds."""
    own, chance = (
        np.mean([run["mean_accuracy"] for run in _runs(pool, name)])
        for name in (strategy, "random")
    )
    return float(own - chance)


def _needed_table(pool: dict[str, Any], wanted: float) -> list[str]:
    seeds = [run["seed"] for run in _runs(pool, "random")]
    rows = []
    for strategy in _strategies(pool):
        runs = _runs(pool, strategy)
        mean = mean_labels(pool, strategy)
        bound = "" if all(run["labels_needed"] for run in runs) else "over "
        share = mean / mean_labels(pool, "random")
        cells = [str(run["labels_needed"] or f"over {run['labels'][-1]}") for run in runs]
        rows.append([NAMES[strategy], *cells, f"**{bound}{mean:.0f}**", f"{share:.0%}"])
    head = [f"labels for {wanted:.0%}", *(f"seed {s}" for s in seeds), "mean", "of random's"]
    return _table(head, rows)


def _accuracy_table(pool: dict[str, Any]) -> list[str]:
    runs = _runs(pool, "random")
    rows = []
    for strategy in _strategies(pool):
        own = _runs(pool, strategy)
        mean = np.mean([run["mean_accuracy"] for run in own])
        last = np.mean([run["accuracies"][-1] for run in own])
        pictures = np.mean([run["different_pictures"] for run in own])
        ahead = f"{100 * ahead_of_random(pool, strategy):+.1f}".replace("-", "−")
        rows.append(
            [
                NAMES[strategy],
                *(f"{100 * run['mean_accuracy']:.1f}" for run in own),
                f"**{100 * mean:.1f}**",
                "" if strategy == "random" else ahead,
                f"{100 * last:.1f}",
                f"{pictures:.0f}",
            ]
        )
    head = [
        f"every picture {pool['copies']} times: mean accuracy, %",
        *(f"seed {run['seed']}" for run in runs),
        "mean",
        "ahead of random",
        f"with {pool['most']} labels",
        "different pictures among them",
    ]
    return _table(head, rows)


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _strategies(pool: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(run["strategy"] for run in pool["runs"]))


def _runs(pool: dict[str, Any], strategy: str) -> list[dict[str, Any]]:
    return [run for run in pool["runs"] if run["strategy"] == strategy]


def _trainings(result: dict[str, Any]) -> int:
    return sum(len(run["labels"]) for pool in result["pools"] for run in pool["runs"])
