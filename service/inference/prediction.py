"""From a network's raw outputs to the fields of an answer, by task."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.errors import ModelBroken
from service.inference import measures, regression
from service.inference.sampler import Sampler
from service.types import SamplePlan, Task

Array = NDArray[Any]
Fields = dict[str, Array | None]

FIELDS = (
    "mean",
    "std",
    "standard_error",
    "predictive_entropy",
    "expected_entropy",
    "mutual_information",
    "variation_ratio",
    "aleatoric_std",
    "epistemic_std",
    "label",
    "variance",
    "quantiles",
    "samples",
)
"""What a prediction can hold; a field that a task does not have is None."""

EVALUATION_FIELDS = ("mean", "predictive_entropy", "label")

QUANTILES = (0.025, 0.25, 0.5, 0.75, 0.975)
"""Levels of the field `quantiles`, [Q, B, C]."""


def predict(
    sampler: Sampler,
    task: Task,
    inputs: Tensor,
    plan: SamplePlan,
    fields: Collection[str],
    rows: Sequence[int] | None = None,
) -> Fields:
    """Sample and reduce.

    Args:
        sampler: of the model.
        task: of the model.
        inputs: [B, D...].
        plan: passes, seed and masks.
        fields: which of `FIELDS`.
        rows: number of each row within its own request, 0 to B − 1 by default.

    Returns:
        Each field as an array: [B, C], [B], [T, B, C] or [Q, B, C]. Those with outputs are in the
        network's own precision, those with one value a row in float64.
    """
    numbers = range(len(inputs)) if rows is None else rows
    batch = sampler.open(inputs, plan.masks, [plan.seed] * len(inputs), numbers)
    with torch.inference_mode():
        chunks = list(batch.run(range(plan.passes)))
        first = chunks[0].outputs
        outputs = first.new_empty(plan.passes, len(inputs), *first.shape[2:])
        for chunk in chunks:
            outputs[chunk.passes.start : chunk.passes.stop, list(chunk.rows)] = chunk.outputs
        found = {n: t.cpu().numpy() for n, t in _reduce(task, outputs, fields).items()}
    return {name: found.get(name) for name in FIELDS if name in fields}


def evaluate(sampler: Sampler, task: Task, inputs: Tensor) -> Fields:
    """One deterministic pass, dropout off: `mean` [B, C], `predictive_entropy` [B], `label` [B].

    A regression without predicted noise has no predictive entropy.
    """
    outputs = sampler.deterministic(inputs)
    with torch.inference_mode():
        single = values(task, outputs[None])
        precise = single.double()
        found: dict[str, Tensor] = {"mean": single[0]}
        if task is Task.HETEROSCEDASTIC_REGRESSION:
            noise = log_variances(outputs[None]).double()
            found["predictive_entropy"] = regression.expected_entropy(noise)
        elif not task.is_regression:
            found["predictive_entropy"] = _measures(task)["predictive_entropy"](precise)
        if not task.is_regression:
            found["label"] = _labels(task, single[0])
        arrays: Fields = {name: tensor.cpu().numpy() for name, tensor in found.items()}
    return {name: arrays.get(name) for name in EVALUATION_FIELDS}


def values(task: Task, outputs: Tensor) -> Tensor:
    """Raw outputs [T, B] or [T, B, K] → probabilities or predicted values [T, B, C]."""
    outputs = outputs[..., None] if outputs.dim() == 2 else outputs
    if outputs.dtype in (torch.float16, torch.bfloat16):
        outputs = outputs.float()
    if task is Task.CLASSIFICATION:
        return outputs.softmax(dim=-1)
    if task in (Task.BINARY, Task.MULTILABEL):
        return outputs.sigmoid()
    if task is Task.HETEROSCEDASTIC_REGRESSION:
        return outputs.chunk(2, dim=-1)[0]
    return outputs


def log_variances(outputs: Tensor) -> Tensor:
    """The second half of a heteroscedastic network's outputs [T, B, 2 C] → [T, B, C]."""
    return outputs.chunk(2, dim=-1)[1]


