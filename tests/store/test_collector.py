"""From answers to samples: the rows that the rule chooses, within the limits, in nobody's way."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from service.store.collector import Collector, Told
from service.store.keeping import read_rules
from service.store.samples import Limits, SampleStore
from tests.databases import sqlite_address


@contextmanager
def collecting(
    store: SampleStore, rules: str, limits: Limits | None = None, quantile: float = 0.9
) -> Iterator[tuple[Collector, Counter[str]]]:
    told: Counter[str] = Counter()

    def dropped(count: int) -> None:
        told["dropped"] += count

    def kept(model: str, count: int) -> None:
        told[model] += count

    collector = Collector(
        store,
        read_rules(rules),
        "mutual_information",
        quantile,
        2**20,
        limits or Limits(),
        Told(kept, dropped),
    )
    try:
        yield collector, told
    finally:
        assert collector.close(30.0)
        store.close()


def consider(
    collector: Collector,
    scores: list[float],
    *,
    model: str = "digits",
    flagged: list[bool] | None = None,
    first: int = 0,
) -> None:
    """Rows whose input is their number."""
    values = np.array(scores)
    collector.consider(
        model,
        1,
        np.arange(first, first + len(values), dtype=np.float32)[:, None],
        {"variance": values / 2, "mutual_information": values, "variation_ratio": None},
        None if flagged is None else np.array(flagged),
        f"request-{first}",
    )


@pytest.fixture
def store(tmp_path: Path) -> SampleStore:
    return SampleStore(sqlite_address(tmp_path))


def held(store: SampleStore, model: str = "digits") -> list[float]:
    return sorted(float(sample.input[0]) for sample in store.every(model, None))


def test_flagged_rows_are_kept_with_their_scores(store: SampleStore) -> None:
    with collecting(store, "uncertain") as (collector, told):
        consider(collector, [0.9, 0.1, 0.5], flagged=[False, True, True], first=7)
        assert collector.flush(30.0)
        assert held(store) == [8, 9]
        [first, second], _ = store.page("digits", None, "mutual_information", 10)
        assert first.scores == {"variance": 0.25, "mutual_information": 0.5}
        assert (second.request_id, second.row, second.version) == ("request-7", 1, 1)
        assert abs(second.time - time.time()) < 60
        assert told == {"digits": 2}


def test_only_models_that_are_switched_on_are_kept(store: SampleStore) -> None:
    with collecting(store, "digits=all") as (collector, told):
        assert collector.keeps("digits")
        assert not collector.keeps("co2")
        consider(collector, [1.0], model="co2")
        consider(collector, [1.0])
        assert collector.flush(30.0)
        assert store.counts() == {("digits", "unlabelled"): 1}
        assert told == {"digits": 1}


def test_nothing_kept_opens_no_database(store: SampleStore, tmp_path: Path) -> None:
    with collecting(store, "off") as (collector, _):
        consider(collector, [1.0, 2.0])
    assert list(tmp_path.iterdir()) == []


def test_the_least_uncertain_leave_a_full_store(store: SampleStore) -> None:
    with collecting(store, "uncertain", Limits(samples=5)) as (collector, _):
        for first in range(0, 40, 10):
            consider(
                collector, [float(first + n) for n in range(10)], flagged=[True] * 10, first=first
            )
            assert collector.flush(30.0)
    assert held(store) == [35, 36, 37, 38, 39]


def test_of_a_random_share_the_oldest_leave(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The least uncertain leaving would bias what is meant to be like all requests."""
    clock = iter(range(1000, 2000))
    monkeypatch.setattr("service.store.collector.time.time", lambda: float(next(clock)))
    with collecting(store, "all", Limits(samples=3)) as (collector, _):
        for first in range(6):
            consider(collector, [10.0 - first], first=first)
            assert collector.flush(30.0)
    assert held(store) == [3, 4, 5]


def test_what_is_too_old_leaves_though_nothing_comes(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.writer.TEND_EVERY_S", 0.05)
    monkeypatch.setattr("service.store.collector.TEND_EVERY_S", 0.0)
    with collecting(store, "all", Limits(age_s=0.5)) as (collector, _):
        consider(collector, [1.0])
        assert collector.flush(30.0)
        assert held(store) == [0]
        deadline = time.monotonic() + 30
        while held(store) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert held(store) == []


def test_a_dense_output_counts_by_the_mean_of_its_places(store: SampleStore) -> None:
    with collecting(store, "all") as (collector, _):
        collector.consider(
            "digits",
            1,
            np.eye(2, 3, dtype=np.float32),
            {"variance": np.array([[1.0, 3.0], [np.nan, 1.0]])},
            None,
            "request",
        )
        assert collector.flush(30.0)
        assert [s.scores for s in store.every("digits", None)] in (
            [{"variance": 2.0}, {}],
            [{}, {"variance": 2.0}],
        )


def test_answers_are_put_together_only_where_they_are_alike(store: SampleStore) -> None:
    """Rows of several shapes, with and without flags, of several models, all at once."""
    with collecting(store, "all") as (collector, told):
        for number in range(30):
            shape = (2, 1 + number % 3)
            collector.consider(
                f"model-{number % 2}",
                1,
                np.full(shape, number, dtype=np.float32),
                {"variance": np.array([number, -number], dtype=np.float64)},
                None if number % 5 else np.array([True, False]),
                f"request-{number}",
            )
        assert collector.flush(30.0)
        found = {(s.request_id, s.scores["variance"]): s for s in store.every(None, None)}
    # Both rows of an answer hold the same, and the same is kept once.
    assert len(found) == 30
    assert told == {"model-0": 15, "model-1": 15}
    for (request_id, variance), sample in found.items():
        number = int(request_id.removeprefix("request-"))
        assert sample.input.tolist() == [float(number)] * (1 + number % 3)
        assert (abs(variance), sample.model) == (number, f"model-{number % 2}")


def test_an_answer_that_cannot_be_looked_at_harms_no_other(
    store: SampleStore, caplog: pytest.LogCaptureFixture
) -> None:
    with collecting(store, "all") as (collector, told):
        collector.consider("odd", 1, np.ones((3, 1)), {}, None, "first")
        consider(collector, [1.0])
        assert collector.flush(30.0)
        assert store.counts() == {("digits", "unlabelled"): 1}
        assert told["dropped"] == 3
        assert "rows of odd are not kept" in caplog.text


def test_a_deletion_does_not_wait_for_traffic_to_end(store: SampleStore) -> None:
    with collecting(store, "all") as (collector, _):
        ended = threading.Event()

        def press() -> None:
            number = 0
            while not ended.wait(0.001):
                number += 1
                consider(collector, [1.0], model="other", first=number)

        thread = threading.Thread(target=press)
        thread.start()
        consider(collector, [1.0, 2.0])
        # What was chosen before is forgotten or written; what comes later is not awaited.
        gone = collector.discard("digits", None, 30.0) + store.remove(model="digits")
        assert gone == 2
        ended.set()
        thread.join()
    assert ("digits", "unlabelled") not in store.counts()


def test_flags_decide_only_for_answers_that_have_them(store: SampleStore) -> None:
    """A calibrated version gives none to a request with other passes."""
    with collecting(store, "uncertain") as (collector, _):
        consider(collector, [0.5] * 60)
        assert collector.flush(30.0)
        # In one look: rows above the quantile, and rows that are flagged.
        consider(collector, [0.1, 0.1], flagged=[False, True], first=100)
        consider(collector, [0.9, 0.2], first=200)
        consider(collector, [0.9, 0.1], flagged=[False, False], first=300)
        assert collector.flush(30.0)
    assert held(store) == [101, 200]
