"""What was kept is there, once, in its order; nobody labels what is somebody else's."""

from __future__ import annotations

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import DBAPIError

from service.errors import InvalidInput, SampleConflict, SampleNotFound, StoreError
from service.store.contract import Counts, NewSample, Sample, Status
from service.store.samples import Limits, SampleStore
from service.store.tables import ordering, samples


def new(number: int, score: float | None = None, model: str = "digits", **more: float) -> NewSample:
    scores = {"variance": number / 100 if score is None else score, **more}
    return NewSample(
        model=model,
        version=3,
        time=1000.0 + number,
        request_id=f"request-{number}",
        row=number % 4,
        input=np.array([number, 2.5], dtype=np.float32),
        scores=scores,
    )


def fill(store: SampleStore, count: int, model: str = "digits") -> list[Sample]:
    """So many samples, the most uncertain first."""
    assert store.keep([new(number, model=model) for number in range(count)]) == {model: count}
    return store.page(model, None, "variance", count)[0]


def test_what_was_kept_comes_back_as_it_was(store: SampleStore) -> None:
    assert store.keep([new(7, mutual_information=0.25)]) == {"digits": 1}
    [sample], after = store.page("digits", Status.UNLABELLED, "variance", 10)
    assert after is None
    assert sample.input.dtype == np.float32
    np.testing.assert_array_equal(sample.input, [7, 2.5])
    assert sample.scores == {"variance": 0.07, "mutual_information": 0.25}
    assert (sample.model, sample.version, sample.time) == ("digits", 3, 1007.0)
    assert (sample.request_id, sample.row) == ("request-7", 3)
    assert (sample.status, sample.label, sample.lease) == (Status.UNLABELLED, None, None)
    found = store.get(sample.id)
    assert found.scores == sample.scores
    assert found.id == sample.id


def test_the_same_input_is_kept_once_for_a_model(store: SampleStore) -> None:
    assert store.keep([new(1), new(1), new(2)]) == {"digits": 2}
    assert store.keep([new(1), new(3), new(1, model="co2")]) == {"digits": 1, "co2": 1}
    assert store.counts() == {("digits", "unlabelled"): 3, ("co2", "unlabelled"): 1}


def test_pages_are_most_uncertain_first_and_miss_none(store: SampleStore) -> None:
    # Many with equal scores, and some without any.
    store.keep([new(number, score=float(number % 3)) for number in range(20)])
    store.keep([NewSample("digits", 1, 0.0, "r", 0, np.array([100.0 + n]), {}) for n in range(3)])
    seen: list[Sample] = []
    after = None
    while True:
        page, after = store.page("digits", None, "variance", 4, after)
        seen += page
        if after is None:
            break
        assert len(page) == 4
    assert len({sample.id for sample in seen}) == 23
    values = [sample.scores.get("variance", -1.0) for sample in seen]
    assert values == sorted(values, reverse=True)


def test_a_label_and_a_skip(store: SampleStore) -> None:
    first, second, third = fill(store, 3)
    labelled = store.label(first.id, {"digit": 7})
    assert (labelled.status, labelled.label) == (Status.LABELLED, {"digit": 7})
    assert labelled.labelled_time == pytest.approx(time.time(), abs=60)
    assert store.skip(second.id).status is Status.SKIPPED
    assert [s.id for s in store.page("digits", Status.UNLABELLED, "variance", 9)[0]] == [third.id]
    assert [s.id for s in store.every("digits", Status.LABELLED)] == [first.id]
    assert store.label(first.id, 8).label == 8


def test_two_who_ask_together_get_different_samples(store: SampleStore) -> None:
    fill(store, 60)
    with ThreadPoolExecutor(6) as pool:
        leases = list(pool.map(lambda _: store.lease("digits", "variance", 10, 60.0), range(6)))
    given = [sample.id for _, samples in leases for sample in samples]
    assert len(given) == len(set(given))
    # Who asked at the very same moment may have been passed over; another question gets the rest.
    _, rest = store.lease("digits", "variance", 60, 60.0)
    assert len(set(given) | {sample.id for sample in rest}) == 60
    assert store.lease("digits", "variance", 10, 60.0)[1] == []


def test_a_lease_labels_what_nobody_else_may(store: SampleStore) -> None:
    fill(store, 3)
    lease, [sample] = store.lease("digits", "variance", 1, 60.0)
    assert sample.scores["variance"] == 0.02
    for other in (None, "0" * 32):
        with pytest.raises(SampleConflict, match="somebody else's to label for another"):
            store.label(sample.id, 1, other)
    assert store.get(sample.id).status is Status.UNLABELLED
    assert store.label(sample.id, 1, lease).label == 1


