"""`POST /v2/models/{name}[/versions/{version}]/infer`: tensors in, tensors out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from service.api.bodies import JSON, check, read_body
from service.api.engine import Computed, compute
from service.api.inference_protocol.binary import LENGTH_HEADER, Part, join, json_length
from service.api.inference_protocol.compression import asked_for, compressed, decompressed
from service.api.inference_protocol.documents import describe_infer
from service.api.inference_protocol.outputs import (
    PASSES,
    Output,
    applicable,
    evaluated,
    selected,
    tensor,
)
from service.api.inference_protocol.requests import (
    InferRequest,
    Parameters,
    batch,
    read_infer,
    read_raw,
)
from service.api.inference_protocol.tensors import datatype_of, to_bytes, to_json
from service.api.limits import check_work
from service.api.predict import head, plan_and_fields
from service.api.replies import Reply
from service.api.scope import desk_of, header, hold, model_and_version, request_id, served_by
from service.errors import InvalidInput
from service.inference.fields import EVALUATION_FIELDS, Fields
from service.registry.verified import VerifiedModel
from service.schemas import PredictRequest
from service.types import Priority, SamplePlan

router = APIRouter()

PATH = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")
ROUTE = "/v2/models/{name}/infer"

_OCTETS = "application/octet-stream"
_LENGTH_HEADER = LENGTH_HEADER.lower().encode()
_OF_THE_PLAN = ("passes", "tolerance", "max_passes", "seed", "masks")
_MODES = ("predict", "eval")
_MICROSECONDS = 1_000_000
_LONGEST_MICROSECONDS = 2**64 - 1


@router.post("/v2/models/{name}/versions/{version}/infer", **describe_infer("name", "version"))
@router.post(ROUTE, **describe_infer("name"))
async def infer(request: Request) -> Response:
    """What /predict or, with the parameter `mode` "eval", /eval computes, as tensors.

    `passes`, `tolerance`, `max_passes`, `seed` and `masks` are parameters of the request; what was
    used comes back in those of the response. `timeout` is the deadline in microseconds, `priority`
    one of high, normal and low, or Triton's number.
    """
    desk = desk_of(request)
    limit_bytes = desk.settings.max_body_bytes
    body = await read_body(request, limit_bytes)
    model = await desk.engine.resolve(*model_and_version(request.path_params), request_id(request))
    served_by(request, model.ref.name, model.ref.version)
    coding = header(request, b"content-encoding")
    body = await decompressed(body, coding, limit_bytes, lambda size: hold(request, size))
    length = json_length(header(request, _LENGTH_HEADER), body)
    # Without the header an empty body is one that is not JSON.
    raw = length == 0 and header(request, _LENGTH_HEADER) is not None
    asked = read_raw(body, model.manifest.input) if raw else read_infer(body, length)
    answer = await (_evaluate if _mode(asked.parameters) == "eval" else _predict)(
        request, model, asked
    )
    return await _write(request, asked, *answer)


Answer = tuple[VerifiedModel, Sequence[Output], Fields, dict[str, Any]]
"""Of which model, which outputs, their arrays, and the parameters that were used."""


async def _predict(request: Request, model: VerifiedModel, asked: InferRequest) -> Answer:
    names = [output.name for output in asked.outputs]
    outputs = selected(model, names)
    given = {key: asked.parameters[key] for key in _OF_THE_PLAN if key in asked.parameters}
    fields = [output.field for output in outputs if output.name != PASSES]
    body = check(PredictRequest, {**given, "return": fields}, strict=True)
    plan, wanted = plan_and_fields(model.manifest, body)
    outputs = applicable(model, outputs, plan, by_name=bool(names))
    adaptive = plan.tolerance is not None
    inputs = batch(asked.array, model.manifest.input)
    check_work(request, len(inputs), plan.passes, "max_passes" if adaptive else "passes")
    # What was asked for by name is given: with fewer passes a calibration would not hold.
    named = names and any(output.calibrated for output in outputs)
    computed = await compute(
        request,
        model,
        inputs,
        plan,
        wanted,
        keep=True,
        degradable=not adaptive and "passes" not in given and not named,
        within_s=_timeout_s(asked.parameters),
        of_priority=_priority(asked.parameters),
    )
    return model, outputs, computed.fields, _used(model, plan, computed, outputs)


async def _evaluate(request: Request, model: VerifiedModel, asked: InferRequest) -> Answer:
    for name in _OF_THE_PLAN:
        if name in asked.parameters:
            raise InvalidInput(
                f'`{name}` is a parameter of sampling, and mode is "eval": one pass with dropout '
                "off",
                field=name,
                received=asked.parameters[name],
            )
    outputs = evaluated(model, [output.name for output in asked.outputs])
    inputs = batch(asked.array, model.manifest.input)
    check_work(request, len(inputs), 1)
    computed = await compute(
        request,
        model,
        inputs,
        None,
        EVALUATION_FIELDS,
        within_s=_timeout_s(asked.parameters),
        of_priority=_priority(asked.parameters),
    )
    return model, outputs, computed.fields, {"mode": "eval"}


def _mode(parameters: Parameters) -> str:
    mode = parameters.get("mode", _MODES[0])
    if mode not in _MODES:
        raise InvalidInput(
            f"`mode` is {mode!r}; expected one of {', '.join(_MODES)}",
            field="mode",
            expected=list(_MODES),
            received=mode,
        )
    return str(mode)


def _timeout_s(parameters: Parameters) -> float | None:
    """Seconds, of the parameter's microseconds, of which 0 is none as with Triton."""
    given = parameters.get("timeout")
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, int) or given < 0:
        raise InvalidInput(
            f"`timeout` is {given!r}; expected a whole number of microseconds",
            field="timeout",
            expected="a whole number of microseconds",
            received=given,
        )
    return min(given, _LONGEST_MICROSECONDS) / _MICROSECONDS if given else None


