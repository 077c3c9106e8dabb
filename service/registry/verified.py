"""What is known of a verified version, apart from what runs it. No torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from service.calibration.artifact import Calibration, Conditions, stale_for_request
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

    def not_calibrated_for(self, plan: SamplePlan) -> str | None:
        """Why a request gets no calibrated fields; None where it does, or none were ever made."""
        if self.calibration is None:
            return self.uncalibrated
        return stale_for_request(self.calibration.conditions, plan)
