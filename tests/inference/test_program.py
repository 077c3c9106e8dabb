"""The sampling program says what the network says, and computes nothing twice that it need not."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from benchmarks.products import multiply_adds
from service.inference.exporting import NotExpressible
from service.inference.noise import Noise, NoiseBank
from service.inference.program import Program, build_program
from service.inference.sightings import switched
from service.inference.sites import inspect
from service.inference.strategies import Plain, Strategy
from service.inference.suffix import Chain, ChannelMix, Drop
from tests.networks import NETWORKS, build, example

# Nothing else may differ than rounding, some 1e-7 of outputs of size 1.
TOLERANCE = 1e-5

NO_PROGRAM = {"drop_connect", "embedding", "encoder_padded", "lstm_packed"}
WITH_PROGRAM = sorted(set(NETWORKS) - NO_PROGRAM)


def program_and_reference(
    network: nn.Module, inputs: Callable[[int], Tensor]
) -> tuple[Program, Plain]:
    dropping = inspect(network, inputs)
    assert dropping.batch_dims is not None
    with switched(network, dropping.modules):
        program = build_program(network, dropping.sites, dropping.batch_dims, inputs(2))
    return program, Plain(network, dropping, Strategy.ROW_BY_ROW)


@functools.cache
def named(name: str) -> tuple[Program, Plain]:
    """Of one of the tests' networks; exporting takes a second."""
    return program_and_reference(build(name), example(name))


def bank(seed: int = 0) -> NoiseBank:
    return NoiseBank(seed, 2**26)


def assert_equal(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=0, atol=TOLERANCE)


def run(way: Program | Plain, inputs: Tensor, noise: Noise) -> Tensor:
    with torch.inference_mode():
        return way.run(way.open(inputs), noise)


@pytest.mark.parametrize("name", WITH_PROGRAM)
def test_a_program_gives_what_each_row_alone_gives(name: str) -> None:
    program, reference = named(name)
    inputs = example(name)(4)
    for row_numbers in (None, [0, 1, 2, 0]):
        noise = Noise([bank(3)], range(2, 5), 4, row_numbers)
        for thinned_from in (None, 1):
            program.thin_from(thinned_from)
            assert_equal(run(program, inputs, noise), run(reference, inputs, noise))
    program.thin_from(None)


@pytest.mark.parametrize("name", WITH_PROGRAM)
def test_rows_of_several_seeds_run_together(name: str) -> None:
    program, reference = named(name)
    inputs = example(name)(6)
    banks = [bank(seed) for seed in (5, 6, 7)]
    for row_numbers in (None, [0, 1] * 3):
        together = Noise(banks, range(3), 2, row_numbers)
        assert_equal(run(program, inputs, together), run(reference, inputs, together))


@pytest.mark.parametrize("name", WITH_PROGRAM)
def test_some_of_the_opened_rows_can_be_run(name: str) -> None:
    program, _ = named(name)
    with torch.inference_mode():
        opened = program.open(example(name)(5))
        whole = program.run(opened, Noise([bank()], range(3), 5))
        for rows in ([1, 2, 3], [4, 0], [2]):
            some = program.run(opened.select(rows), Noise([bank()], range(3), len(rows)))
            assert_equal(some, whole[:, rows])


@pytest.mark.parametrize("name", WITH_PROGRAM)
def test_bfloat16_says_the_same_within_its_precision(name: str) -> None:
    """A relative error of 2⁻⁸ for each of some ten roundings on the way, random in sign."""
    program, _ = named(name)
    inputs = example(name)(8)
    exact = run(program, inputs, Noise([bank()], range(20), 8))
    for prefix in (False, True):
        lower = program.in_precision(torch.bfloat16, prefix=prefix)
        got = run(lower, inputs, Noise([bank()], range(20), 8))
        assert got.dtype == torch.float32
        error = (got - exact).square().mean().sqrt() / exact.square().mean().sqrt()
        assert error < 2**-8 * 10**0.5


