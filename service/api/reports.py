"""`/reports`: what `candor report` wrote beside the versions, as a list with the main numbers.

Files block, so these routes are plain functions, which FastAPI runs on threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse

from service.api import report_pages
from service.api.bodies import JSON
from service.api.documentation import problems
from service.api.scope import Service, number_or_label, said_once, served_by, service_of
from service.calibration.reliability import Bins
from service.errors import InvalidInput
from service.registry import reports
from service.registry.registry import Version
from service.registry.reports import Method, Numbers, Report, Rows
from service.schemas import (
    ReportCoverage,
    ReportDeferral,
    ReportInfo,
    ReportList,
    ReportMethod,
    ReportRows,
    ReportScore,
    ReportsQuery,
)
from service.types import ModelRef

router = APIRouter()

DEFERRED = 0.1
"""Of the shares in a report the one that a list shows."""


@router.get("/reports", responses=problems(404, 422, 503))
def list_reports(request: Request, query: Annotated[ReportsQuery, Query()]) -> ReportList:
    """Reports by model, of the highest version first, the newest first; broken ones included."""
    service = service_of(request)
    said_once(request)
    if query.model is not None:
        served_by(request, service.registry.model(query.model).name)
    found: list[ReportInfo] = []
    warnings: list[str] = []
    for ref, version in _versions(service, query):
        own, left_out = reports.reports_of(service.settings.models, ref)
        found += [describe_report(ref, version, each) for each in own]
        warnings += left_out
    start = 0
    if query.after is not None:
        places = [_place(each) for each in found]
        if query.after not in places:
            raise InvalidInput(
                "`after` is no report that is there now; begin again without it",
                field="after",
                expected="`next` of the page before",
            )
        start = places.index(query.after) + 1
    shown = found[start : start + query.limit]
    more = start + query.limit < len(found)
    return ReportList(
        reports=shown, next=_place(shown[-1]) if more else None, warnings=sorted(set(warnings))
    )


@router.get(
    "/models/{name}/versions/{version}/reports/{report}",
    response_class=Response,
    responses={
        200: {"content": {JSON: {"schema": {"type": "object"}}}},
        **problems(404, 503),
    },
)
def get_report(request: Request, name: str, version: str, report: str) -> Response:
    """All numbers of a report, as `candor report` wrote them."""
    content = reports.read_numbers(*_of(request, name, version), report)
    return Response(content, media_type=JSON)


@router.get(
    report_pages.PATH,
    response_class=HTMLResponse,
    responses={200: {"description": "HTML"}, **problems(404, 503)},
)
def get_report_page(request: Request, name: str, version: str, report: str) -> Response:
    """A report as the page that `candor report` drew; a browser shows it in a sandbox."""
    return HTMLResponse(reports.read_page(*_of(request, name, version), report))


def _of(request: Request, name: str, version: str) -> tuple[Path, ModelRef]:
    """The repository, and the version in it that a path names."""
    service = service_of(request)
    model = service.registry.model(name)
    served_by(request, model.name)
    number = service.registry.version(model.name, number_or_label(version)).number
    return service.settings.models, ModelRef(model.name, number)


def _versions(service: Service, query: ReportsQuery) -> Iterator[tuple[ModelRef, Version]]:
    """Those whose reports are wanted, in the order of the list."""
    registry = service.registry
    if query.model is None:
        if query.version is not None:
            raise InvalidInput(
                "`version` stands without `model`; name the model, too", field="model"
            )
        models = registry.models()
    else:
        models = [registry.model(query.model)]
    for model in models:
        if query.version is not None:
            versions = [registry.version(model.name, query.version)]
        else:
            versions = sorted(model.versions.values(), key=lambda v: v.number, reverse=True)
        for version in versions:
            yield ModelRef(model.name, version.number), version


def _place(report: ReportInfo) -> str:
    """A report's own among all."""
    return f"{report.model}/{report.version}/{report.name}"


def describe_report(ref: ModelRef, version: Version, report: Report) -> ReportInfo:
    """A report as a list shows it.

    Args:
        ref: the version in whose folder it lies.
        version: what serves of it.
        report: as it was read.
    """
    numbers = report.numbers
    described = ReportInfo(
        model=ref.name,
        version=ref.version,
        name=report.name,
        created=report.created.isoformat(timespec="seconds"),
        state="broken" if numbers is None else "readable",
        reason=report.reason or None,
        page=report.has_page,
        weights="unknown",
    )
    if numbers is None:
        return described
    # Looked up once: it may be unloaded meanwhile.
    loaded = version.model
    if numbers.weights is not None and loaded is not None:
        same = numbers.weights == loaded.conditions.weights
        described.weights = "same" if same else "other"
    return described.model_copy(update=_main_numbers(numbers))


def _main_numbers(numbers: Numbers) -> dict[str, object]:
    scores = [] if numbers.detection is None else numbers.detection.separations
    return {
        "task": numbers.task,
        "passes": numbers.passes,
        "seed": numbers.seed,
        "masks": numbers.masks,
        "precision": numbers.precision,
        "data": _rows(numbers.data),
        "out_of_distribution_data": None if numbers.strangers is None else _rows(numbers.strangers),
        "methods": [_method(each) for each in numbers.class_methods or numbers.regression_methods],
        "headline": numbers.headline,
        "detection": [
            ReportScore(
                name=each.name,
                title=each.title,
                auroc=each.rates.auroc,
                interval=list(each.rates.auroc_interval),
            )
            for each in scores
        ],
        "deferral": _deferral(numbers),
        "verdict": numbers.verdict,
        "candor": numbers.candor,
    }


def _rows(rows: Rows) -> ReportRows:
    """Without the folders that the file lay in."""
    return ReportRows(
        name=rows.path.replace("\\", "/").rpartition("/")[2], sha256=rows.sha256, rows=rows.rows
    )


def _method(method: Method) -> ReportMethod:
    error = method.calibration.get(Bins.EQUAL_MASS)
    squared = method.root_mean_squared_error
    return ReportMethod(
        name=method.name,
        title=method.title,
        accuracy=method.accuracy,
        negative_log_likelihood=None if method.log_likelihood is None else -method.log_likelihood,
        calibration_error=None if error is None else error.expected,
        brier=method.brier,
        root_mean_squared_error=None
        if squared is None or None in squared
        else [each for each in squared if each is not None],
        coverage=None
        if method.coverage is None
        else [ReportCoverage(level=e.level, observed=e.observed) for e in method.coverage],
    )


def _deferral(numbers: Numbers) -> ReportDeferral | None:
    """Of the score that the report's sentences speak of, the share that is nearest to a tenth."""
    ranking = next((each for each in numbers.rankings if each.name == numbers.headline), None)
    if ranking is None or not ranking.deferrals:
        return None
    found = min(ranking.deferrals, key=lambda each: abs(each.share - DEFERRED))
    return ReportDeferral(
        score=ranking.name, title=ranking.title, share=found.share, avoided=found.avoided
    )
