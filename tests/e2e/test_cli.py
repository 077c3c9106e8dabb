"""The command line, as a user types it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from service import cli
from service.settings import Settings, load_settings
from service.tokens import hash_of
from tests.e2e.servers import SHIPPED, Server
from tests.repositories import write_model


@dataclass(frozen=True)
class Done:
    """What a command printed."""

    stdout: str
    stderr: str


def candor(*words: str, code: int = 0) -> Done:
    """Run the command as its process would, but in this one, which has loaded PyTorch already.

    Wide, so that no line is broken. That the process itself starts and ends is seen wherever a
    server is started.
    """
    cli.out.width = cli.err.width = 400
    result = CliRunner().invoke(cli.app, list(words), env={"COLUMNS": "400", "TERM": "dumb"})
    printed = result.stdout + result.stderr
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, printed
    assert "Traceback" not in printed
    return Done(result.stdout, result.stderr)


@pytest.mark.parametrize(
    "command",
    [
        *("serve", "models", "predict", "eval", "query", "score"),
        *("calibrate", "report", "laplace", "export", "token"),
    ],
)
def test_every_command_shows_an_example(command: str) -> None:
    text = candor(command, "--help").stdout
    assert "Example" in text
    assert f"candor {command} " in text


def test_serve_help_lists_every_setting_and_a_flag_for_it() -> None:
    text = candor("serve", "--help").stdout
    for name, field in Settings.model_fields.items():
        assert f"CANDOR_{name.upper()}" in text
        assert f"--{name.replace('_', '-')}" in text
        assert field.description is not None
        assert field.description in text


def test_an_unknown_flag_names_the_nearest() -> None:
    assert "--max-work" in candor("serve", "--max-wokr", "3", code=2).stderr


def test_a_flag_that_does_not_fit_is_refused_by_the_settings() -> None:
    assert "--port is 'many'; expected" in candor("serve", "--port", "many", code=1).stderr


def test_a_token_is_made_with_the_line_that_makes_it_known() -> None:
    lines = candor("token", "anna", "--scope", "predict", "--scope", "label").stdout.splitlines()
    made = lines[0].split()[1]
    variable, _, value = lines[2].split()[2].partition("=")
    assert lines[1].endswith(f"Authorization: Bearer {made}")
    [known] = load_settings(environment={variable: value}).tokens
    assert (known.name, known.scopes) == ("anna", ("label", "predict"))
    assert known.hash == hash_of(made)
    assert "predict, label, metrics, admin" in candor("token", "--scope", "x", code=1).stderr


def test_models_lists_the_repository() -> None:
    text = candor("models", "--models", str(SHIPPED)).stdout
    for name in ("digits", "co2", "breast_cancer"):
        assert re.search(rf"{name} \*\s+1\s+ready", text)


def test_predict_says_what_the_server_says(shipped: Server) -> None:
    words = ("predict", "--model", "co2", "--inputs", "[[1975.5], [2030.0]]", "--passes", "20")
    here = json.loads(candor(*words, "--models", str(SHIPPED)).stdout)
    there = json.loads(candor(*words, "--url", shipped.url).stdout)
    plain = shipped.post(
        "/predict", {"model": "co2", "inputs": [[1975.5], [2030.0]], "passes": 20}
    ).json()
    assert here == plain
    assert there["mean"] == plain["mean"]
    assert there["std"] == plain["std"]


def test_data_in_and_arrays_out(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 17, (300, 1, 8, 8))
    np.savez(tmp_path / "pool.npz", x=images, y=np.zeros(300))
    data = ("--models", str(SHIPPED), "--model", "digits", "--data", str(tmp_path / "pool.npz"))
    candor("predict", *data, "--passes", "4", "--out", str(tmp_path / "doubt.npz"))
    candor("eval", *data, "--out", str(tmp_path / "answer.npz"))
    with np.load(tmp_path / "doubt.npz") as doubt, np.load(tmp_path / "answer.npz") as answer:
        assert doubt["std"].shape == (300, 10)
        assert doubt["mutual_information"].shape == (300,)
        assert answer["mean"].shape == (300, 10)
        assert answer["label"].shape == (300,)


def test_a_tolerance_here_and_there(shipped: Server) -> None:
    rows = "[[1975.5], [2030.0]]"
    words = ("predict", "--model", "co2", "--inputs", rows, "--tolerance", "0.5")
    here = json.loads(candor(*words, "--models", str(SHIPPED)).stdout)
    there = json.loads(candor(*words, "--url", shipped.url).stdout)
    assert here["passes"] == there["passes"]
    assert here["passes"][0] < here["passes"][1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--inputs", "[[1, 2]]"), "expected [B, 1]"),
        (("--inputs", "[[1"), "--inputs is not JSON"),
        ((), "--data FILE or with --inputs JSON"),
        (("--data", "nowhere.npz"), "nowhere.npz cannot be read"),
        (("--inputs", "[[1]]", "--passes", "1"), "at least 2"),
        (("--inputs", "[[1]]", "--return", "median"), "mutual_information"),
        (("--inputs", "[[1]]", "--seed", "often"), "64 bits"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(words: tuple[str, ...], said: str) -> None:
    done = candor("predict", "--models", str(SHIPPED), "--model", "co2", *words, code=1)
    assert said in done.stderr


def test_verify_accepts_a_good_folder_and_lists_its_sites() -> None:
    text = candor("models", "--verify", str(SHIPPED / "digits")).stdout
    assert re.search(r"head\.3\s+dropout\s+0\.5\s+rows x 128\s+yes", text)


def test_an_exported_model_is_served_without_its_code(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    (folder / "1").mkdir(parents=True)
    (folder / "model.toml").write_text((SHIPPED / "digits" / "model.toml").read_text())
    candor("export", str(SHIPPED / "digits"), "--out", str(folder / "1" / "model.pt2"))
    inputs = json.dumps(json.loads((SHIPPED / "digits" / "example.json").read_text())["inputs"])
    words = ("predict", "--model", "digits", "--inputs", inputs)
    archived, plain = (
        json.loads(candor(*words, "--models", str(root)).stdout) for root in (tmp_path, SHIPPED)
    )
    np.testing.assert_allclose(archived["mean"], plain["mean"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(archived["std"], plain["std"], rtol=0, atol=1e-5)
    assert archived["label"] == plain["label"]


NO_DROPOUT = "from torch import nn\n\ndef build():\n    return nn.Linear(4, 3)\n"
WRONG_SHAPE = (
    "from torch import nn\n\n"
    "def build():\n    return nn.Sequential(nn.Linear(5, 3), nn.Dropout(0.5))\n"
)
ONE_LAYER_LSTM = """
import warnings
from torch import nn

