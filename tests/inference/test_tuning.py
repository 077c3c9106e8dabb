"""Lower precision only where it is safe, said with its reason; small networks are left alone."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from service.inference import tuning
from service.inference.boundary import Boundary
from service.inference.noise import NoiseBank
from service.inference.program import Program
from service.inference.sampler import build_sampler
from service.inference.sites import inspect
from service.inference.strategies import choose_program
from tests.networks import build, example

CPU = torch.device("cpu")


def inputs(rows: int) -> Tensor:
    return torch.randn(rows, 16, generator=torch.Generator().manual_seed(1))


def wide(rate: float = 0.5, width: int = 600) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, width), nn.ReLU(), nn.Dropout(rate),
        nn.Linear(width, width), nn.ReLU(), nn.Dropout(rate),
        nn.Linear(width, 3),
    ).eval()  # fmt: skip


def program_of(network: nn.Module) -> Program:
    program, reason = choose_program(network, inspect(network, inputs), inputs)
    assert program is not None, reason
    return program


def choose(network: nn.Module, wanted: str, passes: int = 50) -> tuning.Precision:
    with torch.inference_mode():
        return tuning.choose_precision(
            program_of(network), wanted, inputs, lambda o: o, passes, NoiseBank(0, 2**26)
        )


@pytest.fixture
def as_if_much_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock says that bfloat16 takes a tenth, whatever this machine has."""
    monkeypatch.setattr(tuning, "_has_fast_bfloat16", lambda: True)
    monkeypatch.setattr(tuning, "seconds", lambda *_: [1.0, 0.1])


@pytest.mark.usefixtures("as_if_much_faster")
def test_bfloat16_is_taken_where_its_error_drowns_in_the_monte_carlo_error() -> None:
    chosen = choose(wide(), "auto")
    assert chosen.name == "bfloat16"
    assert "of the Monte Carlo standard error" in chosen.reason


@pytest.mark.usefixtures("as_if_much_faster")
def test_bfloat16_is_refused_where_its_error_would_show() -> None:
    """Dropping a thousandth gives a spread that rounding by 2⁻⁹ is not small beside."""
    chosen = choose(wide(rate=0.001), "auto", passes=1000)
    assert chosen.name == "float32"
    assert "is not accepted" in chosen.reason


def test_bfloat16_is_not_taken_where_it_is_not_clearly_faster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tuning, "_has_fast_bfloat16", lambda: True)
    monkeypatch.setattr(tuning, "seconds", lambda *_: [1.0, 1.0])
    assert choose(wide(), "auto").name == "float32"


def test_without_units_for_it_bfloat16_is_not_even_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> list[float]:
        raise AssertionError("timed")

    monkeypatch.setattr(tuning, "_has_fast_bfloat16", lambda: False)
    monkeypatch.setattr(tuning, "seconds", refuse)
    assert choose(wide(), "auto").name == "float32"


def test_what_was_asked_for_is_given() -> None:
    assert choose(wide(), "float32").name == "float32"
    forced = choose(wide(rate=0.001), "bfloat16")
    assert (forced.name, "CANDOR_PRECISION" in forced.reason) == ("bfloat16", True)


def test_a_network_that_overflows_in_bfloat16_stays_in_float32_and_says_so() -> None:
    network = wide()
    with torch.no_grad():
        dict(network.named_parameters())["6.bias"][0] = torch.finfo(torch.float32).max
    chosen = choose(network, "bfloat16")
    assert chosen.name == "float32"
    assert "overflows" in chosen.reason


def test_small_networks_are_neither_thinned_nor_rounded() -> None:
    """So that what they answer does not depend on how a measurement of microseconds came out."""
    sampler = build_sampler(build("mlp"), example("mlp"), device=CPU, memory_bytes=2**24)
    assert sampler.precision == "float32"
    assert "thinned" not in sampler.strategy.reason


