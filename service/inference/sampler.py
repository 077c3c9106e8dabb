"""A verified network, ready to sample: passes and rows in chunks that fit a memory budget."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from service.errors import NoStochasticSite
from service.inference.masks import Streams
from service.inference.memory import peak_bytes
from service.inference.sightings import switched
from service.inference.sites import Dropping, inspect, output_tensor
from service.inference.strategies import Choice, choose, run_passes
from service.types import Masks

_SAMPLE_BYTES = 96
"""Of one float64 number of the outputs with the temporaries of the statistics around it."""

_WORKSPACE = 2
"""Kernels allocate scratch memory that no tensor shows; seen to stay below the tensors' own."""

_KNOWN_SHAPES = 1024


@dataclass(frozen=True, slots=True)
class _Cost:
    """Bytes that one pass of one row needs while it runs, and while its outputs are reduced."""

    activations: int
    outputs: int

    def row_passes_that_fit(self, budget: int) -> int:
        return max(1, budget // max(1, self.activations, self.outputs))


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some passes of some rows of a batch.

    Args:
        rows: positions in the batch.
        passes: numbers of the passes.
        outputs: raw outputs of the network, [len(passes), len(rows), ...].
    """

    rows: Sequence[int]
    passes: range
    outputs: Tensor


class Sampler:
    """Runs one network deterministically or with what drops out switched on.

    Not thread-safe: it sets the network's training flags while it runs and puts them back.

    Args:
        network: on its device.
        dropping: what drops out in it.
        strategy: how passes are run.
        device: where the network is.
        memory_bytes: budget of the activations and samples of one chunk.
    """

    def __init__(
        self,
        network: nn.Module,
        dropping: Dropping,
        strategy: Choice,
        device: torch.device,
        memory_bytes: int,
    ) -> None:
        self._network = network
        self.dropping = dropping
        self.strategy = strategy
        self.device = device
        self._memory_bytes = memory_bytes
        self._costs: dict[tuple[int, ...], _Cost] = {}

    def deterministic(self, inputs: Tensor) -> Tensor:
        """Dropout off: exactly `network.eval()(inputs)`. Inputs [B, D...] → outputs [B, ...]."""
        inputs = inputs.to(self.device)
        fitting = self.row_passes_that_fit(inputs)
        with torch.inference_mode(), switched(self._network, ()):
            outputs = [output_tensor(self._network(chunk)) for chunk in inputs.split(fitting)]
            return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def open(
        self, inputs: Tensor, masks: Masks, seeds: Sequence[int], rows: Sequence[int]
    ) -> Batch:
        """Rows that are ready to run any passes.

        Args:
            inputs: [B, D...].
            masks: of all rows.
            seeds: [B], of the request that each row belongs to.
            rows: [B], number of each row within its own request: with independent masks it, and
                not the place in this batch, decides what drops.
        """
        return Batch(self, inputs.to(self.device), masks, list(seeds), list(rows))

    def run(self, inputs: Tensor, streams: Streams) -> Tensor:
        """The passes of `streams` over all rows at once, whatever memory it takes: [T, B, ...]."""
        with torch.inference_mode(), switched(self._network, self.dropping.modules):
            return run_passes(self._network, self.dropping, self.strategy.name, inputs, streams)

    def row_passes_that_fit(self, inputs: Tensor) -> int:
        """How many passes of rows like these fit the memory budget at once."""
        return self._cost(inputs).row_passes_that_fit(self._memory_bytes)

    def _cost(self, inputs: Tensor) -> _Cost:
        """What a row of this shape needs, measured on the first such row that comes."""
        shape = tuple(inputs.shape[1:])
        if shape not in self._costs:
            one = Streams(seed=0, passes=[0])
            # A view of it would count as all the rows that it came with.
            row = inputs[:1].clone()
            outputs: list[Tensor] = []

            def run() -> None:
                outputs.append(self.run(row, one))

            activations = _WORKSPACE * peak_bytes(run)
            if len(self._costs) >= _KNOWN_SHAPES:
                self._costs.clear()
            self._costs[shape] = _Cost(activations, outputs[0].numel() * _SAMPLE_BYTES)
        return self._costs[shape]


class Batch:
    """Rows of one or several requests, ready to run any passes of them.

    Made by `Sampler.open`; see there.
    """

    def __init__(
        self,
        sampler: Sampler,
        inputs: Tensor,
        masks: Masks,
        seeds: Sequence[int],
        rows: Sequence[int],
    ) -> None:
        self._sampler = sampler
        self._inputs = inputs
        self._masks = masks
        self._seeds = seeds
        self._rows = rows

    def __len__(self) -> int:
        return len(self._seeds)

    def run(self, passes: range) -> Iterator[Chunk]:
        """Every pass of every row once, in chunks that fit the memory budget.

        For a given row its passes come in ascending order.
        """
        places_of: dict[int, list[int]] = {}
        for place, seed in enumerate(self._seeds):
            places_of.setdefault(seed, []).append(place)
        fitting = self._sampler.row_passes_that_fit(self._inputs)
        for seed, places in places_of.items():
            for start in range(0, len(places), fitting):
                some = places[start : start + fitting]
                inputs = self._inputs if len(some) == len(self) else self._inputs[some]
                own = [self._rows[place] for place in some]
                step = fitting // len(some)
                for first in range(passes.start, passes.stop, step):
                    numbers = range(first, min(first + step, passes.stop))
                    streams = Streams(
                        seed, numbers, own if self._masks is Masks.INDEPENDENT else None
                    )
                    yield Chunk(some, numbers, self._sampler.run(inputs, streams))

    def select(self, keep: Sequence[int]) -> Batch:
        """The batch of these rows, in this order."""
        return Batch(
            self._sampler,
            self._inputs[list(keep)],
            self._masks,
            [self._seeds[place] for place in keep],
            [self._rows[place] for place in keep],
        )


def build_sampler(
    network: nn.Module,
    example: Callable[[int], Tensor],
    *,
    device: torch.device,
    memory_bytes: int,
    stochastic: Sequence[str] = (),
    deterministic: bool = False,
) -> Sampler:
    """Find what drops out in a network, verify it and choose how to sample it.

    Args:
        network: on `device`.
        example: makes inputs [B, D...] on `device` for a B.
        device: where the network is.
        memory_bytes: budget of one chunk.
        stochastic: names of further module classes that drop.
        deterministic: take a network in which nothing drops; all its passes are the same.

    Raises:
        NoStochasticSite: nothing drops.
        ModelBroken: the network cannot be run, or answers in a way that cannot be served.
    """
    try:
        dropping = inspect(network, example, stochastic)
    except NoStochasticSite:
        if not deterministic:
            raise
        dropping = Dropping((), (), (), "nothing drops, as model.toml says")
    return Sampler(network, dropping, choose(network, dropping, example), device, memory_bytes)
