"""The noise of some passes over some rows, laid out as each site's tensor is, and kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from service.inference.draws import Draw
from service.inference.masks import Streams, keep

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Layout:
    """How passes and rows lie in one dimension of a stochastic tensor: lanes outermost, then rows.

    A lane is one pass of one seed. Rows of different seeds stand in different groups, all of one
    size: groups · passes = lanes, lanes · rows = the size of that dimension (times whatever the
    network folded in behind).
    """

    groups: int
    passes: int
    rows: int

    @property
    def lanes(self) -> int:
        return self.groups * self.passes

    def spread(self, tensor: Tensor, batch_dim: int) -> Tensor:
        """A deterministic tensor of all rows for every lane: a view [.., G, T, B · k, ..]."""
        grouped: Tensor = tensor.unflatten(batch_dim, (self.groups, 1, -1))
        shape = list(grouped.shape)
        shape[batch_dim + 1] = self.passes
        return grouped.expand(shape)


class NoiseBank:
    """Keeps what was prepared of one seed's noise, within a byte budget.

    Everything is kept for the passes from 0 on, along one dimension, so that any range of passes is
    a view of it. The least recently used goes first. Several threads may ask at once: what one of
    them makes the others wait for.

    Args:
        seed: whose noise it is.
        limit_bytes: of all that is kept.
        lasting: whether it outlives the batch, so that what takes long to prepare pays.
    """

    def __init__(self, seed: int, limit_bytes: int, *, lasting: bool = True) -> None:
        self.seed = seed
        self.lasting = lasting
        self._limit_bytes = limit_bytes
        self._kept: OrderedDict[Hashable, tuple[int, tuple[Tensor, ...]]] = OrderedDict()
        self.bytes = 0
        self._lock = threading.RLock()

    def get(
        self,
        key: Hashable,
        passes: int,
        bytes_a_pass: int,
        make: Callable[[int], tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...] | None:
        """What `make(n)` gives for some n ≥ `passes`; None where it would not fit the budget.

        Args:
            key: of what is wanted.
            passes: how many passes it has to hold.
            bytes_a_pass: of what is made.
            make: makes it for so many passes.
        """
        with self._lock:
            return self._get(key, passes, bytes_a_pass, make)

    def _get(
        self,
        key: Hashable,
        passes: int,
        bytes_a_pass: int,
        make: Callable[[int], tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...] | None:
        held, tensors = self._kept.get(key, (0, ()))
        if held >= passes:
            self._kept.move_to_end(key)
            return tensors
        if passes * bytes_a_pass > self._limit_bytes:
            return None
        self._forget(key)
        tensors = make(passes)
        self._kept[key] = (passes, tensors)
        self.bytes += sum(t.nbytes for t in tensors)
        while self.bytes > self._limit_bytes and len(self._kept) > 1:
            self._forget(next(iter(self._kept)))
        return tensors

    def held(self) -> tuple[Tensor, ...]:
        """Everything that is kept."""
        return tuple(tensor for _, tensors in self._kept.values() for tensor in tensors)

    def _forget(self, key: Hashable) -> None:
        _, tensors = self._kept.pop(key, (0, ()))
        self.bytes -= sum(t.nbytes for t in tensors)


@dataclass(frozen=True, slots=True)
class Noise:
    """What the sites of one run of the stochastic part draw.

    Args:
        banks: of each group's seed.
        passes: their numbers, the same for every group.
        rows: in a group.
        row_numbers: of all rows, group after group, within their requests; None where the rows of a
            pass share one thinned network.
        until: how many passes will be asked for in the end, so that all are prepared at once.
    """

    banks: Sequence[NoiseBank]
    passes: range
    rows: int
    row_numbers: Sequence[int] | None = None
    until: int = 0

    @property
    def stop(self) -> int:
        """How many passes a bank has to hold."""
        return max(self.until, self.passes.stop)

    @property
    def layout(self) -> Layout:
        return Layout(len(self.banks), len(self.passes), self.rows)

    def streams(self, group: int) -> Streams:
        """The random streams of a group."""
        own = None
        if self.row_numbers is not None:
            own = self.row_numbers[group * self.rows : (group + 1) * self.rows]
        return Streams(self.banks[group].seed, self.passes, own)

    def bits(self, site: int, count: int, device: torch.device) -> Tensor:
        """Uniform 32-bit integers, int32 [L, R, count]; see `Streams.bits`."""
        parts = [self.streams(g).bits(site, count, device) for g in range(len(self.banks))]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def lasting_part(
        self,
        key: Hashable,
        bytes_a_pass: int,
        make: Callable[[range], tuple[Tensor, ...]],
    ) -> tuple[Tensor, ...] | None:
        """What `make(passes)` gives, where it is kept for later batches; None elsewhere.

        The tensors hold all passes from 0 up to some number beyond those of this run.
        """
        bank = self.banks[0]
        if self.row_numbers is not None or len(self.banks) > 1 or not bank.lasting:
            return None
        return bank.get(key, self.stop, bytes_a_pass, lambda passes: make(range(passes)))

    def factors(
        self,
        site: int,
        rate: float,
        shape: Sequence[int],
        batch_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        """What dropout multiplies with: 0 with probability `rate`, otherwise 1 / (1 − rate).

        Args:
            site: its number.
            rate: of dropping.
            shape: of its noise, with k in place of lanes · rows · k.
            batch_dim: which dimension that is.
            dtype: of the tensor it is for.
            device: where.

        Returns:
            [.., L, R, k, ..], R either B or 1.
        """

        def make(bits: Tensor) -> Tensor:
            factors = keep(bits, rate).to(dtype)
            return factors.mul_(_scale(1.0 / (1.0 - rate), factors)) if rate < 1.0 else factors

        return self._laid_out(site, shape, batch_dim, device, dtype, make)

    def masks(
        self, site: int, rate: float, shape: Sequence[int], batch_dim: int, device: torch.device
    ) -> Tensor:
        """What the bits of a 16-bit number are joined with: all ones, or none with prob. `rate`.

        Arguments and shape as of `factors`.
        """
        return self._laid_out(
            site, shape, batch_dim, device, torch.int16,
            lambda bits: keep(bits, rate).to(torch.int16).neg_(),
        )  # fmt: skip

    def _laid_out(
        self,
        site: int,
        shape: Sequence[int],
        batch_dim: int,
        device: torch.device,
        dtype: torch.dtype,
        make: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Something of a site's bits [L, R, count], laid out as its noise: [.., L, R, k, ..]."""

        def of(streams: Streams) -> Tensor:
            made = make(streams.bits(site, prod(shape), device))
            lanes, rows, _ = made.shape
            by_lane = made.reshape(lanes, rows, *shape)
            return by_lane.movedim((0, 1), (batch_dim, batch_dim + 1)).contiguous()

        def of_group(group: int) -> Tensor:
            if self.row_numbers is None:
                bank = self.banks[group]
                kept = bank.get(
                    ("laid out", site, tuple(shape), dtype, device),
                    self.stop,
                    prod(shape) * dtype.itemsize,
                    lambda passes: (of(Streams(bank.seed, range(passes))),),
                )
                if kept is not None:
                    return kept[0].narrow(batch_dim, self.passes.start, len(self.passes))
            return of(self.streams(group))

        parts = [of_group(group) for group in range(len(self.banks))]
        return torch.cat(parts, dim=batch_dim) if len(parts) > 1 else parts[0]

    def draw(
        self,
        site: int,
        rate: float | None,
        shape: Sequence[int],
        batch_dim: int,
        device: torch.device,
    ) -> Draw:
        """The raw numbers of a site, for operations that do something else with them."""
        count = prod(shape) // (self.layout.lanes * self.rows)
        bits = self.bits(site, count, device)
        return Draw(bits, tuple(shape), batch_dim, self.rows, rate)


def _scale(scale: float, like: Tensor) -> Tensor | float:
    """`scale` in the dtype of `like` [..., n], right on average.

    bfloat16 holds 1 / 0.9 with an error of 0.15 %, the same in every unit, which would shift the
    mean of every layer. So the units take the two neighbours of it in turn, in proportion.
    """
    if like.dtype not in (torch.float16, torch.bfloat16):
        return scale
    # On the CPU: a GPU would be waited for, and records nothing that waits.
    near = torch.tensor(scale, dtype=like.dtype)
    if near.item() == scale:
        return scale
    toward = torch.full_like(near, float("inf") if near.item() < scale else 0.0)
    other = torch.nextafter(near, toward)
    share = (scale - near.item()) / (other.item() - near.item())
    numbers = torch.arange(like.shape[-1], dtype=torch.float64, device=like.device)
    chosen = torch.where((numbers * _GOLDEN) % 1.0 < share, other.item(), near.item())
    return chosen.to(like.dtype)
