"""What the server answers, as typed objects with numpy arrays."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import CandorError, error_class

Array = NDArray[Any]

NPZ = "application/x-npz"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One deterministic pass. `mean` is [B, C, D...], with places D... where outputs are dense;
    `label` [B, D...], or [B, C, D...] of booleans for a multilabel task."""

    model: str
    version: int
    task: str
    mean: Array
    predictive_entropy: Array | None = None
    label: Array | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """An answer with its doubt: fields as in the API, None where the task has none or it was not
    asked for. `quantiles` is [Q, B, C], `samples` [T, B, C], all with places D... at the end where
    outputs are dense; `passes` is T, or under a tolerance [B], those of each row.

    Of a calibrated version: `ood` holds `score`, `values` [B], `threshold`, `flagged` [B] and
    `false_positive_rate`; `interval` is [B, C, 2]; `prediction_set` holds a list of labels for each
    row, or, for large inputs, which travel as arrays, [B, C] booleans."""

    model: str
    version: int
    task: str
    passes: int | Array
    seed: int
    degraded: Mapping[str, Any] | None = None
    calibration: str | None = None
    mean: Array | None = None
    std: Array | None = None
    standard_error: Array | None = None
    predictive_entropy: Array | None = None
    expected_entropy: Array | None = None
    mutual_information: Array | None = None
    variation_ratio: Array | None = None
    aleatoric_std: Array | None = None
    epistemic_std: Array | None = None
    label: Array | None = None
    variance: Array | None = None
    calibrated_mean: Array | None = None
    ood: Mapping[str, Any] | None = None
    prediction_set: Sequence[Any] | Array | None = None
    interval: Array | None = None
    predictive_entropy_jackknife: Array | None = None
    mutual_information_jackknife: Array | None = None
    quantiles: Array | None = None
    samples: Array | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Rows of a pool whose labels would say most, the most informative first: `indices` [k] into
    what was sent, and the `scores` [k] that they were chosen by."""

    model: str
    version: int
    strategy: str
    passes: int
    seed: int
    indices: Array
    scores: Array


@dataclass(frozen=True, slots=True)
class KeptSample:
    """A row of a request that the server kept: its `input` [D...], its scores by name, and its
    label once it has one. `time` and `labelled_time` are ISO 8601."""

    id: str
    model: str
    version: int
    time: str
    request_id: str
    row: int
    input: Array
    scores: Mapping[str, float]
    label: Any
    status: str
    labelled_time: str | None


@dataclass(frozen=True, slots=True)
class SamplePage:
    """Kept samples, the most uncertain first; `next` is `after` of the next page, None at the
    end. Leased ones come with the `lease` that labels them."""

    samples: Sequence[KeptSample]
    next: str | None = None
    lease: str | None = None


def read_sample(content: dict[str, Any]) -> KeptSample:
    return KeptSample(**{**content, "input": np.asarray(content["input"])})


def read_content(response: httpx.Response) -> dict[str, Any]:
    """What an answer holds, from arrays or JSON."""
    if response.headers["Content-Type"] == NPZ:
        with np.load(io.BytesIO(response.content), allow_pickle=False) as arrays:
            return {name: a if a.ndim else a.item() for name, a in arrays.items()}
    content: dict[str, Any] = orjson.loads(response.content)
    return content


def read_answer(response: httpx.Response) -> dict[str, Any]:
    content = read_content(response)
    if response.headers["Content-Type"] == NPZ:
        for name in _IN_PARTS:
            _join_parts(content, name)
        return content
    if content["task"] == "multilabel" and content.get("mean") is not None:
        content["label"] = np.asarray(content["mean"]) >= 0.5
    if isinstance(content.get("quantiles"), dict):
        content["quantiles"] = content["quantiles"]["values"]
    arrays_of = _NUMBERS & content.keys()
    for name in arrays_of:
        if content[name] is not None:
            content[name] = np.array(content[name], dtype=np.float64)
    if isinstance(content.get("passes"), list):
        content["passes"] = np.array(content["passes"])
    if content.get("label") is not None:
        content["label"] = np.asarray(content["label"])
    if content.get("ood") is not None:
        for name in ("values", "flagged"):
            content["ood"][name] = np.asarray(content["ood"][name])
    return content


def _join_parts(content: dict[str, Any], name: str) -> None:
    """Parts that .npz has one by one, as the one field that they are."""
    parts = [key for key in content if key.startswith(f"{name}_")]
    if parts:
        content[name] = {key.removeprefix(f"{name}_"): content.pop(key) for key in parts}


_IN_PARTS = ("ood", "degraded")


_NUMBERS = frozenset(
    {
        "mean",
        "std",
        "standard_error",
        "predictive_entropy",
        "expected_entropy",
        "mutual_information",
        "variation_ratio",
        "aleatoric_std",
        "epistemic_std",
        "variance",
        "calibrated_mean",
        "interval",
        "predictive_entropy_jackknife",
        "mutual_information_jackknife",
        "quantiles",
        "samples",
    }
)


def read_error(response: httpx.Response) -> CandorError:
    try:
        problem = orjson.loads(response.content)
        kind = error_class(str(problem["type"]).rpartition(":")[2])
        return kind(
            problem["detail"],
            field=problem.get("field"),
            expected=problem.get("expected"),
            received=problem.get("received"),
            retry_after_s=seconds(response.headers.get("Retry-After")) or None,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return CandorError(f"{response.status_code} from {response.url}: {response.text[:200]}")


def seconds(header: str | None) -> float:
    try:
        return float(header or 0.0)
    except ValueError:
        return 0.0
