"""Which versions serve, and who gets which."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from service.registry.policy import Serving


def serving(**table: object) -> Serving:
    """A `[serving]` as TOML gives it."""
    return Serving.model_validate(table)


def chosen(policy: Serving, ready: dict[int, bool]) -> list[int]:
    """What is tried, the highest first, where each version verifies or does not."""
    tried, above = [], 0
    for number in sorted(ready, reverse=True):
        if policy.wants(number, above):
            tried.append(number)
            above += ready[number]
    return tried


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        ("all", [4, 3, 2, 1]),
        ("latest 1", [4]),
        ("latest 3", [4, 3, 2]),
        ("latest 9", [4, 3, 2, 1]),
        ([1, 3], [3, 1]),
    ],
)
def test_a_policy_chooses_among_the_versions(versions: object, expected: list[int]) -> None:
    assert chosen(serving(versions=versions), dict.fromkeys(range(1, 5), True)) == expected


def test_the_latest_are_those_that_verify() -> None:
    broken_on_top = {1: True, 2: True, 3: False, 4: False}
    assert chosen(serving(versions="latest 1"), broken_on_top) == [4, 3, 2]


def test_a_label_keeps_its_version_serving() -> None:
    policy = serving(versions="latest 1", labels={"stable": 1})
    assert chosen(policy, dict.fromkeys(range(1, 5), True)) == [4, 1]


@pytest.mark.parametrize(
    "table",
    [
        {"versions": "newest"},
        {"versions": "latest 0"},
        {"versions": "latest"},
        {"versions": []},
        {"versions": [0]},
        {"versions": [1.5]},
        {"labels": {"2": 1}},
        {"labels": {"Stable": 1}},
        {"labels": {"stable": 0}},
        {"labels": {"canary": 2}, "canary_share": 1.1},
        {"labels": {"canary": 2}, "canary_share": -0.1},
        {"canary_share": 0.1},
        {"canary": 2},
    ],
)
def test_what_is_no_policy_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Serving.model_validate(table)


def test_the_default_is_the_highest_that_serves_unless_one_is_stable() -> None:
    assert serving().default([1, 2]) == 2
    assert serving().default([]) is None
    assert serving(labels={"stable": 1}).default([1, 2]) == 1
    assert serving(labels={"stable": 1}).default([2]) is None, "no other version stands in for it"
    assert serving(labels={"canary": 2}).default([1, 2]) == 1
    assert serving(labels={"canary": 2}).default([2]) is None, "a canary is not for everybody"


def test_the_canary_gets_its_share_of_keys_and_each_key_the_same_version_again() -> None:
    share, keys = 0.05, 20_000
    policy = serving(labels={"stable": 1, "canary": 2}, canary_share=share)
    picked = [policy.pick([1, 2], "digits", f"request-{n}") for n in range(keys)]
    assert picked == [policy.pick([1, 2], "digits", f"request-{n}") for n in range(keys)]
    # Binomial: five standard deviations.
    bound = 5 * math.sqrt(share * (1 - share) / keys)
    assert abs(picked.count(2) / keys - share) < bound
    assert set(picked) == {1, 2}


@pytest.mark.parametrize(("share", "expected"), [(0.0, {1}), (1.0, {2})])
def test_a_share_of_none_and_of_all(share: float, expected: set[int]) -> None:
    policy = serving(labels={"stable": 1, "canary": 2}, canary_share=share)
    assert {policy.pick([1, 2], "digits", str(n)) for n in range(100)} == expected


def test_models_choose_their_canaries_requests_apart_from_each_other() -> None:
    policy = serving(labels={"stable": 1, "canary": 2}, canary_share=0.5)
    picked = [[policy.pick([1, 2], model, str(n)) for n in range(100)] for model in ("a", "b")]
    assert picked[0] != picked[1]


def test_a_canary_that_does_not_serve_gets_nobody() -> None:
    policy = serving(labels={"stable": 1, "canary": 2}, canary_share=1.0)
    assert policy.pick([1], "digits", "any") == 1


def test_what_cannot_be_had_is_said() -> None:
    policy = serving(versions=[1, 7], labels={"stable": 1, "canary": 2, "next": 9})
    listed, broken, missing = policy.warnings([1, 2], [1])
    assert "version 7" in listed
    assert "'canary', does not serve" in broken
    assert "'next', has no folder" in missing
