"""Sums of what was computed, by version."""

from __future__ import annotations

from service.scheduling.statistics import Ran, Statistics
from service.types import ModelRef

A, B = ModelRef("a", 1), ModelRef("a", 2)


def test_a_version_that_computed_nothing_has_zeros() -> None:
    found = Statistics().of(A)
    assert (found.rows, found.batches, found.success.count, found.last_s) == (0, 0, 0, 0.0)


def test_rows_batches_and_times_add_up_by_version() -> None:
    statistics = Statistics()
    statistics.add(A, [Ran(2, 0.5, failed=False), Ran(3, 0.75, failed=False)], 0.25)
    statistics.add(A, [Ran(5, 1.0, failed=False)], 0.5)
    statistics.add(B, [Ran(1, 1.0, failed=False)], 1.0)
    found = statistics.of(A)
    assert (found.rows, found.batches) == (10, 2)
    assert (found.success.count, found.success.ns) == (3, 2_250_000_000)
    assert (found.queue.count, found.queue.ns) == (3, 1_250_000_000)
    assert (found.compute.count, found.compute.ns) == (3, 1_000_000_000)
    assert {rows: (took.count, took.ns) for rows, took in found.by_rows.items()} == {
        5: (2, 750_000_000)
    }
    assert found.last_s > 0
    assert statistics.of(B).rows == 1


def test_requests_on_which_the_model_failed_are_no_answers() -> None:
    statistics = Statistics()
    statistics.add(A, [Ran(2, 0.5, failed=True), Ran(3, 0.5, failed=False)], 0.25)
    found = statistics.of(A)
    assert (found.fail.count, found.fail.ns) == (1, 500_000_000)
    assert (found.success.count, found.rows) == (1, 3)


def test_a_batch_for_which_nobody_waited_did_not_happen() -> None:
    statistics = Statistics()
    statistics.add(A, [], 1.0)
    assert statistics.of(A).batches == 0


def test_batches_of_many_rows_are_told_apart_by_powers_of_two() -> None:
    statistics = Statistics()
    for rows in range(1, 3000):
        statistics.add(A, [Ran(rows, 1.0, failed=False)], 0.5)
    found = statistics.of(A).by_rows
    assert list(found) == [*range(1, 257), 512, 1024, 2048, 4096]
    assert [found[rows].count for rows in (256, 512, 4096)] == [1, 256, 951]
