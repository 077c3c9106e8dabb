"""The soak itself: it passes a server that behaves, and sees each way in which one does not."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.soak.__main__ import Plan, soak
from benchmarks.soak.cases import PRECISION, Case, cases, equal
from benchmarks.soak.memory import Growth, growth
from benchmarks.soak.reloads import Served
from benchmarks.soak.repository import Repository
from benchmarks.soak.traffic import Tally, unaccounted
from benchmarks.soak.verdict import Finding, flat_memory
from tests.e2e.servers import Server, serving

PLAN = Plan(seconds=4.0, rate=40.0, reload_every_s=1.0)


@dataclass
class Loaded:
    """A server with one model, and what is known of it."""

    server: Server
    repository: Repository
    good: list[Case]

    @property
    def port(self) -> int:
        return int(self.server.url.rpartition(":")[2])

    def soak(self, port: int, plan: Plan = PLAN) -> dict[str, Finding]:
        """Run it, and have the first weights served again."""
        done = soak(port, self.server.process.pid, self.repository, self.good, plan)
        _, found = asyncio.run(done)
        self.serve("trained")
        return {finding.name: finding for finding in found}

    def serve(self, weights: str) -> None:
        self.repository.put("co2", weights)
        assert httpx.post(f"{self.server.url}/models/co2/reload", timeout=60.0).status_code == 200


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    root, aside = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("aside")
    repository = Repository(root, aside, ("co2",))
    good = cases(repository)
    with serving(root, environment={"CANDOR_PRECISION": PRECISION}) as server:
        yield Loaded(server, repository, good)


def test_a_server_that_behaves_passes(loaded: Loaded) -> None:
    found = loaded.soak(loaded.port)
    assert all(finding.holds for finding in found.values()), found
    assert set(found) == {
        "no wrong answer",
        "none lost",
        "no status that is not documented",
        "the server counted the same",
        "reloads",
    }


def test_answers_of_weights_that_are_not_served_are_wrong(loaded: Loaded) -> None:
    """The soak believes that the first weights are served, and reloads nothing before its end."""
    loaded.serve("disturbed")
    found = loaded.soak(loaded.port, Plan(seconds=2.0, rate=40.0, reload_every_s=60.0))
    failed = {name for name, finding in found.items() if not finding.holds}
    assert failed == {"no wrong answer", "reloads"}, found


def test_requests_that_get_no_answer_are_lost_and_missed_in_the_servers_counts(
    loaded: Loaded,
) -> None:
    with _forgetful(loaded.port) as port:
        found = loaded.soak(port)
    assert not found["none lost"].holds, found
    assert found["no wrong answer"].holds, found


@contextmanager
def _forgetful(port: int) -> Iterator[int]:
    """A proxy that closes the connections that bring every fifth prediction."""
    proxy = socket.create_server(("127.0.0.1", 0))
    opened: list[socket.socket] = []
    predictions = itertools.count(1)

    def copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            while part := source.recv(2**16):
                if part.startswith(b"POST /predict ") and next(predictions) % 5 == 0:
                    break
                sink.sendall(part)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def accept() -> None:
        while True:
            try:
                client, _ = proxy.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", port))
            opened.extend((client, server))
            for ends in ((client, server), (server, client)):
                threading.Thread(target=copy, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield proxy.getsockname()[1]
    finally:
        proxy.shutdown(socket.SHUT_RDWR)
        proxy.close()
        for end in opened:
            end.close()


def test_numbers_may_differ_by_rounding_of_the_largest_mean() -> None:
    expected = {"model": "m", "mean": [[400.0, 1.0]], "label": ["a"], "ood": None}
    assert equal(expected, {**expected, "mean": [[400.003, 1.003]]})
    assert not equal(expected, {**expected, "mean": [[400.0, 1.005]]})
    assert not equal(expected, {**expected, "label": ["b"]})
    assert not equal(expected, {**expected, "mean": [[400.0]]})
    assert not equal(expected, {**expected, "ood": [1]})
    assert not equal(expected, {"model": "m"})
    small = {"mean": np.array([0.5]), "std": np.array([0.1])}
    assert not equal(small, {**small, "std": np.array([0.10002])})
    assert not equal(small, {**small, "std": np.array([0.1], dtype=np.int64)})


def test_of_rows_that_tie_any_may_be_chosen() -> None:
    expected = {"indices": [3, 0], "scores": [0.9, 0.5], "all_scores": [0.5, 0.5000001, 0.1, 0.9]}
    given = {"indices": [3, 0], "scores": [0.9, 0.5]}
    assert equal(expected, given)
    assert equal(expected, {**given, "indices": [3, 1]})
    assert not equal(expected, {**given, "indices": [3, 2]})
    assert not equal(expected, {**given, "indices": [0, 3]})
    assert not equal(expected, {**given, "indices": [3, 3]})
    assert not equal(expected, {**given, "indices": [3, 4]})
    assert not equal(expected, {**given, "indices": [3]})
    assert not equal(expected, {**given, "scores": [0.9, 0.4]})


def test_what_is_served_is_known_for_every_moment() -> None:
    served = Served()
    served._since_s, served._valid = [0.0], [frozenset({"old"})]
    assert served.between(1.0, 2.0) == {"old"}
    served._since_s += [10.0, 12.0]
    served._valid += [frozenset({"old", "new"}), frozenset({"new"})]
    assert served.between(1.0, 9.0) == {"old"}
    assert served.between(9.0, 11.0) == {"old", "new"}
    assert served.between(11.0, 15.0) == {"old", "new"}
    assert served.between(12.5, 15.0) == {"new"}


def test_counts_have_to_agree_but_for_clients_that_left() -> None:
    tally = Tally()
    tally.codes = Counter({("/predict", 200): 10, ("/predict", 422): 2})
    tally.left = Counter({"/predict": 3})
    right = Counter({("/predict", 200): 11, ("/predict", 422): 2, ("/predict", 499): 2})
    assert unaccounted(tally, right) == []
    for code, change in ((200, -1), (499, -1), (422, 1), (500, 1)):
        assert unaccounted(tally, right + Counter({("/predict", code): change}) if change > 0
                           else right - Counter({("/predict", code): -change}))  # fmt: skip
    assert unaccounted(tally, right + Counter({("/eval", 200): 1}))


def test_growth_is_told_from_noise() -> None:
    rng = np.random.default_rng(0)
    times = np.arange(600.0)
    noise = rng.normal(0.0, 5.0, 600)
    flat, grown = (
        growth(times.tolist(), (500 + noise).tolist()),
        growth(times.tolist(), (500 + times / 10 + noise).tolist()),
    )
    assert flat.at_least < 0 < flat.at_most
    assert grown.at_least < 59.9 < grown.at_most
    assert grown.at_least > 50


def test_the_repository_swaps_files_whole(tmp_path: Path) -> None:
    root, aside = tmp_path / "models", tmp_path / "aside"
    root.mkdir()
    aside.mkdir()
    repository = Repository(root, aside, ("co2",))
    file = root / "co2" / "1" / "weights.safetensors"
    repository.put("co2", "trained")
    trained = file.read_bytes()
    repository.put("co2", "disturbed")
    assert len(file.read_bytes()) == len(trained)
    assert file.read_bytes() != trained
    repository.spoil("co2")
    assert len(file.read_bytes()) < len(trained)


@pytest.mark.parametrize(
    ("whole", "at_most", "short", "long"),
    [(0.0, 4.0, True, True), (2.0, 9.0, True, False), (6.0, 9.0, False, False)],
)
def test_memory_is_flat_as_closely_as_the_length_of_a_run_tells(
    whole: float, at_most: float, short: bool, long: bool
) -> None:
    """Five per cent of it are what it may grow."""
    grown = Growth(100.0, whole, whole - (at_most - whole), at_most)
    assert flat_memory(grown, 300.0).holds is short
    assert flat_memory(grown, 3600.0).holds is long
