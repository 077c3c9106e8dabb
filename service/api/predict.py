"""`POST /predict`: an answer with its doubt."""

from __future__ import annotations

import torch
from fastapi import APIRouter, Request, Response

from service.api.answers import UNCALIBRATED, select, write
from service.api.bodies import read_request
from service.api.documentation import describe
from service.api.limits import check_work, timeout_s
from service.api.scope import client_left, served_by, service_of
from service.inference.prediction import FIELDS
from service.schemas import PredictAnswer, PredictRequest

router = APIRouter()

DEFAULT_FIELDS = (*(name for name in FIELDS if name not in ("samples", "quantiles")), *UNCALIBRATED)


@router.post("/predict", **describe(PredictRequest, PredictAnswer))
async def predict(request: Request) -> Response:
    """T stochastic passes: mean, standard deviation, entropies and more for every row."""
    service = service_of(request)
    body, raw = await read_request(request, PredictRequest, service.settings.max_body_bytes)
    model = service.registry.resolve(body.model, body.version)
    served_by(request, model.ref.name)
    plan = model.manifest.plan_for(body.passes, body.seed, body.masks)
    inputs = raw.batch(model.manifest.input)
    check_work(request, len(inputs), plan.passes)
    wanted = DEFAULT_FIELDS if body.return_ is None else tuple(body.return_)
    fields = await service.runner.submit(
        model,
        torch.from_numpy(inputs),
        plan,
        wanted,
        timeout_s=timeout_s(request),
        left=lambda: client_left(request),
    )
    more = {"passes": plan.passes, "seed": plan.seed}
    return write(request, model, select(fields, wanted), more)