class Lstm(nn.Module):
    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.rnn = nn.LSTM(4, 8, 1, dropout=0.5, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.rnn(x[:, None])[0][:, -1])

def build():
    return Lstm()
"""


@pytest.mark.parametrize(
    ("code", "more", "said"),
    [
        (NO_DROPOUT, "", "no dropout was found"),
        (ONE_LAYER_LSTM, "", "num_layers ≥ 2"),
        (WRONG_SHAPE, "", "shape ['B', 4]"),
        (None, 'labels = ["a", "b"]', "names 2 labels, and the network has 3 classes"),
        (None, "passes = 1", "`passes`"),
        (None, "pases = 10", "`pases` is not a key"),
        (None, 'network = "other.py:build"', "other.py is missing"),
        (None, 'network = "network.py:make"', "no function make"),
    ],
)
def test_verify_says_what_is_wrong_with_a_folder(
    tmp_path: Path, code: str | None, more: str, said: str
) -> None:
    folder = write_model(tmp_path, "mine", *([code] if code else []))
    manifest = folder / "model.toml"
    text = manifest.read_text()
    if more.startswith("network"):
        text = text.replace('network = "network.py:build"', more)
    else:
        text = text.replace("[input]", f"{more}\n[input]")
    manifest.write_text(text)
    done = candor("models", "--verify", str(folder), code=1)
    assert said in " ".join(done.stdout.split())


def test_verify_says_which_weights_do_not_fit(tmp_path: Path) -> None:
    folder = write_model(tmp_path, "mine")
    other = write_model(tmp_path / "elsewhere", "other", NO_DROPOUT)
    (folder / "1" / "weights.safetensors").write_bytes(
        (other / "1" / "weights.safetensors").read_bytes()
    )
    done = candor("models", "--verify", str(folder), code=1)
    assert "does not fit the network" in done.stdout
    (folder / "1" / "weights.safetensors").write_bytes(b"garbage")
    assert "no safetensors file" in candor("models", "--verify", str(folder), code=1).stdout
    (folder / "1" / "weights.safetensors").unlink()
    assert "is missing" in candor("models", "--verify", str(folder), code=1).stdout


def test_links_that_leave_the_repository_are_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "models", "mine")
    weights = folder / "1" / "weights.safetensors"
    weights.rename(tmp_path / "outside.safetensors")
    weights.symlink_to(tmp_path / "outside.safetensors")
    done = candor("models", "--verify", str(folder), code=1)
    assert "leads out of" in done.stdout
