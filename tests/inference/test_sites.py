"""What drops out is found, whoever wrote it; nothing else is switched on, and nothing moves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from service.errors import NoStochasticSite
from service.inference.sampler import build_sampler
from service.inference.sightings import switched
from service.inference.sites import Dropping, inspect
from service.inference.strategies import Strategy
from tests.networks import NETWORKS, Encoder, Recurrent, build, example
from tests.sampling import outputs_of


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def look(network: nn.Module, *shape: int, also: tuple[str, ...] = ()) -> Dropping:
    return inspect(network.eval(), lambda rows: normal(rows, *shape), also)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mlp", [("0", "dropout", 0.1), ("3", "dropout", 0.5)]),
        ("in_place", [("2", "dropout", 0.4)]),
        ("alpha", [("2", "alpha_dropout", 0.3)]),
        ("feature_alpha", [("2", "feature_alpha_dropout", 0.3)]),
        ("spatial_1d", [("1", "feature_dropout", 0.3)]),
        ("spatial_2d", [("1", "feature_dropout", 0.3)]),
        ("spatial_3d", [("1", "feature_dropout", 0.3)]),
        ("functional", [("(root)", "dropout", 0.3)]),
        ("drop_path", [("drop", "bernoulli", 0.3)]),
        ("drop_connect", [("(root)", "dropout", 0.4)]),
        ("locked", [("(root)", "bernoulli", None)]),
        ("lstm", [("rnn", "lstm", 0.4)]),
        ("lstm_3_bidirectional", [("rnn:1", "lstm", 0.4), ("rnn:2", "lstm", 0.4)]),
        ("gru_time_first", [("rnn", "gru", 0.4)]),
        ("rnn", [("rnn", "rnn_tanh", 0.4)]),
        ("lstm_packed", [("rnn", "lstm", 0.4)]),
        ("recurrent", [("(root)", "dropout", 0.3)]),
        ("concrete", [("(root)", "rand", None)]),
        ("embedding", [("(root)", "dropout", 0.3)]),
        ("attention", [("attention", "attention", 0.3)]),
        ("attention_with_weights", [("attention", "dropout", 0.3)]),
    ],
)
def test_every_site_is_listed_and_live(
    name: str, expected: list[tuple[str, str, float | None]]
) -> None:
    sites = inspect(build(name), example(name)).sites
    assert [(site.path, site.kind, site.rate) for site in sites] == expected
    assert not any(site.inert for site in sites)


@pytest.mark.parametrize(
    "name", ["encoder", "encoder_time_first", "encoder_padded", "encoder_causal"]
)
def test_an_encoder_has_four_sites_a_layer(name: str) -> None:
    paths = [site.path for site in inspect(build(name), example(name)).sites]
    parts = ("self_attn", "dropout1", "dropout", "dropout2")
    assert paths == [f"encoder.layers.{layer}.{part}" for layer in (0, 1) for part in parts]


@pytest.mark.parametrize(
    ("name", "kind"), [("hugging_face_sdpa", "attention"), ("hugging_face_eager", "dropout")]
)
def test_every_site_of_a_hugging_face_encoder_is_listed(name: str, kind: str) -> None:
    sites = inspect(build(name), example(name)).sites
    expected = [("bert.embeddings.dropout", "dropout", 0.1)]
    for layer in ("bert.encoder.layer.0", "bert.encoder.layer.1"):
        expected += [
            (f"{layer}.attention.self", kind, 0.2),
            (f"{layer}.attention.output.dropout", "dropout", 0.1),
            (f"{layer}.output.dropout", "dropout", 0.1),
        ]
    assert [(site.path, site.kind, site.rate) for site in sites] == expected
    assert not any(site.inert for site in sites)


@pytest.mark.parametrize(
    ("name", "mask"),
    [
        ("mlp", (-1, 6)),
        ("spatial_2d", (-1, 4, 1, 1)),
        ("lstm", (-1, 5, 16)),
        ("gru_time_first", (5, -1, 16)),
        ("attention", (-1, 2, 5, 5)),
        ("attention_with_weights", (-1, 5, 5)),
        ("drop_path", (-1, 1)),
        ("locked", (-1, 1, 16)),
        ("drop_connect", (32, 6)),
    ],
)
def test_a_site_tells_the_shape_of_its_mask(name: str, mask: tuple[int, ...]) -> None:
    assert inspect(build(name), example(name)).sites[0].mask == mask


def test_an_encoder_decoder_has_ten() -> None:
    sites = inspect(build("encoder_decoder"), example("encoder_decoder")).sites
    assert len(sites) == 4 + 6
    assert not any(site.inert for site in sites)


@pytest.mark.parametrize("name", NETWORKS)
def test_sampling_leaves_the_network_as_it_was(name: str) -> None:
    network = build(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    sampler = build_sampler(network, example(name), device=torch.device("cpu"), memory_bytes=2**20)
    generator = torch.get_rng_state()
    outputs_of(sampler, example(name)(3), 5)
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())


def normalised() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(1, 4, 3),
        nn.BatchNorm1d(4),
        nn.InstanceNorm1d(4, track_running_stats=True),
        nn.Dropout(0.4),
        nn.Flatten(),
        torch.nn.utils.parametrizations.spectral_norm(nn.Linear(16, 3)),
    )


def test_normalisation_never_moves_not_even_over_ten_thousand_passes() -> None:
    network = normalised().eval()
    before = [buffer.clone() for buffer in network.buffers()]
    sampler = build_sampler(
        network,
        lambda rows: normal(rows, 1, 6),
        device=torch.device("cpu"),
        memory_bytes=64 * 2**20,
    )
    outputs_of(sampler, normal(1, 1, 6), 10_000)
    assert len(before) > 6
    assert all(torch.equal(a, b) for a, b in zip(before, network.buffers(), strict=True))
    kinds = {type(module) for module in sampler.dropping.modules}
    assert kinds == {nn.Dropout}


def test_training_flags_are_put_back_when_the_forward_raises() -> None:
    network = nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.5))
    network[1].training = False  # a mixture, as a frozen backbone has
    flags = [module.training for module in network.modules()]

    def fail() -> None:
        with switched(network, [network[1]]):
            assert [m.training for m in network.modules()] == [False, False, True]
            network(torch.zeros(1, 5))

    with pytest.raises(RuntimeError):
        fail()
    assert [module.training for module in network.modules()] == flags


class _TwoFaced(nn.Module):
    """Answers with a loss's worth of noise in train mode, and has dropout beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.head = nn.Dropout(0.5), _Head()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.drop(x))
        return output