def test_a_lease_that_ended_decides_nothing(store: SampleStore) -> None:
    [sample] = fill(store, 1)
    stale, _ = store.lease("digits", "variance", 1, 0.05)
    time.sleep(0.1)
    # Nobody else had it meanwhile: the work is not lost.
    assert store.label(sample.id, 1, stale).label == 1
    with pytest.raises(SampleConflict, match="not held by this lease"):
        store.label(sample.id, 2, stale)
    assert store.get(sample.id).label == 1
    # Whoever holds no lease may correct a label, and not skip it away.
    assert store.label(sample.id, 3).label == 3
    with pytest.raises(SampleConflict, match="has its label"):
        store.skip(sample.id)


def test_a_lease_ends(store: SampleStore) -> None:
    fill(store, 1)
    _, [sample] = store.lease("digits", "variance", 1, 0.05)
    time.sleep(0.1)
    assert store.label(sample.id, 4).label == 4


def test_a_lease_is_renewed_for_what_it_still_holds(store: SampleStore) -> None:
    first, second, third = fill(store, 3)
    lease, _ = store.lease("digits", "variance", 3, 0.05)
    time.sleep(0.1)
    # It ended, and what nobody else was given is held again.
    other, [taken] = store.lease("digits", "variance", 1, 60.0)
    store.label(second.id, 1)
    assert taken.id == first.id
    assert store.renew(lease, 60.0) == [third.id]
    assert store.lease("digits", "variance", 3, 60.0)[1] == []
    assert store.renew(other, 60.0) == [first.id]
    assert store.renew("0" * 32, 60.0) == []


def test_what_is_given_back_is_for_others(store: SampleStore) -> None:
    first, second, third = fill(store, 3)
    lease, _ = store.lease("digits", "variance", 3, 60.0)
    store.label(second.id, 1, lease)
    assert store.release(lease) == 2
    assert store.release(lease) == 0
    assert [s.id for s in store.lease("digits", "variance", 3, 60.0)[1]] == [first.id, third.id]
    with pytest.raises(SampleConflict, match="somebody else's"):
        store.label(first.id, 1, lease)
    assert store.get(second.id).label == 1


def test_a_decision_is_undone_by_who_made_it(store: SampleStore) -> None:
    first, second, _ = fill(store, 3)
    lease, _ = store.lease("digits", "variance", 2, 60.0)
    store.label(first.id, 7, lease)
    store.skip(second.id, lease)
    undone = store.undo(first.id, lease, 60.0)
    assert (undone.status, undone.label, undone.labelled_time) == (Status.UNLABELLED, None, None)
    # It is held again, so that nobody else is given it before it is decided anew.
    assert undone.lease == lease
    assert first.id not in [s.id for s in store.lease("digits", "variance", 3, 60.0)[1]]
    assert store.undo(first.id, lease, 60.0).lease == lease
    assert store.label(first.id, 8, lease).label == 8
    assert store.undo(second.id, lease, 60.0).status is Status.UNLABELLED
    # Somebody has corrected the label since: that is not undone.
    store.label(first.id, 9)
    with pytest.raises(SampleConflict, match="was not decided by this lease"):
        store.undo(first.id, lease, 60.0)
    assert store.get(first.id).label == 9


def test_without_a_lease_any_decision_is_undone_and_nobody_holds_the_sample(
    store: SampleStore,
) -> None:
    [sample] = fill(store, 1)
    with pytest.raises(SampleConflict, match="has no label"):
        store.undo(sample.id)
    with pytest.raises(SampleNotFound):
        store.undo("none")
    lease, _ = store.lease("digits", "variance", 1, 60.0)
    store.label(sample.id, 7, lease)
    assert store.undo(sample.id).lease is None
    assert [s.id for s in store.lease("digits", "variance", 1, 60.0)[1]] == [sample.id]


def test_who_does_not_know_whether_a_label_arrived_sends_it_again(store: SampleStore) -> None:
    first, second = fill(store, 2)
    lease, _ = store.lease("digits", "variance", 2, 60.0)
    for _ in range(2):
        assert store.label(first.id, [1, 2], lease).label == [1, 2]
        assert store.skip(second.id, lease).status is Status.SKIPPED
    with pytest.raises(SampleConflict, match="not held by this lease"):
        store.label(first.id, [1], lease)
    store.label(first.id, [3])
    with pytest.raises(SampleConflict, match="not held by this lease"):
        store.label(first.id, [1, 2], lease)


def test_progress_is_counted_by_model(store: SampleStore) -> None:
    first, second, *_ = fill(store, 6)
    fill(store, 2, model="co2")
    store.lease("co2", "variance", 1, 0.05)
    store.label(first.id, 1)
    store.skip(second.id)
    store.lease("digits", "variance", 3, 60.0)
    time.sleep(0.1)
    digits = Counts(unlabelled=4, leased=3, labelled=1, skipped=1)
    assert store.progress() == {"co2": Counts(unlabelled=2), "digits": digits}
    assert store.progress("digits") == {"digits": digits}
    assert store.progress("none") == {}


