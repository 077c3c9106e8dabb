"""Several networks of one architecture, sampled as one posterior.

The predictive distribution of M networks is their uniform mixture: Lakshminarayanan, Pritzel and
Blundell, "Simple and scalable predictive uncertainty estimation using deep ensembles" (2017), for
networks that were trained apart; draws of a posterior over weights are averaged alike. Where the
members drop out, too, each of them is itself a mixture over its passes.

Pass t is pass t // M of member t mod M, so that any M successive passes ask every member once. What
that pass drops follows from the member's own seed (`masks.member_seed`), which follows from the
request's: two members never drop alike, and the first m members of an ensemble answer as they do
in any other. Passes that are no multiple of M ask the first members once more often; fewer than M
leave the last ones out.

The standard error that is reported takes passes for independent draws. Asking members in turns is
stratified sampling, whose error is at most that; of which members were trained it says nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from math import ceil

import torch
from torch import Tensor

from service.inference.masks import member_seed
from service.inference.sampler import Batch, Chunk, Sampler, on_device
from service.inference.sites import Dropping
from service.inference.strategies import Choice, Strategy
from service.types import Masks


class Ensemble:
    """Members that are sampled as one: a `Posterior`.

    Args:
        samplers: of the members, on one device, each with its share of the memory budget and with
            the noise of its own seed.
    """

    def __init__(self, samplers: Sequence[Sampler]) -> None:
        self._samplers = tuple(samplers)
        self.device = samplers[0].device
        self.dropping = _dropping(self._samplers)
        self.precision = ", ".join(dict.fromkeys(sampler.precision for sampler in samplers))

    @property
    def members(self) -> int:
        return len(self._samplers)

    @property
    def strategy(self) -> Choice:
        """How each member's passes are run."""
        return _strategy(self._samplers)

    def deterministic_members(self, inputs: Tensor) -> Tensor:
        """See `Posterior.deterministic_members`."""
        inputs = on_device(inputs, self.device)
        return torch.stack([sampler.deterministic(inputs) for sampler in self._samplers])

    def open(
        self, inputs: Tensor, masks: Masks, seeds: Sequence[int], rows: Sequence[int]
    ) -> EnsembleBatch:
        """Rows that are ready to run any passes; see `Sampler.open`."""
        inputs = on_device(inputs, self.device)
        return EnsembleBatch(
            [
                sampler.open(inputs, masks, [member_seed(seed, member) for seed in seeds], rows)
                for member, sampler in enumerate(self._samplers)
            ]
        )


class EnsembleBatch:
    """Rows of one or several requests, ready to run any passes of them: `OpenRows`.

    Args:
        batches: the same rows, as each member opened them.
    """

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches[0])

    def select(self, keep: Sequence[int]) -> EnsembleBatch:
        """The batch of these rows, in this order."""
        return EnsembleBatch([batch.select(keep) for batch in self._batches])

    def run(self, passes: range, *, interruptible: bool = True) -> Iterator[Chunk]:
        """See `OpenRows.run`. A chunk is what members do at a time, one after the other, and as
        large however long it takes."""
        rows = min(batch.fitting for batch in self._batches)
        if rows < len(self):
            for batch in self._batches:
                batch.prepare()
        for start in range(0, len(self), rows):
            places = range(start, min(start + rows, len(self)))
            part = self if len(places) == len(self) else self.select(places)
            for numbers in part._blocks(passes):
                yield Chunk(places, numbers, part._outputs(numbers))

    def _blocks(self, passes: range) -> Iterator[range]:
        members = len(self._batches)
        most = ceil(len(passes) / members)
        block = members * min(batch.passes_at_once(most) for batch in self._batches)
        for start in range(passes.start, passes.stop, block):
            yield range(start, min(start + block, passes.stop))

    def _outputs(self, passes: range) -> Tensor:
        """Raw outputs [T, B, ...] of these passes of all rows."""
        members = len(self._batches)
        whole: Tensor | None = None
        shares = [own_passes(passes, member, members) for member in range(members)]
        for member, (batch, share) in enumerate(zip(self._batches, shares, strict=True)):
            for chunk in batch.run(share) if share else ():
                if whole is None:
                    shape = (len(passes), len(self), *chunk.outputs.shape[2:])
                    whole = chunk.outputs.new_empty(shape)
                first = chunk.passes.start * members + member - passes.start
                own = whole[first::members][: len(chunk.passes)]
                own[:, list(chunk.rows)] = chunk.outputs
        assert whole is not None
        return whole


def own_passes(passes: range, member: int, members: int) -> range:
    """Numbers that a member's share of some passes of the ensemble has among its own passes."""
    return range(ceil((passes.start - member) / members), ceil((passes.stop - member) / members))


def _dropping(samplers: Sequence[Sampler]) -> Dropping:
    """The first member's sites, with the warnings of all."""
    warnings = [
        warning if member == 0 else f"member {member + 1}: {warning}"
        for member, sampler in enumerate(samplers)
        for warning in sampler.dropping.warnings
        if member == 0 or warning not in samplers[0].dropping.warnings
    ]
    return dataclasses.replace(samplers[0].dropping, warnings=tuple(warnings))


def _strategy(samplers: Sequence[Sampler]) -> Choice:
    """The plainest of the members' strategies, and the reason of the first that has it."""
    names = [sampler.strategy.name for sampler in samplers]
    plainest = max(names, key=[*Strategy].index)
    member = names.index(plainest)
    alike = names.count(plainest)
    reason = samplers[member].strategy.reason
    return Choice(
        plainest, f"member {member + 1} of {len(names)}, {alike} of which run so: {reason}"
    )
