"""A refusal that stands is said again, word for word, to all whom it is for."""

from __future__ import annotations

import math
import time
from typing import NamedTuple

import orjson
from fastapi import Request, Response

from service.api import errors
from service.api.inference_protocol.errors import covers
from service.api.limits import priority, timeout_s
from service.api.replies import Reply
from service.api.scope import behind_s, desk_of, note_reason, request_id
from service.errors import QueueFull, Standing
from service.types import Priority

_MOST = 64
"""Paths and priorities: of the inference protocol's there is one for each model that is named."""


class Repetition(NamedTuple):
    """What is said again.

    Args:
        reason: as it is counted.
        status: HTTP status.
        media_type: of the body.
        retry_after: seconds.
        body: of the answer.
    """

    reason: str
    status: int
    media_type: bytes
    retry_after: int
    body: bytes


class _Said(NamedTuple):
    """An answer, in two parts between which the request's id stands; or in one, without it."""

    standing: Standing
    reason: str
    status: int
    media_type: bytes
    before: bytes
    after: bytes | None


class StandingRefusals:
    """What was said last, for each path and priority.

    Under a load far above what can be served all that a process does is to say no. To find out that
    it has to, and to write down why, takes most of a refusal's time.
    """

    def __init__(self) -> None:
        self._said: dict[tuple[str, Priority], _Said] = {}
        self._until_s = -math.inf

    @property
    def any(self) -> bool:
        """Whether one stands, of whatever path and priority."""
        return time.monotonic() <= self._until_s

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
        self._until_s = max(self._until_s, error.standing.until_s)
        self._said[path, priority(request)] = _Said(
            error.standing,
            errors.reason(error),
            answer.status_code,
            answer.headers["content-type"].encode(),
            before,
            after,
        )

    def of(self, path: str, urgency: Priority, left_s: float, number: str) -> Repetition | None:
        """What another was told a moment ago, where this one would be told the same.

        Args:
            path: asked for.
            urgency: of the request.
            left_s: seconds that it has.
            number: its id.
        """
        said = self._said.get((path, urgency))
        if said is None:
            return None
        standing, reason, status, media_type, body, after = said
        now_s = time.monotonic()
        if not standing.is_for(left_s, now_s):
            return None
        if after is not None:
            body += orjson.dumps(number) + after
        retry_after = errors.retry_after(standing.retry_after_s(now_s))
        return Repetition(reason, status, media_type, retry_after, body)

    def answer(self, request: Request) -> Response | None:
        """The answer to a request that would be told the same as another.

        Raises:
            InvalidInput: of its deadline or its priority.
        """
        path, urgency = request.scope["path"], priority(request)
        if (path, urgency) not in self._said:
            return None
        left_s = timeout_s(request) - behind_s(request)
        found = self.of(path, urgency, left_s, request_id(request))
        if found is None:
            return None
        errors.count(desk_of(request).tally, found.reason)
        note_reason(request, found.reason)
        headers = {"Retry-After": str(found.retry_after)}
        return Reply(found.body, found.media_type.decode(), found.status, headers)
