"""What is written here is what numpy, and any reader of zip files, reads back."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from service.api import npz as module
from service.api.npz import npz

dtypes = st.sampled_from(["f4", "f8", "f2", "i8", "i4", "u1", "?", "<U3", ">f4"])
arrays = dtypes.flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0)))


@given(st.dictionaries(st.sampled_from(["mean", "std", "label", "größe"]), arrays))
def test_numpy_reads_back_what_was_written(contents: dict[str, NDArray[Any]]) -> None:
    written = npz(contents)
    with zipfile.ZipFile(io.BytesIO(written)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{name}.npy" for name in contents]
    with np.load(io.BytesIO(written), allow_pickle=False) as read:
        assert list(read) == list(contents)
        for name, array in contents.items():
            assert read[name].dtype == array.dtype
            np.testing.assert_array_equal(read[name], array)


def test_arrays_of_any_layout_are_written_in_rows() -> None:
    whole = np.arange(24.0).reshape(2, 3, 4)
    for array in (whole[:, 1], whole[::-1], whole.T, np.asfortranarray(whole)):
        with np.load(io.BytesIO(npz({"x": array}))) as read:
            np.testing.assert_array_equal(read["x"], array)


def test_what_is_too_large_for_small_zips_is_left_to_numpy(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_LARGEST_BYTES", 10)
    with np.load(io.BytesIO(npz({"x": np.arange(100)}))) as read:
        np.testing.assert_array_equal(read["x"], np.arange(100))
