"""Which files of a version's folder hold its weights: one, or one for each of its members."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from service.errors import ModelBroken
from service.registry.archive import FILE as ARCHIVE
from service.registry.repository import NOTE, WEIGHTS

_KINDS = (ARCHIVE, WEIGHTS)
_NUMBER = re.compile(r"[1-9][0-9]*")


class MembersNote(BaseModel):
    """The content of a `members.json`.

    Args:
        dropout: whether what drops out in the network drops while it is sampled; draws of a
            posterior over weights say all of their doubt without it.
        origin: where the members come from, for whoever wonders.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    dropout: bool = True
    origin: dict[str, Any] = {}


def read_note(folder: Path) -> MembersNote:
    """That of a version's folder; the defaults where there is none.

    Raises:
        ModelBroken: it is no such note.
    """
    path = folder / NOTE
    try:
        return MembersNote.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return MembersNote()
    except (OSError, ValidationError) as error:
        raise ModelBroken(f"{path} cannot be read: {error}") from error


def member_files(folder: Path) -> list[Path]:
    """`weights.safetensors` or `model.pt2`, or the members `weights-1.safetensors`,
    `weights-2.safetensors`, … or `model-1.pt2`, … in their order.

    Args:
        folder: of a version.

    Returns:
        At least one path. A file that stands alone is named even where it is missing, for whoever
        reads it to say so.

    Raises:
        ModelBroken: members with a gap in their numbers, or beside other weights.
    """
    members = [found for kind in _KINDS if (found := _numbered(folder, kind))]
    alone = [folder / kind for kind in _KINDS if (folder / kind).is_file()]
    if not members:
        return alone[:1] or [folder / WEIGHTS]
    if len(members) > 1 or alone:
        one, other = (*(found[0] for found in members), *alone)[:2]
        raise ModelBroken(
            f"{folder} holds {one.name} and {other.name}; a version is either one file or members "
            "of one kind, numbered from 1: remove one or the other"
        )
    return members[0]


def _numbered(folder: Path, kind: str) -> list[Path]:
    stem, suffix = Path(kind).stem, Path(kind).suffix
    found: dict[int, Path] = {}
    for path in folder.glob(f"{stem}-*{suffix}"):
        number = path.name.removeprefix(f"{stem}-").removesuffix(suffix)
        if number.isdigit():
            if not _NUMBER.fullmatch(number):
                raise ModelBroken(
                    f"{path} has no number that a member may have; they are {stem}-1{suffix}, "
                    f"{stem}-2{suffix} and so on"
                )
            found[int(number)] = path
    _refuse_gaps(folder, found, stem, suffix)
    return [found[number] for number in sorted(found)]


def _refuse_gaps(folder: Path, found: dict[int, Path], stem: str, suffix: str) -> None:
    missing = next((n for n in range(1, len(found) + 1) if n not in found), None)
    if missing is not None:
        raise ModelBroken(
            f"{folder / f'{stem}-{missing}{suffix}'} is missing, and there is "
            f"{found[max(found)].name}; members are numbered from 1 without a gap"
        )


def passes_warnings(passes: int, files: Sequence[Path], drops: bool) -> tuple[str, ...]:
    """What the model's number of passes means for its members, where that is easily missed.

    Args:
        passes: T that `model.toml` gives.
        files: of the members.
        drops: whether anything drops in one of them.
    """
    members = len(files)
    if members == 1:
        return ()
    if not drops:
        return (
            f"nothing drops in the {members} members, so that passes repeat themselves after "
            f"{members}: this version runs {members} where a request says nothing. More do not "
            "make the mean more precise, whatever standard_error says",
        )
    if passes < members:
        return (
            f"passes = {passes} in model.toml, and there are {members} members: the last "
            f"{members - passes}, from {files[passes].name} on, are not asked. Set passes to a "
            f"multiple of {members}",
        )
    if over := passes % members:
        return (
            f"passes = {passes} in model.toml is no multiple of the {members} members: the first "
            f"{over} count once more than the others. Set passes to a multiple of {members}",
        )
    return ()
