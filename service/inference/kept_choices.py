"""What was measured when models loaded, in a folder: whoever loads them again computes as then."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

from service.errors import InvalidInput
from service.files import write_atomically
from service.inference.tuning import Choices, Tuned

log = logging.getLogger(__name__)


class KeptChoices:
    """See `Choices`: those of a folder, one file each.

    What others say goes before what is kept there, and is kept there from then on.

    Args:
        folder: made where there is none.
        others: with which this process is to compute alike; None where it is alone.

    Raises:
        InvalidInput: it cannot be made.
    """

    def __init__(self, folder: Path, others: Choices | None = None) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInput(
                f"{folder} cannot be made: {error}; CANDOR_TUNING names a folder in which what is "
                "measured is kept",
                field="tuning",
                received=str(folder),
            ) from None
        self._folder = folder
        self._others = others

    def known(self, key: str) -> Tuned | None:
        """See `Choices`."""
        kept = self._kept(key)
        told = None if self._others is None else self._others.known(key)
        if told is not None and told != kept:
            self._keep(key, told)
        elif told is None and kept is not None and self._others is not None:
            self._others.measured(key, kept)
        return told or kept

    def measured(self, key: str, tuned: Tuned) -> None:
        """See `Choices`."""
        self._keep(key, tuned)
        if self._others is not None:
            self._others.measured(key, tuned)

    def given_up(self, key: str) -> None:
        """See `Choices`."""
        if self._others is not None:
            self._others.given_up(key)

    def _file(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"

    def _kept(self, key: str) -> Tuned | None:
        path = self._file(key)
        try:
            content = json.loads(path.read_bytes())
            return Tuned.read(content["tuned"]) if content["of"] == key else None
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s cannot be read, and is measured again: %s", path, error)
            return None

    def _keep(self, key: str, tuned: Tuned) -> None:
        content = json.dumps({"of": key, "tuned": tuned.written()}, indent=2) + "\n"
        path = self._file(key)
        try:
            write_atomically(path, content.encode())
        except OSError as error:
            log.warning("%s cannot be written, so that the next load measures: %s", path, error)
