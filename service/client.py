"""`Client` and `AsyncClient`: Candor over HTTP, with numpy arrays in and out. Imports no torch.

from service.client import Client

with Client("http://127.0.0.1:8000") as candor:
    answer = candor.predict([[1975.5], [2030.0]], model="co2")
    print(answer.mean, answer.std)
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
import orjson
from numpy.typing import NDArray

from service.errors import CandorError, ServerUnreachable, error_class
from service.schemas import ModelInfo, ModelList

Array = NDArray[Any]
AnswerT = TypeVar("AnswerT")

_JSON = "application/json"
_NPY = "application/x-npy"
_NPZ = "application/x-npz"

BINARY_FROM = 2048
"""Inputs of this many numbers travel as .npy, and their answers as .npz."""

_RETRIED = (429, 503)
_LISTS = frozenset({"return", "exclude"})
"""Fields that stand in a query with commas between their values."""
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 10.0


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


_Steps = Generator[httpx.Request | float, httpx.Response | httpx.TransportError | None, AnswerT]
"""What to do next: send a request (and get its answer back), or sleep so many seconds."""


class _Calls:
    """Every call as steps that do no input or output themselves; the two clients drive them."""

    def __init__(self, url: str, token: str | None, timeout_s: float, retries: int) -> None:
        self._url = url.rstrip("/")
        self._retries = retries
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._timeout_s = timeout_s

    def predict(self, inputs: Any, options: Mapping[str, Any]) -> _Steps[Prediction]:
        """Steps of `POST /predict`."""
        response = yield from self._post("/predict", inputs, _given(options))
        return Prediction(**_answer(response))

    def evaluate(self, inputs: Any, options: Mapping[str, Any]) -> _Steps[Evaluation]:
        """Steps of `POST /eval`."""
        response = yield from self._post("/eval", inputs, _given(options))
        return Evaluation(**_answer(response))

    def query(self, inputs: Any, options: Mapping[str, Any]) -> _Steps[Selection]:
        """Steps of `POST /query`."""
        response = yield from self._post("/query", inputs, _given(options))
        answer = _content(response)
        answer["indices"] = np.asarray(answer["indices"], dtype=np.int64)
        # JSON has no infinity: what is said by nothing at all comes as null.
        scores = [-np.inf if score is None else score for score in answer["scores"]]
        return Selection(**{**answer, "scores": np.asarray(scores, dtype=np.float64)})

    def models(self) -> _Steps[list[ModelInfo]]:
        """Steps of `GET /models`."""
        response = yield from self._send(self._request("GET", "/models"))
        return ModelList.model_validate_json(response.content).models

    def samples(self, options: Mapping[str, Any]) -> _Steps[SamplePage]:
        """Steps of `GET /samples`."""
        response = yield from self._send(self._request("GET", "/samples", params=_given(options)))
        content = orjson.loads(response.content)
        return SamplePage([_sample(one) for one in content["samples"]], next=content["next"])

    def lease(self, options: Mapping[str, Any]) -> _Steps[SamplePage]:
        """Steps of `POST /samples/lease`."""
        response = yield from self._send(
            self._request("POST", "/samples/lease", json=_given(options))
        )
        content = orjson.loads(response.content)
        return SamplePage([_sample(one) for one in content["samples"]], lease=content["lease"])

    def decide(self, number: str, what: str, content: Mapping[str, Any]) -> _Steps[KeptSample]:
        """Steps of `POST /samples/{id}/label` and `/skip`."""
        request = self._request("POST", f"/samples/{quote(number, safe='')}/{what}", json=content)
        return _sample(orjson.loads((yield from self._send(request)).content))

    def remove(self, options: Mapping[str, Any]) -> _Steps[int]:
        """Steps of `DELETE /samples`."""
        response = yield from self._send(
            self._request("DELETE", "/samples", params=_given(options))
        )
        return int(orjson.loads(response.content)["deleted"])

    def export(self, options: Mapping[str, Any]) -> _Steps[dict[str, Array]]:
        """Steps of `GET /samples/export`."""
        options = {**options, "format": "npz"}
        response = yield from self._send(self._request("GET", "/samples/export", params=options))
        return _content(response)

    def reload(self, model: str) -> _Steps[ModelInfo]:
        """Steps of `POST /models/{name}/reload`."""
        path = f"/models/{quote(model, safe='')}/reload"
        response = yield from self._send(self._request("POST", path))
        return ModelInfo.model_validate_json(response.content)

    def _post(self, path: str, inputs: Any, fields: dict[str, Any]) -> _Steps[httpx.Response]:
        array = _to_array(inputs)
        if array.dtype.kind in "iufb" and array.size >= BINARY_FROM:
            for name in _LISTS & fields.keys():
                fields[name] = ",".join(map(str, fields[name]))
            body = io.BytesIO()
            np.save(body, array, allow_pickle=False)
            headers = {"Content-Type": _NPY, "Accept": _NPZ}
            request = self._request(
                "POST", path, headers=headers, content=body.getvalue(), params=fields
            )
        else:
            # What is no array of numbers goes as it came, for the server to say what is wrong.
            numbers = array.tolist() if array.dtype.kind in "iufb" else inputs
            request = self._request("POST", path, json={"inputs": numbers, **fields})
        return (yield from self._send(request))

    def _request(self, method: str, path: str, **more: Any) -> httpx.Request:
        headers = {**self._headers, **more.pop("headers", {})}
        if "json" in more:
            more["content"] = _dump(more.pop("json"))
            headers["Content-Type"] = _JSON
        timeout = httpx.Timeout(self._timeout_s).as_dict()
        return httpx.Request(
            method, self._url + path, headers=headers, extensions={"timeout": timeout}, **more
        )

    def _send(self, request: httpx.Request) -> _Steps[httpx.Response]:
        wait_s = _FIRST_WAIT_S
        for attempt in range(self._retries + 1):
            answer = yield request
            last = attempt == self._retries
            if isinstance(answer, httpx.TransportError):
                if last or not isinstance(answer, httpx.ConnectError):
                    raise ServerUnreachable(
                        f"no answer from {self._url}: {answer or type(answer).__name__}; is the "
                        "server running there?"
                    ) from answer
                asked_s = 0.0
            else:
                assert answer is not None
                if answer.status_code < 400:
                    return answer
                if last or answer.status_code not in _RETRIED:
                    raise _error(answer)
                asked_s = _seconds(answer.headers.get("Retry-After"))
            # Clients that were refused together should not come back together.
            yield min(max(wait_s, asked_s), _LONGEST_WAIT_S) * random.uniform(1.0, 1.5)
            wait_s *= 2
        raise AssertionError("the last attempt returns or raises")


class Client:
    """Blocking client; keeps its connections. Safe to share between threads.

    Args:
        url: of the server.
        token: sent as `Authorization: Bearer`.
        timeout_s: seconds for each attempt.
        retries: further attempts after 429, 503 or a refused connection, with growing waits.

    Every method raises the errors of `service.errors`.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 3,
    ) -> None:
        self._calls = _Calls(url, token, timeout_s, retries)
        self._http = httpx.Client()

    def predict(
        self,
        inputs: Any,
        *,
        model: str | None = None,
        version: int | None = None,
        passes: int | None = None,
        tolerance: float | None = None,
        max_passes: int | None = None,
        seed: int | str | None = None,
        masks: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> Prediction:
        """`POST /predict`: inputs [B, D...] as an array, a tensor or lists; `fields` to return."""
        options = _predict_options(
            model, version, passes, tolerance, max_passes, seed, masks, fields
        )
        return self._drive(self._calls.predict(inputs, options))

    def eval(
        self, inputs: Any, *, model: str | None = None, version: int | None = None
    ) -> Evaluation:
        """`POST /eval`: one deterministic pass."""
        return self._drive(self._calls.evaluate(inputs, {"model": model, "version": version}))

    def query(
        self,
        inputs: Any,
        k: int,
        *,
        strategy: str = "bald",
        model: str | None = None,
        version: int | None = None,
        passes: int | None = None,
        seed: int | str | None = None,
        exclude: Sequence[int] = (),
    ) -> Selection:
        """`POST /query`: k rows of a pool [N, D...] whose labels would say most."""
        options = _query_options(k, strategy, model, version, passes, seed, exclude)
        return self._drive(self._calls.query(inputs, options))

    def samples(
        self,
        *,
        model: str | None = None,
        status: str | None = None,
        order: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> SamplePage:
        """`GET /samples`: kept rows of requests, the most uncertain first, a page at a time."""
        options = {
            "model": model,
            "status": status,
            "order": order,
            "limit": limit,
            "after": after,
        }
        return self._drive(self._calls.samples(options))

    def lease(
        self,
        model: str,
        *,
        limit: int | None = None,
        seconds: float | None = None,
        order: str | None = None,
    ) -> SamplePage:
        """`POST /samples/lease`: samples that nobody else is given, or labels, for `seconds`."""
        options = {"model": model, "limit": limit, "seconds": seconds, "order": order}
        return self._drive(self._calls.lease(options))

    def label(self, number: str, label: Any, *, lease: str | None = None) -> KeptSample:
        """`POST /samples/{id}/label`: a class by name or index, a list of those that hold, or a
        number."""
        decision = _decision(lease, label=_plain(label))
        return self._drive(self._calls.decide(number, "label", decision))

    def skip(self, number: str, *, lease: str | None = None) -> KeptSample:
        """`POST /samples/{id}/skip`: nobody is asked for it again."""
        return self._drive(self._calls.decide(number, "skip", _decision(lease)))

    def remove_samples(self, *, model: str | None = None, request_id: str | None = None) -> int:
        """`DELETE /samples`: for good; returns how many there were."""
        return self._drive(self._calls.remove({"model": model, "request_id": request_id}))

    def export(self, model: str, *, status: str = "labelled") -> dict[str, Array]:
        """`GET /samples/export` as arrays: `x` [N, D...], `y` [N] of labelled ones, scores [N]."""
        return self._drive(self._calls.export({"model": model, "status": status}))

    def models(self) -> list[ModelInfo]:
        """`GET /models`."""
        return self._drive(self._calls.models())

    def reload(self, model: str) -> ModelInfo:
        """`POST /models/{name}/reload`: returns once its new versions serve."""
        return self._drive(self._calls.reload(model))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _drive(self, steps: _Steps[AnswerT]) -> AnswerT:
        answer: httpx.Response | httpx.TransportError | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as done:
                result: AnswerT = done.value
                return result
            answer = None
            if isinstance(step, float):
                time.sleep(step)
                continue
            try:
                answer = self._http.send(step)
            except httpx.TransportError as error:
                answer = error


class AsyncClient:
    """The same for asyncio; see `Client`."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        timeout_s: float = 60.0,
        retries: int = 3,
    ) -> None:
        self._calls = _Calls(url, token, timeout_s, retries)
        self._http = httpx.AsyncClient(limits=httpx.Limits(max_connections=None))

    async def predict(
        self,
        inputs: Any,
        *,
        model: str | None = None,
        version: int | None = None,
        passes: int | None = None,
        tolerance: float | None = None,
        max_passes: int | None = None,
        seed: int | str | None = None,
        masks: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> Prediction:
        """See `Client.predict`."""
        options = _predict_options(
            model, version, passes, tolerance, max_passes, seed, masks, fields
        )
        return await self._drive(self._calls.predict(inputs, options))

    async def eval(
        self, inputs: Any, *, model: str | None = None, version: int | None = None
    ) -> Evaluation:
        """See `Client.eval`."""
        return await self._drive(self._calls.evaluate(inputs, {"model": model, "version": version}))

    async def query(
        self,
        inputs: Any,
        k: int,
        *,
        strategy: str = "bald",
        model: str | None = None,
        version: int | None = None,
        passes: int | None = None,
        seed: int | str | None = None,
        exclude: Sequence[int] = (),
    ) -> Selection:
        """See `Client.query`."""
        options = _query_options(k, strategy, model, version, passes, seed, exclude)
        return await self._drive(self._calls.query(inputs, options))

    async def samples(
        self,
        *,
        model: str | None = None,
        status: str | None = None,
        order: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> SamplePage:
        """See `Client.samples`."""
        options = {
            "model": model,
            "status": status,
            "order": order,
            "limit": limit,
            "after": after,
        }
        return await self._drive(self._calls.samples(options))

    async def lease(
        self,
        model: str,
        *,
        limit: int | None = None,
        seconds: float | None = None,
        order: str | None = None,
    ) -> SamplePage:
        """See `Client.lease`."""
        options = {"model": model, "limit": limit, "seconds": seconds, "order": order}
        return await self._drive(self._calls.lease(options))

    async def label(self, number: str, label: Any, *, lease: str | None = None) -> KeptSample:
        """See `Client.label`."""
        decision = _decision(lease, label=_plain(label))
        return await self._drive(self._calls.decide(number, "label", decision))

    async def skip(self, number: str, *, lease: str | None = None) -> KeptSample:
        """See `Client.skip`."""
        return await self._drive(self._calls.decide(number, "skip", _decision(lease)))

    async def remove_samples(
        self, *, model: str | None = None, request_id: str | None = None
    ) -> int:
        """See `Client.remove_samples`."""
        return await self._drive(self._calls.remove({"model": model, "request_id": request_id}))

    async def export(self, model: str, *, status: str = "labelled") -> dict[str, Array]:
        """See `Client.export`."""
        return await self._drive(self._calls.export({"model": model, "status": status}))

    async def models(self) -> list[ModelInfo]:
        """See `Client.models`."""
        return await self._drive(self._calls.models())

    async def reload(self, model: str) -> ModelInfo:
        """See `Client.reload`."""
        return await self._drive(self._calls.reload(model))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _drive(self, steps: _Steps[AnswerT]) -> AnswerT:
        answer: httpx.Response | httpx.TransportError | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as done:
                result: AnswerT = done.value
                return result
            answer = None
            if isinstance(step, float):
                await asyncio.sleep(step)
                continue
            try:
                answer = await self._http.send(step)
            except httpx.TransportError as error:
                answer = error


def _predict_options(
    model: str | None,
    version: int | None,
    passes: int | None,
    tolerance: float | None,
    max_passes: int | None,
    seed: int | str | None,
    masks: str | None,
    fields: Sequence[str] | None,
) -> dict[str, Any]:
    return {
        "model": model,
        "version": version,
        "passes": passes,
        "tolerance": tolerance,
        "max_passes": max_passes,
        "seed": seed,
        "masks": masks,
        "return": None if fields is None else list(fields),
    }


def _query_options(
    k: int,
    strategy: str,
    model: str | None,
    version: int | None,
    passes: int | None,
    seed: int | str | None,
    exclude: Sequence[int],
) -> dict[str, Any]:
    return {
        "k": k,
        "strategy": strategy,
        "model": model,
        "version": version,
        "passes": passes,
        "seed": seed,
        "exclude": [int(index) for index in exclude] or None,
    }


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _decision(lease: str | None, **more: Any) -> dict[str, Any]:
    return more if lease is None else {**more, "lease": lease}


def _plain(label: Any) -> Any:
    """Numbers as Python's own, whatever library they come from."""
    return label.tolist() if hasattr(label, "tolist") else label


def _sample(content: dict[str, Any]) -> KeptSample:
    return KeptSample(**{**content, "input": np.asarray(content["input"])})


def _to_array(inputs: Any) -> Array:
    if hasattr(inputs, "detach"):
        inputs = inputs.detach().cpu().numpy()
    try:
        return np.asarray(inputs)
    except ValueError:
        return np.array(None)  # rows of several lengths; the server says where


def _dump(content: Mapping[str, Any]) -> bytes:
    # Python's nan would become null; the server names its index if it sees it as what it is.
    return json.dumps(content).encode()


def _content(response: httpx.Response) -> dict[str, Any]:
    """What an answer holds, from arrays or JSON."""
    if response.headers["Content-Type"] == _NPZ:
        with np.load(io.BytesIO(response.content), allow_pickle=False) as arrays:
            return {name: a if a.ndim else a.item() for name, a in arrays.items()}
    content: dict[str, Any] = orjson.loads(response.content)
    return content


def _answer(response: httpx.Response) -> dict[str, Any]:
    content = _content(response)
    if response.headers["Content-Type"] == _NPZ:
        return _ood_together(content)
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


def _ood_together(content: dict[str, Any]) -> dict[str, Any]:
    """The parts of `ood`, which .npz has one by one, as the one field that they are."""
    parts = {name: content.pop(name) for name in [*content] if name.startswith(_OOD)}
    if parts:
        content["ood"] = {name.removeprefix(_OOD): part for name, part in parts.items()}
    return content


_OOD = "ood_"


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


def _error(response: httpx.Response) -> CandorError:
    try:
        problem = orjson.loads(response.content)
        kind = error_class(str(problem["type"]).rpartition(":")[2])
        return kind(
            problem["detail"],
            field=problem.get("field"),
            expected=problem.get("expected"),
            received=problem.get("received"),
            retry_after_s=_seconds(response.headers.get("Retry-After")) or None,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return CandorError(f"{response.status_code} from {response.url}: {response.text[:200]}")


def _seconds(header: str | None) -> float:
    try:
        return float(header or 0.0)
    except ValueError:
        return 0.0
