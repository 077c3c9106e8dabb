"""From a network's raw outputs to probabilities or predicted values, by task.

Raw outputs are [T, B, C, D...]: the dimension after the rows is that of the classes or outputs, and
what follows it are places that each have a prediction of their own (pixels, tokens). Values are
[T, B, D..., C], outputs last, so that one formula serves a place as it does a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from service.errors import ModelBroken
from service.types import Task


def values(task: Task, outputs: Tensor) -> Tensor:
    """Raw outputs [T, B] or [T, B, K, D...] → probabilities or predicted values [T, B, D..., C]."""
    outputs = _outputs_last(outputs)
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
    """The second half of a heteroscedastic network's [T, B, 2 C, D...] → [T, B, D..., C]."""
    return _outputs_last(outputs).chunk(2, dim=-1)[1]


def labels(task: Task, mean_BC: Tensor) -> Tensor:
    """Index of the label [B, D...]; for multilabel whether each label holds [B, C, D...]."""
    if task is Task.CLASSIFICATION:
        return mean_BC.argmax(dim=-1)
    yes_BC = mean_BC >= 0.5
    return outputs_after_rows(yes_BC) if task is Task.MULTILABEL else yes_BC[..., 0].long()


def outputs_after_rows(values_BC: Tensor) -> Tensor:
    """[B, D..., C] → [B, C, D...], as the network gives them and an answer holds them."""
    return values_BC.movedim(-1, 1) if values_BC.dim() > 2 else values_BC


def check_outputs(task: Task, outputs: Tensor, rows: int, labels: Sequence[str] | None) -> None:
    """Whether outputs of a batch of `rows` are what the task and its labels need.

    Raises:
        ModelBroken: with what came and what was expected.
    """
    shape = list(outputs.shape)
    width = shape[1] if len(shape) > 1 else 1
    if not outputs.dtype.is_floating_point:
        raise ModelBroken(f"the network returns {outputs.dtype}; expected a real floating type")
    if shape[:1] != [rows]:
        raise ModelBroken(
            f"for {rows} rows the network returned the shape {shape}; expected [{rows}, C], one "
            f"vector a row, or [{rows}, C, D...], one vector a place (pixel, token)"
        )
    if 0 in shape:
        raise ModelBroken(f"the network returned the shape {shape}, which holds nothing")
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


def _outputs_last(outputs: Tensor) -> Tensor:
    if outputs.dim() == 2:
        return outputs[..., None]
    return outputs.movedim(2, -1) if outputs.dim() > 3 else outputs
