"""`/samples`: kept rows of requests, to be looked at, labelled, taken along and deleted.

The database blocks, so these routes are plain functions, which FastAPI runs on threads.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from functools import partial
from typing import IO, Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from service.api.bodies import write_json
from service.api.documentation import problems
from service.api.scope import Service, served_by, service_of
from service.errors import InvalidInput, ModelNotFound
from service.registry.labels import check_label, encode
from service.registry.manifest import Manifest
from service.schemas import (
    ExportQuery,
    LabelRequest,
    LeasedSamples,
    LeaseRequest,
    Removed,
    RemoveQuery,
    SampleInfo,
    SamplePage,
    SamplesQuery,
    SkipRequest,
)
from service.store.contract import Sample, Status, described, moment
from service.store.export import write_jsonl, write_npz, write_parquet

router = APIRouter(prefix="/samples")

_FLUSH_S = 10.0
"""What waits to be written gets so long before a deletion that is to have it, too."""

_CHUNK_BYTES = 2**20
_MEDIA_TYPES = {
    "jsonl": "application/jsonl",
    "npz": "application/x-npz",
    "parquet": "application/vnd.apache.parquet",
}

Number = Annotated[str, Path(description="id of a sample")]


@router.get("", responses={200: {"model": SamplePage}, **problems(404, 422, 503)})
def list_samples(request: Request, query: Annotated[SamplesQuery, Query()]) -> Response:
    """Kept rows, the most uncertain first."""
    service = service_of(request)
    order = query.order or _order(service, query.model)
    status = None if query.status is None else Status(query.status)
    found, after = service.store.page(query.model, status, order, query.limit, query.after)
    if not found and query.model is not None:
        # A model that is gone may have left samples; one that never was is a slip.
        service.registry.model(query.model)
    return write_json({"samples": [described(sample) for sample in found], "next": after})


@router.post("/lease", responses={200: {"model": LeasedSamples}, **problems(404, 422, 503)})
def lease(request: Request, body: LeaseRequest) -> Response:
    """Samples without a label that are nobody else's until the lease ends."""
    service = service_of(request)
    served_by(request, service.registry.model(body.model).name)
    order = body.order or _order(service, body.model)
    until = time.time() + body.seconds
    number, found = service.store.lease(body.model, order, body.limit, body.seconds)
    samples = [described(sample) for sample in found]
    return write_json({"lease": number, "until": moment(until), "samples": samples})


@router.get("/export", responses=problems(404, 422, 503))
def export(request: Request, query: Annotated[ExportQuery, Query()]) -> Response:
    """All samples of a status as a file: JSON lines, arrays, or a table."""
    service = service_of(request)
    status = None if query.status == "all" else Status(query.status)
    content: Iterable[bytes]
    if query.format == "jsonl":
        content = _begun(write_jsonl(service.store.every(query.model, status)))
    else:
        manifest = _manifest(service, query.model)
        samples = service.store.every(query.model, status)
        if query.format == "npz":
            labelled = status is Status.LABELLED
            content = _parts(write_npz(samples, partial(encode, manifest) if labelled else None))
        else:
            named = manifest.labels is not None
            content = _parts(write_parquet(samples, manifest.task, named=named))
    name = f"samples-{query.model}.{query.format}" if query.model else f"samples.{query.format}"
    return StreamingResponse(
        content,
        media_type=_MEDIA_TYPES[query.format],
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


@router.delete("", responses=problems(422, 503))
def remove(request: Request, query: Annotated[RemoveQuery, Query()]) -> Removed:
    """Delete for good all samples of a model, or all rows of a request."""
    if query.model is None and query.request_id is None:
        raise InvalidInput(
            "say whose samples to delete: `model`, `request_id`, or both",
            field="model",
            expected="model or request_id",
        )
    service = service_of(request)
    service.collector.flush(_FLUSH_S)
    return Removed(deleted=service.store.remove(query.model, request_id=query.request_id))


@router.get("/{number}", responses={200: {"model": SampleInfo}, **problems(404, 503)})
def get_sample(request: Request, number: Number) -> Response:
    """One sample."""
    return _answer(service_of(request).store.get(number))


@router.delete("/{number}", responses=problems(404, 503))
def remove_sample(request: Request, number: Number) -> Removed:
    """Delete one sample for good."""
    store = service_of(request).store
    store.get(number)
    return Removed(deleted=store.remove(numbers=[number]))


@router.post(
    "/{number}/label", responses={200: {"model": SampleInfo}, **problems(400, 404, 409, 422, 503)}
)
def label(request: Request, number: Number, body: LabelRequest) -> Response:
    """Give a sample its label, or another one than it had."""
    service = service_of(request)
    sample = service.store.get(number)
    given = check_label(_manifest(service, sample.model), body.label)
    return _answer(service.store.label(number, given, body.lease))


@router.post(
    "/{number}/skip", responses={200: {"model": SampleInfo}, **problems(400, 404, 409, 422, 503)}
)
def skip(request: Request, number: Number, body: SkipRequest | None = None) -> Response:
    """Leave a sample without a label: nobody is asked for it again."""
    return _answer(service_of(request).store.skip(number, None if body is None else body.lease))


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


def _manifest(service: Service, model: str | None) -> Manifest:
    """What a model's labels are read by.

    Raises:
        ModelNotFound: it is not in the repository, or cannot be read.
        InvalidInput: none was named.
    """
    if model is None:
        raise InvalidInput("`model` is missing: arrays and tables hold one model's", field="model")
    found = service.registry.model(model)
    if found.manifest is None:
        raise ModelNotFound(f"{model} has no readable model.toml: {found.reason}", field="model")
    return found.manifest


def _begun(parts: Iterator[bytes]) -> Iterator[bytes]:
    """With its first part read, so that what fails at the start is still an error's answer."""
    first = list(itertools.islice(parts, 1))
    return itertools.chain(first, parts)


def _parts(stream: IO[bytes]) -> Iterator[bytes]:
    with stream:
        while part := stream.read(_CHUNK_BYTES):
            yield part
