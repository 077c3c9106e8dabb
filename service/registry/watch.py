"""What changed in the model repository, seen by looking at it now and then.

Names, sizes and modification times are compared. That needs nothing of the file system but `stat`,
so that it works where no change is announced: on network file systems, and on volumes that are
mounted into a container.
"""

from __future__ import annotations

import os
from pathlib import Path

from service.registry.repository import among_reports

Signature = frozenset[tuple[str, int, int, int]]
"""(path, size, modification time in ns, inode) of each file; of each folder only its path."""


def signature(folder: Path) -> Signature:
    """What the files below a model's folder are like now, but for hidden ones, compiled code and
    reports, none of which make it another.

    Links are followed, but for those that lead back to a folder that they are in. A folder that is
    not there, or may not be read, has an empty one.
    """
    found: set[tuple[str, int, int, int]] = set()
    _note(os.fspath(folder), "", frozenset(), found)
    return frozenset(found)


def _note(
    place: str,
    relative: str,
    above: frozenset[tuple[int, int]],
    found: set[tuple[str, int, int, int]],
) -> None:
    """Add a folder and what is in it.

    Args:
        place: where it is.
        relative: where that is below the folder that is looked at.
        above: device and inode of each folder that it is in.
        found: gets it.
    """
    try:
        status = os.stat(place)
        with os.scandir(place) as listed:
            entries = [entry for entry in listed if not _passed_over(relative, entry.name)]
    except OSError:
        # It went between the two looks.
        return
    own = (status.st_dev, status.st_ino)
    if own in above:
        return
    found.add((relative or ".", -1, -1, -1))
    for entry in entries:
        path = os.path.join(relative, entry.name)
        try:
            if entry.is_dir():
                _note(entry.path, path, above | {own}, found)
                continue
            file = entry.stat()
        except OSError:
            # It went, too, or is a link to nowhere.
            continue
        found.add((path, file.st_size, file.st_mtime_ns, file.st_ino))


def _passed_over(relative: str, name: str) -> bool:
    if name.startswith(".") or name == "__pycache__":
        return True
    return among_reports((relative, name))


def of_version(whole: Signature, number: int, manifest: str) -> Signature:
    """That part of a model folder's signature on which one version depends.

    Args:
        whole: of the model's folder.
        number: of the version.
        manifest: name of the file that is compared by what it says.
    """

    def belongs(path: str) -> bool:
        first = path.split(os.sep)[0]
        return first == str(number) or (not first.isdigit() and path != manifest)

    return frozenset(entry for entry in whole if belongs(entry[0]))


class Settling:
    """Tells changes that are over from those that still go on, as while a folder is copied."""

    def __init__(self) -> None:
        self._last: dict[str, Signature] = {}

    def settled(self, now: dict[str, Signature]) -> list[str]:
        """Names whose signature is as it was at the look before, those among them that are gone.

        Args:
            now: signatures by name; an empty one of what is gone.
        """
        last, self._last = self._last, now
        return [name for name, found in now.items() if last.get(name) == found]
