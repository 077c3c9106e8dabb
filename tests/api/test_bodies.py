"""What a body lacks is named."""

from __future__ import annotations

import pytest

from service.api.bodies import check
from service.errors import InvalidInput
from service.schemas import QueryRequest


def test_a_field_that_is_missing_is_said_to_be() -> None:
    with pytest.raises(InvalidInput, match=r"^`k` is missing$") as caught:
        check(QueryRequest, {"model": "digits"}, strict=True)
    assert caught.value.field == "k"
