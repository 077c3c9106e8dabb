"""What is submitted is done in order on one thread, and nobody waits for what is never done."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from service.errors import InvalidInput, ModelNotReady
from service.inference import reclaiming
from service.inference.devices import Resources
from service.registry.loader import Loader
from service.registry.registry import Registry
from tests.repositories import write_model
from tests.waiting import wait_for

WAIT_S = 60.0

# An interruption may fall into a callback in which exceptions are only printed; it is made again.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    # What is frozen stays so in this process, in which other tests look for garbage.
    monkeypatch.setattr(reclaiming, "set_apart", lambda: None)
    registry = Registry(tmp_path, Resources(torch.device("cpu"), memory_bytes=2**20))
    registry.scan()
    return registry


@pytest.fixture
def loader(registry: Registry) -> Iterator[Loader]:
    loader = Loader(registry, watch_s=0.0)
    loader.start()
    yield loader
    loader.stop()
    assert loader.join(WAIT_S)


def test_what_is_submitted_is_done_in_its_order_on_one_thread(loader: Loader) -> None:
    done: list[int] = []

    def note(number: int) -> str:
        done.append(number)
        return threading.current_thread().name

    futures = [loader.submit(functools.partial(note, number)) for number in range(5)]
    assert {future.result(WAIT_S) for future in futures} == {"loader"}
    assert done == [0, 1, 2, 3, 4]


def test_what_fails_harms_nothing_that_follows(loader: Loader) -> None:
    def fail() -> None:
        raise InvalidInput("no")

    failed, after = loader.submit(fail), loader.submit(lambda: "done")
    with pytest.raises(InvalidInput):
        failed.result(WAIT_S)
    assert after.result(WAIT_S) == "done"


def test_what_runs_and_what_waits_is_refused_when_the_server_ends(loader: Loader) -> None:
    begun = threading.Event()

    def never_done() -> None:
        begun.set()
        while True:
            time.sleep(0.01)

    running, waiting = loader.submit(never_done), loader.submit(never_done)
    assert begun.wait(WAIT_S)
    loader.stop()
    for future in (running, waiting, loader.submit(never_done)):
        with pytest.raises(ModelNotReady, match="shutting down"):
            future.result(WAIT_S)


def test_an_interruption_that_was_lost_is_made_again(loader: Loader) -> None:
    begun, lost = threading.Event(), threading.Event()

    def stubborn() -> None:
        begun.set()
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            lost.set()
        while True:
            time.sleep(0.01)

    running = loader.submit(stubborn)
    assert begun.wait(WAIT_S)
    loader.stop()
    assert loader.join(WAIT_S)
    assert lost.is_set()
    with pytest.raises(ModelNotReady, match="shutting down"):
        running.result(WAIT_S)


def test_a_loader_that_watches_takes_up_what_comes(registry: Registry, tmp_path: Path) -> None:
    loader = Loader(registry, watch_s=0.05)
    loader.start()
    try:
        write_model(tmp_path, "one")
        wait_for(lambda: any(model.ready for model in registry.models()), WAIT_S)
        assert registry.resolve("one", None).ref.version == 1
    finally:
        loader.stop()
        assert loader.join(WAIT_S)


def test_a_loader_that_was_never_started_ends(registry: Registry) -> None:
    loader = Loader(registry, watch_s=0.0)
    loader.stop()
    assert loader.join(0.0)


def test_what_was_unloaded_is_let_go(loader: Loader, registry: Registry, tmp_path: Path) -> None:
    write_model(tmp_path, "one")
    loader.submit(lambda: registry.load("one")).result(WAIT_S)
    held = registry.resolve("one", None)
    loader.submit(lambda: registry.unload("one")).result(WAIT_S)
    assert registry.leftovers() == 1, "as while a request runs on it"
    del held
    wait_for(lambda: not registry.leftovers(), WAIT_S)
