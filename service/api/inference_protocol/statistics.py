"""What was computed so far, as Triton's statistics extension says it."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.api.inference_protocol.documents import (
    BatchStatistics,
    Count,
    InferStatistics,
    ModelStatistics,
    Statistics,
    refusals,
)
from service.api.scope import Service, model_and_version, request_id, served_by, service_of
from service.registry.registry import Model, State
from service.scheduling.statistics import Duration
from service.types import ModelRef

router = APIRouter()

_MILLISECONDS = 1000


@router.get("/v2/models/stats")
async def all_statistics(request: Request) -> Statistics:
    """Of every version that serves."""
    service = service_of(request)
    models = service.registry.models()
    return Statistics(model_stats=[one for model in models for one in _of(service, model)])


@router.get("/v2/models/{name}/versions/{version}/stats", responses=refusals(404, 503))
@router.get("/v2/models/{name}/stats", responses=refusals(404, 503))
async def statistics(request: Request, name: str, version: str | None = None) -> Statistics:
    """Of a model, or of one version of it, since the server started.

    Of `compute_input` and `compute_output` nothing is measured apart from `compute_infer`, and
    there is no cache: their counts are those of the answered, or 0, and their times 0.
    """
    service = service_of(request)
    found = service.registry.model(name)
    served_by(request, found.name)
    of = await service.engine.resolve(*model_and_version(request.path_params), request_id(request))
    number = None if version is None else of.ref.version
    return Statistics(model_stats=_of(service, found, number))


def _of(service: Service, model: Model, number: int | None = None) -> list[ModelStatistics]:
    return [
        _version(service, ModelRef(model.name, version.number))
        for version in model.versions.values()
        if version.state is State.READY and number in (None, version.number)
    ]


def _version(service: Service, ref: ModelRef) -> ModelStatistics:
    found = service.runner.statistics.of(ref)
    answered = Count(count=found.success.count, ns=0)
    never = Count(count=0, ns=0)
    return ModelStatistics(
        name=ref.name,
        version=str(ref.version),
        last_inference=round(found.last_s * _MILLISECONDS),
        inference_count=found.rows,
        execution_count=found.batches,
        inference_stats=InferStatistics(
            success=_count(found.success),
            fail=_count(found.fail),
            queue=_count(found.queue),
            compute_input=answered,
            compute_infer=_count(found.compute),
            compute_output=answered,
            cache_hit=never,
            cache_miss=never,
        ),
        batch_stats=[
            BatchStatistics(
                batch_size=rows,
                compute_input=Count(count=took.count, ns=0),
                compute_infer=_count(took),
                compute_output=Count(count=took.count, ns=0),
            )
            for rows, took in sorted(found.by_rows.items())
        ],
    )


def _count(duration: Duration) -> Count:
    return Count(count=duration.count, ns=duration.ns)
