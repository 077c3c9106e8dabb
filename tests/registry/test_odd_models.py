"""Odd networks load and are sampled right, or are refused with a sentence that helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from service.errors import ModelBroken, NoStochasticSite
from service.inference.devices import Resources
from service.inference.fields import Fields
from service.inference.prediction import Request
from service.registry.loading import LoadedModel, load_version
from service.registry.manifest import read_manifest
from service.types import Masks, ModelRef, SamplePlan
from tests.repositories import write_model

HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n\n\n"


def network(init: str, forward: str, before: str = "") -> str:
    """The code of a network.py."""
    lines = [f"        {line}" for line in init.splitlines()]
    body = [f"        {line}" for line in forward.splitlines()]
    return (
        HEAD
        + before
        + "class Odd(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        + "\n".join(lines)
        + "\n\n    def forward(self, x):\n"
        + "\n".join(body)
        + "\n\n\ndef build():\n    return Odd()\n"
    )


def load(folder: Path) -> LoadedModel:
    ref, manifest = ModelRef(folder.name, 1), read_manifest(folder)
    resources = Resources(torch.device("cpu"), memory_bytes=2**26)
    return load_version(folder.parent, folder, ref, manifest, resources)


def ask(model: LoadedModel, request: Request) -> Fields:
    [fields] = model.predict([request])
    assert fields is not None
    return fields


TWO = "self.a, self.b, self.drop = nn.Linear(4, 4), nn.Linear(4, 3), nn.Dropout(0.5)"

LOADED = {
    "in_place_residual": (TWO, "h = self.a(x)\nh += self.drop(x)\nreturn self.b(h.relu_())"),
    "control_flow": (
        TWO,
        "h = self.a(x)\nif h.mean() > 0:\n    h = -h\nreturn self.b(self.drop(h))",
    ),
    "frozen_backbone": (
        TWO + "\nself.a.requires_grad_(False)\nself.a.eval()",
        "with torch.no_grad():\n    h = self.a(x)\nreturn self.b(self.drop(h))",
    ),
    "tied_weights": (
        TWO + "\nself.c = nn.Linear(4, 4)\nself.c.weight = self.a.weight",
        "return self.b(self.c(self.drop(self.a(x))))",
    ),
    "complex_inside": (
        TWO,
        "z = torch.fft.fft(self.drop(self.a(x)).to(torch.complex64))\nreturn self.b(z.abs())",
    ),
    "complex_dropped": (
        TWO,
        "z = torch.complex(self.a(x), x)\nreturn self.b(self.drop(torch.view_as_real(z)).sum(-1))",
    ),
    "twice_the_same_dropout": (TWO, "return self.b(self.drop(self.a(self.drop(x))))"),
    "checkpoint_of_modules": (
        "self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])\n" + TWO,
        "for layer in self.layers:\n    x = self.drop(layer(x))\nreturn self.b(x)",
    ),
}


@pytest.mark.parametrize("name", LOADED)
def test_what_loads_is_sampled_right(tmp_path: Path, name: str) -> None:
    model = load(write_model(tmp_path, name, network(*LOADED[name])))
    inputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))
    for masks in Masks:
        plan = SamplePlan(40, seed=1, masks=masks)
        crowd = ask(model, Request(inputs, plan, ["mean", "std"]))
        assert np.asarray(crowd["std"]).max() > 0
        for row in range(5):
            request = Request(inputs[row : row + 1], plan, ["mean", "std"], rows=[row])
            alone = ask(model, request)
            for field in ("mean", "std"):
                got, expected = np.asarray(alone[field])[0], np.asarray(crowd[field])[row]
                np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


def test_integer_tokens_of_any_length(tmp_path: Path) -> None:
    code = network(
        "self.embed, self.drop, self.head = nn.Embedding(9, 6), nn.Dropout(0.5), nn.Linear(6, 3)",
        "return self.head(self.drop(self.embed(x)).mean(1))",
    )
    model = load(write_model(tmp_path, "tokens", code, shape="[-1]", dtype="int64"))
    plan = model.manifest.plan_for()
    for length in (1, 7, 100):
        inputs = torch.ones(2, length, dtype=torch.int64)
        answer = ask(model, Request(inputs, plan, ["std"]))
        assert np.asarray(answer["std"]).max() > 0


def test_a_huge_output_is_chunked(tmp_path: Path) -> None:
    code = network(
        "self.drop, self.head = nn.Dropout(0.5), nn.Linear(4, 100_000)",
        "return self.head(self.drop(x))",
    )
    model = load(write_model(tmp_path, "huge", code, task="regression", more="passes = 4"))
    plan = SamplePlan(10, 0, Masks.SHARED)
    answer = ask(model, Request(torch.ones(3, 4), plan, ["mean"]))
    assert np.asarray(answer["mean"]).shape == (3, 100_000)


REFUSED = {
    "list_of_outputs": (TWO, "return [self.b(self.drop(x)), x]", "returns list.*one tensor"),
    "dict_of_outputs": (TWO, "return {'y': self.b(self.drop(x))}", "returns dict.*one tensor"),
    "dict_input": (TWO, "return self.b(self.drop(x['values']))", r"network\.py, line 12"),
    "raises": (TWO, "raise RuntimeError('out of order')", "RuntimeError: out of order"),
    "complex_output": (TWO, "return torch.complex(x, self.drop(x))", "complex64; expected a real"),
    "no_dropout": (TWO, "return self.b(self.a(x))", "no dropout was found"),
    "unrepeatable_numbers": (
        TWO,
        "if self.training:\n    x = x + torch.multinomial(torch.ones(4), 4)\n"
        "return self.b(F.dropout(x, 0.5, self.training))",
        "aten.multinomial.default, which cannot be made reproducible",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_told_why(tmp_path: Path, name: str) -> None:
    init, forward, said = REFUSED[name]
    folder = write_model(tmp_path, name, network(init, forward))
    with pytest.raises(ModelBroken, match=said):
        load(folder)


def test_deterministic_says_that_nothing_drops_on_purpose(tmp_path: Path) -> None:
    code = network(TWO, "return self.b(self.a(x))")
    with pytest.raises(NoStochasticSite, match=r"deterministic = true"):
        load(write_model(tmp_path, "plain", code))
    model = load(write_model(tmp_path, "meant", code, more="deterministic = true"))
    plan = SamplePlan(5, 0, Masks.SHARED)
    answer = ask(model, Request(torch.ones(1, 4), plan, ["std", "variance"]))
    # Five times the same number of 53 bits, a fifth of it: the mean may differ in the last.
    assert np.asarray(answer["std"]).max() < 2**-50
    assert model.sampler.dropping.sites == ()


@pytest.mark.filterwarnings("ignore:dropout option adds dropout:UserWarning")
def test_inert_sites_are_warned_of(tmp_path: Path) -> None:
    init = TWO + "\nself.zero, self.rnn = nn.Dropout(0.0), nn.LSTM(4, 4, 1, dropout=0.5)"
    forward = "dead = self.drop(x).sum() * 0\nh = self.rnn(self.zero(x)[None])[0][0]\n"
    code = network(init, forward + "return self.b(F.dropout(h, 0.3, self.training)) + dead")
    warnings = load(write_model(tmp_path, "inert", code)).warnings
    assert [warning.split(" ")[0] for warning in warnings] == ["drop", "zero", "rnn"]
    assert "dead branch" in warnings[0]
    assert "rate is 0" in warnings[1]
    assert "num_layers" in warnings[2]
