"""The outputs that a version has: every field of its answers, as a tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.api.inference_protocol.tensors import BYTES, datatype_of
from service.api.predict import DEFAULT_FIELDS
from service.calibration.apply import OOD_FLAGGED, OOD_VALUES
from service.errors import InvalidInput, MalformedBody
from service.inference.fields import EVALUATION_FIELDS, FIELDS, Fields
from service.registry.labels import named
from service.registry.verified import VerifiedModel
from service.types import SamplePlan, Task

PASSES = "passes"
"""[B]: how many passes each row had."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output.

    Args:
        name: of the tensor.
        datatype: of the protocol.
        shape: −1 where it varies; rows first, but in `quantiles` and `samples`.
        field: of `/predict` that it comes from.
        calibrated: it is there only where the version's calibration holds for the request.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    field: str
    calibrated: bool = False


_PASSES = Output(PASSES, "INT64", (-1,), PASSES)


def outputs_of(model: VerifiedModel) -> dict[str, Output]:
    """All outputs of a version, by name, in the order of the fields of `/predict`."""
    found: dict[str, Output] = {}
    for name in FIELDS:
        if (held := model.held.get(name)) is not None:
            datatype = datatype_of(np.dtype(held.dtype))
            if name == "label" and model.manifest.task is not Task.MULTILABEL:
                datatype = BYTES if model.manifest.labels else datatype
            found[name] = Output(name, datatype, held.shape, name)
    for output in _calibrated(model):
        # What a calibration changes is there without it, too.
        found.setdefault(output.name, output)
    found[PASSES] = _PASSES
    return found


def _calibrated(model: VerifiedModel) -> list[Output]:
    calibration = model.calibration
    if calibration is None:
        return []
    shape = model.held["mean"].shape
    classes = 2 if model.manifest.task is Task.BINARY else model.outputs
    found = [
        Output(OOD_VALUES, "FP64", (-1,), "ood", calibrated=True),
        Output(OOD_FLAGGED, "BOOL", (-1,), "ood", calibrated=True),
    ]
    if calibration.temperature is not None:
        found.append(Output("calibrated_mean", "FP64", shape, "calibrated_mean", calibrated=True))
    if calibration.conformal_classifier is not None:
        found.append(
            Output("prediction_set", "BOOL", (-1, classes), "prediction_set", calibrated=True)
        )
    if calibration.conformal_regressor is not None:
        found.append(Output("interval", "FP64", (*shape, 2), "interval", calibrated=True))
    if calibration.noise is not None:
        found.append(Output("aleatoric_std", "FP64", shape, "aleatoric_std", calibrated=True))
        found += [
            Output(name, "FP64", (-1,), name, calibrated=True)
            for name in ("predictive_entropy", "expected_entropy", "mutual_information")
        ]
    return found


def selected(model: VerifiedModel, asked: Sequence[str]) -> list[Output]:
    """The outputs of that name; of none asked those that `/predict` answers by itself.

    Raises:
        MalformedBody: the version has no such output.
    """
    known = outputs_of(model)
    if not asked:
        return [output for output in known.values() if output.field in DEFAULT_FIELDS]
    return [_known(known, name, model) for name in asked]


def applicable(
    model: VerifiedModel, outputs: Sequence[Output], plan: SamplePlan, *, by_name: bool
) -> list[Output]:
    """Those of them that a plan gives.

    Args:
        model: that has them.
        outputs: `selected`.
        plan: of the request.
        by_name: whether they were asked for by name. If not, under a tolerance the passes of each
            row are among them, and those that need a calibration that does not hold are not.

    Raises:
        InvalidInput: one that was asked for needs a calibration that does not hold.
    """
    reason = model.not_calibrated_for(plan)
    stale = [output for output in outputs if output.calibrated and reason is not None]
    if by_name and stale:
        raise InvalidInput(
            f"the output `{stale[0].name}` needs the calibration of {model.ref}, which does not "
            f"hold for this request: {reason}",
            field=stale[0].name,
        )
    found = [output for output in outputs if output not in stale]
    if not by_name and plan.tolerance is not None:
        found.append(_PASSES)
    return found


def evaluated(model: VerifiedModel, asked: Sequence[str]) -> list[Output]:
    """The outputs of a deterministic pass.

    Raises:
        MalformedBody: the version has no such output.
        InvalidInput: it has, and a deterministic pass has not.
    """
    known = outputs_of(model)
    given = [known[name] for name in EVALUATION_FIELDS if name in model.held]
    if not asked:
        return given
    found = [_known(known, name, model) for name in asked]
    for output in found:
        if output not in given:
            names = ", ".join(one.name for one in given)
            raise InvalidInput(
                f'with mode "eval" there is no output `{output.name}`; there are {names}',
                field=output.name,
                expected=[one.name for one in given],
            )
    return found


def _known(known: Mapping[str, Output], name: str, model: VerifiedModel) -> Output:
    if name in known:
        return known[name]
    raise MalformedBody(
        f"{model.ref} has no output {name[:100]!r}; it has {', '.join(known)}",
        field="outputs",
        expected=[*known],
        received=name,
    )


def tensor(model: VerifiedModel, output: Output, fields: Fields) -> NDArray[Any] | None:
    """An output's array; None where the answer has it not."""
    array = fields.get(output.name)
    if array is None:
        return None
    if output.datatype == BYTES:
        return named(model.manifest, array)
    return array
