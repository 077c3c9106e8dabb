"""`calibration.json`: what a version learned from held-out data, and what it holds for.

Written by `candor calibrate` into the version's folder, read when the version is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from service.calibration.conformal import ConformalClassifier, ConformalRegressor
from service.calibration.detection import Recommendation
from service.calibration.drift import ReferenceBins
from service.calibration.noise import NoiseVariance
from service.calibration.scores import FittedScore
from service.calibration.temperature import Temperature
from service.calibration.thresholds import Threshold
from service.errors import CalibrationFailed
from service.files import write_atomically
from service.types import Masks, SamplePlan, Task

FILE = "calibration.json"


@dataclass(frozen=True, slots=True)
class DataUsed:
    """A file of rows, by its content.

    Args:
        name: of the file.
        sha256: of its bytes.
        rows: in it.
    """

    name: str
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class Conditions:
    """What has to be as it was for a calibration to hold.

    Args:
        weights: digest of the version's weights and network (`digest_of`).
        passes: T.
        masks: `shared` or `independent`.
        precision: that passes are computed in.
    """

    weights: str
    passes: int
    masks: Masks
    precision: str


class Calibration(BaseModel):
    """All that a version learned from held-out data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    model: str
    version: int
    task: Task
    created: datetime
    libraries: dict[str, str]
    data: DataUsed
    out_of_distribution_data: DataUsed | None = None
    conditions: Conditions
    seed: int
    """Of the passes, and of how rows were split."""
    score: FittedScore
    threshold: Threshold
    temperature: Temperature | None = None
    """Of the mean's; where the task has classes."""
    conformal_classifier: ConformalClassifier | None = None
    conformal_regressor: ConformalRegressor | None = None
    noise: NoiseVariance | None = None
    """Of a regression whose network predicts none."""
    references: dict[str, ReferenceBins]
    """How each measure was distributed, for drift."""
    recommendation: Recommendation | None = None
    """How well each score told the out-of-distribution data."""

    def summary(self) -> dict[str, object]:
        """What `GET /models` shows of it."""
        conformal = self.conformal_classifier or self.conformal_regressor
        return {
            "created": self.created.isoformat(timespec="seconds"),
            "data": {"name": self.data.name, "sha256": self.data.sha256, "rows": self.data.rows},
            "passes": self.conditions.passes,
            "masks": self.conditions.masks.value,
            "precision": self.conditions.precision,
            "score": self.score.name,
            "threshold": self.threshold.value,
            "false_positive_rate": self.threshold.false_positive_rate,
            "false_positive_rate_interval": list(self.threshold.interval),
            "temperature": None if self.temperature is None else self.temperature.value,
            "coverage": None if conformal is None else conformal.coverage,
            "references": {
                measure: {"edges": list(bins.edges), "counts": list(bins.counts)}
                for measure, bins in self.references.items()
            },
        }


def stale_for(conditions: Conditions, now: Conditions) -> str | None:
    """Why a calibration does not hold for a version as it is now; None where it does."""
    if conditions.weights != now.weights:
        return "it was made for other weights or another network; run `candor calibrate` again"
    return stale_for_plan(conditions, now.passes, now.masks) or (
        None
        if conditions.precision == now.precision
        else f"it was made in {conditions.precision}, and passes run in {now.precision} here"
    )


def stale_for_plan(conditions: Conditions, passes: int | None, masks: Masks) -> str | None:
    """Why it does not hold for such passes; None where it does.

    Args:
        conditions: it was made under.
        passes: T; None where each row has its own.
        masks: of the request.
    """
    if passes is None:
        return f"it was made for {conditions.passes} passes, and rows have their own number here"
    if conditions.passes != passes:
        return f"it was made for {conditions.passes} passes, not {passes}"
    if conditions.masks is not masks:
        return f"it was made for {conditions.masks.value} masks, not {masks.value}"
    return None


def stale_for_request(conditions: Conditions, plan: SamplePlan) -> str | None:
    """Why it does not hold for a request's passes; None where it does."""
    passes = plan.passes if plan.tolerance is None else None
    return stale_for_plan(conditions, passes, plan.masks)


def read_calibration(folder: Path) -> Calibration | None:
    """That of a version's folder; None where it has none.

    Raises:
        CalibrationFailed: the file cannot be read as one.
    """
    path = folder / FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CalibrationFailed(f"{path} cannot be read: {error}", field=FILE) from error
    try:
        return Calibration.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise CalibrationFailed(
            f"{path} is no calibration: {place}: {first['msg']}; run `candor calibrate` again",
            field=FILE,
        ) from None


def write_calibration(folder: Path, calibration: Calibration) -> Path:
    """Put it into a version's folder at once: who reads meets the old one or the new.

    Raises:
        CalibrationFailed: the folder cannot be written to.
    """
    path = folder / FILE
    try:
        write_atomically(path, calibration.model_dump_json(indent=2).encode() + b"\n")
    except OSError as error:
        raise CalibrationFailed(f"{path} cannot be written: {error}", field=FILE) from error
    return path


def digest_of(files: Mapping[str, Path]) -> str:
    """One digest of several files, by their names and contents.

    Raises:
        OSError: one of them cannot be read.
    """
    whole = hashlib.sha256()
    for name, path in sorted(files.items()):
        with path.open("rb") as file:
            whole.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return whole.hexdigest()
