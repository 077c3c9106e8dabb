"""Every row of a pool through the engine, into a table: in parts, so that a killed run goes on.

Parts are written whole under their number beside the result, and become one file when the last is
there. What they are made under (pool, weights, T, seed, masks, precision) is written down first:
another run takes parts over only where all of that is the same, so that a run that was killed and
begun again ends with the table that it would have ended with, but for rounding (see `Earlier`), and
without that where what is measured at a load is kept (CANDOR_TUNING).
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from service.errors import InvalidInput
from service.files import write_atomically
from service.inference.fields import Fields
from service.inference.prediction import Request
from service.pools.readers import Pool
from service.registry.labels import held, named
from service.registry.loading import LoadedModel
from service.types import Progress, SamplePlan, Task

PART_ROWS = 65_536
"""Rows of one part: what a killed run may have to do again."""

ROWS_AT_ONCE = 4096
"""Rows that the engine is given at once, which it cuts into chunks that fit its memory."""

FIELDS = (
    "mean",
    "std",
    "predictive_entropy",
    "expected_entropy",
    "mutual_information",
    "variation_ratio",
    "variance",
    "label",
)
"""Of a prediction that a table holds, where the task has them."""

_MADE_OF = "made_of.json"


@dataclass(frozen=True, slots=True)
class MadeOf:
    """Everything that the numbers of a table depend on."""

    pool: str
    pool_bytes: int
    pool_modified_ns: int
    rows: int
    model: str
    version: int
    weights: str
    passes: int
    seed: int
    masks: str
    precision: str
    part_rows: int


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a run found done.

    Args:
        rows: that it did not have to do again.
        alike: whether this run computes some of them to the last bit. It may not where other
            chunks were measured to be fastest when the model loaded, or on another machine: the
            rest of the table is then rounded otherwise.
    """

    rows: int
    alike: bool


def score(
    model: LoadedModel,
    pool: Pool,
    output: Path,
    plan: SamplePlan,
    progress: Progress,
) -> Earlier:
    """Write a table with one row for each of the pool, in its order; or go on writing it.

    Args:
        model: loaded and verified.
        pool: of rows that it takes.
        output: .parquet; there as a whole, or not at all.
        plan: passes, seed and masks.
        progress: called after every batch.

    Returns:
        What an earlier run had done.

    Raises:
        InvalidInput: rows that the model does not take, or a file that cannot be written.
    """
    with writable(output) as parts:
        done = contiguous(begin(parts, made_of(model, pool, plan)))
        first = done * PART_ROWS
        alike = not done or computes_alike(model, pool, plan, parts, 0)
        progress(min(first, pool.rows), pool.rows)
        writer = _Writer(parts, done)
        try:
            for table in _tables(model, pool, plan, first, progress):
                writer.add(table)
            writer.finish(output)
        finally:
            writer.close()
    return Earlier(min(first, pool.rows), alike)


@contextmanager
def writable(output: Path) -> Iterator[Path]:
    """The folder of a table's parts, while they are written.

    Raises:
        InvalidInput: the table would not be what its name says, or cannot be written.
    """
    if output.suffix.lower() != ".parquet":
        raise InvalidInput(f"{output} should end in .parquet, which it is", field="out")
    try:
        yield output.with_name(f"{output.name}.parts")
    except OSError as error:
        raise InvalidInput(f"{output} cannot be written: {error}", field="out") from error


def score_rows(
    model: LoadedModel,
    rows: NDArray[Any],
    first: int,
    plan: SamplePlan,
    fields: tuple[str, ...],
) -> Fields:
    """Fields of rows numbered within the pool, so that masks do not depend on where parts end."""
    numbers = range(first, first + len(rows))
    [answer] = model.predict([Request(torch.from_numpy(rows), plan, fields, numbers)])
    assert answer is not None
    return answer


def made_of(model: LoadedModel, pool: Pool, plan: SamplePlan) -> MadeOf:
    """Of a table of this pool, by this model."""
    found = pool.path.stat()
    return MadeOf(
        pool=str(pool.path.resolve()),
        pool_bytes=found.st_size,
        pool_modified_ns=found.st_mtime_ns,
        rows=pool.rows,
        model=model.ref.name,
        version=model.ref.version,
        weights=model.conditions.weights,
        passes=plan.passes,
        seed=plan.seed,
        masks=plan.masks.value,
        precision=model.precision,
        part_rows=PART_ROWS,
    )


def begin(parts: Path, made_of: MadeOf) -> set[int]:
    """Parts that are there already; those of other rows, weights or passes are thrown away."""
    note = parts / _MADE_OF
    try:
        known = json.loads(note.read_bytes())
    except (FileNotFoundError, ValueError):
        known = None
    if known != asdict(made_of):
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(parents=True)
        write_atomically(note, json.dumps(asdict(made_of), indent=2).encode() + b"\n")
    return {int(file.stem) for file in parts.glob("*.arrow") if file.stem.isdecimal()}


def contiguous(numbers: Collection[int]) -> int:
    """How many parts there are without a gap from the first on."""
    return next(number for number in itertools.count() if number not in numbers)


