"""Reports of `candor report` beside the versions that they are of: MODEL/VERSION/reports/.

Each is NAME.json, its numbers, and NAME.html, its page. They are read when they are asked for, and
whoever may write to the repository may have written them: sizes and lengths have bounds, a link may
not lead out of the repository, and one that is broken is told of beside the others.
"""

from __future__ import annotations

import functools
import os
import re
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
from pydantic import BaseModel, Field, ValidationError

from service.errors import ModelBroken, ReportBroken, ReportNotFound
from service.registry import repository
from service.types import ModelRef

NUMBERS = ".json"
PAGE = ".html"

MOST_BYTES = 16 * 2**20
"""Of a file."""

MOST_REPORTS = 500
"""Of a version that are looked at, the newest."""

_KNOWN = 1024
"""Reports whose numbers are kept until their file changes."""

_SHOWN = 3
"""Names of files that are passed over."""

_LAST_MOMENT = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
"""That can be written; a file may say that it is of a later one."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")

Text = Annotated[str, Field(max_length=500)]
Sentence = Annotated[str, Field(max_length=5000)]
Share = float | None
"""A number that was not finite is null in JSON."""


class Rows(BaseModel):
    """See `assessment.report.Source`."""

    path: Annotated[str, Field(max_length=5000)]
    sha256: Annotated[str, Field(max_length=64)]
    rows: int


class Error(BaseModel):
    """See `calibration.reliability.CalibrationError`."""

    expected: Share


class Coverage(BaseModel):
    """See `assessment.regression_methods.Coverage`."""

    level: float
    observed: float


class Method(BaseModel):
    """Of those that all methods have, see `assessment.methods` and `regression_methods`."""

    name: Text
    title: Text
    accuracy: Share = None
    brier: Share = None
    log_likelihood: Share = None
    calibration: Annotated[dict[Text, Error], Field(max_length=10)] = {}
    root_mean_squared_error: Annotated[list[Share], Field(max_length=1000)] | None = None
    coverage: Annotated[list[Coverage], Field(max_length=100)] | None = None


class Deferral(BaseModel):
    """See `calibration.risk.Deferral`."""

    share: float
    avoided: float


class Ranking(BaseModel):
    """See `assessment.ranking.Ranking`."""

    name: Text
    title: Text
    deferrals: Annotated[list[Deferral], Field(max_length=100)]


class Rates(BaseModel):
    """See `calibration.detection.Detection`."""

    auroc: float
    auroc_interval: tuple[float, float]


class Separation(BaseModel):
    """See `assessment.ranking.Separation`."""

    name: Text
    title: Text
    rates: Rates


class Detection(BaseModel):
    """See `assessment.ranking.OutOfDistribution`."""

    separations: Annotated[list[Separation], Field(max_length=100)]


class Numbers(BaseModel):
    """Of a report's numbers those that stand in a list; `assessment.report.Report` has them all."""

    model: Text
    version: int
    task: Text
    passes: int
    seed: int
    masks: Text
    precision: Text
    data: Rows
    strangers: Rows | None = None
    class_methods: Annotated[list[Method], Field(max_length=100)] = []
    regression_methods: Annotated[list[Method], Field(max_length=100)] = []
    rankings: Annotated[list[Ranking], Field(max_length=100)] = []
    headline: Text
    detection: Detection | None = None
    verdict: Annotated[list[Sentence], Field(max_length=50)] = []
    candor: Text
    weights: Text | None = None
    created: datetime | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What lies in a version's folder under one name.

    Args:
        name: of it there.
        created: as it says, or when its file was written.
        numbers: that were read; None where it is broken.
        reason: why it is.
        has_page: whether there is a page of it.
    """

    name: str
    created: datetime
    numbers: Numbers | None
    reason: str
    has_page: bool


def folder_of(root: Path, ref: ModelRef) -> Path:
    """Where the reports of a version are.

    Args:
        root: the model repository.
        ref: a version in it.
    """
    return root / ref.name / str(ref.version) / repository.REPORTS


def is_name(name: str) -> bool:
    """Whether it may be that of a report, as it stands in an address."""
    return _NAME.fullmatch(name) is not None


def reports_of(root: Path, ref: ModelRef) -> tuple[list[Report], list[str]]:
    """The reports of a version, the newest first, and what was left out of them.

    Args:
        root: the model repository.
        ref: a version in it.
    """
    folder = folder_of(root, ref)
    warnings: list[str] = []
    try:
        files = _files(root, folder)
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    except (OSError, ModelBroken, RuntimeError) as error:
        return [], [f"{_shown(root, folder)} cannot be read: {_why(error)}"]
    names = {name for name in files if is_name(name)}
    strange = sorted(files.keys() - names)
    if strange:
        warnings.append(
            f"{len(strange)} of {_shown(root, folder)} left out, since names with other characters "
            "than letters, digits, '.', '_' and '-' fit no address: "
            + ", ".join(ascii(name) for name in strange[:_SHOWN])
            + ", …" * (len(strange) > _SHOWN)
        )
    newest = sorted(names, key=lambda name: max(files[name].values()), reverse=True)
    if len(newest) > MOST_REPORTS:
        warnings.append(
            f"{_shown(root, folder)} holds {len(newest)} reports; the {MOST_REPORTS} newest are "
            "listed"
        )
    found = [_report(root, ref, name, files[name]) for name in newest[:MOST_REPORTS]]
    return sorted(found, key=lambda each: (each.created, each.name), reverse=True), warnings


def read_numbers(root: Path, ref: ModelRef, name: str) -> bytes:
    """A report's numbers, JSON as `candor report` wrote it.

    Raises:
        ReportNotFound: there is no such report.
        ReportBroken: what lies there is none.
    """
    path = _path(root, ref, name, NUMBERS)
    content = _read(root, path)
    _numbers(ref, _shown(root, path), content)
    return content


def read_page(root: Path, ref: ModelRef, name: str) -> bytes:
    """A report's page, HTML that whoever may write to the repository has written.

    Raises:
        ReportNotFound: there is no such report, or it has no page.
        ReportBroken: what lies there cannot be read.
    """
    return _read(root, _path(root, ref, name, PAGE))


def _path(root: Path, ref: ModelRef, name: str, suffix: str) -> Path:
    path = folder_of(root, ref) / f"{name}{suffix}"
    try:
        there = is_name(name) and path.is_file()
    except OSError as error:
        raise _unreadable(root, path, error) from None
    if not there:
        shown = name if len(name) <= 64 else name[:64] + "…"
        what = "page of a report" if suffix == PAGE else "report"
        raise ReportNotFound(
            f"{ref} has no {what} {shown!r}; GET /reports lists what there is",
            field="report",
            received=shown,
        )
    return path


def _files(root: Path, folder: Path) -> dict[str, dict[str, float]]:
    """By names of reports, which of their files there are and when each was written."""
    found: dict[str, dict[str, float]] = {}
    with os.scandir(repository.inside(root, folder)) as entries:
        for entry in entries:
            name, suffix = os.path.splitext(entry.name)
            if suffix not in (NUMBERS, PAGE) or name.startswith("."):
                continue
            try:
                written = entry.stat().st_mtime
            except OSError:
                # A link to nowhere, or it went; what reads it says which.
                written = 0.0
            found.setdefault(name, {})[suffix] = written
    return found


def _report(root: Path, ref: ModelRef, name: str, files: dict[str, float]) -> Report:
    path = folder_of(root, ref) / f"{name}{NUMBERS}"
    numbers, reason = None, ""
    try:
        if NUMBERS not in files:
            raise ReportBroken(f"there is a page, and no {_shown(root, path)} with its numbers")
        numbers = _known_numbers(root, path, ref, _stamp(root, path))
    except ReportBroken as error:
        reason = error.message
    created = None if numbers is None else numbers.created
    if created is None:
        written = files.get(NUMBERS, max(files.values()))
        created = datetime.fromtimestamp(min(max(0.0, written), _LAST_MOMENT), UTC)
    elif created.tzinfo is None:
        created = created.replace(tzinfo=UTC)
    return Report(name, created, numbers, reason, PAGE in files)


def _stamp(root: Path, path: Path) -> tuple[int, int, int]:
    """Another one as soon as a file is another."""
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(root, path, error) from None
    return found.st_ino, found.st_size, found.st_mtime_ns


@functools.lru_cache(_KNOWN)
def _known_numbers(root: Path, path: Path, ref: ModelRef, _when: tuple[int, int, int]) -> Numbers:
    """What is broken is read each time, and may be mended meanwhile."""
    return _numbers(ref, _shown(root, path), _read(root, path))


def _numbers(ref: ModelRef, shown: str, content: bytes) -> Numbers:
    try:
        numbers = Numbers.model_validate(orjson.loads(content))
    except orjson.JSONDecodeError as error:
        raise ReportBroken(f"{shown} is not JSON: {error}") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ReportBroken(
            f"{shown} is no report: {place[:200]}: {first['msg']}; make it again with "
            f"`candor report {ref.name}`"
        ) from None
    if (numbers.model, numbers.version) != (ref.name, ref.version):
        raise ReportBroken(
            f"{shown} is of {numbers.model}, version {numbers.version}, and not of {ref.name}, "
            f"version {ref.version}"
        )
    return numbers


def _read(root: Path, path: Path) -> bytes:
    """A file within the repository, up to `MOST_BYTES`.

    Raises:
        ReportBroken: it leads out, is no plain file, is larger, or cannot be read.
    """
    try:
        resolved = repository.inside(root, path)
        # Opening a pipe would wait for somebody to write to it.
        handle = os.open(resolved, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise ReportBroken(f"{_shown(root, path)} is no plain file")
            with open(handle, "rb", closefd=False) as file:
                content = file.read(MOST_BYTES + 1)
        finally:
            os.close(handle)
    except (OSError, ModelBroken, RuntimeError) as error:
        raise _unreadable(root, path, error) from None
    if len(content) > MOST_BYTES:
        raise ReportBroken(f"{_shown(root, path)} is larger than {MOST_BYTES:,} bytes")
    return content


def _unreadable(root: Path, path: Path, error: Exception) -> ReportBroken:
    return ReportBroken(f"{_shown(root, path)} cannot be read: {_why(error)}")


def _why(error: Exception) -> str:
    """Without the server's own paths."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, RuntimeError):
        # Of `Path.resolve`.
        return "its links lead in a circle"
    return "a link leads out of the repository; copy it in"


def _shown(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()
