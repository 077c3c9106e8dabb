"""What the processes say to each other, in a form that JSON holds.

From a worker: `resolve`, `compute` and `http` ask, each by a number of its own, which `left`,
`part` and `sent` refer to; `ready`, `tally` and `reported` tell. From the process that computes:
`resolved`, `computed`, `failed`, `broken`, `more`, `start` and `body` answer; `settings`,
`draining`, `stop`, `forget`, `outlook` and `report` tell.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter

from service import errors
from service.api.engine import Call
from service.errors import CandorError
from service.registry.verified import VerifiedModel
from service.scheduling.admission import Outlook
from service.types import SamplePlan


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def write_model(model: VerifiedModel) -> str:
    """What a worker has to know of a version."""
    return _adapter(VerifiedModel).dump_json(model).decode()


def read_model(text: str) -> VerifiedModel:
    """What `write_model` wrote."""
    found: VerifiedModel = _adapter(VerifiedModel).validate_json(text)
    return found


def write_call(call: Call) -> Any:
    """A call without its inputs."""
    written: dict[str, Any] = _adapter(Call).dump_python(call, mode="json")
    if math.isinf(call.timeout_s):
        # JSON has no number for it.
        written["timeout_s"] = "Infinity"
    return written


def read_call(content: Any) -> Call:
    """What `write_call` wrote."""
    found: Call = _adapter(Call).validate_python(content)
    return found


def write_plan(plan: SamplePlan | None) -> Any:
    """A plan."""
    return _adapter(SamplePlan | None).dump_python(plan, mode="json")


def read_plan(content: Any) -> SamplePlan | None:
    """What `write_plan` wrote."""
    found: SamplePlan | None = _adapter(SamplePlan | None).validate_python(content)
    return found


def write_outlooks(outlooks: Sequence[Outlook]) -> Any:
    """What requests could expect, by their priority."""
    return [[one.end_s, one.begin_s, one.full, one.each_s] for one in outlooks]


def read_outlooks(content: Any) -> list[Outlook]:
    """What `write_outlooks` wrote."""
    return [Outlook(*one) for one in content]


def write_error(error: CandorError) -> dict[str, Any]:
    """An error that was raised on purpose."""
    return {
        "slug": type(error).slug(),
        "message": error.message,
        "field": error.field,
        "expected": error.expected,
        "received": error.received,
        "retry_after_s": error.retry_after_s,
    }


def read_error(content: dict[str, Any]) -> CandorError:
    """What `write_error` wrote."""
    kind = errors.error_class(content.pop("slug"))
    return kind(content.pop("message"), **content)
