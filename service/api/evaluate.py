"""`POST /eval`: one deterministic pass, dropout off."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from service.api.answers import write
from service.api.bodies import read_request
from service.api.documentation import describe
from service.api.engine import compute
from service.api.limits import check_work
from service.api.scope import desk_of, request_id, served_by
from service.schemas import EvalAnswer, EvalRequest

router = APIRouter()


@router.post("/eval", **describe(EvalRequest, EvalAnswer))
async def evaluate(request: Request) -> Response:
    """What the network says with dropout off; a repeat with the same batch is bit-equal."""
    desk = desk_of(request)
    body, raw = await read_request(request, EvalRequest, desk.settings.max_body_bytes)
    model = await desk.engine.resolve(body.model, body.version, request_id(request))
    served_by(request, model.ref.name, model.ref.version)
    inputs = raw.batch(model.manifest.input)
    check_work(request, len(inputs), 1)
    computed = await compute(request, model, inputs, None)
    return write(request, model, computed.fields, {})
