"""What `candor calibrate` learns from a version's answers on held-out data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata

import numpy as np

from service import __version__
from service.assessment.data import Inputs, Labelled
from service.assessment.measured import Measured, measure, nothing
from service.calibration import conformal, drift, scores, temperature
from service.calibration.apply import exclusive, predictive_std, uniforms, with_noise
from service.calibration.artifact import Calibration, DataUsed
from service.calibration.checks import FloatArray, IntArray
from service.calibration.conformal import ConformalClassifier, ConformalRegressor
from service.calibration.detection import Recommendation, recommend
from service.calibration.noise import NoiseVariance, fit_noise_variance
from service.calibration.thresholds import fit_threshold
from service.errors import CalibrationFailed, TooFewRows
from service.registry.loading import LoadedModel
from service.types import Progress, Task

_LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn")

_SET_ASIDE = 1 / 3
"""Share of the rows on which a noise variance or a combination of scores is fitted, where there is
one: what is promised of the threshold and the intervals holds for rows that did not shape them."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a calibration should promise.

    Args:
        false_positive_rate: share of in-distribution rows that may be flagged.
        coverage: share of prediction sets or intervals that should hold the truth.
        score: that flags; see `calibration.scores`.
        method: of prediction sets, `lac` or `aps`.
        randomised: have `aps` draw, for sets no larger than needed.
        per_class: have the coverage in every class.
        seed: of how rows are split.
    """

    false_positive_rate: float = 0.05
    coverage: float = 0.9
    score: str = "variance"
    method: str = "lac"
    randomised: bool = False
    per_class: bool = False
    seed: int = 0


def calibrate(
    model: LoadedModel,
    labelled: Labelled,
    wanted: Wanted,
    out_of_distribution: Inputs | None = None,
    *,
    progress: Progress = nothing,
) -> Calibration:
    """Run a version over held-out rows, and fit all that it promises.

    Args:
        model: loaded and verified.
        labelled: rows that it was not trained on, drawn as those that it will meet.
        wanted: see there.
        out_of_distribution: rows that should be flagged, to compare scores on; no threshold and no
            score is chosen by them.
        progress: called with the rows that are done and those that there are.

    Raises:
        CalibrationFailed: data or settings from which nothing can be calibrated.
        TooFewRows: fewer rows than the rate or the coverage takes.
    """
    scores.parts_of(wanted.score)
    measured = measure(model, labelled.inputs, progress=progress)
    aside, own = _split(measured, wanted)
    try:
        noise = _noise(measured, labelled.targets, aside)
        fields = _fields(measured, noise)
        reference = aside if len(aside) else own
        score = scores.fit_score(wanted.score, _rows(fields, reference))
        threshold = fit_threshold(
            scores.score_values(score, _rows(fields, own)),
            wanted.false_positive_rate,
            field=wanted.score,
        )
        classifier = _classifier(measured, labelled, own, wanted)
        regressor = _regressor(measured, labelled, own, noise, wanted)
    except TooFewRows as error:
        if not len(aside):
            raise
        raise TooFewRows(
            f"{error.message}, as a third of the {measured.rows} is set aside to fit "
            f"{'the noise' if model.manifest.task.is_regression else 'the combination of scores'}",
            field=error.field,
            expected=error.expected,
            received=error.received,
        ) from None
    far = None
    if out_of_distribution is not None:
        far = _fields(measure(model, out_of_distribution.inputs, progress=progress), noise)
    return Calibration(
        model=model.ref.name,
        version=model.ref.version,
        task=measured.task,
        created=datetime.now(UTC),
        libraries={"candor": __version__, **{n: metadata.version(n) for n in _LIBRARIES}},
        data=_used(labelled),
        out_of_distribution_data=_used(out_of_distribution) if out_of_distribution else None,
        conditions=model.conditions,
        seed=wanted.seed,
        score=score,
        threshold=threshold,
        temperature=_temperature(measured, labelled),
        conformal_classifier=classifier,
        conformal_regressor=regressor,
        noise=noise,
        references={
            name: drift.fit_reference(values_B)
            for name, values_B in fields.items()
            if name != "deterministic_confidence"
        },
        recommendation=_recommendation(fields, far, reference, wanted) if far else None,
    )


def _split(measured: Measured, wanted: Wanted) -> tuple[IntArray, IntArray]:
    """Rows that are set aside, where something has to be fitted on them, and the others."""
    every = np.arange(measured.rows)
    combined = len(scores.parts_of(wanted.score)) > 1
    if not combined and measured.task is not Task.REGRESSION:
        return every[:0], every
    drawn = np.random.default_rng(wanted.seed).permutation(measured.kept_rows)
    aside = np.sort(drawn[: max(1, int(len(every) * _SET_ASIDE))])
    return aside, np.setdiff1d(every, aside)


def _noise(measured: Measured, targets_BC: FloatArray, aside: IntArray) -> NoiseVariance | None:
    if measured.task is not Task.REGRESSION:
        return None
    kept = np.searchsorted(measured.kept_rows, aside)
    passes_TBC = measured.passes_TBC[:, kept].astype(np.float64)
    noise = fit_noise_variance(passes_TBC, targets_BC[aside])
    if min(noise.variance) <= 0:
        raise CalibrationFailed(
            "the passes meet every target exactly: there is no noise to fit. Are these the rows "
            "that the network was trained on?",
            field="y",
        )
    return noise


def _fields(measured: Measured, noise: NoiseVariance | None) -> dict[str, FloatArray]:
    """The measures as a calibrated version answers them, [B] each."""
    fields = dict(measured.fields)
    if noise is not None:
        changed = with_noise({"epistemic_std": measured.std_BC}, np.asarray(noise.variance))
        fields |= {name: array for name, array in changed.items() if array.ndim == 1}
        # The same in every row: there is nothing to tell rows apart by.
        fields.pop("expected_entropy")
    return fields


def _rows(fields: Mapping[str, FloatArray], rows: IntArray) -> dict[str, FloatArray]:
    return {name: values_B[rows] for name, values_B in fields.items()}


def _temperature(measured: Measured, labelled: Labelled) -> temperature.Temperature | None:
    if measured.task.is_regression:
        return None
    logits_BC = temperature.logits_of(measured.mean_BC, measured.task)
    return temperature.fit(logits_BC, labelled.targets, measured.task)


def _classifier(
    measured: Measured, labelled: Labelled, rows: IntArray, wanted: Wanted
) -> ConformalClassifier | None:
    if measured.task not in (Task.CLASSIFICATION, Task.BINARY):
        return None
    targets = labelled.targets[rows]
    return conformal.fit_classifier(
        exclusive(measured.mean_BC, measured.task)[rows],
        targets[:, 0] if measured.task is Task.BINARY else targets,
        wanted.coverage,
        method=wanted.method,
        uniforms_B=uniforms(labelled.inputs[rows], wanted.seed) if wanted.randomised else None,
        per_class=wanted.per_class,
    )


def _regressor(
    measured: Measured,
    labelled: Labelled,
    rows: IntArray,
    noise: NoiseVariance | None,
    wanted: Wanted,
) -> ConformalRegressor | None:
    if not measured.task.is_regression:
        return None
    aleatoric_BC = measured.aleatoric_std_BC
    if noise is not None:
        aleatoric_BC = np.broadcast_to(noise.aleatoric_std, measured.mean_BC.shape)
    std_BC = predictive_std({"epistemic_std": measured.std_BC, "aleatoric_std": aleatoric_BC})
    return conformal.fit_regressor(
        measured.mean_BC[rows], std_BC[rows], labelled.targets[rows], wanted.coverage
    )


def _recommendation(
    fields: Mapping[str, FloatArray],
    far: Mapping[str, FloatArray],
    reference: IntArray,
    wanted: Wanted,
) -> Recommendation:
    names = [*dict.fromkeys((wanted.score, *scores.available(fields)))]
    fitted = [scores.fit_score(name, _rows(fields, reference)) for name in names]
    return recommend(
        {score.name: scores.score_values(score, fields) for score in fitted},
        {score.name: scores.score_values(score, far) for score in fitted},
        wanted.seed,
    )


def _used(data: Inputs) -> DataUsed:
    return DataUsed(data.path.rsplit("/", 1)[-1], data.sha256, len(data.inputs))


def in_words(calibration: Calibration) -> list[str]:
    """What a calibration promises, a sentence a line."""
    threshold = calibration.threshold
    low, high = threshold.interval
    lines = [
        f"Rows whose {calibration.score.name} is above {threshold.value:.4g} are flagged: "
        f"{threshold.false_positive_rate:.3g} of rows like these were asked for; from "
        f"{threshold.rows} rows the true share lies between {low:.3g} and {high:.3g} (95 %)."
    ]
    fitted = calibration.temperature
    if fitted is not None:
        lines.append(
            f"Temperature of the mean: {fitted.value:.3g} ({fitted.outcome}); log-likelihood "
            f"{fitted.log_likelihood_before:.4g} before, {fitted.log_likelihood_after:.4g} after."
        )
    if calibration.noise is not None:
        noise = ", ".join(f"{value:.4g}" for value in calibration.noise.aleatoric_std)
        lines.append(f"Standard deviation of the noise: {noise}, in the target's units.")
    sets = calibration.conformal_classifier or calibration.conformal_regressor
    if sets is None:
        lines.append(f"No prediction sets: a {calibration.task} task has none here.")
    else:
        what = "sets" if calibration.conformal_classifier else "intervals"
        spans = ", ".join(f"{low:.3g} to {high:.3g}" for low, high in sets.intervals)
        lines.append(
            f"Prediction {what} hold the truth at {sets.coverage:.3g} or more on average over "
            f"calibrations; that of this one lies within {spans} (95 %)."
        )
    if calibration.recommendation is not None:
        lines += _scores_in_words(calibration)
    return lines


def _scores_in_words(calibration: Calibration) -> list[str]:
    found = calibration.recommendation
    assert found is not None
    width = max(map(len, found.reported))
    lines = [f"{'score':{width}}  AUROC (95 %)           AUPR   FPR at 95 % TPR"]
    for name, each in found.reported.items():
        low, high = each.auroc_interval
        lines.append(
            f"{name:{width}}  {each.auroc:.3f} ({low:.3f} to {high:.3f})  {each.aupr_out:.3f}  "
            f"{each.fpr95:.3f}"
        )
    lines.append(
        f"Recommended: {found.name}, chosen on one half of the rows; the figures are those of the "
        f"other. Flags are by {calibration.score.name}; --score changes that."
    )
    return lines
