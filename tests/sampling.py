"""Samplers of the tests' networks, and all passes of a batch at once: the samples themselves."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from service.inference.posterior import Posterior
from service.inference.sampler import Sampler, build_sampler
from service.types import Masks
from tests.networks import build, example


@functools.cache
def sampler_of(name: str, memory_bytes: int = 2**26) -> Sampler:
    """Of one of the tests' networks, for all tests together: exporting takes a second."""
    return new_sampler_of(name, memory_bytes)


def new_sampler_of(name: str, memory_bytes: int = 2**26, noise_bytes: int = 2**27) -> Sampler:
    """The same, for a test that changes it."""
    device = torch.device("cpu")
    return build_sampler(
        build(name),
        example(name),
        device=device,
        memory_bytes=memory_bytes,
        noise_bytes=noise_bytes,
    )


def outputs_of(
    sampler: Posterior,
    inputs: Tensor,
    passes: int,
    masks: Masks = Masks.SHARED,
    *,
    seed: int = 0,
    rows: Sequence[int] | None = None,
) -> Tensor:
    """Raw outputs [T, B, ...] of all rows as one request; rows are numbered from 0 by default."""
    numbers = range(len(inputs)) if rows is None else rows
    batch = sampler.open(inputs, masks, [seed] * len(inputs), numbers)
    whole: Tensor | None = None
    for chunk in batch.run(range(passes)):
        if whole is None:
            whole = chunk.outputs.new_empty(passes, len(inputs), *chunk.outputs.shape[2:])
        whole[chunk.passes.start : chunk.passes.stop, list(chunk.rows)] = chunk.outputs
    assert whole is not None
    return whole
