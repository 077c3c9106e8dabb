"""What `/openapi.json` says of the protocol's bodies."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.api.bodies import JSON
from service.api.inference_protocol.binary import LENGTH_HEADER
from service.api.inference_protocol.tensors import DATATYPES

Parameter = str | int | float | bool
Parameters = dict[str, Parameter]

_ERRORS: dict[int, str] = {
    400: "The request is none of the protocol's",
    404: "No such model, or version",
    413: "Body, or rows × passes, over the limit",
    415: "A Content-Encoding that is not read here",
    422: "A value that does not fit, named",
    429: "Queue full; see Retry-After",
    500: "A bug, or the model failed on this input",
    503: "Not ready, or shutting down; see Retry-After",
    504: "The deadline passed",
}


class Refusal(BaseModel):
    """Every error under /v2."""

    error: str


class Live(BaseModel):
    """Answer of `GET /v2/health/live`."""

    live: bool


class Ready(BaseModel):
    """Answer of `GET /v2/health/ready`."""

    ready: bool


class ModelReady(BaseModel):
    """Answer of `GET /v2/models/{model}/ready`."""

    name: str
    ready: bool


class ServerMetadata(BaseModel):
    """Answer of `GET /v2`."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """An input or output; −1 is a dimension that varies."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """Answer of `GET /v2/models/{model}`."""

    name: str
    versions: list[str] = Field(description="that are ready")
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class TensorConfig(BaseModel):
    """An input or output; `dims` without that of the rows."""

    name: str
    data_type: str
    dims: list[int]


class ModelConfig(BaseModel):
    """Answer of `GET /v2/models/{model}/config`."""

    name: str
    platform: str
    backend: str
    max_batch_size: int = Field(description="rows of a request with the model's own passes")
    dynamic_batching: dict[str, Any] = Field(description="there is one, without options")
    input: list[TensorConfig]
    output: list[TensorConfig]


class InferInput(BaseModel):
    """The one input."""

    name: str
    shape: list[int] = Field(description="[B, D...]")
    datatype: str = Field(description=f"one of {', '.join(DATATYPES)}")
    parameters: Parameters | None = Field(None, description="binary_data_size, instead of data")
    data: list[Any] | None = Field(None, description="nested or flat, row-major")


class InferOutputAsked(BaseModel):
    """An output that is wanted."""

    name: str
    parameters: Parameters | None = Field(None, description="binary_data")


class InferBody(BaseModel):
    """Body of infer."""

    id: str | None = None
    parameters: Parameters | None = Field(
        None,
        description='passes, tolerance, max_passes, seed, masks; mode: "eval"; timeout in '
        "microseconds; priority: high, normal or low, or 1 to 3; binary_data_output",
    )
    inputs: list[InferInput]
    outputs: list[InferOutputAsked] | None = Field(
        None, description="default: what /predict answers by itself"
    )


class InferOutput(BaseModel):
    """An output."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = None
    data: list[Any] | None = Field(None, description="flat, row-major; NaN and infinity are null")


class InferAnswer(BaseModel):
    """Answer of infer."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    id: str | None = None
    parameters: Parameters = Field(description="what was used")
    outputs: list[InferOutput]


def describe_infer(*parameters: str) -> dict[str, Any]:
    """Keyword arguments for a route of infer, whose path has these parameters."""
    octets = {
        "application/octet-stream": {
            "schema": {
                "type": "string",
                "format": "binary",
                "description": f"JSON of {LENGTH_HEADER} bytes, then tensors",
            }
        }
    }
    schema = {"schema": _whole(InferBody)}
    return {
        "openapi_extra": {
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in parameters
            ],
            "requestBody": {"required": True, "content": {JSON: schema, **octets}},
        },
        "responses": {200: {"model": InferAnswer, "content": octets}, **refusals(*_ERRORS)},
    }


def _whole(body: type[BaseModel]) -> dict[str, Any]:
    """A schema with what it refers to in the place of the reference."""
    schema = body.model_json_schema()
    parts = schema.pop("$defs", {})

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(one) for one in value]
        if not isinstance(value, dict):
            return value
        if "$ref" in value:
            return filled(parts[value["$ref"].rpartition("/")[2]])
        return {key: filled(one) for key, one in value.items()}

    found: dict[str, Any] = filled(schema)
    return found


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer these errors."""
    return {code: {"description": _ERRORS[code], "model": Refusal} for code in codes}


class Count(BaseModel):
    """How often something was done, and its nanoseconds in all."""

    count: int
    ns: int


class InferStatistics(BaseModel):
    """Of the requests of a version."""

    success: Count
    fail: Count
    queue: Count
    compute_input: Count
    compute_infer: Count
    compute_output: Count
    cache_hit: Count
    cache_miss: Count


class BatchStatistics(BaseModel):
    """Of the batches of one number of rows."""

    batch_size: int = Field(description="rows; above 256 the next power of two")
    compute_input: Count
    compute_infer: Count
    compute_output: Count


class ModelStatistics(BaseModel):
    """Of one version."""

    name: str
    version: str
    last_inference: int = Field(description="milliseconds since 1970; 0: none yet")
    inference_count: int = Field(description="rows that were answered")
    execution_count: int = Field(description="batches that ran")
    inference_stats: InferStatistics
    batch_stats: list[BatchStatistics]


class Statistics(BaseModel):
    """Answer of the statistics routes."""

    model_config = ConfigDict(protected_namespaces=())

    model_stats: list[ModelStatistics]


class IndexBody(BaseModel):
    """Body of `POST /v2/repository/index`; may be missing."""

    ready: bool = Field(False, description="only versions that serve")


class IndexEntry(BaseModel):
    """A version of a model, or a model without any."""

    name: str
    version: str | None = None
    state: str = Field(description="READY, LOADING or UNAVAILABLE")
    reason: str


class RepositoryBody(BaseModel):
    """Body of load and unload; may be missing."""

    parameters: dict[str, Any] | None = Field(
        None, description="of unload: unload_dependents, of which there are none"
    )


class Loaded(BaseModel):
    """Answer of load."""

    name: str
    load: bool


class Unloaded(BaseModel):
    """Answer of unload."""

    name: str
    unload: bool


def describe_optional(body: type[BaseModel]) -> dict[str, Any]:
    """Keyword arguments for a route whose body may be missing."""
    content = {JSON: {"schema": _whole(body)}}
    return {"openapi_extra": {"requestBody": {"required": False, "content": content}}}
