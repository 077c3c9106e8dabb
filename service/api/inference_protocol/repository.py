"""The model repository extension: what there is, and loading and unloading it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request

from service.api.bodies import read_json
from service.api.inference_protocol.documents import (
    IndexBody,
    IndexEntry,
    Loaded,
    RepositoryBody,
    Unloaded,
    describe_optional,
    refusals,
)
from service.api.models import changed
from service.api.scope import served_by, service_of
from service.errors import MalformedBody, ModelBroken
from service.registry.registry import Model, State

router = APIRouter()

_STATES = {
    State.READY: "READY",
    State.LOADING: "LOADING",
    State.FAILED: "UNAVAILABLE",
    State.UNLOADED: "UNAVAILABLE",
}


@router.post(
    "/v2/repository/index", responses=refusals(400, 413, 429), **describe_optional(IndexBody)
)
async def index(request: Request) -> list[IndexEntry]:
    """All versions of all models; with `ready` true those that serve."""
    content = await _content(request)
    only_ready = content.get("ready", False)
    if not isinstance(only_ready, bool):
        raise MalformedBody("`ready` is to be true or false", field="ready", received=only_ready)
    entries = [one for m in service_of(request).registry.models() for one in _entries(m)]
    return [one for one in entries if not only_ready or one.state == _STATES[State.READY]]


@router.post(
    "/v2/repository/models/{name}/load",
    responses=refusals(400, 404, 413, 429, 503),
    **describe_optional(RepositoryBody),
)
async def load(request: Request, name: str) -> Loaded:
    """Load a model, or load it again; what served before serves until that was verified."""
    _refuse_overrides(await _content(request))
    service = service_of(request)
    loaded = await changed(service, service.registry.load, name)
    served_by(request, loaded.name)
    if loaded.state is not State.READY:
        reasons = "; ".join(v.reason for v in loaded.versions.values()) or "it has no version"
        raise ModelBroken(f"{loaded.name} does not serve: {reasons}")
    return Loaded(name=loaded.name, load=True)


@router.post(
    "/v2/repository/models/{name}/unload",
    responses=refusals(400, 404, 413, 429, 503),
    **describe_optional(RepositoryBody),
)
async def unload(request: Request, name: str) -> Unloaded:
    """Stop serving a model; requests that were accepted are answered."""
    _parameters(await _content(request))
    service = service_of(request)
    served_by(request, service.registry.model(name).name)
    unloaded = await changed(service, service.registry.unload, name)
    return Unloaded(name=unloaded.name, unload=True)


async def _content(request: Request) -> Mapping[str, Any]:
    """The body, which may be empty."""
    body = await request.body()
    return read_json(body) if body else {}


def _parameters(content: Mapping[str, Any]) -> dict[str, Any]:
    given = content.get("parameters")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise MalformedBody("`parameters` is to be an object", field="parameters", received=given)
    return given


def _refuse_overrides(content: Mapping[str, Any]) -> None:
    """A model is what its folder says: nobody who may load one may send another along."""
    for name in _parameters(content):
        raise MalformedBody(
            f"`{name[:100]}` is no parameter of loading here: a model is loaded as its folder says",
            field="parameters",
        )


def _entries(model: Model) -> list[IndexEntry]:
    if not model.versions:
        return [IndexEntry(name=model.name, state=_STATES[model.state], reason=model.reason)]
    return [
        IndexEntry(
            name=model.name,
            version=str(version.number),
            state=_STATES[version.state],
            reason=version.reason,
        )
        for version in model.versions.values()
    ]
