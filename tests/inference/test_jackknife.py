"""The jackknife against its definition, and against the truth where it is known exactly.

Passes that are one of two distributions with probability one half have a number of the first that
is binomial, so what an estimate is on average is a sum of T + 1 terms: no replication, no luck.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from service.inference import jackknife, measures
from service.inference.fields import JACKKNIFE_FIELDS
from service.inference.prediction import Request, predict
from service.inference.sampler import build_sampler
from service.types import Masks, SamplePlan, Task
from tests.networks import build, example
from tests.sampling import outputs_of

ROUNDING = 1e-12
TASKS = (Task.CLASSIFICATION, Task.MULTILABEL)

# Two distributions over four classes, or of four labels; the second is sure of one.
EITHER = torch.tensor([0.7, 0.2, 0.05, 0.05], dtype=torch.float64)
OR = torch.tensor([0.0, 0.3, 0.3, 0.4], dtype=torch.float64)


def plain(task: Task, probs_TBC: Tensor) -> tuple[Tensor, Tensor]:
    """Predictive entropy and mutual information [B]."""
    table = measures.MEASURES if task is Task.CLASSIFICATION else measures.BERNOULLI_MEASURES
    return table["predictive_entropy"](probs_TBC), table["mutual_information"](probs_TBC)


@pytest.mark.parametrize("task", TASKS)
def test_the_correction_is_that_of_the_definition(task: Task) -> None:
    """T f(all) − (T − 1) mean f(all but one), of both."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 5, 3, generator=generator, dtype=torch.float64)
    probs = logits.softmax(-1) if task is Task.CLASSIFICATION else logits.sigmoid()
    correction = jackknife.correction(task, probs)
    for number, value in enumerate(plain(task, probs)):
        without = torch.stack(
            [plain(task, torch.cat([probs[:t], probs[t + 1 :]]))[number] for t in range(8)]
        )
        expected = 8 * value - 7 * without.mean(0)
        torch.testing.assert_close(value + correction, expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("task", TASKS)
def test_passes_that_agree_need_no_correction(task: Task) -> None:
    probs = torch.stack([EITHER, OR])[None].expand(6, -1, -1)
    torch.testing.assert_close(
        jackknife.correction(task, probs), torch.zeros(2).double(), rtol=0, atol=1e-15
    )


def mean_over_passes(passes: int, estimate: Callable[[Tensor], Tensor]) -> float:
    """Exact expectation of an estimate [T, B, C] → [B] over passes that are EITHER or OR."""
    firsts = torch.arange(passes + 1)
    chosen = torch.arange(passes)[:, None] < firsts
    probs_TBC = torch.where(chosen[..., None], EITHER, OR)
    weights = torch.tensor([math.comb(passes, k) / 2**passes for k in range(passes + 1)])
    return float((weights.double() * estimate(probs_TBC)).sum())


@pytest.mark.parametrize("task", TASKS)
def test_the_bias_in_one_over_passes_is_gone(task: Task) -> None:
    """The truth is H of the middle and, less the mean of both entropies, the mutual information.

    The plain bias is −c / T + O(1 / T²), so a doubled T halves it; the corrected one is O(1 / T²),
    so a doubled T takes three quarters off. Both within the next order, a share of 1 / T and some.
    """
    entropy = measures.entropy_of(task)
    whole = float(entropy((EITHER + OR) / 2))
    information = whole - float(entropy(EITHER) + entropy(OR)) / 2
    for number, truth in enumerate((whole, information)):

        def bias(
            passes: int, *, corrected: bool, number: int = number, truth: float = truth
        ) -> float:
            def estimate(probs_TBC: Tensor) -> Tensor:
                added = jackknife.correction(task, probs_TBC) if corrected else torch.zeros(())
                return plain(task, probs_TBC)[number] + added

            return mean_over_passes(passes, estimate) - truth

        assert bias(10, corrected=False) < 0
        assert abs(bias(10, corrected=True)) < 0.2 * abs(bias(10, corrected=False))
        halved = bias(80, corrected=False) / bias(40, corrected=False)
        assert halved == pytest.approx(1 / 2, rel=0.05)
        quartered = bias(80, corrected=True) / bias(40, corrected=True)
        assert quartered == pytest.approx(1 / 4, rel=0.2)


def test_it_is_among_the_fields_where_asked_for() -> None:
    sampler = build_sampler(
        build("mlp"), example("mlp"), device=torch.device("cpu"), memory_bytes=20_000
    )
    inputs, plan = example("mlp")(5), SamplePlan(10, 0, Masks.SHARED)
    probs = outputs_of(sampler, inputs, 10).double().softmax(-1)
    for one in JACKKNIFE_FIELDS:
        [answer] = predict(sampler, Task.CLASSIFICATION, [Request(inputs, plan, [one])])
        assert answer is not None
        assert answer.keys() == {"passes", one}
        number = list(JACKKNIFE_FIELDS).index(one)
        expected = plain(Task.CLASSIFICATION, probs)[number] + jackknife.correction(
            Task.CLASSIFICATION, probs
        )
        np.testing.assert_allclose(np.asarray(answer[one]), expected, rtol=0, atol=1e-6)
    [answer] = predict(sampler, Task.REGRESSION, [Request(inputs, plan, [*JACKKNIFE_FIELDS])])
    assert answer is not None
    assert all(answer[one] is None for one in JACKKNIFE_FIELDS)
