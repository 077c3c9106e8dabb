"""The service's own engine, on a network that was just trained."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.inference.outputs import values
from service.inference.prediction import Request, evaluate, predict
from service.inference.sampler import Sampler, build_sampler
from service.settings import load_settings
from service.types import Masks, SamplePlan, Task

Array = NDArray[Any]


class Engine:
    """A network as a server would load it.

    Args:
        network: in eval mode.
        task: what its outputs mean.
        inputs: some rows [B, D...] of the kind that it will see.
        passes: T.
        precision: float32, so that other machines see the same, or bfloat16.
        like: of another network of the same architecture, whose measured times are taken over.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        inputs: Tensor,
        passes: int,
        precision: str = "float32",
        like: Engine | None = None,
    ) -> None:
        settings = load_settings(environment={})
        self._task, self._passes = task, passes
        self._sampler: Sampler = build_sampler(
            network,
            functools.partial(_first_rows, inputs),
            device=torch.device("cpu"),
            memory_bytes=settings.memory_bytes,
            noise_bytes=settings.noise_bytes,
            passes=passes,
            precision=precision,
            to_values=functools.partial(values, task),
            like=None if like is None else like._sampler.tuned_as,
        )

    def sample(
        self, inputs: Tensor, fields: Collection[str], seed: int, passes: int | None = None
    ) -> dict[str, Array]:
        """Fields of T passes, or of so many, with shared masks, as `POST /predict` names them."""
        plan = SamplePlan(passes or self._passes, seed, Masks.SHARED)
        [answer] = predict(self._sampler, self._task, [Request(inputs, plan, fields)])
        return _present(answer or {})

    def deterministic(self, inputs: Tensor) -> dict[str, Array]:
        """Fields of one pass with dropout off, as `POST /eval` names them."""
        return _present(evaluate(self._sampler, self._task, inputs))


def _first_rows(inputs: Tensor, rows: int) -> Tensor:
    """As many as are asked for, from the start again where they run out."""
    return inputs[torch.arange(rows) % len(inputs)]


def _present(fields: dict[str, Array | None]) -> dict[str, Array]:
    return {name: array for name, array in fields.items() if array is not None}
