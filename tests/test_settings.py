"""Settings: one list, read once, unknown names refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.configuration import as_toml
from service.errors import InvalidInput
from service.settings import between, load_settings, load_with_origins
from service.tokens import Token, find, hash_of, make_token


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


def test_a_flag_wins_over_a_variable_and_both_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "candor.toml"
    file.write_text("port = 1\nmax_work = 1\nqueue_requests = 1\n")
    environment = {"CANDOR_CONFIG": str(file), "CANDOR_PORT": "2", "CANDOR_MAX_WORK": "2"}
    settings, given = load_with_origins({"port": "3"}, environment)
    assert (settings.port, settings.max_work, settings.queue_requests) == (3, 2, 1)
    kinds = [given[name].kind for name in ("port", "max_work", "queue_requests")]
    assert kinds == ["flag", "environment", "file"]
    assert "batch_work" not in given
    other = tmp_path / "other.toml"
    other.write_text("queue_requests = 4\n")
    assert load_settings({"config": str(other)}, environment).queue_requests == 4


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("prot = 1", r"candor\.toml: prot is not a setting.*did you mean port\?"),
        ("port = 'many'", r"candor\.toml: port is 'many'; expected .*integer"),
        ("port = ", r"CANDOR_CONFIG names .*candor\.toml, which cannot be read"),
        ("[port]\nx = 1", r"candor\.toml: port is .*expected .*integer"),
        ("tokens = 'anna'", r"candor\.toml: tokens: .*scopes of the token anna"),
        ("tokens = 3", r"candor\.toml: tokens"),
        ("tokens = [3]", r"candor\.toml: tokens: a token is a table"),
        ("[[tokens]]\nname = 'anna'", r"candor\.toml: tokens: a token is a table"),
        ("[[tokens]]\nname = 3\nscopes = 'label'\nhash = 'x'", r"candor\.toml: tokens"),
        ("[[tokens]]\nname = 'a'\nscopes = [{}]\nhash = 'x'", r"candor\.toml: tokens"),
        ("cors_origins = ['*']", r"candor\.toml: cors_origins: origins as browsers name them"),
        ("database_url_file = 'missing'", r"candor\.toml: database_url_file names a file"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_as_it_stands_there(
    tmp_path: Path, content: str, says: str
) -> None:
    file = tmp_path / "candor.toml"
    file.write_text(content)
    with pytest.raises(InvalidInput, match=says):
        load_settings(environment={"CANDOR_CONFIG": str(file)})


def test_a_file_that_is_missing_is_named_with_who_names_it() -> None:
    with pytest.raises(InvalidInput, match=r"--config names missing\.toml"):
        load_settings({"config": "missing.toml"}, environment={})


def test_a_secret_may_come_from_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://candor:secret@db/candor\n")
    (tmp_path / "token").write_text("a token of my own\n")
    environment = {
        "CANDOR_DATABASE_URL_FILE": str(tmp_path / "url"),
        "CANDOR_TOKEN_FILE": str(tmp_path / "token"),
    }
    settings = load_settings(environment=environment)
    assert settings.database_url == "postgresql://candor:secret@db/candor"
    assert settings.token == hash_of("a token of my own")
    assert load_settings({"database_url": "sqlite:///x"}, environment).database_url == "sqlite:///x"
    with pytest.raises(InvalidInput, match=r"CANDOR_TOKEN_FILE and CANDOR_TOKEN are both given"):
        load_settings(environment={**environment, "CANDOR_TOKEN": "another"})
    with pytest.raises(InvalidInput, match="CANDOR_PORT_FILE is not a setting"):
        load_settings(environment={"CANDOR_PORT_FILE": "x"})


def test_settings_hold_no_token_and_errors_show_none() -> None:
    token = make_token()
    settings = load_settings(environment={"CANDOR_TOKEN": token, "CANDOR_ADMIN_TOKEN": token})
    assert token not in repr(settings) + settings.model_dump_json()
    # Somebody has put the token where its hash belongs.
    with pytest.raises(InvalidInput, match="candor token") as caught:
        load_settings(environment={"CANDOR_TOKENS": f"ci:predict:{token}"})
    assert token not in caught.value.message
    assert caught.value.received is None
    with pytest.raises(InvalidInput, match=r"CANDOR_TOKEN: .*not empty"):
        load_settings(environment={"CANDOR_TOKEN": ""})


@pytest.mark.parametrize("as_dictionaries", [False, True])
def test_tokens_are_one_line_or_tables(as_dictionaries: bool) -> None:
    tokens = (
        Token("ci", ("predict",), hash_of("one")),
        Token("anna", ("label", "predict"), hash_of("two")),
    )
    written: object = ",".join(map(str, tokens))
    if as_dictionaries:
        written = [
            {"name": each.name, "scopes": list(each.scopes), "hash": each.hash} for each in tokens
        ]
    settings = load_settings({"tokens": written}, environment={})
    assert settings.tokens == tokens
    # As they reach a process that speaks HTTP.
    assert type(settings).model_validate_json(settings.model_dump_json()) == settings
    with pytest.raises(InvalidInput, match="two tokens ci"):
        load_settings({"tokens": ",".join([str(tokens[0])] * 2)}, environment={})


def test_a_token_is_found_among_others_and_nothing_else_is() -> None:
    made = [make_token() for _ in range(3)]
    assert len(set(made)) == 3
    tokens = [Token(f"t{n}", ("predict",), hash_of(token)) for n, token in enumerate(made)]
    for token, known in zip(made, tokens, strict=True):
        assert find(tokens, token.encode()) == known
        assert find(tokens, token[:-1].encode()) is None
        assert find(tokens, hash_of(token).encode()) is None
    assert find(tokens, b"") is None
    assert hash_of(hash_of("x")) == hash_of("x")


def test_a_key_or_authority_without_a_certificate_is_refused() -> None:
    with pytest.raises(InvalidInput, match="CANDOR_TLS_KEY is given without CANDOR_TLS_CERT"):
        load_settings({"tls_key": "server.key"}, environment={})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db/candor", "postgresql://me:...@db/candor"),
        ("postgresql://me:se/c:r@et@db:5432/candor?x=1", "postgresql://me:...@db:5432/candor?x=1"),
        (
            "postgresql://db/candor?user=me&password=secret",
            "postgresql://db/candor?user=me&password=...",
        ),
    ],
)
def test_the_password_of_an_address_is_not_printed(url: str, shown: str) -> None:
    settings, given = load_with_origins({"database_url": url}, environment={})
    assert f'# database_url = "{shown}"' in as_toml(settings, given)


def test_what_is_printed_is_read_back_as_it_was(tmp_path: Path) -> None:
    flags = {
        "models": 'a "quoted" \\ folder\x7f \t of models, ö',
        "batch_seconds": "1e-7",
        "keep_days": "2",
        "tokens": f"anna:label:{hash_of('x')}",
        "cors_origins": "https://a.example, https://b.example:8443",
        "allow_anonymous": True,
    }
    settings, given = load_with_origins(flags, environment={})
    printed = as_toml(settings, given)
    assert "port = 8000  # default" in printed
    assert "keep_days = 2.0  # flag: --keep-days" in printed
    (tmp_path / "candor.toml").write_text(printed)
    again = load_settings({"config": str(tmp_path / "candor.toml")}, environment={})
    assert again == settings
    assert tomllib.loads(printed).keys() <= type(settings).model_fields.keys()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ray_replicas", "4-2", "expected LEAST-MOST"),
        ("ray_replicas", "0", "--ray-replicas is '0'; expected processes there that compute"),
        ("ray_doors", "many", "--ray-doors is 'many'"),
        ("ray_gpus", "1.5", "a share of one, or whole ones"),
    ],
)
def test_what_ray_cannot_have_is_refused(name: str, value: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        load_settings({name: value}, environment={})


def test_a_number_of_processes_is_fixed_or_between_two() -> None:
    assert between("3") == (3, 3)
    assert between("1-12") == (1, 12)
    for gpus in ("0", "0.25", "1", "2"):
        assert load_settings({"ray_gpus": gpus}, environment={}).ray_gpus == float(gpus)
