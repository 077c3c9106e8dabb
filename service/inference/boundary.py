"""What is known of some rows before their first site: it is computed once, whatever the passes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Boundary:
    """What the stochastic part needs of some rows.

    Args:
        values: tensors and sizes.
        batch_dims: of each value; None where it has no rows.
        rows: B.
    """

    values: tuple[Any, ...]
    batch_dims: tuple[int | None, ...]
    rows: int

    @property
    def bytes(self) -> int:
        """Of the tensors that have rows."""
        pairs = zip(self.values, self.batch_dims, strict=True)
        return sum(v.nbytes for v, dim in pairs if dim is not None and isinstance(v, Tensor))

    def select(self, rows: Sequence[int]) -> Boundary:
        """That of some of the rows, in the order given."""
        if len(rows) == self.rows and list(rows) == list(range(self.rows)):
            return self
        values: list[Any] = []
        for value, dim in zip(self.values, self.batch_dims, strict=True):
            if isinstance(value, int) and dim is not None:
                values.append(value // self.rows * len(rows))
            elif dim is None:
                values.append(value)
            else:
                split = value.unflatten(dim, (self.rows, -1))
                values.append(_rows_of(split, dim, rows).flatten(dim, dim + 1))
        return Boundary(tuple(values), self.batch_dims, len(rows))


def _rows_of(tensor: Tensor, dim: int, rows: Sequence[int]) -> Tensor:
    if list(rows) == list(range(rows[0], rows[0] + len(rows))):
        return tensor.narrow(dim, rows[0], len(rows))
    return tensor.index_select(dim, torch.tensor(rows, device=tensor.device))


def join(parts: Sequence[Boundary]) -> Boundary:
    """The rows of all parts, one after the other."""
    if len(parts) == 1:
        return parts[0]
    values: list[Any] = []
    for index, dim in enumerate(parts[0].batch_dims):
        own = [part.values[index] for part in parts]
        if dim is None:
            values.append(own[0])
        elif isinstance(own[0], int):
            values.append(sum(own))
        else:
            values.append(torch.cat(own, dim=dim))
    return Boundary(tuple(values), parts[0].batch_dims, sum(part.rows for part in parts))
