"""`/docs` and `/redoc`: pages that say all they load, and load nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re

from fastapi import APIRouter
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.responses import HTMLResponse

STATIC = "/static-offline-docs"
"""Where fastapi_offline serves the scripts."""

_FAVICON = f"{STATIC}/favicon.png"

router = APIRouter(include_in_schema=False)

_docs = get_swagger_ui_html(
    openapi_url="/openapi.json",
    title="Candor",
    swagger_js_url=f"{STATIC}/swagger-ui-bundle.js",
    swagger_css_url=f"{STATIC}/swagger-ui.css",
    swagger_favicon_url=_FAVICON,
)
_redoc = get_redoc_html(
    openapi_url="/openapi.json",
    title="Candor",
    redoc_js_url=f"{STATIC}/redoc.standalone.js",
    redoc_favicon_url=_FAVICON,
    with_google_fonts=False,
)


@router.get("/docs")
async def docs() -> HTMLResponse:
    """Swagger UI: every route, to try out."""
    return _docs


@router.get("/redoc")
async def redoc() -> HTMLResponse:
    """ReDoc: every route, to read."""
    return _redoc


def _policy(page: HTMLResponse) -> str:
    """Its Content-Security-Policy: the server's own scripts, and those in the page by their hashes.

    Both pages style their elements one by one and draw their icons from data: addresses; ReDoc
    searches in a worker that it makes itself.
    """
    inline = re.findall(rb"<script>(.*?)</script>", bytes(page.body), re.DOTALL)
    hashes = "".join(
        f" 'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
        for script in inline
    )
    return (
        f"default-src 'none'; script-src 'self'{hashes}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; font-src 'self'; connect-src 'self'; worker-src blob:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


POLICIES = {"/docs": _policy(_docs), "/redoc": _policy(_redoc)}
"""The Content-Security-Policy of each page."""
