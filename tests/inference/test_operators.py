"""Each operation that draws is PyTorch's own, given the same mask.

PyTorch's operation runs on a seed, the mask that it drew is read off its output, and Candor's runs
on that mask: they must agree in every element. Plain random numbers are held to their distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from service.inference.draws import Draw, DrawSource
from service.inference.masks import Streams, keep
from service.inference.mode import SamplingMode

KEEP, DROP = 2**31 - 1, -(2**31)
"""Bits that keep and that drop at any rate between 0 and 1."""

ROUNDING = 1e-6
"""Of a few float32 products of size 1: an epsilon is 1.2e-7."""


@dataclass
class Handed:
    """Hands out given bits, site by site, or nothing at all; notes what was asked for."""

    bits: Sequence[Tensor] = ()
    asked: list[tuple[str, float | None, tuple[int, ...], bool]] = field(default_factory=list)

    def draw(
        self,
        kind: str,
        rate: float | None,
        shape: Sequence[int],
        device: torch.device,
        *,
        live: bool = True,
    ) -> Draw | None:
        site = len(self.asked)
        self.asked.append((kind, rate, tuple(shape), live))
        if not self.bits:
            return None
        bits = self.bits[site].to(torch.int32).reshape(1, 1, -1)
        return Draw(bits, tuple(shape), None, 1, rate)


def as_bits(kept: Tensor) -> Tensor:
    return torch.where(kept, KEEP, DROP).to(torch.int32)


def under(source: Any, function: Callable[[], Any]) -> Any:
    with torch.inference_mode(), SamplingMode(source):
        return function()


def by_torch(function: Callable[[], Any], seed: int = 5) -> Any:
    with torch.inference_mode(), torch.random.fork_rng():
        torch.manual_seed(seed)
        return function()


def normal(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(got: Tensor, expected: Tensor, tolerance: float = ROUNDING) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance)


# --- dropout -------------------------------------------------------------------------------------

DROPOUTS: dict[str, tuple[Callable[..., Tensor], str, tuple[int, ...], tuple[int, ...]]] = {
    "dropout": (F.dropout, "dropout", (40, 7), (40, 7)),
    "dropout1d": (F.dropout1d, "feature_dropout", (9, 8, 5), (9, 8, 1)),
    "dropout2d": (F.dropout2d, "feature_dropout", (9, 8, 3, 2), (9, 8, 1, 1)),
    "dropout3d": (F.dropout3d, "feature_dropout", (9, 8, 2, 3, 2), (9, 8, 1, 1, 1)),
    "alpha": (F.alpha_dropout, "alpha_dropout", (40, 7), (40, 7)),
    "feature_alpha": (
        F.feature_alpha_dropout,
        "feature_alpha_dropout",
        (9, 8, 3, 2),
        (9, 8, 1, 1),
    ),
}
"""The function, what its site is called, an input's shape and its mask's."""


def what_torch_kept(function: Callable[..., Tensor], rate: float, shape: Sequence[int]) -> Tensor:
    """PyTorch's mask, from the two values that its output has for an input of ones."""
    output: Tensor = by_torch(lambda: function(torch.ones(*shape), rate, True))
    assert len(output.unique()) == 2
    return output == output.max()


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("rate", [0.2, 0.5])
@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout_is_pytorchs_own_with_the_same_mask(name: str, rate: float, in_place: bool) -> None:
    function, kind, shape, mask_shape = DROPOUTS[name]
    kept = what_torch_kept(function, rate, shape)
    mask = kept.flatten(2)[..., 0].view(mask_shape) if len(shape) > 2 else kept
    assert torch.equal(mask.expand(shape), kept)
    source = Handed([as_bits(mask)])
    inputs = normal(*shape)
    given = inputs.clone()
    got = under(source, lambda: function(given, rate, True, in_place))
    close(got, by_torch(lambda: function(inputs, rate, True)))
    assert source.asked == [(kind, rate, mask_shape, True)]
    assert torch.equal(given, got if in_place else inputs)


