"""`GET /models`: what is served, in which state, and what drops out in it."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request

from service.api.documentation import problems
from service.api.scope import Service, number_or_label, served_by, service_of
from service.registry.example import example_inputs
from service.registry.loading import LoadedModel
from service.registry.policy import CANARY, Serving
from service.registry.registry import Model, Version
from service.registry.vocabulary import tokens_of
from service.schemas import (
    Example,
    InputInfo,
    ModelInfo,
    ModelList,
    SiteInfo,
    StrategyInfo,
    VersionInfo,
    Vocabulary,
)

router = APIRouter()


@router.get("/models")
async def list_models(request: Request) -> ModelList:
    """All models of the repository, broken ones included."""
    return ModelList(models=[describe_model(m) for m in service_of(request).registry.models()])


@router.get("/models/{name}", responses=problems(404))
async def get_model(request: Request, name: str) -> ModelInfo:
    """One model with its versions."""
    model = service_of(request).registry.model(name)
    served_by(request, model.name)
    return describe_model(model)


@router.get("/models/{name}/example", responses=problems(404, 503))
async def get_example(request: Request, name: str) -> Example:
    """Rows that may be sent to a model: those of its folder's example.json."""
    service = service_of(request)
    model = service.registry.model(name)
    served_by(request, model.name)
    inputs = await asyncio.to_thread(example_inputs, service.settings.models, model.name)
    return Example(model=model.name, inputs=inputs)


@router.get("/models/{name}/vocabulary", responses=problems(404, 503))
async def get_vocabulary(request: Request, name: str) -> Vocabulary:
    """The tokens of a model that reads text as numbers: those of its folder's vocabulary.txt."""
    service = service_of(request)
    model = service.registry.model(name)
    served_by(request, model.name)
    tokens = await asyncio.to_thread(tokens_of, service.settings.models, model.name)
    return Vocabulary(model=model.name, tokens=tokens)


@router.get("/models/{name}/versions/{version}", responses=problems(404))
async def get_version(request: Request, name: str, version: str) -> VersionInfo:
    """One version: its state, its dropout sites and how it is sampled."""
    registry = service_of(request).registry
    model = registry.model(name)
    served_by(request, model.name)
    return describe_version(registry.version(name, number_or_label(version)))


@router.post("/models/{name}/load", responses=problems(404, 413, 429, 503))
async def load(request: Request, name: str) -> ModelInfo:
    """Load a model, also one whose folder is new; what served serves until that was verified."""
    service = service_of(request)
    model = await changed(service, service.registry.load, name)
    served_by(request, model.name)
    return describe_model(model)


@router.post("/models/{name}/unload", responses=problems(404, 413, 429, 503))
async def unload(request: Request, name: str) -> ModelInfo:
    """Stop serving a model; requests that were accepted are answered."""
    service = service_of(request)
    served_by(request, service.registry.model(name).name)
    model = await changed(service, service.registry.unload, name)
    return describe_model(model)


@router.post("/models/{name}/reload", responses=problems(404, 413, 429, 503))
async def reload(request: Request, name: str) -> ModelInfo:
    """Read a model's folder again; the old versions serve until the new ones are verified."""
    service = service_of(request)
    served_by(request, service.registry.model(name).name)
    model = await changed(service, service.registry.reload, name)
    return describe_model(model)


async def changed(service: Service, change: Callable[[str], Model], name: str) -> Model:
    """Have the registry load or unload a model, on the thread that is there for it."""
    return await asyncio.wrap_future(service.loader.submit(functools.partial(change, name)))


def describe_model(model: Model) -> ModelInfo:
    """A model in the contract's form."""
    manifest = model.manifest
    if manifest is None:
        return ModelInfo(name=model.name, reason=model.reason)
    return ModelInfo(
        name=model.name,
        task=manifest.task,
        description=manifest.description,
        input=InputInfo(shape=list(manifest.input.shape), dtype=manifest.input.dtype),
        features=list(manifest.input.features) if manifest.input.features else None,
        labels=list(manifest.labels) if manifest.labels else None,
        passes=manifest.passes,
        seed=manifest.seed,
        masks=manifest.masks,
        default_version=model.default_version,
        version_policy=_policy(manifest.serving),
        version_labels=manifest.serving.labels,
        canary_share=manifest.serving.canary_share if CANARY in manifest.serving.labels else None,
        warnings=list(model.warnings),
        reason=model.reason or None,
        versions=[describe_version(version) for version in model.versions.values()],
    )


def _policy(serving: Serving) -> str | list[int]:
    versions = serving.versions
    return versions if isinstance(versions, str) else list(versions)


def describe_version(version: Version) -> VersionInfo:
    """A version in the contract's form."""
    loaded = version.model
    if loaded is None:
        return VersionInfo(
            version=version.number, state=version.state.value, reason=version.reason or None
        )
    sampler = loaded.sampler
    return VersionInfo(
        version=version.number,
        state=version.state.value,
        reason=version.reason or None,
        sites=[
            SiteInfo(path=s.path, kind=s.kind, rate=s.rate, inert=s.inert, mask=list(s.mask))
            for s in sampler.dropping.sites
        ],
        warnings=list(loaded.warnings),
        strategy=StrategyInfo(name=sampler.strategy.name, reason=sampler.strategy.reason),
        calibration=_calibration(loaded),
        output_shape=list(loaded.held["mean"].shape[1:]),
        device=str(sampler.device),
        precision=loaded.precision,
        parameters=loaded.parameters,
        members=sampler.members,
        origin=dict(loaded.origin) or None,
    )


def _calibration(loaded: LoadedModel) -> dict[str, Any] | None:
    """What the version learned from held-out data, or why what is there is not used."""
    if loaded.calibration is not None:
        return {"state": "applied", **loaded.calibration.summary()}
    if loaded.uncalibrated is not None:
        return {"state": "stale", "reason": loaded.uncalibrated}
    return None
