"""Pools whose pictures stand in them several times."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.active_learning.pools import Pool, draw
from service.inference.choosing import select
from service.types import Task

Y = np.arange(200) % 10
X = np.arange(200, dtype=np.float32).reshape(-1, 1, 1, 1)


def drawn(copies: int = 3, seed: int = 0) -> Pool:
    return draw(X, Y, rows=100, each=2, copies=copies, seed=seed)


def test_a_pool_starts_with_as_many_labels_of_every_class() -> None:
    pool = drawn()
    labels = pool.y[pool.pictures(pool.start)]
    assert sorted(labels) == sorted([*range(10)] * 2)


def test_pictures_are_drawn_once_and_keep_their_labels() -> None:
    pool = drawn()
    assert len(np.unique(pool.x)) == 100
    np.testing.assert_array_equal(Y[pool.x.ravel().astype(int)], pool.y)


def test_pools_of_one_seed_differ_in_nothing_but_their_copies() -> None:
    once, thrice = drawn(copies=1), drawn(copies=3)
    np.testing.assert_array_equal(once.x, thrice.x)
    assert once.start == thrice.start
    assert (len(once), len(thrice)) == (100, 300)
    assert not np.array_equal(once.x, drawn(copies=1, seed=1).x)


def test_every_picture_is_shown_by_as_many_points() -> None:
    pool = drawn()
    counts = np.bincount(pool.pictures(range(len(pool))))
    assert counts.tolist() == [3] * 100


def test_fields_of_points_are_those_of_their_pictures() -> None:
    pool = drawn()
    score_N = np.random.default_rng(0).normal(size=100)
    samples_TNC = np.random.default_rng(1).normal(size=(5, 100, 10))
    fields = pool.of_points({"score": score_N, "samples": samples_TNC, "label": None})
    score, samples = fields["score"], fields["samples"]
    assert score is not None
    assert samples is not None
    pictures = pool.pictures(range(len(pool)))
    np.testing.assert_array_equal(score, score_N[pictures])
    np.testing.assert_array_equal(samples, samples_TNC[:, pictures])
    assert fields["label"] is None


def test_a_labelled_point_is_not_asked_for_again_but_its_copies_may_be() -> None:
    pool = drawn()
    score_N = np.zeros(100)
    score_N[7] = 1.0
    fields = pool.of_points({"mutual_information": score_N})
    chosen = select(fields, Task.CLASSIFICATION, "bald", 3, seed=0, exclude=[7])
    assert chosen.indices[:2] == [107, 207]
    assert pool.pictures(chosen.indices)[:2].tolist() == [7, 7]


@pytest.mark.parametrize("copies", [1, 3])
def test_batch_bald_sees_through_copies(copies: int) -> None:
    pool = drawn(copies)
    generator = np.random.default_rng(0)
    # Passes that are sure and disagree: a label leaves nothing that its copy's could say.
    labels_TN = generator.integers(0, 10, size=(20, 100))
    samples_TNC = np.eye(10, dtype=np.float32)[labels_TN]
    fields = pool.of_points({"samples": samples_TNC})
    chosen = select(fields, Task.CLASSIFICATION, "batch_bald", 2, seed=0, exclude=pool.start)
    assert len(set(pool.pictures(chosen.indices).tolist())) == 2
