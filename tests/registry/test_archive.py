"""Archives give the same numbers as the network they were made of, and reading one runs no code."""

from __future__ import annotations

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.errors import ModelBroken
from service.inference.graph import GraphNetwork
from service.inference.sampler import Sampler, build_sampler
from service.inference.strategies import Strategy
from service.registry.archive import load_archive
from service.registry.export import export_archive
from service.types import Masks
from tests.networks import NETWORKS, build, example
from tests.repositories import write_model
from tests.sampling import outputs_of, sampler_of

OWN_NUMBERS = {"concrete", "drop_path", "locked"}
# Packing needs the lengths as Python numbers: no export can follow that.
NOT_EXPORTABLE = {"lstm_packed"}
PLAINLY = sorted(set(NETWORKS) - OWN_NUMBERS - NOT_EXPORTABLE)
CPU = torch.device("cpu")


def folder_of(tmp_path: Path, name: str) -> Path:
    """A model folder whose network is one of the tests' networks."""
    code = f"from tests.networks import build as make\n\ndef build():\n    return make({name!r})\n"
    shape = str(list(NETWORKS[name][1]))
    return write_model(tmp_path, name, code, task="regression", shape=shape)


def verified(network: nn.Module, name: str) -> Sampler:
    return build_sampler(network, example(name), device=CPU, memory_bytes=2**26)


def same_numbers(plain: Sampler, archived: nn.Module, name: str) -> None:
    inputs = example(name)(5)
    other = verified(archived.eval(), name)
    for masks in Masks:
        expected, got = (outputs_of(s, inputs, 6, masks, seed=3) for s in (plain, other))
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        other.deterministic(inputs), plain.deterministic(inputs), rtol=0, atol=1e-5
    )
    shown = [[(s.path, s.kind, s.rate, s.inert) for s in x.dropping.sites] for x in (plain, other)]
    assert shown[0] == [(path if path else "(root)", *rest) for path, *rest in shown[1]]


@pytest.mark.parametrize("name", PLAINLY)
def test_an_exported_folder_says_what_the_folder_says(tmp_path: Path, name: str) -> None:
    out = tmp_path / "model.pt2"
    sites = export_archive(folder_of(tmp_path, name), None, out)
    assert sites > 0
    same_numbers(sampler_of(name), load_archive(out), name)


def save(path: Path, network: nn.Module, inputs: Tensor, *, dynamic: bool) -> Path:
    shapes = ({0: torch.export.Dim.DYNAMIC},) if dynamic else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(network, (inputs,), dynamic_shapes=shapes)
        torch.export.save(program, path)
    return path


# Of the slower ones each mode and each kind of batch, but not each with each.
@pytest.mark.parametrize(
    ("name", "rows", "train"),
    [
        *(("mlp", rows, train) for rows in (1, 4, None) for train in (False, True)),
        *(("functional", rows, train) for rows in (1, 4, None) for train in (False, True)),
        *(("spatial_2d", *case) for case in ((1, True), (4, False), (None, True))),
        *(("lstm", *case) for case in ((1, False), (4, True), (None, False))),
    ],
)
def test_it_may_be_exported_in_either_mode_with_any_batch_or_a_fixed_one(
    tmp_path: Path, name: str, rows: int | None, train: bool
) -> None:
    network = build(name).train(train)
    path = save(tmp_path / "x.pt2", network, example(name)(rows or 4), dynamic=rows is None)
    archived = load_archive(path)
    same_numbers(sampler_of(name), archived, name)
    if rows is not None:
        strategy = verified(archived, name).strategy
        assert strategy.name == Strategy.ROW_BY_ROW
        assert "rows" in strategy.reason


def normalised() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))


def test_normalisation_that_was_exported_in_train_mode_is_in_eval_mode(tmp_path: Path) -> None:
    network = normalised()
    network(torch.randn(64, 6))  # statistics that are not those of any batch to come
    path = save(tmp_path / "x.pt2", network.train(), torch.randn(4, 6), dynamic=True)
    archived = load_archive(path)
    before = [buffer.clone() for buffer in archived.buffers()]
    same_numbers(verified(network.eval(), "mlp"), archived, "mlp")
    assert all(torch.equal(a, b) for a, b in zip(before, archived.buffers(), strict=True))


@pytest.mark.parametrize("name", sorted(OWN_NUMBERS))
def test_a_network_that_draws_its_own_numbers_is_refused(tmp_path: Path, name: str) -> None:
    out = tmp_path / "model.pt2"
    with pytest.raises(ModelBroken, match="draws random numbers of its own"):
        export_archive(folder_of(tmp_path, name), None, out)
    assert not out.exists()


