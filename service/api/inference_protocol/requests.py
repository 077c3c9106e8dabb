"""What an infer request says, checked as far as it goes without its model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.api.bodies import read_json
from service.api.inference_protocol.binary import cut
from service.api.inference_protocol.tensors import (
    BYTES,
    DATATYPES,
    datatype_of,
    from_bytes,
    from_json,
)
from service.errors import InvalidInput, MalformedBody
from service.registry.inputs import conform
from service.registry.manifest import InputSpec

INPUT = "input"
"""The name of every model's one input."""

Parameters = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class AskedOutput:
    """An output that is asked for; `binary` is None where it does not say."""

    name: str
    binary: bool | None


@dataclass(frozen=True, slots=True)
class InferRequest:
    """An infer request.

    Args:
        id: to be echoed; None where there is none.
        parameters: of the request as a whole.
        array: the one input, of the datatype that came.
        outputs: asked for; none: the model's defaults.
    """

    id: str | None
    parameters: Parameters
    array: NDArray[Any]
    outputs: tuple[AskedOutput, ...]

    def binary(self, output: str) -> bool:
        """Whether an output is to be sent as bytes."""
        own = next((one.binary for one in self.outputs if one.name == output), None)
        return bool(self.parameters.get("binary_data_output", False)) if own is None else own


def read_infer(body: bytearray, json_bytes: int) -> InferRequest:
    """A request of JSON and, after that many bytes of it, binary data.

    Raises:
        MalformedBody: it is no such request.
        InvalidInput: a number that its datatype cannot hold.
    """
    whole = json_bytes == len(body)
    content = read_json(body if whole else bytes(memoryview(body)[:json_bytes]))
    number = content.get("id")
    if number is not None and not isinstance(number, str):
        raise _unfit("id", number, "a string")
    parameters = _parameters(content, "parameters")
    _flag(parameters, "binary_data_output", "parameters")
    return InferRequest(
        number or None,
        parameters,
        _read_input(content, memoryview(body)[json_bytes:]),
        _outputs(content),
    )


def read_raw(body: bytearray, spec: InputSpec) -> InferRequest:
    """A request that is nothing but its input's bytes; its outputs come as bytes, too.

    How many rows they are follows from the size of one; where a row has a dimension that varies it
    is one row, and that dimension follows.

    Raises:
        MalformedBody: they are no whole number of rows, or more than one dimension varies.
    """
    dtype = np.dtype(spec.dtype)
    datatype = datatype_of(dtype)
    shape = [-1, *spec.shape] if -1 not in spec.shape else [1, *spec.shape]
    known = dtype.itemsize
    for size in shape:
        known *= size if size != -1 else 1
    if shape.count(-1) != 1 or not body or len(body) % known:
        raise MalformedBody(
            f"{len(body)} bytes without JSON are no batch of this model, of which {known} bytes "
            "are one row or place"
            + ("" if shape.count(-1) == 1 else "; more than one dimension varies: send JSON first"),
            field="body",
            expected=known,
            received=len(body),
        )
    sizes = [len(body) // known if size == -1 else size for size in shape]
    array = from_bytes(memoryview(body), datatype, sizes, INPUT)
    return InferRequest(None, {"binary_data_output": True}, array, ())


def batch(array: NDArray[Any], spec: InputSpec) -> NDArray[Any]:
    """The input [B, D...] in the model's dtype.

    Raises:
        InvalidInput: it is no such batch.
    """
    if array.dtype.kind == "O":
        wanted = datatype_of(np.dtype(spec.dtype))
        raise InvalidInput(
            f"`{INPUT}` is {BYTES}; this model takes {wanted}",
            field=INPUT,
            expected=wanted,
            received=BYTES,
        )
    return conform(array, spec, INPUT)


def _read_input(content: Mapping[str, Any], raw: memoryview) -> NDArray[Any]:
    inputs = content.get("inputs")
    if not isinstance(inputs, list) or not all(isinstance(one, dict) for one in inputs):
        raise MalformedBody(
            "`inputs` is to be a list of tensors, {name, shape, datatype, data}", field="inputs"
        )
    names = [one.get("name") for one in inputs]
    if names != [INPUT]:
        shown = ", ".join(repr(name)[:100] for name in names[:10]) or "none"
        raise MalformedBody(
            f"the inputs are {shown}; every model here has one, {INPUT!r}",
            field="inputs",
            expected=[INPUT],
        )
    [tensor] = inputs
    shape, datatype, data = (tensor.get(key) for key in ("shape", "datatype", "data"))
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise _unfit("datatype", datatype, f"one of {', '.join(DATATYPES)}")
    if not isinstance(shape, list):
        raise _unfit("shape", shape, "a list of sizes")
    where = f"parameters of {INPUT}"
    parameters = _parameters(tensor, where)
    _refuse_extensions(parameters, where, "inputs")
    size = parameters.get("binary_data_size")
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise _unfit("binary_data_size", size, "a number of bytes")
    if size is not None and data is not None:
        raise MalformedBody(
            f"`{INPUT}` has both `data` and `binary_data_size`; expected one of them", field=INPUT
        )
    parts = cut(raw, [] if size is None else [(INPUT, size)])
    if parts:
        return from_bytes(parts[0], datatype, shape, INPUT)
    return from_json(data, datatype, shape, INPUT)


def _outputs(content: Mapping[str, Any]) -> tuple[AskedOutput, ...]:
    outputs = content.get("outputs")
    if outputs is None:
        return ()
    if not isinstance(outputs, list) or not all(isinstance(one, dict) for one in outputs):
        raise MalformedBody("`outputs` is to be a list of {name, parameters}", field="outputs")
    found: dict[str, AskedOutput] = {}
    for one in outputs:
        name = one.get("name")
        if not isinstance(name, str):
            raise _unfit("name", name, "the name of an output")
        if name in found:
            raise MalformedBody(f"the output {name[:100]!r} is asked for twice", field="outputs")
        where = f"parameters of the output {name[:100]}"
        parameters = _parameters(one, where)
        _refuse_extensions(parameters, where, "outputs")
        found[name] = AskedOutput(name, _flag(parameters, "binary_data", where))
    return tuple(found.values())


def _parameters(content: Mapping[str, Any], where: str) -> Parameters:
    given = content.get("parameters")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise _unfit(where, given, "an object of strings, numbers and booleans")
    for name, value in given.items():
        if not isinstance(value, str | int | float | bool):
            raise _unfit(f"{name[:100]}` in the `{where}", value, "a string, number or boolean")
    return given


def _refuse_extensions(parameters: Parameters, where: str, field: str) -> None:
    """What only servers with these extensions can answer."""
    for unknown in ("classification", "shared_memory_region"):
        if parameters.get(unknown):
            raise MalformedBody(
                f"`{unknown}` stands in the {where}; that extension is not spoken here, see "
                "GET /v2",
                field=field,
            )


def _flag(parameters: Parameters, name: str, where: str) -> bool | None:
    value = parameters.get(name)
    if value is not None and not isinstance(value, bool):
        raise _unfit(f"{name}` in the `{where}", value, "true or false")
    return value


def _unfit(name: str, received: Any, expected: str) -> MalformedBody:
    return MalformedBody(
        f"`{name}` is {repr(received)[:100]}; expected {expected}",
        field=name,
        expected=expected,
        received=received,
    )
