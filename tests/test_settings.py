"""Settings: one list, read once, unknown names refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.errors import InvalidInput
from service.settings import load_settings


def test_flags_win_over_the_environment_and_both_over_defaults() -> None:
    environment = {"CANDOR_PORT": "9000", "CANDOR_HOST": "0.0.0.0", "HOME": "/root"}
    settings = load_settings({"port": 9001, "models": None}, environment)
    assert (settings.port, settings.host, settings.models) == (9001, "0.0.0.0", Path("models"))


def test_an_unknown_variable_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match=r"CANDOR_PROT is not a setting.*CANDOR_PORT"):
        load_settings(environment={"CANDOR_PROT": "9000"})


@pytest.mark.parametrize(
    ("variable", "value"),
    [("CANDOR_PORT", "many"), ("CANDOR_DEVICE", "tpu"), ("CANDOR_MAX_WORK", "0")],
)
def test_a_value_that_does_not_fit_names_its_variable(variable: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=variable) as caught:
        load_settings(environment={variable: value})
    assert caught.value.received == value


def test_variables_that_kubernetes_makes_for_a_service_named_candor_are_passed_over() -> None:
    made = {
        "CANDOR_SERVICE_HOST": "10.0.0.1",
        "CANDOR_SERVICE_PORT": "8000",
        "CANDOR_PORT": "tcp://10.0.0.1:8000",
        "CANDOR_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    assert load_settings(environment=made).port == 8000


def test_settings_cannot_be_changed() -> None:
    settings = load_settings(environment={})
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]
