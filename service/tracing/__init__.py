"""Traces of requests by OpenTelemetry, of which nothing is imported unless they are switched on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.errors import InvalidInput
from service.settings import Settings

if TYPE_CHECKING:
    from service.tracing.spans import Tracing

Attributes = Mapping[str, str | bool | int | float]


@dataclass(frozen=True, slots=True)
class Part:
    """One request's part in a step of the engine.

    Args:
        traceparent: of the request's span.
        queued_s: when it was queued (monotonic clock).
        attributes: of its part.
    """

    traceparent: str
    queued_s: float
    attributes: Attributes


def tracing_by(settings: Settings) -> Tracing | None:
    """What traces requests in this process; None where that is off.

    Raises:
        InvalidInput: it is on and OpenTelemetry is not installed.
    """
    if not settings.tracing:
        return None
    try:
        from service.tracing.spans import Tracing
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"CANDOR_TRACING needs OpenTelemetry ({error}): pip install 'candor[otel]', or switch "
            "it off",
            field="CANDOR_TRACING",
        ) from None
    return Tracing()
