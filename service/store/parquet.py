"""Samples as a Parquet table, which never needs all in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from service.errors import InvalidInput
from service.store.contract import Sample, described
from service.store.export import check_alike, handed_over
from service.store.tables import SCORES
from service.types import Task

_GROUP_ROWS = 1000
_GROUP_BYTES = 2**25
"""Of its rows, held at once."""


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
    with handed_over() as stream, pq.ParquetWriter(stream, table.schema) as writer:
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


def _table(
    group: list[Sample], label_kind: pa.DataType, like: NDArray[Any] | None = None
) -> pa.Table:
    for sample in group:
        like = sample.input if like is None else like
        check_alike(sample.input, like)
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
