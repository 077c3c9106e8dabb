"""`/samples`: kept rows of requests, to be looked at, labelled, taken along and deleted.

The database blocks, so these routes are plain functions, which FastAPI runs on threads.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import IO, Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from service.api.bodies import write_json
from service.api.documentation import problems
from service.api.scope import Service, said_once, served_by, service_of
from service.errors import InvalidInput, ModelNotFound
from service.registry.labels import check_label, encode
from service.registry.loading import LoadedModel
from service.schemas import (
    CountsQuery,
    ExportQuery,
    LabelRequest,
    LeasedSamples,
    LeaseRequest,
    Released,
    ReleaseRequest,
    Removed,
    RemoveQuery,
    RenewedLease,
    RenewRequest,
    SampleCounts,
    SampleInfo,
    SamplePage,
    SampleProgress,
    SamplesQuery,
    SkipRequest,
    UndoRequest,
)
from service.store.contract import Counts, Sample, Status, described, moment
from service.store.export import write_jsonl, write_npz

router = APIRouter(prefix="/samples", responses=problems(422, 503))

_DISCARD_S = 20.0
"""What is being written when it is to be deleted gets so long to get there."""

_CHUNK_BYTES = 2**20
_MEDIA_TYPES = {
    "jsonl": "application/jsonl",
    "npz": "application/x-npz",
    "parquet": "application/vnd.apache.parquet",
}

Number = Annotated[str, Path(description="id of a sample")]


@router.get("", responses={200: {"model": SamplePage}, **problems(404)})
def list_samples(request: Request, query: Annotated[SamplesQuery, Query()]) -> Response:
    """Kept rows, the most uncertain first."""
    service = service_of(request)
    said_once(request)
    order = query.order or _order(service, query.model)
    status = None if query.status is None else Status(query.status)
    found, after = service.store.page(query.model, status, order, query.limit, query.after)
    if not found:
        _check_known(service, query.model)
    return write_json({"samples": [described(sample) for sample in found], "next": after})


@router.post(
    "/lease", responses={200: {"model": LeasedSamples}, **problems(400, 404, 413, 415, 429)}
)
def lease(request: Request, body: LeaseRequest) -> Response:
    """Samples without a label that are nobody else's until the lease ends."""
    service = service_of(request)
    served_by(request, service.registry.model(body.model).name)
    order = body.order or _order(service, body.model)
    until = time.time() + body.seconds
    number, found = service.store.lease(body.model, order, body.limit, body.seconds)
    samples = [described(sample) for sample in found]
    return write_json({"lease": number, "until": moment(until), "samples": samples})


@router.post("/lease/renew", responses=problems(400, 413, 415, 429))
def renew(request: Request, body: RenewRequest) -> RenewedLease:
    """Have a lease last longer, for what it still holds."""
    until = time.time() + body.seconds
    held = service_of(request).store.renew(body.lease, body.seconds)
    return RenewedLease(lease=body.lease, until=moment(until), held=held)


@router.post("/lease/release", responses=problems(400, 413, 415, 429))
def release(request: Request, body: ReleaseRequest) -> Released:
    """Give back what a lease holds, so that others are given it at once."""
    return Released(released=service_of(request).store.release(body.lease))


@router.get("/counts", responses=problems(404))
def counts(request: Request, query: Annotated[CountsQuery, Query()]) -> SampleProgress:
    """How many samples of each model wait for a label, are somebody's, are labelled or skipped."""
    service = service_of(request)
    said_once(request)
    found = service.store.progress(query.model)
    if query.model is not None and not found:
        _check_known(service, query.model)
        found = {query.model: Counts()}
    return SampleProgress(
        counts=[
            SampleCounts(
                model=model,
                unlabelled=of.unlabelled,
                leased=of.leased,
                labelled=of.labelled,
                skipped=of.skipped,
            )
            for model, of in found.items()
        ]
    )


