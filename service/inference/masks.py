"""Random numbers as a pure function of (seed, site, pass, row): the same on every device.

Every stream is a SplitMix64 sequence (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014) that starts where a hash of its key says. Nothing is drawn from a
generator with a state, so pass 7 is the same pass whichever chunk, batch or process computes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The 64-bit pattern of `value` as the signed integer that torch.int64 holds."""
    return (value + 2**63) % 2**64 - 2**63


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MULTIPLY_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = _signed(0x94D049BB133111EB)


def _xor_shift_(value: Tensor, bits: int) -> Tensor:
    # int64 shifts keep the sign; the mask turns that into the logical shift of the algorithm.
    return value.bitwise_xor_((value >> bits).bitwise_and_((1 << (64 - bits)) - 1))


def _mix_(value: Tensor) -> Tensor:
    """SplitMix64's finalizer, in place, on int64 of any shape."""
    _xor_shift_(value, 30).mul_(_MULTIPLY_1)
    _xor_shift_(value, 27).mul_(_MULTIPLY_2)
    return _xor_shift_(value, 31)


def _absorb(state: Tensor, words: Tensor) -> Tensor:
    """Hash `words` into `state`; both int64, broadcast against each other."""
    return _mix_((state ^ _mix_(words * _GAMMA + _GAMMA)) + _GAMMA)


_MEMBERS = -1
"""Stands where a stream's key has the number of a site, which is never negative."""


def member_seed(seed: int, member: int) -> int:
    """The seed of a member of an ensemble, where the request's is `seed`.

    The first member, 0, has the request's own. The others' are hashed from it and their number, so
    that no two members drop alike in the same pass. Any 64 signed bits → 64 signed bits.
    """
    if member == 0:
        return seed
    state = torch.tensor(_signed(seed))
    for word in (_MEMBERS, member):
        state = _absorb(state, torch.tensor(word))
    return int(state)


@dataclass(frozen=True, slots=True)
class Streams:
    """The random streams of some passes, for all rows at once or for each row its own.

    Args:
        seed: of the request.
        passes: numbers of the T passes.
        rows: number of each of the B rows within its request, or None where rows share a stream.
    """

    seed: int
    passes: Sequence[int]
    rows: Sequence[int] | None = None

    def bits(self, site: int, count: int, device: torch.device, *, by_row: bool = True) -> Tensor:
        """Uniform 32-bit integers, int32 [T, R, count]; R is B with `rows`, otherwise 1.

        Args:
            site: number of the site within the model.
            count: how many numbers each pass (and row) needs.
            device: where they are drawn.
            by_row: False where the site has no rows, so that all rows must share.
        """

        def words(values: Sequence[int], *shape: int) -> Tensor:
            # What is made where it is needed can be recorded on a GPU, and waits for no copy.
            if isinstance(values, range):
                made = torch.arange(values.start, values.stop, values.step, device=device)
            elif len(values) == 1:
                made = torch.full((1,), values[0], dtype=torch.int64, device=device)
            else:
                made = torch.tensor(values, dtype=torch.int64, device=device)
            return made.view(*shape)

        state = _absorb(words([_signed(self.seed)], 1, 1), words([site], 1, 1))
        state = _absorb(state, words(self.passes, -1, 1))
        if self.rows is not None and by_row:
            state = _absorb(state, words(self.rows, 1, -1))
        steps = torch.arange(1, count // 2 + count % 2 + 1, device=device)
        numbers = _mix_(state[..., None] + steps * _GAMMA)
        return numbers.view(torch.int32)[..., :count]


def keep(bits: Tensor, rate: float) -> Tensor:
    """Bernoulli(1 − rate) decisions from int32 `bits` of any shape; True keeps."""
    threshold = round(rate * 2**32) - 2**31
    if threshold > 2**31 - 1:
        return torch.zeros_like(bits, dtype=torch.bool)
    return bits >= threshold


def _inside(bits: Tensor) -> Tensor:
    """Numbers in (0, 1), float64, never either end, from int32 `bits`."""
    return (bits.to(torch.float64) + (2**31 + 0.5)) * 2.0**-32


def uniform(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Numbers in [0, 1) from the first of int32 `bits`, as many as `dtype` holds exactly."""
    # Rounding to a narrower type could reach 1, which torch.rand never does.
    digits = min(32, 1 - round(math.log2(torch.finfo(dtype).eps)))
    whole: Tensor = (bits >> (32 - digits)).to(torch.float64) + 2 ** (digits - 1)
    return whole.mul_(2.0**-digits).to(dtype)


def normal(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard normal numbers from int32 `bits`, by the inverse distribution function."""
    numbers: Tensor = torch.special.ndtri(_inside(bits))
    return numbers.to(dtype)


def exponential(bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Exponential numbers of rate 1, never 0, from int32 `bits`, by inversion."""
    numbers: Tensor = torch.log1p(-_inside(bits)).neg_().to(dtype)
    return numbers.clamp_min_(torch.finfo(dtype).tiny)
