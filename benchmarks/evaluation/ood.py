"""MNIST against Fashion-MNIST: which score tells that an input is unlike the training data.

A convolutional network with dropout after every layer is trained on 20,000 digits; every score is
then asked to tell 5,000 held-out digits from 5,000 pictures of clothes. The README of this folder
says what was tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.metrics import (
    average_precision_score,
    roc_auc_score,
    roc_curve,
)
from torch import Tensor, nn

from benchmarks.evaluation.data import Array
from benchmarks.evaluation.engine import Engine
from benchmarks.evaluation.seeds import seed_of
from benchmarks.evaluation.workers import Advance, Workers
from service.types import Task

SEEDS = (0, 1, 2)
PASSES = 50
EPOCHS = 5
COST_S = 165.0
"""Of one seed in the progress bar."""

BATCH = 128
LEARNING_RATE = 3e-3
_RECALL = 0.95
SAMPLED_FIELDS = (
    "variance",
    "predictive_entropy",
    "mutual_information",
    "variation_ratio",
    "expected_entropy",
)
"""Scores that the service gives by these names."""


def network() -> nn.Sequential:
    """Four convolutions and a hidden layer, dropout after each. [B, 1, 28, 28] → [B, 10]."""
    return nn.Sequential(
        *_convolution(1, 16, 0.1),
        *_convolution(16, 16, 0.1),
        nn.MaxPool2d(2),
        *_convolution(16, 32, 0.2),
        *_convolution(32, 32, 0.2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(128, 10),
    )


def _convolution(channels_in: int, channels: int, rate: float) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels, 3, padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Dropout2d(rate),
    ]


def train(x: Tensor, y: Tensor, seed: int, epochs: int, advance: Advance) -> nn.Sequential:
    """A network fitted to pictures x [N, 1, 28, 28] and labels y [N], in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = torch.Generator().manual_seed(seed)
        fitted = network().train()
        optimizer = torch.optim.AdamW(fitted.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
        steps = epochs * -(-len(x) // BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(x), generator=generator).split(BATCH):
                loss = nn.functional.cross_entropy(fitted(x[rows]), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                advance(1 / steps)
    return fitted.eval()


def unsure(probs_BC: Array) -> Array:
    """1 − max_c p_c, as the sum of the others, which keeps the digits of p close to one. → [B]."""
    sorted_BC = np.sort(probs_BC.astype(np.float64), axis=1)
    others: Array = sorted_BC[:, :-1].sum(axis=1)
    return others


def scores(sampled: dict[str, Array], plain: dict[str, Array]) -> dict[str, Array]:
    """Every score of some pictures, larger where they seem stranger. Each [B].

    Args:
        sampled: fields of T passes, `SAMPLED_FIELDS` and `mean`.
        plain: fields of one pass with dropout off.
    """
    return {
        **{name: sampled[name] for name in SAMPLED_FIELDS},
        "1 − max mean": unsure(sampled["mean"]),
        "deterministic 1 − max": unsure(plain["mean"]),
        "deterministic entropy": plain["predictive_entropy"],
    }


def detection(inside_B: Array, outside_B: Array) -> dict[str, float]:
    """How well a score finds what is outside.

    Returns:
        `auroc`, `aupr` (outside is positive) and `fpr95`, the share of inside rows that are flagged
        at the threshold that finds 95 % of the outside ones.
    """
    values = np.concatenate([inside_B, outside_B])
    positive = np.repeat([0, 1], [len(inside_B), len(outside_B)])
    false_positive, true_positive, _ = roc_curve(positive, values, drop_intermediate=False)
    return {
        "auroc": float(roc_auc_score(positive, values)),
        "aupr": float(average_precision_score(positive, values)),
        "fpr95": float(false_positive[np.searchsorted(true_positive, _RECALL)]),
    }


def compare(
    training: tuple[Array, Array],
    inside: tuple[Array, Array],
    outside: Array,
    seed: int,
    epochs: int,
    passes: int,
    advance: Advance,
) -> dict[str, Any]:
    """One seed: accuracy on what is inside, and how well each score finds what is outside."""
    x, y = (torch.from_numpy(array) for array in training)
    inside_x, labels = torch.from_numpy(inside[0]), inside[1]
    fitted = train(x, y, seed_of("mnist", seed), epochs, lambda share: advance(0.35 * share))
    engine = Engine(fitted, Task.CLASSIFICATION, inside_x, passes)
    sampling = seed_of("mnist", "scores", seed)
    fields = [*SAMPLED_FIELDS, "mean", "label"]
    sampled, plain = engine.sample(inside_x, fields, sampling), engine.deterministic(inside_x)
    advance(0.3)
    outside_x = torch.from_numpy(outside)
    of_inside = scores(sampled, plain)
    of_outside = scores(engine.sample(outside_x, fields, sampling), engine.deterministic(outside_x))
    return {
        "seed": seed,
        "accuracy": float(np.mean(sampled["label"] == labels)),
        "deterministic_accuracy": float(np.mean(plain["label"] == labels)),
        "scores": {name: detection(of_inside[name], of_outside[name]) for name in of_inside},
    }


def section(
    workers: Workers,
    training: tuple[Array, Array],
    inside: tuple[Array, Array],
    outside: Array,
    seeds: Sequence[int] = SEEDS,
    epochs: int = EPOCHS,
    passes: int = PASSES,
) -> dict[str, Any]:
    """All seeds."""
    parts = [
        workers.submit(COST_S, compare, training, inside, outside, seed, epochs, passes)
        for seed in seeds
    ]
    return {
        "epochs": epochs,
        "passes": passes,
        "training_rows": len(training[1]),
        "inside_rows": len(inside[1]),
        "outside_rows": len(outside),
        "seeds": [part.result() for part in parts],
    }
