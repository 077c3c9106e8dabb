"""A collector of OpenTelemetry's traces: takes OTLP over HTTP and keeps the spans."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_WAIT_S = 60.0


@dataclass(frozen=True)
class Collector:
    """Its address, what services called themselves, and the spans that came so far."""

    url: str
    services: set[str]
    spans: list[Span]

    def wait_for(self, what: Callable[[Span], bool], number: int = 1) -> list[Span]:
        """Spans that fit, once there are so many."""
        deadline = time.monotonic() + _WAIT_S
        while len(found := [span for span in self.spans if what(span)]) < number:
            assert time.monotonic() < deadline, [span.name for span in self.spans]
            time.sleep(0.02)
        return found


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port."""
    services: set[str] = set()
    spans: list[Span] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            came = ExportTraceServiceRequest.FromString(body)
            for resource in came.resource_spans:
                named = {a.key: a.value.string_value for a in resource.resource.attributes}
                services.add(named["service.name"])
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield Collector(f"http://127.0.0.1:{server.server_port}", services, spans)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def attributes(span: Span) -> dict[str, str | int | float | bool]:
    """Of a span, as Python's values."""
    return {a.key: getattr(a.value, str(a.value.WhichOneof("value"))) for a in span.attributes}
