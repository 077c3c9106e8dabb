"""What matrix products alone would cost: how many a function needs, and how fast the machine is."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


def _last_two(first: Tensor, second: Tensor) -> int:
    """Multiply-adds of [.., n, k] @ [.., k, m]."""
    batch = max(prod(first.shape[:-2]), prod(second.shape[:-2]))
    return batch * first.shape[-2] * first.shape[-1] * second.shape[-1]


def _linear(tensor: Tensor, weight: Tensor, *_: Any) -> int:
    return tensor.numel() * weight.shape[0]


def _convolution(_tensor: Tensor, weight: Tensor, *_: Any, result: Tensor) -> int:
    return result.numel() * weight[0].numel()


def _recurrent(data: Tensor, _state: Any, weights: list[Tensor], *_: Any) -> int:
    steps = prod(data.shape[:2])
    return steps * sum(weight.numel() for weight in weights if weight.dim() == 2)


_COUNTS: dict[Any, Callable[..., int]] = {
    aten.linear.default: _linear,
    aten.mm.default: _last_two,
    aten.bmm.default: _last_two,
    aten.matmul.default: _last_two,
    aten.addmm.default: lambda _, first, second, **__: _last_two(first, second),
    aten.baddbmm.default: lambda _, first, second, **__: _last_two(first, second),
    aten.lstm.input: _recurrent,
}
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    _COUNTS[torch.ops.mkldnn._linear_pointwise.default] = _linear
_CONVOLUTIONS = {aten.conv1d.default, aten.conv2d.default, aten.conv3d.default}


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_adds = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _CONVOLUTIONS:
            self.multiply_adds += _convolution(*args, result=result)
        elif func in _COUNTS:
            self.multiply_adds += _COUNTS[func](*args, **(kwargs or {}))
        return result


def multiply_adds(function: Callable[[], object]) -> int:
    """How many multiplications the matrix products of `function` have, convolutions included."""
    with torch.inference_mode(), _Counting() as counting:
        function()
    count: int = counting.multiply_adds
    return count


@functools.cache
def rate(dtype: torch.dtype, device: torch.device, size: int = 2048) -> float:
    """Multiply-adds a second of one large square product there, the best of several."""
    first, second = (torch.randn(size, size).to(device, dtype) for _ in range(2))
    best = float("inf")
    for _ in range(12):
        started = time.perf_counter()
        torch.mm(first, second)
        finish()
        best = min(best, time.perf_counter() - started)
    return size**3 / best


def finish() -> None:
    """Wait for a GPU, which works on after its functions return."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
