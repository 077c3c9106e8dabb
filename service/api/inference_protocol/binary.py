"""Bodies of the binary extension: JSON, then the bytes of the tensors that have none in it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import orjson

from service.errors import MalformedBody

LENGTH_HEADER = "Inference-Header-Content-Length"

Part = bytes | memoryview

_LENGTH = re.compile(r"[0-9]{1,18}")


def json_length(header: str | None, body: Sequence[int]) -> int:
    """Bytes of a body's JSON; without the header all of them.

    Raises:
        MalformedBody: the header is no number, or larger than the body.
    """
    if header is None:
        return len(body)
    length = int(header) if _LENGTH.fullmatch(header) else -1
    if not 0 <= length <= len(body):
        raise MalformedBody(
            f"{LENGTH_HEADER} is {header[:40]}; expected 0 to {len(body)}, the bytes of the body "
            "once it is decompressed",
            field=LENGTH_HEADER,
            expected=len(body),
            received=header[:40],
        )
    return length


def cut(raw: memoryview, sizes: Sequence[tuple[str, int]]) -> list[memoryview]:
    """The parts of what follows the JSON.

    Args:
        raw: all of it.
        sizes: of each tensor its name and bytes, in their order.

    Raises:
        MalformedBody: they are not, together, what there is.
    """
    expected = sum(size for _, size in sizes)
    if expected != len(raw):
        names = ", ".join(f"`{name}`" for name, _ in sizes) or "no input"
        raise MalformedBody(
            f"{len(raw)} bytes follow the JSON; by their binary_data_size {names} takes {expected}",
            field="body",
            expected=expected,
            received=len(raw),
        )
    ends = itertools.accumulate(size for _, size in sizes)
    return [raw[end - size : end] for end, (_, size) in zip(ends, sizes, strict=True)]


def join(head: dict[str, Any], parts: Sequence[Part]) -> tuple[bytes, int]:
    """A body and the length of its JSON."""
    text = orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join((text, *parts)) if parts else text), len(text)
