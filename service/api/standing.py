"""A refusal that stands is said again, word for word, to all whom it is for."""

from __future__ import annotations

import time
from typing import NamedTuple

import orjson
from fastapi import Request, Response

from service.api import errors
from service.api.inference_protocol.errors import covers
from service.api.limits import priority, timeout_s
from service.api.replies import Reply
from service.api.scope import request_id
from service.errors import QueueFull, Standing
from service.types import Priority

_MOST = 64
"""Paths and priorities: of the inference protocol's there is one for each model that is named."""


class _Said(NamedTuple):
    """An answer, in two parts between which the request's id stands; or in one, without it."""

    standing: Standing
    kind: type[QueueFull]
    status: int
    media_type: str
    before: bytes
    after: bytes | None


class StandingRefusals:
    """What was said last, for each path and priority.

    Under a load far above what can be served all that a process does is to say no. To find out that
    it has to, and to write down why, takes most of a refusal's time.
    """

    def __init__(self) -> None:
        self._said: dict[tuple[str, Priority], _Said] = {}

    def note(self, request: Request, error: QueueFull, answer: Response) -> None:
        """Remember an answer that was not completed yet, if it is for others, too."""
        if error.standing is None:
            return
        if len(self._said) >= _MOST:
            self._said.clear()
        path, body = request.scope["path"], bytes(answer.body)
        before, after = body, None
        if not covers(path):
            before, _, after = body.rpartition(orjson.dumps(request_id(request)))
        self._said[path, priority(request)] = _Said(
            error.standing,
            type(error),
            answer.status_code,
            answer.headers["content-type"],
            before,
            after,
        )

    def answer(self, request: Request) -> Response | None:
        """What another was told a moment ago, where this one would be told the same.

        Raises:
            InvalidInput: of its deadline or its priority.
        """
        said = self._said.get((request.scope["path"], priority(request)))
        if said is None:
            return None
        now_s = time.monotonic()
        if not said.standing.is_for(timeout_s(request), now_s):
            return None
        errors.repeat(request, said.kind)
        body = said.before
        if said.after is not None:
            body += orjson.dumps(request_id(request)) + said.after
        headers = errors.retry_after(said.standing.retry_after_s(now_s))
        return Reply(body, said.media_type, said.status, headers)
