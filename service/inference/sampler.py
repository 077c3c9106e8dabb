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
from service.types import Masks, SamplePlan

_SAMPLE_BYTES = 64
"""Of one float64 number of the samples [T, B, C] with the temporaries of the measures around it."""

_WORKSPACE = 2
"""Kernels allocate scratch memory that no tensor shows; seen to stay below the tensors' own."""


_KNOWN_SHAPES = 1024


@dataclass(frozen=True, slots=True)
class _Cost:
    """Bytes that one pass of one row needs while it runs, and those its outputs keep."""

    activations: int
    outputs: int

    def row_passes_that_fit(self, budget: int) -> int:
        return max(1, budget // max(1, self.activations))

    def rows_that_fit(self, budget: int, passes: int) -> int:
        return max(1, budget // max(1, self.outputs * passes))


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
        fitting = self._cost(inputs).row_passes_that_fit(self._memory_bytes)
        with torch.inference_mode(), switched(self._network, ()):
            outputs = [output_tensor(self._network(chunk)) for chunk in inputs.split(fitting)]
            return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def sample(
        self, inputs: Tensor, plan: SamplePlan, rows: Sequence[int] | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """All passes over a chunk of rows at a time.

        Args:
            inputs: [B, D...].
            plan: passes, seed and masks.
            rows: number of each row within its own request, 0 to B − 1 by default: with
                independent masks it, and not the place in this batch, decides what drops.

        Yields:
            the rows of the chunk and its outputs [T, b, ...].
        """
        inputs = inputs.to(self.device)
        numbers = range(len(inputs)) if rows is None else rows
        cost = self._cost(inputs)
        size = cost.rows_that_fit(self._memory_bytes, plan.passes)
        for start in range(0, len(inputs), size):
            chunk = slice(start, min(start + size, len(inputs)))
            own = numbers[chunk] if plan.masks is Masks.INDEPENDENT else None
            fitting = cost.row_passes_that_fit(self._memory_bytes)
            yield chunk, self._passes(inputs[chunk], plan, own, fitting)

    def _passes(
        self, inputs: Tensor, plan: SamplePlan, rows: Sequence[int] | None, fitting: int
    ) -> Tensor:
        """Outputs [T, b, ...] in steps of as many passes and rows as fit the budget."""
        pass_step = max(1, fitting // len(inputs))
        parts: list[Tensor] = []
        with torch.inference_mode(), switched(self._network, self.dropping.modules):
            for first in range(0, plan.passes, pass_step):
                numbers = range(first, min(first + pass_step, plan.passes))
                by_rows = []
                for start in range(0, len(inputs), fitting):
                    some = slice(start, start + fitting)
                    streams = Streams(plan.seed, numbers, None if rows is None else rows[some])
                    by_rows.append(
                        run_passes(
                            self._network,
                            self.dropping,
                            self.strategy.name,
                            inputs[some],
                            streams,
                        )
                    )
                parts.append(torch.cat(by_rows, dim=1) if len(by_rows) > 1 else by_rows[0])
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _cost(self, inputs: Tensor) -> _Cost:
        """What a row of this shape needs, measured on the first such row that comes."""
        shape = tuple(inputs.shape[1:])
        if shape not in self._costs:
            one = Streams(seed=0, passes=[0])
            outputs: list[Tensor] = []

            def run() -> None:
                outputs.append(
                    run_passes(self._network, self.dropping, self.strategy.name, inputs[:1], one)
                )

            with torch.inference_mode(), switched(self._network, self.dropping.modules):
                activations = _WORKSPACE * peak_bytes(run)
            if len(self._costs) >= _KNOWN_SHAPES:
                self._costs.clear()
            self._costs[shape] = _Cost(activations, outputs[0].numel() * _SAMPLE_BYTES)
        return self._costs[shape]


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