def computes_alike(
    model: LoadedModel, pool: Pool, plan: SamplePlan, parts: Path, number: int
) -> bool:
    """Whether this process computes the first rows of a part as it is there already.

    Args:
        model: loaded.
        pool: of the rows.
        plan: of the table.
        parts: folder of the parts.
        number: of the part.
    """
    first = number * PART_ROWS
    rows = pool.take(range(first, min(first + min(ROWS_AT_ONCE, PART_ROWS), pool.rows)))
    found = _batch(model, score_rows(model, rows, first, plan, FIELDS), first)
    known = _read_part(part_file(parts, number)).slice(0, len(rows))
    return bool(pa.Table.from_batches([found]).equals(known))


def part_file(parts: Path, number: int) -> Path:
    """Where a part lies."""
    return parts / f"{number:06}.arrow"


def _read_part(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _tables(
    model: LoadedModel, pool: Pool, plan: SamplePlan, first: int, progress: Progress
) -> Iterator[pa.Table]:
    start = first
    for rows in pool.parts(first, PART_ROWS):
        yield table_of(model, rows, start, plan, lambda done: progress(done, pool.rows))
        start += len(rows)


def table_of(
    model: LoadedModel,
    rows: NDArray[Any],
    first: int,
    plan: SamplePlan,
    progress: Callable[[int], None],
) -> pa.Table:
    """The part of a table that begins with that row of the pool.

    Args:
        model: loaded.
        rows: of the part, [B, D...].
        first: number of the first in the pool.
        plan: of the table.
        progress: called after every batch with the number of the row after it.
    """
    batches = []
    for offset in range(0, len(rows), ROWS_AT_ONCE):
        part = rows[offset : offset + ROWS_AT_ONCE]
        fields = score_rows(model, part, first + offset, plan, FIELDS)
        batches.append(_batch(model, fields, first + offset))
        progress(first + offset + len(part))
    return pa.Table.from_batches(batches)


def _batch(model: LoadedModel, fields: Fields, first: int) -> pa.RecordBatch:
    """Columns: the row's index, then the fields; vectors of [B, C] as lists of C."""
    columns: dict[str, Any] = {}
    for name in FIELDS:
        if (array := fields.get(name)) is None:
            continue
        if name == "label":
            columns[name] = _labels(model, array)
        elif array.ndim == 1:
            columns[name] = pa.array(array)
        else:
            flat = np.ascontiguousarray(array.reshape(len(array), -1))
            columns[name] = pa.FixedSizeListArray.from_arrays(flat.ravel(), flat.shape[1])
    rows = len(next(iter(columns.values())))
    index = pa.array(np.arange(first, first + rows))
    return pa.RecordBatch.from_pydict({"index": index, **columns})


def _labels(model: LoadedModel, array: NDArray[Any]) -> Any:
    multilabel = model.manifest.task is Task.MULTILABEL
    return pa.array((held if multilabel else named)(model.manifest, array))


def join(parts: Path, count: int, output: Path) -> None:
    """Make the table of all its parts, which are there."""
    writer = _Writer(parts, count)
    try:
        writer.finish(output)
    finally:
        writer.close()


class _Writer:
    """Parts to their files and all of them into one, on a thread, while the engine goes on.

    Args:
        parts: folder of the parts.
        done: parts that are there already.
    """

    def __init__(self, parts: Path, done: int) -> None:
        self._parts = parts
        self._next = done
        self._joined: pq.ParquetWriter | None = None
        self._thread = ThreadPoolExecutor(1, "writer")
        self._begun = deque(self._thread.submit(self._take_over, number) for number in range(done))

    def add(self, table: pa.Table) -> None:
        """Write the next part; returns once all but the last are written."""
        self._begun.append(self._thread.submit(self._write, self._next, table))
        self._next += 1
        while len(self._begun) > 1:
            self._begun.popleft().result()

    def finish(self, output: Path) -> None:
        """Put the whole where it belongs, and the parts away."""
        while self._begun:
            self._begun.popleft().result()
        self.close()
        os.replace(self._unfinished, output)
        shutil.rmtree(self._parts)

    def close(self) -> None:
        """Begin nothing more."""
        self._thread.shutdown(cancel_futures=True)
        if self._joined is not None:
            self._joined.close()

    def _take_over(self, number: int) -> None:
        self._append(_read_part(part_file(self._parts, number)))

    def _write(self, number: int, table: pa.Table) -> None:
        path = part_file(self._parts, number)
        unfinished = path.with_suffix(".unfinished")
        with pa.ipc.new_file(unfinished, table.schema) as sink:
            sink.write_table(table)
        os.replace(unfinished, path)
        self._append(table)

    def _append(self, table: pa.Table) -> None:
        if self._joined is None:
            # Numbers that are all different gain nothing by a dictionary of them.
            names = [name for name in table.schema.names if name == "label"]
            self._joined = pq.ParquetWriter(self._unfinished, table.schema, use_dictionary=names)
        self._joined.write_table(table)

    @property
    def _unfinished(self) -> Path:
        return self._parts / "joined.unfinished"