def test_a_store_of_an_earlier_version_is_brought_up_to_date(url: str) -> None:
    store = SampleStore(url)
    store.prepare()
    samples = fill(store, 2)
    with store._engine.begin() as connection:
        connection.execute(text("DROP INDEX samples_by_lease"))
        connection.execute(text("ALTER TABLE samples DROP COLUMN decided_lease"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    store.close()
    again = SampleStore(url)
    lease, given = again.lease("digits", "variance", 2, 60.0)
    assert [s.id for s in given] == [s.id for s in samples]
    again.label(samples[0].id, 1, lease)
    assert again.undo(samples[0].id, lease, 60.0).lease == lease
    again.close()


def test_what_a_lease_holds_is_found_by_an_index(url: str) -> None:
    store = SampleStore(url)
    fill(store, 50)
    lease, _ = store.lease("digits", "variance", 3, 60.0)
    held = f"SELECT id FROM samples WHERE lease = '{lease}'"
    with store._reading() as connection:
        words = "EXPLAIN QUERY PLAN " if store._is_sqlite else "EXPLAIN "
        if not store._is_sqlite:
            connection.exec_driver_sql("SET enable_seqscan = off")
        plan = " ".join(map(str, connection.exec_driver_sql(words + held).all()))
    assert "samples_by_lease" in plan
    store.close()


def test_deleted_is_deleted(store: SampleStore) -> None:
    first, second, third = fill(store, 3)
    fill(store, 2, model="co2")
    assert store.remove(numbers=[first.id, "0" * 32]) == 1
    with pytest.raises(SampleNotFound, match=first.id):
        store.get(first.id)
    assert store.remove(model="digits", numbers=[second.id]) == 1
    assert store.remove(model="digits") == 1
    assert store.counts() == {("co2", "unlabelled"): 2}
    assert store.keep([new(0)]) == {"digits": 1}
    with pytest.raises(SampleNotFound):
        store.label(third.id, 1)


def test_the_least_uncertain_leave_first_and_labelled_ones_never(store: SampleStore) -> None:
    samples = fill(store, 10)
    store.label(samples[-1].id, 0)
    assert store.tidy("digits", Limits(samples=6), "variance") == 3
    left = store.page("digits", None, "variance", 10)[0]
    assert [s.id for s in left] == [s.id for s in (*samples[:6], samples[-1])]
    assert store.tidy("digits", Limits(samples=6), "variance") == 0
    store.lease("digits", "variance", 6, 60.0)
    assert store.tidy("digits", Limits(samples=1, age_s=0.0), "variance") == 0


def test_what_was_labelled_meanwhile_does_not_leave(url: str) -> None:
    """Between choosing what leaves and deleting it somebody may label it."""
    here, there = SampleStore(url), SampleStore(url)
    if not url.startswith("postgresql"):
        pytest.skip("SQLite has one writer at a time")
    [sample] = fill(here, 1)
    labelled = threading.Event()

    def label(*_: object) -> None:
        if not labelled.is_set():
            labelled.set()
            there.label(sample.id, 7)

    def before(_c: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("DELETE"):
            label()

    event.listen(here._engine, "before_cursor_execute", before)
    assert here.tidy("digits", Limits(samples=0), "variance") == 0
    assert labelled.is_set()
    assert here.get(sample.id).label == 7
    here.close()
    there.close()


def test_what_is_too_old_leaves(store: SampleStore) -> None:
    fill(store, 3)
    recent = NewSample("digits", 1, time.time(), "r", 0, np.array([9.0]), {"variance": 1.0})
    store.keep([recent])
    labelled, skipped = store.page("digits", None, "variance", 10)[0][2:]
    store.label(labelled.id, 1)
    # A row that is skipped has no label: it goes as the others do.
    store.skip(skipped.id)
    assert store.tidy("digits", Limits(age_s=3600), "variance") == 2
    assert store.counts() == {("digits", "unlabelled"): 1, ("digits", "labelled"): 1}


def test_eight_writers_lose_nothing(url: str) -> None:
    stores = [SampleStore(url) for _ in range(8)]
    stores[0].prepare()

    def write(writer: int) -> int:
        return sum(
            stores[writer].keep([new(1000 * writer + 10 * part + i) for i in range(10)]).total()
            for part in range(20)
        )

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(write, range(8))) == [200] * 8
    assert stores[0].counts() == {("digits", "unlabelled"): 1600}
    for store in stores:
        store.close()


def test_pages_and_leases_are_read_from_an_index(url: str) -> None:
    """A page of a full store must not sort all of it, inputs and all."""
    store = SampleStore(url)
    store.keep([new(number) for number in range(50)])
    order = ordering("variance").desc(), samples.c.id.desc()
    page = select(samples.c.id).where(samples.c.model == "digits", samples.c.status == "unlabelled")
    with store._reading() as connection:
        if store._is_sqlite:
            words = "EXPLAIN QUERY PLAN "
        else:
            connection.exec_driver_sql("SET enable_seqscan = off")
            words = "EXPLAIN "
        compiled = (
            page.order_by(*order)
            .limit(5)
            .compile(store._engine, compile_kwargs={"literal_binds": True})
        )
        plan = " ".join(map(str, connection.exec_driver_sql(words + str(compiled)).all()))
    assert "samples_by_variance" in plan
    assert "TEMP B-TREE" not in plan
    assert "Sort" not in plan
    store.close()


def test_two_servers_that_keep_the_same_rows_do_not_wait_for_each_other(url: str) -> None:
    stores = SampleStore(url), SampleStore(url)
    stores[0].prepare()
    rows = [new(number) for number in range(200)]

    def write(store: SampleStore, batch: list[NewSample]) -> int:
        return store.keep(batch).total()

    with ThreadPoolExecutor(2) as pool:
        for _ in range(5):
            both = pool.map(write, stores, (rows, rows[::-1]))
            assert sum(both) == 200
            stores[0].remove(model="digits")
    for store in stores:
        store.close()


def test_preparing_twice_keeps_what_is_there(url: str) -> None:
    store = SampleStore(url)
    store.prepare()
    fill(store, 2)
    again = SampleStore(url)
    again.prepare()
    assert again.counts() == {("digits", "unlabelled"): 2}
    store.close()
    again.close()


def test_an_order_that_there_is_not_is_named(store: SampleStore) -> None:
    with pytest.raises(InvalidInput, match="expected one of variance, predictive_entropy"):
        store.page("digits", None, "id; drop table samples", 5)


@pytest.mark.parametrize(
    ("address", "error", "words"),
    [
        ("samples.sqlite", InvalidInput, "no address of a database"),
        ("oracle://x/y", InvalidInput, "no address of a database"),
        ("sqlite://", InvalidInput, "in memory"),
        ("sqlite:///:memory:", InvalidInput, "in memory"),
        ("postgresql://nobody@127.0.0.1:9/none", StoreError, "cannot be used"),
        ("sqlite:////nowhere/at/all.sqlite", StoreError, "unable to open"),
    ],
)
def test_a_database_that_is_not_there_is_said(
    address: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        SampleStore(address).prepare()


@pytest.mark.parametrize("address", ["postgresql://candor:s3cret/db", "x y://candor:s3cret@h/d"])
def test_an_address_that_cannot_be_read_is_not_repeated(address: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        SampleStore(address)
    assert "s3cret" not in raised.value.message
    assert raised.value.received is None


def test_a_locked_file_is_an_error_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.samples._BUSY_S", 0.05)
    store = SampleStore(f"sqlite:///{tmp_path / 'samples.sqlite'}")
    store.prepare()
    with sqlite3.connect(tmp_path / "samples.sqlite", isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked"):
            store.keep([new(1)])
        other.execute("ROLLBACK")
        # Who only reads need not wait for who writes.
        other.execute("BEGIN IMMEDIATE")
        assert store.page("digits", None, "variance", 5) == ([], None)
        other.execute("ROLLBACK")
    assert store.keep([new(1)]) == {"digits": 1}
    store.close()


def test_what_was_deleted_is_not_in_the_file_any_more(tmp_path: Path) -> None:
    path = tmp_path / "samples.sqlite"
    store = SampleStore(f"sqlite:///{path}")
    store.prepare()
    secret = np.frombuffer(b"a patient's number 4711!", dtype=np.uint8)
    store.keep([NewSample("digits", 1, 0.0, "r", 0, secret, {"variance": 1.0})])
    store.remove(model="digits")
    store.close()
    held = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"patient" not in held


def test_what_a_reader_keeps_from_being_overwritten_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.store.samples._BUSY_S", 0.05)
    path = tmp_path / "samples.sqlite"
    store = SampleStore(f"sqlite:///{path}")
    store.keep([new(1)])
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM samples").fetchall()
        with pytest.raises(StoreError, match="delete again"):
            store.remove(model="digits")
    assert store.remove(model="digits") == 0
    assert path.with_name("samples.sqlite-wal").exists() is False
    with pytest.raises(ValueError, match="of what"):
        store.remove()


def test_what_the_database_says_of_a_statement_does_not_hold_its_values(store: SampleStore) -> None:
    statement = text("select :value from nowhere")
    with pytest.raises(DBAPIError) as caught, store._engine.begin() as connection:
        connection.execute(statement, {"value": "somebody's input"})
    assert "nowhere" in str(caught.value)
    assert "somebody" not in str(caught.value)
