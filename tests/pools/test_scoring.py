"""A table of a whole pool: what the engine says of its rows, whatever stopped it on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest
import torch

from service.errors import InvalidInput
from service.inference.prediction import Request
from service.pools import scoring
from service.pools.readers import Pool, open_pool
from service.registry.loading import LoadedModel
from service.types import SamplePlan
from tests.pools.killing import Killed, killed_after
from tests.registry.test_loading import load
from tests.repositories import write_model

ROWS = 250
NONE = scoring.Earlier(0, True)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "PART_ROWS", 100)
    monkeypatch.setattr(scoring, "ROWS_AT_ONCE", 30)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    more = 'passes = 8\nmasks = "independent"\nlabels = ["a", "b", "c"]'
    return load(write_model(tmp_path_factory.mktemp("models"), "mine", more=more))


@pytest.fixture
def pool(tmp_path: Path, model: LoadedModel) -> Pool:
    np.save(tmp_path / "pool.npy", np.random.default_rng(0).normal(size=(ROWS, 4)))
    return open_pool(tmp_path / "pool.npy", model.manifest.input)


def nothing(_done: int, _rows: int) -> None:
    pass


def test_the_table_holds_what_one_request_of_all_rows_answers(
    model: LoadedModel, pool: Pool, tmp_path: Path
) -> None:
    plan = model.manifest.plan_for()
    seen: list[tuple[int, int]] = []
    output = tmp_path / "scores.parquet"
    assert scoring.score(model, pool, output, plan, lambda *done: seen.append(done)) == NONE
    table = pq.read_table(output)
    assert table["index"].to_pylist() == list(range(ROWS))
    [whole] = model.predict(
        [Request(torch.from_numpy(pool.take(range(ROWS))), plan, scoring.FIELDS)]
    )
    assert whole is not None
    for name in ("mean", "std", "mutual_information", "predictive_entropy", "variance"):
        expected = whole[name]
        assert expected is not None
        found = np.array(table[name].to_pylist())
        np.testing.assert_allclose(found, expected, atol=1e-6)
    labels: Any = whole["label"]
    assert table["label"].to_pylist() == [["a", "b", "c"][i] for i in labels]
    assert seen[0] == (0, ROWS)
    assert seen[-1] == (ROWS, ROWS)
    assert not list(tmp_path.glob("*.parts"))


def first_part(folder: Path) -> Path:
    return folder / "scores.parquet.parts" / "000000.arrow"


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_file(
    model: LoadedModel, pool: Pool, tmp_path: Path
) -> None:
    plan = model.manifest.plan_for()
    scoring.score(model, pool, tmp_path / "whole.parquet", plan, nothing)
    output = tmp_path / "scores.parquet"
    with pytest.raises(Killed):
        scoring.score(model, pool, output, plan, killed_after(170, first_part(tmp_path)))
    assert not output.exists()
    assert scoring.score(model, pool, output, plan, nothing) == scoring.Earlier(100, True)
    assert output.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_run_that_would_round_otherwise_says_so(
    model: LoadedModel, pool: Pool, tmp_path: Path
) -> None:
    output = tmp_path / "scores.parquet"
    plan = model.manifest.plan_for()
    with pytest.raises(Killed):
        scoring.score(model, pool, output, plan, killed_after(170, first_part(tmp_path)))
    part = first_part(tmp_path)
    table = scoring._read_part(part)
    place = table.schema.get_field_index("variance")
    other = table.set_column(place, "variance", pc.add(table["variance"], 1e-9))
    with pa.ipc.new_file(tmp_path / "other.arrow", other.schema) as sink:
        sink.write_table(other)
    (tmp_path / "other.arrow").replace(part)
    assert scoring.score(model, pool, output, plan, nothing) == scoring.Earlier(100, False)


def test_parts_of_another_seed_are_not_taken_over(
    model: LoadedModel, pool: Pool, tmp_path: Path
) -> None:
    output = tmp_path / "scores.parquet"
    with pytest.raises(Killed):
        scoring.score(
            model, pool, output, model.manifest.plan_for(), killed_after(170, first_part(tmp_path))
        )
    other: SamplePlan = model.manifest.plan_for(seed=1)
    assert scoring.score(model, pool, output, other, nothing) == NONE
    scoring.score(model, pool, tmp_path / "whole.parquet", other, nothing)
    assert output.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_pool_that_changed_is_begun_again(model: LoadedModel, pool: Pool, tmp_path: Path) -> None:
    output = tmp_path / "scores.parquet"
    plan = model.manifest.plan_for()
    with pytest.raises(Killed):
        scoring.score(model, pool, output, plan, killed_after(170, first_part(tmp_path)))
    np.save(tmp_path / "pool.npy", np.ones((120, 4)))
    changed = open_pool(tmp_path / "pool.npy", model.manifest.input)
    assert scoring.score(model, changed, output, plan, nothing) == NONE
    assert len(pq.read_table(output)) == 120


def test_a_file_that_cannot_be_written_is_said(
    model: LoadedModel, pool: Pool, tmp_path: Path
) -> None:
    plan = model.manifest.plan_for()
    for output, words in (
        (tmp_path / "scores.csv", "should end in .parquet"),
        (tmp_path / "pool.npy" / "scores.parquet", "cannot be written"),
    ):
        with pytest.raises(InvalidInput, match=words):
            scoring.score(model, pool, output, plan, nothing)


def test_parts_that_came_in_another_order_are_taken_over_up_to_the_first_gap(
    model: LoadedModel, pool: Pool, tmp_path: Path
) -> None:
    plan = model.manifest.plan_for()
    scoring.score(model, pool, tmp_path / "whole.parquet", plan, nothing)
    output = tmp_path / "scores.parquet"
    parts = tmp_path / "scores.parquet.parts"
    both = (scoring.part_file(parts, 0), scoring.part_file(parts, 1))
    for gap, done in ((0, 0), (1, 100)):
        with pytest.raises(Killed):
            scoring.score(model, pool, output, plan, killed_after(ROWS, *both))
        (parts / "of-others.arrow").touch()
        known = scoring.begin(parts, scoring.made_of(model, pool, plan))
        assert known >= {0, 1}
        scoring.part_file(parts, gap).unlink()
        assert scoring.score(model, pool, output, plan, nothing).rows == done
        assert output.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
        output.unlink()
