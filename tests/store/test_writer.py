"""Samples are written behind: what was acknowledged is there, what was dropped is counted."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from service.store import samples as store_module
from service.store.contract import NewSample
from service.store.samples import SampleStore
from service.store.writer import SampleWriter

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("KILLS", "2"))
"""Of each database; `make kill-store` does it twenty times."""


class Told:
    """What a writer said."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        self.new = 0
        self.dropped = 0
        self.changed = threading.Condition()

    def on_kept(self, batch: Sequence[NewSample], new: Counter[str]) -> None:
        with self.changed:
            self.kept += [sample.request_id for sample in batch]
            self.new += new.total()
            self.changed.notify_all()

    def on_dropped(self, count: int) -> None:
        with self.changed:
            self.dropped += count
            self.changed.notify_all()

    def wait_for(self, met: Callable[[], bool]) -> None:
        # Not all that is waited for is told: look again and again.
        with self.changed:
            assert any(self.changed.wait_for(met, 0.02) for _ in range(1500))


def sample(number: int, size: int = 8) -> NewSample:
    values = np.full(size, number, dtype=np.float64)
    return NewSample("digits", 1, 0.0, f"request-{number}", 0, values, {"variance": 1.0})


def writer_of(store: SampleStore, told: Told, most_bytes: int = 2**20) -> SampleWriter:
    return SampleWriter(store, most_bytes, told.on_kept, told.on_dropped)


def test_what_is_offered_is_kept_once_and_said(url: str) -> None:
    told, store = Told(), SampleStore(url)
    writer = writer_of(store, told)
    for number in range(1200):
        writer.offer([sample(number), sample(number)])
    assert writer.close(30.0)
    assert Counter(told.kept) == Counter(2 * [f"request-{n}" for n in range(1200)])
    assert (told.new, told.dropped) == (1200, 0)
    assert store.counts() == {("digits", "unlabelled"): 1200}
    store.close()


def test_a_full_queue_drops_and_counts_and_keeping_resumes_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store_module, "_BUSY_S", 0.02)
    path = tmp_path / "samples.sqlite"
    store = SampleStore(f"sqlite:///{path}")
    store.prepare()
    told = Told()
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        writer = writer_of(store, told, most_bytes=10 * 64)
        for number in range(15):
            writer.offer([sample(number)])
        told.wait_for(lambda: told.dropped == 5 and writer.troubled)
        assert not told.kept
        other.execute("ROLLBACK")
    told.wait_for(lambda: len(told.kept) == 10)
    writer.offer([sample(99)])
    told.wait_for(lambda: len(told.kept) == 11)
    assert not writer.troubled
    assert writer.close(30.0)
    said = " ".join(record.message for record in caplog.records)
    assert "database is locked" in said
    assert "samples are kept again" in said
    store.close()


def test_a_database_that_comes_later_gets_what_waited(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    told, store = Told(), SampleStore(f"sqlite:///{folder / 'samples.sqlite'}")
    writer = writer_of(store, told)
    writer.offer([sample(1)])
    while not writer.troubled:
        threading.Event().wait(0.01)
    folder.mkdir()
    told.wait_for(lambda: told.kept == ["request-1"])
    assert writer.close(30.0)
    store.close()


def test_what_comes_after_the_end_is_dropped(url: str) -> None:
    told, store = Told(), SampleStore(url)
    writer = writer_of(store, told)
    assert writer.close(30.0)
    writer.offer([sample(1)])
    assert told.dropped == 1
    store.close()


def test_what_was_acknowledged_survives_a_kill(url: str) -> None:
    moments = random.Random(0)
    acknowledged: list[str] = []
    for run in range(KILLS):
        command = [sys.executable, "-m", "tests.store.killed_writer", url, str(run)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            acknowledged.append(process.stdout.readline().strip())
            killer = threading.Timer(
                moments.uniform(0.0, 0.7), process.send_signal, [signal.SIGKILL]
            )
            killer.start()
            acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
            killer.join()
    store = SampleStore(url)
    store.prepare()
    held = Counter(found.request_id for found in store.every("digits", None))
    assert len(acknowledged) > KILLS
    assert set(acknowledged) <= held.keys()
    assert set(held.values()) == {1}
    store.close()