class _Head(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 100 if self.training else x


def test_a_head_that_behaves_differently_in_train_mode_stays_in_eval() -> None:
    network = _TwoFaced()
    dropping = look(network, 6)
    assert dropping.modules == (network.drop,)


class _AsksForTargets(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(6, 3)

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        if self.training and targets is None:
            raise ValueError("targets are needed in training")
        output: Tensor = self.head(self.drop(x))
        return output


def test_a_network_that_cannot_run_in_train_mode_still_drops_by_its_modules() -> None:
    dropping = look(_AsksForTargets(), 6)
    assert [(site.path, site.inert) for site in dropping.sites] == [("drop", False)]
    [warning] = dropping.warnings
    assert "targets are needed in training" in warning


def test_what_cannot_be_made_reproducible_stays_in_eval_mode_with_a_warning() -> None:
    dropping = look(nn.Sequential(nn.Linear(6, 6), nn.RReLU(), nn.Dropout(0.5)), 6)
    assert [site.path for site in dropping.sites] == ["2"]
    [warning] = dropping.warnings
    assert "1 (aten.rrelu" in warning


class _LayerDrop(nn.Module):
    """Skips whole layers by the toss of a coin, as Fan et al. 2020 do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.2)) for _ in range(3)]
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if not (self.training and torch.rand([]) < 0.3):
                x = torch.relu(layer(x))
        return x


def test_noise_that_decides_what_runs_is_sampled_row_by_row() -> None:
    torch.manual_seed(0)
    network = _LayerDrop().eval()
    sampler = build_sampler(
        network, lambda rows: normal(rows, 6), device=torch.device("cpu"), memory_bytes=2**20
    )
    assert sampler.strategy.name == Strategy.ROW_BY_ROW
    inputs = normal(2, 6)
    both = outputs_of(sampler, inputs, 200)
    alone = outputs_of(sampler, inputs[1:], 200, rows=[1])
    torch.testing.assert_close(both[:, 1:], alone, rtol=0, atol=1e-6)
    # All three layers are skipped in 2.7 % of passes, and the input comes out as it went in.
    skipped = (both == inputs).all(-1).double().mean()
    assert 0 < skipped < 0.1


class _Conditional(nn.Module):
    """Drops only in a mode that its parent, which cannot run in train mode, never tells it of."""

    def __init__(self) -> None:
        super().__init__()
        self.noise, self.head = _Noise(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            raise ValueError("no training here")
        output: Tensor = self.head(self.noise(x))
        return output


class _Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) > 0.5) if self.training else x


def test_stochastic_names_a_class_that_no_rule_can_know() -> None:
    with pytest.raises(NoStochasticSite, match=r"But the network does not run in train mode .*no "):
        look(_Conditional(), 6)
    sites = look(_Conditional(), 6, also=("_Noise",)).sites
    assert [(site.path, site.kind, site.inert) for site in sites] == [("noise", "rand", False)]


def test_one_dropout_used_twice_is_two_sites() -> None:
    drop = nn.Dropout(0.5)
    network = nn.Sequential(nn.Linear(6, 6), drop, nn.Linear(6, 6), drop)
    assert [site.path for site in look(network, 6).sites] == ["1:1", "1:2"]


def test_dropout_as_the_root_and_subclasses_by_other_names_are_found() -> None:
    class Thinning(nn.Dropout):
        pass

    assert [site.path for site in look(nn.Dropout(0.5), 6).sites] == ["(root)"]
    assert [site.kind for site in look(nn.Sequential(Thinning(0.5)), 6).sites] == ["dropout"]


class _DeadBranch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dead, self.live = nn.Dropout(0.5), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.live(x) + 0 * self.dead(x).sum(-1, keepdim=True)
        return output


def test_what_never_changes_the_output_is_inert() -> None:
    assert [site.inert for site in look(_DeadBranch(), 6).sites] == [False, True]
    network = nn.Sequential(nn.Dropout(0.0), nn.Dropout(0.5))
    assert [site.inert for site in look(network, 6).sites] == [True, False]


@pytest.mark.filterwarnings("ignore:dropout option adds dropout:UserWarning")
def test_a_single_layer_lstm_is_inert_and_alone_is_refused() -> None:
    with pytest.raises(NoStochasticSite, match=r"rnn \(lstm, rate 0\.4\).*num_layers ≥ 2"):
        look(Recurrent(layers=1), 5, 6)


def test_no_dropout_at_all_is_refused_with_what_was_looked_for() -> None:
    with pytest.raises(NoStochasticSite, match=r"nn\.LSTM.*F\.dropout"):
        look(nn.Linear(6, 3), 6)


def test_the_fused_path_of_an_encoder_is_off_while_sampling_and_on_otherwise() -> None:
    network = Encoder().eval()
    dropping = look(network, 5, 8)
    assert any(isinstance(m, nn.TransformerEncoderLayer) for m in dropping.modules)
    assert not any(isinstance(m, nn.LayerNorm | nn.Linear) for m in dropping.modules)
