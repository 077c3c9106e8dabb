"""Answers whose bytes are all there, as most are, and how they are sent."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import Response
from starlette.types import Send


class Reply(Response):
    """A response made of bytes, without the look at each header that Starlette takes.

    Args:
        body: of the answer.
        media_type: of its body, in ASCII.
        status: HTTP status.
        headers: more of them, in Latin-1.
    """

    def __init__(
        self,
        body: bytes,
        media_type: str,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", media_type.encode()),
        ]
        if headers:
            self.raw_headers += [
                (name.lower().encode("latin-1"), value.encode("latin-1"))
                for name, value in headers.items()
            ]


async def send_whole(response: Response, send: Send) -> None:
    """Send a response whose bytes are all there."""
    start = {"type": "http.response.start", "status": response.status_code}
    await send({**start, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body})
