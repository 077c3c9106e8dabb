"""Rows of a pool, a part at a time, from whatever file they lie in."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from service.errors import InvalidInput
from service.registry.inputs import conform
from service.registry.manifest import InputSpec

COLUMN = "x"
"""Name of the array in a .npz, and of the column of vectors in a table."""

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
KINDS = ".npy, .npz, .parquet, .arrow, .feather or a folder of images"

Rows = NDArray[Any]


class Pool(Protocol):
    """Unlabelled rows in an order that does not change.

    Args of `parts`:
        first: row to begin with.
        rows: of each part, which starts at a multiple of it; the last may have fewer.
    """

    path: Path
    rows: int

    def parts(self, first: int, rows: int) -> Iterator[Rows]:
        """Parts [B, D...] in the model's own dtype, checked."""
        ...

    def take(self, indices: Sequence[int]) -> Rows:
        """Some rows in the order asked for, [K, D...]."""
        ...

    def name(self, index: int) -> str | None:
        """What a row is called, where it has a name."""
        ...


def open_pool(path: Path, spec: InputSpec, largest_pixel: float = 1.0) -> Pool:
    """The pool that lies there.

    Args:
        path: a file or a folder of images.
        spec: of the model's input.
        largest_pixel: what a white pixel of an image is to the model.

    Raises:
        InvalidInput: there is none, or not of this kind, or not of this shape.
    """
    if path.is_dir():
        return _Images(path, spec, largest_pixel)
    readers: dict[str, Callable[[Path, InputSpec], Pool]] = {
        ".npy": _Array,
        ".npz": _Array,
        ".parquet": _Parquet,
        ".arrow": _Arrow,
        ".feather": _Arrow,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InvalidInput(
            f"{path} is no pool that is read here; expected {KINDS}", field="pool", expected=KINDS
        )
    try:
        pool = reader(path, spec)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", field="pool") from None
    if not pool.rows:
        raise InvalidInput(f"{path} holds no rows", field="pool")
    return pool


class _Array:
    """A .npy, of which only what is asked for is read, or the `x` of a .npz, read as a whole."""

    def __init__(self, path: Path, spec: InputSpec) -> None:
        self.path = path
        self._spec = spec
        if path.suffix.lower() == ".npy":
            self._rows: Rows = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            with np.load(path, allow_pickle=False) as content:
                if COLUMN not in content:
                    held = ", ".join(content.files) or "nothing"
                    raise InvalidInput(
                        f"{path} has no array {COLUMN} [N, D...]; it holds {held}", field="pool"
                    )
                self._rows = content[COLUMN]
        if self._rows.ndim < 1:
            raise InvalidInput(f"{path} holds a single number; expected rows", field="pool")
        self.rows = len(self._rows)

    def parts(self, first: int, rows: int) -> Iterator[Rows]:
        for start in range(first, self.rows, rows):
            yield self._checked(self._rows[start : start + rows], start)

    def take(self, indices: Sequence[int]) -> Rows:
        return self._checked(self._rows[list(indices)])

    def name(self, index: int) -> str | None:
        return None

    def _checked(self, array: Rows, first: int | None = None) -> Rows:
        # A file that is only mapped gives arrays that must not be written, which tensors may be.
        return conform(np.array(array), self._spec, field=_place(first, len(array)))


class _Table(ABC):
    """Record batches, each of known length, of which some hold the rows asked for."""

    def __init__(self, path: Path, spec: InputSpec, lengths: Sequence[int], schema: Any) -> None:
        self.path = path
        self._spec = spec
        self._starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self.rows = int(self._starts[-1])
        self._columns = _columns(path, schema, spec)

    def parts(self, first: int, rows: int) -> Iterator[Rows]:
        waiting: list[Rows] = []
        held = 0
        group = int(np.searchsorted(self._starts, first, side="right")) - 1
        skip = first - int(self._starts[group]) if self.rows else 0
        for number in range(group, len(self._starts) - 1):
            for batch in self._batches(number):
                array = self._array(batch)[skip:]
                skip = max(0, skip - batch.num_rows)
                waiting.append(array)
                held += len(array)
                while held >= rows:
                    together = np.concatenate(waiting) if len(waiting) > 1 else waiting[0]
                    yield self._checked(together[:rows], first)
                    waiting, held, first = [together[rows:]], held - rows, first + rows
        if held:
            yield self._checked(np.concatenate(waiting), first)

    def take(self, indices: Sequence[int]) -> Rows:
        wanted = np.asarray(indices, dtype=np.int64)
        groups = np.searchsorted(self._starts, wanted, side="right") - 1
        found: Rows | None = None
        for number in np.unique(groups):
            rows = np.concatenate([self._array(batch) for batch in self._batches(int(number))])
            here = np.flatnonzero(groups == number)
            if found is None:
                found = np.empty((len(wanted), *rows.shape[1:]), rows.dtype)
            found[here] = rows[wanted[here] - self._starts[number]]
        if found is None:
            return np.empty((0, *self._spec.shape), self._spec.dtype)
        return self._checked(found)

    def name(self, index: int) -> str | None:
        return None

    @abstractmethod
    def _batches(self, group: int) -> Iterator[pa.RecordBatch]:
        """Everything of one of the stored batches."""

    def _array(self, batch: pa.RecordBatch) -> Rows:
        if self._columns == [COLUMN]:
            column = batch.column(COLUMN)
            if column.null_count:
                raise InvalidInput(f"`{COLUMN}` of {self.path} has empty rows", field=COLUMN)
            if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
                lengths = column.value_lengths().to_numpy(zero_copy_only=False)
                if len(lengths) and (lengths != lengths[0]).any():
                    raise InvalidInput(f"rows of {self.path} differ in length", field=COLUMN)
            if _is_list(column.type):
                flat: Rows = column.flatten().to_numpy(zero_copy_only=False)
                return flat.reshape(batch.num_rows, *_shape(self._spec, flat, batch.num_rows))
        columns = [batch.column(name).to_numpy(zero_copy_only=False) for name in self._columns]
        return np.stack(columns, axis=1).reshape(batch.num_rows, *self._spec.shape)

    def _checked(self, array: Rows, first: int | None = None) -> Rows:
        return conform(array, self._spec, field=_place(first, len(array)))


class _Parquet(_Table):
    def __init__(self, path: Path, spec: InputSpec) -> None:
        self._file = pq.ParquetFile(path)
        metadata = self._file.metadata
        lengths = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        super().__init__(path, spec, lengths, self._file.schema_arrow)

    def _batches(self, group: int) -> Iterator[pa.RecordBatch]:
        yield from self._file.iter_batches(row_groups=[group], columns=self._columns)


class _Arrow(_Table):
    def __init__(self, path: Path, spec: InputSpec) -> None:
        self._file = pa.ipc.open_file(pa.memory_map(str(path)))
        count = self._file.num_record_batches
        lengths = [self._file.get_batch(i).num_rows for i in range(count)]
        super().__init__(path, spec, lengths, self._file.schema)

    def _batches(self, group: int) -> Iterator[pa.RecordBatch]:
        yield self._file.get_batch(group)


class _Images:
    """Image files of a folder, by name; grey for [H, W] and [1, H, W], colour for [3, H, W]."""

    def __init__(self, path: Path, spec: InputSpec, largest_pixel: float) -> None:
        self.path = path
        self._spec = spec
        self._largest = largest_pixel
        self._files = sorted(f for f in path.iterdir() if f.suffix.lower() in IMAGES)
        self.rows = len(self._files)
        if not self._files:
            raise InvalidInput(
                f"{path} holds no images; known are {', '.join(IMAGES)}", field="pool"
            )
        shape = spec.shape
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[0] not in (1, 3)):
            raise InvalidInput(
                f"the model takes rows of {list(shape)}, which no image is; expected [H, W], "
                "[1, H, W] or [3, H, W]",
                field="pool",
                received=list(shape),
            )

    def parts(self, first: int, rows: int) -> Iterator[Rows]:
        for start in range(first, self.rows, rows):
            yield self.take(range(start, min(start + rows, self.rows)))

    def take(self, indices: Sequence[int]) -> Rows:
        return np.stack([self._image(self._files[index]) for index in indices])

    def name(self, index: int) -> str | None:
        return self._files[index].name

    def _image(self, file: Path) -> Rows:
        colour = len(self._spec.shape) == 3 and self._spec.shape[0] == 3
        try:
            with Image.open(file) as image:
                pixels = np.asarray(image.convert("RGB" if colour else "L"), dtype=np.float64)
        except (OSError, ValueError) as error:
            raise InvalidInput(f"{file} cannot be read: {error}", field="pool") from None
        scaled = pixels * (self._largest / 255)
        if colour:
            scaled = scaled.transpose(2, 0, 1)
        elif len(self._spec.shape) == 3:
            scaled = scaled[None]
        row: Rows = conform(scaled[None], self._spec, field=file.name)[0]
        return row


