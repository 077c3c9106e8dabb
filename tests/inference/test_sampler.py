"""Chunks, neighbours and repetition change nothing; the memory budget holds."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from service.errors import ModelBroken
from service.inference.boundary import Boundary
from service.inference.noise import Noise
from service.inference.program import Program
from service.inference.sampler import build_sampler
from service.inference.workers import workers
from service.types import Masks
from tests.networks import build, example
from tests.sampling import new_sampler_of, outputs_of, sampler_of

CPU = torch.device("cpu")


@pytest.mark.parametrize("masks", list(Masks))
@pytest.mark.parametrize("name", ["mlp", "encoder", "lstm"])
def test_the_memory_budget_changes_no_number(name: str, masks: Masks) -> None:
    inputs = example(name)(6)
    roomy = outputs_of(sampler_of(name), inputs, 11, masks, seed=2)
    for memory_bytes in (1, 20_000, 100_000):
        tight = outputs_of(sampler_of(name, memory_bytes), inputs, 11, masks, seed=2)
        torch.testing.assert_close(tight, roomy, rtol=0, atol=1e-5)


def test_more_passes_begin_with_the_same_ones() -> None:
    sampler, inputs = sampler_of("mlp"), example("mlp")(2)
    few = outputs_of(sampler, inputs, 5)
    many = outputs_of(sampler, inputs, 50)
    torch.testing.assert_close(many[:5], few, rtol=0, atol=1e-6)


def test_a_repeat_is_equal_and_another_seed_is_not() -> None:
    sampler, inputs = sampler_of("mlp"), example("mlp")(2)
    first = outputs_of(sampler, inputs, 5)
    assert torch.equal(first, outputs_of(sampler, inputs, 5))
    assert not torch.equal(first, outputs_of(sampler, inputs, 5, seed=1))


def test_shared_rows_see_one_network_and_independent_rows_their_own() -> None:
    sampler = sampler_of("mlp")
    twins = example("mlp")(1).expand(2, -1)
    shared = outputs_of(sampler, twins, 20)
    own = outputs_of(sampler, twins, 20, Masks.INDEPENDENT)
    assert torch.equal(shared[:, 0], shared[:, 1])
    assert not torch.equal(own[:, 0], own[:, 1])


def test_deterministic_is_the_plain_forward_bit_for_bit() -> None:
    for name in ("mlp", "encoder", "lstm", "spatial_2d"):
        sampler, inputs = sampler_of(name), example(name)(5)
        with torch.no_grad():
            expected = build(name)(inputs)
        assert torch.equal(sampler.deterministic(inputs), expected)


@pytest.mark.parametrize("masks", list(Masks))
@pytest.mark.parametrize("memory_bytes", [1, 20_000, 2**26])
def test_chunks_cover_every_pass_of_every_row_once_and_in_order(
    memory_bytes: int, masks: Masks
) -> None:
    batch = sampler_of("mlp", memory_bytes).open(
        example("mlp")(5), masks, seeds=[1, 2, 1, 1, 2], rows=[0, 0, 1, 2, 1]
    )
    seen: list[list[int]] = [[] for _ in range(len(batch))]
    for chunk in batch.run(range(3, 9)):
        assert chunk.outputs.shape == (len(chunk.passes), len(chunk.rows), 3)
        for row in chunk.rows:
            seen[row].extend(chunk.passes)
    assert seen == [list(range(3, 9))] * 5


def test_what_nobody_interrupts_has_the_same_chunks_however_long_they_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampler = new_sampler_of("mlp")
    monkeypatch.setattr(sampler, "_alone", 5)
    batch = sampler.open(example("mlp")(5), Masks.SHARED, [0] * 5, range(5))

    def passes(*, interruptible: bool) -> list[int]:
        return [len(chunk.passes) for chunk in batch.run(range(12), interruptible=interruptible)]

    for longest_s in (0.0, 1000.0):
        monkeypatch.setattr("service.inference.sampler._GATHERED_S", longest_s)
        assert passes(interruptible=False) == [12]
        assert passes(interruptible=True) == ([1] * 12 if longest_s == 0.0 else [12])


@pytest.mark.parametrize("masks", list(Masks))
def test_rows_of_several_seeds_are_each_what_they_are_alone(masks: Masks) -> None:
    sampler, inputs = sampler_of("mlp"), example("mlp")(4)
    seeds, rows = [7, 8, 7, 8], [0, 0, 1, 1]
    batch = sampler.open(inputs, masks, seeds, rows)
    some = [3, 0]
    for opened, places in ((batch, range(4)), (batch.select(some), some)):
        for chunk in opened.run(range(6)):
            for place, got in zip(chunk.rows, chunk.outputs.unbind(1), strict=True):
                row = places[place]
                alone = outputs_of(
                    sampler, inputs[row : row + 1], 6, masks, seed=seeds[row], rows=[rows[row]]
                )
                numbers = list(chunk.passes)
                torch.testing.assert_close(got, alone[numbers, 0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("noise_bytes", [0, 2**26])
@pytest.mark.parametrize("name", ["mlp", "encoder", "lstm", "spatial_2d"])
def test_chunks_that_run_side_by_side_give_what_they_give_alone(
    name: str, noise_bytes: int
) -> None:
    inputs = example(name)(6)
    sampler = new_sampler_of(name, noise_bytes=noise_bytes)
    for masks in Masks:
        expected = outputs_of(sampler_of(name), inputs, 30, masks)
        for chunk in (1, 4, 15):
            sampler._several = (chunk, workers(3))
            assert sampler.chunking(inputs, 6 * 30).threads is workers(3)
            for _again in range(2):
                got = outputs_of(sampler, inputs, 30, masks)
                torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_little_work_is_not_shared_out() -> None:
    sampler = new_sampler_of("mlp")
    sampler._several = (10, workers(2))
    assert sampler.chunking(example("mlp")(1), 39).threads is None
    assert sampler.chunking(example("mlp")(1), 40).threads is workers(2)


def test_chunks_that_run_side_by_side_share_the_memory_budget() -> None:
    sampler, inputs = new_sampler_of("mlp", 100_000), example("mlp")(8)
    alone = sampler.chunking(inputs).row_passes
    sampler._several = (alone, workers(4))
    assert sampler.chunking(inputs, 100 * alone).row_passes == alone // 4


def test_out_of_memory_side_by_side_halves_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, inputs = new_sampler_of("mlp"), example("mlp")(8)
    expected = outputs_of(sampler, inputs, 40)
    sampler._several = (20, workers(2))
    run, refused = Program.run, []

    def cramped(self: Program, boundary: Boundary, noise: Noise) -> Tensor:
        if boundary.rows * len(noise.passes) > 6:
            refused.append(noise)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(self, boundary, noise)

    monkeypatch.setattr(Program, "run", cramped)
    torch.testing.assert_close(outputs_of(sampler, inputs, 40), expected, rtol=0, atol=1e-6)
    assert refused
    refused.clear()
    torch.testing.assert_close(outputs_of(sampler, inputs, 40), expected, rtol=0, atol=1e-6)
    assert not refused


class _Counting(nn.Module):
    """Notes how many rows each forward sees."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 1000), nn.Dropout(0.5), nn.Linear(1000, 3))
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        output: Tensor = self.layers(x)
        return output


