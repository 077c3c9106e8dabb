"""The random numbers of one forward pass, site by site, laid out as each site's tensor is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from service.errors import ModelBroken
from service.inference.masks import Streams, keep


@dataclass(frozen=True, slots=True)
class Draw:
    """The numbers of one site, for a tensor whose `batch_dim` holds passes, rows and a rest.

    That dimension counts T · B · k: passes outermost, then rows, then whatever the network folded
    in behind them (heads, time steps). With `batch_dim` None the tensor has no rows at all.

    Args:
        bits: int32 [T, R, n], R either B or 1 (shared by rows), n the numbers of one row.
        shape: of the site's noise, all passes and rows together.
        batch_dim: as above.
        rows: B.
        rate: probability of dropping that applies (a probe may set another than the site's own).
    """

    bits: Tensor
    shape: tuple[int, ...]
    batch_dim: int | None
    rows: int
    rate: float | None

    def combine(
        self,
        tensor: Tensor,
        make: Callable[[Tensor], Tensor],
        function: Callable[[Tensor, Tensor], Tensor],
    ) -> Tensor:
        """`function(tensor, make(bits))` with passes and rows aligned; returns tensor's shape."""
        values = make(self.bits)
        if self.batch_dim is None:
            return function(tensor, values.reshape(self.shape))
        passes, own_rows, _ = values.shape
        before, after = self.shape[: self.batch_dim], self.shape[self.batch_dim + 1 :]
        rest = self.shape[self.batch_dim] // (passes * self.rows)
        depth = len(before)
        # [T, R, before, k, after] -> [before, T, R, k, after]
        values = values.reshape(passes, own_rows, *before, rest, *after)
        values = values.movedim((0, 1), (depth, depth + 1))
        split = tensor.unflatten(self.batch_dim, (passes, self.rows, rest))
        return function(split, values).flatten(depth, depth + 2)

    def drop(self, tensor: Tensor) -> Tensor:
        """Zero with probability `rate`, scale what stays by 1 / (1 − rate)."""
        rate = self.rate or 0.0
        if rate >= 1.0:
            return torch.zeros_like(tensor)
        scale = 1.0 / (1.0 - rate)
        return self.combine(
            tensor, lambda bits: keep(bits, rate).to(tensor.dtype).mul_(scale), torch.mul
        )

    def fill(self, like: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor:
        """A new tensor of `like`'s shape, dtype and device that holds `make(bits)`."""
        template = torch.empty_like(like)
        return self.combine(
            template, make, lambda empty, values: empty.copy_(values.expand_as(empty))
        )


@dataclass(slots=True)
class DrawSource:
    """Hands each site, in the order of execution, its numbers.

    Args:
        streams: of the passes (and rows) that this forward computes.
        rows: B of this forward.
        batch_dims: for each site the dimension of its rows, None where it has none; None in place
            of the whole where one pass of one row, or of a batch seen as a whole, is computed.
        only: sites to switch on, all by default; the others let everything through.
        probe_rate: used instead of a lower rate, so that a probe sees an effect soon.
    """

    streams: Streams
    rows: int
    batch_dims: Sequence[int | None] | None = None
    only: Collection[int] | None = None
    probe_rate: float = 0.0
    _next: int = field(default=0, init=False)

    def draw(
        self,
        kind: str,
        rate: float | None,
        shape: Sequence[int],
        device: torch.device,
        *,
        live: bool = True,
    ) -> Draw | None:
        """The numbers of the next site; None where it is to let everything through.

        Args:
            kind: of the operation.
            rate: its probability of dropping, where it has one.
            shape: of its noise, all passes and rows together.
            device: where its tensors are.
            live: False for an operation that has a rate and never applies it.

        Raises:
            ModelBroken: the forward pass has other sites than when the model was verified.
        """
        site = self._next
        self._next += 1
        if not live or rate == 0.0 or (self.only is not None and site not in self.only):
            return None
        if rate is not None:
            rate = max(rate, self.probe_rate)
        batch_dim = self._batch_dim(site, kind)
        count = prod(shape)
        if batch_dim is not None:
            count //= len(self.streams.passes) * self.rows
        by_row = self.batch_dims is None or batch_dim is not None
        bits = self.streams.bits(site, count, device, by_row=by_row)
        return Draw(bits, tuple(shape), batch_dim, self.rows, rate)

    def _batch_dim(self, site: int, kind: str) -> int | None:
        if self.batch_dims is None:
            return None
        if site >= len(self.batch_dims):
            raise ModelBroken(
                f"the network drops at place {site + 1} ({kind}), but had only "
                f"{len(self.batch_dims)} such places when it was verified"
            )
        return self.batch_dims[site]
