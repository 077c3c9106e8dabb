"""A sampling program on a GPU, recorded once for each shape and replayed as one launch.

Launching the operations of a pass takes longer than they run, so they are recorded as a CUDA graph.
Only the noise of the model's own seed is recorded: it stays where it is on the device.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from service.inference.boundary import Boundary
from service.inference.memory import is_out_of_memory
from service.inference.noise import Noise, NoiseBank
from service.inference.program import Program

_WARM_UP = 3
"""Runs before a recording: libraries choose their kernels and workspaces in the first ones."""

_RECORDINGS = 32
"""Shapes that are kept; the least recently used goes first, with the memory that it holds."""

_undisturbed = threading.RLock()
"""Of whoever records. PyTorch lets no other thread draw from a GPU's generator meanwhile, and
networks that are loaded do, before what drops out in them is found."""

log = logging.getLogger(__name__)


@contextmanager
def nothing_recorded(device: torch.device) -> Iterator[None]:
    """No other thread records on this device: programs run unrecorded where they would be."""
    if device.type != "cuda":
        yield
        return
    with _undisturbed:
        yield


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

    Attributes:
        refusal: why some of what came could not be recorded; empty where all could.
    """

    groups_together = True

    def __init__(self, program: Program) -> None:
        self.refusal = ""
        self._program = program
        self._recordings: OrderedDict[Hashable, _Recording | None] = OrderedDict()

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
        recording = self._recording(padding, Noise(noise.banks, noise.passes, padded))
        if recording is None:
            return self._program.run(boundary, noise)
        return recording.replay(padding)[:, :rows]

    def _recording(self, boundary: Boundary, noise: Noise) -> _Recording | None:
        """The one of these shapes, made if need be; None where it cannot be made, or not now."""
        shapes = tuple(v.shape if isinstance(v, Tensor) else v for v in boundary.values)
        key = (noise.passes, shapes)
        if key in self._recordings:
            self._recordings.move_to_end(key)
            return self._recordings[key]
        if not _undisturbed.acquire(blocking=False):
            return None
        try:
            recording = self._recordings[key] = self._try(boundary, noise)
        finally:
            _undisturbed.release()
        if len(self._recordings) > _RECORDINGS:
            self._recordings.popitem(last=False)
        return recording

    def _try(self, boundary: Boundary, noise: Noise) -> _Recording | None:
        try:
            return self._record(boundary, noise)
        except Exception as error:
            if is_out_of_memory(error):
                # Recordings hold memory that running as it is may do with.
                self._recordings.clear()
            if not self.refusal:
                self.refusal = f"some of it not recorded as a CUDA graph, which failed: {error}"
                log.warning("%s", self.refusal)
            return None

    def _record(self, boundary: Boundary, noise: Noise) -> _Recording:
        values = tuple(v.clone() if isinstance(v, Tensor) else v for v in boundary.values)
        static = Boundary(values, boundary.batch_dims, boundary.rows)
        device = next(value.device for value in values if isinstance(value, Tensor))
        side = _side_stream(device)
        with torch.cuda.device(device):
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP):
                    self._program.run(static, noise)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads go on with what they do on the device: only this one's mistakes count.
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                outputs = self._program.run(static, noise)
        return _Recording(graph, static, outputs, noise.banks[0].held())


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """What all recordings of a device are made on: libraries keep a workspace for each stream."""
    return torch.cuda.Stream(device)


def record(program: Program, inputs: Tensor, bank: NoiseBank) -> tuple[Recorded | None, str]:
    """A recorded program, if a recording says what the program says.

    Args:
        program: on a CUDA device.
        inputs: [B, D...] to try it with, B a power of two: padded rows may be rounded otherwise.
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
    if recorded.refusal:
        return None, recorded.refusal
    if not torch.allclose(got, expected, rtol=1e-3, atol=1e-5, equal_nan=True):
        return None, "not recorded as a CUDA graph, which gave other numbers"
    return recorded, ""
