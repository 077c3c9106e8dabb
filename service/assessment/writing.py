"""From a loaded version and data to the report's two files."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import orjson

from service.assessment.data import Inputs, Labelled
from service.assessment.measured import Measured, Progress, measure, nothing
from service.assessment.page import render
from service.assessment.report import Report, make_report
from service.errors import InvalidInput
from service.registry.loading import LoadedModel

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
    others: Mapping[str, Measured] | None = None,
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
        others: as for `make_report`.
        progress: called with the rows done and the rows of both files.

    Raises:
        CalibrationFailed: data from which nothing can be reported.
        InvalidInput: too few passes, or a file that cannot be written.
    """
    for path in (output_html, output_json):
        # Before minutes of work, not after.
        if not path.parent.is_dir():
            raise InvalidInput(f"{path} cannot be written: {path.parent} is no folder")
    strangers = None if out_of_distribution is None else out_of_distribution.inputs
    rows = len(labelled.inputs)
    total = rows + (0 if strangers is None else len(strangers))
    measured = measure(
        model,
        labelled.inputs,
        passes=passes,
        kept_numbers=KEPT_NUMBERS,
        progress=lambda done, _: progress(done, total),
    )
    other_kind = None
    if out_of_distribution is not None:
        found = measure(
            model,
            out_of_distribution.inputs,
            passes=passes,
            kept_numbers=1,
            progress=lambda done, _: progress(rows + done, total),
        )
        other_kind = (out_of_distribution, found)
    report = make_report(
        model.ref,
        model.manifest,
        labelled,
        measured,
        other_kind,
        temperature=temperature,
        noise_variance=noise_variance,
        others=others,
    )
    replace(output_json, orjson.dumps(report, option=orjson.OPT_INDENT_2))
    replace(output_html, render(report).encode())
    return report


def replace(path: Path, content: bytes) -> None:
    """Write a file as a whole: a reader sees the old one or the new one, never a part.

    Raises:
        InvalidInput: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            partial.write_bytes(content)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error}", field="output") from None