def test_thinning_starts_where_it_was_measured_to_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    # Dense and thinned in turn, for 128, 32, 16 and fewer rows.
    times = iter([[10.0, 5.0], [4.0, 3.0], [1.0, 2.0]])
    monkeypatch.setattr(tuning, "seconds", lambda *_: next(times))
    program = program_of(wide())
    with torch.inference_mode():
        assert tuning.tune_thinning(program, inputs, 50, NoiseBank(0, 2**27)) == 32
    assert [chain.thinned_from_rows for chain in program.chains] == [32]


def test_thinning_that_never_pays_stays_off(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([[1.0, 2.0]])
    monkeypatch.setattr(tuning, "seconds", lambda *_: next(times))
    program = program_of(wide())
    with torch.inference_mode():
        assert tuning.tune_thinning(program, inputs, 50, NoiseBank(0, 2**27)) is None
    assert [chain.thinned_from_rows for chain in program.chains] == [None]


@pytest.mark.parametrize(
    ("few_s", "many_s", "chosen"),
    [
        ({256: 1.0, 1024: 1.2}, {256: 2.0, 1024: 1.0}, 1024),
        ({256: 1.0, 1024: 2.0}, {256: 1.2, 1024: 1.0}, 256),
        ({256: 1.0, 1024: 1.0}, {256: 1.0, 1024: 1.0}, 1024),
    ],
)
def test_a_chunk_is_chosen_for_batches_of_few_rows_and_of_many(
    few_s: dict[int, float],
    many_s: dict[int, float],
    chosen: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each row × pass costs that much; smaller chunks cost more, and none is larger."""

    def chunks(
        _way: object, batch: Boundary, _bank: object, chunk: int, _passes: int, *_: object
    ) -> tuple[Callable[[], int], int]:
        return functools.partial(int, f"{batch.rows}{chunk:06}"), 1

    def seconds(run: functools.partial[int]) -> list[float]:
        rows, chunk = divmod(run(), 10**6)
        return [(few_s if rows == 32 else many_s).get(chunk, 9.0)]

    monkeypatch.setattr(tuning, "_chunks", chunks)
    monkeypatch.setattr(tuning, "seconds", seconds)
    monkeypatch.setattr(tuning, "_INSTANT_S", 0.0)
    monkeypatch.setattr(tuning, "_LONG_S", 10.0)
    with torch.inference_mode():
        found = tuning.time_chunks(program_of(wide()), inputs, 1024, 50, NoiseBank(0, 2**20))
    assert found.chunk == chosen


def test_no_chunk_is_timed_with_more_passes_than_the_model_runs() -> None:
    program = program_of(wide())
    with torch.inference_mode():
        boundary = program.open(inputs(32))
        for most, work in ((50, 32 * 50), (200, 4096)):
            _, found = tuning._chunks(program, boundary, NoiseBank(0, 2**20), 4096, most, 1, None)
            assert found == work


@pytest.mark.parametrize(("alone_s", "several_s", "chosen"), [(1.0, 0.8, True), (1.0, 0.95, False)])
def test_chunks_run_side_by_side_where_that_was_measured_to_be_faster(
    alone_s: float, several_s: float, chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are given the same rows × passes; a chunk of 64 is the fastest of each."""

    def seconds(*functions: object) -> list[float]:
        return [alone_s, several_s] if len(functions) == 2 else [1.0]

    monkeypatch.setattr(tuning, "seconds", seconds)
    monkeypatch.setattr(tuning, "_INSTANT_S", 0.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    program = program_of(wide())
    with torch.inference_mode():
        found = tuning.choose_workers(program, inputs, 64, 64, 50, NoiseBank(0, 2**27))
    assert (found is not None) is chosen
    if found is not None:
        assert len(found[1]) == 2


def test_a_small_network_and_a_single_core_run_one_chunk_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bank = NoiseBank(0, 2**27)
    with torch.inference_mode():
        assert tuning.choose_workers(program_of(wide(width=100)), inputs, 64, 64, 50, bank) is None
        monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
        assert tuning.choose_workers(program_of(wide()), inputs, 64, 64, 50, bank) is None
