"""Batches chosen together: against brute force, closed forms, and on pools with duplicates."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from service.inference import joint
from service.inference.measures import mutual_information


def passes_of(
    points: int, classes: int = 3, passes: int = 12, seed: int = 0, sharpness: float = 2.0
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(passes, points, classes, generator=generator)).softmax(-1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def brute_force(probs_TNC: Tensor, points: list[int]) -> float:
    """I(y_points; w) by its definition, over all labels of all points."""
    probs = probs_TNC.double().numpy()
    passes, _, classes = probs.shape
    whole = 0.0
    for labels in itertools.product(range(classes), repeat=len(points)):
        each = [
            math.prod(probs[t, n, c] for n, c in zip(points, labels, strict=True))
            for t in range(passes)
        ]
        p = sum(each) / passes
        whole -= p * math.log(p) if p > 0 else 0.0
    noise = -(probs[:, points] * np.log(probs[:, points])).sum(-1).sum(-1).mean()
    return float(whole - noise)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_joint_mutual_information_is_that_of_brute_force(classes: int) -> None:
    probs = passes_of(9, classes)
    found = joint.batch_bald(probs, 4, generator=generator())
    for count in range(1, 5):
        expected = brute_force(probs, found.indices[:count])
        # Passes are float32: entropies of order one, to seven digits.
        assert sum(found.gains[:count]) == pytest.approx(expected, abs=1e-5)


def test_each_point_is_the_best_that_could_be_added() -> None:
    probs = passes_of(10)
    found = joint.batch_bald(probs, 4, generator=generator())
    for count in range(1, 4):
        chosen = found.indices[:count]
        best = max(
            (n for n in range(10) if n not in chosen),
            key=lambda n: brute_force(probs, [*chosen, n]),
        )
        assert found.indices[count] == best


def test_the_first_is_that_of_bald() -> None:
    probs = passes_of(200)
    found = joint.batch_bald(probs, 1, generator=generator())
    scores = mutual_information(probs.double())
    assert found.indices == [int(scores.argmax())]
    assert found.gains[0] == pytest.approx(float(scores.max()), abs=1e-5)


def test_drawn_labels_agree_with_all_labels() -> None:
    """Seven points of three classes: 2,187 labels, or 1,000 draws of them.

    A gain is a mean over draws of an entropy, between 0 and ln 3: its standard error is at most
    half of that over √1000, and less as draws are spread evenly. Five of them, added up.
    """
    probs = passes_of(7, sharpness=1.0)
    exact = joint.batch_bald(probs, 7, generator=generator())
    drawn = joint.batch_bald(probs, 7, generator=generator(), configurations=1000)
    assert exact.total == pytest.approx(brute_force(probs, list(range(7))), abs=1e-5)
    assert drawn.total == pytest.approx(exact.total, abs=5 * math.log(3) / 2 / math.sqrt(1000) * 2)


def test_a_batch_never_tells_more_than_there_are_passes_to_tell() -> None:
    probs = passes_of(400, classes=10, passes=10, sharpness=4.0)
    found = joint.batch_bald(probs, 40, generator=generator(), configurations=500)
    assert min(found.gains) >= 0
    # It can tell the passes apart, up to the rounding of float32.
    assert math.log(10) - 0.01 < found.total < math.log(10) + 1e-3


def test_lazy_evaluation_chooses_what_looking_at_every_point_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    probs = passes_of(300, classes=2)
    lazy = joint.batch_bald(probs, 8, generator=generator())
    monkeypatch.setattr(joint, "_FIRST_LOOK", 10**6)
    every = joint.batch_bald(probs, 8, generator=generator())
    assert every.indices == lazy.indices
    # Products of other sizes round otherwise.
    assert every.gains == pytest.approx(lazy.gains, abs=1e-6)


def test_few_points_are_looked_at_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []
    gain = joint._Labels.gain

    def counted(
        self: joint._Labels, probs_TNC: Tensor, entropy_TN: Tensor, places_K: Tensor
    ) -> Tensor:
        looked.append(len(places_K))
        return gain(self, probs_TNC, entropy_TN, places_K)

    monkeypatch.setattr(joint._Labels, "gain", counted)
    # Few points that passes disagree on, and many that they agree on.
    probs = torch.cat([passes_of(50), passes_of(1950, sharpness=0.05)], dim=1)
    joint.batch_bald(probs, 5, generator=generator())
    assert looked[0] == 2000
    assert sum(looked[1:]) < 4 * 400


def test_a_pool_of_copies_gives_each_point_once() -> None:
    """Two informative points three times each: top-k BALD takes copies, the joint choice does not
    as long as another point says something new."""
    probs = passes_of(6, sharpness=6.0)
    pool = torch.cat([probs, probs, probs], dim=1)
    found = joint.batch_bald(pool, 5, generator=generator())
    assert len({index % 6 for index in found.indices}) == 5
    top = mutual_information(pool.double()).topk(5).indices
    assert len({int(index) % 6 for index in top}) == 2


def test_excluded_points_and_the_end_of_the_pool() -> None:
    probs = passes_of(5)
    found = joint.batch_bald(probs, 10, generator=generator(), exclude=[0, 3])
    assert sorted(found.indices) == [1, 2, 4]
    means = torch.randn(12, 5, 1, generator=generator())
    assert sorted(joint.log_determinant(means, 10, exclude=[1]).indices) == [0, 2, 3, 4]


def test_certain_labels_add_nothing_and_break_nothing() -> None:
    probs = torch.zeros(8, 4, 3)
    probs[:, :, 0] = 1.0
    found = joint.batch_bald(probs, 4, generator=generator(), configurations=10)
    assert found.gains == [0.0] * 4
    assert len(set(found.indices)) == 4


@pytest.mark.parametrize("outputs", [1, 2])
def test_gains_of_a_regression_add_up_to_half_a_log_determinant(outputs: int) -> None:
    means = torch.randn(30, 8, outputs, generator=generator(), dtype=torch.float64)
    noise = torch.rand(8, outputs, generator=generator(1), dtype=torch.float64) + 0.1
    found = joint.log_determinant(means, 5, noise_variance_NC=noise)
    expected = 0.0
    for c in range(outputs):
        chosen = means[:, found.indices, c]
        covariance = chosen.T.cov() / noise[found.indices, c].sqrt().outer(
            noise[found.indices, c].sqrt()
        )
        expected += 0.5 * float(torch.logdet(torch.eye(5, dtype=torch.float64) + covariance))
    assert found.total == pytest.approx(expected, rel=1e-9)


def test_without_noise_a_regression_counts_the_variance_that_is_left() -> None:
    means = torch.randn(30, 8, 1, generator=generator(), dtype=torch.float64)
    found = joint.log_determinant(means, 4)
    covariance = means[:, found.indices, 0].T.cov()
    # The product of conditional variances is the determinant.
    assert math.prod(found.gains) == pytest.approx(float(torch.linalg.det(covariance)), rel=1e-9)
    assert found.gains == sorted(found.gains, reverse=True)
    copies = joint.log_determinant(torch.cat([means, means], dim=1), 8)
    assert len({index % 8 for index in copies.indices}) == 8


def test_where_nobody_waits_any_more_no_further_point_is_looked_for() -> None:
    asked = itertools.count()

    def wanted() -> bool:
        return next(asked) < 2

    probs = torch.full((4, 9, 2), 0.5)
    assert len(joint.batch_bald(probs, 9, generator=generator(), wanted=wanted).indices) == 2
    asked = itertools.count()
    means = torch.randn(4, 9, 2, generator=generator())
    assert len(joint.log_determinant(means, 9, wanted=wanted).indices) == 2
