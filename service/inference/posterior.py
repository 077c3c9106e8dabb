"""What passes are drawn from: one network, or several that are sampled as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from service.inference.sampler import Chunk
from service.inference.sites import Dropping
from service.inference.strategies import Choice
from service.types import Masks


class OpenRows(Protocol):
    """Rows of one or several requests, ready to run any passes of them."""

    def __len__(self) -> int: ...

    def run(self, passes: range, *, interruptible: bool = True) -> Iterator[Chunk]:
        """Every pass of every row once, in chunks of successive passes that fit the memory budget.

        For a given row its passes come in ascending order.

        Args:
            passes: numbers of them.
            interruptible: whether somebody may want to stop, so that no chunk is to be waited for
                for long. Otherwise which passes make a chunk is the same however long they take,
                and with it how their sums round.
        """
        ...

    def select(self, keep: Sequence[int]) -> OpenRows:
        """The batch of these rows, in this order."""
        ...


class Posterior(Protocol):
    """Something that passes are drawn from: a `Sampler` or an `Ensemble`."""

    @property
    def members(self) -> int:
        """M, how many sets of weights it has."""
        ...

    @property
    def dropping(self) -> Dropping:
        """What drops out in each member."""
        ...

    @property
    def strategy(self) -> Choice:
        """How passes are run, and why no better way."""
        ...

    @property
    def device(self) -> torch.device:
        """Where they run."""
        ...

    @property
    def precision(self) -> str:
        """That they are computed in."""
        ...

    def deterministic_members(self, inputs: Tensor) -> Tensor:
        """Dropout off, each member once. Inputs [B, D...] → raw outputs [M, B, ...]."""
        ...

    def open(
        self, inputs: Tensor, masks: Masks, seeds: Sequence[int], rows: Sequence[int]
    ) -> OpenRows:
        """Rows that are ready to run any passes; see `Sampler.open`."""
        ...