def check_outputs(task: Task, outputs: Tensor, rows: int, labels: Sequence[str] | None) -> None:
    """Whether outputs of a batch of `rows` are what the task and its labels need.

    Raises:
        ModelBroken: with what came and what was expected.
    """
    shape = list(outputs.shape)
    width = shape[1] if len(shape) == 2 else 1
    if not outputs.dtype.is_floating_point:
        raise ModelBroken(f"the network returns {outputs.dtype}; expected a real floating type")
    if shape[:1] != [rows] or len(shape) not in (1, 2):
        raise ModelBroken(
            f"for {rows} rows the network returned the shape {shape}; expected [{rows}, C], one "
            "vector a row"
        )
    if task is Task.CLASSIFICATION and width < 2:
        raise ModelBroken(
            f"a classification needs at least two logits a row; the network returned {shape}. For "
            'one logit set task = "binary"'
        )
    if task is Task.BINARY and width != 1:
        raise ModelBroken(
            f"a binary task needs one logit a row; the network returned {shape}. For one logit a "
            'class set task = "classification"'
        )
    if task is Task.HETEROSCEDASTIC_REGRESSION and width % 2:
        raise ModelBroken(
            "a heteroscedastic regression needs C means and C log variances a row, an even number; "
            f"the network returned {shape}"
        )
    expected = 2 if task is Task.BINARY else width
    if labels is not None and not task.is_regression and len(labels) != expected:
        raise ModelBroken(
            f"model.toml names {len(labels)} labels, and the network has {expected} classes"
        )


def _measures(task: Task) -> Mapping[str, measures.Measure]:
    return measures.MEASURES if task is Task.CLASSIFICATION else measures.BERNOULLI_MEASURES


def _labels(task: Task, mean_BC: Tensor) -> Tensor:
    """Index of the label [B]; for multilabel whether each label holds [B, C]."""
    if task is Task.CLASSIFICATION:
        return mean_BC.argmax(dim=-1)
    yes_BC = mean_BC >= 0.5
    return yes_BC if task is Task.MULTILABEL else yes_BC[:, 0].long()


def _reduce(task: Task, outputs: Tensor, fields: Collection[str]) -> dict[str, Tensor]:
    # Variances and mutual information are small differences of large sums: float64 throughout.
    values_TBC = values(task, outputs.double())
    own = torch.float64 if outputs.dtype == torch.float64 else torch.float32
    mean_BC = measures.mean(values_TBC)
    compute: dict[str, Callable[[], Tensor]] = {
        "mean": lambda: mean_BC.to(own),
        "std": lambda: measures.std(values_TBC).to(own),
        "standard_error": lambda: measures.standard_error(values_TBC).to(own),
        "variance": lambda: measures.variance(values_TBC),
        "samples": lambda: values_TBC.to(own),
        "quantiles": lambda: torch.from_numpy(
            np.quantile(values_TBC.cpu().numpy(), QUANTILES, axis=0)
        ).to(own),
    }
    if task.is_regression:
        noise_TBC = None
        compute["epistemic_std"] = compute["std"]
        if task is Task.HETEROSCEDASTIC_REGRESSION:
            noise_TBC = predicted = log_variances(outputs.double())
            compute |= {
                "aleatoric_std": lambda: regression.aleatoric_variance(predicted).sqrt().to(own),
                "expected_entropy": lambda: regression.expected_entropy(predicted),
                "mutual_information": lambda: regression.mutual_information(values_TBC, predicted),
            }
        compute["predictive_entropy"] = lambda: regression.predictive_entropy(values_TBC, noise_TBC)
    else:
        for name, measure in _measures(task).items():
            compute[name] = functools.partial(measure, values_TBC)
        compute["label"] = lambda: _labels(task, mean_BC)
    return {name: make() for name, make in compute.items() if name in fields}
