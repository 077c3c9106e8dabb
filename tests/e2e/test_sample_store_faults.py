"""Whatever becomes of the sample store: predictions go on, it is said, and keeping resumes.

Each fault is caused for real: a disk that is full, one that is read-only, somebody else's lock, a
database that is gone; each on whichever of the two databases can have it.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import numpy as np
import psycopg
import pytest

from tests import waiting
from tests.databases import postgresql_server, sqlite_address
from tests.e2e.servers import Server, serving
from tests.repositories import write_model

PATIENCE_S = 40.0

wait_for = functools.partial(waiting.wait_for, patience_s=PATIENCE_S)


class Keeping:
    """A server that keeps every row of `good`, each row another input."""

    def __init__(self, server: Server, http: httpx.Client) -> None:
        self.server = server
        self.sent = 0
        self._http = http

    def predict(self, rows: int = 20) -> None:
        """Answered, whatever becomes of the store."""
        numbers = np.arange(self.sent, self.sent + rows)
        inputs = np.stack([numbers, numbers + 1, numbers * 0, numbers * 0], axis=1)
        answer = self._http.post("/predict", json={"inputs": inputs.tolist()})
        assert answer.status_code == 200, answer.text
        self.sent += rows

    def metric(self, name: str) -> float:
        lines = self._http.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    @property
    def up(self) -> bool:
        return self.metric("candor_sample_store_up") == 1

    def all_are_kept(self) -> bool:
        return self.metric("candor_samples_kept_total") == self.sent

    def listed(self) -> int:
        """What `/samples` shows; −1 where it cannot."""
        answer = self._http.get("/samples", params={"limit": 1000})
        if answer.status_code == 503:
            assert answer.json()["type"] == "urn:candor:problem:store-error"
            assert "Retry-After" in answer.headers
            return -1
        return len(answer.json()["samples"])


@contextmanager
def keeping(tmp_path: Path, url: str, **more: str) -> Iterator[Keeping]:
    root = tmp_path / "models"
    write_model(root, "good")
    environment = {"CANDOR_DATABASE_URL": url, "CANDOR_KEEP_SAMPLES": "all", **more}
    with (
        serving(root, environment=environment) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE_S) as http,
    ):
        found = Keeping(server, http)
        found.predict()
        wait_for(found.all_are_kept)
        yield found


def goes_through(found: Keeping, words: str, mend: Callable[[], None]) -> None:
    """A fault that is there now, until `mend`."""
    found.predict()
    wait_for(lambda: not found.up)
    found.predict()
    found.server.says(words)
    assert found.metric("candor_samples_kept_total") == found.sent - 40
    mend()
    wait_for(found.all_are_kept)
    wait_for(lambda: found.up)
    found.server.says("samples are kept again")
    assert found.listed() == found.sent
    assert found.metric("candor_samples_dropped_total") == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_up(file: Path) -> None:
    with file.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(1000))


def test_a_disk_that_is_full_or_read_only(tmp_path: Path, small_disk: Path) -> None:
    def remount(how: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{how}", str(small_disk)], check=True)

    filler = small_disk / "filler"
    with keeping(tmp_path, sqlite_address(small_disk)) as found:
        fill_up(filler)
        goes_through(found, "the sample store cannot be used", filler.unlink)
        remount("ro")
        goes_through(found, "the sample store cannot be used", lambda: remount("rw"))


def test_a_file_that_is_locked_or_gone(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    with keeping(tmp_path, sqlite_address(here)) as found:
        with closing(sqlite3.connect(here / "samples.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            goes_through(found, "database is locked", lambda: (other.execute("ROLLBACK"), None)[1])
        here.rename(there)
        goes_through(found, "unable to open", lambda: (there.rename(here), None)[1])
        # On Linux an open file can be removed, and what is written to it then is lost.
        for file in here.iterdir():
            file.unlink()
        found.predict(5)
        wait_for(found.all_are_kept)
        assert found.listed() == 5


def test_a_postgresql_that_is_gone_read_only_or_locked(tmp_path: Path) -> None:
    with postgresql_server() as server:
        url = server.database()

        def read_only(value: str) -> None:
            server.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
            server.execute("SELECT pg_reload_conf()")

        with keeping(tmp_path, url) as found:
            server.stop()
            assert found.listed() == -1
            goes_through(found, "the sample store cannot be used", server.start)
            read_only("on")
            goes_through(found, "read-only transaction", lambda: read_only("off"))
            with psycopg.connect(url) as other:
                other.execute("LOCK TABLE samples IN ACCESS EXCLUSIVE MODE")
                goes_through(found, "lock timeout", other.rollback)


def test_what_does_not_fit_the_queue_is_dropped_and_counted(tmp_path: Path) -> None:
    """A row of four float32 has 16 bytes, and a kilobyte around it: twenty of them may wait."""
    url = sqlite_address(tmp_path)
    with keeping(tmp_path, url, CANDOR_KEEP_QUEUE_BYTES=str(20 * (16 + 1024))) as found:
        with closing(sqlite3.connect(tmp_path / "samples.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            found.predict()
            wait_for(lambda: not found.up)
            found.predict(7)
            wait_for(lambda: found.metric("candor_samples_dropped_total") == 7)
            other.execute("ROLLBACK")
        wait_for(lambda: found.metric("candor_samples_kept_total") == found.sent - 7)
        found.predict(3)
        wait_for(lambda: found.metric("candor_samples_kept_total") == found.sent - 7)
        assert found.up
