"""What the curves say, as Markdown."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.active_learning.figure import NAMES

PUBLISHED = (
    "Published:\nrandom 835, BALD 335 (Gal, Islam and Ghahramani 2017), BALD about 250, BatchBALD "
    "about 200 (Kirsch et al. 2019)."
)

SHARE_WANTED = 0.6
"""Of random's labels that BALD should need at most."""


def section(result: dict[str, Any]) -> str:
    """Where it was seen, both tables with how they are to be read, and the figure."""
    plain, tripled = result["pools"]
    machine, processes = result["machine"], result["processes"]
    seeds = len({run["seed"] for run in plain["runs"]})
    start = plain["runs"][0]["labels"][0]
    return "\n".join(
        [
            f"Seen on {machine['processor']}, {processes} processes of one thread each, torch "
            f"{result['versions']['torch']}, {result['date'][:10]}:",
            f"{_trainings(result):,} trainings in {result['seconds'] / 60:.0f} minutes. Pools of "
            f"{result['pictures']:,} pictures, {start} labels to start, {result['batch']} at a "
            f"time, {seeds} seeds; T = {plain['passes']} to choose.",
            f"Accuracy is that of the mean of {plain['test_passes']} passes on "
            f"{result['test_pictures']:,} other pictures.",
            "",
            *_needed_table(plain, result["wanted_accuracy"]),
            "",
            "Labels at which the median of three consecutive accuracies first reaches "
            f"{_percent(result['wanted_accuracy'])}. {PUBLISHED}",
            "",
            *_accuracy_table(tripled),
            "",
            f"Every picture {tripled['copies']} times in the pool: mean accuracy over the curve "
            f"from {start + result['batch']} to {tripled['most']} labels.",
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


def missed(pool: dict[str, Any], strategy: str) -> str:
    """What was set out to be reached with every picture once, where it was not."""
    needed = mean_labels(pool, strategy)
    if strategy == "bald" and needed > SHARE_WANTED * mean_labels(pool, "random"):
        return f" (aim {_percent(SHARE_WANTED)})"
    if strategy == "batch_bald" and needed > mean_labels(pool, "bald"):
        return " (aim: no more than BALD)"
    return ""


def missed_with_copies(pool: dict[str, Any], strategy: str) -> str:
    """The same of a pool with copies: BatchBALD should be ahead of random, BALD should not."""
    ahead = ahead_of_random(pool, strategy) > 0
    if strategy == "batch_bald" and not ahead:
        return " (aim: ahead)"
    return " (aim: not ahead)" if strategy == "bald" and ahead else ""


def _needed_table(pool: dict[str, Any], wanted: float) -> list[str]:
    seeds = [run["seed"] for run in _runs(pool, "random")]
    rows = []
    for strategy in _strategies(pool):
        runs = _runs(pool, strategy)
        mean = mean_labels(pool, strategy)
        bound = "" if all(run["labels_needed"] for run in runs) else "over "
        share = _percent(mean / mean_labels(pool, "random"))
        cells = [str(run["labels_needed"] or f"over {run['labels'][-1]}") for run in runs]
        rows.append(
            [NAMES[strategy], *cells, f"**{bound}{mean:.0f}**", share + missed(pool, strategy)]
        )
    head = [f"labels for {_percent(wanted)}", *(f"seed {s}" for s in seeds), "mean", "of random's"]
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
                "" if strategy == "random" else ahead + missed_with_copies(pool, strategy),
                f"{100 * last:.1f}",
                f"{pictures:.0f}",
            ]
        )
    head = [
        f"mean accuracy in %, every picture {pool['copies']} times",
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


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _strategies(pool: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(run["strategy"] for run in pool["runs"]))


def _runs(pool: dict[str, Any], strategy: str) -> list[dict[str, Any]]:
    return [run for run in pool["runs"] if run["strategy"] == strategy]


def _trainings(result: dict[str, Any]) -> int:
    return sum(len(run["labels"]) for pool in result["pools"] for run in pool["runs"])
