"""What a server prints when it is up: its address, its models, and a line to paste."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from service import __version__
from service.api.scope import Service
from service.api.security import all_tokens
from service.registry.example import FILE as EXAMPLE
from service.registry.loading import VARIABLE_DIMENSION
from service.registry.manifest import InputSpec
from service.registry.registry import Model, State

_LONGEST_INLINE = 120


def announcement(service: Service, address: str) -> str:
    """The text."""
    models = service.registry.models()
    lines = [f"Candor {__version__} serves {address}   (documentation: {address}/docs)", ""]
    for model in models:
        lines += _describe(model)
    ready = [model for model in models if model.state is State.READY]
    if not ready:
        return "\n".join([*lines, "", "No model serves. `candor models --verify PATH` says more."])
    bodies = [_body(model, service.settings.models / model.name) for model in ready]
    body = min(bodies, key=lambda body: (body.startswith("@"), len(body)))
    token = "-H 'Authorization: Bearer TOKEN' " if all_tokens(service.settings) else ""
    curl = f"curl -s {address}/predict {token}-H 'Content-Type: application/json' -d {body}"
    return "\n".join([*lines, "", "Try it:", "", f"  {curl}", ""])


def _describe(model: Model) -> list[str]:
    if model.manifest is None:
        return [f"  {model.name:<24} failed    {model.reason}"]
    lines = []
    for version in model.versions.values():
        if version.model is None:
            said = version.reason
        else:
            sampler = version.model.sampler
            live = sum(not site.inert for site in sampler.dropping.sites)
            of_all = "" if sampler.members == 1 else f"{sampler.members} members, "
            said = f"{model.manifest.task}, {of_all}{live} dropout sites, on {sampler.device}"
        name = f"{model.name}/{version.number}"
        lines.append(f"  {name:<24} {version.state:<9} {said}")
    return lines


def _body(model: Model, folder: Path) -> str:
    """What stands behind curl's -d."""
    assert model.manifest is not None
    body: Any = {"model": model.name, "inputs": [_zeros(model.manifest.input)]}
    example = folder / EXAMPLE
    if example.is_file():
        body = json.loads(example.read_text(encoding="utf-8"))
    text = json.dumps(body, separators=(",", ":"))
    if example.is_file() and (len(text) > _LONGEST_INLINE or "'" in text):
        return f"@{os.path.relpath(example)}"
    return f"'{text}'"


def _zeros(spec: InputSpec) -> Any:
    value: Any = 0
    for size in reversed(spec.shape):
        value = [value] * (VARIABLE_DIMENSION if size == -1 else size)
    return value
