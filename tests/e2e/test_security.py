"""A server with tokens and TLS, as it would be put into production, keeps its secrets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from service.api.server import serve
from service.client import AsyncClient, Client
from service.errors import Forbidden, InvalidInput, ServerUnreachable, Unauthenticated
from service.settings import load_settings
from service.tokens import Token, hash_of, make_token
from tests.certificates import Certificate, write_certificate
from tests.e2e.servers import Server, serving
from tests.e2e.test_cli import candor
from tests.repositories import write_model

ROW = [[0.1, 0.2, 0.3, 0.4]]
PASSWORD = "kept-from-everybody"


@dataclass(frozen=True)
class Guarded:
    """A server that speaks TLS, and its tokens."""

    server: Server
    certificate: Certificate
    tokens: dict[str, str]
    environment: dict[str, str]

    def context(self) -> ssl.SSLContext:
        """Trusts the server."""
        return ssl.create_default_context(cafile=self.certificate.certificate)

    def http(self, token: str | None = None) -> httpx.Client:
        """A plain client that sends a token."""
        headers = {} if token is None else {"Authorization": f"Bearer {self.tokens[token]}"}
        return httpx.Client(
            base_url=self.server.url, headers=headers, verify=self.context(), timeout=60.0
        )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Two processes speak HTTPS; the database that samples should go to cannot be reached."""
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "models").mkdir()
    write_model(folder / "models", "good")
    certificate = write_certificate(folder, "server")
    tokens = {name: make_token() for name in ("token", "admin", "anna")}
    (folder / "admin").write_text(tokens["admin"] + "\n")
    (folder / "candor.toml").write_text(
        f'workers = 2\nlog_level = "debug"\ntls_certificate = "{certificate.certificate}"\n'
        f'tls_key = "{certificate.key}"\nkeep_samples = "all"\n\n'
        f'[[tokens]]\nname = "anna"\nscopes = ["label"]\nhash = "{hash_of(tokens["anna"])}"\n'
    )
    environment = {
        "CANDOR_CONFIG": str(folder / "candor.toml"),
        "CANDOR_TOKEN": tokens["token"],
        "CANDOR_ADMIN_TOKEN_FILE": str(folder / "admin"),
        "CANDOR_DATABASE_URL": f"postgresql://candor:{PASSWORD}@127.0.0.1:1/samples",
    }
    with serving(folder / "models", environment=environment) as server:
        yield Guarded(server, certificate, tokens, environment)


def test_clients_with_a_token_are_served_over_https(guarded: Guarded) -> None:
    assert guarded.server.url.startswith("https://")
    trusted = guarded.certificate.certificate
    with Client(guarded.server.url, token=guarded.tokens["token"], verify=trusted) as client:
        assert client.predict(ROW, passes=4).passes == 4
        with pytest.raises(Forbidden, match="admin"):
            client.reload("good")
    with Client(guarded.server.url, token=guarded.tokens["admin"], verify=trusted) as client:
        assert client.reload("good").name == "good"

    async def ask() -> int:
        async with AsyncClient(
            guarded.server.url, token=guarded.tokens["token"], verify=guarded.context()
        ) as client:
            return len(await client.models())

    assert asyncio.run(ask()) == 1


def test_clients_without_one_or_without_trust_are_not(guarded: Guarded) -> None:
    with (
        Client(guarded.server.url, verify=guarded.certificate.certificate) as client,
        pytest.raises(Unauthenticated, match="Authorization: Bearer"),
    ):
        client.models()
    with (
        Client(guarded.server.url, token=guarded.tokens["token"], retries=0) as client,
        pytest.raises(ServerUnreachable, match="certificate"),
    ):
        client.models()


def test_health_is_for_everybody_and_browsers_are_told_to_stay_with_https(
    guarded: Guarded,
) -> None:
    with guarded.http() as http:
        ready = http.get("/readyz")
    assert ready.status_code == 200
    assert "max-age" in ready.headers["Strict-Transport-Security"]
    assert "Server" not in ready.headers


