"""Good requests with what each has to be answered, whichever weights are served.

The answers are computed beforehand by the engine in this process, each request alone and from the
same files: so neither HTTP nor batches, queues or reloads have touched them. What a server answers
may differ from them by rounding only, since a batch of another size adds in another order.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits

from benchmarks.load import ARRAYS, JSON
from benchmarks.soak.repository import WEIGHTS, Repository
from benchmarks.soak.wire import Answer, request
from service.api.answers import contents, select
from service.api.engine import Computed
from service.api.predict import head, plan_and_fields
from service.inference.choosing import needs
from service.inference.choosing import select as choose
from service.inference.devices import resources
from service.inference.prediction import Request
from service.registry.loading import LoadedModel
from service.registry.registry import Registry
from service.schemas import PredictRequest
from service.settings import Settings

ROUNDING = 1e-5
"""By which numbers may differ, of the largest mean of an answer or of 1: some hundred times the
spacing of float32, and far less than what tells one set of weights from the other."""

PRECISION = "float32"
"""`auto` measures at each load, and two loads may choose differently."""

_ALL_SCORES = "all_scores"
"""Beside an answer of /query: the score of every row."""

_MOST_SEEN = 1000
_LARGE_ROWS = 64


@dataclass(frozen=True)
class Case:
    """A request and its answers.

    Args:
        name: of its kind.
        model: that it is for.
        endpoint: as the metrics name it.
        before: its bytes up to the id.
        after: its bytes behind the id.
        answers: by weights.
        share: how often it is sent, beside the others.
    """

    name: str
    model: str
    endpoint: str
    before: bytes
    after: bytes
    answers: Mapping[str, Mapping[str, Any]]
    share: float
    _seen: dict[bytes, str | None] = field(default_factory=dict)

    def weights_of(self, answer: Answer) -> str | None:
        """Which weights give this answer; None where none of them does."""
        # Batches of the same requests give the same bytes, which need not be read again.
        digest = hashlib.blake2b(answer.body, digest_size=16).digest()
        if digest in self._seen:
            return self._seen[digest]
        received = _read(answer)
        found = next((w for w in self.answers if equal(self.answers[w], received)), None)
        if len(self._seen) < _MOST_SEEN:
            self._seen[digest] = found
        return found


def _read(answer: Answer) -> Any:
    if answer.headers.get(b"content-type") == ARRAYS["Accept"].encode():
        with np.load(io.BytesIO(answer.body)) as arrays:
            return dict(arrays)
    return orjson.loads(answer.body)


def equal(expected: Mapping[str, Any], received: Any) -> bool:
    """Whether an answer has all that is expected, numbers up to rounding, and nothing else."""
    mean = expected.get("mean")
    if "outputs" in expected:
        [mean] = [output["data"] for output in expected["outputs"] if output["name"] == "mean"]
    largest = 1.0 if mean is None else max(1.0, float(np.abs(np.asarray(mean)).max()))
    if _ALL_SCORES in expected:
        return _chosen_alike(expected, received, ROUNDING * largest)
    return _alike(expected, received, ROUNDING * largest)


def _chosen_alike(expected: Mapping[str, Any], received: Any, rounding: float) -> bool:
    """As `_alike`; of rows whose scores are the same up to rounding any may stand for another."""
    wanted = {key: value for key, value in expected.items() if key != _ALL_SCORES}
    indices = received.get("indices") if isinstance(received, dict) else None
    if not isinstance(indices, list) or len(set(indices)) != len(wanted["indices"]):
        return False
    scores = dict(enumerate(expected[_ALL_SCORES]))
    if not scores.keys() >= set(indices):
        return False
    own = [scores[index] for index in indices]
    return _alike(wanted["scores"], own, rounding) and _alike(
        wanted, {**received, "indices": wanted["indices"]}, rounding
    )


def _alike(expected: Any, received: Any, rounding: float) -> bool:
    if isinstance(expected, Mapping):
        return (
            isinstance(received, dict)
            and expected.keys() == received.keys()
            and all(_alike(expected[key], received[key], rounding) for key in expected)
        )
    if expected is None or received is None:
        return expected is received
    if isinstance(expected, list) and expected and isinstance(expected[0], dict):
        return (
            isinstance(received, list)
            and len(expected) == len(received)
            and all(_alike(e, r, rounding) for e, r in zip(expected, received, strict=True))
        )
    try:
        one, other = np.asarray(expected), np.asarray(received)
    except ValueError:
        # Lists of different lengths.
        return bool(expected == received)
    if one.shape != other.shape or one.dtype.kind != other.dtype.kind:
        return False
    if one.dtype.kind != "f":
        return bool((one == other).all())
    return bool(np.allclose(one, other, rtol=0, atol=rounding, equal_nan=True))


def cases(repository: Repository) -> list[Case]:
    """All good requests, their answers computed; the repository holds trained weights afterwards.

    Raises:
        RuntimeError: both sets of weights answer all requests of a kind alike, so that no test of
            them could fail.
    """
    # One thread: what is computed here is small, and a server may run beside it.
    torch.set_num_threads(1)
    loaded = {}
    for weights in reversed(WEIGHTS):
        for name in repository.models:
            repository.put(name, weights)
        registry = Registry(repository.root, resources(Settings(precision=PRECISION)))
        registry.scan()
        registry.load_all()
        loaded[weights] = {name: registry.resolve(name, None) for name in repository.models}
    made = [
        case
        for number, name in enumerate(repository.models)
        for case in _of_model({w: loaded[w][name] for w in WEIGHTS}, number)
    ]
    telling = [case for case in made if not equal(*case.answers.values())]
    silent = {(case.name, case.model) for case in made} - {(c.name, c.model) for c in telling}
    if silent:
        raise RuntimeError(f"either set of weights gives the same answer to {sorted(silent)}")
    return telling


Versions = Mapping[str, LoadedModel]
"""One model by its weights."""


def _of_model(versions: Versions, seed: int) -> Iterator[Case]:
    name = versions["trained"].ref.name
    rng = np.random.default_rng(seed)
    for number in range(8):
        rows = _rows(rng, name, 1 + number % 4)
        plan = {"seed": number, "passes": 20} if number % 2 else {}
        yield _prediction(versions, rows, plan, arrays=False, share=4)
        yield _evaluation(versions, rows, arrays=False, share=2)
        yield _inference(versions, rows, number)
    rows = _rows(rng, name, 3)
    wanted = {"masks": "independent", "return": ["mean", "std", "mutual_information"]}
    yield _prediction(versions, rows, wanted, arrays=False, share=4)
    for _ in range(2):
        rows = _rows(rng, name, _LARGE_ROWS)
        yield _prediction(versions, rows, {"seed": 5}, arrays=True, share=1)
        yield _evaluation(versions, rows, arrays=True, share=2)
        yield _query(versions, rows, share=0.25)


def _rows(rng: np.random.Generator, model: str, rows: int) -> NDArray[np.float32]:
    """Inputs [B, D...] between those that a model was trained for, of which it is not sure."""
    if model == "co2":
        return rng.uniform(1950, 2010, (rows, 1)).astype(np.float32)
    data = load_digits() if model == "digits" else load_breast_cancer()
    pairs = rng.choice(len(data.data), (2, rows), replace=False)
    shape = (rows, 1, 8, 8) if model == "digits" else (rows, 30)
    found: NDArray[np.float32] = data.data[pairs].mean(0).reshape(shape).astype(np.float32)
    return found


def _prediction(
    versions: Versions, rows: NDArray[Any], plan: dict[str, Any], *, arrays: bool, share: float
) -> Case:
    body = PredictRequest.model_validate(plan)
    inputs = torch.from_numpy(rows)

    def answer(model: LoadedModel) -> Mapping[str, Any]:
        sampled, wanted = plan_and_fields(model.manifest, body)
        [fields] = model.predict([Request(inputs, sampled, wanted)])
        assert fields is not None
        more = head(model, sampled, Computed(fields, sampled))
        return contents(model, select(fields, wanted), more, arrays=arrays)

    return _case("predict", versions, rows, plan, answer, arrays=arrays, share=share)


def _evaluation(versions: Versions, rows: NDArray[Any], *, arrays: bool, share: float) -> Case:
    inputs = torch.from_numpy(rows)

    def answer(model: LoadedModel) -> Mapping[str, Any]:
        return contents(model, model.evaluate(inputs), {}, arrays=arrays)

    return _case("eval", versions, rows, {}, answer, arrays=arrays, share=share)


def _query(versions: Versions, rows: NDArray[Any], *, share: float) -> Case:
    inputs = torch.from_numpy(rows)
    wanted = {"k": 5, "strategy": "mean_std"}

    def answer(model: LoadedModel) -> Mapping[str, Any]:
        plan = model.manifest.plan_for()
        fields: Collection[str] = needs("mean_std")
        [found] = model.predict([Request(inputs, plan, fields)])
        assert found is not None
        chosen = choose(found, model.manifest.task, "mean_std", 5, plan.seed)
        ranked = choose(found, model.manifest.task, "mean_std", len(rows), plan.seed)
        by_row = dict(zip(ranked.indices, ranked.scores, strict=True))
        return {
            "model": model.ref.name,
            "version": model.ref.version,
            "strategy": "mean_std",
            "passes": plan.passes,
            "seed": plan.seed,
            "indices": chosen.indices,
            "scores": chosen.scores,
            _ALL_SCORES: [by_row[row] for row in range(len(rows))],
        }

    return _case("query", versions, rows, wanted, answer, arrays=False, share=share)


def _inference(versions: Versions, rows: NDArray[Any], seed: int) -> Case:
    """By the Open Inference Protocol, tensors as JSON."""
    wanted = ("mean", "predictive_entropy")
    name = versions["trained"].ref.name
    inputs = torch.from_numpy(rows)
    body = PredictRequest.model_validate({"seed": seed, "return": list(wanted)})

    def answer(model: LoadedModel) -> Mapping[str, Any]:
        sampled, fields = plan_and_fields(model.manifest, body)
        [found] = model.predict([Request(inputs, sampled, fields)])
        assert found is not None
        arrays = {output: np.asarray(found[output]) for output in wanted}
        return {
            "model_name": name,
            "model_version": str(model.ref.version),
            "parameters": {
                "mode": "predict",
                **head(model, sampled, Computed(found, sampled)),
                "masks": sampled.masks.value,
            },
            "outputs": [
                {
                    "name": output,
                    "shape": array.shape,
                    "datatype": f"FP{8 * array.itemsize}",
                    "data": array.reshape(-1),
                }
                for output, array in arrays.items()
            ],
        }

    tensor = {
        "name": "input",
        "shape": rows.shape,
        "datatype": "FP32",
        "data": rows.reshape(-1).tolist(),
    }
    content = {
        "inputs": [tensor],
        "outputs": [{"name": output} for output in wanted],
        "parameters": {"seed": seed},
    }
    before, after = request("POST", f"/v2/models/{name}/infer", JSON, json.dumps(content).encode())
    answers = {w: _as_read(answer(version), arrays=False) for w, version in versions.items()}
    kind = f"infer of {len(rows)} rows as JSON"
    return Case(kind, name, "/v2/models/{name}/infer", before, after, answers, share=1)


def _case(
    kind: str,
    versions: Versions,
    rows: NDArray[Any],
    fields: dict[str, Any],
    answer: Callable[[LoadedModel], Mapping[str, Any]],
    *,
    arrays: bool,
    share: float,
) -> Case:
    model = versions["trained"].ref.name
    answers = {w: _as_read(answer(version), arrays=arrays) for w, version in versions.items()}
    path = f"/{kind}"
    if arrays:
        stream = io.BytesIO()
        np.save(stream, rows)
        query = "&".join(f"{key}={value}" for key, value in {"model": model, **fields}.items())
        before, after = request("POST", f"{path}?{query}", ARRAYS, stream.getvalue())
    else:
        content = json.dumps({"model": model, **fields, "inputs": rows.tolist()}).encode()
        before, after = request("POST", path, JSON, content)
    name = f"{kind} of {len(rows)} rows as {'arrays' if arrays else 'JSON'}"
    return Case(name, model, path, before, after, answers, share)


def _as_read(answer: Mapping[str, Any], *, arrays: bool) -> Mapping[str, Any]:
    if arrays:
        return {key: np.asarray(value) for key, value in answer.items() if value is not None}
    written: dict[str, Any] = orjson.loads(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY))
    return written