@router.get(
    "/export",
    response_class=Response,
    responses={200: {"content": {kind: {} for kind in _MEDIA_TYPES.values()}}, **problems(404)},
)
def export(request: Request, query: Annotated[ExportQuery, Query()]) -> Response:
    """All samples of a status as a file: JSON lines, arrays, or a table."""
    service = service_of(request)
    said_once(request)
    status = None if query.status == "all" else Status(query.status)
    content: Iterable[bytes]
    if query.format == "jsonl":
        parts = write_jsonl(service.store.every(query.model, status))
        # Read here, so that what fails at the start is still an error's answer.
        first = list(itertools.islice(parts, 1))
        if not first:
            _check_known(service, query.model)
        content = itertools.chain(first, parts)
    else:
        model = _loaded(service, query.model)
        samples = service.store.every(query.model, status)
        if query.format == "npz":
            labels = partial(encode, model.manifest, model.outputs)
            content = _parts(write_npz(samples, labels if status is Status.LABELLED else None))
        else:
            # Tables take a quarter of a second to import, which nothing else here needs.
            from service.store.parquet import write_parquet

            named = model.manifest.labels is not None
            content = _parts(write_parquet(samples, model.manifest.task, named=named))
    plain = re.sub(r"[^\w.-]", "_", query.model or "", flags=re.ASCII)
    name = f"samples-{plain}.{query.format}" if plain else f"samples.{query.format}"
    return StreamingResponse(
        content,
        media_type=_MEDIA_TYPES[query.format],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.delete("", responses=problems(404))
def remove(request: Request, query: Annotated[RemoveQuery, Query()]) -> Removed:
    """Delete for good all samples of a model, or all rows of a request."""
    if query.model is None and query.request_id is None:
        raise InvalidInput(
            "say whose samples to delete: `model`, `request_id`, or both",
            field="model",
            expected="model or request_id",
        )
    service = service_of(request)
    said_once(request)
    # What waits to be written is to go, too, and must not come after this.
    count = service.collector.discard(query.model, query.request_id, _DISCARD_S)
    count += service.store.remove(query.model, request_id=query.request_id)
    if not count:
        _check_known(service, query.model)
    return Removed(deleted=count)


@router.get("/{number}", responses={200: {"model": SampleInfo}, **problems(404)})
def get_sample(request: Request, number: Number) -> Response:
    """One sample."""
    return _answer(service_of(request).store.get(number))


@router.delete("/{number}", responses=problems(404))
def remove_sample(request: Request, number: Number) -> Removed:
    """Delete one sample for good."""
    store = service_of(request).store
    store.get(number)
    return Removed(deleted=store.remove(numbers=[number]))


@router.post(
    "/{number}/label",
    responses={200: {"model": SampleInfo}, **problems(400, 404, 409, 413, 415, 429)},
)
def label(request: Request, number: Number, body: LabelRequest) -> Response:
    """Give a sample its label, or another one than it had."""
    service = service_of(request)
    sample = service.store.get(number)
    model = _loaded(service, sample.model)
    given = check_label(model.manifest, model.outputs, body.label)
    return _answer(service.store.label(number, given, body.lease))


@router.post(
    "/{number}/skip",
    responses={200: {"model": SampleInfo}, **problems(400, 404, 409, 413, 415, 429)},
)
def skip(request: Request, number: Number, body: SkipRequest | None = None) -> Response:
    """Leave a sample without a label: nobody is asked for it again."""
    return _answer(service_of(request).store.skip(number, None if body is None else body.lease))


@router.post(
    "/{number}/undo",
    responses={200: {"model": SampleInfo}, **problems(400, 404, 409, 413, 415, 429)},
)
def undo(request: Request, number: Number, body: UndoRequest | None = None) -> Response:
    """Take back a label or a skip: the sample waits for a label again."""
    asked = body or UndoRequest()
    return _answer(service_of(request).store.undo(number, asked.lease, asked.seconds))


def _answer(sample: Sample) -> Response:
    return write_json(described(sample))


def _order(service: Service, model: str | None) -> str:
    """The score that samples are ordered by where nobody says."""
    if model is not None:
        try:
            manifest = service.registry.model(model).manifest
        except ModelNotFound:
            manifest = None
        if manifest is not None and manifest.task.is_regression:
            return "variance"
    return "mutual_information"


def _loaded(service: Service, model: str | None) -> LoadedModel:
    """What a model's labels are read by: the version that serves.

    Raises:
        ModelNotFound: it is not in the repository.
        ModelNotReady: no version of it serves.
        InvalidInput: none was named.
    """
    if model is None:
        raise InvalidInput("`model` is missing: arrays and tables hold one model's", field="model")
    return service.registry.resolve(model, None)


def _check_known(service: Service, model: str | None) -> None:
    """A model that is gone may have left samples; one that has none and never was is a slip.

    Raises:
        ModelNotFound: naming those that there are.
    """
    if model is not None:
        service.registry.model(model)


def _parts(stream: IO[bytes]) -> Iterator[bytes]:
    with stream:
        while part := stream.read(_CHUNK_BYTES):
            yield part