def _priority(parameters: Parameters) -> Priority | None:
    """That of the parameter, by name or as Triton counts: 1 is the highest, 0 the usual one."""
    given = parameters.get("priority")
    if given is None or (given == 0 and not isinstance(given, bool)):
        return None
    if isinstance(given, str) and given.upper() in Priority.__members__:
        return Priority[given.upper()]
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return Priority(min(given - 1, max(Priority)))
    known = [name.lower() for name in Priority.__members__]
    raise InvalidInput(
        f"`priority` is {given!r}; expected one of {', '.join(known)}, or a number from 1",
        field="priority",
        expected=known,
        received=given,
    )


def _used(
    model: VerifiedModel, plan: SamplePlan, computed: Computed, outputs: Sequence[Output]
) -> dict[str, Any]:
    """What stands before the fields of /predict, and what flags of a calibration are read by."""
    used = {"mode": "predict", **head(model, plan, computed), "masks": plan.masks.value}
    if plan.tolerance is not None:
        # Those of each row are an output.
        del used["passes"]
        used |= {"tolerance": plan.tolerance, "max_passes": plan.passes}
    if (degraded := used.pop("degraded", None)) is not None:
        used |= {"degraded": degraded["reason"], "requested_passes": degraded["requested_passes"]}
    if model.calibration is not None and any(output.field == "ood" for output in outputs):
        used |= {
            "ood_score": model.calibration.score.name,
            "ood_threshold": model.calibration.threshold.value,
            "ood_false_positive_rate": model.calibration.threshold.false_positive_rate,
        }
    return used


async def _write(
    request: Request,
    asked: InferRequest,
    model: VerifiedModel,
    outputs: Sequence[Output],
    fields: Fields,
    used: dict[str, Any],
) -> Response:
    tensors: list[dict[str, Any]] = []
    parts: list[Part] = []
    for output in outputs:
        array = tensor(model, output, fields)
        # What is calibrated is missing where the passes became others than those asked for; the
        # parameters then say so.
        if array is None:
            continue
        described: dict[str, Any] = {
            "name": output.name,
            "shape": array.shape,
            "datatype": datatype_of(array.dtype),
        }
        if asked.binary(output.name):
            part = to_bytes(array)
            parts.append(part)
            described["parameters"] = {"binary_data_size": len(part)}
        else:
            described["data"] = to_json(array)
        tensors.append(described)
    answer = {
        "model_name": model.ref.name,
        "model_version": str(model.ref.version),
        **({} if asked.id is None else {"id": asked.id}),
        "parameters": used,
        "outputs": tensors,
    }
    body, length = join(answer, parts)
    headers = {LENGTH_HEADER: str(length)} if parts else {}
    coding = asked_for(header(request, b"accept-encoding"))
    if coding is not None:
        body = await compressed(body, coding)
        headers["Content-Encoding"] = coding
    return Reply(body, _OCTETS if parts else JSON, headers=headers)
