"""Arrays as an uncompressed .npz, written in one go.

`np.savez` opens a member of a zip for every array, writes it in parts and goes back to fill in its
size: a quarter of a millisecond for an answer's fifteen small arrays. Here each part is laid down
once, and arrays are not copied before the whole is put together.

Format: PKWARE APPNOTE 6.3, sections 4.3.7 (local header), 4.3.12 (directory), 4.3.16 (its end).
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LOCAL = struct.Struct("<4s5H3L2H")
_DIRECTORY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_VERSION = 20
_NAMES_IN_UTF8 = 0x800
_STORED = 0
_NO_TIME, _FIRST_OF_1980 = 0, 0x21
_LARGEST_BYTES = 2**32 - 2**20
"""Beyond it sizes need the format's 64-bit form, which numpy writes."""


def npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """What `np.load` reads back under the same names."""
    if sum(array.nbytes for array in arrays.values()) > _LARGEST_BYTES:
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **arrays)
        return stream.getvalue()
    parts: list[Any] = []
    directory: list[bytes] = []
    position = 0
    for key, array in arrays.items():
        name = f"{key}.npy".encode()
        values = np.ascontiguousarray(array)
        head = _npy_header(array.dtype, array.shape)
        size = len(head) + values.nbytes
        common = (
            *(_VERSION, _NAMES_IN_UTF8, _STORED, _NO_TIME, _FIRST_OF_1980),
            *(zlib.crc32(values.data, zlib.crc32(head)), size, size, len(name), 0),
        )
        local = _LOCAL.pack(b"PK\x03\x04", *common) + name
        entry = _DIRECTORY.pack(b"PK\x01\x02", _VERSION, *common, 0, 0, 0, 0, position)
        directory.append(entry + name)
        parts += (local, head, values)
        position += len(local) + size
    entries = b"".join(directory)
    count = len(directory)
    end = _END.pack(b"PK\x05\x06", 0, 0, count, count, len(entries), position, 0)
    return b"".join((*parts, entries, end))


@functools.lru_cache(maxsize=1024)
def _npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    description = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(
        stream, {"descr": description, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()
