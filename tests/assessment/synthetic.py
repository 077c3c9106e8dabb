"""Measured versions made of passes, as if a network had given them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from service.assessment.data import Inputs, Labelled
from service.assessment.measured import MEASURES, Measured
from service.assessment.report import Report, make_report
from service.calibration.checks import FloatArray
from service.calibration.scores import confidence
from service.inference import measures
from service.inference.devices import Resources
from service.registry.loading import LoadedModel
from service.registry.manifest import InputSpec, Manifest
from service.registry.registry import Registry
from service.types import Masks, ModelRef, Task

REF = ModelRef("synthetic", 3)


def load(root: Path, name: str) -> LoadedModel:
    """A model of a repository."""
    registry = Registry(root, Resources(torch.device("cpu"), 2**26))
    registry.scan(only=name)
    registry.load_all()
    return registry.resolve(name, None)


def softmax(logits: FloatArray) -> FloatArray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probs: FloatArray = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probs


def classifier(
    rows: int = 400, classes: int = 4, passes: int = 30, sharpness: float = 1.0, seed: int = 0
) -> tuple[Measured, NDArray[np.int64]]:
    """A classifier whose deterministic logits are `sharpness` times the true ones."""
    generator = np.random.default_rng(seed)
    logits_BC = 2 * generator.normal(size=(rows, classes))
    labels_B = (softmax(logits_BC).cumsum(axis=1) > generator.random((rows, 1))).argmax(axis=1)
    noise_TBC = generator.normal(size=(passes, rows, classes))
    measured = from_passes(
        Task.CLASSIFICATION, softmax(logits_BC + noise_TBC), softmax(sharpness * logits_BC)
    )
    return measured, labels_B.astype(np.int64)


def regressor(
    rows: int = 400, outputs: int = 1, passes: int = 30, noise: float = 0.5, seed: int = 0
) -> tuple[Measured, FloatArray]:
    """Passes N(truth, spread of each row), and targets with noise of one size."""
    generator = np.random.default_rng(seed)
    truth_BC = generator.normal(size=(rows, outputs)) * 3
    spread_B11 = generator.uniform(0.1, 1, (rows, 1))
    offsets_BC = spread_B11 * generator.normal(size=(rows, outputs))
    passes_TBC = truth_BC + offsets_BC
    passes_TBC = passes_TBC + spread_B11 * generator.normal(size=(passes, rows, outputs))
    targets_BC = truth_BC + noise * generator.normal(size=(rows, outputs))
    return from_passes(Task.REGRESSION, passes_TBC, passes_TBC.mean(axis=0)), targets_BC


def from_passes(task: Task, passes_TBC: FloatArray, deterministic_BC: FloatArray) -> Measured:
    """What the engine would have measured from these passes."""
    tensor = torch.from_numpy(passes_TBC)
    passes, rows, _ = passes_TBC.shape
    if task.is_regression:
        known: dict[str, Any] = {"variance": measures.variance}
    else:
        table = measures.MEASURES if task is Task.CLASSIFICATION else measures.BERNOULLI_MEASURES
        known = dict(table)
    fields = {name: known[name](tensor).numpy() for name in MEASURES if name in known}
    if not task.is_regression:
        fields["deterministic_confidence"] = confidence(deterministic_BC, task)
    return Measured(
        task=task,
        rows=rows,
        fields=fields,
        mean_BC=passes_TBC.mean(axis=0),
        std_BC=passes_TBC.std(axis=0, ddof=1),
        deterministic_BC=deterministic_BC,
        aleatoric_std_BC=None,
        deterministic_std_BC=None,
        passes_TBC=passes_TBC.astype(np.float32),
        kept_rows=np.arange(rows),
        passes=passes,
        seed=0,
        masks=Masks.SHARED,
        precision="float32",
    )


def report_of(
    measured: Measured,
    targets: NDArray[Any],
    *,
    inputs: NDArray[Any] | None = None,
    strangers: Measured | None = None,
    labels: tuple[str, ...] | None = None,
    **more: Any,
) -> Report:
    """A report of a measured version on inputs of three numbers a row, or those given."""
    if inputs is None:
        inputs = np.random.default_rng(1).normal(size=(measured.rows, 3)).astype(np.float32)
    manifest = Manifest(
        task=measured.task,
        input=InputSpec(shape=inputs.shape[1:]),
        labels=labels,
        description=more.pop("description", "made up"),
    )
    others = None if strangers is None else (Inputs(inputs, "e" * 64, "other.npz"), strangers)
    labelled = Labelled(inputs, "d" * 64, more.pop("path", "test.npz"), targets)
    return make_report(more.pop("ref", REF), manifest, labelled, measured, others, **more)