class _Block(nn.Module):
    """A skip connection over the first site, and a branch that never drops."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.side = (nn.Linear(8, 8) for _ in range(3))
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        stem = torch.relu(self.stem(x))
        dropped = stem + self.drop(self.inner(stem))
        output: Tensor = self.head(torch.cat([dropped, torch.tanh(self.side(x))], dim=1))
        return output


def rows_of(*shape: int) -> Callable[[int], Tensor]:
    def inputs(rows: int) -> Tensor:
        return torch.randn(rows, *shape, generator=torch.Generator().manual_seed(1))

    return inputs


def test_what_never_drops_runs_once_whatever_goes_around_it() -> None:
    torch.manual_seed(0)
    program, reference = program_and_reference(_Block().eval(), rows_of(8))
    inputs, passes = rows_of(8)(5), 50
    noise = Noise([bank()], range(passes), 5)
    assert_equal(run(program, inputs, noise), run(reference, inputs, noise))
    # stem, inner and side on 5 rows; the head alone on 50 times 5.
    products = multiply_adds(lambda: run(program, inputs, noise))
    assert products == 5 * 3 * 8 * 8 + passes * 5 * 16 * 3


def spatial() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.Dropout2d(0.5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4 * 9, 7),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(7, 3),
    ).eval()


def test_dropped_channels_are_left_out_of_a_sum_that_is_computed_once() -> None:
    """The mask passes ReLU and pooling; the linear layer's products are one a channel."""
    program, reference = program_and_reference(spatial(), rows_of(1, 8, 8))
    assert any(isinstance(part, ChannelMix) for part in program._suffix.modules())
    inputs, passes = rows_of(1, 8, 8)(2), 50
    noise = Noise([bank()], range(passes), 2)
    assert_equal(run(program, inputs, noise), run(reference, inputs, noise))
    products = multiply_adds(lambda: run(program, inputs, noise))
    once = 2 * (6 * 6 * 4 * 9 + 4 * 9 * 7)
    assert products == once + passes * 2 * (4 * 7 + 7 * 3)


def test_a_thinned_pass_multiplies_only_what_it_keeps() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Linear(6, 256), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(256, 3),
    ).eval()  # fmt: skip
    program, _ = program_and_reference(network, rows_of(6))
    [chain] = program.chains
    assert isinstance(chain, Chain)
    inputs, own = rows_of(6)(32), bank()
    noise = Noise([own], range(10), 32)
    dense = multiply_adds(lambda: run(program, inputs, noise))
    program.thin_from(1)
    run(program, inputs, noise)  # prepares
    thinned = multiply_adds(lambda: run(program, inputs, noise))
    # A quarter of the middle layer and half of the last; the largest of ten binomial(256, 1/2) lies
    # below 128 + 5 · 8 units with probability 1 − 10 · 3e-7, and is rounded up to blocks of 16.
    kept = 176
    assert thinned <= 32 * (6 * 256 + 10 * (kept * kept + kept * 3)) < 0.55 * dense


