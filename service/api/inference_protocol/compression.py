"""gzip and deflate around whole bodies, in both directions."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable

from service.errors import LimitExceeded, MalformedBody, UnsupportedMedia

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
CODINGS = tuple(_WINDOW_BITS)

_LEVEL = 1
"""Numbers hardly compress, however long one tries."""

_PART_BYTES = 2**18
"""That are decompressed before they are counted, so that bombs on all connections stay small."""


async def decompressed(
    body: bytearray, coding: str | None, limit_bytes: int, hold: Callable[[int], None]
) -> bytearray:
    """A body as it was before its sender compressed it.

    Args:
        body: as it came.
        coding: its Content-Encoding.
        limit_bytes: that it may have.
        hold: told of the bytes of each part as soon as it is there; may refuse it.

    Raises:
        UnsupportedMedia: a coding that is not known here.
        LimitExceeded: it has more than `limit_bytes`; hardly more than that was ever held.
        MalformedBody: it is not what the coding says.
        CandorError: of `hold`.
    """
    if coding is None or coding == "identity":
        return body
    coding = coding.strip().lower()
    if coding not in CODINGS:
        raise UnsupportedMedia(
            f"bodies with Content-Encoding: {coding} are not read here; send them as they are, or "
            f"with {' or '.join(CODINGS)}",
            field="Content-Encoding",
            expected=list(CODINGS),
            received=coding,
        )
    stream = _Inflating(body, coding)
    found = bytearray()
    while not stream.done:
        # A few kilobytes can take a second: not on the event loop.
        part = await asyncio.to_thread(stream.part)
        hold(len(part))
        found += part
        if len(found) > limit_bytes:
            raise LimitExceeded(
                f"the body has over {limit_bytes} bytes once it is decompressed; that is the "
                "limit (CANDOR_MAX_BODY_BYTES)",
                field="body",
                expected=limit_bytes,
            )
    return found


class _Inflating:
    """A compressed body, of which one part after the other is decompressed."""

    def __init__(self, body: bytearray, coding: str) -> None:
        self._body = body
        self._coding = coding
        self._stream = zlib.decompressobj(_WINDOW_BITS[coding])
        self._place = 0
        self._left: bytes | bytearray = b""
        self.done = False

    def part(self) -> bytes:
        """The next one, of at most `_PART_BYTES`.

        Raises:
            MalformedBody: what comes is not what the coding says.
        """
        if not self._left:
            self._left = self._body[self._place : self._place + _PART_BYTES]
            self._place += len(self._left)
        try:
            found = self._stream.decompress(self._left, _PART_BYTES)
        except zlib.error as error:
            raise self._malformed(str(error)) from None
        self._left = self._stream.unconsumed_tail
        read = not self._left and self._place >= len(self._body)
        if self._stream.eof and (self._stream.unused_data or not read):
            raise self._malformed("it goes on after its end")
        # A part that is not full is all that zlib has read and not yet written.
        if read and not self._stream.eof and len(found) < _PART_BYTES:
            raise self._malformed("it ends too early")
        self.done = self._stream.eof
        return found

    def _malformed(self, why: str) -> MalformedBody:
        return MalformedBody(f"the body is not {self._coding}: {why}", field="body")


def asked_for(accept_encoding: str | None) -> str | None:
    """The coding that a client wants its answer in.

    Lists such as `gzip, deflate, br` are what HTTP libraries say by themselves, and numbers hardly
    compress; who wants an answer compressed names one coding, as Triton's client does.
    """
    coding = (accept_encoding or "").strip().lower()
    return coding if coding in CODINGS else None


async def compressed(body: bytes, coding: str) -> bytes:
    """A body in a coding."""
    return await asyncio.to_thread(deflate, body, coding)


def deflate(body: bytes, coding: str) -> bytes:
    """See `compressed`."""
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS[coding])
    return stream.compress(body) + stream.flush()
