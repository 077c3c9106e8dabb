"""TLS as uvicorn speaks it: whom it lets in, and what is refused at the start."""

from __future__ import annotations

import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from service.api.exposure import refuse_open_door, tls_options
from service.errors import InvalidInput
from service.settings import Settings, load_settings
from tests.certificates import Certificate, write_certificate

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of a server and of a client, and a server's whose key is encrypted."""
    made = tmp_path_factory.mktemp("certificates")
    write_certificate(made, "server")
    write_certificate(made, "client")
    write_certificate(made, "locked", password="open sesame")
    (made / "password").write_text("open sesame\n")
    return made


def _settings(folder: Path, name: str, **more: Path) -> Settings:
    files = {"tls_certificate": folder / f"{name}.pem", "tls_key": folder / f"{name}.key"}
    return load_settings({**files, **more}, environment={})


async def _hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["scheme"].encode()})


@contextmanager
def _speaking(settings: Settings) -> Iterator[str]:
    """A bare application behind the options of these settings."""
    config = uvicorn.Config(
        _hello, port=0, log_config=None, lifespan="off", ws="none", **tls_options(settings)
    )
    listening = config.bind_socket()
    listening.listen()  # whoever comes before the server is up waits
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"https://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def _get(url: str, trusted: Certificate | Path, client: Certificate | None = None) -> str:
    file = trusted if isinstance(trusted, Path) else trusted.certificate
    context = ssl.create_default_context(cafile=file)
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    return httpx.get(url, verify=context, timeout=60.0).text


def test_a_key_that_is_encrypted_opens_with_its_password(folder: Path) -> None:
    settings = _settings(folder, "locked", tls_key_password_file=folder / "password")
    with _speaking(settings) as url:
        assert _get(url, folder / "locked.pem") == "https"


def test_with_a_client_authority_only_its_clients_get_in(folder: Path) -> None:
    known = Certificate(folder / "client.pem", folder / "client.key")
    stranger = write_certificate(folder, "stranger")
    with _speaking(_settings(folder, "server", tls_client_ca=known.certificate)) as url:
        assert _get(url, folder / "server.pem", known) == "https"
        for other in (None, stranger):
            with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
                _get(url, folder / "server.pem", other)


@pytest.mark.parametrize(
    "files",
    [
        {"tls_key": "client.key"},
        {"tls_certificate": "missing.pem"},
        {"tls_certificate": "password"},
        {"tls_certificate": "locked.pem", "tls_key": "locked.key"},
        {"tls_client_ca": "password"},
        {"tls_key_password_file": "missing"},
    ],
)
def test_files_that_do_not_fit_are_refused_at_the_start(
    folder: Path, files: dict[str, str]
) -> None:
    paths = {name: folder / file for name, file in files.items()}
    with pytest.raises(InvalidInput, match=r"TLS|CANDOR_TLS_KEY_PASSWORD_FILE"):
        tls_options(_settings(folder, "server", **paths))


def test_without_a_certificate_it_is_plain_http() -> None:
    assert tls_options(load_settings(environment={})) == {}


def test_the_image_starts_only_with_a_token_or_with_leave_as_compose_gives_it() -> None:
    image = dict(re.findall(r"(CANDOR_\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))
    image = {name: value for name, value in image.items() if "..." not in value}
    assert image.pop("CANDOR_ALLOW_ANONYMOUS") == "true"  # from the comment on how to run it
    assert image["CANDOR_HOST"] == "0.0.0.0"
    with pytest.raises(InvalidInput, match="CANDOR_TOKEN"):
        refuse_open_door(load_settings(environment=image))
    compose = (ROOT / "docker-compose.yml").read_text()
    given = dict(re.findall(r"^ +(CANDOR_\w+): \"?(\w+)", compose, re.MULTILINE))
    refuse_open_door(load_settings(environment={**image, **given}))
    ports = re.findall(r"ports: \[(.*?)\]", compose)
    assert ports
    assert all(port.startswith('"127.0.0.1:') for port in ports)
