"""A report's numbers: everything that the page shows, as a tree that can be written as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from service import __version__
from service.assessment.data import Inputs, Labelled
from service.assessment.examples import Examples, examples
from service.assessment.measured import MEASURE_TITLES, Contender, Measured
from service.assessment.methods import (
    DETERMINISTIC,
    ClassMethod,
    class_errors,
    class_methods,
    class_truth,
    exclusive,
    exclusive_task,
)
from service.assessment.ranking import (
    Histogram,
    OutOfDistribution,
    Ranking,
    histogram,
    out_of_distribution,
    ranking,
)
from service.assessment.regression_methods import (
    RegressionMethod,
    regression_methods,
    squared_errors,
)
from service.assessment.settling import Settling, settling
from service.calibration.checks import FloatArray, IntArray
from service.calibration.scores import confidence
from service.errors import CalibrationFailed, TooFewRows
from service.registry.manifest import Manifest
from service.types import ModelRef, Task

FORMAT = 1
"""Of the JSON; it changes when a name or meaning in it does."""

FEWEST_ROWS = 20
"""Below, the halves that temperatures are fitted on have fewer than ten rows."""

SEED = 0
"""Of the halves, draws and bootstraps, so that a report repeats."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file that rows came from."""

    path: str
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class Compared:
    """A further version that the report's is compared with.

    Args:
        name: under which its numbers stand beside the others.
        title: for people.
        passes: T.
        precision: of the passes.
    """

    name: str
    title: str
    passes: int
    precision: str


