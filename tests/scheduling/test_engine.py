"""The engine's thread: long requests give way between chunks; one that ends is replaced."""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from service.errors import DeadlineExceeded, ModelNotReady, QueueFull, QueueTimeout
from service.inference.devices import Resources
from service.inference.fields import Fields
from service.inference.prediction import Request, never
from service.metrics import Metrics
from service.registry.loading import LoadedModel
from service.registry.registry import Registry
from service.scheduling import engine
from service.scheduling.computation import Computation, Outcome
from service.scheduling.engine import EngineThread
from service.scheduling.runner import Runner, Times
from service.scheduling.scheduler import QueueLimits, Scheduler
from service.scheduling.work import Work
from service.types import Masks, Priority, SamplePlan
from tests.repositories import SLOW, write_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[LoadedModel, LoadedModel]:
    """`slow` sleeps as many milliseconds as its largest input says; `quick` is a plain network.

    Little memory, so that a hundred passes are many chunks.
    """
    root = tmp_path_factory.mktemp("engine")
    write_model(root, "slow", SLOW, shape="[1]")
    write_model(root, "quick")
    registry = Registry(Path(root), Resources(torch.device("cpu"), memory_bytes=2**12))
    registry.scan()
    registry.load_all()
    return registry.resolve("slow", None), registry.resolve("quick", None)


AT_EVERY_CHUNK = Times(slice_s=0.0)


def runner(times: Times = AT_EVERY_CHUNK, limits: QueueLimits | None = None) -> Runner:
    scheduler = Scheduler(100_000, 1.0, limits or QueueLimits(100, 10**9))
    return Runner(scheduler, Metrics(), times=times)


def plan(passes: int, masks: Masks = Masks.SHARED) -> SamplePlan:
    return SamplePlan(passes, seed=3, masks=masks)


@pytest.mark.parametrize("masks", Masks)
@pytest.mark.parametrize("tolerance", [None, 0.05])
def test_a_prediction_that_was_put_aside_at_every_chunk_is_the_same(
    models: tuple[LoadedModel, LoadedModel], masks: Masks, tolerance: float | None
) -> None:
    _, quick = models
    inputs = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    wanted = ("mean", "std", "mutual_information", "quantiles")
    request = Request(inputs, SamplePlan(300, 3, masks, tolerance), wanted)
    [whole] = quick.predict([request])
    run = quick.begin([request])
    pauses = 0
    while not run.advance(lambda: True):
        pauses += 1
    [parts] = run.answers()
    assert pauses > 5
    assert whole is not None
    assert parts is not None
    assert whole.keys() == parts.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(np.asarray(parts[name]), np.asarray(array), err_msg=name)


def test_a_short_request_does_not_wait_for_a_long_one(
    models: tuple[LoadedModel, LoadedModel],
) -> None:
    slow, quick = models
    own = runner()
    done: list[str] = []

    async def ask(name: str, model: LoadedModel, inputs: torch.Tensor, passes: int) -> Fields:
        answer = await own.submit(model, inputs, plan(passes), ["mean"], timeout_s=60.0)
        done.append(name)
        return answer

    async def both() -> list[Fields]:
        long = asyncio.ensure_future(ask("long", slow, torch.full((1, 1), 5.0), 200))
        await asyncio.sleep(0.1)
        short = [
            asyncio.ensure_future(ask("other model", quick, torch.zeros(1, 4), 2)),
            asyncio.ensure_future(ask("same model", slow, torch.full((1, 1), 1.0), 2)),
        ]
        return list(await asyncio.gather(long, *short))

    answers = asyncio.run(both())
    assert done[-1] == "long"
    [alone] = slow.predict([Request(torch.full((1, 1), 5.0), plan(200), ["mean"])])
    assert alone is not None
    np.testing.assert_array_equal(np.asarray(answers[0]["mean"]), np.asarray(alone["mean"]))
    own.close()


def _end(thread: threading.Thread) -> None:
    """Have a thread raise what ends threads, at its next bytecode."""
    assert thread.ident is not None
    number = ctypes.c_ulong(thread.ident)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(number, ctypes.py_object(SystemExit)) == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ended_is_replaced_and_what_waited_is_computed(
    models: tuple[LoadedModel, LoadedModel],
) -> None:
    _, quick = models
    own = runner()
    before = own._engine._thread

    async def ask() -> Fields:
        # It waits for its next step; with that it ends.
        _end(before)
        return await own.submit(quick, torch.zeros(1, 4), plan(3), ["mean"], timeout_s=30.0)

    assert asyncio.run(ask())["mean"] is not None
    assert not before.is_alive()
    found = own._metrics.registry.get_sample_value("candor_engine_restarts_total")
    assert found == 1
    own.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_in_a_step_ends_that_step_and_no_other(
    models: tuple[LoadedModel, LoadedModel],
) -> None:
    slow, quick = models
    own = runner()

    async def ask(model: LoadedModel, inputs: torch.Tensor) -> Fields:
        return await own.submit(model, inputs, plan(3), ["mean"], timeout_s=30.0)

    async def both() -> list[Fields | BaseException]:
        first = asyncio.ensure_future(ask(slow, torch.full((1, 1), 200.0)))
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(ask(quick, torch.zeros(1, 4)))
        _end(own._engine._thread)
        return list(await asyncio.gather(first, second, return_exceptions=True))

    first, second = asyncio.run(both())
    assert "SystemExit" in str(first) or "thread ended" in str(first)
    assert isinstance(second, dict)
    own.close()


