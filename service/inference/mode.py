"""Runs a module as it is, with every random operation in it taken over."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from service.errors import ModelBroken
from service.inference.operators import OPERATORS, Source


@functools.lru_cache(maxsize=4096)
def _is_random(function: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in function.tags


def _draws_random_numbers(function: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> bool:
    if not _is_random(function):
        return False
    for index, argument in enumerate(function._schema.arguments):
        if argument.name in ("training", "train"):
            positional = arguments[index] if index < len(arguments) else argument.default_value
            return bool(named.get(argument.name, positional))
    return True


class SamplingMode(TorchDispatchMode):
    """While it is entered, random operations take their numbers from `source`.

    It sees operations below every Python API, so `nn.Dropout`, `F.dropout` in somebody's forward,
    attention's and LSTM's float rates and a hand-written `bernoulli_` are all the same to it. Enter
    it inside `torch.inference_mode()`: only there do composite operations arrive whole.

    Args:
        source: of the numbers.
        unknown: told of random operations that cannot be taken over, which then run as they are;
            without it they are an error.
    """

    def __init__(self, source: Source, unknown: Callable[[str], None] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._source = source
        self._unknown = unknown

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
        if _draws_random_numbers(func, args, named):
            if self._unknown is not None:
                self._unknown(str(func))
                return func(*args, **named)
            raise ModelBroken(
                f"the network draws random numbers with {func}, which cannot be made "
                "reproducible; write it with torch.rand, torch.bernoulli or nn.Dropout instead"
            )
        return func(*args, **named)