class _Neighbours(nn.Module):
    """Drops after a linear layer, before one, between activations, and one that a layer shares."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
        self.drop = nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        after = self.drop(self.layers[0](self.drop(torch.tanh(x))))
        before = self.layers[1](self.drop(torch.tanh(after)))
        between = torch.tanh(self.drop(torch.tanh(before)))
        shared = self.layers[2](between)
        output: Tensor = self.layers[3](shared + self.drop(shared))
        return output


def test_linear_layers_take_the_scale_of_the_drops_beside_them_in_low_precision() -> None:
    torch.manual_seed(0)
    program, _ = program_and_reference(_Neighbours().eval(), rows_of(4, 16))
    lower = program.in_precision(torch.bfloat16, prefix=False)
    scaled = {
        part.site: part.scaled_elsewhere
        for part in lower._suffix.modules()
        if isinstance(part, Drop)
    }
    assert scaled == {0: True, 1: True, 2: True, 3: False, 4: False}
    assert not any(p.scaled_elsewhere for p in program._suffix.modules() if isinstance(p, Drop))
    inputs, own = rows_of(4, 16)(32), bank()
    noise = Noise([own], range(20), 32)
    exact, got = run(program, inputs, noise), run(lower, inputs, noise)
    # Some ten roundings by 2⁻⁹ at most each.
    assert (got - exact).square().mean().sqrt() < 2**-9 * 10**0.5 * exact.square().mean().sqrt()
    # No bias of its own: the scale 1 / 0.7 alone, rounded, is 0.2 % off, and three are folded.
    slope = (got * exact).sum() / exact.square().sum()
    assert abs(slope - 1) < 2e-3
    assert torch.equal(got, run(lower, inputs, noise))


def test_other_seeds_are_not_thinned() -> None:
    """Gathering weights pays only where the same are used again."""
    program, reference = named("mlp")
    program.thin_from(1)
    passing = NoiseBank(9, 2**26, lasting=False)
    noise = Noise([passing], range(4), 3)
    inputs = example("mlp")(3)
    assert_equal(run(program, inputs, noise), run(reference, inputs, noise))
    assert not [key for key in passing._kept if "thinned" in str(key)]
    program.thin_from(None)


@pytest.mark.parametrize("name", ["spatial_2d", "convolutions"])
def test_images_may_lie_with_their_channels_last(name: str) -> None:
    if name == "convolutions":
        program, reference = program_and_reference(spatial(), rows_of(1, 8, 8))
        inputs = rows_of(1, 8, 8)(3)
    else:
        program, reference = named(name)
        inputs = example(name)(3)
    assert program.has_images
    noise = Noise([bank()], range(4), 3)
    assert_equal(run(program.with_channels_last(), inputs, noise), run(reference, inputs, noise))


class _WritesThroughAView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        kept = self.drop(x)
        kept[:, 0] = 0.0
        return torch.as_tensor(kept)


class _MixesRows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.drop(x @ x.T) @ x)


@pytest.mark.parametrize(
    ("network", "reason"),
    [(_WritesThroughAView(), "writes through a view"), (_MixesRows(), "several dimensions")],
)
def test_what_a_program_cannot_say_is_refused_with_the_reason(
    network: nn.Module, reason: str
) -> None:
    dropping = inspect(network.eval(), rows_of(6))
    with (
        switched(network, dropping.modules),
        pytest.raises(NotExpressible, match=reason),
    ):
        build_program(network, dropping.sites, dropping.batch_dims or (0,), rows_of(6)(2))


class _InPlace(nn.Module):
    """Writes to tensors that nothing else sees, as people do to save memory."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 3)
        self.drop = nn.Dropout(0.4, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden += x
        self.drop(hidden.relu_())
        hidden.mul_(2.0)
        output: Tensor = self.second(hidden)
        return output


def test_in_place_operations_are_followed() -> None:
    torch.manual_seed(0)
    program, reference = program_and_reference(_InPlace().eval(), rows_of(6))
    inputs = rows_of(6)(4)
    noise = Noise([bank()], range(5), 4)
    before = inputs.clone()
    assert_equal(run(program, inputs, noise), run(reference, before.clone(), noise))
    assert torch.equal(inputs, before)


class _AnyLength(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, 0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.encoder(x).mean(1)
        return output


def test_a_dimension_that_may_vary_varies() -> None:
    torch.manual_seed(0)
    network = _AnyLength().eval()
    dropping = inspect(network, rows_of(9, 8))
    assert dropping.batch_dims is not None
    with switched(network, dropping.modules):
        program = build_program(
            network, dropping.sites, dropping.batch_dims, rows_of(9, 8)(2), variable=[1]
        )
    reference = Plain(network, dropping, Strategy.ROW_BY_ROW)
    for length in (9, 5, 20):
        inputs = rows_of(length, 8)(3)
        assert program.takes(inputs)
        noise = Noise([bank()], range(3), 3)
        assert_equal(run(program, inputs, noise), run(reference, inputs, noise))
    assert not program.takes(rows_of(9, 7)(3))