@dataclass(frozen=True, slots=True)
class Fit:
    """A regression over a single input, for its figure: rows by rising input.

    Args:
        x: the input [B].
        truth: the target.
        deterministic: of the pass with dropout off.
        mean: over passes.
        std: over passes: the epistemic part.
    """

    x: tuple[float, ...]
    truth: tuple[float, ...]
    deterministic: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured of one version.

    Args:
        model: its name.
        version: its version.
        description: of the model, by its maker.
        task: of the model.
        labels: names of its classes.
        data: the held-out rows.
        strangers: the rows out of distribution; None without any.
        contenders: further versions that it is compared with.
        passes: T.
        seed: of the masks.
        masks: whether rows shared them.
        precision: of the passes.
        temperature_given: a fitted temperature that the report was given, by the calibration of
            the version; None: every temperature is cross-fitted.
        class_methods: of a task with classes, with and without a temperature.
        regression_methods: of a regression.
        rankings: deferral in the order of every score, the deterministic one first.
        headline: name of the ranking that sentences speak of, the same for every model of a task.
        histograms: of every measure.
        detection: scores against the strangers; None without any.
        settling: estimates against the number of passes.
        examples: the rows at both ends.
        fit: of a regression with one input and one output; None otherwise.
        format: of this tree.
        candor: version of the program.
        weights: digest of the version's weights and network; None where nobody said.
        created: when it was made; None where nobody said.
    """

    model: str
    version: int
    description: str
    task: Task
    labels: tuple[str, ...] | None
    data: Source
    strangers: Source | None
    contenders: tuple[Compared, ...]
    passes: int
    seed: int
    masks: str
    precision: str
    temperature_given: float | None
    class_methods: tuple[ClassMethod, ...]
    regression_methods: tuple[RegressionMethod, ...]
    rankings: tuple[Ranking, ...]
    headline: str
    histograms: tuple[Histogram, ...]
    detection: OutOfDistribution | None
    settling: Settling
    examples: Examples
    fit: Fit | None
    format: int = field(default=FORMAT)
    candor: str = field(default=__version__)
    weights: str | None = None
    created: datetime | None = None


def make_report(
    ref: ModelRef,
    manifest: Manifest,
    labelled: Labelled,
    measured: Measured,
    strangers: tuple[Inputs, Measured] | None = None,
    *,
    temperature: float | None = None,
    noise_variance: Sequence[float] | None = None,
    contenders: Sequence[Contender] = (),
    weights: str | None = None,
    created: datetime | None = None,
) -> Report:
    """Work out everything that the page shows.

    Args:
        ref: the version.
        manifest: of its model.
        labelled: held-out rows.
        measured: the version on them.
        strangers: rows out of distribution, and the version on them.
        temperature: of the mean over passes, fitted on other rows; None: cross-fitted.
        noise_variance: of each output of a regression, fitted on other rows; None: cross-fitted,
            or what the network predicts.
        contenders: further versions, measured on the same rows.
        weights: digest of what the version was loaded from.
        created: when this is.

    Raises:
        TooFewRows: fewer than `FEWEST_ROWS`.
        CalibrationFailed: targets that do not fit the model's outputs.
    """
    targets = labelled.targets
    _check(measured, targets)
    task = measured.task
    headline = "variance" if task is Task.REGRESSION else "predictive_entropy"
    return Report(
        model=ref.name,
        version=ref.version,
        description=manifest.description,
        task=task,
        labels=manifest.labels,
        data=Source(labelled.path, labelled.sha256, measured.rows),
        strangers=_source(strangers),
        contenders=tuple(
            Compared(each.name, each.title, each.measured.passes, each.measured.precision)
            for each in contenders
        ),
        passes=measured.passes,
        seed=measured.seed,
        masks=measured.masks.value,
        precision=measured.precision,
        temperature_given=temperature,
        class_methods=()
        if task.is_regression
        else class_methods(
            measured, targets, given_temperature=temperature, contenders=contenders, seed=SEED
        ),
        regression_methods=regression_methods(
            measured, targets, given_noise=noise_variance, contenders=contenders, seed=SEED
        )
        if task.is_regression
        else (),
        rankings=_rankings(measured, targets, contenders, headline),
        headline=headline,
        histograms=_histograms(measured, None if strangers is None else strangers[1]),
        detection=None
        if strangers is None
        else out_of_distribution(measured, strangers[1], contenders, headline, SEED),
        settling=settling(measured, targets, SEED),
        examples=examples(measured, labelled.inputs, targets, manifest.labels, headline),
        fit=_fit(labelled, measured),
        weights=weights,
        created=created,
    )


def _check(measured: Measured, targets: FloatArray | IntArray) -> None:
    if measured.rows < FEWEST_ROWS:
        raise TooFewRows(
            f"a report needs at least {FEWEST_ROWS} rows; `x` has {measured.rows}",
            field="x",
            expected=FEWEST_ROWS,
            received=measured.rows,
        )
    outputs = measured.mean_BC.shape[1]
    if measured.task is Task.CLASSIFICATION:
        largest = int(targets.max())
        if largest >= outputs:
            raise CalibrationFailed(
                f"`y` has the class {largest}; the model knows {outputs}, 0 to {outputs - 1}",
                field="y",
                expected=outputs,
                received=largest,
            )
    elif targets.shape[1] != outputs:
        raise CalibrationFailed(
            f"`y` has {targets.shape[1]} values a row; the model has {outputs} outputs",
            field="y",
            expected=outputs,
            received=targets.shape[1],
        )


def _source(strangers: tuple[Inputs, Measured] | None) -> Source | None:
    if strangers is None:
        return None
    inputs, measured = strangers
    return Source(inputs.path, inputs.sha256, measured.rows)


def _rankings(
    measured: Measured,
    targets: FloatArray | IntArray,
    contenders: Sequence[Contender],
    headline: str,
) -> tuple[Ranking, ...]:
    """Deferral by every score: each by the errors of the prediction that it comes with."""
    if measured.task.is_regression:
        return _regression_rankings(measured, targets, contenders, headline)
    task, truth = exclusive_task(measured.task), class_truth(measured, targets)

    def errors(probs_BC: FloatArray) -> FloatArray:
        return class_errors(exclusive(probs_BC, measured.task), truth, task)

    plain_BC = measured.deterministic_BC
    found = [
        ranking(
            DETERMINISTIC,
            "Deterministic confidence",
            1 - confidence(plain_BC, measured.task),
            errors(plain_BC),
        )
    ]
    wrong_B = errors(measured.mean_BC)
    found += [
        ranking(name, f"MC dropout: {MEASURE_TITLES[name]}", measured.fields[name], wrong_B)
        for name in measured.fields
        if name != "deterministic_confidence"
    ]
    found += [
        ranking(
            each.name,
            f"{each.title}: {MEASURE_TITLES[headline]}",
            each.measured.fields[headline],
            errors(each.measured.mean_BC),
        )
        for each in contenders
    ]
    return tuple(found)


def _regression_rankings(
    measured: Measured,
    targets_BC: FloatArray | IntArray,
    contenders: Sequence[Contender],
    headline: str,
) -> tuple[Ranking, ...]:
    found = []
    if measured.deterministic_std_BC is not None:
        plain_B = squared_errors(measured.deterministic_BC, targets_BC)
        noise_B = np.log(measured.deterministic_std_BC).sum(axis=1)
        found.append(ranking(DETERMINISTIC, "Deterministic: predicted noise", noise_B, plain_B))
    squared_B = squared_errors(measured.mean_BC, targets_BC)
    for name in _shown_measures(measured):
        title = f"MC dropout: {MEASURE_TITLES[name]}"
        found.append(ranking(name, title, measured.fields[name], squared_B))
    for each in contenders:
        error_B = squared_errors(each.measured.mean_BC, targets_BC)
        title = f"{each.title}: {MEASURE_TITLES[headline]}"
        found.append(ranking(each.name, title, each.measured.fields[headline], error_B))
    return tuple(found)


def _shown_measures(measured: Measured) -> tuple[str, ...]:
    """Without predicted noise the entropy of a regression is the logarithm of its variance."""
    if measured.task is Task.REGRESSION:
        return ("variance",)
    return tuple(measured.fields)


def _histograms(inside: Measured, outside: Measured | None) -> tuple[Histogram, ...]:
    return tuple(
        histogram(name, inside.fields[name], None if outside is None else outside.fields[name])
        for name in _shown_measures(inside)
    )


def _fit(labelled: Labelled, measured: Measured) -> Fit | None:
    inputs = labelled.inputs.reshape(len(labelled.inputs), -1)
    one = measured.task.is_regression and inputs.shape[1] == measured.mean_BC.shape[1] == 1
    if not one:
        return None
    order_B = np.argsort(inputs[:, 0], kind="stable")

    def column(array: FloatArray) -> tuple[float, ...]:
        return tuple(array[order_B, 0].tolist())

    return Fit(
        x=tuple(inputs[order_B, 0].astype(np.float64).tolist()),
        truth=column(labelled.targets),
        deterministic=column(measured.deterministic_BC),
        mean=column(measured.mean_BC),
        std=column(measured.std_BC),
    )
