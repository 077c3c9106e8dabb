"""Every call as steps that do no input or output themselves; the two clients drive them."""

from __future__ import annotations

import io
import json
import random
import uuid
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import numpy as np
import orjson

from service.client.answers import (
    NPZ,
    Array,
    Evaluation,
    KeptSample,
    Prediction,
    SamplePage,
    Selection,
    read_answer,
    read_content,
    read_error,
    read_sample,
    seconds,
)
from service.errors import ServerUnreachable
from service.schemas import ModelInfo, ModelList, ReportList, SampleCounts, SampleProgress

AnswerT = TypeVar("AnswerT")

_JSON = "application/json"
_NPY = "application/x-npy"

BINARY_FROM = 2048
"""Inputs of this many numbers travel as .npy, and their answers as .npz."""

_RETRIED = (429, 503)
_ANSWERED_ALIKE = ("/predict", "/eval", "/query")
"""What changes nothing, so that it may be sent again though nobody knows whether it arrived."""
_LISTS = frozenset({"return", "exclude"})
"""Fields that stand in a query with commas between their values."""
_LONGEST_LISTS = 4096
"""Characters of these; with more the body is JSON, since no server or proxy takes any query."""
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 10.0

Steps = Generator[httpx.Request | float, httpx.Response | httpx.TransportError | None, AnswerT]
"""What to do next: send a request (and get its answer back), or sleep so many seconds."""


