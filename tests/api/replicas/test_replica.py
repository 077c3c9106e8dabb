"""Replicas of one repository answer for each other, and hold what doors may still ask for."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch

from service.api.app import build_app, build_service, running
from service.api.engine import Call
from service.api.replicas.loads import HELD_S, Loads
from service.api.replicas.replica import Replica
from service.api.replicas.requests import BEGUN, Whole
from service.api.workers import messages
from service.registry.registry import Registry
from service.settings import load_settings
from service.types import Masks, SamplePlan
from tests.api.replicas.others import Clock
from tests.api.replicas.test_requests import body_of, request
from tests.registry.test_registry import registry_of
from tests.repositories import build_network, write_model

ROW = np.array([[0.5, -1.0, 2.0, 0.0]], np.float32)
CALL = messages.write_call(
    Call("id", SamplePlan(20, 7, Masks.SHARED), ("mean", "std", "label"), False, 30.0)
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_model(tmp_path, "mine")
    return tmp_path


@contextlib.asynccontextmanager
async def replica_of(root: Path) -> AsyncIterator[Replica]:
    url = f"sqlite:///{root / 'samples.sqlite'}"
    service = build_service(load_settings({"models": root, "database_url": url}, environment={}))
    async with running(service):
        await asyncio.to_thread(service.registry.loaded.wait)
        yield Replica(service, build_app(service).app)


def other_weights(root: Path, seed: int = 1) -> None:
    folder = root / "mine"
    file = folder / "1" / "weights.safetensors"
    safetensors.torch.save_model(build_network(folder, seed), str(file))


def test_another_replica_computes_what_one_resolved_to_the_last_bit(root: Path) -> None:
    async def run() -> None:
        async with replica_of(root) as one, replica_of(root) as two:
            found = await one.resolve("mine", None, "key")
            answers = [await each.compute(found["digest"], ROW, CALL) for each in (one, two)]
            for name in ("mean", "std", "label"):
                first, second = (answer["fields"][name] for answer in answers)
                np.testing.assert_array_equal(first, second, err_msg=name)

    asyncio.run(run())


def test_inputs_that_must_not_be_written_are_taken(root: Path) -> None:
    async def run() -> None:
        async with replica_of(root) as replica:
            rows = ROW.copy()
            rows.flags.writeable = False
            digest = (await replica.resolve("mine", None, "key"))["digest"]
            assert (await replica.compute(digest, rows, CALL))["kind"] == "computed"

    asyncio.run(run())


def test_what_is_refused_says_so_and_what_is_not_here_is_elsewhere(root: Path) -> None:
    async def run() -> None:
        async with replica_of(root) as replica:
            assert (await replica.compute("no digest", ROW, CALL))["kind"] == "elsewhere"
            refused = await replica.resolve("yours", None, "key")
            assert refused["kind"] == "failed"
            assert "there is no model 'yours'" in refused["error"]["message"]

    asyncio.run(run())


def test_routes_are_answered_whole(root: Path) -> None:
    async def run(whole: Whole) -> list[Any]:
        async with replica_of(root) as replica:
            return [part async for part in replica.answer(whole)]

    begun, first, *rest = asyncio.run(run(request("GET", "/models/mine")))
    assert begun == BEGUN
    assert first["status"] == 200
    assert first["about"] == {"model": "mine", "route": "/models/{name}"}
    assert b'"name":"mine"' in body_of([first, *rest])


def test_a_change_leaves_what_served_before_for_those_that_others_still_answer(root: Path) -> None:
    async def run() -> None:
        async with replica_of(root) as one, replica_of(root) as two:
            old = (await one.resolve("mine", None, "key"))["digest"]
            before = await two.compute(old, ROW, CALL)
            other_weights(root)
            two.told(changing=True)
            answer = await two.change(request("POST", "/models/mine/reload"))
            assert answer[0]["status"] == 200
            new = (await two.resolve("mine", None, "key"))["digest"]
            assert new != old
            two.counted()
            after = await two.compute(old, ROW, CALL)
            np.testing.assert_array_equal(after["fields"]["mean"], before["fields"]["mean"])
            changed = await two.compute(new, ROW, CALL)
            assert (changed["fields"]["mean"] != before["fields"]["mean"]).any()
            assert (await one.compute(new, ROW, CALL))["kind"] == "elsewhere"
            # What doors have begun with just before the end is computed just after it.
            two.told(changing=False)
            two.counted()
            assert (await two.compute(old, ROW, CALL))["kind"] == "computed"

    asyncio.run(run())


def test_one_that_still_loads_says_of_no_version_that_it_is_not_ready(root: Path) -> None:
    async def run() -> None:
        async with replica_of(root) as replica:
            loaded = replica._service.registry.loaded
            assert replica.counted()
            loaded.clear()
            assert replica.counted() == []
            loaded.set()

    asyncio.run(run())


def test_what_is_unloaded_on_request_is_said(root: Path) -> None:
    async def run() -> None:
        async with replica_of(root) as replica:
            assert replica.unloaded() == []
            await replica.change(request("POST", "/models/mine/unload"))
            assert replica.unloaded() == ["mine"]

    asyncio.run(run())


def test_a_share_of_the_requests_is_resolved_one_by_one(root: Path) -> None:
    labels = "\n[serving]\nversions = 'all'\nlabels = { canary = 2 }\ncanary_share = 0.5\n"
    toml = root / "mine" / "model.toml"
    toml.write_text(toml.read_text() + labels)
    shutil.copytree(root / "mine" / "1", root / "mine" / "2")

    async def run() -> None:
        async with replica_of(root) as replica:
            found = [await replica.resolve("mine", None, str(key)) for key in range(40)]
            assert {each["by_key"] for each in found} == {True}
            assert len({each["digest"] for each in found}) == 2
            assert not (await replica.resolve("mine", 1, "key"))["by_key"]

    asyncio.run(run())


def loads_of(root: Path) -> tuple[Registry, Loads, Clock]:
    registry, clock = registry_of(root), Clock()
    return registry, Loads(registry, clock), clock


def test_the_same_weights_have_the_same_digest_and_others_another(root: Path) -> None:
    registry, loads, _ = loads_of(root)
    digest, _ = loads.note(registry.resolve("mine", None))
    registry.reload("mine")
    assert loads.note(registry.resolve("mine", None))[0] == digest
    other_weights(root)
    registry.reload("mine")
    assert loads.note(registry.resolve("mine", None))[0] != digest


def test_what_serves_no_more_is_let_go_of_once_nobody_has_asked_for_it_lately(root: Path) -> None:
    registry, loads, clock = loads_of(root)
    digest, _ = loads.note(registry.resolve("mine", None))
    clock.now_s = 2 * HELD_S
    loads.let_go()
    assert loads.find(digest) is not None
    registry.unload("mine")
    clock.now_s += HELD_S / 2
    loads.let_go()
    assert loads.find(digest) is not None
    clock.now_s += 2 * HELD_S
    loads.let_go()
    assert loads.find(digest) is None
    assert not loads._known
