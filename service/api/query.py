"""`POST /query`: which of the unlabelled rows sent along are worth their labels."""

from __future__ import annotations

import functools
import time

from fastapi import APIRouter, Request, Response

from service.api.bodies import read_request, wants_npz, write_json, write_npz
from service.api.documentation import describe
from service.api.engine import compute
from service.api.limits import check_work, timeout_s
from service.api.scope import request_id, served_by, service_of
from service.inference.choosing import (
    BATCH_BALD,
    check_left,
    check_strategy,
    needs,
    plan_of,
    select,
)
from service.schemas import QueryAnswer, QueryRequest

router = APIRouter()


@router.post("/query", **describe(QueryRequest, QueryAnswer))
async def query(request: Request) -> Response:
    """The k rows whose labels would say most, the most informative first."""
    service = service_of(request)
    body, raw = await read_request(request, QueryRequest, service.settings.max_body_bytes)
    model = await service.engine.resolve(body.model, body.version, request_id(request))
    served_by(request, model.ref.name, model.ref.version)
    task = model.manifest.task
    check_strategy(body.strategy, task)
    plan = plan_of(body.strategy, model.manifest.plan_for(body.passes, body.seed))
    inputs = raw.batch(model.manifest.input)
    excluded = frozenset(body.exclude)
    check_left(body.k, len(inputs), excluded)
    check_work(request, len(inputs), plan.passes)
    until_s = time.monotonic() + timeout_s(request)
    fields = (await compute(request, model, inputs, plan, needs(body.strategy))).fields
    choose = functools.partial(
        select, fields, task, body.strategy, body.k, plan.seed, exclude=excluded
    )
    # A batch that is chosen together takes seconds; sorting takes less than handing over.
    together = body.strategy == BATCH_BALD
    if together:
        left_s = until_s - time.monotonic()
        chosen = await service.aside.run(lambda wanted: choose(wanted=wanted), left_s)
    else:
        chosen = choose()
    answer = {
        "model": model.ref.name,
        "version": model.ref.version,
        "strategy": body.strategy,
        "passes": plan.passes,
        "seed": plan.seed,
        "indices": chosen.indices,
        "scores": chosen.scores,
    }
    return write_npz(answer) if wants_npz(request) else write_json(answer)
