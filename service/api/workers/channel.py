"""Messages between two processes that trust each other: a small JSON head, then raw bytes.

A frame is the sizes of both (8 bytes each, little-endian), the head, and the buffers one after the
other; the head's `sizes` tells them apart. Nothing in a frame is code: no pickle.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import orjson
from numpy.typing import NDArray

Head = dict[str, Any]
Buffer = bytes | bytearray | memoryview

_SIZES = struct.Struct("<QQ")


class Channel(asyncio.Protocol):
    """One end of a connection; messages arrive whole and in their order.

    Args:
        received: gets each message, on the event loop.
        lost: called once when the other end is gone.
    """

    def __init__(
        self, received: Callable[[Head, list[bytearray]], None], lost: Callable[[], None]
    ) -> None:
        self._received = received
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()
        self._needed = _SIZES.size

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost()

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if len(self._unread) < self._needed:
            return
        start, unread = 0, memoryview(self._unread)
        while True:
            begin = start + _SIZES.size
            if len(unread) < begin:
                self._needed = _SIZES.size
                break
            head_bytes, body_bytes = _SIZES.unpack_from(unread, start)
            body = begin + head_bytes
            end = body + body_bytes
            if len(unread) < end:
                # Parts of a large message are not looked at one by one.
                self._needed = end - start
                break
            head: Head = orjson.loads(unread[begin:body])
            buffers: list[bytearray] = []
            for size in head.pop("sizes", ()):
                buffers.append(bytearray(unread[body : body + size]))
                body += size
            start = end
            self._received(head, buffers)
        unread.release()
        del self._unread[:start]

    def send(self, head: Head, buffers: Sequence[Buffer] = ()) -> None:
        """Send a message; to an end that is gone nothing is sent."""
        if self._transport is None or self._transport.is_closing():
            return
        views = [memoryview(buffer).cast("B") if len(buffer) else b"" for buffer in buffers]
        if views:
            head["sizes"] = [len(view) for view in views]
        packed = orjson.dumps(head, default=str)
        sizes = _SIZES.pack(len(packed), sum(map(len, views)))
        self._transport.writelines((sizes, packed, *views))

    def close(self) -> None:
        """Send what waits to be sent, then close."""
        if self._transport is not None:
            self._transport.close()


def pack(arrays: dict[str, NDArray[Any] | None]) -> tuple[list[Any], list[Buffer]]:
    """Arrays by name as part of a head, and their bytes."""
    head: list[Any] = []
    buffers: list[Buffer] = []
    for name, array in arrays.items():
        if array is None:
            head.append((name, None, None))
            continue
        values = np.ascontiguousarray(array)
        head.append((name, values.dtype.str, array.shape))
        buffers.append(values.reshape(-1).view(np.uint8).data if values.size else b"")
    return head, buffers


def unpack(head: list[Any], buffers: Sequence[bytearray]) -> dict[str, NDArray[Any] | None]:
    """What `pack` was given."""
    arrays: dict[str, NDArray[Any] | None] = {}
    remaining = iter(buffers)
    for name, dtype, shape in head:
        arrays[name] = (
            None
            if dtype is None
            else np.frombuffer(next(remaining), np.dtype(dtype)).reshape(shape)
        )
    return arrays
