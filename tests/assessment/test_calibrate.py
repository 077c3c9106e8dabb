"""What a calibration promises holds on rows drawn after it."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from service.assessment.calibrate import Wanted, calibrate, in_words
from service.assessment.data import Labelled
from service.calibration import apply
from service.errors import CalibrationFailed, TooFewRows
from service.inference.fields import Fields
from service.inference.prediction import Request
from service.registry.loading import LoadedModel
from tests.assessment.models import LINE, held_out_digits, labelled, load, shipped, some
from tests.repositories import write_model

SPLITS = 20
SURE = 1e-4
"""Of each split on either side: all of SPLITS are within with probability 1 − 20 · 2 · 1e-4."""

FIELDS = ("mean", "std", "label", *apply.CALIBRATED_FIELDS)


def answers(model: LoadedModel, data: Labelled, fields: tuple[str, ...] = FIELDS) -> Fields:
    plan = model.manifest.plan_for()
    [found] = model.predict([Request(torch.from_numpy(data.inputs), plan, fields)])
    assert found is not None
    return found


def calibrated(model: LoadedModel, data: Labelled, wanted: Wanted) -> LoadedModel:
    return dataclasses.replace(model, calibration=calibrate(model, data, wanted))


def between(count: int, of: int, rank: int, rows: int) -> bool:
    """Whether so many of `of` new rows may lie above the rank-th smallest of `rows` others.

    Their number is beta-binomial, whatever the distribution is, where it has no ties.
    """
    law = stats.betabinom(of, rows + 1 - rank, rank)
    return bool(law.ppf(SURE) <= count <= law.ppf(1 - SURE))


def truth_in_set(data: Labelled, found: Fields) -> NDArray[np.bool_]:
    sets = found["prediction_set"]
    assert sets is not None
    inside: NDArray[np.bool_] = sets[np.arange(len(sets)), data.targets]
    return inside


@cache
def digits() -> tuple[LoadedModel, Labelled]:
    """With ten passes: what is promised holds for any number of them."""
    model = shipped("digits")
    manifest = model.manifest.model_copy(update={"passes": 10})
    conditions = dataclasses.replace(model.conditions, passes=10)
    return dataclasses.replace(model, manifest=manifest, conditions=conditions), held_out_digits()


@cache
def synthetic(folder: Path) -> tuple[LoadedModel, Labelled]:
    """A network of random weights, and labels drawn from what it says without dropout."""
    torch.manual_seed(0)
    model = load(write_model(folder, "synthetic"))
    inputs = 3 * torch.randn(20 * 450, 4)
    probs = model.sampler.deterministic_members(inputs)[0].softmax(dim=-1)
    labels = torch.multinomial(probs, 1)[:, 0]
    return model, labelled(inputs.numpy(), labels.numpy())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("synthetic")


@pytest.mark.parametrize("name", ["digits", "synthetic"])
@pytest.mark.parametrize("per_class", [False, True])
def test_rates_and_coverage_hold_on_rows_drawn_after_calibration(
    name: str, per_class: bool, folder: Path
) -> None:
    """20 splits of the digits into halves, and 20 disjoint drawings of a synthetic set."""
    model, data = digits() if name == "digits" else synthetic(folder)
    inside = 0
    for split in range(SPLITS):
        if name == "digits":
            order = np.random.default_rng(split).permutation(len(data.inputs))
        else:
            order = np.arange(450 * split, 450 * (split + 1))
        own, after = some(data, order[:225]), some(data, order[225:450])
        wanted = Wanted(0.1, 0.9, method="aps", randomised=True, per_class=per_class, seed=split)
        version = calibrated(model, own, wanted)
        found = answers(version, after)
        calibration = version.calibration
        assert calibration is not None
        flags = found[apply.OOD_FLAGGED]
        assert flags is not None
        flagged = int(flags.sum())
        assert between(flagged, 225, rank=204, rows=225)  # ⌈226 · 0.9⌉
        low, high = calibration.threshold.interval
        noise = 2 * (0.1 * 0.9 / 225) ** 0.5
        inside += low - noise <= flagged / 225 <= high + noise
        missed = ~truth_in_set(after, found)
        sets = calibration.conformal_classifier
        assert sets is not None
        groups = range(len(sets.quantiles)) if per_class else [None]
        for group in groups:
            here = missed if group is None else missed[after.targets == group]
            rows = 225 if group is None else int((own.targets == group).sum())
            rank = int(np.ceil((rows + 1) * 0.9))
            assert between(int(here.sum()), len(here), rank, rows), (split, group)
    # An interval of 95 %, widened by two standard errors of what was drawn after it: fewer than 15
    # of 20 inside have a probability below 1e-3 even at 95 %.
    assert inside >= 15


def test_intervals_of_a_regression_hold_the_truth_and_its_noise_is_found(folder: Path) -> None:
    model = load(write_model(folder, "line", LINE, task="regression", shape="[1]"))
    drawn = np.random.default_rng(0)
    inputs = drawn.uniform(-1, 1, (8000, 1)).astype(np.float32)
    mean = answers(model, labelled(inputs, inputs), ("mean",))["mean"]
    assert mean is not None
    targets = mean + drawn.normal(0, 0.5, mean.shape)
    data = labelled(inputs, targets)
    for split in range(SPLITS):
        own = some(data, np.arange(400 * split, 400 * split + 200))
        after = some(data, np.arange(400 * split + 200, 400 * split + 400))
        version = calibrated(model, own, Wanted(0.1, 0.9, seed=split))
        found = answers(version, after, (*FIELDS, "aleatoric_std", "predictive_entropy"))
        interval, std = found["interval"], found["aleatoric_std"]
        assert interval is not None
        assert std is not None
        missed = (after.targets < interval[..., 0]) | (after.targets > interval[..., 1])
        # A third of 200 rows fits the noise; 134 are left.
        assert between(int(missed.sum()), 200, int(np.ceil(135 * 0.9)), 134)
        # Passes differ about their mean, which the likelihood takes for a part of the noise's 0.5;
        # the standard deviation of 66 residuals varies by 0.5 / √132.
        assert abs(std[0, 0] - 0.5) < 0.1 + 4 * 0.5 / 132**0.5
        entropy = found["predictive_entropy"]
        assert entropy is not None
        epistemic = found["epistemic_std"]
        assert epistemic is not None
        total = epistemic[:, 0].astype(np.float64) ** 2 + std[:, 0] ** 2
        np.testing.assert_allclose(entropy, 0.5 * np.log(2 * np.pi * np.e * total), rtol=1e-6)


def test_a_combination_is_fitted_on_other_rows_than_its_threshold() -> None:
    model, data = digits()
    wanted = Wanted(0.1, score="predictive_entropy+deterministic_confidence", seed=3)
    version = calibrated(model, data, wanted)
    assert version.calibration is not None
    assert version.calibration.threshold.rows == 300
    assert len(version.calibration.score.references["predictive_entropy"]) == 150
    values = answers(version, data)[apply.OOD_VALUES]
    assert values is not None
    assert values.min() >= 0
    assert values.max() <= 1


def test_the_temperature_makes_the_mean_likelier_and_leaves_its_label() -> None:
    model, data = digits()
    version = calibrated(model, data, Wanted())
    found = answers(version, data)
    assert version.calibration is not None
    fitted = version.calibration.temperature
    assert fitted is not None
    rows = np.arange(len(data.targets))
    scaled, mean = found["calibrated_mean"], found["mean"]
    assert scaled is not None
    assert mean is not None
    np.testing.assert_allclose(scaled.sum(axis=1), 1, rtol=1e-9)
    assert (scaled.argmax(axis=1) == mean.argmax(axis=1)).all()
    likelihood = np.log(scaled[rows, data.targets]).mean()
    assert likelihood == pytest.approx(fitted.log_likelihood_after, abs=1e-5)
    assert fitted.log_likelihood_after > fitted.log_likelihood_before


def test_scores_are_told_apart_on_rows_that_should_be_flagged() -> None:
    model, data = digits()
    noise = np.random.default_rng(0).uniform(0, 16, data.inputs.shape).astype(np.float32)
    far = labelled(noise, data.targets)
    found = calibrate(model, data, Wanted(), far)
    assert found.recommendation is not None
    assert set(found.recommendation.reported) == {
        *("variance", "predictive_entropy", "mutual_information"),
        *("variation_ratio", "deterministic_confidence"),
    }
    assert found.recommendation.reported[found.recommendation.name].auroc > 0.9
    # Whatever is recommended, flags are by what was asked for.
    assert found.score.name == "variance"
    same = calibrate(model, data, Wanted()).threshold
    # Passes are summed up in chunks, whose sizes may differ from one time to the next.
    assert found.threshold.value == pytest.approx(same.value, rel=1e-12)
    assert found.threshold == dataclasses.replace(same, value=found.threshold.value)
    words = "\n".join(in_words(found))
    assert f"Recommended: {found.recommendation.name}" in words


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (Wanted(false_positive_rate=0.001), "at least 999 rows.*450"),
        (Wanted(coverage=0.999), "at least 999 rows"),
        (Wanted(0.1, 0.99, per_class=True), "at least 99 rows of every class"),
        (Wanted(0.003, score="variance+variation_ratio"), "at least 333 rows.*third of the 450"),
        (Wanted(coverage=1.0), "above 0 and below 1"),
        (Wanted(score="entropy"), "no score 'entropy'; there are variance"),
        (Wanted(method="raps"), "no conformal method 'raps'"),
    ],
)
def test_what_the_rows_cannot_promise_is_refused_with_how_many_it_takes(
    wanted: Wanted, sentence: str
) -> None:
    with pytest.raises(CalibrationFailed, match=sentence):
        calibrate(*digits(), wanted)


def test_too_few_rows_say_how_many_are_needed() -> None:
    model, data = digits()
    with pytest.raises(TooFewRows) as caught:
        calibrate(model, some(data, np.arange(15)), Wanted(false_positive_rate=0.05))
    assert caught.value.expected == 19
