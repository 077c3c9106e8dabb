"""What the numbers mean, in plain sentences for the data at hand.

They say what was seen and no more: a difference that the rows cannot tell from chance is called
none, and where MC dropout loses they say that it does.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.assessment.measured import MEASURE_TITLES
from service.assessment.methods import (
    DETERMINISTIC,
    MC_DROPOUT,
    WITH_TEMPERATURE,
    ClassMethod,
)
from service.assessment.ranking import OutOfDistribution, Ranking
from service.assessment.regression_methods import SPREAD_ALONE, RegressionMethod
from service.assessment.report import Report
from service.assessment.settling import WITHIN, Settling
from service.calibration.reliability import Bins

Sentences = tuple[str, ...]

_USEFUL = 0.7
"""An AUROC below is not called telling apart (acceptable discrimination begins there: Hosmer and
Lemeshow, "Applied logistic regression", section 5.2)."""

QUALITY_TITLES = {
    "log_likelihood": "log-likelihood",
    "root_mean_squared_error": "root mean squared error",
}

_CLOSE = 0.05
"""How far a coverage may be from its level and be called right."""


def verdict(report: Report) -> Sentences:
    """Whether MC dropout earns its price, first of all."""
    found = list(_class_verdict(report) if report.class_methods else _regression_verdict(report))
    found += contenders(report)
    found.append(deferral(report)[0])
    if report.detection is not None:
        found.append(detection(report.detection)[0])
    found.append(settling(report.settling, report.passes)[0])
    return tuple(found)


def _class_verdict(report: Report) -> Sentences:
    by_name = {method.name: method for method in report.class_methods}
    plain, mc = by_name[DETERMINISTIC], by_name[MC_DROPOUT]
    rows = report.data.rows
    low, high = mc.gain.interval
    interval = f"95 % interval {low:+.4f} to {high:+.4f}"
    if not mc.gain.told_apart:
        likelihood = (
            f"On these {rows} rows MC dropout's probabilities are no better and no worse than "
            "those of the deterministic softmax, as far as the rows can tell: "
            f"{mc.gain.mean:+.4f} nats of log-likelihood a row ({interval})."
        )
    else:
        word = "better" if mc.gain.mean > 0 else "worse"
        likelihood = (
            f"On these {rows} rows MC dropout's probabilities are {word} than those of the "
            f"deterministic softmax: {mc.gain.mean:+.4f} nats of log-likelihood a row ({interval})."
        )
    scaled = by_name[f"{DETERMINISTIC}{WITH_TEMPERATURE}"]
    gap = mc.log_likelihood - scaled.log_likelihood
    against = "more" if gap >= 0 else "less"
    cheap = (
        f"A temperature alone, one pass instead of {report.passes}, brings the deterministic "
        f"softmax to {scaled.log_likelihood:.4f} nats a row from {plain.log_likelihood:.4f}; "
        f"MC dropout has {abs(gap):.4f} {against}, at {mc.log_likelihood:.4f}."
    )
    return likelihood, cheap


def _regression_verdict(report: Report) -> Sentences:
    by_name = {method.name: method for method in report.regression_methods}
    plain, mc = by_name[DETERMINISTIC], by_name[MC_DROPOUT]
    assert mc.gain is not None
    low, high = mc.gain.interval
    word = "better" if mc.gain.mean > 0 else "worse"
    judged = f"is {word} than" if mc.gain.told_apart else "cannot be told apart from"
    noise = "that the network predicts" if mc.noise_std is None else "of one size"
    return (
        f"On these {mc.rows} rows MC dropout's predictive distribution {judged} that of the "
        f"deterministic prediction with a noise {noise}: {mc.gain.mean:+.3f} nats of "
        f"log-likelihood a row (95 % interval {low:+.3f} to {high:+.3f}).",
        f"Root mean squared error: {_numbers(mc.root_mean_squared_error)} with MC dropout, "
        f"{_numbers(plain.root_mean_squared_error)} without.",
    )


def contenders(report: Report) -> Sentences:
    """How each further version compares with MC dropout of this one."""
    names = {each.name for each in report.contenders}
    areas = {ranking.name: ranking.area for ranking in report.rankings}
    found = []
    every: tuple[ClassMethod | RegressionMethod, ...] = (
        *report.class_methods,
        *report.regression_methods,
    )
    for method in every:
        if method.name not in names or method.over_mc_dropout is None:
            continue
        gap = method.over_mc_dropout
        low, high = gap.interval
        word = "better" if gap.mean > 0 else "worse"
        judged = f"is {word} than" if gap.told_apart else "cannot be told apart from"
        found.append(
            f"{method.title} {judged} MC dropout of version {report.version} in log-likelihood: "
            f"{gap.mean:+.4f} nats a row (95 % interval {low:+.4f} to {high:+.4f}); its area under "
            f"the risk–coverage curve is {areas[method.name]:.2g} against "
            f"{areas[report.headline]:.2g} (smaller is better)."
        )
    return tuple(found)


def methods(report: Report) -> Sentences:
    """How the temperatures or the noise came about, and what intervals miss."""
    if report.class_methods:
        return (_temperatures(report.class_methods), _calibrated(report.class_methods))
    by_name = {method.name: method for method in report.regression_methods}
    alone, mc = by_name[SPREAD_ALONE], by_name[MC_DROPOUT]
    widest, whole = alone.coverage[-1], mc.coverage[-1]
    fitted = (
        "The network predicts its noise for each row."
        if mc.noise_std is None
        else "The noise has one size for all rows; it was fitted on one random half of the data "
        "and judged on the other, and the other way round, unless the report was given one."
    )
    return (
        fitted,
        f"The spread of the passes is the model's own doubt and no prediction interval: read as "
        f"one, its {_percent(widest.level)} intervals hold {_percent(widest.observed)} of the true "
        f"values; with the noise added, {_percent(whole.observed)}.",
        f"MC dropout's intervals are {_width(mc)}.",
    )


def _width(method: RegressionMethod) -> str:
    """What the half of the targets that should be inside says."""
    half = method.coverage[0]
    if abs(half.observed - half.level) <= _CLOSE:
        return f"about right: half of them should hold, and {_percent(half.observed)} do"
    word = "too wide" if half.observed > half.level else "too narrow"
    return (
        f"{word} here: those that should hold {_percent(half.level)} of the true values hold "
        f"{_percent(half.observed)}"
    )


def _temperatures(found: Sequence[ClassMethod]) -> str:
    shown = "; ".join(
        f"{method.title} {' and '.join(f'{value:.2f}' for value in method.temperatures)}"
        for method in found
        if method.temperatures
    )
    return (
        "Temperatures are fitted on one random half of the data and judged on the other, and the "
        "other way round, so that none is judged on rows it was fitted on; a single number was "
        f"given from elsewhere. Above 1 the method was too sure, below it too unsure: {shown}."
    )


def _calibrated(found: Sequence[ClassMethod]) -> str:
    errors = {method.title: method.calibration[Bins.EQUAL_MASS].debiased for method in found}
    best = min(errors, key=lambda title: errors[title])
    by_title = {method.title: method for method in found}
    gap = "no more than chance" if errors[best] == 0 else _percent(errors[best])
    return (
        f"{best} is the best calibrated here: confidence and accuracy differ by {gap} on "
        "average (expected calibration error over "
        f"{by_title[best].calibration[Bins.EQUAL_MASS].bins} bins of equal mass, its bias from few "
        "rows a bin taken out as far as that is possible)."
    )


def deferral(report: Report) -> Sentences:
    """What a person who looks at the most uncertain rows instead avoids."""
    by_name = {ranking.name: ranking for ranking in report.rankings}
    chosen = by_name[report.headline]
    tenth = next(each for each in chosen.deferrals if each.share == 0.1)
    lost = "errors" if report.class_methods else "squared error"
    measure = MEASURE_TITLES[report.headline]
    if tenth.risk_of_all == 0:
        return (
            "MC dropout makes no error on these rows, so that deferring some of them has nothing "
            "to avoid; harder data would say more.",
        )
    found = [
        f"Deferring the 10 % of rows that the model doubts most ({tenth.rows} rows, by "
        f"{measure}) removes {_percent(tenth.avoided)} of the {lost}; deferring at random would "
        "remove 10 %."
    ]
    plain = by_name.get(DETERMINISTIC)
    if plain is not None:
        word = "less" if chosen.area < plain.area else "no less"
        found.append(
            f"Over all shares deferred, MC dropout's {measure} leaves {word} error than the "
            f"deterministic confidence: an area under the curve of {chosen.area:.2g} against "
            f"{plain.area:.2g} (smaller is better)."
        )
    if len(report.rankings) > 1:
        best = min(report.rankings, key=lambda ranking: ranking.area)
        found.append(f"The smallest area here is that of {_lower(best)}, {best.area:.2g}.")
    return tuple(found)


def detection(found: OutOfDistribution) -> Sentences:
    """Which score tells strangers, and whether passes are needed for it."""
    chosen = found.recommendation
    rates = chosen.reported[chosen.name]
    low, high = rates.auroc_interval
    name = MEASURE_TITLES[chosen.name]
    first = (
        f"Rows from the other data are told apart best by {name}: it ranks"
        if rates.auroc >= _USEFUL
        else f"No score tells the rows from the other data well: the best, {name}, ranks"
    )
    sentences = [
        f"{first} one of them above a held-out row {_percent(rates.auroc)} of the time (AUROC, "
        f"95 % interval {low:.3f} to {high:.3f}; chosen on one half of the rows, reported on the "
        "other)."
    ]
    plain = chosen.reported.get("deterministic_confidence")
    if plain is not None and chosen.name != "deterministic_confidence":
        sentences.append(
            "The deterministic confidence, which needs no passes, has an AUROC of "
            f"{plain.auroc:.3f} on the same rows."
        )
    elif plain is not None:
        sentences.append(
            "That score needs no passes at all: for this purpose MC dropout does not pay here."
        )
    sentences.append(
        f"To flag 95 % of the strangers it also flags {_percent(rates.fpr95)} of the held-out rows."
    )
    below = [each for each in found.separations if each.rates.auroc < 0.5]
    if below:
        names = ", ".join(each.title for each in below)
        sentences.append(
            f"Beware: by {names} the strangers look less uncertain than the held-out rows."
        )
    return tuple(sentences)


def settling(found: Settling, passes: int) -> Sentences:
    """How many passes are enough, for predictions and for measures."""
    if found.predictions_enough is None:
        first = (
            f"At {passes} passes the predictions still change by more than the number of rows "
            "leaves open: more passes may pay."
        )
    else:
        first = (
            f"{found.predictions_enough} passes are enough for the predictions: what more of them "
            f"change in the {QUALITY_TITLES[found.judged_by]} is less than its standard error on "
            f"{found.rows} rows."
        )
    within = [
        f"{MEASURE_TITLES[name]} {'about ' if needed > passes else ''}{needed}"
        for name, needed in found.enough.items()
    ]
    second = (
        f"For the measures of single rows to be steady within {_percent(WITHIN)}, it takes, in "
        f"passes: {', '.join(within)}."
    )
    return first, second


def examples(report: Report) -> Sentences:
    """What the pictures are, and how often the model errs at both ends."""
    found = report.examples
    measure = MEASURE_TITLES[found.measure]
    first = f"Rows are ordered by {measure}."
    if not report.class_methods:
        return (first,)
    wrong = [sum(each.right is False for each in rows) for rows in (found.most, found.least)]
    return (
        first,
        f"Of the {len(found.most)} most uncertain rows {wrong[0]} are wrong, of the "
        f"{len(found.least)} least uncertain {wrong[1]}.",
    )


def _lower(ranking: Ranking) -> str:
    return ranking.title.replace("Deterministic", "deterministic")


def _percent(share: float) -> str:
    value = 100 * share
    whole = value == 0 or 10 <= value <= 99 or value == 100
    return f"{value:.0f} %" if whole else f"{value:.1f} %"


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
