"""All of the evaluation in one command, training included: `make evaluate DATA=folder`.

python -m benchmarks.evaluation --data folder --output benchmarks/results/evaluation.json
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.evaluation import data, ood, report, sonar, uci
from benchmarks.evaluation.workers import Workers
from benchmarks.machine import machine, versions


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done; anything but the defaults is for trying out.

    Args:
        epochs_times: of UCI, a multiple of each set's own epochs.
        validation_passes: T that picks a pair of the grid.
        passes: T of the UCI test.
        sonar_repeats: of the cross-validation.
        sonar_epochs: of one fold.
        ood_seeds: of the convolutional networks.
        ood_epochs: of one of them.
        ood_passes: T of its scores.
    """

    epochs_times: int = uci.EPOCHS_TIMES
    validation_passes: int = uci.VALIDATION_PASSES
    passes: int = uci.PASSES
    sonar_repeats: int = sonar.REPEATS
    sonar_epochs: int = sonar.EPOCHS
    ood_seeds: tuple[int, ...] = ood.SEEDS
    ood_epochs: int = ood.EPOCHS
    ood_passes: int = ood.PASSES


def evaluate(folder: Path, processes: int, effort: Effort) -> dict[str, Any]:
    """All sections, side by side, and where they were seen.

    Raises:
        MissingData: a file is not in the folder.
    """
    data.check(folder)
    started = time.perf_counter()
    sets = [data.regression_set(folder, name) for name in data.UCI_SETS]
    workers = Workers(processes)
    try:
        ood_part, sonar_part, *uci_parts = workers.run(
            _sections(folder, sets, workers, effort), _cost(sets, effort)
        )
    finally:
        workers.close()
    return {
        "machine": machine(),
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processes": processes,
        "seconds": round(time.perf_counter() - started, 1),
        "uci": uci_parts,
        "sonar": sonar_part,
        "ood": ood_part,
    }


def _sections(
    folder: Path, sets: Sequence[data.RegressionSet], workers: Workers, effort: Effort
) -> list[Callable[[], dict[str, Any]]]:
    """The longest parts first, so that none is left alone at the end."""
    return [
        functools.partial(
            ood.section,
            workers,
            data.images(folder, "mnist_train20k"),
            data.images(folder, "mnist_test5k"),
            data.images(folder, "fashionmnist_test5k")[0],
            effort.ood_seeds,
            effort.ood_epochs,
            effort.ood_passes,
        ),
        functools.partial(
            sonar.section,
            workers,
            data.sonar(folder),
            effort.sonar_repeats,
            effort.sonar_epochs,
        ),
        *(
            functools.partial(
                uci.section,
                workers,
                one,
                effort.epochs_times,
                effort.validation_passes,
                effort.passes,
            )
            for one in sets
        ),
    ]


def _cost(sets: Sequence[data.RegressionSet], effort: Effort) -> float:
    of_uci = 0.0
    for one in sets:
        of_grid, of_test = uci.cost(one, effort.epochs_times)
        of_uci += len(one.rates) * of_grid + of_test
    return of_uci + effort.sonar_repeats * sonar.COST_S + len(effort.ood_seeds) * ood.COST_S


def main() -> None:
    """Print the tables, write the result and render the README."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evaluation", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder of the files that benchmarks/evaluation/README.md lists",
    )
    parser.add_argument("--output", type=Path, help="write the result as JSON here")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each; 2")
    arguments = parser.parse_args()
    try:
        result = evaluate(arguments.data, arguments.processes, Effort())
    except data.MissingData as error:
        sys.exit(str(error))
    for part in (
        report.where_section(result),
        report.uci_section(result["uci"]),
        report.sonar_section(result["sonar"]),
        report.ood_section(result["ood"]),
    ):
        print(f"\n{part}")
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
