"""On a GPU: a recorded program says what the program says, however many rows come, and beside what.

What happens where nothing can be recorded is the same without one.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from service.inference.boundary import Boundary
from service.inference.noise import Noise, NoiseBank
from service.inference.program import Program, build_program
from service.inference.recorded import _RECORDINGS, Recorded, _Recording, nothing_recorded
from service.inference.sampler import Sampler, build_sampler
from service.inference.sightings import switched
from service.inference.sites import inspect
from service.inference.strategies import Choice, Plain, Strategy
from service.types import Masks
from tests.inference.test_program import WITH_PROGRAM
from tests.networks import build, example
from tests.sampling import new_sampler_of, outputs_of

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
# What a GPU does a GRU's cell with cannot be exported, so that the network itself is run.
RECORDED = [name for name in WITH_PROGRAM if name != "recurrent"]
# Convolutions and recurrent layers take TF32 there, whose factors round to 1 in 2048; outputs are
# of the size of 1.
TOLERANCE = 1e-3


def on(device: torch.device, name: str, rows: int) -> torch.Tensor:
    return example(name)(rows).to(device)


def program_of(name: str, device: torch.device) -> Program:
    network = build(name).to(device)
    dropping = inspect(network, functools.partial(on, device, name))
    assert dropping.batch_dims is not None
    with switched(network, dropping.modules):
        return build_program(network, dropping.sites, dropping.batch_dims, on(device, name, 2))


def gpu_sampler_of(name: str, memory_bytes: int = 2**26) -> Sampler:
    return build_sampler(
        build(name).to(CUDA),
        functools.partial(on, CUDA, name),
        device=CUDA,
        memory_bytes=memory_bytes,
        precision="float32",
    )


class _Failing(Recorded):
    """Cannot record, or only while something else is recorded."""

    tried = 0

    def _record(self, *_: object) -> None:  # type: ignore[override]
        self.tried += 1
        raise RuntimeError("operation not permitted when stream is capturing")


def test_what_cannot_be_recorded_any_more_is_run_as_it_is_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    network = build("mlp")
    dropping = inspect(network, example("mlp"))
    program = program_of("mlp", CPU)
    recorded = _Failing(program)
    sampler = Sampler(
        network,
        dropping,
        Plain(network, dropping, Strategy.REPEATED_BATCH),
        program,
        Choice(Strategy.SAMPLING_PROGRAM, "a reason"),
        CPU,
        recorded=recorded,
        memory_bytes=2**26,
        bank=NoiseBank(0, 2**26),
        precision="float32",
    )
    assert sampler.strategy.reason == "a reason"
    inputs = example("mlp")(3)
    expected = outputs_of(new_sampler_of("mlp"), inputs, 4)
    for _ in range(2):
        torch.testing.assert_close(outputs_of(sampler, inputs, 4), expected, rtol=0, atol=1e-6)
    reason = "some of it not recorded as a CUDA graph, which failed: operation not permitted"
    assert sampler.strategy.reason.startswith(f"a reason; {reason}")
    # It is tried once, and said once.
    assert recorded.tried == 1
    assert [r.levelno for r in caplog.records if reason in r.message] == [logging.WARNING]


class _Remembering(Recorded):
    """Notes how many passes it recorded, and gives what they gave then."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.recorded: list[int] = []

    def _record(self, boundary: Boundary, noise: Noise) -> _Recording:
        self.recorded.append(len(noise.passes))
        outputs = self._program.run(boundary, noise)
        return cast(_Recording, SimpleNamespace(replay=lambda _: outputs))


class _Full(_Remembering):
    """Has memory for one recording."""

    def _record(self, boundary: Boundary, noise: Noise) -> _Recording:
        if self._recordings:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super()._record(boundary, noise)


def test_recordings_make_room_for_what_does_not_fit_beside_them() -> None:
    program = program_of("mlp", CPU)
    recorded = _Full(program)
    inputs = example("mlp")(4)
    with torch.inference_mode():
        for rows in (4, 2):
            opened = program.open(inputs[:rows])
            noise = Noise([NoiseBank(0, 2**26)], range(3), rows)
            torch.testing.assert_close(recorded.run(opened, noise), program.run(opened, noise))
    assert recorded.refusal.endswith("CUDA out of memory")
    assert [*recorded._recordings.values()] == [None], "the first was freed"


def test_recordings_are_kept_for_the_shapes_that_came_last() -> None:
    recorded, bank = _Remembering(program_of("mlp", CPU)), NoiseBank(0, 2**26)

    def run(passes: int) -> None:
        recorded.run(opened, Noise([bank], range(passes), 2))

    with torch.inference_mode():
        opened = recorded.open(example("mlp")(2))
        for passes in range(1, _RECORDINGS + 1):
            run(passes)
        run(1)
        run(_RECORDINGS + 1)
        assert recorded.recorded == [*range(1, _RECORDINGS + 2)]
        # Of 33 the one that was longest not asked for is gone, and nothing else.
        run(1)
        assert len(recorded.recorded) == _RECORDINGS + 1
        run(2)
        assert recorded.recorded[-1] == 2


