"""Held-out data from a file, checked against what the model takes and what its task predicts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import CalibrationFailed, InvalidInput
from service.registry.inputs import conform
from service.registry.manifest import Manifest
from service.types import Task

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """Rows without their truth.

    Args:
        inputs: [B, D...] in the model's own dtype.
        sha256: of the file, in hexadecimal.
        path: of the file, as it was given.
    """

    inputs: Array
    sha256: str
    path: str


@dataclass(frozen=True, slots=True, eq=False)
class Labelled(Inputs):
    """Rows with their truth.

    Args:
        targets: classification: classes [B] int64; binary: zeros and ones [B, 1], multilabel:
            [B, C], both float64; regression: [B, C] float64, in the target's units.
    """

    targets: Array


def read_inputs(path: Path, manifest: Manifest) -> Inputs:
    """Read `x` of a .npz, whatever else it holds, or a .npy.

    Raises:
        InvalidInput: no such file, no `x` in it, or inputs that the model does not take.
    """
    arrays, sha256 = _read(path)
    return Inputs(_inputs(path, arrays, manifest), sha256, str(path))


def read_labelled(path: Path, manifest: Manifest) -> Labelled:
    """Read `x` and `y` of a .npz.

    Raises:
        InvalidInput: no such file, no `x` or `y` in it, or inputs that the model does not take.
        CalibrationFailed: a `y` that is no truth of this model's task.
    """
    arrays, sha256 = _read(path)
    inputs = _inputs(path, arrays, manifest)
    targets = _targets(_array(path, arrays, "y", "[N]"), manifest)
    if len(targets) != len(inputs):
        raise CalibrationFailed(
            f"`y` has {len(targets)} rows and `x` {len(inputs)}; each input needs its truth",
            field="y",
            expected=len(inputs),
            received=len(targets),
        )
    return Labelled(inputs, sha256, str(path), targets)


def _read(path: Path) -> tuple[Mapping[str, Array], str]:
    """The file's arrays by name, that of a .npy as `x`, and its hash."""
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                return {"x": content}, sha256
            return {name: content[name] for name in content.files if name in ("x", "y")}, sha256
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", field="data") from None


def _array(path: Path, arrays: Mapping[str, Array], name: str, shape: str) -> Array:
    if name not in arrays:
        held = ", ".join(arrays) or "neither x nor y"
        raise InvalidInput(
            f"{path} has no array {name} {shape}; of x and y it holds {held}. Write it with "
            "numpy.savez(path, x=inputs, y=truth)",
            field=name,
            received=list(arrays),
        )
    return arrays[name]


def _inputs(path: Path, arrays: Mapping[str, Array], manifest: Manifest) -> Array:
    return conform(_array(path, arrays, "x", "[N, D...]"), manifest.input, field="x")


def _targets(y: Array, manifest: Manifest) -> Array:
    task = manifest.task
    if y.ndim == 2 and y.shape[1] == 1 and task in (Task.CLASSIFICATION, Task.BINARY):
        y = y[:, 0]
    if y.dtype.kind in "US":
        y = _indices(y, manifest)
    if y.dtype.kind not in "iufb":
        raise _wrong(f"numbers{' or label names' if _named(manifest) else ''}", f"{y.dtype}")
    if task is Task.CLASSIFICATION:
        return _classes(y, manifest.labels)
    widest = 1 if task is Task.BINARY else 2
    if not 1 <= y.ndim <= widest or 0 in y.shape:
        expected = "one number a row [N]" if widest == 1 else "[N] or [N, C]"
        raise _wrong(expected, f"the shape {list(y.shape)}")
    truth_BC = y.astype(np.float64).reshape(len(y), -1)
    if not task.is_regression:
        _refuse((truth_BC != 0) & (truth_BC != 1), truth_BC, "zeros and ones")
    _refuse(~np.isfinite(truth_BC), truth_BC, "finite numbers")
    return truth_BC


def _classes(y: Array, labels: Sequence[str] | None) -> Array:
    if y.ndim != 1 or not len(y):
        raise _wrong("one class a row [N]", f"the shape {list(y.shape)}")
    number = y.astype(np.float64)
    most = "" if labels is None else f" to {len(labels) - 1}"
    expected = f"whole numbers from 0{most}, or label names" if labels else "whole numbers from 0"
    above = number >= len(labels) if labels is not None else np.zeros(len(y), dtype=bool)
    _refuse(~((number >= 0) & (number == np.floor(number))) | above, number, expected)
    return y.astype(np.int64)


def _indices(y: Array, manifest: Manifest) -> Array:
    """Label names [B] → their places in the model's labels."""
    if not _named(manifest):
        raise _wrong("numbers (model.toml names no labels of single classes)", f"{y.dtype}")
    names = y.astype(np.str_)
    assert manifest.labels is not None
    places = {name: place for place, name in enumerate(manifest.labels)}
    if names.ndim != 1:
        raise _wrong("one label name a row [N]", f"the shape {list(y.shape)}")
    for row, name in enumerate(names.tolist()):
        if name not in places:
            raise _wrong(f"names among {', '.join(places)}", f"{name!r} in row {row}")
    return np.array([places[name] for name in names.tolist()], dtype=np.int64)


def _named(manifest: Manifest) -> bool:
    """Whether a row can be said by the name of its label."""
    return manifest.labels is not None and manifest.task in (Task.CLASSIFICATION, Task.BINARY)


def _refuse(bad: NDArray[np.bool_], array: Array, expected: str) -> None:
    if bad.any():
        first = tuple(int(place) for place in np.argwhere(bad)[0])
        raise _wrong(expected, f"{array[first]:.6g} in row {first[0]}")


def _wrong(expected: str, received: str) -> CalibrationFailed:
    return CalibrationFailed(
        f"`y` should hold {expected}; it holds {received}",
        field="y",
        expected=expected,
        received=received,
    )
