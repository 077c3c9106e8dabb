"""What the server and its models are, and whether they are ready, as the protocol says it."""

from __future__ import annotations

import numpy as np
from fastapi import APIRouter, Request

from service import __version__
from service.api.health import why_not_live, why_not_ready
from service.api.inference_protocol.documents import (
    Live,
    ModelConfig,
    ModelMetadata,
    ModelReady,
    Ready,
    ServerMetadata,
    TensorConfig,
    TensorMetadata,
    refusals,
)
from service.api.inference_protocol.outputs import outputs_of
from service.api.inference_protocol.requests import INPUT
from service.api.inference_protocol.tensors import BYTES, datatype_of
from service.api.scope import model_and_version, request_id, served_by, service_of
from service.errors import ModelNotReady
from service.inference.fields import ROWS_SECOND
from service.registry.registry import State
from service.registry.verified import VerifiedModel

router = APIRouter()

EXTENSIONS = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "schedule_policy",
    "statistics",
)

_PLATFORM = "candor_pytorch"
_BACKEND = "candor"
_RETRY_S = 1.0


@router.get("/v2")
@router.get("/v2/", include_in_schema=False)
async def server() -> ServerMetadata:
    """Which server this is, and what of the protocol it speaks."""
    return ServerMetadata(name="candor", version=__version__, extensions=list(EXTENSIONS))


@router.get("/v2/health/live", responses=refusals(503))
async def live(request: Request) -> Live:
    """As /livez."""
    reason = why_not_live(service_of(request))
    if reason is not None:
        raise ModelNotReady(reason)
    return Live(live=True)


@router.get("/v2/health/ready", responses=refusals(503))
async def ready(request: Request) -> Ready:
    """As /readyz."""
    reason = why_not_ready(service_of(request))
    if reason is not None:
        raise ModelNotReady(reason, retry_after_s=_RETRY_S)
    return Ready(ready=True)


@router.get("/v2/models/{name}/versions/{version}/ready", responses=refusals(404, 503))
@router.get("/v2/models/{name}/ready", responses=refusals(404, 503))
async def model_ready(request: Request, name: str, version: str | None = None) -> ModelReady:
    """Whether a model, or one version of it, serves."""
    found = await _verified(request)
    if service_of(request).runner.draining:
        raise ModelNotReady("the server is shutting down", retry_after_s=_RETRY_S)
    return ModelReady(name=found.ref.name, ready=True)


@router.get("/v2/models/{name}/versions/{version}/config", responses=refusals(404, 503))
@router.get("/v2/models/{name}/config", responses=refusals(404, 503))
async def config(request: Request, name: str, version: str | None = None) -> ModelConfig:
    """A model as Triton's configuration says it."""
    found = await _verified(request)
    spec = found.manifest.input
    inputs = TensorConfig(
        name=INPUT, data_type=_type(datatype_of(np.dtype(spec.dtype))), dims=list(spec.shape)
    )
    outputs = [
        TensorConfig(name=o.name, data_type=_type(o.datatype), dims=_without_rows(o.name, o.shape))
        for o in outputs_of(found).values()
    ]
    most = service_of(request).settings.max_work // found.manifest.passes
    return ModelConfig(
        name=found.ref.name,
        platform=_PLATFORM,
        backend=_BACKEND,
        max_batch_size=max(1, most),
        dynamic_batching={},
        input=[inputs],
        output=outputs,
    )


@router.get("/v2/models/{name}/versions/{version}", responses=refusals(404, 503))
@router.get("/v2/models/{name}", responses=refusals(404, 503))
async def metadata(request: Request, name: str, version: str | None = None) -> ModelMetadata:
    """A model's versions, input and outputs."""
    found = await _verified(request)
    spec = found.manifest.input
    inputs = TensorMetadata(
        name=INPUT, datatype=datatype_of(np.dtype(spec.dtype)), shape=[-1, *spec.shape]
    )
    versions = service_of(request).registry.model(found.ref.name).versions
    return ModelMetadata(
        name=found.ref.name,
        versions=[str(v.number) for v in versions.values() if v.state is State.READY],
        platform=_PLATFORM,
        inputs=[inputs],
        outputs=[
            TensorMetadata(name=o.name, datatype=o.datatype, shape=list(o.shape))
            for o in outputs_of(found).values()
        ],
    )


def _type(datatype: str) -> str:
    return "TYPE_STRING" if datatype == BYTES else f"TYPE_{datatype}"


def _without_rows(name: str, shape: tuple[int, ...]) -> list[int]:
    rows = 1 if name in ROWS_SECOND else 0
    return [size for place, size in enumerate(shape) if place != rows]


async def _verified(request: Request) -> VerifiedModel:
    name, version = model_and_version(request.path_params)
    service = service_of(request)
    # Known models are counted as such, ready or not.
    served_by(request, service.registry.model(name).name)
    return await service.engine.resolve(name, version, request_id(request))
