"""Bodies of JSON and bytes are split where they were joined, or refused."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.inference_protocol.binary import cut, join, json_length
from service.errors import MalformedBody


@given(st.lists(st.binary(max_size=20)), st.dictionaries(st.text(max_size=3), st.integers(0, 9)))
def test_what_was_joined_is_cut_into_the_same_parts(
    parts: list[bytes], head: dict[str, int]
) -> None:
    body, length = join(head, parts)
    assert json_length(str(length), body) == length
    assert orjson.loads(body[:length]) == head
    sizes = [(str(number), len(part)) for number, part in enumerate(parts)]
    assert [bytes(part) for part in cut(memoryview(body)[length:], sizes)] == parts


@given(st.binary(max_size=20), st.lists(st.integers(0, 30), max_size=3))
def test_sizes_are_together_what_there_is_or_refused(raw: bytes, sizes: list[int]) -> None:
    named = [(str(number), size) for number, size in enumerate(sizes)]
    if sum(sizes) == len(raw):
        assert b"".join(map(bytes, cut(memoryview(raw), named))) == raw
    else:
        with pytest.raises(MalformedBody, match=f"{len(raw)} bytes follow"):
            cut(memoryview(raw), named)


def test_without_the_header_all_is_json() -> None:
    assert json_length(None, b"12345") == 5


@pytest.mark.parametrize("header", ["-1", "6", "99999999999", "9" * 5000, "1.0", "", "x", "²"])
def test_a_length_that_is_none_of_the_body_is_refused(header: str) -> None:
    with pytest.raises(MalformedBody, match="Inference-Header-Content-Length"):
        json_length(header, b"12345")