@pytest.mark.parametrize("name", DROPOUTS)
def test_dropout_that_is_off_asks_for_nothing(name: str) -> None:
    function, _, shape, _ = DROPOUTS[name]
    inputs, source = normal(*shape), Handed()
    assert torch.equal(under(source, lambda: function(inputs, 0.5, False)), inputs)
    assert source.asked == []


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", DROPOUTS)
def test_a_silenced_site_lets_everything_through(name: str, in_place: bool) -> None:
    function, _, shape, _ = DROPOUTS[name]
    inputs, source = normal(*shape), Handed()
    got = under(source, lambda: function(inputs.clone(), 0.5, True, in_place))
    assert torch.equal(got, inputs)
    assert len(source.asked) == 1


def test_a_silenced_site_hands_out_a_copy_unless_it_works_in_place() -> None:
    inputs = normal(4, 3)
    before = inputs.clone()
    under(Handed(), lambda: F.dropout(inputs, 0.5, True).add_(1))
    assert torch.equal(inputs, before)


@pytest.mark.parametrize("name", DROPOUTS)
def test_a_rate_of_one_drops_everything(name: str) -> None:
    function, _, shape, mask_shape = DROPOUTS[name]
    inputs = normal(*shape)
    source = Handed([torch.full(mask_shape, KEEP)])
    got = under(source, lambda: function(inputs, 1.0, True))
    assert torch.equal(got, by_torch(lambda: function(inputs, 1.0, True)))


@pytest.mark.parametrize("name", ["alpha", "feature_alpha"])
def test_alpha_dropout_keeps_mean_and_variance_of_what_selu_gives(name: str) -> None:
    """Standardised inputs stay so; each channel is averaged over so many masks as there are rows.

    A kept unit gives a x + b and a dropped one −a α + b, so that for E x = 0 and E x² = 1 the
    output has E y = 0 and E y² = 1. Values of one channel share a mask, so channels are counted.
    """
    function, _, _, _ = DROPOUTS[name]
    rate, channels = 0.3, 40_000
    inputs = normal(channels, 1, 4, 1) if name == "feature_alpha" else normal(channels * 4, 1)
    source = DrawSource(Streams(0, [0]), rows=1)
    outputs = under(source, lambda: function(inputs, rate, True)).double()
    by_channel = outputs.view(channels, -1)
    for moment, known in ((by_channel, 0.0), (by_channel**2, 1.0)):
        means = moment.mean(1)
        z = 5  # four comparisons: exceeded by chance with probability 4 · 5.7e-7
        assert abs(means.mean() - known) < z * means.std() / channels**0.5


def test_native_dropout_returns_its_mask_as_well() -> None:
    inputs = normal(40, 7)
    kept = what_torch_kept(F.dropout, 0.4, (40, 7))
    source = Handed([as_bits(kept)])
    output, mask = under(source, lambda: torch.native_dropout(inputs, 0.4, True))
    close(output, inputs * kept / 0.6)
    assert torch.equal(mask, kept)
    quiet, mask = under(Handed(), lambda: torch.native_dropout(inputs, 0.4, True))
    assert torch.equal(quiet, inputs)
    assert mask.all()
    off, mask = under(Handed(), lambda: torch.native_dropout(inputs, 0.4, False))
    assert torch.equal(off, inputs)


@pytest.mark.parametrize("batch_dim", [0, 1, 2])
def test_each_pass_and_row_has_its_own_mask_wherever_the_batch_is(batch_dim: int) -> None:
    """Passes outermost, then rows, then what the network folded in behind them (two heads)."""
    passes, rows, heads = 3, 4, 2
    shape = [5, 6, 7]
    shape[batch_dim] = passes * rows * heads
    streams = Streams(9, range(passes), range(rows))
    source = DrawSource(streams, rows=rows, batch_dims=[batch_dim])
    got = under(source, lambda: F.dropout(torch.ones(shape), 0.5, True))
    parts = got.movedim(batch_dim, 0).reshape(passes, rows, heads, -1)
    for t in range(passes):
        for row in range(rows):
            alone = list(shape)
            alone[batch_dim] = heads
            own = DrawSource(Streams(9, [t], [row]), rows=1, batch_dims=[batch_dim])
            mask = under(own, partial(F.dropout, torch.ones(alone), 0.5, True))
            expected = mask.movedim(batch_dim, 0).reshape(heads, -1)
            assert torch.equal(parts[t, row], expected)


# --- attention -----------------------------------------------------------------------------------

