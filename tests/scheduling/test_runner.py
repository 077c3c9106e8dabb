"""Between event loop and engine: different plans in one step, and nobody computed for who left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from service.errors import ClientLeft, EngineFailure
from service.inference.devices import Resources
from service.inference.fields import Fields
from service.inference.prediction import Prediction, Request
from service.metrics import Metrics
from service.registry.loading import LoadedModel
from service.registry.registry import Registry
from service.scheduling.attendant import by_waiting
from service.scheduling.runner import Runner
from service.scheduling.scheduler import QueueLimits, Scheduler
from service.types import Masks, SamplePlan
from tests.repositories import FRAGILE, SLOW, build_network, write_model


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """Sleeps as many milliseconds as its largest input says."""
    root = tmp_path_factory.mktemp("slow")
    write_model(root, "slow", SLOW, shape="[1]")
    return loaded(root)


def loaded(root: Path) -> LoadedModel:
    registry = Registry(root, Resources(torch.device("cpu"), memory_bytes=2**20))
    registry.scan()
    registry.load_all()
    return registry.resolve("slow", None)


def runner() -> Runner:
    return Runner(Scheduler(100_000, 1.0, QueueLimits(100, 10**9)), Metrics())


def plan(seed: int) -> SamplePlan:
    return SamplePlan(passes=3, seed=seed, masks=Masks.SHARED)


def count(metrics: Metrics, name: str) -> float:
    return metrics.registry.get_sample_value(name, {"model": "slow"}) or 0.0


def test_requests_of_other_seeds_share_a_step_and_get_their_own_answers(slow: LoadedModel) -> None:
    own = runner()
    inputs = torch.linspace(-2.0, -1.0, 4)[:, None]

    async def ask(seed: int) -> Fields:
        return await own.submit(slow, inputs, plan(seed), ["mean"], timeout_s=30.0)

    async def together() -> list[Fields]:
        return await asyncio.gather(*(ask(seed) for seed in (0, 1, 0, 2)))

    answers = asyncio.run(together())
    metrics = own._metrics
    assert count(metrics, "candor_batch_rows_count") == 1
    for seed, answer in zip((0, 1, 0, 2), answers, strict=True):
        [alone] = slow.predict([Request(inputs, plan(seed), ["mean"])])
        assert alone is not None
        assert answer["mean"] is not None
        assert alone["mean"] is not None
        np.testing.assert_allclose(answer["mean"], alone["mean"], atol=1e-6)
    assert count(metrics, "candor_passes_total") == 4 * 4 * 3


def test_a_running_step_skips_requests_whose_client_left(slow: LoadedModel) -> None:
    own = runner()
    asked: list[int] = []
    leave = asyncio.Event()

    async def ask(seed: int, milliseconds: float, *, stays: bool) -> Fields:
        asked.append(seed)
        left = None if stays else by_waiting(leave.wait)
        inputs = torch.tensor([[milliseconds]])
        return await own.submit(slow, inputs, plan(seed), ["mean"], timeout_s=30.0, left=left)

    async def crowd() -> list[Fields | BaseException]:
        # All three run in one step, those of one seed at a time.
        tasks = [
            asyncio.ensure_future(ask(0, 200.0, stays=True)),
            asyncio.ensure_future(ask(1, 100.0, stays=False)),
            asyncio.ensure_future(ask(2, 1.0, stays=True)),
        ]
        await asyncio.sleep(0.15)
        leave.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, gone, last = asyncio.run(crowd())
    assert isinstance(first, dict)
    assert isinstance(gone, ClientLeft)
    assert isinstance(last, dict)
    metrics = own._metrics
    assert count(metrics, "candor_batch_rows_count") == 1
    assert count(metrics, "candor_passes_total") == 2 * 3


def test_two_loads_of_one_version_never_share_a_step(slow: LoadedModel, tmp_path: Path) -> None:
    """A reload while requests wait: each is answered by the weights that it began with."""
    folder = write_model(tmp_path, "slow", SLOW, shape="[1]")
    other = build_network(folder, seed=1)
    safetensors.torch.save_model(other, str(folder / "1" / "weights.safetensors"))
    again = loaded(tmp_path)
    assert again.ref == slow.ref
    own = runner()
    inputs = torch.linspace(-2.0, -1.0, 4)[:, None]

    async def ask(model: LoadedModel) -> Fields:
        return await own.submit(model, inputs, plan(0), ["mean"], timeout_s=30.0)

    async def together() -> list[Fields]:
        return await asyncio.gather(*(ask(model) for model in (slow, again, slow, again)))

    answers = asyncio.run(together())
    assert count(own._metrics, "candor_batch_rows_count") == 2
    for model, answer in zip((slow, again, slow, again), answers, strict=True):
        [alone] = model.predict([Request(inputs, plan(0), ["mean"])])
        assert alone is not None
        np.testing.assert_allclose(answer["mean"], alone["mean"], atol=1e-6)  # type: ignore[arg-type]
    assert not np.allclose(answers[0]["mean"], answers[1]["mean"], atol=1e-3)  # type: ignore[arg-type]


def test_the_engine_has_its_next_full_step_before_it_is_done_with_one(slow: LoadedModel) -> None:
    scheduler = Scheduler(3, 1.0, QueueLimits(100, 10**9))
    own = Runner(scheduler, Metrics())

    async def crowd() -> list[Fields]:
        requests = (
            own.submit(slow, torch.tensor([[100.0]]), plan(0), ["mean"], timeout_s=30.0)
            for _ in range(4)
        )
        tasks = [asyncio.ensure_future(request) for request in requests]
        await asyncio.sleep(0)
        assert len(scheduler) == 4
        # That the engine takes them is planned for the end of the turn in which they came.
        await asyncio.sleep(0)
        assert len(scheduler) == 2
        return await asyncio.gather(*tasks)

    assert len(asyncio.run(crowd())) == 4
    assert count(own._metrics, "candor_batch_rows_count") == 4


def test_a_model_that_ends_the_program_ends_its_own_request_and_nothing_else(
    slow: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Runner(Scheduler(3, 1.0, QueueLimits(100, 10**9)), Metrics())

    def leave(*_: object) -> Prediction:
        raise SystemExit(3)

    async def ask() -> Fields:
        return await own.submit(slow, torch.tensor([[1.0]]), plan(0), ["mean"], timeout_s=30.0)

    with monkeypatch.context() as broken:
        broken.setattr(LoadedModel, "begin", leave)
        with pytest.raises(EngineFailure, match="SystemExit: 3"):
            asyncio.run(ask())
    assert asyncio.run(ask())["mean"] is not None
    own.close()


def test_a_step_that_was_handed_over_is_not_run_once_its_client_has_left(
    slow: LoadedModel,
) -> None:
    own = Runner(Scheduler(3, 1.0, QueueLimits(100, 10**9)), Metrics())

    async def crowd() -> list[Fields | BaseException]:
        leave = asyncio.Event()
        tasks = [
            asyncio.ensure_future(
                own.submit(
                    slow, torch.tensor([[100.0]]), plan(0), ["mean"], timeout_s=30.0, left=left
                )
            )
            for left in (None, by_waiting(leave.wait))
        ]
        # Both are the engine's; one runs for three tenths of a second, a client is looked at after
        # one.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(own._scheduler) == 0
        leave.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, gone = asyncio.run(crowd())
    assert isinstance(first, dict)
    assert isinstance(gone, ClientLeft)
    assert count(own._metrics, "candor_batch_rows_count") == 1


def test_one_bad_request_costs_its_batch_another_one_and_not_a_run_for_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path, "slow", FRAGILE, shape="[1]")
    fragile = loaded(tmp_path)
    own = runner()
    begun: list[int] = []
    begin = LoadedModel.begin

    def noted(model: LoadedModel, requests: Sequence[Request], *more: Any) -> Any:
        begun.append(len(requests))
        return begin(model, requests, *more)

    async def ask(value: float) -> Fields:
        return await own.submit(fragile, torch.tensor([[value]]), plan(0), ["mean"], timeout_s=30.0)

    async def together() -> list[Fields | BaseException]:
        values = [1.0] * 32
        values[20] = 1000.0
        return await asyncio.gather(*map(ask, values), return_exceptions=True)

    with monkeypatch.context() as watched:
        watched.setattr(LoadedModel, "begin", noted)
        answers = asyncio.run(together())
    assert [n for n, answer in enumerate(answers) if isinstance(answer, EngineFailure)] == [20]
    assert begun == [32, 16, 16, 8, 4, 4, 2, 1, 1, 2, 8]
    [alone] = fragile.predict([Request(torch.tensor([[1.0]]), plan(0), ["mean"])])
    assert alone is not None
    for answer in answers[:20] + answers[21:]:
        assert isinstance(answer, dict)
        np.testing.assert_allclose(answer["mean"], alone["mean"], atol=1e-6)  # type: ignore[arg-type]
    own.close()
