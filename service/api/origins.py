"""Cross-origin requests: which pages of other sites a browser may hand answers to."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Scope, Send

from service.api.headers import Headers
from service.api.scope import raw_header

_METHODS = b"GET, POST, DELETE"
_ASKED = (
    b"Authorization, Content-Type, Accept, X-Request-ID, X-Request-Timeout, X-Request-Priority, "
    b"Inference-Header-Content-Length"
)
_SHOWN = b"X-Request-ID, Retry-After, Inference-Header-Content-Length"
_KEPT_S = b"600"

_VARY = (b"vary", b"Origin")


class Origins:
    """None of them by default; then no answer says anything about origins."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = frozenset(origin.encode() for origin in allowed)

    def headers(self, scope: Scope) -> Headers:
        """What the answer to a request says of its origin."""
        if not self._allowed:
            return []
        origin = raw_header(scope, b"origin")
        if origin is None or origin not in self._allowed:
            return [_VARY]
        return [
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _SHOWN),
            _VARY,
        ]

    def is_preflight(self, scope: Scope) -> bool:
        """A browser asks whether it may send a request of a page that is allowed here."""
        return (
            bool(self._allowed)
            and scope["method"] == "OPTIONS"
            and raw_header(scope, b"access-control-request-method") is not None
            and raw_header(scope, b"origin") in self._allowed
        )


async def answer_preflight(send: Send) -> None:
    """It may; no token is needed for the question."""
    headers: Headers = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", _ASKED),
        (b"access-control-max-age", _KEPT_S),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
