"""Errors under `/v2`: one member, `error`, whatever went wrong."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from fastapi import Response

from service.api.replies import Reply

_ROOT = "/v2"


def covers(path: str) -> bool:
    """Whether whoever asks for this path expects the protocol's errors."""
    return path == _ROOT or path.startswith(_ROOT + "/")


def refusal(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The protocol's form of an error."""
    # What came may hold halves of characters, which JSON can say and UTF-8 cannot.
    text = detail.encode("utf-8", "replace").decode()
    return Reply(orjson.dumps({"error": text}), "application/json", status, headers)
