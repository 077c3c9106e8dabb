"""Threads: the tests' tensors are small, and what runs beside them must not slow them down."""

from __future__ import annotations

import os

# Read once, when torch is imported: as `candor serve` sets it (`service/__main__.py`).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch

torch.set_num_threads(1)
