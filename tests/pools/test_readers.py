"""Pools of every kind give the same rows, whatever parts they are read in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from service.errors import InvalidInput
from service.pools.readers import open_pool
from service.registry.manifest import InputSpec

SPEC = InputSpec(shape=(3,))
ROWS: NDArray[np.float32] = np.arange(60, dtype=np.float32).reshape(20, 3)


def vectors(rows: NDArray[np.float32]) -> pa.Table:
    return pa.table({"x": pa.FixedSizeListArray.from_arrays(rows.ravel(), 3)})


def lists(rows: NDArray[np.float32]) -> pa.Table:
    return pa.table({"x": pa.array(rows.tolist()), "name": ["row"] * len(rows)})


def columns(rows: NDArray[np.float32]) -> pa.Table:
    numbers = {f"feature_{i}": rows[:, i] for i in range(3)}
    return pa.table({"name": ["row"] * len(rows), **numbers})


def arrow(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


WRITERS: dict[str, Callable[[Path], Path]] = {}


def _writer(name: str) -> Callable[[Callable[[Path], None]], None]:
    def register(write: Callable[[Path], None]) -> None:
        def into(folder: Path) -> Path:
            write(folder / name)
            return folder / name

        WRITERS[name] = into

    return register


_writer("a.npy")(lambda path: np.save(path, ROWS))
_writer("doubles.npy")(lambda path: np.save(path, ROWS.astype(np.float64)))
_writer("a.npz")(lambda path: np.savez(path, x=ROWS, y=np.zeros(20)))
_writer("vectors.parquet")(lambda path: pq.write_table(vectors(ROWS), path, row_group_size=6))
_writer("lists.parquet")(lambda path: pq.write_table(lists(ROWS), path, row_group_size=20))
_writer("columns.parquet")(lambda path: pq.write_table(columns(ROWS), path, row_group_size=7))
_writer("vectors.arrow")(lambda path: arrow(vectors(ROWS), path))
_writer("columns.feather")(lambda path: arrow(columns(ROWS), path))


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_gives_the_rows(name: str, tmp_path: Path) -> None:
    pool = open_pool(WRITERS[name](tmp_path), SPEC)
    assert pool.rows == 20
    parts = list(pool.parts(0, 8))
    assert [len(part) for part in parts] == [8, 8, 4]
    together = np.concatenate(parts)
    assert together.dtype == np.float32
    assert together.flags.writeable
    np.testing.assert_array_equal(together, ROWS)
    np.testing.assert_array_equal(pool.take([13, 2, 19, 2]), ROWS[[13, 2, 19, 2]])
    assert pool.name(3) is None


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=25)
@given(first=st.integers(0, 19), rows=st.integers(1, 25))
def test_parts_begin_anywhere_and_have_any_size(
    name: str, first: int, rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pool = open_pool(WRITERS[name](tmp_path_factory.mktemp("pool")), SPEC)
    parts = list(pool.parts(first, rows))
    assert all(len(part) == rows for part in parts[:-1])
    np.testing.assert_array_equal(np.concatenate(parts), ROWS[first:])


def test_rows_of_several_dimensions_lie_flat_in_a_table(tmp_path: Path) -> None:
    images = np.arange(48, dtype=np.float32).reshape(3, 1, 4, 4)
    table = pa.table({"x": pa.FixedSizeListArray.from_arrays(images.ravel(), 16)})
    pq.write_table(table, tmp_path / "images.parquet")
    pool = open_pool(tmp_path / "images.parquet", InputSpec(shape=(1, 4, 4)))
    np.testing.assert_array_equal(next(pool.parts(0, 3)), images)


@pytest.mark.parametrize(
    ("shape", "mode", "expected"),
    [((2, 3), "L", (2, 3)), ((1, 2, 3), "L", (1, 2, 3)), ((3, 2, 3), "RGB", (3, 2, 3))],
)
def test_a_folder_of_images_is_a_pool_by_name(
    shape: tuple[int, ...], mode: str, expected: tuple[int, ...], tmp_path: Path
) -> None:
    for number, name in enumerate(["b.png", "a.png", "c.PNG"]):
        Image.new(mode, (3, 2), 51 * number if mode == "L" else (51 * number, 0, 255)).save(
            tmp_path / name, format="png"
        )
    (tmp_path / "notes.txt").write_text("no image")
    pool = open_pool(tmp_path, InputSpec(shape=shape), largest_pixel=16.0)
    assert [pool.name(i) for i in range(pool.rows)] == ["a.png", "b.png", "c.PNG"]
    [part] = pool.parts(0, 8)
    assert part.shape == (3, *expected)
    first = part.reshape(3, -1)[:, 0]
    np.testing.assert_allclose(first, [16 * 51 / 255, 0, 16 * 102 / 255], rtol=1e-6)
    np.testing.assert_array_equal(pool.take([2])[0], part[2])


def test_what_is_no_pool_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((4, 5)))
    np.save(tmp_path / "none.npy", np.zeros((0, 3)))
    np.savez(tmp_path / "other.npz", inputs=ROWS)
    (tmp_path / "broken.parquet").write_bytes(b"no table")
    (tmp_path / "pool.csv").write_text("1,2,3")
    pq.write_table(pa.table({"a": [1.0], "b": [2.0]}), tmp_path / "two.parquet")
    pq.write_table(pa.table({"x": [[1.0, 2.0], [1.0]]}), tmp_path / "uneven.parquet")
    pq.write_table(pa.table({"x": [[1.0, 2.0, 3.0], None]}), tmp_path / "empty.parquet")
    (tmp_path / "folder").mkdir()
    for name, words in {
        "wide.npy": "shape [4, 5]",
        "none.npy": "holds no rows",
        "other.npz": "no array x",
        "broken.parquet": "cannot be read",
        "pool.csv": "expected .npy",
        "two.parquet": "2 columns of numbers (a, b), and a row of the model is 3",
        "uneven.parquet": "differ in length",
        "empty.parquet": "empty rows",
        "missing.npy": "cannot be read",
        "folder": "holds no images",
    }.items():
        with pytest.raises(InvalidInput) as caught:
            list(open_pool(tmp_path / name, SPEC).parts(0, 8))
        assert words in caught.value.message, name


def test_a_number_that_is_none_is_named(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[9, 1] = np.nan
    np.save(tmp_path / "nan.npy", rows)
    with pytest.raises(InvalidInput, match=r"`x\[8:16\]\[1\]\[1\]` is nan"):
        list(open_pool(tmp_path / "nan.npy", SPEC).parts(0, 8))
