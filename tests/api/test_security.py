"""Who may ask for what, before a body is read; and what every answer says to browsers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route

from service.api.app import build_app, build_service, running
from service.api.exposure import is_loopback, refuse_open_door
from service.api.front import Front
from service.api.security import ACCESS, needed
from service.errors import InvalidInput
from service.settings import load_settings
from service.tokens import hash_of

TOKENS = {
    "predict": "p" * 40,
    "label": "l" * 40,
    "metrics": "m" * 40,
    "admin": "a" * 40,
    "token": "t" * 40,
    "admin_token": "b" * 40,
}
PAGE = "https://labels.example"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """An application with a token of each kind, and no model."""
    folder = tmp_path_factory.mktemp("guarded")
    tokens = ",".join(
        f"{scope}:{scope}:{hash_of(TOKENS[scope])}"
        for scope in ("predict", "label", "metrics", "admin")
    )
    yield from _application(
        folder,
        tokens=tokens,
        token=TOKENS["token"],
        admin_token=TOKENS["admin_token"],
        cors_origins=PAGE,
    )


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """An application without tokens."""
    yield from _application(tmp_path_factory.mktemp("plain"))


def _application(folder: Path, **settings: str) -> Iterator[Front]:
    address = f"sqlite:///{folder}/samples.sqlite"
    (folder / "models").mkdir()
    given = {"models": folder / "models", "database_url": address, **settings}
    service = build_service(load_settings(given, environment={}))
    parts = running(service)
    with asyncio.Runner() as runner:
        runner.run(parts.__aenter__())
        yield build_app(service)
        runner.run(parts.__aexit__(None, None, None))


def ask(
    app: Front,
    method: str,
    path: str,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> httpx.Response:
    """One request, straight to the application."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://candor") as client:
            sent = {} if token is None else {"Authorization": f"Bearer {token}"}
            return await client.request(method, path, headers={**sent, **(headers or {})}, **more)

    return asyncio.run(send())


