"""Nothing unsafe by default: who can reach the server, and how they talk to it."""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
from typing import Any

from service.api.security import all_tokens
from service.errors import InvalidInput
from service.settings import Settings

log = logging.getLogger(__name__)


def refuse_open_door(settings: Settings) -> None:
    """Refuse to listen where others can ask, with nothing that says who may.

    Raises:
        InvalidInput: an address beyond loopback, no token and no leave to do without.
    """
    if is_loopback(settings.host):
        return
    if not all_tokens(settings):
        if not settings.allow_anonymous:
            raise InvalidInput(
                f"{settings.host} can be reached from other machines, and there is no token: "
                "whoever finds it could ask and change everything. Set CANDOR_TOKEN (`candor "
                "token` makes one), or listen on 127.0.0.1, or say CANDOR_ALLOW_ANONYMOUS=true "
                "where something else checks who asks",
                field="host",
                received=settings.host,
            )
        log.warning("anybody who reaches %s may ask and change everything", settings.host)
    elif settings.tls_certificate is None:
        log.warning(
            "tokens come to %s unencrypted; give CANDOR_TLS_CERTIFICATE, or have something in "
            "front that speaks TLS",
            settings.host,
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it: 127.0.0.0/8, ::1, or a name that means nothing else."""
    try:
        return _is_loopback_address(host)
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(_is_loopback_address(str(address[4][0])) for address in found)


def _is_loopback_address(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def tls_options(settings: Settings) -> dict[str, Any]:
    """What uvicorn takes to speak TLS; nothing where it shall not.

    Raises:
        InvalidInput: a file that cannot be read, or a key that is not the certificate's.
    """
    if settings.tls_certificate is None:
        return {}
    password = None
    if settings.tls_key_password_file is not None:
        try:
            password = settings.tls_key_password_file.read_text().rstrip("\r\n")
        except (OSError, ValueError) as error:
            raise InvalidInput(
                f"CANDOR_TLS_KEY_PASSWORD_FILE cannot be read: {error}",
                field="tls_key_password_file",
            ) from None
    options: dict[str, Any] = {
        "ssl_certfile": str(settings.tls_certificate),
        "ssl_keyfile": None if settings.tls_key is None else str(settings.tls_key),
        "ssl_keyfile_password": password,
    }
    if settings.tls_client_ca is not None:
        options |= {
            "ssl_ca_certs": str(settings.tls_client_ca),
            "ssl_cert_reqs": int(ssl.CERT_REQUIRED),
        }
    _try_certificate(settings, password or "")
    return options


def _try_certificate(settings: Settings, password: str) -> None:
    """Load what uvicorn will load, to say what is wrong in words.

    An empty password keeps OpenSSL from asking on the terminal for the one that is missing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate, key = settings.tls_certificate, settings.tls_key
    assert certificate is not None
    field = "tls_certificate"
    try:
        context.load_cert_chain(certificate, key, password)
        if settings.tls_client_ca is not None:
            field = "tls_client_ca"
            context.load_verify_locations(settings.tls_client_ca)
    except (OSError, ValueError) as error:
        files = ", ".join(str(file) for file in (certificate, key, settings.tls_client_ca) if file)
        raise InvalidInput(
            f"TLS cannot be set up from {files}: {error}; expected PEM files, the key the "
            "certificate's, and CANDOR_TLS_KEY_PASSWORD_FILE where the key is encrypted",
            field=field,
        ) from None
