"""What `/openapi.json` says of routes that read and write bodies by themselves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from service.api.bodies import JSON, NPY, NPZ
from service.schemas import Problem

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PROBLEMS: dict[int, str] = {
    400: "Not JSON, not an array, or a malformed .npy",
    401: "No token, or one that is not the server's",
    403: "The token lacks the scope",
    404: "No such model, version, sample or report",
    409: "Somebody else's to label; see Retry-After",
    413: "Body, or rows × passes, over the limit",
    415: "A content type that is not read here",
    422: "A field that does not fit, named",
    429: "Queue full; see Retry-After",
    500: "A bug, or the model failed on this input",
    503: "Not ready, or shutting down; see Retry-After",
    504: "The deadline passed",
}


def describe(body: type[BaseModel], answer: type[BaseModel]) -> dict[str, Any]:
    """Keyword arguments for a route: schemas of its body, its answer and its errors."""
    schema = body.model_json_schema()
    return {
        "openapi_extra": {
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": schema}, NPY: _BINARY},
            }
        },
        "responses": {
            200: {"model": answer, "content": {NPZ: _BINARY}},
            **problems(*(code for code in _PROBLEMS if code not in (401, 403, 409))),
        },
    }


def problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer these errors."""
    content = {"application/problem+json": {"schema": Problem.model_json_schema()}}
    return {code: {"description": _PROBLEMS[code], "content": content} for code in codes}