def test_an_engine_that_does_not_come_back_counts_as_hung_until_it_does(
    models: tuple[LoadedModel, LoadedModel],
) -> None:
    slow, quick = models
    own = runner(Times(slice_s=0.0, hang_s=0.2))

    async def ask(model: LoadedModel, inputs: torch.Tensor) -> Fields:
        return await own.submit(model, inputs, None, timeout_s=30.0)

    async def story() -> None:
        assert own.hung_s is None
        long = asyncio.ensure_future(ask(slow, torch.full((1, 1), 1000.0)))
        while own.hung_s is None:
            await asyncio.sleep(0.02)
        with pytest.raises(ModelNotReady, match="has not come back") as caught:
            await ask(quick, torch.zeros(1, 4))
        assert caught.value.retry_after_s
        await long
        assert own.hung_s is None
        assert (await ask(quick, torch.zeros(1, 4)))["mean"] is not None

    asyncio.run(story())
    own.close()


def test_a_step_of_many_chunks_is_not_hung_however_long_it_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody waits behind it, so that it is not put aside either."""
    now_s = 0.0
    monkeypatch.setattr(engine, "time", SimpleNamespace(monotonic=lambda: now_s))
    thread = EngineThread(slice_s=1.0)
    busy: list[float] = []

    class Chunks(Computation):
        """Three chunks of 100 seconds."""

        def advance(self, enough: Callable[[], bool] = never) -> list[Outcome]:
            nonlocal now_s
            for _ in range(3):
                now_s += 100.0
                busy.append(thread.busy_s)
                assert not enough()
            return []

    async def story() -> None:
        done = asyncio.Event()
        thread.submit(Chunks([]), lambda _: done.set())
        await asyncio.wait_for(done.wait(), 30.0)

    asyncio.run(story())
    thread.close()
    assert busy == [100.0] * 3


def test_what_waits_too_long_is_given_up_before_the_running_step_ends(
    models: tuple[LoadedModel, LoadedModel],
) -> None:
    slow, quick = models
    own = runner(Times(queue_timeout_s=0.1))

    async def story() -> None:
        long = asyncio.ensure_future(
            own.submit(slow, torch.full((1, 1), 1000.0), None, timeout_s=30.0)
        )
        await asyncio.sleep(0.05)
        with pytest.raises(QueueTimeout, match=r"0\.1 seconds.*CANDOR_QUEUE_TIMEOUT_S") as caught:
            await own.submit(quick, torch.zeros(1, 4), plan(3), ["mean"], timeout_s=30.0)
        assert caught.value.retry_after_s
        assert not long.done()
        await long

    asyncio.run(story())
    own.close()


def test_what_is_displaced_is_told_so(models: tuple[LoadedModel, LoadedModel]) -> None:
    slow, quick = models
    own = runner(limits=QueueLimits(1, 10**9))

    async def ask(priority: Priority) -> Fields:
        return await own.submit(
            quick, torch.zeros(1, 4), plan(3), ["mean"], timeout_s=30.0, priority=priority
        )

    async def story() -> list[Fields | BaseException]:
        long = asyncio.ensure_future(
            own.submit(slow, torch.full((1, 1), 300.0), None, timeout_s=30.0)
        )
        # It came, and at the end of that turn the engine was given it.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        low = asyncio.ensure_future(ask(Priority.LOW))
        await asyncio.sleep(0)
        return list(await asyncio.gather(long, low, ask(Priority.HIGH), return_exceptions=True))

    _, low, high = asyncio.run(story())
    assert isinstance(low, QueueFull)
    assert low.retry_after_s
    assert isinstance(high, dict)
    own.close()


def test_cancelled_requests_do_not_wedge_the_engine(
    models: tuple[LoadedModel, LoadedModel],
) -> None:
    slow, quick = models
    own = runner()

    async def story() -> Fields:
        tasks = [
            asyncio.ensure_future(
                own.submit(slow, torch.full((1, 1), 50.0), plan(3), ["mean"], timeout_s=30.0)
            )
            for _ in range(6)
        ]
        await asyncio.sleep(0.1)  # some run, some wait
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await own.drain(10.0)
        own.draining = False
        return await own.submit(quick, torch.zeros(1, 4), plan(3), ["mean"], timeout_s=30.0)

    assert asyncio.run(story())["mean"] is not None
    own.close()


def test_what_could_not_be_done_in_time_any_more_is_not_computed(
    models: tuple[LoadedModel, LoadedModel],
) -> None:
    slow, _ = models
    # One row × pass a step, so that what waits is not taken together.
    own = Runner(Scheduler(1, 1.0, QueueLimits(100, 10**9)), Metrics(), times=Times(slice_s=10.0))

    async def ask(milliseconds: float, timeout_s: float) -> Fields:
        inputs = torch.full((1, 1), milliseconds)
        return await own.submit(slow, inputs, plan(2), ["mean"], timeout_s=timeout_s)

    async def story() -> list[Fields | BaseException]:
        for _ in range(2):
            await ask(100.0, 30.0)
        # Expected to take as long as those before, it takes five times that.
        first = asyncio.ensure_future(ask(500.0, 30.0))
        await asyncio.sleep(0)
        second, third = (asyncio.ensure_future(ask(100.0, s)) for s in (1.1, 30.0))
        return list(await asyncio.gather(first, second, third, return_exceptions=True))

    first, second, third = asyncio.run(story())
    assert isinstance(first, dict)
    assert isinstance(second, DeadlineExceeded)
    assert isinstance(third, dict)
    passes = own._metrics.registry.get_sample_value("candor_passes_total", {"model": "slow"})
    assert passes == 4 * 2
    own.close()


def test_what_a_request_had_waited_before_it_came_is_of_its_time(
    models: tuple[LoadedModel, LoadedModel],
) -> None:
    slow, _ = models
    own = runner()

    async def story() -> None:
        with pytest.raises(DeadlineExceeded, match="no answer within 60 seconds"):
            await own.submit(slow, torch.full((1, 1), 2000.0), None, timeout_s=60.0, waited_s=59.8)

    asyncio.run(story())
    own.close()


def test_what_waits_is_given_up_for_what_its_answer_will_still_need(
    models: tuple[LoadedModel, LoadedModel],
) -> None:
    slow, quick = models
    own = runner()

    async def ask(spare_s: float = 0.0) -> Fields:
        return await own.submit(
            quick, torch.zeros(1, 4), plan(3), ["mean"], timeout_s=60.0, spare_s=spare_s
        )

    async def story() -> list[Fields | BaseException]:
        long = asyncio.ensure_future(
            own.submit(slow, torch.full((1, 1), 500.0), None, timeout_s=60.0)
        )
        await asyncio.sleep(0.05)
        # The one would be computed after its time, but for what it had; the other is behind it.
        waiting = [ask(spare_s=59.9), ask()]
        found = await asyncio.gather(*waiting, return_exceptions=True)
        await long
        return list(found)

    late, kept = asyncio.run(story())
    assert isinstance(late, DeadlineExceeded | QueueFull)
    assert isinstance(kept, dict)
    own.close()


def _over(engine: EngineThread, steps: int = 1) -> None:
    """Wait until the engine has so much to tell, while the loop has no turn."""
    while len(engine._news) < steps:
        time.sleep(0.001)


def test_who_looks_is_told_before_the_turn_of_the_loop_ends_and_nobody_twice() -> None:
    async def story() -> list[str]:
        told: list[str] = []
        engine = EngineThread()
        done = Mock(Computation)
        engine.submit(done, lambda slice_: told.append("first"))
        _over(engine)
        assert told == []
        engine.look()
        told.append("looked")
        engine.look()
        await asyncio.sleep(0)
        engine.submit(done, lambda slice_: told.append("second"))
        async with asyncio.timeout(60):
            while "second" not in told:
                await asyncio.sleep(0)
        engine.close()
        return told

    assert asyncio.run(story()) == ["first", "looked", "second"]


def test_what_cannot_be_handed_on_is_said_and_keeps_nothing_else_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story() -> list[str]:
        told: list[str] = []
        engine = EngineThread()

        def broken(slice_: object) -> None:
            raise RuntimeError("broken")

        engine.submit(Mock(Computation), broken)
        engine.submit(Mock(Computation), lambda slice_: told.append("second"))
        _over(engine, 2)
        engine.look()
        engine.close()
        return told

    assert asyncio.run(story()) == ["second"]
    assert "broken" in caplog.text


def test_the_scheduler_knows_what_a_request_had_waited(
    models: tuple[LoadedModel, LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, quick = models

    async def story() -> list[float]:
        waited_s: list[float] = []
        own = runner()
        add = own._scheduler.add

        def noting(work: Work, now_s: float) -> list[Work]:
            waited_s.append(work.waited_s)
            return add(work, now_s)

        monkeypatch.setattr(own._scheduler, "add", noting)
        await own.submit(quick, torch.zeros(1, 4), plan(2), timeout_s=60.0, waited_s=1.5)
        own.close()
        return waited_s

    assert asyncio.run(story()) == [1.5]
