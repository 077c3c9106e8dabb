"""Every error that Candor raises on purpose.

CandorError
├── ModelNotFound         no such model or version
├── ModelNotReady         it exists and does not serve (loading, failed), or the server drains
├── ModelBroken           a model folder that cannot be served, with what to do about it
│   └── NoStochasticSite  nothing in the model drops anything
├── InvalidInput          a value of the request does not fit; names the field
│   ├── MalformedBody     the body could not be read as JSON or .npy at all
│   └── UnsupportedMedia  the body is of a kind that is not read here
├── CalibrationFailed     data from which nothing can be calibrated or measured; names the field
│   └── TooFewRows        there are not rows enough; says how many are needed
├── Unauthenticated       no token, or one that nobody gave out
├── Forbidden             the token does not cover it, or a page of another site asks
├── LimitExceeded         the request is larger than a limit, which it names
├── QueueFull             too much is waiting already
│   └── DeadlineUnreachable  so much that the answer would come too late
├── DeadlineExceeded      the deadline passed
├── QueueTimeout          it waited longer than requests may wait
├── ClientLeft            nobody waits for the answer any more
├── EngineFailure         a model that was verified failed on this input
├── StoreError            the sample store cannot be reached, read or written
│   └── SampleRefused     it does not take a value, whoever tries how often
├── ReportNotFound        the version has no such report
│   └── ReportBroken      what lies there under its name is none; says why
├── SampleNotFound        there is no such sample
├── SampleConflict        it is somebody else's to label, or has its label
└── ServerUnreachable     the client could not reach a server

Domain code raises them and knows no HTTP; `api/errors.py` maps each to its status.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple


class CandorError(Exception):
    """Base of every error raised on purpose.

    Args:
        message: a sentence that says what is wrong and, where there is one, the remedy.
        field: the request's field at fault.
        expected: what would have been right.
        received: what came instead.
        retry_after_s: seconds after which the same request may succeed.
    """

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        expected: Any = None,
        received: Any = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.expected = expected
        self.received = received
        self.retry_after_s = retry_after_s

    @classmethod
    def slug(cls) -> str:
        """The name in a problem's `type`: QueueFull → queue-full."""
        return re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()


class ModelNotFound(CandorError):
    """No model or version of that name."""


class ModelNotReady(CandorError):
    """The model exists and does not serve now, or the server is draining."""


class ModelBroken(CandorError):
    """A model folder cannot be served; the message says why and what to do."""


class NoStochasticSite(ModelBroken):
    """Nothing in the model drops anything, so it cannot say how sure it is."""


class InvalidInput(CandorError):
    """A value of the request does not fit; `field` names which."""


class MalformedBody(InvalidInput):
    """The body could not be read at all."""


class UnsupportedMedia(InvalidInput):
    """The body is of a content type that is not read here."""


class CalibrationFailed(CandorError):
    """Nothing can be calibrated or measured on this data; `field` names the part at fault."""


class TooFewRows(CalibrationFailed):
    """There are not rows enough; `expected` is the number needed, `received` what came."""


class Unauthenticated(CandorError):
    """No token, or one that is not the server's.

    Args:
        challenges: ways to say who asks, each as a header WWW-Authenticate has it.
    """

    def __init__(
        self, message: str, *, challenges: Sequence[str] = ("Bearer",), **more: Any
    ) -> None:
        super().__init__(message, **more)
        self.challenges = challenges


class Forbidden(CandorError):
    """The token does not cover this, or a page of another site has sent it."""


class LimitExceeded(CandorError):
    """The request is larger than a limit, which the message names."""


class Standing(NamedTuple):
    """Whom else a refusal is for, so that it need not be thought of again.

    Args:
        until_s: until when, by the monotonic clock.
        left_s: for whoever has less seconds than that.
        retry_after_s: gives the next one its time to come back, at a time of that clock.
    """

    until_s: float
    left_s: float
    retry_after_s: Callable[[float], float]

    def with_more(self, seconds: float) -> Standing:
        """The same for who has so much less time than it says."""
        return self._replace(left_s=self.left_s + seconds)

    def is_for(self, left_s: float, now_s: float) -> bool:
        """Whether one that comes now and has so many seconds would be refused, too."""
        return now_s <= self.until_s and left_s < self.left_s


class QueueFull(CandorError):
    """Too much work is waiting already; `standing` where the next one of its priority would find it
    so, too."""

    standing: Standing | None = None


class DeadlineUnreachable(QueueFull):
    """By what is known, the answer would come after the request's deadline; nothing was begun."""


class QueueTimeout(CandorError):
    """The request waited for the engine longer than it may, and was not begun."""


class DeadlineExceeded(CandorError):
    """The deadline passed before the answer was there."""


class ClientLeft(CandorError):
    """The client closed its connection before the answer was there."""


class EngineFailure(CandorError):
    """The model raised on this input; nobody else's request is affected."""


class StoreError(CandorError):
    """The sample store cannot be reached, read or written; predictions go on without it."""


class SampleRefused(StoreError):
    """The database does not take a value of a sample, whoever tries how often."""


class ReportNotFound(CandorError):
    """The version has no report of that name, or none with a page."""


class ReportBroken(ReportNotFound):
    """What lies there under the name of a report is none; the message says why."""


class SampleNotFound(CandorError):
    """There is no sample of that id."""


class SampleConflict(CandorError):
    """The sample is somebody else's to label, has its label, or has none that could be undone;
    `retry_after_s` says how long it is somebody's."""


class ServerUnreachable(CandorError):
    """The client could not reach a server."""


def error_class(slug: str) -> type[CandorError]:
    """The class of that slug; CandorError where there is none."""

    def below(parent: type[CandorError]) -> Iterator[type[CandorError]]:
        for child in parent.__subclasses__():
            yield child
            yield from below(child)

    return next((kind for kind in below(CandorError) if kind.slug() == slug), CandorError)
