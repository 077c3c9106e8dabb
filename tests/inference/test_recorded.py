"""On a GPU: a recorded program says what the program says, however many rows come."""

from __future__ import annotations

import functools

import pytest
import torch

from service.inference.noise import Noise, NoiseBank
from service.inference.program import build_program
from service.inference.recorded import Recorded
from service.inference.sampler import build_sampler
from service.inference.sightings import switched
from service.inference.sites import inspect
from service.types import Masks
from tests.inference.test_program import WITH_PROGRAM
from tests.networks import build, example
from tests.sampling import outputs_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CUDA = torch.device("cuda")
# TF32 is off by default for matrix products; convolutions round otherwise than on a CPU.
TOLERANCE = 1e-4


def on(device: torch.device, name: str, rows: int) -> torch.Tensor:
    return example(name)(rows).to(device)


@pytest.mark.parametrize("name", WITH_PROGRAM)
def test_a_recording_gives_what_the_program_gives(name: str) -> None:
    network = build(name).to(CUDA)

    def inputs(rows: int) -> torch.Tensor:
        return example(name)(rows).to(CUDA)

    dropping = inspect(network, inputs)
    assert dropping.batch_dims is not None
    with switched(network, dropping.modules):
        program = build_program(network, dropping.sites, dropping.batch_dims, inputs(2))
    recorded, bank = Recorded(program), NoiseBank(0, 2**26)
    with torch.inference_mode():
        for rows in (1, 3, 4, 3):
            for passes in (range(4), range(4, 8)):
                noise = Noise([bank], passes, rows)
                opened = program.open(inputs(rows))
                expected = program.run(opened, noise)
                torch.testing.assert_close(recorded.run(opened, noise), expected)


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
