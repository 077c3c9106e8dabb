"""gzip and deflate around whole bodies, in both directions."""

from __future__ import annotations

import asyncio
import zlib

from service.errors import LimitExceeded, MalformedBody, UnsupportedMedia

_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
CODINGS = tuple(_WINDOW_BITS)

_LEVEL = 1
"""Numbers hardly compress, however long one tries."""

_AT_ONCE_BYTES = 2**20


async def decompressed(body: bytearray, coding: str | None, limit_bytes: int) -> bytearray:
    """A body as it was before its sender compressed it.

    Raises:
        UnsupportedMedia: a coding that is not known here.
        LimitExceeded: it has more than `limit_bytes`; no more than that was ever held.
        MalformedBody: it is not what the coding says.
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
    # A few kilobytes can take a second: not on the event loop.
    return await asyncio.to_thread(inflate, body, coding, limit_bytes)


def inflate(body: bytes | bytearray, coding: str, limit_bytes: int) -> bytearray:
    """See `decompressed`."""
    stream = zlib.decompressobj(_WINDOW_BITS[coding])
    found = bytearray()
    place = 0
    left: bytes | bytearray = b""
    try:
        while not stream.eof and (left or place < len(body)):
            if not left:
                left = body[place : place + _AT_ONCE_BYTES]
                place += len(left)
            found += stream.decompress(left, _AT_ONCE_BYTES)
            left = stream.unconsumed_tail
            if len(found) > limit_bytes:
                raise LimitExceeded(
                    f"the body has over {limit_bytes} bytes once it is decompressed; that is the "
                    "limit (CANDOR_MAX_BODY_BYTES)",
                    field="body",
                    expected=limit_bytes,
                )
        # What zlib has read and not yet written.
        found += stream.decompress(b"", limit_bytes + 1 - len(found))
    except zlib.error as error:
        raise MalformedBody(f"the body is not {coding}: {error}", field="body") from None
    if not stream.eof or stream.unused_data or place < len(body):
        what = "ends too early" if not stream.eof else "goes on after its end"
        raise MalformedBody(f"the body is not {coding}: it {what}", field="body")
    return found


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
