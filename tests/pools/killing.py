"""A run over a pool that is killed where its progress has come to so many rows."""

from __future__ import annotations

from pathlib import Path

from service.types import Progress
from tests.waiting import wait_for


class Killed(BaseException):
    """As a signal would, it passes whatever catches errors."""


def killed_after(rows: int, *written: Path) -> Progress:
    """Progress that kills.

    Args:
        rows: that are done.
        written: files that have to be there by then: parts are written behind.
    """

    def progress(done: int, _rows: int) -> None:
        if done >= rows:
            wait_for(lambda: all(path.exists() for path in written))
            raise Killed

    return progress