BOOL_MASK = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
FLOAT_MASK = normal(3, 5, seed=7)
HIDING = torch.zeros(3, 5).masked_fill(~BOOL_MASK, -math.inf)

ATTENTION: dict[str, dict[str, Any]] = {
    "plain": {},
    "bool_mask": {"attn_mask": BOOL_MASK},
    "float_mask": {"attn_mask": FLOAT_MASK},
    "float_mask_that_hides": {"attn_mask": HIDING},
    "mask_by_row": {"attn_mask": torch.stack([BOOL_MASK, BOOL_MASK.flip(0)])[:, None]},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "grouped_queries": {"enable_gqa": True},
    "grouped_queries_causal_scale": {"enable_gqa": True, "is_causal": True, "scale": 0.3},
}


def attend(
    query: Tensor, key: Tensor, value: Tensor, rate: float, options: dict[str, Any]
) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, dropout_p=rate, **options)


def attention_inputs(options: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    heads = 2 if options.get("enable_gqa") else 4
    return normal(2, 4, 3, 6, seed=1), normal(2, heads, 5, 6, seed=2), normal(2, heads, 5, 6)


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_is_pytorchs_own_with_the_same_mask(name: str) -> None:
    options, rate = ATTENTION[name], 0.4
    query, key, value = attention_inputs(options)
    # Values that are the identity show the weights themselves, and which of them are dropped; the
    # same seed then drops the same of the values that count.
    identity = torch.eye(5).expand(2, key.shape[1], 5, 5)
    weights = by_torch(lambda: attend(query, key, identity, 0.0, options))
    kept = by_torch(lambda: attend(query, key, identity, rate, options)) != 0
    assert 0 < kept[weights != 0].double().mean() < 1
    expected = by_torch(lambda: attend(query, key, value, rate, options))
    source = Handed([as_bits(kept)])
    close(under(source, lambda: attend(query, key, value, rate, options)), expected)
    assert source.asked == [("attention", rate, (2, 4, 3, 5), True)]


@pytest.mark.parametrize("rate", [0.0, 1e-12])
@pytest.mark.parametrize("name", ATTENTION)
def test_attention_that_drops_nothing_is_pytorchs_own(name: str, rate: float) -> None:
    options = ATTENTION[name]
    query, key, value = attention_inputs(options)
    expected = by_torch(lambda: attend(query, key, value, 0.0, options))
    everything = Handed([torch.full((2, 4, 3, 5), KEEP)])
    for source in (everything, Handed()):
        close(under(source, lambda: attend(query, key, value, rate, options)), expected)
        assert len(source.asked) == (rate > 0)


@pytest.mark.parametrize(
    "mask", [BOOL_MASK & torch.tensor([[1], [0], [1]]).bool(), HIDING], ids=["bool", "float"]
)
def test_a_query_that_may_see_nothing_gets_zeros_as_pytorch_gives(mask: Tensor) -> None:
    """nn.MultiheadAttention makes float masks of −∞ of the boolean ones it is given."""
    if mask.is_floating_point():
        mask = mask.clone()
        mask[1] = -math.inf
    options = {"attn_mask": mask}
    query, key, value = attention_inputs(options)
    expected = by_torch(lambda: attend(query, key, value, 0.4, options))
    assert (expected[:, :, 1] == 0).all()
    everything = Handed([torch.full((2, 4, 3, 5), KEEP)])
    got = under(everything, lambda: attend(query, key, value, 0.4, options))
    assert torch.equal(got[:, :, 1], expected[:, :, 1])


# --- recurrent layers ----------------------------------------------------------------------------

Build = Callable[..., nn.RNNBase]

RECURRENT: dict[str, tuple[Build, str, dict[str, Any]]] = {
    "lstm": (nn.LSTM, "lstm", {}),
    "gru": (nn.GRU, "gru", {}),
    "rnn": (nn.RNN, "rnn_tanh", {}),
    "rnn_relu": (nn.RNN, "rnn_relu", {"nonlinearity": "relu"}),
    "lstm_no_bias": (nn.LSTM, "lstm", {"bias": False}),
    "lstm_projected": (nn.LSTM, "lstm", {"proj_size": 2}),
    "lstm_3_bidirectional": (nn.LSTM, "lstm", {"num_layers": 3, "bidirectional": True}),
    "lstm_projected_bidirectional": (nn.LSTM, "lstm", {"proj_size": 2, "bidirectional": True}),
    "gru_bidirectional": (nn.GRU, "gru", {"bidirectional": True}),
    "rnn_3": (nn.RNN, "rnn_tanh", {"num_layers": 3}),
}


def recurrent(name: str, *, batch_first: bool, rate: float = 0.4) -> nn.RNNBase:
    kind, _, options = RECURRENT[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(3, 4, **{"num_layers": 2, **options}, dropout=rate, batch_first=batch_first)


def flat(result: Any) -> list[Tensor]:
    """Output and final states, whatever they are packed in."""
    output, state = result
    data = output.data if isinstance(output, PackedSequence) else output
    return [data, *(state if isinstance(state, tuple) else (state,))]


def run(network: nn.RNNBase, sequence: Any, state: Any, *, training: bool) -> list[Tensor]:
    network.train(training)
    return flat(network(sequence, state))


def states_of(network: nn.RNNBase, rows: int) -> Any:
    count = network.num_layers * (2 if network.bidirectional else 1)
    hidden = normal(count, rows, network.proj_size or network.hidden_size, seed=3)
    if isinstance(network, nn.LSTM):
        return hidden, normal(count, rows, network.hidden_size, seed=4)
    return hidden


def sequence_of(form: str) -> Any:
    rows, steps = 3, 5
    if form == "packed":
        return pack_padded_sequence(normal(rows, steps, 3), torch.tensor([5, 3, 2]), True)
    return normal(rows, steps, 3) if form == "batch_first" else normal(steps, rows, 3)


FORMS = ("batch_first", "time_first", "packed")


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_without_draws_are_pytorchs_eval(
    name: str, form: str, with_state: bool
) -> None:
    network = recurrent(name, batch_first=form != "time_first")
    sequence = sequence_of(form)
    state = states_of(network, 3) if with_state else None
    expected = by_torch(lambda: run(network, sequence, state, training=False))
    source = Handed()
    got = under(source, lambda: run(network, sequence, state, training=True))
    for one, other in zip(got, expected, strict=True):
        close(one, other)
    kind, layers = RECURRENT[name][1], network.num_layers
    assert [(k, rate, live) for k, rate, _, live in source.asked] == [(kind, 0.4, True)] * (
        layers - 1
    )


def single_layers(network: nn.RNNBase) -> list[nn.RNNBase]:
    """The network's layers, each a network of one layer with the same weights."""
    directions = 2 if network.bidirectional else 1
    width = (network.proj_size or network.hidden_size) * directions
    kind: Build = type(network)
    found = []
    for layer in range(network.num_layers):
        more: dict[str, Any] = {}
        if isinstance(network, nn.RNN):
            more["nonlinearity"] = network.nonlinearity
        if network.proj_size:
            more["proj_size"] = network.proj_size
        single = kind(
            network.input_size if layer == 0 else width,
            network.hidden_size,
            1,
            bias=network.bias,
            batch_first=network.batch_first,
            bidirectional=network.bidirectional,
            **more,
        )
        own = f"_l{layer}"
        weights = {
            key.replace(own, "_l0"): value
            for key, value in network.state_dict().items()
            if key.removesuffix("_reverse").endswith(own)
        }
        single.load_state_dict(weights)
        found.append(single)
    return found


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_drop_between_layers_and_nowhere_else(name: str, form: str) -> None:
    rate = 0.4
    network = recurrent(name, batch_first=form != "time_first", rate=rate)
    sequence = sequence_of(form)
    states = states_of(network, 3)
    directions = 2 if network.bidirectional else 1
    masks: list[Tensor] = []

    def by_hand() -> list[Tensor]:
        given = sequence
        finals = []
        for layer, single in enumerate(single_layers(network)):
            if layer > 0:
                data = given.data if form == "packed" else given
                masks.append(keep(Streams(0, [layer]).bits(0, data.numel(), data.device), rate))
                dropped = data * masks[-1].view(data.shape) / (1 - rate)
                given = given._replace(data=dropped) if form == "packed" else dropped
            own = slice(layer * directions, (layer + 1) * directions)
            state = (
                tuple(part[own] for part in states) if isinstance(states, tuple) else states[own]
            )
            given, final = single(given, state)
            finals.append(final if isinstance(final, tuple) else (final,))
        output = given.data if form == "packed" else given
        return [output, *(torch.cat(parts) for parts in zip(*finals, strict=True))]

    expected = by_torch(by_hand)
    source = Handed([as_bits(mask) for mask in masks])
    got = under(source, lambda: run(network, sequence, states, training=True))
    for one, other in zip(got, expected, strict=True):
        close(one, other)


@pytest.mark.filterwarnings("ignore:dropout option adds dropout:UserWarning")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_single_recurrent_layer_says_that_it_never_applies_its_rate(kind: Build) -> None:
    network, sequence, source = kind(3, 4, 1, dropout=0.4), sequence_of("time_first"), Handed()
    got = under(source, lambda: run(network, sequence, None, training=True))
    expected = by_torch(lambda: run(network, sequence, None, training=False))
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))
    assert [live for *_, live in source.asked] == [False]