def _routes(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    for route in routes:
        if isinstance(route, Mount):
            yield "GET", f"{route.path}/file.js"
        elif isinstance(route, APIRoute | Route):
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield method, route.path
        else:
            yield from _routes(route.original_router.routes)  # type: ignore[attr-defined]


def _app(front: Front) -> FastAPI:
    assert isinstance(front.app, FastAPI)
    return front.app


def test_every_route_stands_in_the_table(guarded: Front) -> None:
    found = set(_routes(_app(guarded).routes))
    for path, operations in _app(guarded).openapi()["paths"].items():
        assert {(method.upper(), path) for method in operations} <= found
    table = {re.sub("{.*?}", "{}", path): methods for path, methods in ACCESS.items()}
    for method, path in found:
        template = re.sub(r"{.*?}|file\.js", "{}", path)
        assert method in table.get(template, {}), f"{method} {path}"


def test_what_does_not_stand_in_the_table_needs_admin(guarded: Front) -> None:
    @_app(guarded).get("/forgotten")
    async def forgotten() -> str:
        return "a secret"

    assert ask(guarded, "GET", "/forgotten").status_code == 401
    assert ask(guarded, "GET", "/forgotten", TOKENS["token"]).status_code == 403
    assert ask(guarded, "GET", "/forgotten", TOKENS["admin"]).status_code == 200
    assert needed("PATCH", "/predict") == {"admin"}
    assert needed("GET", "/models/digits/load/more") == {"admin"}


@pytest.mark.parametrize("path", ["/", "/page/shell.js", "/page/try/try.js"])
def test_the_page_needs_no_token_and_may_load_its_own_files_alone(
    guarded: Front, path: str
) -> None:
    answer = ask(guarded, "GET", path)
    assert answer.status_code == 200
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert answer.headers["Cache-Control"] == ("no-store" if path == "/" else "no-cache")


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_health_needs_no_token(guarded: Front, path: str) -> None:
    assert ask(guarded, "GET", path).status_code in (200, 503)
    assert ask(guarded, "HEAD", path).status_code != 401


@pytest.mark.parametrize(
    ("method", "path", "may"),
    [
        ("POST", "/predict", {"predict", "token"}),
        ("POST", "/eval", {"predict", "token"}),
        ("POST", "/query", {"predict", "token"}),
        ("GET", "/models", {"predict", "label", "token"}),
        ("GET", "/models/digits/versions/1", {"predict", "label", "token"}),
        ("GET", "/models/digits/example", {"predict", "label", "token"}),
        ("GET", "/models/digits/vocabulary", {"predict", "label", "token"}),
        ("GET", "/reports", {"predict", "token"}),
        ("GET", "/models/digits/versions/1/reports/one", {"predict", "token"}),
        ("GET", "/models/digits/versions/1/reports/one/page", {"predict", "token"}),
        ("GET", "/metrics", {"predict", "metrics", "token"}),
        ("GET", "/samples", {"label", "token"}),
        ("POST", "/samples/lease/renew", {"label", "token"}),
        ("POST", "/samples/lease/release", {"label", "token"}),
        ("GET", "/samples/counts", {"label", "token"}),
        ("POST", "/samples/7/label", {"label", "token"}),
        ("POST", "/samples/7/undo", {"label", "token"}),
        ("POST", "/label-studio/digits/predict", {"label", "token"}),
        ("DELETE", "/samples/7", set()),
        ("POST", "/models/digits/reload", set()),
        ("POST", "/models/digits/load", set()),
        ("POST", "/v2/repository/models/digits/unload", set()),
        ("GET", "/openapi.json", {"predict", "label", "metrics", "token"}),
        ("GET", "/static-offline-docs/swagger-ui.css", {"predict", "label", "metrics", "token"}),
    ],
)
def test_a_token_covers_its_scopes_and_admin_all(
    guarded: Front, method: str, path: str, may: set[str]
) -> None:
    nobody = ask(guarded, method, path)
    assert nobody.status_code == 401
    assert nobody.headers.get_list("WWW-Authenticate")[0] == "Bearer"
    for name, token in TOKENS.items():
        status = ask(guarded, method, path, token).status_code
        assert status != 401
        assert (status == 403) == (name not in may | {"admin", "admin_token"}), name


def test_a_refusal_is_a_problem_that_names_the_remedy(guarded: Front) -> None:
    nobody = ask(guarded, "POST", "/predict", json={"inputs": []})
    assert nobody.headers["Content-Type"] == "application/problem+json"
    assert nobody.json()["status"] == 401
    assert "Authorization: Bearer" in nobody.json()["detail"]
    assert nobody.headers["X-Request-ID"] == nobody.json()["request_id"]
    lacking = ask(guarded, "POST", "/models/digits/reload", TOKENS["predict"])
    assert lacking.json()["expected"] == ["admin"]
    assert "CANDOR_ADMIN_TOKEN" in lacking.json()["detail"]


def test_under_v2_a_refusal_has_that_protocols_form(guarded: Front) -> None:
    nobody = ask(guarded, "POST", "/v2/models/digits/infer", content=b"{}")
    assert (nobody.status_code, nobody.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert list(nobody.json()) == ["error"]
    lacking = ask(guarded, "POST", "/v2/repository/models/digits/load", TOKENS["predict"])
    assert (lacking.status_code, list(lacking.json())) == (403, ["error"])
    for path in ("/v2/health/live", "/v2/health/ready"):
        assert ask(guarded, "GET", path).status_code in (200, 503)


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKENS['predict'][:-1]}",
        f"Bearer {hash_of(TOKENS['predict'])}",
        f"Token {TOKENS['predict']}",
        TOKENS["predict"],
        "Basic !!!",
        "Basic " + base64.b64encode(b"anna").decode(),
    ],
)
def test_what_is_no_token_opens_nothing(guarded: Front, authorization: str) -> None:
    refused = ask(guarded, "GET", "/models", headers={"Authorization": authorization})
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert TOKENS["predict"] not in refused.text


def test_the_password_of_basic_is_a_token(guarded: Front) -> None:
    basic = base64.b64encode(f"anyone:{TOKENS['label']}".encode()).decode()
    headers = {"Authorization": f"Basic {basic}"}
    assert ask(guarded, "GET", "/samples", headers=headers).status_code == 200
    assert ask(guarded, "POST", "/predict", headers=headers).status_code == 403
    for sent in ({}, {"Authorization": "Basic " + base64.b64encode(b"me:wrong").decode()}):
        challenges = ask(guarded, "GET", "/docs", headers=sent).headers.get_list("WWW-Authenticate")
        assert [each.split()[0] for each in challenges] == ["Bearer", "Basic"]


def test_two_authorizations_are_none(guarded: Front) -> None:
    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(guarded)
        async with httpx.AsyncClient(transport=transport, base_url="http://candor") as client:
            both = [("Authorization", f"Bearer {TOKENS[name]}") for name in ("predict", "admin")]
            return await client.get("/models", headers=both)

    assert asyncio.run(send()).status_code == 401


def test_the_body_of_a_stranger_is_not_read(guarded: Front) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("nobody may read this body")

    async def send(message: Any) -> None:
        sent.append(message)

    for path in ("/predict", "/query", "/samples/7/label"):
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [(b"content-length", str(2**26).encode()), (b"host", b"candor")],
            "scheme": "http",
            "server": ("candor", 80),
        }
        asyncio.run(guarded(scope, receive, send))
    assert [each["status"] for each in sent if each["type"].endswith("start")] == [401] * 3


