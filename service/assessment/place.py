"""Where a report is written: beside the version that it is of, or where the user says."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from service.errors import InvalidInput
from service.registry import reports, repository
from service.types import ModelRef

ELSEWHERE = Path("report.html")
"""For what cannot be written beside its version, and was given no other place."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a report goes.

    Args:
        page: the file of its page.
        beside: whether that is in the version's folder of reports, which may have to be made.
        why_not: why it is not there, where nobody asked for another place.
    """

    page: Path
    beside: bool
    why_not: str = ""

    @property
    def numbers(self) -> Path:
        """The file of its numbers."""
        return self.page.with_suffix(reports.NUMBERS)


def place_of(
    root: Path, ref: ModelRef, output: Path | None, name: str | None, now: datetime
) -> Place:
    """Where a report is to be written.

    Args:
        root: the model repository.
        ref: the version that it is of.
        output: the page's file, where the user names one.
        name: under which it is to stand beside the version; None: the time.
        now: that time.

    Raises:
        InvalidInput: a name that is none, a page that would be its numbers, or a folder that a name
            was given for and that cannot be written to.
        ModelBroken: the version's folder of reports leads out of the repository.
    """
    if output is not None:
        if name is not None:
            raise InvalidInput("--name is of a report beside its version, --out of one elsewhere")
        if output.suffix == reports.NUMBERS:
            raise InvalidInput(f"--out names the page; its numbers go to {output} by themselves")
        return Place(output, beside=False)
    if name is not None and not reports.is_name(name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a report: letters, digits, '.', '_' and '-', at most "
            "128, the first no '.' or '-'",
            field="name",
            received=name,
        )
    folder = repository.inside(root, reports.folder_of(root, ref))
    if not os.access(folder if folder.exists() else folder.parent, os.W_OK | os.X_OK):
        why_not = f"{reports.folder_of(root, ref)} cannot be written to"
        if name is not None:
            raise InvalidInput(f"{why_not}; --out FILE.html writes the report elsewhere")
        return Place(ELSEWHERE, beside=False, why_not=why_not)
    chosen = _free(folder, now) if name is None else name
    return Place(reports.folder_of(root, ref) / f"{chosen}{reports.PAGE}", beside=True)


def _free(folder: Path, now: datetime) -> str:
    """The time, with a number behind it where a report of that second is there."""
    time = name = now.strftime("%Y-%m-%dT%H-%M-%SZ")
    count = 1
    while any((folder / f"{name}{suffix}").exists() for suffix in (reports.PAGE, reports.NUMBERS)):
        count += 1
        name = f"{time}-{count}"
    return name
