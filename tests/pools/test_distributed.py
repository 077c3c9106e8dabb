"""A pool by many ends as by one: here by one process that does what each of many would;
`tests/e2e/test_ray.py` has real ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import InvalidInput
from service.inference.devices import resources
from service.pools import distributed, scoring, selection
from service.pools.distributed import Crew, Job
from service.pools.readers import Pool, open_pool
from service.registry.loading import LoadedModel
from service.registry.registry import Registry
from service.settings import Settings, load_settings
from tests.pools.killing import Killed, killed_after
from tests.registry.test_loading import Others
from tests.repositories import write_model

ROWS = 350
CREW = Crew(most=2)


def nothing(_done: int, _rows: int) -> None:
    pass


class Items:
    """See `ray.data.Dataset`: blocks that come back the last first, and the last of all twice, as
    where it was not known whether it was done."""

    def __init__(self, items: Sequence[Any], override_num_blocks: int) -> None:
        assert override_num_blocks == len(items)
        self._rows = [*items, items[-1]]

    def map_batches(
        self,
        worker: Any,
        *,
        fn_constructor_args: Sequence[Any],
        fn_constructor_kwargs: dict[str, Any],
        batch_size: int,
        **_: Any,
    ) -> Items:
        assert batch_size == 1
        made = worker(*fn_constructor_args, **fn_constructor_kwargs)
        self._computed = (
            row
            for item in reversed(self._rows)
            for row in made({"part": np.array([item["part"]])}).to_pylist()
        )
        return self

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        return self._computed


@pytest.fixture(autouse=True)
def others(monkeypatch: pytest.MonkeyPatch) -> Others:
    found = Others()
    monkeypatch.setattr(distributed, "SharedChoices", lambda: found)
    monkeypatch.setattr("ray.data.from_items", Items)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0})
    monkeypatch.setattr(scoring, "PART_ROWS", 100)
    monkeypatch.setattr(scoring, "ROWS_AT_ONCE", 50)
    monkeypatch.setattr(selection, "ROWS_AT_ONCE", 50)
    monkeypatch.setattr(selection, "CANDIDATES", 40)
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    write_model(tmp_path / "models", "mine", more='passes = 8\nmasks = "independent"')
    return load_settings({"models": tmp_path / "models"}, environment={})


@pytest.fixture
def model(settings: Settings, others: Others) -> LoadedModel:
    registry = Registry(settings.models, resources(settings, others))
    registry.scan()
    registry.load_all()
    return registry.resolve("mine", None)


@pytest.fixture
def pool(tmp_path: Path, model: LoadedModel) -> Pool:
    np.save(tmp_path / "pool.npy", np.random.default_rng(0).normal(size=(ROWS, 4)))
    return open_pool(tmp_path / "pool.npy", model.manifest.input)


@pytest.fixture
def job(settings: Settings, model: LoadedModel, pool: Pool) -> Job:
    return distributed.job_of(settings, model, pool, model.manifest.plan_for(), 1.0)


def test_the_table_is_that_of_one_process(
    model: LoadedModel, pool: Pool, job: Job, tmp_path: Path
) -> None:
    one, many = tmp_path / "one.parquet", tmp_path / "many.parquet"
    scoring.score(model, pool, one, job.plan, nothing)
    seen: list[int] = []
    found = distributed.score(model, pool, many, job, CREW, lambda done, _: seen.append(done))
    assert found == scoring.Earlier(0, True)
    assert seen == [0, 50, 150, 250, 350]
    assert many.read_bytes() == one.read_bytes()
    assert not list(tmp_path.glob("*.parts"))


def test_a_run_that_was_killed_goes_on_with_and_without_a_cluster(
    model: LoadedModel, pool: Pool, job: Job, tmp_path: Path
) -> None:
    whole, output = tmp_path / "whole.parquet", tmp_path / "scores.parquet"
    scoring.score(model, pool, whole, job.plan, nothing)
    with pytest.raises(Killed):
        distributed.score(model, pool, output, job, CREW, killed_after(150))
    found = distributed.score(model, pool, output, job, CREW, nothing)
    assert found == scoring.Earlier(150, True)
    assert output.read_bytes() == whole.read_bytes()
    output.unlink()
    with pytest.raises(Killed):
        distributed.score(model, pool, output, job, CREW, killed_after(ROWS))
    assert scoring.score(model, pool, output, job.plan, nothing).rows == ROWS
    assert output.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("strategy", ["power_bald", "batch_bald"])
def test_the_points_are_those_of_one_process(
    strategy: str, model: LoadedModel, pool: Pool, job: Job
) -> None:
    # Of the third part nothing is left.
    exclude = frozenset({5, *range(200, 300)})
    one = selection.select_from_pool(model, pool, strategy, 12, job.plan, nothing, exclude)
    many = distributed.select_from_pool(
        model, pool, strategy, 12, job, CREW, nothing, exclude=exclude
    )
    assert many == one
    assert exclude.isdisjoint(many.indices)


def test_a_process_that_finds_another_pool_says_so(
    model: LoadedModel, pool: Pool, job: Job, tmp_path: Path
) -> None:
    other = dataclasses.replace(job, made_of=dataclasses.replace(job.made_of, pool_bytes=1))
    with pytest.raises(InvalidInput, match=r"finds another pool or model.*pool_bytes 1 and"):
        distributed.score(model, pool, tmp_path / "scores.parquet", other, CREW, nothing)


@pytest.mark.parametrize(
    ("crew", "parts", "size"),
    [
        (Crew(), 100, 4),
        (Crew(), 3, 3),
        (Crew(most=2), 100, 2),
        (Crew(cpus=0.5), 100, 8),
        (Crew(most=7, cpus=0.0), 100, 7),
    ],
)
def test_there_are_as_many_processes_as_there_is_room_and_work_for(
    crew: Crew, parts: int, size: int
) -> None:
    assert distributed._crew_size(crew, parts) == size


@pytest.mark.parametrize(
    ("crew", "says"),
    [
        (Crew(cpus=8.0), "one process is to have 8 and 0"),
        (Crew(gpus=1.0), "0 GPUs"),
        (Crew(cpus=0.0), "any number of times; say how many"),
    ],
)
def test_processes_that_do_not_fit_are_refused(crew: Crew, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        distributed._crew_size(crew, 10)
