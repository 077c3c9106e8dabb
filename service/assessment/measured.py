"""What a version says of held-out rows: deterministic pass, mean and measures over passes.

Everything is streamed: rows go through the engine in batches, and single passes are kept of a
seeded random subset only, as large as `KEPT_NUMBERS` allows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.calibration import checks
from service.calibration.checks import FloatArray, IntArray
from service.calibration.scores import confidence
from service.errors import CalibrationFailed, InvalidInput
from service.inference.fields import Fields
from service.inference.outputs import log_variances, values
from service.inference.prediction import Request
from service.registry.loading import LoadedModel
from service.types import Masks, Progress, SamplePlan, Task

ROWS_AT_ONCE = 256
"""Rows of one batch; how many pass through the network at once is for the sampler to say."""

KEPT_NUMBERS = 2**24
"""Numbers of kept passes, T × K × C: 64 MiB as float32."""

MEASURES = (
    "variance",
    "predictive_entropy",
    "expected_entropy",
    "mutual_information",
    "variation_ratio",
)
"""Fields of the engine that are one number a row; a task has some of them."""

MEASURE_TITLES = {
    "variance": "variance",
    "predictive_entropy": "predictive entropy",
    "expected_entropy": "expected entropy",
    "mutual_information": "mutual information",
    "variation_ratio": "variation ratio",
    "deterministic_confidence": "deterministic confidence",
    "std": "standard deviation",
}

FloatPasses = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A version's answers on B rows; probabilities or predicted values are [B, C].

    Args:
        task: of the model.
        rows: B.
        fields: by name [B]: those of `MEASURES` that the task has, and of a task with classes
            `deterministic_confidence`, the largest probability of the deterministic pass.
        mean_BC: over passes; of a binary task [B, 1].
        std_BC: over passes: the epistemic part.
        deterministic_BC: of the pass with dropout off.
        aleatoric_std_BC: of a network that predicts its noise: the root of its mean noise variance
            over passes. None otherwise.
        deterministic_std_BC: the same of the deterministic pass.
        passes_TBC: every pass on the kept rows, [T, K, C].
        kept_rows: [K] ascending, which rows those are.
        passes: T.
        seed: of the masks.
        masks: whether rows shared them.
        precision: of the passes, as PyTorch names it.
    """

    task: Task
    rows: int
    fields: Mapping[str, FloatArray]
    mean_BC: FloatArray
    std_BC: FloatArray
    deterministic_BC: FloatArray
    aleatoric_std_BC: FloatArray | None
    deterministic_std_BC: FloatArray | None
    passes_TBC: FloatPasses
    kept_rows: IntArray
    passes: int
    seed: int
    masks: Masks
    precision: str


@dataclass(frozen=True, slots=True, eq=False)
class Contender:
    """A further version, measured on the same rows to be compared with the report's own.

    Args:
        name: in the report's JSON.
        title: for people.
        measured: on the held-out rows; its kept rows are those of the report's version.
        strangers: on the rows out of distribution; None without any.
    """

    name: str
    title: str
    measured: Measured
    strangers: Measured | None


def nothing(_done: int, _rows: int) -> None:
    """Progress that nobody looks at."""


