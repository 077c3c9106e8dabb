"""The 60-60-30-1 network of the dropout tutorials on the sonar echoes, ten-fold cross-validation.

Tutorials train it with dropout 0.2 and then switch dropout off; here the mean of T passes stands
beside that.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from torch import Tensor, nn

from benchmarks.evaluation.data import Array
from benchmarks.evaluation.engine import Engine
from benchmarks.evaluation.seeds import seed_of
from benchmarks.evaluation.workers import Advance, Workers
from service.types import Task

REPEATS = 10
FOLDS = 10
PASSES = 200
EPOCHS = 100
BATCH = 16
RATE = 0.2
COST_S = 6.0
"""Of one repeat in the progress bar."""


def network() -> nn.Sequential:
    """Dropout after both hidden layers. [B, 60] → [B, 1], the logit of a mine."""
    return nn.Sequential(
        nn.Linear(60, 60),
        nn.ReLU(),
        nn.Dropout(RATE),
        nn.Linear(60, 30),
        nn.ReLU(),
        nn.Dropout(RATE),
        nn.Linear(30, 1),
    )


def train(x: Tensor, y: Tensor, seed: int, epochs: int) -> nn.Sequential:
    """A network fitted to standardised echoes x [N, 60] and classes y [N], in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fitted = network().train()
        optimizer = torch.optim.Adam(fitted.parameters(), fused=True)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(BATCH):
                logits = fitted(x[rows])[:, 0]
                loss = nn.functional.binary_cross_entropy_with_logits(logits, y[rows].float())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return fitted.eval()


def cross_validate(
    x: Array, y: Array, repeat: int, epochs: int, passes: int, advance: Advance
) -> dict[str, float]:
    """Share of the rows that are classed rightly when they are held out, by the mean of T passes
    (`accuracy`) and with dropout off (`deterministic_accuracy`)."""
    right = {"accuracy": 0, "deterministic_accuracy": 0}
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=repeat)
    for fold, (fitted_rows, held_out) in enumerate(folds.split(x, y)):
        mean, std = x[fitted_rows].mean(axis=0), x[fitted_rows].std(axis=0)
        scaled = torch.from_numpy((x - mean) / std)
        seed = seed_of("sonar", repeat, fold)
        fitted = train(scaled[fitted_rows], torch.from_numpy(y[fitted_rows]), seed, epochs)
        engine = Engine(fitted, Task.BINARY, scaled[held_out], passes)
        sampled = engine.sample(scaled[held_out], ["label"], seed)["label"]
        plain = engine.deterministic(scaled[held_out])["label"]
        right["accuracy"] += int(np.sum(sampled == y[held_out]))
        right["deterministic_accuracy"] += int(np.sum(plain == y[held_out]))
        advance(1 / FOLDS)
    return {name: count / len(y) for name, count in right.items()}


def section(
    workers: Workers,
    data: tuple[Array, Array],
    repeats: int = REPEATS,
    epochs: int = EPOCHS,
    passes: int = PASSES,
) -> dict[str, Any]:
    """All repeats, each with folds and weights of its own."""
    parts = [
        workers.submit(COST_S, cross_validate, *data, repeat, epochs, passes)
        for repeat in range(repeats)
    ]
    return {
        "folds": FOLDS,
        "epochs": epochs,
        "passes": passes,
        "repeats": [part.result() for part in parts],
    }
