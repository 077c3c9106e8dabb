"""The documented fields are those that the engine makes."""

from __future__ import annotations

from typing import get_args

import pytest
from pydantic import ValidationError

from service import client, schemas
from service.api.predict import DEFAULT_FIELDS
from service.calibration.apply import CALIBRATED_FIELDS
from service.inference.fields import EVALUATION_FIELDS, FIELDS, KEPT_FIELDS
from service.types import Masks

HEAD = {"model", "version", "task"}


def test_fields_are_the_same_everywhere() -> None:
    fields = {*FIELDS, *CALIBRATED_FIELDS}
    assert set(get_args(schemas.FieldName)) == fields
    answer = HEAD | {"passes", "seed", "degraded", "calibration"} | fields
    assert set(schemas.PredictAnswer.model_fields) == answer
    assert set(client.Prediction.__dataclass_fields__) == answer
    evaluation = HEAD | set(EVALUATION_FIELDS)
    assert set(schemas.EvalAnswer.model_fields) == evaluation
    assert set(client.Evaluation.__dataclass_fields__) == evaluation
    assert set(DEFAULT_FIELDS) == fields - {*KEPT_FIELDS}


def test_masks_are_the_same_everywhere() -> None:
    masks = schemas.PredictRequest.model_json_schema()["properties"]["masks"]
    assert masks["anyOf"][0]["enum"] == list(Masks)


@pytest.mark.parametrize("version", [2**63, 10**30])
def test_a_version_is_a_number_that_every_process_can_write(version: int) -> None:
    with pytest.raises(ValidationError):
        schemas.PredictRequest.model_validate({"version": str(version)})
    assert schemas.PredictRequest.model_validate({"version": str(2**63 - 1)}).version == 2**63 - 1