def test_a_large_body_without_a_token_is_refused_unread(guarded: Guarded) -> None:
    with guarded.http() as http:
        answer = http.post("/predict", content=bytes(2**24))
    assert answer.status_code == 401


def test_the_documentation_opens_with_a_token_as_password(guarded: Guarded) -> None:
    with guarded.http() as http:
        assert 'Basic realm="' in http.get("/docs").headers["WWW-Authenticate"]
        known = ("me", guarded.tokens["anna"])
        for path in ("/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css"):
            assert http.get(path, auth=known).status_code == 200


def test_commands_send_the_token_of_the_environment(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(guarded.certificate.certificate))
    refused = candor("models", "--url", guarded.server.url, code=1)
    assert "Authorization: Bearer" in refused.stderr
    monkeypatch.setenv("CANDOR_TOKEN", guarded.tokens["token"])
    assert "good" in candor("models", "--url", guarded.server.url).stdout
    monkeypatch.delenv("CANDOR_TOKEN")
    (tmp_path / "token").write_text(guarded.tokens["token"] + "\n")
    monkeypatch.setenv("CANDOR_TOKEN_FILE", str(tmp_path / "token"))
    assert "good" in candor("models", "--url", guarded.server.url).stdout


def test_no_secret_is_shown_anywhere(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = make_token()
    shown: list[str] = []
    for secret in (*guarded.tokens.values(), wrong):
        for sent in (f"Bearer {secret}", f"Basic {secret}", secret):
            with guarded.http() as http:
                headers = {"Authorization": sent, "Cookie": f"token={secret}"}
                for path in ("/predict", "/models/good/reload", "/samples/7/label", "/nowhere"):
                    answer = http.post(
                        path, params={"token": secret}, headers=headers, json={"token": secret}
                    )
                    shown += [answer.text, str(answer.headers)]
    with guarded.http("token") as http:
        assert http.post("/predict", json={"inputs": ROW, "model": "good"}).status_code == 200
        store = http.get("/samples")
        assert store.status_code == 503
        shown += [store.text, http.get("/metrics").text, http.get("/openapi.json").text]
    for name, value in guarded.environment.items():
        monkeypatch.setenv(name, value)
    config = candor("serve", "--print-config").stdout
    shown += [config, "".join(guarded.server.printed)]
    assert "anna" in config
    assert "127.0.0.1:1/samples" in config
    for secret in (*guarded.tokens.values(), wrong, PASSWORD):
        for text in shown:
            assert secret not in text, text
    assert all("Traceback" not in text for text in shown[:-1])


def test_the_log_names_the_token_and_never_shows_it(guarded: Guarded) -> None:
    with guarded.http("anna") as http:
        assert http.get("/samples", headers={"X-Request-ID": "asked-by-anna"}).status_code == 503
    assert all('"token": "anna"' in line for line in guarded.server.says("asked-by-anna"))


def test_what_it_prints_reads_back_as_its_file(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in guarded.environment.items():
        monkeypatch.setenv(name, value)
    printed = candor("serve", "--print-config", "--port", "0").stdout
    for name in guarded.environment:
        monkeypatch.delenv(name)
    (tmp_path / "printed.toml").write_text(printed)
    again = load_settings({"config": str(tmp_path / "printed.toml")}, environment={})
    assert again.port == 0
    assert again.tls_certificate == guarded.certificate.certificate
    assert again.tokens == (Token("anna", ("label",), hash_of(guarded.tokens["anna"])),)
    assert (again.token, again.database_url) == (None, "sqlite:///candor.sqlite")


def test_it_does_not_start_beyond_loopback_without_a_token(tmp_path: Path) -> None:
    settings = load_settings({"host": "0.0.0.0", "models": tmp_path}, environment={})
    with pytest.raises(InvalidInput, match="CANDOR_ALLOW_ANONYMOUS"):
        serve(settings, lambda *_: None)
