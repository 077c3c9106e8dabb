"""The rule of what is kept, as operators write it."""

from __future__ import annotations

import numpy as np
import pytest

from service.errors import InvalidInput
from service.store.keeping import FEWEST, WINDOW, Keeper, Kind, Rule, read_rules

UNCERTAIN = Rule(Kind.UNCERTAIN)


def test_one_rule_for_all_models() -> None:
    assert read_rules("off").off
    assert read_rules("uncertain").of("digits") == UNCERTAIN
    assert read_rules("random:0.01").of("digits") == Rule(Kind.RANDOM, 0.01)
    assert read_rules("all").of("co2") == Rule(Kind.ALL)


def test_nothing_of_a_model_that_is_not_named() -> None:
    rules = read_rules("digits=uncertain, co2=random:.5")
    assert rules.of("digits") == UNCERTAIN
    assert rules.of("co2") == Rule(Kind.RANDOM, 0.5)
    assert rules.of("breast_cancer").kind is Kind.OFF
    assert not rules.off


@pytest.mark.parametrize(
    "text", ["", "on", "random", "random:0", "random:2", "random:x", "digits=", "all,digits=off"]
)
def test_what_is_no_rule_is_said_with_what_is(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected off, uncertain, random:SHARE or all"):
        read_rules(text)


def test_rows_above_a_calibrated_threshold() -> None:
    keeper = Keeper(UNCERTAIN, 0.95)
    flagged = np.array([False, True, False])
    # Where a threshold was calibrated, its flags decide, and not the score.
    assert keeper.choose(np.array([0.9, 0.5, np.nan]), flagged).tolist() == [1]


def test_without_a_threshold_the_highest_of_the_last_rows() -> None:
    keeper = Keeper(UNCERTAIN, 0.9)
    assert keeper.choose(np.linspace(0, 1, FEWEST), None).tolist() == []
    # The ninth decile of 0 to 1 is 0.9; the rows themselves count from the next time on.
    assert keeper.choose(np.array([0.95, 0.2, 0.85, 0.91]), None).tolist() == [0, 3]


def test_a_share_of_all_by_chance() -> None:
    """10,000 rows at 0.1: binomial, within five standard deviations of 30."""
    kept = Keeper(Rule(Kind.RANDOM, 0.1), 0.9, seed=0).choose(np.zeros(10_000), None)
    assert abs(len(kept) - 1000) < 5 * 30
    assert np.std(np.diff(kept)) > 1


def test_all_and_nothing() -> None:
    assert list(Keeper(Rule(Kind.ALL), 0.9).choose(np.zeros(3), None)) == [0, 1, 2]
    assert list(Keeper(Rule(), 0.9).choose(np.ones(3), np.ones(3, dtype=np.bool_))) == []


def test_the_quantile_follows_the_rows() -> None:
    keeper = Keeper(UNCERTAIN, 0.9)
    keeper.choose(np.linspace(0, 1, FEWEST), None)
    # All far above the first ones, until those are forgotten.
    assert len(keeper.choose(np.linspace(10, 11, WINDOW), None)) == WINDOW
    assert keeper.choose(np.array([10.85, 10.95]), None).tolist() == [1]