@pytest.mark.parametrize("name", sorted(NOT_EXPORTABLE))
def test_a_network_that_cannot_be_exported_is_said_to_be_served_as_it_is(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ModelBroken, match=r"torch\.export cannot follow.*serve it as it is"):
        export_archive(folder_of(tmp_path, name), None, tmp_path / "model.pt2")


class _Two(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.dropout(x + y, 0.5, self.training)


def test_what_is_no_archive_of_one_input_is_refused(tmp_path: Path) -> None:
    (tmp_path / "garbage.pt2").write_bytes(b"garbage")
    with pytest.raises(ModelBroken, match=r"no torch\.export archive"):
        load_archive(tmp_path / "garbage.pt2")
    program = torch.export.export(_Two(), (torch.zeros(2, 3), torch.zeros(2, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, tmp_path / "two.pt2")
    with pytest.raises(ModelBroken, match="takes 2 inputs"):
        load_archive(tmp_path / "two.pt2")


class _Exploit:
    """Unpickling it creates a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.mark), "w"))


Attack = Callable[[str, bytes, Path], bytes]


def _sample_inputs(name: str, content: bytes, mark: Path) -> bytes:
    if "sample_inputs" not in name:
        return content
    stream = io.BytesIO()
    torch.save(_Exploit(mark), stream)
    return stream.getvalue()


def _pickled_weight(name: str, content: bytes, mark: Path) -> bytes:
    if name.endswith("weights/weight_0"):
        stream = io.BytesIO()
        torch.save(_Exploit(mark), stream)
        return stream.getvalue()
    if name.endswith("model_weights_config.json"):
        config = json.loads(content)
        next(iter(config["config"].values()))["use_pickle"] = True
        return json.dumps(config).encode()
    return content


def _custom_constant(name: str, content: bytes, mark: Path) -> bytes:
    if not name.endswith("model_constants_config.json"):
        return content
    entry = {"path_name": "custom_obj_0", "is_param": False, "use_pickle": True}
    return json.dumps({"config": {"evil": {**entry, "tensor_meta": None}}}).encode()


def _size_expression(name: str, content: bytes, mark: Path) -> bytes:
    if not name.endswith("models/model.json"):
        return content
    text = content.decode()
    assert '"expr_str"' in text
    model = json.loads(text)

    def replace(value: Any) -> None:
        if isinstance(value, dict):
            if "expr_str" in value:
                value["expr_str"] = f"open({str(mark)!r}, 'w')"
            for item in value.values():
                replace(item)
        elif isinstance(value, list):
            for item in value:
                replace(item)

    replace(model)
    return json.dumps(model).encode()


def _operation(target: str) -> Attack:
    def attack(name: str, content: bytes, mark: Path) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        model = json.loads(content)
        model["graph_module"]["graph"]["nodes"][0]["target"] = target
        return json.dumps(model).encode()

    return attack


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (_sample_inputs, "holds more than tensors"),
        (_pickled_weight, "is pickled"),
        (_custom_constant, "is pickled"),
        (_size_expression, "not plain arithmetic"),
        (_operation("torch.os.system"), "'torch.os.system'"),
        (_operation("torch.load"), "'torch.load'"),
        (_operation("torch.ops.aten.from_file.default"), "from_file"),
        (_operation("_operator.methodcaller"), "methodcaller"),
        (_operation("#evil:op"), "'#evil:op'"),
    ],
)
def test_reading_a_malicious_archive_runs_nothing(
    tmp_path: Path, attack: Attack, said: str
) -> None:
    good = save(tmp_path / "good.pt2", build("mlp"), example("mlp")(4), dynamic=True)
    mark, bad = tmp_path / "mark", tmp_path / "bad.pt2"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            target.writestr(name, attack(name, source.read(name), mark))
    with pytest.raises(ModelBroken) as caught:
        load_archive(bad)
    assert said in caught.value.message
    assert not mark.exists()


def test_the_exploit_would_have_worked(tmp_path: Path) -> None:
    """The attacks above are real ones: the unpickler that torch falls back to runs them."""
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(_Exploit(mark))).close()
    assert mark.exists()


def test_attention_that_lost_its_dropout_in_an_eval_mode_export_is_warned_of(
    tmp_path: Path,
) -> None:
    network = build("encoder")
    lost = load_archive(save(tmp_path / "a.pt2", network, example("encoder")(4), dynamic=True))
    assert isinstance(lost, GraphNetwork)
    paths = [f"encoder.layers.{layer}.self_attn" for layer in (0, 1)]
    assert [warning.split(" ")[0] for warning in lost.warnings] == paths
    network.train()
    kept = load_archive(save(tmp_path / "b.pt2", network, example("encoder")(4), dynamic=True))
    assert isinstance(kept, GraphNetwork)
    assert kept.warnings == ()
