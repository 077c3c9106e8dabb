"""Held-out quality of the shipped models, as served: `make quality`, models/README.md.

Each model's `train.py` knows which rows it never trained on (`held_out()`).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from service.inference.devices import Resources
from service.inference.prediction import Request
from service.registry.loading import LoadedModel
from service.registry.registry import Registry
from service.settings import load_settings
from service.types import Task

MODELS = Path(__file__).parents[1] / "models"

Array = NDArray[Any]


def held_out(name: str) -> tuple[Array, Array]:
    """Inputs x [N, D...] and targets y [N] that the model never saw."""
    path = MODELS / name / "train.py"
    spec = importlib.util.spec_from_file_location(f"train_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x, y = module.held_out()
    return x, y


def scores(task: Task, mean: Array, y: Array) -> str:
    """Quality of predictions [N, C] in words."""
    if task.is_regression:
        error = float(np.sqrt(np.mean((mean[:, 0] - y) ** 2)))
        return f"RMSE {error:.2f}"
    labels = mean.argmax(-1) if task is Task.CLASSIFICATION else mean[:, 0] >= 0.5
    probability = mean.astype(np.float64)
    if task is Task.BINARY:
        probability = np.concatenate([1 - probability, probability], axis=1)
    chosen = probability[np.arange(len(y)), y.astype(int)]
    nll = float(-np.log(np.maximum(chosen, 1e-12)).mean())
    return f"accuracy {np.mean(labels == y):.2%}, NLL {nll:.3f}"


def row(model: LoadedModel) -> str:
    """One line of the table."""
    x, y = held_out(model.ref.name)
    inputs = torch.from_numpy(x)
    manifest = model.manifest
    [answer] = model.predict([Request(inputs, manifest.plan_for(), ["mean"])])
    assert answer is not None
    sampled = answer["mean"]
    plain = model.evaluate(inputs)["mean"]
    assert sampled is not None
    assert plain is not None
    cells = [
        model.ref.name,
        manifest.task.value,
        str(len(y)),
        scores(manifest.task, plain, y),
        scores(manifest.task, sampled, y),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    memory_bytes = load_settings(environment={}).memory_bytes
    registry = Registry(MODELS, Resources(torch.device("cpu"), memory_bytes))
    registry.scan()
    registry.load_all()
    print("| model | task | held-out rows | dropout off: `/eval` | mean of T passes: `/predict` |")
    print("|---|---|---|---|---|")
    for model in registry.models():
        print(row(registry.resolve(model.name, None)))


if __name__ == "__main__":
    main()
