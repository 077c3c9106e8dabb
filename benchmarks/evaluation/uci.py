"""UCI regression by the protocol of Gal & Ghahramani 2016, as their later grid search ran it.

For each of 20 splits and each pair of dropout rate and precision τ, a network with one hidden layer
is trained on the first 80 % of the training rows and judged on the rest by its log-likelihood; the
best pair is trained on all training rows and tested. Both happen for all splits in one batched
network (`members.py`); the test is the engine's.

Source: github.com/yaringal/DropoutUncertaintyExps, `experiment.py` and `net/net.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import logsumexp
from torch import Tensor, nn

from benchmarks.evaluation.data import Array, RegressionSet
from benchmarks.evaluation.engine import Engine
from benchmarks.evaluation.members import BATCH, Draws, Members, train
from benchmarks.evaluation.seeds import seed_of
from benchmarks.evaluation.workers import Advance, Workers
from service.types import Task

EPOCHS_TIMES = 100
"""The reference's `--epochx` of its grid search: 4,000 epochs."""

LENGTH_SCALE = 1e-2
VALIDATION_PASSES = 1000
PASSES = 10_000


@dataclass(frozen=True, slots=True)
class Published:
    """Mean test RMSE and log-likelihood over the splits, and their standard errors."""

    rmse: float
    rmse_error: float
    log_likelihood: float
    log_likelihood_error: float


PAPER = {
    "bostonHousing": Published(2.97, 0.19, -2.46, 0.06),
    "concrete": Published(5.23, 0.12, -3.04, 0.02),
    "energy": Published(1.66, 0.04, -1.99, 0.02),
    "wine-quality-red": Published(0.62, 0.01, -0.93, 0.01),
    "yacht": Published(1.11, 0.09, -1.55, 0.03),
}
"""Gal & Ghahramani, "Dropout as a Bayesian approximation" (2016), table 1."""


def log_likelihood(passes_TB: Array, y_B: Array, precision: float) -> Array:
    """ln 1/T Σ_t N(y; pass_t, 1/τ): the mixture over passes. → [B], nats.

    Gal, "Uncertainty in Deep Learning" (2016), eq. 3.16; in the units of y.
    """
    exponent_TB = -0.5 * precision * (y_B - passes_TB.astype(np.float64)) ** 2
    mean_B: Array = logsumexp(exponent_TB, axis=0) - math.log(len(passes_TB))
    return mean_B + 0.5 * math.log(precision / (2 * math.pi))


def decay(rate: float, rows: int, precision: float) -> float:
    """Strength of ‖W‖² beside the mean squared error, l² (1 − p) / (2 N τ).

    Gal & Ghahramani 2016, eq. 7, solved for it.
    """
    return LENGTH_SCALE**2 * (1 - rate) / (2 * rows * precision)


@dataclass(frozen=True, slots=True)
class Scaling:
    """Moments of one split's training rows; what does not vary is left as it is."""

    x_mean: Array
    x_std: Array
    y_mean: float
    y_std: float

    @classmethod
    def of(cls, x_ND: Array, y_N: Array) -> Scaling:
        """Of these rows."""
        std_D = x_ND.std(axis=0)
        return cls(
            x_ND.mean(axis=0),
            np.where(std_D == 0, 1.0, std_D),
            float(y_N.mean()),
            float(y_N.std()),
        )

    def x(self, x_ND: Array) -> Tensor:
        """Features as a network sees them."""
        return torch.from_numpy((x_ND - self.x_mean) / self.x_std).float()

    def y(self, y_N: Array) -> Tensor:
        """Targets as a network learns them."""
        return torch.from_numpy((y_N - self.y_mean) / self.y_std).float()

    def back(self, outputs: Array) -> Array:
        """Outputs of a network in the units of the target."""
        units: Array = outputs.astype(np.float64) * self.y_std + self.y_mean
        return units


def _train(
    data: RegressionSet,
    rows_MN: Sequence[Array],
    rate_M: Sequence[float],
    precision_M: Sequence[float],
    epochs: int,
    draws: Draws,
    advance: Advance,
) -> tuple[Members, list[Scaling]]:
    """Members trained on these rows each, and the scalings of what they see and say."""
    scalings = [Scaling.of(data.x[rows], data.y[rows]) for rows in rows_MN]
    x_MND = torch.stack([s.x(data.x[r]) for s, r in zip(scalings, rows_MN, strict=True)])
    y_MN = torch.stack([s.y(data.y[r]) for s, r in zip(scalings, rows_MN, strict=True)])
    decays = [
        decay(rate, x_MND.shape[1], precision)
        for rate, precision in zip(rate_M, precision_M, strict=True)
    ]
    members = Members.initial(torch.tensor(rate_M), x_MND.shape[2], data.hidden, draws)
    train(
        members,
        x_MND,
        y_MN[..., None],
        torch.tensor(decays),
        epochs,
        draws,
        lambda: advance(1 / epochs),
    )
    return members, scalings


