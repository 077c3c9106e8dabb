"""Learning curves of active learning on MNIST in one command: `make active-learning DATA=folder`.

Random choice, BALD and BatchBALD ask for ten labels at a time, of a pool in which every picture
stands once and of one in which it stands three times.

python -m benchmarks.active_learning --data folder
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.active_learning import curve, figure, report
from benchmarks.active_learning.curve import Course
from benchmarks.active_learning.measures import WANTED_ACCURACY, labels_needed, mean_accuracy
from benchmarks.active_learning.network import BATCH as TRAINING_BATCH
from benchmarks.active_learning.pools import draw
from benchmarks.evaluation import data
from benchmarks.evaluation.data import Array
from benchmarks.evaluation.seeds import seed_of
from benchmarks.evaluation.workers import Workers
from benchmarks.machine import machine, versions

OUTPUT = Path(__file__).parents[1] / "results" / "active_learning.json"
FILES = ("mnist_train20k.npz", "mnist_test5k.npz")
SEEDS = (0, 1, 2)
STRATEGIES = ("random", "bald", "batch_bald")
PICTURES = 5_000
EACH = 2
"""Of every class, whose labels are known from the start."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of pool and how far its curves go.

    Args:
        name: of it.
        copies: of every picture.
        course: of its curves.
    """

    name: str
    copies: int
    course: Course


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is done; anything but the defaults is for trying out.

    Args:
        kinds: of pools, the one with the longest curves first.
        strategies: that are compared.
        seeds: of pools, first weights, masks and all else that is drawn.
        pictures: in a pool.
    """

    kinds: tuple[Kind, ...] = (
        Kind("plain", 1, Course(least=250, most=800)),
        Kind("tripled", 3, Course(least=150, most=150)),
    )
    strategies: tuple[str, ...] = STRATEGIES
    seeds: tuple[int, ...] = SEEDS
    pictures: int = PICTURES


def measure(folder: Path, processes: int, effort: Effort) -> dict[str, Any]:
    """All curves, side by side, and where they were seen.

    Raises:
        MissingData: a file is not in the folder.
    """
    data.check(folder, FILES)
    training, test = (data.images(folder, Path(name).stem) for name in FILES)
    started = time.perf_counter()
    workers = Workers(processes, "active learning")
    try:
        submitted = [
            functools.partial(_curves, workers, kind, training, test, effort)
            for kind in effort.kinds
        ]
        cost = sum(
            len(effort.seeds) * _cost(kind, strategy)
            for kind in effort.kinds
            for strategy in effort.strategies
        )
        pools = workers.run(submitted, cost)
    finally:
        workers.close()
    return {
        "machine": machine(),
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processes": processes,
        "seconds": round(time.perf_counter() - started, 1),
        "pictures": effort.pictures,
        "test_pictures": len(test[1]),
        "batch": curve.BATCH,
        "training_batch": TRAINING_BATCH,
        "wanted_accuracy": WANTED_ACCURACY,
        "pools": pools,
    }


def _curves(
    workers: Workers,
    kind: Kind,
    training: tuple[Array, Array],
    test: tuple[Array, Array],
    effort: Effort,
) -> dict[str, Any]:
    # The same pictures and the same start for all strategies, and for both kinds of pool.
    pools = {
        seed: draw(*training, effort.pictures, EACH, kind.copies, seed_of("pool", seed))
        for seed in effort.seeds
    }
    # The longest at the start and chance at the end, so that no process is left waiting for long.
    waiting = {
        (strategy, seed): workers.submit(
            _cost(kind, strategy), curve.curve, pool, test, strategy, seed, kind.course
        )
        for strategy in reversed(effort.strategies)
        for seed, pool in pools.items()
    }
    runs = [waiting[strategy, seed].result() for strategy in effort.strategies for seed in pools]
    for run in runs:
        run["labels_needed"] = labels_needed(run["labels"], run["accuracies"])
        run["mean_accuracy"] = mean_accuracy(run["accuracies"])
    return {"name": kind.name, "copies": kind.copies, **asdict(kind.course), "runs": runs}


def _cost(kind: Kind, strategy: str) -> float:
    """Seconds, roughly, of one curve: chance goes further, and nothing is sampled for it."""
    labels, of_batch = (kind.course.most, 5) if strategy == "random" else (kind.course.least, 10)
    return of_batch * labels / curve.BATCH


def main() -> None:
    """Print the table, write the result and draw the figure beside it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.active_learning", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help=f"folder of {' and '.join(FILES)}, as benchmarks/evaluation/README.md describes them",
    )
    parser.add_argument("--output", type=Path, default=OUTPUT, help="JSON; the figure beside it")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each; 2")
    arguments = parser.parse_args()
    try:
        result = measure(arguments.data, arguments.processes, Effort())
    except data.MissingData as error:
        sys.exit(str(error))
    arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    figure.draw(result, arguments.output.with_suffix(".svg"))
    print(f"\n{report.section(result)}")


if __name__ == "__main__":
    main()