def test_without_tokens_nobody_needs_one(plain: Front) -> None:
    assert ask(plain, "GET", "/models").status_code == 200
    assert ask(plain, "GET", "/models", "whatever").status_code == 200
    schema = ask(plain, "GET", "/openapi.json").json()
    assert "securitySchemes" not in schema.get("components", {})


def test_the_schema_says_what_a_token_is_needed_for(guarded: Front) -> None:
    schema = ask(guarded, "GET", "/openapi.json", TOKENS["predict"]).json()
    assert schema["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert schema["paths"]["/predict"]["post"]["security"] == [{"token": []}]
    assert {"401", "403"} <= schema["paths"]["/predict"]["post"]["responses"].keys()
    assert "security" not in schema["paths"]["/livez"]["get"]


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_pages_load_what_their_policy_allows_and_nothing_from_elsewhere(
    plain: Front, path: str
) -> None:
    page = ask(plain, "GET", path)
    policy = page.headers["Content-Security-Policy"]
    for script in re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL):
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    loaded = re.findall(r"(?:src|href)=\"([^\"]+)\"", page.text)
    assert loaded
    for address in loaded:
        assert ask(plain, "GET", address).status_code == 200, address
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    assert "://" not in policy


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/livez"), ("GET", "/models"), ("POST", "/predict"), ("GET", "/nowhere")],
)
def test_every_answer_says_how_it_may_be_used(plain: Front, method: str, path: str) -> None:
    headers = ask(plain, method, path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "Strict-Transport-Security" not in headers
    assert "Server" not in headers
    assert "Access-Control-Allow-Origin" not in headers
    scripts = ask(plain, "GET", "/static-offline-docs/swagger-ui.css").headers
    assert "Cache-Control" not in scripts


def test_a_page_that_is_named_may_ask_from_a_browser(guarded: Front) -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-request-id",
    }
    preflight = ask(guarded, "OPTIONS", "/predict", headers=asked)
    assert preflight.status_code == 204
    allowed = preflight.headers["Access-Control-Allow-Headers"].lower()
    for name in ("authorization", "content-type", "x-request-id"):
        assert name in allowed
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    answer = ask(guarded, "GET", "/models", TOKENS["predict"], {"Origin": PAGE})
    for response in (preflight, answer):
        assert response.headers["Access-Control-Allow-Origin"] == PAGE
        assert "Origin" in response.headers["Vary"]
        assert "X-Request-ID" in response.headers["Access-Control-Expose-Headers"]
    refused = ask(guarded, "GET", "/models", headers={"Origin": PAGE})
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == PAGE


def test_a_page_that_is_not_named_may_not(guarded: Front, plain: Front) -> None:
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for app in (guarded, plain):
        preflight = ask(app, "OPTIONS", "/predict", headers=asked)
        assert preflight.status_code >= 400
        assert "Access-Control-Allow-Origin" not in preflight.headers


@pytest.mark.parametrize(
    ("headers", "let_in"),
    [
        ({}, True),
        ({"Origin": "http://candor"}, True),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://["}, False),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.example"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site", "Origin": "https://evil.example"}, False),
    ],
)
def test_a_page_of_another_site_cannot_send_what_changes_anything(
    plain: Front, headers: dict[str, str], let_in: bool
) -> None:
    answer = ask(plain, "POST", "/models/digits/reload", headers=headers)
    assert answer.status_code == (404 if let_in else 403)
    if not let_in:
        assert "CANDOR_CORS_ORIGINS" in answer.json()["detail"]
    assert ask(plain, "GET", "/models", headers=headers).status_code == 200


def test_a_page_that_is_named_can(guarded: Front) -> None:
    headers = {"Origin": PAGE, "Sec-Fetch-Site": "cross-site"}
    answer = ask(guarded, "POST", "/models/digits/reload", TOKENS["admin"], headers)
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.0.2.7", False),
        ("::ffff:192.0.2.7", False),
        ("fe80::1%eth0", False),
    ],
)
def test_loopback_is_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
    settings = load_settings({"host": host}, environment={})
    if loopback:
        refuse_open_door(settings)
    else:
        with pytest.raises(InvalidInput, match=r"CANDOR_TOKEN.*CANDOR_ALLOW_ANONYMOUS=true"):
            refuse_open_door(settings)


@pytest.mark.parametrize(
    "said", [{"token": "t" * 40}, {"admin_token": "t" * 40}, {"allow_anonymous": "true"}]
)
def test_beyond_loopback_a_token_or_leave_is_needed(said: dict[str, str]) -> None:
    refuse_open_door(load_settings({"host": "0.0.0.0", **said}, environment={}))