class Calls:
    """Every call as steps that do no input or output themselves; the two clients drive them."""

    def __init__(self, url: str, token: str | None, timeout_s: float, retries: int) -> None:
        self._url = url.rstrip("/")
        self._retries = retries
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._timeout_s = timeout_s

    def predict(self, inputs: Any, options: Mapping[str, Any]) -> Steps[Prediction]:
        """Steps of `POST /predict`."""
        response = yield from self._post("/predict", inputs, _given(options))
        return Prediction(**read_answer(response))

    def evaluate(self, inputs: Any, options: Mapping[str, Any]) -> Steps[Evaluation]:
        """Steps of `POST /eval`."""
        response = yield from self._post("/eval", inputs, _given(options))
        return Evaluation(**read_answer(response))

    def query(self, inputs: Any, options: Mapping[str, Any]) -> Steps[Selection]:
        """Steps of `POST /query`."""
        response = yield from self._post("/query", inputs, _given(options))
        answer = read_content(response)
        answer["indices"] = np.asarray(answer["indices"], dtype=np.int64)
        # JSON has no infinity: what is said by nothing at all comes as null.
        scores = [-np.inf if score is None else score for score in answer["scores"]]
        return Selection(**{**answer, "scores": np.asarray(scores, dtype=np.float64)})

    def models(self) -> Steps[list[ModelInfo]]:
        """Steps of `GET /models`."""
        response = yield from self._send(self._request("GET", "/models"))
        return ModelList.model_validate_json(response.content).models

    def reports(self, options: Mapping[str, Any]) -> Steps[ReportList]:
        """Steps of `GET /reports`."""
        response = yield from self._send(self._request("GET", "/reports", params=_given(options)))
        return ReportList.model_validate_json(response.content)

    def report(self, model: str, version: int | str, name: str) -> Steps[dict[str, Any]]:
        """Steps of `GET /models/{name}/versions/{version}/reports/{report}`."""
        path = _report_path(model, version, name)
        response = yield from self._send(self._request("GET", path))
        content: dict[str, Any] = orjson.loads(response.content)
        return content

    def report_page(self, model: str, version: int | str, name: str) -> Steps[str]:
        """Steps of `GET /models/{name}/versions/{version}/reports/{report}/page`."""
        path = _report_path(model, version, name) + "/page"
        response = yield from self._send(self._request("GET", path))
        return response.text

    def samples(self, options: Mapping[str, Any]) -> Steps[SamplePage]:
        """Steps of `GET /samples`."""
        response = yield from self._send(self._request("GET", "/samples", params=_given(options)))
        content = orjson.loads(response.content)
        return SamplePage([read_sample(one) for one in content["samples"]], next=content["next"])

    def lease(self, options: Mapping[str, Any]) -> Steps[SamplePage]:
        """Steps of `POST /samples/lease`."""
        response = yield from self._send(
            self._request("POST", "/samples/lease", json=_given(options))
        )
        content = orjson.loads(response.content)
        return SamplePage([read_sample(one) for one in content["samples"]], lease=content["lease"])

    def renew(self, lease: str, seconds: float | None) -> Steps[list[str]]:
        """Steps of `POST /samples/lease/renew`."""
        asked = {"lease": lease, **_given({"seconds": seconds})}
        response = yield from self._send(self._request("POST", "/samples/lease/renew", json=asked))
        held: list[str] = orjson.loads(response.content)["held"]
        return held

    def release(self, lease: str) -> Steps[int]:
        """Steps of `POST /samples/lease/release`."""
        request = self._request("POST", "/samples/lease/release", json={"lease": lease})
        return int(orjson.loads((yield from self._send(request)).content)["released"])

    def counts(self, options: Mapping[str, Any]) -> Steps[list[SampleCounts]]:
        """Steps of `GET /samples/counts`."""
        request = self._request("GET", "/samples/counts", params=_given(options))
        response = yield from self._send(request)
        return SampleProgress.model_validate_json(response.content).counts

    def label(self, number: str, label: Any, lease: str | None) -> Steps[KeptSample]:
        """Steps of `POST /samples/{id}/label`."""
        return (yield from self._decide(number, "label", {"label": label}, lease))

    def skip(self, number: str, lease: str | None) -> Steps[KeptSample]:
        """Steps of `POST /samples/{id}/skip`."""
        return (yield from self._decide(number, "skip", {}, lease))

    def undo(self, number: str, lease: str | None, seconds: float | None) -> Steps[KeptSample]:
        """Steps of `POST /samples/{id}/undo`."""
        return (yield from self._decide(number, "undo", _given({"seconds": seconds}), lease))

    def remove(self, options: Mapping[str, Any]) -> Steps[int]:
        """Steps of `DELETE /samples`."""
        response = yield from self._send(
            self._request("DELETE", "/samples", params=_given(options))
        )
        return int(orjson.loads(response.content)["deleted"])

    def export(self, options: Mapping[str, Any]) -> Steps[dict[str, Array]]:
        """Steps of `GET /samples/export`."""
        options = {**options, "format": "npz"}
        response = yield from self._send(self._request("GET", "/samples/export", params=options))
        return read_content(response)

    def change(self, model: str, what: str) -> Steps[ModelInfo]:
        """Steps of `POST /models/{name}/load`, `unload` or `reload`."""
        path = f"/models/{quote(model, safe='')}/{what}"
        response = yield from self._send(self._request("POST", path))
        return ModelInfo.model_validate_json(response.content)

    def _decide(
        self, number: str, what: str, content: dict[str, Any], lease: str | None
    ) -> Steps[KeptSample]:
        path = f"/samples/{quote(number, safe='')}/{what}"
        request = self._request("POST", path, json={**content, **_given({"lease": lease})})
        return read_sample(orjson.loads((yield from self._send(request)).content))

    def _post(self, path: str, inputs: Any, fields: dict[str, Any]) -> Steps[httpx.Response]:
        array = _to_array(inputs)
        lists = {name: ",".join(map(str, fields[name])) for name in _LISTS & fields.keys()}
        fits = sum(map(len, lists.values())) <= _LONGEST_LISTS
        if array.dtype.kind in "iufb" and array.size >= BINARY_FROM and fits:
            body = io.BytesIO()
            np.save(body, array, allow_pickle=False)
            headers = {"Content-Type": _NPY, "Accept": NPZ}
            request = self._request(
                "POST", path, headers=headers, content=body.getvalue(), params={**fields, **lists}
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
        if method == "POST":
            # One id for all attempts: a request that is sent again gets the same version.
            headers.setdefault("X-Request-ID", uuid.uuid4().hex)
        timeout = httpx.Timeout(self._timeout_s).as_dict()
        return httpx.Request(
            method, self._url + path, headers=headers, extensions={"timeout": timeout}, **more
        )

    def _send(self, request: httpx.Request) -> Steps[httpx.Response]:
        wait_s = _FIRST_WAIT_S
        for attempt in range(self._retries + 1):
            answer = yield request
            last = attempt == self._retries
            if isinstance(answer, httpx.TransportError):
                if last or not _may_be_sent_again(request, answer):
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
                    raise read_error(answer)
                asked_s = seconds(answer.headers.get("Retry-After"))
            # Clients that were refused together should not come back together.
            yield min(max(wait_s, asked_s), _LONGEST_WAIT_S) * random.uniform(1.0, 1.5)
            wait_s *= 2
        raise AssertionError("the last attempt returns or raises")


def _may_be_sent_again(request: httpx.Request, error: httpx.TransportError) -> bool:
    """Whether nothing was sent, or a connection was closed under what may as well arrive twice.

    A server closes connections that were idle, perhaps just when one is used again.
    """
    if isinstance(error, httpx.ConnectError):
        return True
    harmless = request.method == "GET" or request.url.path.endswith(_ANSWERED_ALIKE)
    return harmless and isinstance(error, httpx.RemoteProtocolError | httpx.ReadError)


def predict_options(
    model: str | None,
    version: int | str | None,
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


def query_options(
    k: int,
    strategy: str,
    model: str | None,
    version: int | str | None,
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


def _report_path(model: str, version: int | str, name: str) -> str:
    parts = ("models", model, "versions", str(version), "reports", name)
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}


def _to_array(inputs: Any) -> Array:
    if hasattr(inputs, "detach"):
        inputs = inputs.detach().cpu().numpy()
    try:
        return np.asarray(inputs)
    except ValueError:
        return np.array(None)  # rows of several lengths; the server says where


def _dump(content: Mapping[str, Any]) -> bytes:
    # Python's nan would become null; the server names its index if it sees it as what it is.
    return json.dumps(content, default=_plain).encode()


def _plain(value: Any) -> Any:
    """Numbers and arrays as Python's own, whatever library they come from."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")
