"""Samples as files: JSON lines, and .npz for training; neither needs all in memory."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import InvalidInput
from service.store.contract import Sample, described
from service.store.tables import SCORES


def write_jsonl(samples: Iterable[Sample]) -> Iterator[bytes]:
    """One line a sample, as `described` has it."""
    for sample in samples:
        yield orjson.dumps(
            described(sample), option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
        )


def write_npz(
    samples: Iterable[Sample], encode: Callable[[list[Any]], NDArray[Any]] | None
) -> IO[bytes]:
    """`x` [N, D...], `y` [N...] where `encode` is given, `id`, `version`, and each score [N].

    Args:
        samples: of one model.
        encode: of their labels.

    Raises:
        InvalidInput: rows of several shapes, or labels that are no array.
    """
    ids: list[str] = []
    versions: list[int] = []
    labels: list[Any] = []
    scores: dict[str, list[float]] = {name: [] for name in SCORES}
    first: NDArray[Any] | None = None
    with tempfile.TemporaryFile() as rows, handed_over() as stream:
        for sample in samples:
            first = sample.input if first is None else first
            check_alike(sample.input, first)
            rows.write(np.ascontiguousarray(sample.input).tobytes())
            ids.append(sample.id)
            versions.append(sample.version)
            labels.append(sample.label)
            for name, values in scores.items():
                values.append(sample.scores.get(name, np.nan))
        arrays: dict[str, NDArray[Any]] = {
            "id": np.array(ids, dtype=np.str_),
            "version": np.array(versions, dtype=np.int64),
            **{name: np.array(values) for name, values in scores.items()},
        }
        if encode is not None:
            arrays["y"] = encode(labels)
        with zipfile.ZipFile(stream, "w") as archive:
            like = np.empty(0) if first is None else first
            with archive.open("x.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_2_0(
                    member,
                    {
                        "descr": np.lib.format.dtype_to_descr(like.dtype),
                        "fortran_order": False,
                        "shape": (len(ids), *(like.shape if first is not None else ())),
                    },
                )
                rows.seek(0)
                shutil.copyfileobj(rows, member)
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
    return stream


@contextmanager
def handed_over() -> Iterator[IO[bytes]]:
    """A file on the disk from its beginning, for whoever gets it to close; gone if that fails."""
    stream = tempfile.TemporaryFile()  # noqa: SIM115  (its reader closes it)
    try:
        yield stream
        stream.seek(0)
    except BaseException:
        stream.close()
        raise


def check_alike(one: NDArray[Any], first: NDArray[Any]) -> None:
    """Refuse an input that is no array together with another.

    Raises:
        InvalidInput: it has another shape or type.
    """
    if (one.shape, one.dtype) != (first.shape, first.dtype):
        raise InvalidInput(
            f"inputs {list(first.shape)} of {first.dtype} and {list(one.shape)} of {one.dtype} are "
            "no array together; format=jsonl has them as they are",
            field="format",
            expected="jsonl",
        )
