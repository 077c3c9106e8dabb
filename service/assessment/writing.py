"""From a loaded version and data to the report's two files."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson

from service.assessment import words
from service.assessment.data import Inputs, Labelled
from service.assessment.measured import Contender, Measured, measure, nothing
from service.assessment.page import render
from service.assessment.report import Report, make_report
from service.calibration.checks import IntArray
from service.errors import InvalidInput
from service.files import write_atomically
from service.registry.loading import LoadedModel
from service.types import Progress

KEPT_NUMBERS = 2**21
"""Numbers of single passes that a report looks at: a likelihood of some ten thousand rows."""


def write_report(
    model: LoadedModel,
    labelled: Labelled,
    out_of_distribution: Inputs | None,
    output_html: Path,
    output_json: Path,
    *,
    passes: int | None = None,
    temperature: float | None = None,
    noise_variance: Sequence[float] | None = None,
    others: Sequence[LoadedModel] = (),
    folder_made: bool = False,
    progress: Progress = nothing,
) -> Report:
    """Measure a version, and write the page and its numbers.

    Args:
        model: loaded and verified.
        labelled: held-out rows with their truth.
        out_of_distribution: rows of another kind.
        output_html: replaced as a whole, or left as it was.
        output_json: the same.
        passes: T; the model's own by default.
        temperature: as for `make_report`.
        noise_variance: as for `make_report`.
        others: further versions of the model to compare it with.
        folder_made: whether the files' folder is made where it is missing.
        progress: called with the rows done and the rows of both files, once for each version.

    Raises:
        CalibrationFailed: data from which nothing can be reported.
        InvalidInput: too few passes, or a file that cannot be written.
    """
    for path in (output_html, output_json):
        # Before minutes of work, not after.
        if not (path.parent.parent if folder_made else path.parent).is_dir():
            raise InvalidInput(f"{path} cannot be written: {path.parent} is no folder")
    strangers = None if out_of_distribution is None else out_of_distribution.inputs
    rows = len(labelled.inputs)
    every = rows + (0 if strangers is None else len(strangers))
    before = 0

    def measured_by(
        version: LoadedModel, kept_rows: IntArray | None = None
    ) -> tuple[Measured, Measured | None]:
        nonlocal before
        total = every * (1 + len(others))
        # Where nothing drops in several members, more passes than members repeat them.
        wanted = passes if version.sampler.dropping.sites else None
        inside = measure(
            version,
            labelled.inputs,
            passes=wanted,
            kept_numbers=KEPT_NUMBERS,
            kept_rows=kept_rows,
            progress=lambda done, _: progress(before + done, total),
        )
        outside = None
        if strangers is not None:
            outside = measure(
                version,
                strangers,
                passes=wanted,
                kept_numbers=1,
                progress=lambda done, _: progress(before + rows + done, total),
            )
        before += every
        return inside, outside

    measured, measured_strangers = measured_by(model)
    contenders = [
        Contender(
            f"version_{other.ref.version}", _title(other), *measured_by(other, measured.kept_rows)
        )
        for other in others
    ]
    report = make_report(
        model.ref,
        model.manifest,
        labelled,
        measured,
        None
        if out_of_distribution is None or measured_strangers is None
        else (out_of_distribution, measured_strangers),
        temperature=temperature,
        noise_variance=noise_variance,
        contenders=contenders,
        weights=model.conditions.weights,
        created=datetime.now(UTC).replace(microsecond=0),
    )
    if folder_made:
        _make(output_json.parent)
    _replace(output_json, orjson.dumps(_tree(report)) + b"\n")
    _replace(output_html, render(report).encode())
    return report


def _tree(report: Report) -> dict[str, object]:
    """All numbers, and what the page says of them first."""
    numbers = {each.name: getattr(report, each.name) for each in dataclasses.fields(report)}
    return {**numbers, "verdict": words.verdict(report)}


def _title(version: LoadedModel) -> str:
    members = version.sampler.members
    method = version.origin.get("method", "members")
    return f"Version {version.ref.version}" + (f" ({members} {method})" if members > 1 else "")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be made: {error}", field="output") from None


def _replace(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error}", field="output") from None