# --- plain random numbers ------------------------------------------------------------------------

N = 100_000
Z = 5.0
"""Of single comparisons, some 60 of them: exceeded by chance with probability 60 · 5.7e-7."""

DKW = math.sqrt(math.log(2 / 1e-9) / (2 * N))
"""Largest distance of a sample's distribution function from the true one, exceeded with
probability 1e-9 (Dvoretzky, Kiefer and Wolfowitz, with Massart's constant)."""


def drawn(make: Callable[[], Tensor], seed: int = 0) -> Tensor:
    numbers: Tensor = under(DrawSource(Streams(seed, [0]), rows=1), make)
    return numbers


def uniform_cdf(low: float, high: float) -> Callable[[Tensor], Tensor]:
    return lambda x: ((x - low) / (high - low)).clamp(0, 1)


def normal_cdf(mean: float, std: float) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.special.ndtr((x - mean) / std)


def exponential_cdf(rate: float) -> Callable[[Tensor], Tensor]:
    return lambda x: 1 - (-rate * x).exp()


CONTINUOUS: dict[str, tuple[Callable[[], Tensor], Callable[[Tensor], Tensor], float, float]] = {
    "rand": (lambda: torch.rand(N), uniform_cdf(0, 1), 1 / 2, 1 / 12),
    "rand_double": (lambda: torch.rand(N, dtype=torch.float64), uniform_cdf(0, 1), 1 / 2, 1 / 12),
    "rand_like": (lambda: torch.rand_like(torch.ones(N)), uniform_cdf(0, 1), 1 / 2, 1 / 12),
    "uniform_": (lambda: torch.empty(N).uniform_(-1, 3), uniform_cdf(-1, 3), 1, 16 / 12),
    "uniform_to": (lambda: torch.empty(N).uniform_(to=3), uniform_cdf(0, 3), 1.5, 9 / 12),
    "randn": (lambda: torch.randn(N), normal_cdf(0, 1), 0, 1),
    "randn_like": (lambda: torch.randn_like(torch.ones(N)), normal_cdf(0, 1), 0, 1),
    "normal_": (lambda: torch.empty(N).normal_(2, 3), normal_cdf(2, 3), 2, 9),
    "normal_std": (lambda: torch.empty(N).normal_(std=3), normal_cdf(0, 3), 0, 9),
    "exponential_": (lambda: torch.empty(N).exponential_(), exponential_cdf(1), 1, 1),
    "exponential_rate": (lambda: torch.empty(N).exponential_(4), exponential_cdf(4), 1 / 4, 1 / 16),
}
"""How they are drawn, their distribution function, mean and variance."""

