"""`/label-studio`: what Label Studio asks of a machine-learning backend.

A task's input is the array `data.input`, beside whatever Label Studio shows people. The score of
each prediction is a certainty, since Label Studio's uncertainty sampling takes the task with the
lowest score first.
"""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from numpy.typing import NDArray

from service.api.bodies import write_json
from service.api.documentation import problems
from service.api.engine import compute
from service.api.limits import check_work
from service.api.scope import request_id, served_by, service_of
from service.errors import InvalidInput
from service.inference.fields import Fields
from service.registry.inputs import array_from_lists
from service.registry.labels import held, named
from service.registry.verified import VerifiedModel
from service.schemas import LabelStudioSetup, LabelStudioTasks
from service.types import Task

router = APIRouter(
    prefix="/label-studio", responses=problems(400, 404, 413, 415, 422, 429, 503, 504)
)

INPUT = "input"
"""Of a task's data: the row [D...] that the model takes."""

_FIELDS = ("mean", "label", "mutual_information", "variance")
_CHOICES, _NUMBER = "Choices", "Number"


@router.get("/health")
@router.get("/{model}/health")
async def health(request: Request, model: str | None = None) -> dict[str, str]:
    """The model serves."""
    loaded = await service_of(request).engine.resolve(model, None, request_id(request))
    return {"status": "UP", "model_class": loaded.ref.name}


@router.post("/setup")
@router.post("/{model}/setup")
async def setup(
    request: Request, body: LabelStudioSetup, model: str | None = None
) -> dict[str, str]:
    """Whether the project's labelling interface fits the model; which version answers."""
    loaded = await service_of(request).engine.resolve(model, None, request_id(request))
    if body.labelling:
        _control(body.labelling, loaded.manifest.task)
    return {"model_version": _version(loaded)}


@router.post("/predict")
@router.post("/{model}/predict")
async def predict(request: Request, body: LabelStudioTasks, model: str | None = None) -> Response:
    """What the model thinks of each task, and how sure it is."""
    service = service_of(request)
    loaded = await service.engine.resolve(model, None, request_id(request))
    served_by(request, loaded.ref.name, loaded.ref.version)
    manifest = loaded.manifest
    control = _control(body.label_config, manifest.task) if body.label_config else None
    if not body.tasks:
        return write_json({"results": [], "model_version": _version(loaded)})
    plan = manifest.plan_for()
    rows = [_input(number, task) for number, task in enumerate(body.tasks)]
    inputs = array_from_lists(rows, manifest.input)
    check_work(request, len(inputs), plan.passes)
    fields = (await compute(request, loaded, inputs, plan, _FIELDS)).fields
    certainty_B = _certainty(manifest.task, fields)
    if _array(fields, "mean").ndim > 2:
        # An answer for every pixel or token goes into no control that is filled here.
        control = None
    values = _values(loaded, fields) if control is not None else itertools.repeat(None, len(rows))
    version = _version(loaded)
    results = [
        {
            "result": [control.region(value)] if control is not None else [],
            "score": float(certainty),
            "model_version": version,
        }
        for value, certainty in zip(values, certainty_B, strict=True)
    ]
    return write_json({"results": results, "model_version": version})


@dataclass(frozen=True, slots=True)
class _Control:
    """Where in the labelling interface an answer goes."""

    kind: str
    name: str
    to_name: str

    def region(self, value: Any) -> dict[str, Any]:
        kind = self.kind.lower()
        return {
            "from_name": self.name,
            "to_name": self.to_name,
            "type": kind,
            "value": {kind: value},
        }


def _control(label_config: str, task: Task) -> _Control:
    """The first control that an answer of this task fits.

    Raises:
        InvalidInput: there is none, or the configuration cannot be read.
    """
    wanted = _NUMBER if task.is_regression else _CHOICES
    try:
        # Nothing that expands or is fetched from elsewhere.
        if "<!DOCTYPE" in label_config or "<!ENTITY" in label_config:
            raise ElementTree.ParseError("it holds a document type")
        tags = ElementTree.fromstring(label_config).iter(wanted)
    except (ElementTree.ParseError, UnicodeError) as error:
        raise InvalidInput(
            f"the labelling configuration cannot be read: {error}", field="label_config"
        ) from None
    for tag in tags:
        if (name := tag.get("name")) and (to_name := tag.get("toName")):
            return _Control(wanted, name, to_name)
    raise InvalidInput(
        f"the labelling interface has no <{wanted}> with a name and a toName, into which answers "
        f"of a {task.value} task go",
        field="label_config",
        expected=f"<{wanted}>",
    )


def _input(number: int, task: Any) -> Any:
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict) or INPUT not in data:
        has = ", ".join(data) if isinstance(data, dict) else "no data"
        raise InvalidInput(
            f"task {number} has no `data.{INPUT}`, the array that the model takes; it has {has}",
            field=f"tasks[{number}].data.{INPUT}",
            expected="an array",
        )
    return data[INPUT]


def _certainty(task: Task, fields: Fields) -> NDArray[np.float64]:
    """[B] from 0 to 1: one less the share of the largest mutual information that there could be;
    of a regression 1 / (1 + epistemic variance). Of dense outputs the mean over their places."""
    if task.is_regression:
        certainty = 1 / (1 + _array(fields, "variance"))
    else:
        classes = max(2, _array(fields, "mean").shape[1])
        # Of a multilabel row each label has its own, of ln 2 at most.
        largest = classes * np.log(2) if task is Task.MULTILABEL else np.log(classes)
        certainty = np.clip(1 - _array(fields, "mutual_information") / largest, 0, 1)
    certainty_B: NDArray[np.float64] = certainty.reshape(len(certainty), -1).mean(axis=1)
    return certainty_B


def _values(loaded: VerifiedModel, fields: Fields) -> Iterator[Any]:
    manifest = loaded.manifest
    if manifest.task.is_regression:
        mean_BC = _array(fields, "mean")
        yield from mean_BC.reshape(len(mean_BC), -1)[:, 0].tolist()
    elif manifest.task is Task.MULTILABEL:
        for labels in held(manifest, _array(fields, "label")):
            yield [str(label) for label in labels]
    else:
        for label in named(manifest, _array(fields, "label")).tolist():
            yield [str(label)]


def _array(fields: Fields, name: str) -> NDArray[Any]:
    found = fields[name]
    assert found is not None
    return found


def _version(loaded: VerifiedModel) -> str:
    return f"{loaded.ref.name}:{loaded.ref.version}"
