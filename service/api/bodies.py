"""Reads requests and writes answers: JSON or NumPy's formats, straight to and from arrays."""

from __future__ import annotations

import functools
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import numpy as np
import orjson
from fastapi import Request, Response
from numpy.typing import NDArray
from pydantic import ValidationError

from service.api.npz import npz
from service.api.replies import Reply
from service.api.scope import header
from service.errors import InvalidInput, LimitExceeded, MalformedBody, UnsupportedMedia
from service.registry.inputs import array_from_lists, conform
from service.registry.manifest import InputSpec
from service.schemas import EvalRequest, FieldName
from service.types import Masks

NPY = "application/x-npy"
NPZ = "application/x-npz"
JSON = "application/json"

_NPY_LENGTHS = {b"\x01": 2, b"\x02": 4}
"""Bytes of the length of a .npy's header, by the format's version."""

_LISTS = ("return", "exclude")
"""Fields that stand in the query with commas between their values."""

RequestT = TypeVar("RequestT", bound=EvalRequest)


@dataclass(frozen=True, slots=True)
class RawInputs:
    """Inputs as they came, before it is known which model they are for."""

    value: Any

    def batch(self, spec: InputSpec) -> NDArray[Any]:
        """The batch [B, D...] in the model's dtype.

        Raises:
            InvalidInput: it is no such batch.
        """
        if isinstance(self.value, np.ndarray):
            return conform(self.value, spec)
        return array_from_lists(self.value, spec)


async def read_request(
    request: Request, schema: type[RequestT], limit_bytes: int
) -> tuple[RequestT, RawInputs]:
    """Read a body of either kind; with .npy the other fields are query parameters.

    Raises:
        UnsupportedMedia: neither kind.
        LimitExceeded: more than `limit_bytes`.
        MalformedBody: not JSON, not an object, or not .npy.
        InvalidInput: a field that is unknown or does not fit.
    """
    kind = header(request, b"content-type")
    kind = JSON if kind is None else kind.partition(";")[0].strip().lower()
    if kind not in (JSON, NPY):
        raise UnsupportedMedia(
            f"bodies of {kind or 'no type'} are not read here; send Content-Type: {JSON} or {NPY}",
            field="Content-Type",
            expected=[JSON, NPY],
            received=kind,
        )
    encoding = header(request, b"content-encoding")
    if encoding not in (None, "identity"):
        raise UnsupportedMedia(
            f"bodies with Content-Encoding: {encoding} are not read here; send them as they are",
            field="Content-Encoding",
            received=encoding,
        )
    body = await read_body(request, limit_bytes)
    if kind == NPY:
        array = read_npy(body)
        return check(schema, _query_fields(request, schema)), RawInputs(array)
    if request.scope["query_string"] and request.query_params:
        unexpected = next(iter(request.query_params))
        raise InvalidInput(
            f"`{unexpected}` stands in the query; with a JSON body every field stands in the body",
            field=unexpected,
        )
    fields = read_json(body)
    inputs = fields.pop("inputs", None)
    return check(schema, fields, strict=True), RawInputs(inputs)


async def read_body(request: Request, limit_bytes: int) -> bytearray:
    """The whole body.

    Raises:
        LimitExceeded: more than `limit_bytes`.
        MalformedBody: the client left before its end.
    """

    def too_large(size: str) -> LimitExceeded:
        return LimitExceeded(
            f"the body has {size} bytes; the limit is {limit_bytes} (CANDOR_MAX_BODY_BYTES)",
            field="body",
            expected=limit_bytes,
        )

    announced = header(request, b"content-length") or ""
    if announced.isdigit() and int(announced) > limit_bytes:
        raise too_large(announced)
    # Writable, so that an array over it need not be copied to become a tensor.
    body = bytearray()
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise MalformedBody("the client left before its body was complete")
        part, more = message.get("body", b""), message.get("more_body", False)
        if len(body) + len(part) > limit_bytes:
            raise too_large(f"over {limit_bytes}")
        body += part
    return body


