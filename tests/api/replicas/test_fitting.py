"""What each process on its own would do otherwise than one server is refused before any begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.api.replicas.fitting import check_settings
from service.errors import InvalidInput
from service.settings import load_settings


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"keep_samples": "all"}, "CANDOR_DATABASE_URL=postgresql"),
        ({"watch": "1"}, "leave CANDOR_WATCH at 0"),
        ({"device": "cuda"}, "CANDOR_RAY_GPUS says, which is 0"),
        ({"workers": "2"}, "leave CANDOR_WORKERS at 1"),
    ],
)
def test_settings_of_one_machine_are_refused(more: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        check_settings(load_settings(more, environment={}))


def test_certificates_that_nobody_would_ask_for_are_not_promised() -> None:
    settings = load_settings({}, environment={})
    asked = settings.model_copy(update={"tls_client_ca": Path("ca.pem")})
    with pytest.raises(InvalidInput, match="leave CANDOR_TLS_CLIENT_CA away"):
        check_settings(asked)


def test_samples_of_all_go_into_one_database() -> None:
    url = "postgresql://me@host/samples"
    check_settings(load_settings({"keep_samples": "all", "database_url": url}, environment={}))
    check_settings(load_settings({}, environment={}))
    check_settings(load_settings({"device": "cuda", "ray_gpus": "0.5"}, environment={}))
