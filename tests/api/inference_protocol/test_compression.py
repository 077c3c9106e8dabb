"""Compressed bodies are read as far as the limit goes, and no further."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.inference_protocol.compression import CODINGS, asked_for, decompressed, deflate
from service.errors import LimitExceeded, MalformedBody, QueueFull

_LIMIT = 2_000_000


def inflate(
    body: bytes, coding: str, limit_bytes: int, hold: Callable[[int], None] = lambda size: None
) -> bytearray:
    return asyncio.run(decompressed(bytearray(body), coding, limit_bytes, hold))


@given(st.binary(), st.sampled_from(CODINGS))
def test_what_was_compressed_comes_back(body: bytes, coding: str) -> None:
    assert inflate(deflate(body, coding), coding, _LIMIT) == body


def test_bodies_of_other_programs_are_read() -> None:
    body = bytes(range(256)) * 5_000
    assert inflate(gzip.compress(body), "gzip", _LIMIT) == body
    assert inflate(zlib.compress(body), "deflate", _LIMIT) == body


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_is_refused_before_it_fills_the_memory(coding: str) -> None:
    bomb = deflate(bytes(40_000_000), coding)
    assert len(bomb) < 200_000
    tracemalloc.start()
    try:
        with pytest.raises(LimitExceeded, match="CANDOR_MAX_BODY_BYTES"):
            inflate(bomb, coding, _LIMIT)
        assert tracemalloc.get_traced_memory()[1] < 3 * _LIMIT
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("coding", CODINGS)
def test_what_there_is_no_room_for_is_not_decompressed(coding: str) -> None:
    held: list[int] = []

    def hold(size: int) -> None:
        held.append(size)
        if sum(held) > 500_000:
            raise QueueFull("no room")

    assert len(inflate(deflate(bytes(400_000), coding), coding, _LIMIT, hold)) == sum(held)
    held.clear()
    with pytest.raises(QueueFull):
        inflate(deflate(bytes(1_900_000), coding), coding, _LIMIT, hold)
    assert sum(held) < 1_000_000


@pytest.mark.parametrize("coding", CODINGS)
def test_a_body_of_exactly_the_limit_is_read(coding: str) -> None:
    assert len(inflate(deflate(bytes(5000), coding), coding, 5000)) == 5000
    with pytest.raises(LimitExceeded):
        inflate(deflate(bytes(5001), coding), coding, 5000)


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b"x" + b])
def test_a_body_that_is_not_what_it_says_is_refused(coding: str, change: object) -> None:
    assert callable(change)
    with pytest.raises(MalformedBody):
        inflate(change(deflate(b"hello", coding)), coding, _LIMIT)
    with pytest.raises(MalformedBody):
        inflate(b"", coding, _LIMIT)


@pytest.mark.parametrize(
    ("accepts", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        (None, None),
        ("", None),
        ("identity", None),
        ("br", None),
        ("gzip, deflate, br", None),
    ],
)
def test_an_answer_is_compressed_where_one_coding_is_asked_for(
    accepts: str | None, coding: str | None
) -> None:
    assert asked_for(accepts) == coding
