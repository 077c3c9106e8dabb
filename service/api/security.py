"""Who may ask for what: one table of routes, looked at before a request's body is read."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.types import Scope

from service.api import report_pages
from service.api.documentation import problems
from service.api.scope import raw_header
from service.errors import Forbidden, Unauthenticated
from service.settings import Settings
from service.tokens import SCOPES, Token, find

OPEN = frozenset[str]()
_PREDICT = frozenset({"predict"})
_LABEL = frozenset({"label"})
_MODELS = _PREDICT | _LABEL
"""Who labels has to know what the labels are."""
_METRICS = frozenset({"metrics", "predict"})
_ADMIN = frozenset({"admin"})
_ANY = frozenset(SCOPES)

Methods = Mapping[str, frozenset[str]]

ACCESS: dict[str, Methods] = {
    "/livez": {"GET": OPEN},
    "/readyz": {"GET": OPEN},
    "/v2/health/live": {"GET": OPEN},
    "/v2/health/ready": {"GET": OPEN},
    "/": {"GET": OPEN},
    "/page/{file}": {"GET": OPEN},
    "/page/{folder}/{file}": {"GET": OPEN},
    "/docs": {"GET": _ANY},
    "/redoc": {"GET": _ANY},
    "/openapi.json": {"GET": _ANY},
    "/static-offline-docs/{file}": {"GET": _ANY},
    "/metrics": {"GET": _METRICS},
    "/predict": {"POST": _PREDICT},
    "/eval": {"POST": _PREDICT},
    "/query": {"POST": _PREDICT},
    "/models": {"GET": _MODELS},
    "/models/{name}": {"GET": _MODELS},
    "/models/{name}/versions/{version}": {"GET": _MODELS},
    "/models/{name}/example": {"GET": _MODELS},
    "/models/{name}/vocabulary": {"GET": _MODELS},
    "/models/{name}/versions/{version}/reports/{report}": {"GET": _PREDICT},
    report_pages.PATH: {"GET": _PREDICT},
    "/models/{name}/load": {"POST": _ADMIN},
    "/models/{name}/unload": {"POST": _ADMIN},
    "/models/{name}/reload": {"POST": _ADMIN},
    "/reports": {"GET": _PREDICT},
    "/samples": {"GET": _LABEL, "DELETE": _ADMIN},
    "/samples/lease": {"POST": _LABEL},
    "/samples/lease/renew": {"POST": _LABEL},
    "/samples/lease/release": {"POST": _LABEL},
    "/samples/counts": {"GET": _LABEL},
    "/samples/export": {"GET": _LABEL},
    "/samples/{number}": {"GET": _LABEL, "DELETE": _ADMIN},
    "/samples/{number}/label": {"POST": _LABEL},
    "/samples/{number}/skip": {"POST": _LABEL},
    "/samples/{number}/undo": {"POST": _LABEL},
    "/label-studio/health": {"GET": _LABEL},
    "/label-studio/setup": {"POST": _LABEL},
    "/label-studio/predict": {"POST": _LABEL},
    "/label-studio/{model}/health": {"GET": _LABEL},
    "/label-studio/{model}/setup": {"POST": _LABEL},
    "/label-studio/{model}/predict": {"POST": _LABEL},
    "/v2": {"GET": _PREDICT},
    "/v2/": {"GET": _PREDICT},
    "/v2/models/stats": {"GET": _METRICS},
    "/v2/models/{name}": {"GET": _PREDICT},
    "/v2/models/{name}/ready": {"GET": _PREDICT},
    "/v2/models/{name}/config": {"GET": _PREDICT},
    "/v2/models/{name}/stats": {"GET": _METRICS},
    "/v2/models/{name}/infer": {"POST": _PREDICT},
    "/v2/models/{name}/versions/{version}": {"GET": _PREDICT},
    "/v2/models/{name}/versions/{version}/ready": {"GET": _PREDICT},
    "/v2/models/{name}/versions/{version}/config": {"GET": _PREDICT},
    "/v2/models/{name}/versions/{version}/stats": {"GET": _METRICS},
    "/v2/models/{name}/versions/{version}/infer": {"POST": _PREDICT},
    "/v2/repository/index": {"POST": _PREDICT},
    "/v2/repository/models/{name}/load": {"POST": _ADMIN},
    "/v2/repository/models/{name}/unload": {"POST": _ADMIN},
}
"""By path and method, the scopes of which a token needs one; `admin` holds them all.

