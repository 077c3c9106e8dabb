"""The spans of a request, in whichever process it is answered, and of the steps that compute it.

A request's trace, under its caller's span where it sent a `traceparent`:

    POST /predict
    ├── parse      read, checked, and the version found that serves it
    ├── queue      until the engine got it
    ├── sample     until it was computed (`evaluate`: with dropout off); links to its step
    └── write      the answer, until it was handed to the socket

    step           in a trace of its own: links to all the requests that were computed together

What crosses threads and processes is the `traceparent`, a line of text. Where spans go, how they
are sampled and what the service is called, OpenTelemetry's own variables say (`OTEL_*`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service import __version__
from service.tracing import Attributes, Part

_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
)
_SERVER_ERROR = 500
_LONGEST_PATH = 500
"""Characters."""

_propagator = TraceContextTextMapPropagator()


class Tracing:
    """Makes spans and sends them on, from a thread of its own."""

    def __init__(self) -> None:
        resource = Resource.create({SERVICE_VERSION: __version__})
        if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "candor"}))
        self._exporter = OTLPSpanExporter()
        self._processor = BatchSpanProcessor(self._exporter)
        requests = TracerProvider(resource=resource, shutdown_on_exit=False)
        # Whether a step is sampled was decided with its requests, the only reason to have it.
        steps = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        for provider in (requests, steps):
            provider.add_span_processor(self._processor)
        self._requests = requests.get_tracer("candor", __version__)
        self._steps = steps.get_tracer("candor", __version__)

    def request(
        self, method: str, path: str, headers: Mapping[str, str], number: str
    ) -> RequestSpans:
        """Begin the span of an HTTP request.

        Args:
            method: as it came.
            path: without its query.
            headers: `traceparent` and `tracestate`, as far as they came.
            number: its request id.
        """
        method = method if method in _METHODS else "_OTHER"
        attributes: Attributes = {
            "http.request.method": method,
            "url.path": path[:_LONGEST_PATH],
            "candor.request_id": number,
        }
        caller = _propagator.extract(headers, Context())
        span = self._requests.start_span(method, caller, SpanKind.SERVER, attributes)
        return RequestSpans(self, span, method)

    def step(
        self,
        name: str,
        begun_s: float,
        ended_s: float,
        attributes: Attributes,
        parts: Sequence[Part],
    ) -> None:
        """Note a step of the engine, and in the traces of its requests their part in it.

        Args:
            name: of the requests' spans.
            begun_s: when the engine got it (monotonic clock).
            ended_s: when its outcomes were there.
            attributes: of the step.
            parts: of those of its requests that are traced.
        """
        parents = [_context_of(part.traceparent) for part in parts]
        traced = [
            (part, parent, span)
            for part, parent in zip(parts, parents, strict=True)
            if (span := get_current_span(parent).get_span_context()).trace_flags.sampled
        ]
        if not traced:
            return
        begun_ns, ended_ns = _since_1970_ns(begun_s), _since_1970_ns(ended_s)
        links = [Link(span) for _, _, span in traced]
        step = self._steps.start_span(
            "step", Context(), attributes=attributes, links=links, start_time=begun_ns
        )
        step.end(ended_ns)
        link = [Link(step.get_span_context())]
        for part, parent, _ in traced:
            self.add("queue", parent, _since_1970_ns(part.queued_s), begun_ns)
            both = {**attributes, **part.attributes}
            self.add(name, parent, begun_ns, ended_ns, both, link)

    def close(self, timeout_s: float = 3.0) -> None:
        """Send what is left, or give up after some seconds; it tries for longer by itself."""
        give_up = threading.Timer(timeout_s, self._exporter.shutdown)
        give_up.start()
        self._processor.shutdown()  # type: ignore[no-untyped-call]
        give_up.cancel()

    def add(
        self,
        name: str,
        parent: Context,
        begun_ns: int,
        ended_ns: int,
        attributes: Attributes | None = None,
        links: Sequence[Link] = (),
    ) -> None:
        """Note a part of a request that is over."""
        span = self._requests.start_span(
            name, parent, attributes=attributes, links=links, start_time=begun_ns
        )
        span.end(ended_ns)


class RequestSpans:
    """The spans of one request, in the process that answers it."""

    def __init__(self, tracing: Tracing, span: Span, method: str) -> None:
        self._tracing = tracing
        self._span = span
        self._method = method
        self._part_ns = time.time_ns()
        self._writes = False

    @property
    def traceparent(self) -> str | None:
        """For whoever does a part of the work; None where this request is not sampled."""
        context = self._span.get_span_context()
        return _traceparent(context) if context.trace_flags.sampled else None

    @property
    def trace_id(self) -> str | None:
        """For the log; None where this request is not sampled."""
        context = self._span.get_span_context()
        return f"{context.trace_id:032x}" if context.trace_flags.sampled else None

    def parsed(self, attributes: Attributes) -> None:
        """It is known what was asked: attributes of the request."""
        self._span.set_attributes(attributes)
        self._part("parse")

    def computed(self, *, degraded: bool) -> None:
        """The answer is known, with fewer passes than were asked for or not; next it is written."""
        self._span.set_attribute("candor.degraded", degraded)
        self._part_ns = time.time_ns()
        self._writes = True

    def end(self, route: str, status: int, model: str) -> None:
        """It is answered: the answer was handed to the socket.

        Args:
            route: the path of the endpoint.
            status: code of the answer.
            model: name of one that is known, or empty.
        """
        if self._writes:
            self._part("write")
        self._span.update_name(f"{self._method} {route}")
        self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        if model:
            self._span.set_attribute("candor.model", model)
        if status >= _SERVER_ERROR:
            self._span.set_status(StatusCode.ERROR)
        self._span.end()

    def _part(self, name: str) -> None:
        """What began when the last part ended."""
        now_ns = time.time_ns()
        if self._span.is_recording():
            self._tracing.add(name, set_span_in_context(self._span), self._part_ns, now_ns)
        self._part_ns = now_ns


def _context_of(traceparent: str) -> Context:
    return _propagator.extract({"traceparent": traceparent}, Context())


def _traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def _since_1970_ns(monotonic_s: float) -> int:
    return time.time_ns() - round((time.monotonic() - monotonic_s) * 1e9)
