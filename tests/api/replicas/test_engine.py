"""A door's engine: whoever dies, the request is answered by another, within its deadline."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import numpy as np
import pytest

from service.api.engine import Call, Computed
from service.api.replicas import engine
from service.api.replicas.engine import ReplicatedEngine
from service.api.workers import messages
from service.errors import CandorError, ClientLeft, DeadlineExceeded, ModelNotReady, QueueFull
from service.scheduling.attendant import by_waiting
from service.types import Masks, Priority, SamplePlan
from tests.api.replicas.others import Here
from tests.api.workers.test_messages import version

PLAN = SamplePlan(7, 3, Masks.SHARED)
CALL = Call("id", PLAN, ("mean",), False, 30.0)
INPUTS = np.arange(6, dtype=np.float32).reshape(3, 2)


class Replica:
    """Doubles its inputs, or does what it is told."""

    def __init__(self) -> None:
        self.serving = "one"
        self.by_key = False
        self.lacks = 0
        self.error: CandorError | None = None
        self.never = False
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.calls: list[Call] = []

    async def resolve(self, name: str | None, number: int | str | None, key: str) -> Any:
        if self.error is not None:
            return {"kind": "failed", "error": messages.write_error(self.error)}
        written = messages.write_model(version())
        return {
            "kind": "resolved",
            "digest": self.serving,
            "model": written,
            "by_key": self.by_key,
        }

    async def compute(self, digest: str, inputs: Any, call: Any) -> Any:
        self.calls.append(messages.read_call(call))
        self.began.set()
        if self.lacks:
            self.lacks -= 1
            return {"kind": "elsewhere"}
        if self.error is not None:
            return {"kind": "failed", "error": messages.write_error(self.error)}
        if self.never:
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.set()
        fields = {"mean": 2 * inputs, "std": None}
        return {"kind": "computed", "fields": fields, "plan": messages.write_plan(PLAN)}


async def ask(replica: Replica, dying: int = 0, call: Call = CALL) -> Computed:
    own = ReplicatedEngine(Here(replica, dying), 30.0)
    async with asyncio.timeout(30.0):
        model = await own.resolve("mine", None, "id")
        return await own.compute(model, INPUTS, call, None)


@pytest.mark.parametrize("dying", [0, 1, 3])
def test_a_request_whose_replica_dies_is_answered_by_another(dying: int) -> None:
    answer = asyncio.run(ask(Replica(), dying))
    np.testing.assert_array_equal(answer.fields["mean"], 2 * INPUTS)
    assert answer.fields["std"] is None
    assert answer.plan == PLAN


def test_another_is_asked_for_no_longer_than_the_deadline_allows() -> None:
    async def run() -> None:
        replica = Replica()
        others = Here(replica)
        own = ReplicatedEngine(others, 30.0)
        model = await own.resolve("mine", None, "id")
        others.dying = 10**6
        call = dataclasses.replace(CALL, timeout_s=0.2)
        with pytest.raises(DeadlineExceeded, match="or one died"):
            await own.compute(model, INPUTS, call, None)
        assert replica.calls == []
        others.dying = 2
        await own.compute(model, INPUTS, CALL, None)
        # What has passed of it is what the replica is told.
        assert replica.calls[0].waited_s > 0.0
        assert dataclasses.replace(replica.calls[0], waited_s=0.0) == CALL

    asyncio.run(run())


def test_what_a_request_has_waited_before_counts() -> None:
    async def run() -> None:
        replica = Replica()
        own = ReplicatedEngine(Here(replica), 30.0)
        model = await own.resolve("mine", None, "id")
        with pytest.raises(DeadlineExceeded):
            await own.compute(model, INPUTS, dataclasses.replace(CALL, waited_s=31.0), None)
        assert replica.calls == []
        await own.compute(model, INPUTS, dataclasses.replace(CALL, waited_s=10.0), None)
        assert 9.0 < replica.calls[0].waited_s < 30.0

    asyncio.run(run())


def test_where_none_says_which_version_serves_nobody_waits_for_ever() -> None:
    async def run() -> None:
        own = ReplicatedEngine(Here(Replica(), dying=10**6), 0.1)
        with pytest.raises(ModelNotReady, match=r"no replica answered within 0\.1 seconds"):
            await own.resolve("mine", None, "id")

    asyncio.run(run())


def test_nobody_waits_for_it_longer_than_their_own_deadline() -> None:
    async def run() -> None:
        own = ReplicatedEngine(Here(Replica(), dying=10**6), 30.0)
        own.check_door(0.1, Priority.NORMAL, 0)
        with pytest.raises(DeadlineExceeded, match=r"no replica answered within 0\.1 seconds"):
            await own.resolve("mine", None, "id")

    asyncio.run(run())


def test_a_replica_that_lacks_the_version_is_passed_over() -> None:
    replica = Replica()
    replica.lacks = 2
    answer = asyncio.run(ask(replica))
    np.testing.assert_array_equal(answer.fields["mean"], 2 * INPUTS)


def test_a_version_that_no_replica_has_any_more_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_ELSEWHERE_S", 0.1)

    async def run() -> None:
        replica = Replica()
        replica.lacks = 10**6
        others = Here(replica)
        own = ReplicatedEngine(others, 30.0)
        model = await own.resolve("mine", None, "id")
        own.told(changing=True)
        with pytest.raises(ModelNotReady, match="unloaded meanwhile"):
            await own.compute(model, INPUTS, CALL, None)
        # Who comes next is told what serves now, though models are still being changed.
        await own.resolve("mine", None, "id")
        assert others.calls.count("resolve") == 2

    asyncio.run(run())


@pytest.mark.parametrize("error", [QueueFull("full", retry_after_s=2.5), ModelNotReady("loading")])
def test_what_a_replica_refuses_is_refused_as_it_said(error: CandorError) -> None:
    replica = Replica()
    replica.error = error
    with pytest.raises(type(error)) as caught:
        asyncio.run(ask(replica))
    assert vars(caught.value) == vars(error)


def test_a_replica_stops_when_nobody_waits_any_more() -> None:
    async def run() -> None:
        replica = Replica()
        replica.never = True
        own = ReplicatedEngine(Here(replica), 30.0)
        model = await own.resolve("mine", None, "id")
        with pytest.raises(ClientLeft):
            await own.compute(model, INPUTS, CALL, by_waiting(replica.began.wait))
        async with asyncio.timeout(30.0):
            await replica.cancelled.wait()

    asyncio.run(run())


def test_which_version_serves_is_asked_once_in_a_while() -> None:
    async def run() -> None:
        replica = Replica()
        others = Here(replica)
        own = ReplicatedEngine(others, 30.0)
        for _ in range(3):
            await own.resolve("mine", None, "id")
        assert others.calls == ["resolve"]
        await own.resolve("mine", 3, "id")
        assert others.calls == ["resolve"] * 2
        replica.serving = "two"
        own.told(changing=True)
        found = await own.resolve("mine", None, "id")
        assert getattr(found, "digest", None) == "one"
        own.told(changing=False)
        found = await own.resolve("mine", None, "id")
        assert getattr(found, "digest", None) == "two"

    asyncio.run(run())


def test_what_was_asked_before_a_change_is_not_known_after_it() -> None:
    async def run() -> None:
        asked, go_on = asyncio.Event(), asyncio.Event()

        class Slow(Replica):
            async def resolve(self, name: str | None, number: int | str | None, key: str) -> Any:
                found = await super().resolve(name, number, key)
                asked.set()
                await go_on.wait()
                return found

        replica = Slow()
        own = ReplicatedEngine(Here(replica), 30.0)
        resolving = asyncio.create_task(own.resolve("mine", None, "id"))
        await asked.wait()
        replica.serving = "two"
        own.told(changing=True)
        own.told(changing=False)
        go_on.set()
        assert getattr(await resolving, "digest", None) == "one"
        found = await own.resolve("mine", None, "id")
        assert getattr(found, "digest", None) == "two"

    asyncio.run(run())


def test_what_is_known_stands_while_models_are_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_FRESH_S", -1.0)

    async def run() -> None:
        others = Here(Replica())
        own = ReplicatedEngine(others, 30.0)
        await own.resolve("mine", None, "id")
        await own.resolve("mine", None, "id")
        assert len(others.calls) == 2
        own.told(changing=True)
        await own.resolve("mine", None, "id")
        assert len(others.calls) == 2

    asyncio.run(run())


def test_where_some_requests_get_another_version_each_is_asked_about() -> None:
    async def run() -> None:
        replica = Replica()
        replica.by_key = True
        others = Here(replica)
        own = ReplicatedEngine(others, 30.0)
        for _ in range(3):
            await own.resolve("mine", None, "id")
        assert len(others.calls) == 3

    asyncio.run(run())