KURTOSIS = {"rand": 9 / 5, "uniform": 9 / 5, "randn": 3.0, "normal": 3.0, "exponential": 9.0}
"""Fourth central moment, in squares of the variance."""


@pytest.mark.parametrize("name", CONTINUOUS)
def test_random_numbers_have_their_distribution(name: str) -> None:
    make, cdf, mean, variance = CONTINUOUS[name]
    values = drawn(make).double()
    assert abs(values.mean() - mean) < Z * (variance / N) ** 0.5
    kurtosis = next(k for prefix, k in reversed(KURTOSIS.items()) if name.startswith(prefix))
    spread = variance * ((kurtosis - 1) / N) ** 0.5
    assert abs(values.var() - variance) < Z * spread
    below = torch.arange(1, N + 1) / N
    # A sample's distribution function is a step: the distance just before it is 1 / N off.
    assert (cdf(values.sort().values) - below).abs().max() < DKW + 1 / N


BERNOULLI: dict[str, tuple[Callable[[], Tensor], float]] = {
    "bernoulli": (lambda: torch.bernoulli(torch.full((N,), 0.3)), 0.3),
    "bernoulli_p": (lambda: torch.bernoulli(torch.empty(N), 0.3), 0.3),
    "bernoulli_": (lambda: torch.empty(N).bernoulli_(0.3), 0.3),
    "bernoulli_half": (lambda: torch.empty(N).bernoulli_(), 0.5),
    "bernoulli_of_tensor": (lambda: torch.empty(N).bernoulli_(torch.full((N,), 0.3)), 0.3),
    "bernoulli_of_integers": (lambda: torch.empty(N, dtype=torch.int64).bernoulli_(0.3), 0.3),
    "bernoulli_never": (lambda: torch.empty(N).bernoulli_(0.0), 0.0),
    "bernoulli_always": (lambda: torch.empty(N).bernoulli_(1.0), 1.0),
}


