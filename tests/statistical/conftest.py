"""Thousands of passes: these tests, unlike the others, gain from every core."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def _every_core() -> Iterator[None]:
    usual = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(usual)
