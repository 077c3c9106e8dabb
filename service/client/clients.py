"""The two clients: one blocks, one is for asyncio; they make the same calls."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from service.client.answers import (
    Array,
    Evaluation,
    KeptSample,
    Prediction,
    SamplePage,
    Selection,
)
from service.client.calls import AnswerT, Calls, Steps, predict_options, query_options
from service.schemas import ModelInfo, ReportList, SampleCounts


class Client:
    """Blocking client; keeps its connections. Safe to share between threads.

    Args:
        url: of the server.
        token: sent as `Authorization: Bearer`.
        verify: whom to trust over HTTPS: those whom the system does, a PEM file of others, or a
            context, which may also hold a certificate of the client's own.
        timeout_s: seconds for each attempt.
        retries: further attempts after 429, 503 or a refused connection, with growing waits.

    Every method raises the errors of `service.errors`.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        token: str | None = None,
        verify: ssl.SSLContext | Path | str | None = None,
        timeout_s: float = 60.0,
        retries: int = 3,
    ) -> None:
        self._calls = Calls(url, token, timeout_s, retries)
        self._http = httpx.Client(verify=_trust(verify))

    def predict(
        self,
        inputs: Any,
        *,
        model: str | None = None,
        version: int | str | None = None,
        passes: int | None = None,
        tolerance: float | None = None,
        max_passes: int | None = None,
        seed: int | str | None = None,
        masks: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> Prediction:
        """`POST /predict`: inputs [B, D...] as an array, a tensor or lists; `fields` to return."""
        options = predict_options(
            model, version, passes, tolerance, max_passes, seed, masks, fields
        )
        return self._drive(self._calls.predict(inputs, options))

    def eval(
        self, inputs: Any, *, model: str | None = None, version: int | str | None = None
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
        version: int | str | None = None,
        passes: int | None = None,
        seed: int | str | None = None,
        exclude: Sequence[int] = (),
    ) -> Selection:
        """`POST /query`: k rows of a pool [N, D...] whose labels would say most."""
        options = query_options(k, strategy, model, version, passes, seed, exclude)
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

    def renew(self, lease: str, *, seconds: float | None = None) -> list[str]:
        """`POST /samples/lease/renew`: it lasts so long from now on; ids of what it still holds."""
        return self._drive(self._calls.renew(lease, seconds))

    def release(self, lease: str) -> int:
        """`POST /samples/lease/release`: what it holds is for others; how many there were."""
        return self._drive(self._calls.release(lease))

    def counts(self, *, model: str | None = None) -> list[SampleCounts]:
        """`GET /samples/counts`: by model how many wait, are leased, labelled and skipped."""
        return self._drive(self._calls.counts({"model": model}))

    def label(self, number: str, label: Any, *, lease: str | None = None) -> KeptSample:
        """`POST /samples/{id}/label`: a class by name or index, a list of those that hold, or a
        number."""
        return self._drive(self._calls.label(number, label, lease))

    def skip(self, number: str, *, lease: str | None = None) -> KeptSample:
        """`POST /samples/{id}/skip`: nobody is asked for it again."""
        return self._drive(self._calls.skip(number, lease))

    def undo(
        self, number: str, *, lease: str | None = None, seconds: float | None = None
    ) -> KeptSample:
        """`POST /samples/{id}/undo`: takes a label or a skip back; by the lease that gave it, which
        then holds the sample again, or whoever gave it."""
        return self._drive(self._calls.undo(number, lease, seconds))

    def remove_samples(self, *, model: str | None = None, request_id: str | None = None) -> int:
        """`DELETE /samples`: for good; returns how many there were."""
        return self._drive(self._calls.remove({"model": model, "request_id": request_id}))

    def export(self, model: str, *, status: str = "labelled") -> dict[str, Array]:
        """`GET /samples/export` as arrays: `x` [N, D...], `y` [N] of labelled ones, scores [N]."""
        return self._drive(self._calls.export({"model": model, "status": status}))

    def models(self) -> list[ModelInfo]:
        """`GET /models`."""
        return self._drive(self._calls.models())

    def reports(
        self,
        *,
        model: str | None = None,
        version: int | str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> ReportList:
        """`GET /reports`: reports of `candor report` with their main numbers, a page at a time."""
        options = {"model": model, "version": version, "limit": limit, "after": after}
        return self._drive(self._calls.reports(options))

    def report(self, model: str, version: int | str, name: str) -> dict[str, Any]:
        """`GET /models/{name}/versions/{version}/reports/{report}`: all numbers of one."""
        return self._drive(self._calls.report(model, version, name))

    def report_page(self, model: str, version: int | str, name: str) -> str:
        """`GET /models/{name}/versions/{version}/reports/{report}/page`: one as HTML."""
        return self._drive(self._calls.report_page(model, version, name))

    def load(self, model: str) -> ModelInfo:
        """`POST /models/{name}/load`: also of a folder that is new; returns once it serves."""
        return self._drive(self._calls.change(model, "load"))

    def unload(self, model: str) -> ModelInfo:
        """`POST /models/{name}/unload`: it serves no more, until it is loaded."""
        return self._drive(self._calls.change(model, "unload"))

    def reload(self, model: str) -> ModelInfo:
        """`POST /models/{name}/reload`: returns once its new versions serve."""
        return self._drive(self._calls.change(model, "reload"))

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

    def _drive(self, steps: Steps[AnswerT]) -> AnswerT:
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
        verify: ssl.SSLContext | Path | str | None = None,
        timeout_s: float = 60.0,
        retries: int = 3,
    ) -> None:
        self._calls = Calls(url, token, timeout_s, retries)
        self._http = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=None), verify=_trust(verify)
        )

    async def predict(
        self,
        inputs: Any,
        *,
        model: str | None = None,
        version: int | str | None = None,
        passes: int | None = None,
        tolerance: float | None = None,
        max_passes: int | None = None,
        seed: int | str | None = None,
        masks: str | None = None,
        fields: Sequence[str] | None = None,
    ) -> Prediction:
        """See `Client.predict`."""
        options = predict_options(
            model, version, passes, tolerance, max_passes, seed, masks, fields
        )
        return await self._drive(self._calls.predict(inputs, options))

    async def eval(
        self, inputs: Any, *, model: str | None = None, version: int | str | None = None
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
        version: int | str | None = None,
        passes: int | None = None,
        seed: int | str | None = None,
        exclude: Sequence[int] = (),
    ) -> Selection:
        """See `Client.query`."""
        options = query_options(k, strategy, model, version, passes, seed, exclude)
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

    async def renew(self, lease: str, *, seconds: float | None = None) -> list[str]:
        """See `Client.renew`."""
        return await self._drive(self._calls.renew(lease, seconds))

    async def release(self, lease: str) -> int:
        """See `Client.release`."""
        return await self._drive(self._calls.release(lease))

    async def counts(self, *, model: str | None = None) -> list[SampleCounts]:
        """See `Client.counts`."""
        return await self._drive(self._calls.counts({"model": model}))

    async def label(self, number: str, label: Any, *, lease: str | None = None) -> KeptSample:
        """See `Client.label`."""
        return await self._drive(self._calls.label(number, label, lease))

    async def skip(self, number: str, *, lease: str | None = None) -> KeptSample:
        """See `Client.skip`."""
        return await self._drive(self._calls.skip(number, lease))

    async def undo(
        self, number: str, *, lease: str | None = None, seconds: float | None = None
    ) -> KeptSample:
        """See `Client.undo`."""
        return await self._drive(self._calls.undo(number, lease, seconds))

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

    async def reports(
        self,
        *,
        model: str | None = None,
        version: int | str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> ReportList:
        """See `Client.reports`."""
        options = {"model": model, "version": version, "limit": limit, "after": after}
        return await self._drive(self._calls.reports(options))

    async def report(self, model: str, version: int | str, name: str) -> dict[str, Any]:
        """See `Client.report`."""
        return await self._drive(self._calls.report(model, version, name))

    async def report_page(self, model: str, version: int | str, name: str) -> str:
        """See `Client.report_page`."""
        return await self._drive(self._calls.report_page(model, version, name))

    async def load(self, model: str) -> ModelInfo:
        """See `Client.load`."""
        return await self._drive(self._calls.change(model, "load"))

    async def unload(self, model: str) -> ModelInfo:
        """See `Client.unload`."""
        return await self._drive(self._calls.change(model, "unload"))

    async def reload(self, model: str) -> ModelInfo:
        """See `Client.reload`."""
        return await self._drive(self._calls.change(model, "reload"))

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

    async def _drive(self, steps: Steps[AnswerT]) -> AnswerT:
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


def _trust(verify: ssl.SSLContext | Path | str | None) -> ssl.SSLContext | bool:
    if verify is None or isinstance(verify, ssl.SSLContext):
        return verify or True
    return ssl.create_default_context(cafile=verify)