def measure(
    model: LoadedModel,
    inputs: NDArray[Any],
    *,
    passes: int | None = None,
    kept_numbers: int = KEPT_NUMBERS,
    kept_rows: IntArray | None = None,
    progress: Progress = nothing,
) -> Measured:
    """Run a version over all rows as one long request with its own seed and masks.

    Args:
        model: loaded and verified.
        inputs: [B, D...] as `conform` left them.
        passes: T; the model's own by default.
        kept_numbers: the most numbers of single passes that are kept; of one row at least.
        kept_rows: [K] ascending, of which rows to keep them; None: drawn, as many as that allows.
        progress: called after every batch.

    Raises:
        InvalidInput: fewer than two passes.
        CalibrationFailed: a dense output, or predictions that are not finite.
    """
    if passes is not None and passes < 2:
        raise InvalidInput(
            f"`passes` is {passes}; a spread over passes needs 2 or more",
            field="passes",
            expected="2 or more",
            received=passes,
        )
    plan = model.manifest.plan_for(passes=passes)
    task, rows = model.manifest.task, len(inputs)
    deterministic_BC, deterministic_std_BC = _deterministic(model, inputs)
    width = deterministic_BC.shape[1]
    if kept_rows is None:
        kept_rows = _some_rows(rows, kept_numbers // (plan.passes * width), plan.seed)
    sampled, passes_TBC = _sampled(model, inputs, plan, kept_rows, progress)
    mean_BC = _finite("mean", sampled["mean"])
    aleatoric = sampled.get("aleatoric_std")
    fields = {name: sampled[name] for name in MEASURES if name in sampled}
    if not task.is_regression:
        fields["deterministic_confidence"] = confidence(deterministic_BC, task)
    return Measured(
        task=task,
        rows=rows,
        fields=fields,
        mean_BC=mean_BC,
        std_BC=_outputs_last(sampled["std"]),
        deterministic_BC=deterministic_BC,
        aleatoric_std_BC=None if aleatoric is None else _outputs_last(aleatoric),
        deterministic_std_BC=deterministic_std_BC,
        passes_TBC=passes_TBC,
        kept_rows=kept_rows,
        passes=plan.passes,
        seed=plan.seed,
        masks=plan.masks,
        precision=model.precision,
    )


def _deterministic(
    model: LoadedModel, inputs: NDArray[Any]
) -> tuple[FloatArray, FloatArray | None]:
    """Probabilities or values of the pass with dropout off, and the noise that it predicts.

    Of several members the mean, and the standard deviation of their mixture.
    From the network's raw outputs in float64: a float32 probability of a sure class is one and has
    lost the logits that a temperature scales.
    """
    task = model.manifest.task
    means, noises = [], []
    for place in _batches(len(inputs)):
        outputs = model.sampler.deterministic_members(torch.from_numpy(inputs[place])).double()
        if outputs.dim() > 3:
            raise CalibrationFailed(
                "this model gives one prediction for each place of a row (pixel, token), outputs "
                f"{['B', *outputs.shape[2:]]}; only models with one prediction a row, [B, C], can "
                "be measured",
                field="outputs",
                expected="[B, C]",
                received=list(outputs.shape[1:]),
            )
        values_MBC = values(task, outputs)
        means.append(_array(values_MBC.mean(dim=0)))
        if task is Task.HETEROSCEDASTIC_REGRESSION:
            noise_BC = log_variances(outputs).exp().mean(dim=0)
            noises.append(_array((noise_BC + values_MBC.var(dim=0, correction=0)).sqrt()))
    mean_BC = _finite("deterministic", np.concatenate(means))
    return mean_BC, np.concatenate(noises) if noises else None


def _sampled(
    model: LoadedModel,
    inputs: NDArray[Any],
    plan: SamplePlan,
    kept_rows: IntArray,
    progress: Progress,
) -> tuple[dict[str, FloatArray], FloatPasses]:
    """The engine's fields of every row, and all passes of the kept rows."""
    wanted = ("mean", "std", "aleatoric_std", *MEASURES)
    rows = len(inputs)
    found: dict[str, FloatArray] = {}
    kept: list[FloatPasses] = []
    progress(0, rows)
    for place in _batches(rows):
        here = np.arange(place.start, place.stop)
        inside = np.isin(here, kept_rows)
        # Numbered within the whole, so that masks do not depend on where batches end.
        groups = [(here[inside], (*wanted, "samples")), (here[~inside], wanted)]
        groups = [(numbers, fields) for numbers, fields in groups if len(numbers)]
        answers = model.predict(
            [
                Request(torch.from_numpy(inputs[numbers]), plan, fields, numbers.tolist())
                for numbers, fields in groups
            ]
        )
        for (numbers, _), answer in zip(groups, answers, strict=True):
            assert answer is not None
            _store(found, answer, wanted, numbers, rows)
            if (samples := answer.get("samples")) is not None:
                samples_TKC = samples.reshape(*samples.shape[:2], -1)
                kept.append(samples_TKC.astype(np.float32))
        progress(place.stop, rows)
    return found, np.concatenate(kept, axis=1)


def _store(
    found: dict[str, FloatArray], answer: Fields, names: Sequence[str], numbers: IntArray, rows: int
) -> None:
    for name in names:
        array = answer.get(name)
        if array is not None:
            if name not in found:
                found[name] = np.zeros((rows, *array.shape[1:]))
            found[name][numbers] = array


def _some_rows(rows: int, most: int, seed: int) -> IntArray:
    """At most so many rows, one at least, drawn without replacement; ascending."""
    generator = np.random.default_rng(abs(seed))
    chosen = generator.choice(rows, size=max(1, min(rows, most)), replace=False)
    return np.sort(chosen).astype(np.int64)


def _batches(rows: int) -> Iterator[slice]:
    for start in range(0, rows, ROWS_AT_ONCE):
        yield slice(start, min(start + ROWS_AT_ONCE, rows))


def _finite(field: str, array: FloatArray) -> FloatArray:
    return checks.finite(field, _outputs_last(array), "BC")


def _outputs_last(array: FloatArray) -> FloatArray:
    """[B] or [B, C] → [B, C]."""
    return array.reshape(len(array), -1)


def _array(tensor: Tensor) -> FloatArray:
    array: FloatArray = tensor.detach().cpu().numpy()
    return array
