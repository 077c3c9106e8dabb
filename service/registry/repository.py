"""Where things are in the model repository, and nothing outside it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from service.calibration.artifact import digest_of
from service.errors import ModelBroken, ModelNotFound
from service.registry.manifest import FILE, Manifest

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,9}")
WEIGHTS = "weights.safetensors"
_WEIGHT_SUFFIXES = (".safetensors", ".pt2")
NOTE = "members.json"
"""What a version's folder may say about its members."""
REPORTS = "reports"
"""The folder of a version that holds its reports. Nothing that serves depends on what is in it."""


def check_name(name: str) -> str:
    """Returns `name` where it may be a model's.

    Raises:
        ModelNotFound: it could not be the name of any model.
    """
    if not _NAME.fullmatch(name):
        shown = name if len(name) <= 64 else name[:64] + "…"
        raise ModelNotFound(
            f"{shown!r} cannot be the name of a model: letters, digits, '.', '_' and '-', at most "
            "128, the first no '.' or '-'",
            field="model",
            received=shown,
        )
    return name


def inside(root: Path, path: Path) -> Path:
    """`path` with links followed.

    Raises:
        ModelBroken: it leads out of `root`.
    """
    resolved = path.resolve()
    if not resolved.is_relative_to(root.resolve()):
        raise ModelBroken(
            f"{path} leads out of {root}, to {resolved}; copy it in, links that leave are not "
            "followed"
        )
    return resolved


def read_own_file(root: Path, name: str, file: str, missing: str) -> str:
    """What a file in a model's own folder says, in UTF-8.

    Args:
        root: the model repository.
        name: of a model in it.
        file: its name.
        missing: what the model lacks without it, and what it should hold: `{path}` is filled in.

    Raises:
        ModelNotFound: there is none.
        ModelBroken: it cannot be read as UTF-8, or lies outside the repository.
    """
    path = root / name / file
    if not path.is_file():
        raise ModelNotFound(f"{name} {missing.format(path=path)}", field="model", received=name)
    inside(root, path)
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        raise ModelBroken(f"{path} cannot be read: {error}") from None


def refuse_links_out(root: Path, folder: Path) -> None:
    """Check every link in a model's folder, the folder itself included; not those among reports,
    which are looked at when one is read.

    Raises:
        ModelBroken: one leads out of `root`.
    """
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink() and not among_reports(path.relative_to(folder).parts):
            inside(root, path)


def among_reports(parts: Sequence[str]) -> bool:
    """Whether a path below a model's folder is a version's folder of reports, or in one."""
    return len(parts) > 1 and _VERSION.fullmatch(parts[0]) is not None and parts[1] == REPORTS


def model_names(root: Path, *, told: bool = True) -> list[str]:
    """Names of the folders below `root` that are meant as models, sorted.

    Args:
        root: the model repository.
        told: whether the log says which folders are passed over.

    Raises:
        ModelBroken: it is no folder, or cannot be read.
    """
    if not root.is_dir():
        raise ModelBroken(f"the model repository {root} is no folder; name one with --models DIR")
    try:
        names = [
            entry.name
            for entry in root.iterdir()
            if entry.is_dir() and not entry.name.startswith((".", "__"))
        ]
    except OSError as error:
        raise ModelBroken(f"the model repository {root} cannot be read: {error}") from error
    for name in names:
        if told and not _NAME.fullmatch(name):
            log.warning("the folder %r is passed over: it cannot be the name of a model", name)
    return sorted(filter(_NAME.fullmatch, names))


def weights_digest(
    folder: Path, version: int, manifest: Manifest, imported: Mapping[str, Path] | None = None
) -> str:
    """One digest of all that makes a version's network: its weights, and the code where it has any.

    Args:
        folder: of the model.
        version: its number.
        manifest: of the model.
        imported: further files of its code, by the names that it imports them by.
    """
    own = folder / str(version)
    files = {path.name: path for path in own.iterdir() if path.suffix in _WEIGHT_SUFFIXES}
    if (own / NOTE).is_file():
        files[NOTE] = own / NOTE
    if any(name.endswith(".safetensors") for name in files):
        code = manifest.network.split(":")[0]
        files[code] = folder / code
        files |= imported or {}
    return digest_of(files)


def versions(folder: Path) -> list[int]:
    """The version numbers of a model folder, ascending.

    Raises:
        ModelBroken: there are none.
    """
    found = sorted(
        int(entry.name)
        for entry in folder.iterdir()
        if entry.is_dir() and _VERSION.fullmatch(entry.name)
    )
    if not found:
        raise ModelBroken(
            f"{folder} has no version: put the weights in {folder / '1' / WEIGHTS} (beside {FILE})"
        )
    return found
