"""Exports leave nothing behind."""

from __future__ import annotations

import gc
import logging

import pytest
import torch
from torch import nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from service.inference.exporting import export
from service.inference.reclaiming import forget_exports, give_back


def shapes_that_are_kept() -> int:
    gc.collect()
    return sum(type(found) is ShapeEnv for found in gc.get_objects())


def test_what_was_exported_is_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    # What pytest captures of PyTorch's traces would hold what they speak of.
    caplog.set_level(logging.CRITICAL, logger="torch.__trace")

    def one() -> None:
        network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))
        export(network, torch.zeros(3, 4))
        forget_exports()

    one()
    before = shapes_that_are_kept()
    for _ in range(5):
        one()
    # PyTorch may hold on to the last one; of five it may not keep five.
    assert shapes_that_are_kept() <= before + 1


def test_circles_are_collected() -> None:
    class Circle:
        """Refers to itself."""

        def __init__(self) -> None:
            self.itself = self
            self.tensor = torch.zeros(3)

    Circle()
    give_back()
    assert not any(type(found) is Circle for found in gc.get_objects())
