"""All passes of a batch at once, for tests that look at the samples themselves."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from service.inference.posterior import Posterior
from service.types import Masks


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
