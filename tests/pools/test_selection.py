"""From a pool in parts come the points that come from it as a whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from service.inference.choosing import (
    BATCH_BALD,
    Best,
    Chosen,
    needs,
    plan_of,
    select,
    strategies_of,
)
from service.inference.prediction import Request
from service.pools import selection
from service.pools.readers import Pool, open_pool
from service.pools.selection import select_from_pool
from service.registry.loading import LoadedModel
from service.types import Masks
from tests.registry.test_loading import load, network
from tests.repositories import write_model

ROWS = 300


def nothing(_done: int, _rows: int) -> None:
    pass


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return load(write_model(tmp_path_factory.mktemp("models"), "mine", more="passes = 10"))


def pool_of(path: Path, model: LoadedModel, copies: int = 1) -> Pool:
    rows = np.random.default_rng(0).normal(size=(ROWS // copies, 4))
    np.save(path / "pool.npy", np.concatenate([rows] * copies))
    return open_pool(path / "pool.npy", model.manifest.input)


def whole(model: LoadedModel, pool: Pool, strategy: str, k: int) -> Chosen:
    plan = dataclasses.replace(model.manifest.plan_for(), masks=Masks.SHARED)
    inputs = torch.from_numpy(pool.take(range(pool.rows)))
    [fields] = model.predict([Request(inputs, plan, needs(strategy))])
    assert fields is not None
    return select(fields, model.manifest.task, strategy, k, plan.seed, exclude=[5])


def test_every_strategy_of_a_classification(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "ROWS_AT_ONCE", 64)
    pool = pool_of(tmp_path, model)
    for strategy in strategies_of(model.manifest.task):
        found = select_from_pool(
            model, pool, strategy, 12, model.manifest.plan_for(), nothing, exclude=[5]
        )
        expected = whole(model, pool, strategy, 12)
        assert found.indices == expected.indices, strategy
        assert found.scores == pytest.approx(expected.scores, abs=1e-5), strategy


def test_a_regression_has_its_joint_version(tmp_path: Path) -> None:
    code = network("nn.Linear(4, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1)")
    model = load(write_model(tmp_path, "line", code, task="regression", more="passes = 30"))
    pool = pool_of(tmp_path, model, copies=3)
    found = select_from_pool(model, pool, BATCH_BALD, 6, model.manifest.plan_for(), nothing)
    assert len({index % (ROWS // 3) for index in found.indices}) == 6
    alone = select_from_pool(model, pool, "bald", 6, model.manifest.plan_for(), nothing)
    assert len({index % (ROWS // 3) for index in alone.indices}) == 2
    assert found.indices[0] == alone.indices[0]


def test_of_a_large_pool_candidates_are_those_that_say_most_alone(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = pool_of(tmp_path, model)
    plan = model.manifest.plan_for()
    monkeypatch.setattr(selection, "CANDIDATES", 40)
    found = select_from_pool(model, pool, BATCH_BALD, 8, plan, nothing)
    alone = select_from_pool(model, pool, "bald", 40, plan, nothing)
    assert set(found.indices) <= set(alone.indices)
    assert found.indices[0] == alone.indices[0]


def test_the_best_of_parts_that_others_looked_at_are_those_of_the_whole(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "ROWS_AT_ONCE", 50)
    monkeypatch.setattr(selection, "CANDIDATES", 40)
    pool = pool_of(tmp_path, model)
    part_rows = 100
    for strategy in strategies_of(model.manifest.task):
        plan = plan_of(strategy, model.manifest.plan_for())
        kept = selection.kept_of(model, pool, strategy, 12, plan)
        best = Best(kept)
        # In whatever order they come.
        for first in (200, 0, 100):
            rows = next(pool.parts(first, part_rows))
            found = selection.best_of_part(model, rows, first, strategy, plan, kept, exclude=[5])
            best.merge(np.array(found.indices), np.array(found.scores))
        chosen = selection.choose_among(model, pool, strategy, 12, plan, best)
        expected = select_from_pool(
            model, pool, strategy, 12, model.manifest.plan_for(), nothing, exclude=[5]
        )
        assert chosen == expected, strategy
