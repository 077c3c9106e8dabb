"""`POST /predict`: an answer with its doubt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.answers import select, write
from service.api.bodies import read_request
from service.api.documentation import describe
from service.api.engine import Computed, compute
from service.api.limits import check_work
from service.api.scope import desk_of, request_id, served_by
from service.calibration.apply import CALIBRATED_FIELDS
from service.errors import InvalidInput
from service.inference.fields import SUMMARY_FIELDS
from service.registry.manifest import Manifest
from service.registry.verified import VerifiedModel
from service.schemas import PredictAnswer, PredictRequest
from service.types import SamplePlan

router = APIRouter()

DEFAULT_FIELDS = (*SUMMARY_FIELDS, *CALIBRATED_FIELDS)

_DEGRADED = "many requests were waiting"


@router.post("/predict", **describe(PredictRequest, PredictAnswer))
async def predict(request: Request) -> Response:
    """T stochastic passes: mean, standard deviation, entropies and more for every row."""
    desk = desk_of(request)
    body, raw = await read_request(request, PredictRequest, desk.settings.max_body_bytes)
    model = await desk.engine.resolve(body.model, body.version, request_id(request))
    served_by(request, model.ref.name, model.ref.version)
    plan, wanted = plan_and_fields(model.manifest, body)
    inputs = raw.batch(model.manifest.input)
    adaptive = plan.tolerance is not None
    check_work(request, len(inputs), plan.passes, "max_passes" if adaptive else "passes")
    # Who says how many passes, or how exact, gets that or nothing.
    left_open = body.passes is None and not adaptive
    computed = await compute(request, model, inputs, plan, wanted, keep=True, degradable=left_open)
    fields = select(computed.fields, wanted)
    return write(request, model, fields, head(model, plan, computed))


def plan_and_fields(manifest: Manifest, body: PredictRequest) -> tuple[SamplePlan, Sequence[str]]:
    """What a request asks the engine for, the model's and the server's defaults filled in.

    Raises:
        InvalidInput: fields that exclude each other.
    """
    plan = manifest.plan_for(body.passes, body.seed, body.masks, body.tolerance, body.max_passes)
    wanted = DEFAULT_FIELDS if body.return_ is None else tuple(body.return_)
    if plan.tolerance is not None and "samples" in wanted:
        raise InvalidInput(
            "`samples` [T, B, C] needs one T for all rows, and with `tolerance` each row has its "
            "own; ask for `quantiles`, or send `passes`",
            field="return",
            expected="fields other than samples",
            received=list(wanted),
        )
    return plan, wanted


def head(model: VerifiedModel, plan: SamplePlan, computed: Computed) -> dict[str, Any]:
    """What stands before the fields: how often and from where was drawn.

    Of a version that was calibrated also whether that holds for these passes: `applied`, or why it
    was not. Where there were fewer passes than the plan says, `degraded` says so.
    """
    followed = computed.plan or plan
    passes = followed.passes if followed.tolerance is None else computed.fields["passes"]
    found: dict[str, Any] = {"passes": passes, "seed": followed.seed}
    if followed.passes != plan.passes:
        found["degraded"] = {"requested_passes": plan.passes, "reason": _DEGRADED}
    if (reason := model.not_calibrated_for(followed)) is not None:
        found["calibration"] = f"not applied: {reason}"
    elif model.calibration is not None:
        found["calibration"] = "applied"
    return found
