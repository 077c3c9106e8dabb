"""Samples as files: JSON lines, .npz for training, or a Parquet table. None needs all in memory."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from service.errors import InvalidInput
from service.store.contract import Sample, described
from service.store.tables import SCORES
from service.types import Task

_GROUP_ROWS = 1000
_GROUP_BYTES = 2**25
"""Of a Parquet file's rows, held at once."""


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
    with tempfile.TemporaryFile() as rows, _handed_over() as stream:
        for sample in samples:
            first = sample.input if first is None else first
            _check_alike(sample.input, first)
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


def write_parquet(samples: Iterable[Sample], task: Task, *, named: bool) -> IO[bytes]:
    """A column for each part of a sample; the input flattened as the list `x`.

    Args:
        samples: of one model.
        task: of it.
        named: whether its labels have names.

    Raises:
        InvalidInput: rows of several shapes, or labels that the task had not always.
    """
    kind = _label_kind(task, named=named)
    rest = iter(samples)
    group = _group(rest)
    table = _table(group, kind)
    first = group[0].input if group else None
    with _handed_over() as stream, pq.ParquetWriter(stream, table.schema) as writer:
        writer.write_table(table)
        while group := _group(rest):
            writer.write_table(_table(group, kind, first))
    return stream


def _group(samples: Iterator[Sample]) -> list[Sample]:
    found: list[Sample] = []
    size = 0
    while len(found) < _GROUP_ROWS and size < _GROUP_BYTES:
        sample = next(samples, None)
        if sample is None:
            break
        found.append(sample)
        size += sample.input.nbytes
    return found


@contextmanager
def _handed_over() -> Iterator[IO[bytes]]:
    """A file on the disk from its beginning, for whoever gets it to close; gone if that fails."""
    stream = tempfile.TemporaryFile()  # noqa: SIM115  (its reader closes it)
    try:
        yield stream
        stream.seek(0)
    except BaseException:
        stream.close()
        raise


def _table(
    group: list[Sample], label_kind: pa.DataType, like: NDArray[Any] | None = None
) -> pa.Table:
    for sample in group:
        like = sample.input if like is None else like
        _check_alike(sample.input, like)
    rows = [described(sample) for sample in group]
    arrays = {
        name: pa.array([row[name] for row in rows], type=kind) for name, kind in _KINDS.items()
    }
    for name in SCORES:
        arrays[name] = pa.array([row["scores"].get(name) for row in rows], type=pa.float64())
    labels = [row["label"] for row in rows]
    if label_kind == pa.list_(pa.float64()):
        labels = [[label] if isinstance(label, int | float) else label for label in labels]
    try:
        arrays["label"] = pa.array(labels, type=label_kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InvalidInput(
            f"labels are not of the kind that the task has now ({error}); format=jsonl has them "
            "as they are",
            field="format",
        ) from None
    inputs = [sample.input.reshape(-1) for sample in group]
    flat = np.concatenate(inputs) if inputs else np.empty(0, dtype=np.float32)
    size = len(inputs[0]) if inputs else 1
    arrays["x"] = pa.FixedSizeListArray.from_arrays(pa.array(flat), size)
    return pa.table(arrays)


def _label_kind(task: Task, *, named: bool) -> pa.DataType:
    one = pa.string() if named else pa.int64()
    if task is Task.MULTILABEL:
        return pa.list_(one)
    return one if task in (Task.CLASSIFICATION, Task.BINARY) else pa.list_(pa.float64())


_KINDS: dict[str, pa.DataType] = {
    "id": pa.string(),
    "model": pa.string(),
    "version": pa.int64(),
    "time": pa.string(),
    "request_id": pa.string(),
    "row": pa.int64(),
    "status": pa.string(),
    "labelled_time": pa.string(),
}


def _check_alike(one: NDArray[Any], first: NDArray[Any]) -> None:
    """Raises InvalidInput: they are no array together."""
    if (one.shape, one.dtype) != (first.shape, first.dtype):
        raise InvalidInput(
            f"inputs {list(first.shape)} of {first.dtype} and {list(one.shape)} of {one.dtype} are "
            "no array together; format=jsonl has them as they are",
            field="format",
            expected="jsonl",
        )
