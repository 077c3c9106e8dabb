"""Turns what the evaluation wrote into this folder's README: tables, and what they say.

python -m benchmarks.evaluation.report
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.evaluation.uci import PAPER

README = Path(__file__).parent / "README.md"
RESULT = Path(__file__).parents[1] / "results" / "evaluation.json"


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean and its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, values: list[float]) -> Mean:
        """Over splits, repeats or seeds; with √N as the reference divides."""
        return cls(float(np.mean(values)), float(np.std(values) / np.sqrt(len(values))))

    def behind(self, other: Mean, *, larger_is_better: bool) -> float:
        """By how many of the other's standard errors it is worse; negative where it is better."""
        difference = self.value - other.value
        return (-difference if larger_is_better else difference) / other.error

    def show(self, digits: int) -> str:
        """Value ± error."""
        sign = "−" if self.value < 0 else ""
        return f"{sign}{abs(self.value):.{digits}f} ± {self.error:.{digits}f}"


@dataclass(frozen=True, slots=True)
class Standing:
    """One UCI set: what was reached beside what was published, RMSE and log-likelihood each.

    Args:
        name: of the set.
        reached: here.
        paper: Gal & Ghahramani 2016.
        grid: the authors' later grid search.
        deterministic: RMSE with dropout off.
    """

    name: str
    reached: tuple[Mean, Mean]
    paper: tuple[Mean, Mean]
    grid: tuple[Mean, Mean]
    deterministic: Mean

    @classmethod
    def of(cls, result: dict[str, Any]) -> Standing:
        """Of one set of the result."""
        splits, paper = result["splits"], PAPER[result["set"]]
        return cls(
            result["set"],
            (
                Mean.of([split["rmse"] for split in splits]),
                Mean.of([split["log_likelihood"] for split in splits]),
            ),
            (
                Mean(paper.rmse, paper.rmse_error),
                Mean(paper.log_likelihood, paper.log_likelihood_error),
            ),
            (Mean.of(result["grid_rmse"]), Mean.of(result["grid_log_likelihood"])),
            Mean.of([split["deterministic_rmse"] for split in splits]),
        )

    def behind(self, published: tuple[Mean, Mean]) -> tuple[float, float]:
        """Standard errors behind, of RMSE and log-likelihood."""
        return (
            self.reached[0].behind(published[0], larger_is_better=False),
            self.reached[1].behind(published[1], larger_is_better=True),
        )

    def holds(self, published: tuple[Mean, Mean]) -> bool:
        """Whether both are at most one published standard error behind."""
        return max(self.behind(published)) <= 1


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def uci_section(results: list[dict[str, Any]]) -> str:
    """RMSE and log-likelihood of every set beside both published columns."""
    standings = [Standing.of(result) for result in results]
    lines: list[str] = []
    for number, (name, digits) in enumerate((("RMSE", 3), ("log-likelihood", 3))):
        rows = [
            [
                standing.name,
                f"**{standing.reached[number].show(digits)}**",
                standing.paper[number].show(2),
                _signed(standing.behind(standing.paper)[number]),
                standing.grid[number].show(digits),
                _signed(standing.behind(standing.grid)[number]),
                *([standing.deterministic.show(digits)] if number == 0 else []),
            ]
            for standing in standings
        ]
        head = [f"test {name}", "here", "paper", "behind", "grid", "behind"]
        lines += [*_table([*head, *(["dropout off"] if number == 0 else [])], rows), ""]
    paper = sum(standing.holds(standing.paper) for standing in standings)
    grid = sum(standing.holds(standing.grid) for standing in standings)
    ahead = sum(max(standing.behind(standing.grid)) <= 0 for standing in standings)
    first = results[0]
    lines += [
        "*Behind* counts the published column's standard errors; below zero is ahead. At most one "
        "behind in",
        f"both: the paper on {paper} of {len(standings)} sets, the grid search on {grid} (on "
        f"{ahead} of them not behind at all). {first['epochs']:,}",
        f"epochs, T = {first['passes']:,}, {len(first['splits'])} splits.",
    ]
    return "\n".join(lines)


def sonar_section(result: dict[str, Any]) -> str:
    """Accuracy of the mean of the passes beside that with dropout off."""
    sampled = Mean.of([100 * repeat["accuracy"] for repeat in result["repeats"]])
    plain = Mean.of([100 * repeat["deterministic_accuracy"] for repeat in result["repeats"]])
    rows = [
        [f"mean of T = {result['passes']} passes", f"**{sampled.show(1)} %**"],
        ["dropout off", f"{plain.show(1)} %"],
    ]
    return "\n".join(
        [
            *_table(["", f"accuracy, {result['folds']} folds"], rows),
            "",
            f"Over {len(result['repeats'])} repeats of the cross-validation with other folds and "
            "weights.",
        ]
    )


def ood_section(result: dict[str, Any]) -> str:
    """Every score's AUROC, AUPR and FPR at 95 % TPR, the best AUROC first."""
    seeds = result["seeds"]
    found = {
        score: {
            metric: Mean.of([seed["scores"][score][metric] for seed in seeds])
            for metric in ("auroc", "aupr", "fpr95")
        }
        for score in seeds[0]["scores"]
    }
    ranked = sorted(found, key=lambda score: -found[score]["auroc"].value)
    rows = [
        [score, *(found[score][metric].show(3) for metric in ("auroc", "aupr", "fpr95"))]
        for score in ranked
    ]
    sampled = Mean.of([100 * seed["accuracy"] for seed in seeds])
    plain = Mean.of([100 * seed["deterministic_accuracy"] for seed in seeds])
    return "\n".join(
        [
            *_table(["score", "AUROC", "AUPR", "FPR at 95 % TPR"], rows),
            "",
            f"Mean over {len(seeds)} seeds and its standard error, T = {result['passes']}, "
            f"{result['epochs']} epochs on {result['training_rows']:,} digits;",
            f"{result['inside_rows']:,} held-out digits against {result['outside_rows']:,} "
            f"pictures of clothes. Accuracy on the digits {sampled.show(2)} %,",
            f"with dropout off {plain.show(2)} %.",
        ]
    )


def where_section(result: dict[str, Any]) -> str:
    """On what machine, when and how long."""
    machine, versions = result["machine"], result["versions"]
    processes = result["processes"]
    return (
        f"Seen on {machine['processor']}, {processes} process{'es' * (processes > 1)} of one "
        f"thread{' each' * (processes > 1)}, "
        f"torch {versions['torch']}, {result['date'][:10]}:\n"
        f"{result['seconds'] / 60:.1f} minutes, training included."
    )


def rendered(readme: str, result: dict[str, Any]) -> str:
    """The README with the sections that the result gives."""
    sections = {
        "where": where_section(result),
        "uci": uci_section(result["uci"]),
        "sonar": sonar_section(result["sonar"]),
        "ood": ood_section(result["ood"]),
    }
    for name, text in sections.items():
        block = f"<!-- {name} -->\n{text}\n<!-- /{name} -->"
        pattern = re.compile(f"<!-- {name} -->.*?<!-- /{name} -->", re.DOTALL)
        readme = pattern.sub(block.replace("\\", "\\\\"), readme)
    return readme


def main() -> None:
    """Render this folder's README."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    README.write_text(rendered(README.read_text(encoding="utf-8"), result), encoding="utf-8")


if __name__ == "__main__":
    main()
