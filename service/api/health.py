"""Whether the process lives, whether it serves, and what it measured."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from service.api.documentation import problems
from service.api.errors import problem
from service.api.scope import Service, service_of
from service.registry.registry import State
from service.types import ModelRef

router = APIRouter()


@router.get("/livez", response_model=None, responses=problems(503))
async def live(request: Request) -> Response | dict[str, bool]:
    """The process answers and its engine comes back; 503 where only a restart helps."""
    detail = why_not_live(service_of(request))
    if detail is None:
        return {"live": True}
    response = problem(request, 503, "Not live", detail)
    response.headers["Retry-After"] = "1"
    return response


@router.get("/readyz", response_model=None, responses=problems(503))
async def ready(request: Request) -> Response | dict[str, object]:
    """200 once every version was tried and something serves; a broken model keeps nobody back.

    Models that were unloaded on request are not missed: with all of them unloaded it is 200, too.
    """
    service = service_of(request)
    states = {model.name: model.state.value for model in service.registry.models()}
    detail = why_not_ready(service)
    if detail is None:
        return {"ready": True, "models": states}
    response = problem(request, 503, "Not ready", detail, models=states)
    response.headers["Retry-After"] = "1"
    return response


def why_not_live(service: Service) -> str | None:
    """What only a restart helps against; None where there is nothing."""
    hung_s = service.runner.hung_s
    if hung_s is None:
        return None
    return f"the engine has not come back from a model for {hung_s:.0f} s; start it again"


def why_not_ready(service: Service) -> str | None:
    """What keeps a server from being ready; None where it is."""
    states = {model.state for model in service.registry.models()}
    if service.runner.draining:
        return "shutting down"
    if service.runner.hung_s is not None:
        return "the engine does not come back from a model; GET /livez"
    if not service.registry.loaded.is_set():
        return "models are still loading"
    if not states:
        return "there is no model; put one into the repository and POST /models/{name}/load"
    if State.READY not in states and states != {State.UNLOADED}:
        return "no model serves; GET /models says why"
    return None


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {CONTENT_TYPE_LATEST: {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """For Prometheus."""
    service = service_of(request)
    await service.gather()
    note_states(service)
    return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)


def note_states(service: Service) -> None:
    """What is not worth noting at every change: which versions are ready."""
    versions = {
        ModelRef(model.name, version.number): version
        for model in service.registry.models()
        for version in model.versions.values()
    }
    service.runner.watch_drift_of([ref for ref, version in versions.items() if version.model])
    # Of versions that are gone nothing is said any more.
    service.metrics.keep_versions(versions)
    service.metrics.model_ready.clear()
    service.metrics.calibration_stale.clear()
    for ref, version in versions.items():
        if version.state is State.UNLOADED:
            continue
        labels = (ref.name, str(ref.version))
        service.metrics.model_ready.labels(*labels).set(version.state is State.READY)
        stale = version.model is not None and version.model.uncalibrated is not None
        service.metrics.calibration_stale.labels(*labels).set(stale)