def test_no_forward_is_larger_than_the_budget_allows() -> None:
    network = _Counting().eval()
    # A row and pass holds some 8 kB; masks and scratch double and redouble that.
    sampler = build_sampler(network, example("mlp"), device=CPU, memory_bytes=400_000)
    inputs = example("mlp")(30)
    sampler.deterministic(inputs)
    network.seen.clear()
    outputs_of(sampler, inputs, 20)
    assert sum(network.seen) == 30 * 20
    assert 1 < max(network.seen) <= 400_000 // 8000


def test_what_a_row_costs_does_not_depend_on_the_company_it_first_came_in() -> None:
    alone, crowd = (new_sampler_of("mlp").chunking(example("mlp")(n)).row_passes for n in (1, 1000))
    assert alone == crowd


class _Growing(nn.Module):
    """Has more sites for longer inputs."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(x.shape[1]):
            x = nn.functional.dropout(x, 0.5, self.training)
        return x


def test_a_network_that_gains_sites_after_it_was_verified_is_an_error_not_a_guess() -> None:
    sampler = build_sampler(
        _Growing().eval(), lambda rows: torch.ones(rows, 2), device=CPU, memory_bytes=2**20
    )
    with pytest.raises(ModelBroken, match="drops at place 3"):
        outputs_of(sampler, torch.ones(1, 5), 2)


class _Cramped(nn.Module):
    """Has memory for so many rows at once, as a GPU may."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))
        self.most = most
        self.refused = 0

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            self.refused += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        x.tolist()  # no graph can say this, so that the network itself runs
        output: Tensor = self.layers(x)
        return output


def test_out_of_memory_halves_the_chunk_tries_again_and_remembers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    network = _Cramped(10**6).eval()
    monkeypatch.setattr("service.inference.sites._looks_at_values", lambda *_: False)
    sampler = build_sampler(network, example("mlp"), device=CPU, memory_bytes=2**24)
    assert sampler.strategy.name == "repeated_batch"
    inputs = example("mlp")(8)
    expected = outputs_of(sampler, inputs, 20)
    network.most = 30
    torch.testing.assert_close(outputs_of(sampler, inputs, 20), expected, rtol=0, atol=1e-6)
    assert network.refused > 0
    network.refused = 0
    torch.testing.assert_close(outputs_of(sampler, inputs, 20), expected, rtol=0, atol=1e-6)
    assert network.refused == 0


def test_what_does_not_fit_even_alone_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    network = _Cramped(10**6).eval()
    monkeypatch.setattr("service.inference.sites._looks_at_values", lambda *_: False)
    sampler = build_sampler(network, example("mlp"), device=CPU, memory_bytes=2**24)
    network.most = 0
    with pytest.raises(torch.OutOfMemoryError):
        outputs_of(sampler, example("mlp")(2), 4)


MEMORY = """
import torch
from benchmarks.networks import cnn
from service.inference.prediction import Request, predict
from service.inference.sampler import build_sampler
from service.inference.fields import SUMMARY_FIELDS
from service.types import Masks, SamplePlan, Task

for precision, seeds in (("float32", (0, 5)), ("bfloat16", (0,))):
    network = cnn()
    sampler = build_sampler(
        network.module, lambda rows: torch.randn(rows, *network.shape), device=torch.device("cpu"),
        memory_bytes=128 * 2**20, precision=precision,
    )
    for seed in seeds:
        request = Request(
            torch.randn(256, 1, 28, 28), SamplePlan(1000, seed, Masks.SHARED), SUMMARY_FIELDS
        )
        [answer] = predict(sampler, Task.CLASSIFICATION, [request])
        assert answer["mean"].shape == (256, 10)
    # The resource module's figure begins with that of the process that started this one.
    [peak] = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print(int(peak.split()[1]) * 1024)
    del sampler
"""


def test_a_thousand_passes_of_256_images_fit_into_one_and_a_half_gibibytes() -> None:
    """Of the whole process, PyTorch itself included, in either precision."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    peaks = [int(line) for line in done.stdout.split()]
    assert len(peaks) == 2
    assert max(peaks) < 1.5 * 2**30
