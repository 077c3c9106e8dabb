"""The limits of a single request."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from fastapi import Request
from starlette.types import Message, Receive

from service.api.scope import desk_of, header, remembered
from service.errors import InvalidInput, LimitExceeded, QueueFull
from service.inference.fields import KEPT_FIELDS
from service.registry.verified import VerifiedModel
from service.types import Priority, SamplePlan

_RETRY_AFTER_S = 1.0

_AT_MOST_BYTES = 128
"""Of all fields that there are, eight bytes each, for an output, a row and a pass."""

TIMEOUT_HEADER = "X-Request-Timeout"
PRIORITY_HEADER = "X-Request-Priority"
_TIMEOUT_NAME = TIMEOUT_HEADER.lower().encode()
_PRIORITY_NAME = PRIORITY_HEADER.lower().encode()


class BodyBudget:
    """Bytes of request bodies that one process holds at a time.

    Args:
        limit_bytes: of all together; one body alone may have more, for that is another limit's.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.held_bytes = 0

    def share(self) -> BodyShare:
        """Of one request."""
        return BodyShare(self)

    def take(self, own_bytes: int, more_bytes: int) -> None:
        """Make room for a part of a body.

        Args:
            own_bytes: of the same body, taken before.
            more_bytes: of the part.

        Raises:
            QueueFull: others' bodies leave no room.
        """
        if self.held_bytes > own_bytes and self.held_bytes + more_bytes > self._limit_bytes:
            raise QueueFull(
                f"{self.held_bytes} bytes of request bodies are in memory, and more are over the "
                f"limit of {self._limit_bytes} (CANDOR_BODY_BYTES); send it again later",
                retry_after_s=_RETRY_AFTER_S,
            )
        self.held_bytes += more_bytes

    def give_back(self, own_bytes: int) -> None:
        """A request is over, and its body is gone."""
        self.held_bytes -= own_bytes


class BodyShare:
    """What one request has of a budget."""

    __slots__ = ("_budget", "_own_bytes")

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self._own_bytes = 0

    def take(self, more_bytes: int) -> None:
        """See `BodyBudget.take`."""
        self._budget.take(self._own_bytes, more_bytes)
        self._own_bytes += more_bytes

    def give_back(self) -> None:
        """The request is over."""
        self._budget.give_back(self._own_bytes)

    def counted(self, receive: Receive) -> Receive:
        """A request's `receive`, that takes what comes."""

        async def receive_counted() -> Message:
            message = await receive()
            if part := message.get("body"):
                self.take(len(part))
            return message

        return receive_counted


def check_work(request: Request, rows: int, passes: int, passes_field: str = "passes") -> None:
    """Refuse more rows × passes than the server's limit.

    Args:
        request: of this server.
        rows: B.
        passes: the most of a row.
        passes_field: what the request calls them.

    Raises:
        LimitExceeded: naming the limit.
    """
    limit = desk_of(request).settings.max_work
    if rows * passes > limit:
        raise LimitExceeded(
            f"{rows} rows × {passes} {passes_field} are {rows * passes}; the limit is {limit} "
            f"(CANDOR_MAX_WORK); send fewer rows at once, or fewer {passes_field}",
            field=passes_field if passes > limit else "inputs",
            expected=limit,
            received=rows * passes,
        )


def check_answer(
    model: VerifiedModel,
    shape: Sequence[int],
    plan: SamplePlan | None,
    fields: Collection[str],
    limit_bytes: int,
) -> None:
    """Refuse what would have larger arrays than the server's limit.

    Rows × passes say little of a network that answers for every place of an image.

    Args:
        model: that is to answer.
        shape: [B, D...] of the inputs.
        plan: None for a deterministic pass.
        fields: wanted.
        limit_bytes: the limit.

    Raises:
        LimitExceeded: naming the limit.
    """
    passes = 1 if plan is None else plan.passes
    no_places = len(model.held["mean"].shape) == 2
    if no_places and shape[0] * passes * (model.outputs + 1) * _AT_MOST_BYTES <= limit_bytes:
        # As nearly always; to say it exactly takes longer.
        return
    size_bytes = model.answer_bytes(shape, passes, fields)
    if size_bytes > limit_bytes:
        kept = [name for name in fields if name in KEPT_FIELDS]
        fewer = f", fewer passes, or ask for less than {', '.join(kept)}" if kept else ""
        raise LimitExceeded(
            f"the answer and what is kept for it would have {size_bytes} bytes; the limit is "
            f"{limit_bytes} (CANDOR_MAX_ANSWER_BYTES); send fewer rows at once{fewer}",
            field="return" if kept else "inputs",
            expected=limit_bytes,
            received=size_bytes,
        )


def timeout_s(request: Request) -> float:
    """Seconds this request may take: what it asks for, at most the server's own.

    Raises:
        InvalidInput: the header is no positive number.
    """
    return remembered(request, "timeout_s", lambda: _timeout_s(request))


def _timeout_s(request: Request) -> float:
    longest_s = desk_of(request).settings.request_timeout_s
    given = header(request, _TIMEOUT_NAME)
    allowed = allowed_s(given, longest_s)
    if allowed is None:
        raise InvalidInput(
            f"`{TIMEOUT_HEADER}` is {given!r}; expected a positive number of seconds",
            field=TIMEOUT_HEADER,
            expected="a positive number of seconds",
            received=given,
        )
    return allowed


def allowed_s(given: str | bytes | None, longest_s: float) -> float | None:
    """Seconds that a request may take; None where what it asks for is no positive number.

    Args:
        given: what it asks for; None where it does not.
        longest_s: that any may take.
    """
    if given is None:
        return longest_s
    try:
        wanted_s = float(given)
    except ValueError:
        return None
    return min(wanted_s, longest_s) if wanted_s > 0 else None


def priority(request: Request) -> Priority:
    """What the request says, or normal.

    Raises:
        InvalidInput: the header is none of them.
    """
    return remembered(request, "priority", lambda: _priority(request))


def _priority(request: Request) -> Priority:
    given = header(request, _PRIORITY_NAME)
    if given is None:
        return Priority.NORMAL
    try:
        return Priority[given.strip().upper()]
    except KeyError:
        known = [name.lower() for name in Priority.__members__]
        raise InvalidInput(
            f"`{PRIORITY_HEADER}` is {given!r}; expected one of {', '.join(known)}",
            field=PRIORITY_HEADER,
            expected=known,
            received=given,
        ) from None