def read_json(body: bytes | bytearray) -> dict[str, Any]:
    """A JSON object, in which NaN and infinity may stand as Python writes them.

    Raises:
        MalformedBody: it is none.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        content = _read_json_with_nan(body, error)
    if not isinstance(content, dict):
        raise MalformedBody(
            f"the body is a JSON {type(content).__name__}; expected an object",
            expected="object",
            received=type(content).__name__,
        )
    return content


def _read_json_with_nan(body: bytes | bytearray, error: Exception) -> Any:
    # Python's own json writes NaN and Infinity; such a body gets the error that names the index.
    try:
        # Decoded here: given bytes, json would guess that they may be UTF-16.
        content = json.loads(body.decode())
        if b"\\u" in body:
            # Halves of characters are none, and nothing further on could write them.
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except (ValueError, RecursionError):
        raise MalformedBody(f"the body is not JSON: {error}") from None


def read_npy(body: bytes | bytearray) -> NDArray[Any]:
    """An array from the bytes of a .npy file, without copying and without trusting its header.

    Raises:
        MalformedBody: it is no such file, holds objects, or its size is not what its header says.
    """
    try:
        # Without the magic string's end no length is read; the reader then says what is missing.
        size = _NPY_LENGTHS[bytes(body[6:7])]
        start = 8 + size + int.from_bytes(body[8 : 8 + size], "little")
    except KeyError:
        start = 8
    try:
        shape, fortran_order, dtype = _npy_header(bytes(body[:start]))
    except Exception as error:
        # numpy parses the header as a Python literal, which fails in many ways.
        raise MalformedBody(f"the body is not .npy: {error}", field="inputs") from None
    if dtype.hasobject:
        raise MalformedBody("the .npy holds Python objects; expected numbers", field="inputs")
    expected = math.prod(shape) * dtype.itemsize
    received = len(body) - start
    if any(size < 0 for size in shape) or received != expected:
        raise MalformedBody(
            f"the .npy's header says {list(shape)} of {dtype}, {expected} bytes; {received} follow",
            field="inputs",
            expected=expected,
            received=received,
        )
    try:
        flat = np.frombuffer(body, dtype=dtype, offset=start)
        return flat.reshape(shape, order="F" if fortran_order else "C")
    except (ValueError, TypeError, OverflowError) as error:
        # Nothing times more than a computer can count, elements of no size, truth as a length.
        raise MalformedBody(f"the body is not .npy: {error}", field="inputs") from None


@functools.lru_cache(maxsize=1024)
def _npy_header(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype; a client sends the same ones again and again."""
    stream = io.BytesIO(head)
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read_header is None:
        raise ValueError(f"version {version} of the format is not read here")
    found: tuple[tuple[int, ...], bool, np.dtype[Any]] = read_header(stream)
    return found


def _query_fields(request: Request, schema: type[EvalRequest]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if not request.scope["query_string"]:
        return fields
    for name, value in request.query_params.multi_items():
        if name in _LISTS:
            fields.setdefault(name, []).extend(value.split(","))
        elif name in fields:
            raise InvalidInput(f"`{name}` stands twice in the query", field=name)
        else:
            fields[name] = value
    if "inputs" in fields:
        raise InvalidInput("`inputs` is the .npy body, not a query parameter", field="inputs")
    return fields


def check(schema: type[RequestT], fields: Mapping[str, Any], *, strict: bool = False) -> RequestT:
    """The fields of a request, checked; `strict` where they are not read from text.

    Raises:
        InvalidInput: naming the first that is unknown or does not fit.
    """
    try:
        return schema.model_validate(fields, strict=strict)
    except ValidationError as error:
        problem = min(error.errors(), key=lambda p: p["type"] != "extra_forbidden")
        raise _in_words(problem, schema) from None


def _in_words(problem: Any, schema: type[EvalRequest]) -> InvalidInput:
    location = [part for part in problem["loc"] if part not in ("int", "constrained-int")]
    name = str(location[0])
    if problem["type"] == "extra_forbidden":
        known = [field.alias or key for key, field in schema.model_fields.items()]
        return InvalidInput(
            f"`{name}` is not a field here; known are {', '.join(known)}",
            field=name,
            expected=known,
        )
    if problem["type"] == "missing":
        return InvalidInput(f"`{name}` is missing", field=name)
    received = problem["input"]
    if name == "version":
        expected: Any = "an integer of at least 1 and 64 bits, or a label such as stable"
    elif name == "seed":
        expected = 'an integer of 64 bits, or "random"'
    elif name == "return":
        expected = list(get_args(FieldName))
    elif name == "masks":
        expected = list(Masks)
    elif problem["type"] == "greater_than_equal":
        expected = f"an integer of at least {problem['ctx']['ge']}"
    else:
        expected = expectation(problem["msg"])
    return InvalidInput(
        f"`{name}` is {received!r}; expected {_listed(expected)}",
        field=name,
        expected=expected,
        received=received,
    )


def expectation(message: str) -> str:
    """What pydantic says that a value should be."""
    wanted = message.removeprefix("Input should be ").replace("valid ", "")
    return wanted.replace("a integer", "an integer")


def _listed(expected: Any) -> str:
    return f"one of {', '.join(expected)}" if isinstance(expected, list) else str(expected)


def wants_npz(request: Request) -> bool:
    """Whether the client asked for arrays instead of JSON."""
    return NPZ in (header(request, b"accept") or "")


def write_json(content: Mapping[str, Any]) -> Response:
    """Arrays are written as they are; NaN and infinity as null."""
    return Reply(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY), JSON)


def write_npz(content: Mapping[str, Any]) -> Response:
    """Every field that is not null as an array of its name; single values have no dimension."""
    arrays = {name: np.asarray(value) for name, value in content.items() if value is not None}
    return Reply(npz(arrays), NPZ)
