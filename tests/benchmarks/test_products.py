"""Multiplications are counted as their definitions say."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.products import multiply_adds


def test_products_have_as_many_multiplications_as_their_shapes_say() -> None:
    a, b = torch.ones(3, 4, 5), torch.ones(3, 5, 6)
    assert multiply_adds(lambda: a @ b) == 3 * 4 * 5 * 6
    assert multiply_adds(lambda: torch.baddbmm(torch.ones(()), a, b)) == 3 * 4 * 5 * 6
    assert multiply_adds(lambda: functional.linear(a, torch.ones(7, 5))) == 3 * 4 * 5 * 7
    assert multiply_adds(lambda: a + a) == 0


def test_a_convolution_multiplies_its_kernel_at_every_place() -> None:
    images, kernels = torch.ones(2, 3, 8, 8), torch.ones(4, 3, 3, 3)
    assert multiply_adds(lambda: functional.conv2d(images, kernels)) == 2 * 4 * 6 * 6 * 3 * 9


def test_a_recurrent_layer_multiplies_its_weights_at_every_step() -> None:
    rnn = nn.LSTM(3, 5, 2, batch_first=True)
    weights = 4 * 5 * (3 + 5) + 4 * 5 * (5 + 5)
    assert multiply_adds(lambda: rnn(torch.ones(2, 7, 3))) == 2 * 7 * weights
