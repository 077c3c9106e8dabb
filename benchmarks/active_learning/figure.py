"""The figure: test accuracy against labels, one panel a pool."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from benchmarks.evaluation.data import Array

NAMES = {"random": "random", "bald": "BALD", "batch_bald": "BatchBALD"}
"""How the papers write the strategies."""

_COLOURS = {"random": "tab:grey", "bald": "tab:orange", "batch_bald": "tab:blue"}


@dataclass(frozen=True, slots=True)
class Band:
    """Curves of several seeds as one: as far as all of them go.

    Args:
        labels: [P] of each point.
        mean: accuracy [P] over the seeds.
        low: the lowest of them [P].
        high: the highest [P].
    """

    labels: Array
    mean: Array
    low: Array
    high: Array

    @classmethod
    def of(cls, runs: list[dict[str, Any]]) -> Band:
        """Of runs that ask for labels in the same steps."""
        points = min(len(run["labels"]) for run in runs)
        accuracies_SP = np.array([run["accuracies"][:points] for run in runs])
        return cls(
            np.array(runs[0]["labels"][:points]),
            accuracies_SP.mean(axis=0),
            accuracies_SP.min(axis=0),
            accuracies_SP.max(axis=0),
        )


def draw(result: dict[str, Any], path: Path) -> None:
    """Means over seeds as lines, what lies between the seeds as bands."""
    import matplotlib
    from matplotlib.figure import Figure

    # The same figures give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "candor"
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    panels = figure.subplots(1, len(result["pools"]), sharey=True, squeeze=False)[0]
    for axes, pool in zip(panels, result["pools"], strict=True):
        _panel(axes, pool, result["wanted_accuracy"])
    panels[0].set_ylabel("test accuracy", fontsize=8)
    panels[0].legend(fontsize=8, loc="lower right")
    figure.savefig(path, metadata={"Date": None})


def _panel(axes: Axes, pool: dict[str, Any], wanted: float) -> None:
    for strategy, name in NAMES.items():
        runs = [run for run in pool["runs"] if run["strategy"] == strategy]
        if not runs:
            continue
        band, colour = Band.of(runs), _COLOURS[strategy]
        axes.plot(band.labels, band.mean, color=colour, linewidth=1.2, label=name)
        axes.fill_between(band.labels, band.low, band.high, color=colour, alpha=0.2, linewidth=0)
    axes.axhline(wanted, color="grey", linewidth=0.8, linestyle="dotted")
    times = "once" if pool["copies"] == 1 else f"{pool['copies']} times"
    axes.set_title(f"every picture {times}", fontsize=8)
    axes.set_xlabel("labels", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
