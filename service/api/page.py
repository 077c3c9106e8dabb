"""`/`: the page to try, watch and label. What it shows comes by the API that everybody has.

Its files hold nothing of the models and need no token, so that it can ask for one. They are read
once, at the start; a path that is not among them names nothing.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

ADDRESS = "/page/"
"""Below which the page's files are served."""

_FOLDER = Path(__file__).parent / "static"
_INDEX = "index.html"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}

router = APIRouter(include_in_schema=False)


class _File(NamedTuple):
    content: bytes
    media_type: str
    tag: str


def _read(path: Path) -> _File:
    content = path.read_bytes()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return _File(content, _TYPES[path.suffix], tag)


FILES = {
    path.relative_to(_FOLDER).as_posix(): _read(path)
    for path in sorted(_FOLDER.rglob("*"))
    if path.suffix in _TYPES
}
"""By their names below `ADDRESS`."""

POLICIES = {
    "/": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
}
"""The Content-Security-Policy: own files only, and no text ever becomes markup or code."""


@router.get("/")
async def index(request: Request) -> Response:
    """The page."""
    return _answer(request, _INDEX)


@router.get(ADDRESS + "{file}")
async def file(request: Request, file: str) -> Response:
    """A file of the page."""
    return _answer(request, file)


@router.get(ADDRESS + "{folder}/{file}")
async def file_of_folder(request: Request, folder: str, file: str) -> Response:
    """A file of one of the page's tabs."""
    return _answer(request, f"{folder}/{file}")


def _answer(request: Request, name: str) -> Response:
    """The file, or nothing where the browser has it already."""
    found = FILES.get(name)
    if found is None:
        raise HTTPException(404)
    headers = {"ETag": found.tag}
    if request.headers.get("If-None-Match") == found.tag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.media_type, headers=headers)
