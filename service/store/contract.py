"""What a sample is."""

from __future__ import annotations

import functools
import hashlib
import io
import math
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


class Status(StrEnum):
    """What became of a sample."""

    UNLABELLED = "unlabelled"
    LABELLED = "labelled"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class NewSample:
    """One row of a request, to be kept.

    Args:
        model: that answered it.
        version: of the model.
        time: seconds since the epoch.
        request_id: of the request.
        row: within the request.
        input: [D...], in the model's own dtype.
        scores: by name; those that the task has.
    """

    model: str
    version: int
    time: float
    request_id: str
    row: int
    input: NDArray[Any]
    scores: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class NewRows:
    """K rows of one version's requests, to be kept.

    Args:
        model: that answered them.
        version: of the model.
        times: [K] of their answers, seconds since the epoch.
        request_ids: [K].
        rows: [K] within their requests.
        inputs: [K, D...].
        scores: [K] by name; where one is not finite, its row has it not.
    """

    model: str
    version: int
    times: NDArray[np.float64]
    request_ids: NDArray[np.object_]
    rows: NDArray[np.int64]
    inputs: NDArray[Any]
    scores: Mapping[str, NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.rows)

    def some(self, which: slice | NDArray[np.bool_]) -> Self:
        """Some of them, in their order."""
        return replace(
            self,
            times=self.times[which],
            request_ids=self.request_ids[which],
            rows=self.rows[which],
            inputs=self.inputs[which],
            scores={name: values[which] for name, values in self.scores.items()},
        )

    def samples(self) -> Iterator[NewSample]:
        """One by one."""
        scores = {name: values.tolist() for name, values in self.scores.items()}
        places = zip(self.times.tolist(), self.request_ids, self.rows.tolist(), strict=True)
        for place, (moment_s, request_id, row) in enumerate(places):
            yield NewSample(
                self.model,
                self.version,
                moment_s,
                request_id,
                row,
                self.inputs[place],
                {name: v[place] for name, v in scores.items() if math.isfinite(v[place])},
            )


@dataclass(frozen=True, slots=True)
class Sample:
    """A row that was kept. Args as of `NewSample`, and

    Args:
        id: of the sample.
        status: what became of it.
        label: by whoever labelled it.
        labelled_time: seconds since the epoch.
        lease: by which it is somebody's to label; None where it is nobody's.
        lease_until: seconds since the epoch.
        decided_lease: by which it got its label or was skipped; None where it was by none.
    """

    id: str
    model: str
    version: int
    time: float
    request_id: str
    row: int
    input: NDArray[Any]
    scores: Mapping[str, float]
    status: Status
    label: Any = None
    labelled_time: float | None = None
    lease: str | None = None
    lease_until: float = 0.0
    decided_lease: str | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """How far the labelling of a model's samples is; `leased` are some of the unlabelled ones."""

    unlabelled: int = 0
    leased: int = 0
    labelled: int = 0
    skipped: int = 0


def described(sample: Sample) -> dict[str, Any]:
    """A sample as people read it: times in ISO 8601, the input as an array."""
    return {
        "id": sample.id,
        "model": sample.model,
        "version": sample.version,
        "time": moment(sample.time),
        "request_id": sample.request_id,
        "row": sample.row,
        "input": sample.input,
        "scores": dict(sample.scores),
        "label": sample.label,
        "status": sample.status.value,
        "labelled_time": None if sample.labelled_time is None else moment(sample.labelled_time),
    }


def moment(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def new_id() -> str:
    """32 letters and digits that nobody guesses and nothing else has."""
    return uuid.uuid4().hex


def packed(array: NDArray[Any]) -> bytes:
    """An input as the bytes of a .npy."""
    return _header(array.dtype, array.shape) + array.tobytes()


@functools.lru_cache(maxsize=256)
def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """Of a .npy in C order: of a model's rows all have the same, and making it takes longest."""
    description = np.lib.format.dtype_to_descr(dtype)
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": description, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def unpacked(content: bytes) -> NDArray[Any]:
    """The reverse of `packed`."""
    array: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def digest(content: bytes) -> str:
    """By which the same input is known again, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