def validate(data: RegressionSet, rate: float, epochs: int, passes: int, advance: Advance) -> Array:
    """Mean validation log-likelihood of every split and precision with one dropout rate. [S, P]."""
    cases = [(rows, precision) for rows in data.train_rows for precision in data.precisions]
    fitted = int(0.8 * data.train_rows.shape[1])
    draws = Draws(seed_of(data.name, "grid", rate))
    members, scalings = _train(
        data,
        [rows[:fitted] for rows, _ in cases],
        [rate] * len(cases),
        [precision for _, precision in cases],
        epochs,
        draws,
        advance,
    )
    held_out = [rows[fitted:] for rows, _ in cases]
    x_MBD = torch.stack([s.x(data.x[r]) for s, r in zip(scalings, held_out, strict=True)])
    outputs_TMB = members.sample(x_MBD, passes, draws).numpy()
    found = [
        log_likelihood(scaling.back(outputs_TMB[:, m]), data.y[rows], precision).mean()
        for m, (scaling, rows, (_, precision)) in enumerate(
            zip(scalings, held_out, cases, strict=True)
        )
    ]
    return np.array(found).reshape(len(data.train_rows), len(data.precisions))


def best(likelihood_RSP: Array, data: RegressionSet) -> list[tuple[float, float]]:
    """The dropout rate and precision of the largest log-likelihood, for every split.

    Args:
        likelihood_RSP: of each rate what `validate` gave.
        data: whose grid it is.
    """
    pairs = [(rate, precision) for rate in data.rates for precision in data.precisions]
    flat = np.moveaxis(likelihood_RSP, 1, 0).reshape(likelihood_RSP.shape[1], -1)
    return [pairs[place] for place in flat.argmax(axis=1)]


def test(
    data: RegressionSet,
    chosen: Sequence[tuple[float, float]],
    epochs: int,
    passes: int,
    advance: Advance,
) -> list[dict[str, float]]:
    """Of each split what its chosen rate and precision give on the test rows."""
    members, scalings = _train(
        data,
        list(data.train_rows),
        [rate for rate, _ in chosen],
        [precision for _, precision in chosen],
        epochs,
        Draws(seed_of(data.name, "chosen")),
        advance,
    )
    return [
        _test_one(data, members.network(split), scalings[split], split, *chosen[split], passes)
        for split in range(len(chosen))
    ]


def _test_one(
    data: RegressionSet,
    network: nn.Module,
    scaling: Scaling,
    split: int,
    rate: float,
    precision: float,
    passes: int,
) -> dict[str, float]:
    rows = data.test_rows[split]
    x, y = scaling.x(data.x[rows]), data.y[rows]
    engine = Engine(network, Task.REGRESSION, x, passes)
    samples = engine.sample(x, ["samples"], seed_of(data.name, "test", split))["samples"]
    passes_TB = scaling.back(samples[..., 0])
    plain_B = scaling.back(engine.deterministic(x)["mean"][:, 0])
    return {
        "rate": rate,
        "precision": precision,
        "rmse": _rmse(passes_TB.mean(axis=0), y),
        "log_likelihood": float(log_likelihood(passes_TB, y, precision).mean()),
        "deterministic_rmse": _rmse(plain_B, y),
    }


def _rmse(predicted_B: Array, y_B: Array) -> float:
    return float(np.sqrt(np.mean((predicted_B - y_B) ** 2)))


def cost(data: RegressionSet, epochs_times: int) -> tuple[float, float]:
    """Seconds, roughly, of `validate` for one rate, and of `test`."""
    splits, rows = data.train_rows.shape
    steps = epochs_times * data.epochs
    of_grid = steps * math.ceil(0.8 * rows / BATCH) * splits * len(data.precisions) * 22e-6
    return of_grid, steps * math.ceil(rows / BATCH) * splits * 30e-6 + splits


def section(
    workers: Workers,
    data: RegressionSet,
    epochs_times: int = EPOCHS_TIMES,
    validation_passes: int = VALIDATION_PASSES,
    passes: int = PASSES,
) -> dict[str, Any]:
    """One set, from training to what is published beside it."""
    epochs = epochs_times * data.epochs
    of_grid, of_test = cost(data, epochs_times)
    grid = [
        workers.submit(of_grid, validate, data, rate, epochs, validation_passes)
        for rate in data.rates
    ]
    chosen = best(np.stack([part.result() for part in grid]), data)
    splits = workers.submit(of_test, test, data, chosen, epochs, passes).result()
    return {
        "set": data.name,
        "epochs": epochs,
        "validation_passes": validation_passes,
        "passes": passes,
        "splits": splits,
        "grid_rmse": data.grid_rmse.tolist(),
        "grid_log_likelihood": data.grid_log_likelihood.tolist(),
    }
