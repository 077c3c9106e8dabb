"""`example.json`: a request body that a model's folder may hold, to be shown as an example."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from service.errors import ModelBroken
from service.registry import repository

FILE = "example.json"
_MISSING = "has no example; put a body of POST /predict into {path} to give it one"


def example_inputs(root: Path, name: str) -> list[Any]:
    """The rows of a model's example, [B, D...].

    Args:
        root: the model repository.
        name: of a model in it.

    Raises:
        ModelNotFound: the model has no example.
        ModelBroken: the file holds none, or lies outside the repository.
    """
    path = root / name / FILE
    text = repository.read_own_file(root, name, FILE, _MISSING)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ModelBroken(f"{path} cannot be read: {error}") from None
    inputs = content.get("inputs") if isinstance(content, dict) else None
    if not isinstance(inputs, list) or not inputs:
        raise ModelBroken(f'{path} holds no rows; it should be {{"inputs": [row, …]}}')
    return inputs
