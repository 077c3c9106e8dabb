"""A forward that looks at values of its input is told from one that looks at anything else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from service.inference.control_flow import Mark, looks_at_values


@pytest.mark.parametrize(
    ("function", "looks"),
    [
        (lambda x: x if (x.sum() > 0) else -x, True),
        (lambda x: x * x.abs().max().item(), True),
        (lambda x: x.relu()[: int(x.argmax())], True),
        (lambda x: x.sum().tolist(), True),
        (lambda x: x.relu().numpy(), True),
        (lambda x: np.asarray(x.relu()), True),
        (lambda x: x.relu() * x.shape[0], False),
        (lambda x: x * torch.arange(3).sum().item(), False),
        (lambda x: x * float(torch.ones_like(x).shape[1]), False),
    ],
)
def test_looking(function: Callable[[Tensor], object], looks: bool) -> None:
    def run(mark: Mark) -> object:
        inputs = torch.ones(2, 3)
        mark(inputs)
        return function(inputs)

    with torch.inference_mode():
        assert looks_at_values(run) is looks
