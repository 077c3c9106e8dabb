"""A sampling program on a GPU, recorded once for each shape and replayed as one launch.

Launching the operations of a pass takes longer than they run, so they are recorded as a CUDA graph.
Only the noise of the model's own seed is recorded: it stays where it is on the device.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from service.inference.boundary import Boundary
from service.inference.noise import Noise, NoiseBank
from service.inference.program import Program

_WARM_UP = 3
"""Runs before a recording: libraries choose their kernels and workspaces in the first ones."""

_RECORDINGS = 32
"""Shapes that are kept; the least recently used goes first, with the memory that it holds."""


@dataclass(frozen=True, slots=True)
class _Recording:
    graph: torch.cuda.CUDAGraph
    inputs: Boundary
    outputs: Tensor
    holds: tuple[Any, ...]
    """What it reads and must not be freed."""

    def replay(self, boundary: Boundary) -> Tensor:
        for static, value in zip(self.inputs.values, boundary.values, strict=True):
            if isinstance(static, Tensor):
                static.copy_(value, non_blocking=True)
        self.graph.replay()
        return self.outputs.clone()


class Recorded:
    """A program for a CUDA device; see the module.

    Args:
        program: on that device.
    """

    groups_together = True

    def __init__(self, program: Program) -> None:
        self._program = program
        self._recordings: OrderedDict[Hashable, _Recording] = OrderedDict()

    def open(self, inputs: Tensor) -> Boundary:
        """See `Program.open`."""
        return self._program.open(inputs)

    def run(self, boundary: Boundary, noise: Noise) -> Tensor:
        """See `Program.run`. Rows are padded to a power of two, so that few shapes are recorded."""
        bank = noise.banks[0]
        if noise.row_numbers is not None or len(noise.banks) > 1 or not bank.lasting:
            return self._program.run(boundary, noise)
        rows = noise.rows
        padded = 1 << (rows - 1).bit_length()
        padding = boundary.select([*range(rows), *[0] * (padded - rows)])
        wide = Noise(noise.banks, noise.passes, padded)
        shapes = tuple(v.shape if isinstance(v, Tensor) else v for v in padding.values)
        key = (noise.passes, shapes)
        recording = self._recordings.get(key)
        if recording is None:
            recording = self._recordings[key] = self._record(padding, wide)
            if len(self._recordings) > _RECORDINGS:
                self._recordings.popitem(last=False)
        self._recordings.move_to_end(key)
        return recording.replay(padding)[:, :rows]

    def _record(self, boundary: Boundary, noise: Noise) -> _Recording:
        values = tuple(v.clone() if isinstance(v, Tensor) else v for v in boundary.values)
        static = Boundary(values, boundary.batch_dims, boundary.rows)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._program.run(static, noise)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self._program.run(static, noise)
        return _Recording(graph, static, outputs, noise.banks[0].held())


def record(program: Program, inputs: Tensor, bank: NoiseBank) -> tuple[Recorded | None, str]:
    """A recorded program, if a recording says what the program says.

    Args:
        program: on a CUDA device.
        inputs: [B, D...] to try it with.
        bank: for the noise.

    Returns:
        It and nothing, or None and why there is none.
    """
    recorded = Recorded(program)
    noise = Noise([bank], range(3), len(inputs))
    try:
        with torch.inference_mode():
            opened = program.open(inputs)
            got, expected = recorded.run(opened, noise), program.run(opened, noise)
    except Exception as error:
        return None, f"not recorded as a CUDA graph, which failed: {error}"
    if not torch.allclose(got, expected, rtol=1e-3, atol=1e-5, equal_nan=True):
        return None, "not recorded as a CUDA graph, which gave other numbers"
    return recorded, ""
