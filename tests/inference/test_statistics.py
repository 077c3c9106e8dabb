"""Passes summed in any chunks and any grouping say what the closed formulas say of the whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from decimal import Decimal, localcontext
from itertools import pairwise

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from service.inference import measures, outputs, regression
from service.inference.fields import SUMMARY_FIELDS
from service.inference.memory import peak_bytes
from service.inference.sampler import _SAMPLE_BYTES
from service.inference.statistics import RunningStatistics
from service.types import Task

EPSILON = 2.0**-53
PASSES, OUTPUTS = 12, 4
LOGIT = 20.0

# Each sum has at most PASSES · OUTPUTS terms, each rounded a few times (8 is generous); entropies
# multiply an error of p by up to |ln p| < 2 · LOGIT + 1, and regression outputs are up to LOGIT.
TOLERANCE = 8 * PASSES * OUTPUTS * EPSILON * (2 * LOGIT + 1)

Formulas = Mapping[str, Callable[[Tensor], Tensor]]


def formulas(task: Task) -> Formulas:
    """From raw outputs [T, B, K] to each field, by the definitions."""

    def of_values(measure: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda raw: measure(outputs.values(task, raw))

    found = {
        "mean": of_values(measures.mean),
        "std": of_values(measures.std),
        "standard_error": of_values(measures.standard_error),
        "variance": of_values(measures.variance),
    }
    if task is Task.CLASSIFICATION:
        return found | {k: of_values(m) for k, m in measures.MEASURES.items()}
    if not task.is_regression:
        return found | {k: of_values(m) for k, m in measures.BERNOULLI_MEASURES.items()}
    found["epistemic_std"] = found["std"]
    if task is Task.REGRESSION:
        return found | {"predictive_entropy": of_values(regression.predictive_entropy)}

    def of_both(measure: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda raw: measure(outputs.values(task, raw), outputs.log_variances(raw))

    return found | {
        "aleatoric_std": lambda raw: regression.aleatoric_variance(
            outputs.log_variances(raw)
        ).sqrt(),
        "predictive_entropy": of_both(regression.predictive_entropy),
        "expected_entropy": lambda raw: regression.expected_entropy(outputs.log_variances(raw)),
        "mutual_information": of_both(regression.mutual_information),
    }


@st.composite
def passes_in_chunks(draw: st.DrawFn) -> tuple[Tensor, list[int]]:
    """Raw outputs [T, B, 4] and where they are cut."""
    passes, rows = draw(st.integers(2, PASSES)), draw(st.integers(1, 3))
    numbers = st.floats(-LOGIT, LOGIT, allow_subnormal=False)
    raw = draw(arrays.arrays(np.float64, (passes, rows, OUTPUTS), elements=numbers))
    cuts = draw(st.sets(st.integers(1, passes - 1)))
    return torch.from_numpy(raw), [0, *sorted(cuts), passes]


def merged(task: Task, parts: list[Tensor], order: list[int]) -> RunningStatistics:
    """Statistics of each part, merged two neighbours at a time in an order that `order` decides."""
    statistics = []
    for part in parts:
        statistics.append(RunningStatistics(task, part.shape[1]))
        statistics[-1].update(part)
    for number in order:
        if len(statistics) > 1:
            place = number % (len(statistics) - 1)
            statistics[place].merge(statistics.pop(place + 1))
    return statistics[0]


def assert_agrees(task: Task, statistics: RunningStatistics, raw: Tensor) -> None:
    summary = statistics.summary()
    for name, formula in formulas(task).items():
        got, expected = summary[name], formula(raw)
        # Errors of means enter variances squared or times a difference of up to 2 · LOGIT.
        limit = TOLERANCE * 4 * LOGIT
        if name in ("std", "standard_error", "epistemic_std", "aleatoric_std"):
            got, expected = got.square(), expected.square()
        if name in ("predictive_entropy", "mutual_information") and task.is_regression:
            # Of a logarithm: relative to the variance. Where that is all rounding, so is this.
            variance = regression.epistemic_variance(outputs.values(task, raw))
            if task is Task.HETEROSCEDASTIC_REGRESSION:
                variance = variance + regression.aleatoric_variance(outputs.log_variances(raw))
            if variance.min() < limit:
                continue
            limit = limit + limit / float(variance.min())
        close = torch.isclose(got, expected, rtol=TOLERANCE, atol=limit)
        assert close.all(), (name, got, expected)


@pytest.mark.parametrize("task", list(Task))
@given(passes_in_chunks(), st.lists(st.integers(0, 20), min_size=PASSES, max_size=PASSES))
@settings(max_examples=60, deadline=None)
def test_any_chunks_merged_in_any_grouping_give_the_whole(
    task: Task, drawn: tuple[Tensor, list[int]], order: list[int]
) -> None:
    raw, cuts = drawn
    raw = raw[..., :1] if task is Task.BINARY else raw
    parts = [raw[a:b] for a, b in pairwise(cuts)]
    assert_agrees(task, merged(task, parts, order), raw)


@pytest.mark.parametrize("task", list(Task))
def test_rows_may_be_ahead_of_each_other(task: Task) -> None:
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(9, 3, 2, generator=generator, dtype=torch.float64)
    raw = raw[..., :1] if task is Task.BINARY else raw
    statistics = RunningStatistics(task, 3)
    statistics.update(raw[:4, [2, 0]], rows=[2, 0])
    statistics.update(raw[:9, 1:2], rows=[1])
    statistics.update(raw[4:6, [0, 2]], rows=[0, 2])
    summary = statistics.summary()
    for row, passes in enumerate((6, 9, 6)):
        for name, formula in formulas(task).items():
            expected = formula(raw[:passes, row : row + 1])[0]
            torch.testing.assert_close(summary[name][row], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("task", list(Task))
def test_a_place_of_a_dense_output_is_summed_as_a_row_is(task: Task) -> None:
    generator = torch.Generator().manual_seed(1)
    width = 1 if task is Task.BINARY else 4
    raw = torch.randn(7, 2, width, 3, 5, generator=generator, dtype=torch.float64)
    dense, flat = RunningStatistics(task, 2), RunningStatistics(task, 2 * 3 * 5)
    for a, b in ((0, 3), (3, 7)):
        dense.update(raw[a:b])
        flat.update(raw[a:b].movedim(2, -1).flatten(1, 3))
    expected = flat.summary()
    for name, got in dense.summary().items():
        values = expected[name].unflatten(0, (2, 3, 5))
        if values.dim() == 4:
            assert got.shape[2:] == (3, 5)
            values = values.movedim(-1, 1)
        else:
            assert got.shape == (2, 3, 5)
        torch.testing.assert_close(got, values, rtol=1e-12, atol=1e-14)


def test_every_field_belongs_to_some_task() -> None:
    found: set[str] = set()
    for task in Task:
        statistics = RunningStatistics(task, 1)
        statistics.update(torch.zeros(2, 1, 1 if task is Task.BINARY else 2))
        found |= statistics.summary().keys()
    assert found == set(SUMMARY_FIELDS)


def exact_information(probs: list[list[float]]) -> float:
    """1/T Σ_t Σ_c p_t ln(p_t / p̄) in 50 digits."""
    with localcontext() as context:
        context.prec = 50
        passes = [[Decimal(p) for p in row] for row in probs]
        mean = [sum(column, Decimal(0)) / len(passes) for column in zip(*passes, strict=True)]
        terms = [p * (p / q).ln() - p + q for row in passes for p, q in zip(row, mean, strict=True)]
        return float(sum(terms, Decimal(0)) / len(passes))


@pytest.mark.parametrize("spread", [1e-2, 1e-4, 1e-6])
def test_the_mutual_information_of_passes_that_nearly_agree_keeps_its_digits(
    spread: float,
) -> None:
    """Passes that differ by δ have δ² of it, a difference of entropies of size 1 rounded to ε.

    Outputs in float32 are rounded by 6e-8, which leaves nothing of a smaller spread.
    """
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, 5, generator=generator, dtype=torch.float64)
    noise = torch.randn(30, 1, 5, generator=generator, dtype=torch.float64)
    raw = logits + spread * noise
    expected = exact_information(raw.softmax(-1)[:, 0].tolist())
    statistics = RunningStatistics(Task.CLASSIFICATION, 1)
    for chunk in raw.split(7):
        statistics.update(chunk)
    got = statistics.summary()["mutual_information"].item()
    assert got == pytest.approx(expected, rel=0, abs=20 * EPSILON)


@pytest.mark.parametrize("spread", [1e-2, 1e-5])
def test_the_mutual_information_of_a_regression_keeps_its_digits(spread: float) -> None:
    """½ ln(1 + E / A) + ½ (ln v̄ − mean ln v): for small differences half of E / A + var(ln v) / 2.

    The next terms are smaller by the spread itself, times third moments of a few.
    """
    generator = torch.Generator().manual_seed(0)
    noise = spread * torch.randn(40, 1, 2, generator=generator, dtype=torch.float64)
    raw = noise + torch.tensor([0.3, 1.0], dtype=torch.float64)
    statistics = RunningStatistics(Task.HETEROSCEDASTIC_REGRESSION, 1)
    for chunk in raw.split(9):
        statistics.update(chunk)
    means, logs = raw.unbind(-1)
    expected = 0.5 * (means.var() / math.exp(1.0) + logs.var(correction=0) / 2)
    got = statistics.summary()["mutual_information"].item()
    assert got == pytest.approx(expected.item(), rel=10 * spread, abs=0)


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.MULTILABEL])
def test_certainty_and_contradiction_are_no_special_cases(task: Task) -> None:
    """Probabilities of exactly 0 and 1: no NaN, and ln 2 a label for a coin of two certainties."""
    torn = torch.tensor([[[800.0, -800.0]], [[-800.0, 800.0]]], dtype=torch.float64)
    labels = 1 if task is Task.CLASSIFICATION else 2
    for raw, expected in ((torn, labels * math.log(2)), (torn[:1].expand(4, 1, 2), 0.0)):
        statistics = RunningStatistics(task, 1)
        for one_pass in raw.split(1):
            statistics.update(one_pass)
        summary = statistics.summary()
        assert summary["mutual_information"].item() == pytest.approx(expected, abs=1e-15)
        assert summary["expected_entropy"].item() == 0.0


def test_noise_too_small_or_large_for_its_exponential_is_none_the_worse() -> None:
    """exp(±900) is beyond float64; the information in means far inside the noise is nothing."""
    for log_noise in (-900.0, 900.0):
        statistics = RunningStatistics(Task.HETEROSCEDASTIC_REGRESSION, 1)
        for one_pass in torch.tensor([[[0.0, log_noise]], [[0.0, log_noise]]]).split(1):
            statistics.update(one_pass)
        assert statistics.summary()["mutual_information"].item() == 0.0


@pytest.mark.parametrize("task", list(Task))
def test_summing_needs_no_more_memory_than_the_sampler_reckons_with(task: Task) -> None:
    raw = torch.zeros(8, 5, 1 if task is Task.BINARY else 10, 30)
    with torch.inference_mode():
        peak = peak_bytes(lambda: RunningStatistics(task, 5).update(raw))
    assert peak <= _SAMPLE_BYTES * raw.numel()
