"""Runs a module as it is, with every random operation in it taken over."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from service.errors import ModelBroken
from service.inference.operators import OPERATORS, Source


@functools.lru_cache(maxsize=4096)
def _draws_random_numbers(function: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in function.tags


class SamplingMode(TorchDispatchMode):
    """While it is entered, random operations take their numbers from `source`.

    It sees operations below every Python API, so `nn.Dropout`, `F.dropout` in somebody's forward,
    attention's and LSTM's float rates and a hand-written `bernoulli_` are all the same to it. Enter
    it inside `torch.inference_mode()`: only there do composite operations arrive whole.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._source = source

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        operator = OPERATORS.get(func)
        if operator is not None:
            return operator(self._source, func, *args, **named)
        if _draws_random_numbers(func):
            raise ModelBroken(
                f"the network draws random numbers with {func}, which cannot be made "
                "reproducible; write it with torch.rand, torch.bernoulli or nn.Dropout instead"
            )
        return func(*args, **named)
