"""`POST /predict`: an answer with its doubt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.answers import select, write
from service.api.bodies import read_request
from service.api.documentation import describe
from service.api.engine import compute
from service.api.limits import check_work
from service.api.scope import desk_of, request_id, served_by
from service.calibration.apply import CALIBRATED_FIELDS
from service.errors import InvalidInput
from service.inference.fields import SUMMARY_FIELDS, Fields
from service.registry.manifest import Manifest
from service.registry.verified import VerifiedModel
from service.schemas import PredictAnswer, PredictRequest
from service.types import SamplePlan

router = APIRouter()

DEFAULT_FIELDS = (*SUMMARY_FIELDS, *CALIBRATED_FIELDS)


@router.post("/predict", **describe(PredictRequest, PredictAnswer))
async def predict(request: Request) -> Response:
    """T stochastic passes: mean, standard deviation, entropies and more for every row."""
    desk = desk_of(request)
    body, raw = await read_request(request, PredictRequest, desk.settings.max_body_bytes)
    model = await desk.engine.resolve(body.model, body.version, request_id(request))
    served_by(request, model.ref.name)
    plan, wanted = plan_and_fields(model.manifest, body)
    inputs = raw.batch(model.manifest.input)
    adaptive = plan.tolerance is not None
    check_work(request, len(inputs), plan.passes, "max_passes" if adaptive else "passes")
    computed = await compute(request, model, inputs, plan, wanted, keep=True)
    fields = computed.fields
    return write(request, model, select(fields, wanted), head(model, plan, fields))


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


def head(model: VerifiedModel, plan: SamplePlan, fields: Fields) -> dict[str, Any]:
    """What stands before the fields: how often and from where was drawn.

    Of a version that was calibrated also whether that holds for these passes: `applied`, or why it
    was not.
    """
    passes = plan.passes if plan.tolerance is None else fields["passes"]
    found: dict[str, Any] = {"passes": passes, "seed": plan.seed}
    if (reason := model.not_calibrated_for(plan)) is not None:
        found["calibration"] = f"not applied: {reason}"
    elif model.calibration is not None:
        found["calibration"] = "applied"
    return found