def test_nothing_is_recorded_while_another_thread_loads() -> None:
    recorded = _Failing(program_of("mlp", CPU))
    noise = Noise([NoiseBank(0, 2**26)], range(4), 3)
    with torch.inference_mode():
        opened = recorded.open(example("mlp")(3))
    began, over = threading.Event(), threading.Event()

    def load() -> None:
        with nothing_recorded(CUDA):
            began.set()
            over.wait()

    with ThreadPoolExecutor(1) as pool, torch.inference_mode():
        loading = pool.submit(load)
        try:
            assert began.wait(60)
            recorded.run(opened, noise)
            assert recorded.tried == 0
        finally:
            over.set()
        loading.result()
        recorded.run(opened, noise)
    assert recorded.tried == 1


@on_gpu
@pytest.mark.parametrize("name", RECORDED)
def test_a_recording_gives_what_the_program_gives(name: str) -> None:
    program = program_of(name, CUDA)
    recorded, bank = Recorded(program), NoiseBank(0, 2**26)
    with torch.inference_mode():
        for rows in (1, 3, 4, 3):
            for passes in (range(4), range(4, 8)):
                noise = Noise([bank], passes, rows)
                opened = program.open(on(CUDA, name, rows))
                expected = program.run(opened, noise)
                torch.testing.assert_close(recorded.run(opened, noise), expected)
    assert not recorded.refusal


@on_gpu
@pytest.mark.parametrize("masks", list(Masks))
@pytest.mark.parametrize("name", WITH_PROGRAM)
def test_a_gpu_draws_the_same_masks_as_a_cpu(name: str, masks: Masks) -> None:
    found = []
    for device in (torch.device("cpu"), CUDA):
        sampler = build_sampler(
            build(name).to(device),
            functools.partial(on, device, name),
            device=device,
            memory_bytes=2**26,
            precision="float32",
        )
        found.append(outputs_of(sampler, example(name)(5), 6, masks, seed=3).cpu())
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=TOLERANCE)


@on_gpu
def test_networks_are_loaded_while_others_record() -> None:
    """A load draws from the GPU's own generator, and allocates: neither spoils a recording."""
    samplers = {name: gpu_sampler_of(name) for name in ("mlp", "spatial_2d")}
    expected = {name: outputs_of(new_sampler_of(name), example(name)(24), 6) for name in samplers}
    over = threading.Event()

    def load() -> int:
        loaded = 0
        while not over.is_set():
            with nothing_recorded(CUDA):
                gpu_sampler_of("spatial_2d")
            loaded += 1
        return loaded

    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(load)
        try:
            for passes in range(1, 7):
                for rows in (1, 2, 5, 11, 24):
                    for name, sampler in samplers.items():
                        got = outputs_of(sampler, example(name)(24)[:rows], passes).cpu()
                        torch.testing.assert_close(
                            got, expected[name][:passes, :rows], rtol=0, atol=TOLERANCE
                        )
        finally:
            over.set()
        assert loading.result() > 0
    for sampler in samplers.values():
        assert "CUDA graph" not in sampler.strategy.reason


@on_gpu
@pytest.mark.filterwarnings(
    "ignore:The CUDA Graph is empty"
)  # where memory ended while it was made
def test_what_does_not_fit_the_gpu_after_all_is_halved() -> None:
    tuned = gpu_sampler_of("spatial_2d", memory_bytes=2**33)
    # As if the largest chunk were the fastest.
    sampler = tuned.tuned_like(dataclasses.replace(tuned.tuned_as, chunk=None))
    inputs = example("spatial_2d")(8192)
    expected = outputs_of(new_sampler_of("spatial_2d"), inputs, 200)
    assert sampler.fitting(inputs) > 8192 * 200
    gc.collect()
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(
        (torch.cuda.memory_reserved() + 2**26) / total, torch.cuda.current_device()
    )
    try:
        got = outputs_of(sampler, inputs, 200).cpu()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, torch.cuda.current_device())
    torch.testing.assert_close(got, expected, rtol=0, atol=TOLERANCE)
    assert sampler.fitting(inputs) < 8192 * 200


@on_gpu
def test_memory_of_recordings_is_given_back_with_their_sampler() -> None:
    def use() -> int:
        sampler = gpu_sampler_of("mlp")
        for rows in (1, 3, 9):
            outputs_of(sampler, example("mlp")(rows), 8)
        return torch.cuda.memory_allocated()

    def left() -> int:
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.memory_reserved()

    use()
    before = left()
    for _ in range(3):
        assert use() > torch.cuda.memory_allocated()
        assert left() <= before
