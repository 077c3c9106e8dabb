"""Each score against its definition, and strategies that draw against their probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from service.errors import InvalidInput
from service.inference import acquisition, measures
from service.inference.choosing import (
    BATCH_BALD,
    check_strategy,
    needs,
    plan_of,
    select,
    strategies_of,
)
from service.inference.fields import Fields
from service.types import Masks, SamplePlan, Task

CLASSES = Task.CLASSIFICATION


def fields_of(task: Task, points: int = 40, outputs: int = 4, seed: int = 0) -> Fields:
    """A prediction of random passes, computed by the measures."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(20, points, outputs, generator=generator, dtype=torch.float64)
    found: Fields = {}
    if task.is_regression:
        passes = logits
        found["predictive_entropy"] = passes.var(0).sum(-1).numpy()
    elif task is CLASSES:
        passes = logits.softmax(-1)
        table = measures.MEASURES
    else:
        passes = logits.sigmoid()
        table = measures.BERNOULLI_MEASURES
    if not task.is_regression:
        found |= {name: measure(passes).numpy() for name, measure in table.items()}
    return found | {
        "mean": passes.mean(0).numpy(),
        "std": passes.std(0).numpy(),
        "variance": measures.variance(passes).numpy(),
        "samples": passes.numpy(),
    }


def test_margin_and_confidence_by_hand() -> None:
    fields: Fields = {"mean": np.array([[0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.4, 0.4, 0.2]])}
    assert acquisition.margin(fields, CLASSES) == pytest.approx([0.8, 0.15, 1.0])
    assert acquisition.least_confidence(fields, CLASSES) == pytest.approx([0.5, 0.1, 0.6])
    binary: Fields = {"mean": np.array([[0.9], [0.5]])}
    assert acquisition.margin(binary, Task.BINARY) == pytest.approx([0.2, 1.0])
    assert acquisition.least_confidence(binary, Task.BINARY) == pytest.approx([0.1, 0.5])


def test_a_binary_task_counts_as_two_classes() -> None:
    yes = np.array([[0.9], [0.2], [0.5]])
    both = np.concatenate([1 - yes, yes], axis=1)
    for strategy in ("margin", "least_confidence"):
        score = acquisition.SCORES[strategy]
        assert score({"mean": yes}, Task.BINARY) == pytest.approx(score({"mean": both}, CLASSES))


def test_bald_is_mutual_information_and_of_a_regression_epistemic_variance() -> None:
    classes, regression = fields_of(CLASSES), fields_of(Task.REGRESSION)
    np.testing.assert_array_equal(acquisition.bald(classes, CLASSES), classes["mutual_information"])
    np.testing.assert_array_equal(
        acquisition.bald(regression, Task.REGRESSION), regression["variance"]
    )


def test_mean_std_is_the_mean_over_outputs() -> None:
    fields = fields_of(CLASSES)
    std = fields["std"]
    assert std is not None
    assert acquisition.mean_std(fields, CLASSES) == pytest.approx(std.sum(axis=1) / 4)


@pytest.mark.parametrize("task", list(Task))
def test_every_strategy_of_a_task_chooses_from_what_it_needs(task: Task) -> None:
    fields = fields_of(task, outputs=1 if task is Task.BINARY else 4)
    for strategy in strategies_of(task):
        own = {name: fields[name] for name in needs(strategy) if name in fields}
        chosen = select(own, task, strategy, 5, seed=0, exclude=[3])
        assert len(set(chosen.indices)) == 5
        assert 3 not in chosen.indices
        if strategy not in acquisition.DRAWS:
            assert chosen.scores == sorted(chosen.scores, reverse=True)
        again = select(own, task, strategy, 5, seed=0, exclude=[3])
        assert again == chosen


def test_the_most_informative_come_first_and_of_equal_ones_the_first() -> None:
    fields: Fields = {"predictive_entropy": np.array([0.1, 0.7, 0.7, 0.3, 0.9])}
    chosen = select(fields, CLASSES, "predictive_entropy", 4, seed=0)
    assert chosen.indices == [4, 1, 2, 3]
    assert chosen.scores == [0.9, 0.7, 0.7, 0.3]


def test_power_bald_draws_in_proportion_to_bald() -> None:
    """First draws of 4,000 seeds: counts are binomial, within five standard deviations."""
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    fields: Fields = {"mutual_information": weights, "variance": weights}
    trials = 4000
    first = [
        select(fields, CLASSES, "power_bald", 1, seed=seed).indices[0] for seed in range(trials)
    ]
    counts = np.bincount(first, minlength=4)
    spread = np.sqrt(trials * weights * (1 - weights))
    assert (np.abs(counts - trials * weights) < 5 * spread).all()


def test_power_bald_never_takes_what_says_nothing_before_what_says_something() -> None:
    weights = np.array([0.0, 1e-9, 0.0, 0.5])
    fields: Fields = {"mutual_information": weights, "variance": weights}
    chosen = select(fields, CLASSES, "power_bald", 2, seed=1)
    assert sorted(chosen.indices) == [1, 3]


def test_random_is_uniform_and_follows_its_seed() -> None:
    fields: Fields = {"mean": np.zeros((10, 3))}
    orders = [tuple(select(fields, CLASSES, "random", 10, seed=s).indices) for s in range(1000)]
    # Of 10! orders: 0.14 pairs of seeds give the same in the mean, more than five never.
    assert len(set(orders)) >= 995
    assert orders[7] == tuple(select(fields, CLASSES, "random", 10, seed=7).indices)
    places = np.array([order.index(0) for order in orders])
    # A mean of 1,000 uniform places 0 to 9, of standard deviation 2.87.
    assert abs(places.mean() - 4.5) < 5 * 2.87 / np.sqrt(1000)


def test_noise_does_not_depend_on_how_a_pool_is_cut() -> None:
    whole = acquisition.noise(5, 0, 10_000)
    parts = [acquisition.noise(5, start, 1500) for start in range(0, 9000, 1500)]
    np.testing.assert_array_equal(np.concatenate(parts), whole[:9000])
    assert not np.array_equal(whole, acquisition.noise(-5, 0, 10_000))


@pytest.mark.parametrize(
    ("task", "strategy"),
    [
        (CLASSES, "entropy"),
        (Task.REGRESSION, "variation_ratio"),
        (Task.HETEROSCEDASTIC_REGRESSION, "margin"),
        (Task.MULTILABEL, BATCH_BALD),
    ],
)
def test_a_strategy_that_a_task_does_not_have_is_named_with_those_it_has(
    task: Task, strategy: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_strategy(strategy, task)
    assert caught.value.field == "strategy"
    assert repr(strategy) in caught.value.message
    assert caught.value.expected == list(strategies_of(task))


def test_a_batch_is_chosen_by_passes_that_all_points_share() -> None:
    apart = SamplePlan(10, 3, Masks.INDEPENDENT)
    assert plan_of(BATCH_BALD, apart) == SamplePlan(10, 3, Masks.SHARED)
    assert plan_of("bald", apart) == apart
