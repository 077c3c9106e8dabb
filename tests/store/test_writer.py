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
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from service.errors import StoreError
from service.store import samples as store_module
from service.store.contract import NewRows, NewSample
from service.store.samples import SampleStore
from service.store.writer import SampleWriter
from tests.databases import sqlite_address

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


def rows(*numbers: int, version: int = 1, model: str = "digits") -> NewRows:
    """Of one request, each row its number eight times: 64 bytes."""
    values = np.repeat(np.array(numbers, dtype=np.float64)[:, None], 8, axis=1)
    places = np.arange(len(numbers))
    scores = {"variance": np.ones(len(numbers))}
    ids = np.full(len(numbers), f"request-{numbers[0]}", dtype=np.object_)
    return NewRows(model, version, np.zeros(len(numbers)), ids, places, values, scores)


def writer_of(store: SampleStore, told: Told, most_bytes: int = 2**20) -> SampleWriter:
    return SampleWriter(store, most_bytes, told.on_kept, told.on_dropped)


def test_what_is_offered_is_kept_once_and_said(url: str) -> None:
    told, store = Told(), SampleStore(url)
    writer = writer_of(store, told, most_bytes=2**24)
    for number in range(1200):
        writer.offer(rows(number))
        writer.offer(rows(number))
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
        writer = writer_of(store, told, most_bytes=10 * (64 + 1024))
        for number in range(15):
            writer.offer(rows(number))
        told.wait_for(lambda: told.dropped == 5 and writer.troubled)
        assert not told.kept
        other.execute("ROLLBACK")
    told.wait_for(lambda: len(told.kept) == 10)
    writer.offer(rows(99))
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
    writer.offer(rows(1))
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
    writer.offer(rows(1))
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


def test_what_the_database_refuses_is_dropped_and_holds_up_nothing(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """PostgreSQL has no number above 2^63 - 1, and SQLite's driver neither."""
    told, store = Told(), SampleStore(url)
    writer = writer_of(store, told)
    for number in range(5):
        writer.offer(rows(number))
    writer.offer(rows(5, version=2**63, model="odd"))
    for number in range(6, 12):
        writer.offer(rows(number))
    assert writer.close(30.0)
    assert store.counts() == {("digits", "unlabelled"): 11}
    assert told.dropped == 1
    [record] = [r for r in caplog.records if "a sample of odd is dropped" in r.getMessage()]
    assert record.__dict__["model"] == "odd"
    assert record.__dict__["request_id"]
    store.close()


def test_whatever_goes_wrong_the_thread_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Tables of a version that is not known here, as after going back to an older Candor."""
    told, store = Told(), SampleStore(sqlite_address(tmp_path))
    store.prepare()
    other = SampleStore(sqlite_address(tmp_path))
    with closing(sqlite3.connect(tmp_path / "samples.sqlite", isolation_level=None)) as raw:
        [known] = raw.execute("SELECT version_num FROM alembic_version").fetchone()
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
        writer = writer_of(other, told)
        writer.offer(rows(1))
        told.wait_for(lambda: writer.troubled)
        assert "9999" in caplog.text
        raw.execute("UPDATE alembic_version SET version_num = ?", [known])
    told.wait_for(lambda: told.kept == ["request-1"])
    assert writer.close(30.0)

    def burst() -> None:
        raise MemoryError

    tended = SampleWriter(store, 2**20, told.on_kept, told.on_dropped, burst)
    tended.offer(rows(2))
    told.wait_for(lambda: told.kept == ["request-1", "request-2"])
    told.wait_for(lambda: tended.troubled)
    tended.close(0.0)
    store.close()
    other.close()


def test_small_rows_count_for_what_they_take(url: str) -> None:
    told, store = Told(), SampleStore(url)
    writer = writer_of(store, told, most_bytes=100_000)
    assert 50 < writer.room(4) < 100
    writer.offer(rows(*range(200)))
    assert told.dropped == 200 - writer.room(64) - len(told.kept) or told.dropped > 100
    assert writer.close(30.0)
    assert len(told.kept) + told.dropped == 200
    store.close()


def test_what_waits_can_be_discarded(tmp_path: Path) -> None:
    store = SampleStore(sqlite_address(tmp_path))
    store.prepare()
    told = Told()
    with closing(sqlite3.connect(tmp_path / "samples.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        writer = writer_of(store, told)
        for number in range(4):
            writer.offer(rows(number))
        told.wait_for(lambda: bool(writer._writing))
        # It is on its way to the disk, and how that ends cannot be known.
        with pytest.raises(StoreError, match="being written"):
            writer.discard(lambda held: held.request_ids == "request-1", 0.05)
        other.execute("ROLLBACK")
    told.wait_for(lambda: len(told.kept) >= 3)
    assert writer.discard(lambda held: held.rows >= 0, 30.0) in (0, 1)
    assert writer.close(30.0)
    assert store.counts()["digits", "unlabelled"] in (3, 4)
    store.close()


def test_large_rows_go_in_several_transactions(url: str) -> None:
    told, store = Told(), SampleStore(url)
    batches: list[int] = []
    keep = store.keep

    def counted(new: Sequence[NewSample]) -> Counter[str]:
        batches.append(sum(sample.input.nbytes for sample in new))
        return keep(new)

    store.keep = counted  # type: ignore[method-assign]
    writer = SampleWriter(store, 2**28, told.on_kept, told.on_dropped)
    values = np.arange(20 * 2**18, dtype=np.float32).reshape(20, -1)
    ids = np.full(20, "request", dtype=np.object_)
    writer.offer(NewRows("digits", 1, np.zeros(20), ids, np.arange(20), values, {}))
    assert writer.flush(60.0)
    assert sum(batches) == values.nbytes
    assert max(batches) <= 2**24
    assert writer.close(30.0)
    store.close()
