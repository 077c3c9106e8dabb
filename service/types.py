"""The values that every room shares, and the axes, said once.

Axes, carried in tensor names: T passes, B rows, C classes or outputs; order [T, B, C], passes
first, so that chunks append and measures reduce `dim=0`. Places of a dense output (pixels, tokens)
come after C where networks and answers hold them, [B, C, D...], and before it where they are
reduced, [T, B, D..., C]. Entropies are in nats. Times end in `_s`
(seconds), sizes in `_rows` or `_bytes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

Progress = Callable[[int, int], None]
"""Called with the rows that are done and the rows that there are."""


class Task(StrEnum):
    """What a model's outputs mean.

    classification: logits [B, C] over C exclusive classes.
    binary: one logit [B] or [B, 1], of the second label.
    multilabel: C independent logits [B, C].
    regression: C outputs [B, C], in the target's units.
    heteroscedastic_regression: [B, 2 C], C means, then the logarithms of C noise variances.

    Dense outputs, one prediction for each pixel or token, have their places after the outputs:
    [B, C, D...].
    """

    CLASSIFICATION = "classification"
    BINARY = "binary"
    MULTILABEL = "multilabel"
    REGRESSION = "regression"
    HETEROSCEDASTIC_REGRESSION = "heteroscedastic_regression"

    @property
    def is_regression(self) -> bool:
        return self in (Task.REGRESSION, Task.HETEROSCEDASTIC_REGRESSION)


class Masks(StrEnum):
    """`shared`: one thinned network a pass, for all rows. `independent`: one for each row."""

    SHARED = "shared"
    INDEPENDENT = "independent"


LABEL_PATTERN = r"^[a-z][a-z0-9_-]{0,31}$"
"""Of a version's label, such as `stable`: never what could be a number."""


class Priority(IntEnum):
    """Which requests go first; the smaller, the sooner."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


DEFAULT_MAX_PASSES = 1000
"""The most passes of a row under a tolerance, where a request does not say."""


@dataclass(frozen=True, slots=True, order=True)
class ModelRef:
    """One version of one model."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """All that decides a prediction beside the model version and the input.

    Args:
        passes: stochastic forward passes T, at least 2; under a tolerance the most of a row.
        seed: any integer that fits 64 signed bits.
        masks: whether the rows of a pass share one thinned network.
        tolerance: a row stops once the standard error of each of its means is surely at most this
            (`inference/stopping.py`); None: all rows run all passes.
    """

    passes: int
    seed: int
    masks: Masks
    tolerance: float | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """A place in the network that drops something.

    Args:
        path: of the module that owns it, as in `named_modules()`, numbered where it has several.
        kind: the operation, as PyTorch names it (`dropout`, `feature_dropout`, `lstm`, …).
        rate: the probability of dropping; None where the operation has no one rate.
        inert: whether it was seen never to change the output.
        mask: shape of what it draws, −1 where its rows are.
    """

    path: str
    kind: str
    rate: float | None
    inert: bool
    mask: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a work comes from, for logs and traces.

    Args:
        request_id: of the HTTP request.
        traceparent: its span, as W3C's Trace Context writes it; None where it is not traced.
    """

    request_id: str = ""
    traceparent: str | None = None


UNKNOWN = Origin()
