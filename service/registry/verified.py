"""What is known of a verified version, apart from what runs it. No torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from service.calibration.artifact import Calibration, Conditions, stale_for_request
from service.inference.fields import KEPT_FIELDS, ROWS_SECOND
from service.registry.manifest import Manifest
from service.types import ModelRef, SamplePlan

_generations = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Held:
    """A field that predictions of a version hold.

    Args:
        dtype: as NumPy names it.
        shape: −1 where the numbers of rows, passes or places of a variable input stand.
    """

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class VerifiedModel:
    """What is known of a version that was verified: all that a request and its answer need.

    Args:
        ref: its name and version.
        manifest: its `model.toml`; where nothing drops in several members, with `passes` such
            that each runs once.
        parameters: how many numbers were trained, of all members.
        outputs: C, of classes or predicted values.
        precision: that its passes are computed in, as PyTorch names it.
        conditions: under which a calibration made now would hold.
        held: which of `fields.FIELDS` its predictions hold, calibration apart.
        warnings: what its maker should look at.
        origin: of its members, as `members.json` says.
        calibration: what the version learned from held-out data, where that holds for it.
        uncalibrated: why its `calibration.json` is not used; None where it is, or there is none.
        generation: which of the process's loads it is. Two loads of one version may be of different
            weights: what they compute is never taken together.
    """

    ref: ModelRef
    manifest: Manifest
    parameters: int
    outputs: int
    precision: str
    conditions: Conditions
    held: Mapping[str, Held]
    warnings: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    uncalibrated: str | None = None
    generation: int = field(default_factory=_generations.__next__)

    def answer_bytes(self, shape: Sequence[int], passes: int, fields: Collection[str]) -> int:
        """About how many bytes an answer's arrays have, with the passes that are kept for them.

        Where the size of an output follows that of the input, as large as the input is.

        Args:
            shape: [B, D...] of the inputs.
            passes: of each row.
            fields: wanted.
        """
        kept = not set(fields).isdisjoint(KEPT_FIELDS)
        wanted = {*fields, *(("samples",) if kept else ())}
        return sum(self._field_bytes(name, shape, passes) for name in wanted & self.held.keys())

    def _field_bytes(self, name: str, shape: Sequence[int], passes: int) -> int:
        held = self.held[name]
        sizes = list(held.shape)
        sizes[1 if name in ROWS_SECOND else 0] = shape[0]
        if name == "samples":
            sizes[0] = passes
        places = sizes.count(-1)
        of_input = shape[len(shape) - places :]
        numbers = math.prod(size for size in sizes if size != -1) * math.prod(of_input)
        return numbers * np.dtype(held.dtype).itemsize

    def not_calibrated_for(self, plan: SamplePlan) -> str | None:
        """Why a request gets no calibrated fields; None where it does, or none were ever made."""
        if self.calibration is None:
            return self.uncalibrated
        return stale_for_request(self.calibration.conditions, plan)
