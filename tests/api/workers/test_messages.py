"""What one process writes, the other reads as it was."""

from __future__ import annotations

import math
import tomllib
from dataclasses import fields

import orjson
import pytest
from pydantic import BaseModel

from service.api.engine import Call
from service.api.workers import messages
from service.errors import CandorError, InvalidInput, LimitExceeded, QueueFull
from service.registry.manifest import Manifest
from service.registry.verified import Held, VerifiedModel
from service.settings import Settings, load_settings
from service.tokens import hash_of
from service.types import Masks, ModelRef, SamplePlan
from tests.calibration.test_artifact import CONDITIONS, calibration

PLANS = [
    None,
    SamplePlan(50, -(2**63), Masks.SHARED),
    SamplePlan(1000, 2**63 - 1, Masks.INDEPENDENT, tolerance=0.01),
]


@pytest.mark.parametrize("plan", PLANS)
def test_calls_and_plans(plan: SamplePlan | None) -> None:
    call = Call("id", plan, ("mean", "std"), True, 1.5, "00-abc-def-01")
    assert messages.read_call(messages.write_call(call)) == call
    assert messages.read_plan(messages.write_plan(plan)) == plan


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("no", field="inputs", expected=[1, 2], received="x"),
        QueueFull("full", retry_after_s=2.5),
        LimitExceeded("large", field="passes", expected=3),
    ],
)
def test_errors_keep_their_kind_and_what_they_say(error: CandorError) -> None:
    found = messages.read_error(messages.write_error(error))
    assert type(found) is type(error)
    assert vars(found) == vars(error)


MANIFEST = """
task = "classification"
labels = ["a", "b", "c"]
stochastic = ["DropPath"]

[input]
shape = [-1, 4]
dtype = "int64"

[serving]
versions = [1, 3]
labels = { canary = 3 }
canary_share = 0.5
"""


def version(parameters: int = 10) -> VerifiedModel:
    """One with all that can be known of it."""
    return VerifiedModel(
        ModelRef("mine", 3),
        Manifest.model_validate(tomllib.loads(MANIFEST)),
        parameters=parameters,
        outputs=3,
        precision="float32",
        conditions=CONDITIONS,
        held={"samples": Held("float32", (-1, -1, 3))},
        warnings=("look at this",),
        origin={"method": "laplace", "draws": [1, 2]},
        calibration=calibration(),
    )


def test_all_that_is_known_of_a_version() -> None:
    model = version()
    found = messages.read_model(messages.write_model(model))
    for field in fields(VerifiedModel):
        one, other = (getattr(each, field.name) for each in (model, found))
        if isinstance(one, BaseModel):
            assert type(one) is type(other)
            assert one.model_dump(mode="json") == other.model_dump(mode="json")
        else:
            assert one == other, field.name
    plan = model.manifest.plan_for(passes=10)
    assert found.not_calibrated_for(plan) == model.not_calibrated_for(plan) is not None


def test_settings_and_calls_may_wait_for_ever() -> None:
    given = {
        "request_timeout_s": "inf",
        "engine_hang_s": "inf",
        "tokens": f"a:admin:{hash_of('b')}",
    }
    settings = load_settings(given, environment={})
    assert Settings.model_validate_json(settings.model_dump_json()) == settings
    call = Call("id", None, (), False, settings.request_timeout_s)
    written = orjson.loads(orjson.dumps(messages.write_call(call)))
    assert messages.read_call(written).timeout_s == math.inf
