"""What a body lacks, or has too much of, is named: the first, however many there are."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from pydantic import ValidationError

from service.api.bodies import check
from service.errors import InvalidInput
from service.schemas import LabelRequest, PredictRequest, QueryRequest


def test_a_field_that_is_missing_is_said_to_be() -> None:
    with pytest.raises(InvalidInput, match=r"^`k` is missing$") as caught:
        check(QueryRequest, {"model": "digits"}, strict=True)
    assert caught.value.field == "k"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"return": ["median"] * 100_000}, "return"),
        ({f"field{number}": 1 for number in range(100_000)}, "field0"),
    ],
)
def test_many_errors_take_no_more_memory_than_one(fields: dict[str, Any], field: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidInput) as caught:
            check(PredictRequest, fields, strict=True)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert caught.value.field == field


def test_rows_to_exclude_and_labels_are_read_as_far_as_the_first_errors() -> None:
    with pytest.raises(InvalidInput, match="`exclude` is 'a'"):
        check(QueryRequest, {"k": 1, "exclude": ["a"] * 100_000}, strict=True)
    with pytest.raises(ValidationError) as caught:
        LabelRequest.model_validate({f"field{number}": 1 for number in range(100_000)})
    assert caught.value.error_count() <= 101
