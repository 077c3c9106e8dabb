"""Whether a forward pass looks at values, of its input or of its noise, to decide what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

_TO_PYTHON = (
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.item.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.allclose.default,
)
"""Operations through which a number leaves the tensors: `if x.sum() > 0`, `int(x.max())`."""

_PAST_THE_DISPATCHER = (Tensor.tolist, Tensor.numpy, Tensor.__array__)
"""Methods that read memory without an operation."""


Mark = Callable[[Tensor], None]


class _Descendants(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._descendants = WeakIdKeyDictionary()
        self.seen = False

    def mark(self, tensor: Tensor) -> None:
        """Follow what is computed from a tensor."""
        self._descendants[tensor] = True

    def look(self, tensor: Tensor) -> None:
        """Note that a tensor's values were read."""
        self.seen |= tensor in self._descendants

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        tensors = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        descends = any(tensor in self._descendants for tensor in tensors)
        self.seen |= descends and func in _TO_PYTHON
        result = func(*args, **(kwargs or {}))
        if descends:
            for tensor in tree_leaves(result):
                if isinstance(tensor, Tensor):
                    self._descendants[tensor] = True
        return result


class _Reads(TorchFunctionMode):
    def __init__(self, descendants: _Descendants) -> None:
        super().__init__()
        self._descendants = descendants

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _PAST_THE_DISPATCHER:
            self._descendants.look(args[0])
        return func(*args, **(kwargs or {}))


def looks_at_values(function: Callable[[Mark], object]) -> bool:
    """Whether `function` turns anything computed from the tensors it marks into a Python number.

    What it then does may differ from row to row (its input) or from pass to pass (its noise).
    """
    descendants = _Descendants()
    with descendants, _Reads(descendants):
        function(descendants.mark)
    return descendants.seen