def _columns(path: Path, schema: pa.Schema, spec: InputSpec) -> list[str]:
    """The column of vectors, or one column a feature."""
    if COLUMN in schema.names:
        return [COLUMN]
    numbers = [
        field.name
        for field in schema
        if pa.types.is_integer(field.type)
        or pa.types.is_floating(field.type)
        or pa.types.is_boolean(field.type)
    ]
    features = math.prod(spec.shape)
    if len(numbers) != features:
        raise InvalidInput(
            f"{path} has {len(numbers)} columns of numbers ({', '.join(numbers) or 'none'}), and a "
            f"row of the model is {features} numbers; expected that many columns, or one column "
            f"{COLUMN} of vectors",
            field="pool",
            expected=features,
            received=len(numbers),
        )
    return numbers


def _place(first: int | None, rows: int) -> str:
    """What a part is called, so that an error in it says where in the pool it is."""
    return COLUMN if first is None else f"{COLUMN}[{first}:{first + rows}]"


def _is_list(kind: Any) -> bool:
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _shape(spec: InputSpec, flat: Rows, rows: int) -> tuple[int, ...]:
    """A row's shape: the model's own where it is known and fits, else one dimension."""
    known = math.prod(spec.shape)
    return tuple(spec.shape) if known > 0 and flat.size == rows * known else (-1,)