What does not stand here needs admin.
"""


def _shape(path: str) -> tuple[str, int]:
    """First segment and number of segments: few templates share both."""
    segments = path.split("/", 8)
    return segments[1] if len(segments) > 1 else "", len(segments)


def _patterns() -> dict[tuple[str, int], list[tuple[re.Pattern[str], Methods]]]:
    found: dict[tuple[str, int], list[tuple[re.Pattern[str], Methods]]] = {}
    for template, methods in ACCESS.items():
        if "{" in template:
            pattern = re.compile(re.sub(r"{\w+}", "[^/]+", template))
            found.setdefault(_shape(template), []).append((pattern, methods))
    return found


_PATTERNS = _patterns()
_V2: dict[int | str, dict[str, Any]] = {
    code: {"description": said["description"]} for code, said in problems(401, 403).items()
}
"""That protocol has errors of its own form."""
_SCHEMES = "securitySchemes"
_BASIC = 'Basic realm="Candor: the password is a token"'
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_SAME_SITE = (b"same-origin", b"none")


def needed(method: str, path: str) -> frozenset[str]:
    """The scopes of which a request needs one."""
    method = "GET" if method == "HEAD" else method
    exact = ACCESS.get(path)
    if exact is not None:
        return exact.get(method, _ADMIN)
    for pattern, methods in _PATTERNS.get(_shape(path), ()):
        if method in methods and pattern.fullmatch(path):
            return methods[method]
    return _ADMIN


class Guard:
    """Lets a request in, or raises."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = all_tokens(settings)
        self._trusted = frozenset(origin.encode() for origin in settings.cors_origins)

    def check(self, scope: Scope) -> str | None:
        """The name of the request's token; None where none is needed.

        Raises:
            Unauthenticated: no token, or one that is not the server's.
            Forbidden: the token lacks the scope, or a page of another site has sent the request.
        """
        if scope["method"] not in _SAFE:
            self._refuse_other_sites(scope)
        if not self._tokens:
            return None
        scopes = needed(scope["method"], scope["path"])
        if not scopes:
            return None
        given = _given_token(raw_header(scope, b"authorization"))
        # Browsers open documentation and reports, and can ask people for nothing but a password.
        shown = scopes == _ANY or report_pages.covers(scope["path"])
        basic = (_BASIC,) if shown else ()
        if given is None:
            raise Unauthenticated(
                "this needs a token; send Authorization: Bearer TOKEN",
                field="Authorization",
                challenges=("Bearer", *basic),
            )
        token = find(self._tokens, given)
        if token is None:
            raise Unauthenticated(
                "the token is none of this server's",
                field="Authorization",
                challenges=('Bearer error="invalid_token"', *basic),
            )
        if scopes.isdisjoint(token.scopes) and "admin" not in token.scopes:
            wanted = " or ".join(sorted(scopes))
            raise Forbidden(
                f"the token has the scopes {', '.join(token.scopes)}; this needs "
                f"{wanted}" + _ADMIN_REMEDY * (scopes == _ADMIN),
                field="Authorization",
                expected=sorted(scopes),
            )
        return token.name

    def _refuse_other_sites(self, scope: Scope) -> None:
        """What a page of another site has a visitor's browser send.

        Neither loopback nor a password that the browser keeps would stop it. Browsers say where a
        request comes from; what is no browser says nothing and is let in.
        """
        site = raw_header(scope, b"sec-fetch-site")
        origin = raw_header(scope, b"origin")
        if site in _SAME_SITE or (site is None and origin is None) or origin in self._trusted:
            return
        host = raw_header(scope, b"host")
        if site is None and origin is not None and origin.partition(b"://")[2] == host:
            return
        raise Forbidden(
            "a page of another site has sent this; if it may, name its origin in "
            "CANDOR_CORS_ORIGINS",
            field="Origin",
        )


_ADMIN_REMEDY = "; CANDOR_ADMIN_TOKEN, or CANDOR_TOKENS, gives a token that has it"


def all_tokens(settings: Settings) -> Sequence[Token]:
    """Those that the settings name, whatever their way of naming them."""
    tokens = list(settings.tokens)
    if settings.token is not None:
        tokens.append(Token("token", ("label", "metrics", "predict"), settings.token))
    if settings.admin_token is not None:
        tokens.append(Token("admin_token", ("admin",), settings.admin_token))
    return tokens


def install(app: FastAPI, settings: Settings) -> None:
    """Have `/openapi.json` say what wants a token, where there are tokens."""
    if not all_tokens(settings):
        return
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        schema = plain()
        # FastAPI keeps it until a route is added, and then makes another.
        if _SCHEMES not in schema.setdefault("components", {}):
            _describe(schema)
        return schema

    app.openapi = openapi  # type: ignore[method-assign]


def _describe(schema: dict[str, Any]) -> None:
    """Say in an OpenAPI schema which routes want a token, and with which scope."""
    schema["components"][_SCHEMES] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            scopes = needed(method.upper(), path)
            if not scopes:
                continue
            operation["security"] = [{"token": []}]
            operation["responses"].update(_V2 if path.startswith("/v2") else problems(401, 403))
            says = f"Needs a token with the scope {' or '.join(sorted(scopes))}."
            operation["description"] = f"{operation.get('description', '')}\n\n{says}".strip()


def _given_token(authorization: bytes | None) -> bytes | None:
    """Of Bearer, or the password of Basic, which is all that some clients can send."""
    scheme, _, value = (authorization or b"").strip().partition(b" ")
    value = value.strip()
    if scheme.lower() == b"bearer":
        return value or None
    if scheme.lower() == b"basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2] or None
        except binascii.Error:
            return None
    return None