@pytest.mark.parametrize("name", BERNOULLI)
def test_bernoulli_numbers_have_their_rate(name: str) -> None:
    make, probability = BERNOULLI[name]
    values = drawn(make).double()
    assert set(values.unique().tolist()) <= {0.0, 1.0}
    error = (probability * (1 - probability) / N) ** 0.5
    assert abs(values.mean() - probability) <= Z * error


def test_bernoulli_takes_a_chance_for_each_element() -> None:
    chances = torch.tensor([0.0, 0.25, 1.0]).repeat(N, 1)
    for make in (lambda: torch.bernoulli(chances), lambda: torch.empty(N, 3).bernoulli_(chances)):
        never, sometimes, always = drawn(make).double().mean(0).tolist()
        assert (never, always) == (0.0, 1.0)
        assert abs(sometimes - 0.25) < Z * (0.25 * 0.75 / N) ** 0.5


def test_in_place_numbers_are_written_where_they_were_asked_for() -> None:
    for fill in (Tensor.uniform_, Tensor.normal_, Tensor.exponential_, Tensor.bernoulli_):
        target = torch.full((100,), -9.0)
        assert drawn(partial(fill, target)) is target
        assert not (target == -9.0).any()


def test_numbers_keep_shape_and_type() -> None:
    for make in (torch.rand, torch.randn):
        numbers = drawn(partial(make, 2, 3, dtype=torch.float64))
        assert (numbers.shape, numbers.dtype) == ((2, 3), torch.float64)
    like = torch.ones(2, 3, dtype=torch.float64)
    assert drawn(lambda: torch.rand_like(like)).dtype == torch.float64
    assert drawn(lambda: torch.rand_like(like, dtype=torch.float32)).dtype == torch.float32


@pytest.mark.parametrize("name", [*CONTINUOUS, *BERNOULLI])
def test_numbers_come_from_the_seed_and_leave_pytorchs_generator_alone(name: str) -> None:
    make = CONTINUOUS[name][0] if name in CONTINUOUS else BERNOULLI[name][0]
    before = torch.get_rng_state()
    first = drawn(make)
    assert torch.equal(first, drawn(make))
    assert torch.equal(before, torch.get_rng_state())
    if name not in ("bernoulli_never", "bernoulli_always"):
        assert not torch.equal(first, drawn(make, seed=1))


@pytest.mark.parametrize("bits", [KEEP, DROP])
def test_exponential_numbers_are_positive_and_finite_at_the_ends(bits: int) -> None:
    """Gumbel noise, −ln of them, is infinite at 0 and makes the whole of a softmax NaN."""
    source = Handed([torch.tensor([bits])])
    number = under(source, lambda: torch.empty(1).exponential_())
    assert 0 < number.item() < math.inf


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_uniform_numbers_stay_below_one_in_every_precision(dtype: torch.dtype) -> None:
    source = Handed([torch.tensor([KEEP])])
    assert under(source, lambda: torch.rand(1, dtype=dtype)).item() < 1
