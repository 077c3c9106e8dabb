"""The store itself: every statement that it runs, for SQLite and PostgreSQL alike."""

from __future__ import annotations

import itertools
import math
import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alembic.util.exc import CommandError
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Float,
    Row,
    Select,
    and_,
    cast,
    create_engine,
    delete,
    event,
    func,
    null,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DataError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from service.errors import (
    InvalidInput,
    SampleConflict,
    SampleNotFound,
    SampleRefused,
    StoreError,
)
from service.store import migrations
from service.store.contract import (
    Counts,
    NewSample,
    Sample,
    Status,
    digest,
    new_id,
    packed,
    unpacked,
)
from service.store.tables import LEASED, NONE, SCORES, ordering, samples

_BUSY_S = 5
"""Seconds that another's lock is waited for, and PostgreSQL's host."""

_STATEMENT_S = 60
_SILENT_S = 15
"""After which a network that says nothing is taken for broken."""
_SQLITE_GONE = ("no such table", "unable to open", "file is not a database")
"""Words of errors after which the file is to be looked at anew."""

_PART_BYTES = 2**25
"""Of inputs that are read at once."""

_ID = re.compile(r"[0-9a-f]{32}")

_LEAVES = 1000
"""Samples that leave at once, at most."""

BY_TIME = "time"
"""The order of leaving in which the oldest goes first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a model is kept.

    Args:
        samples: that wait for a label, at most.
        age_s: seconds after which a sample without a label leaves, skipped or not.
    """

    samples: int = 100_000
    age_s: float = math.inf


class SampleStore:
    """Samples of all models in one database. Safe to use from several threads and processes.

    Args:
        url: of the database, as SQLAlchemy reads it.

    The database is opened, and its tables made or brought up to date, when it is first used; and
    again after a failure, since what was there may have gone.

    Every method raises `StoreError` where the database cannot be reached, read or written.

    Raises:
        InvalidInput: the address of no database that is known here.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._reader = self._engine.execution_options(reads=True)
        self._is_sqlite = self._engine.name == "sqlite"
        self._file = Path(self._engine.url.database or "") if self._is_sqlite else None
        self._insert = sqlite.insert if self._is_sqlite else postgresql.insert
        self._prepared = False
        self._preparing = threading.Lock()

    def prepare(self) -> None:
        """Make the tables, or change those that an earlier version of Candor left."""
        with self._reading():
            pass

    @property
    def is_there(self) -> bool:
        """Whether there is a database to look into; making one only to look is for nobody."""
        return self._file is None or self._file.exists()

    def keep(self, new: Sequence[NewSample]) -> Counter[str]:
        """Keep samples in one transaction; returns how many of each model were not there yet.

        Raises:
            SampleRefused: the database does not take one of them.
        """
        if not new:
            return Counter()
        statement = self._insert(samples).on_conflict_do_nothing(index_elements=["model", "digest"])
        # In one order whoever writes: two that wait for each other's rows would wait for ever.
        values = sorted(map(_values, new), key=lambda row: (row["model"], row["digest"]))
        with self._writing() as connection:
            if not self._is_sqlite:
                return Counter(connection.scalars(statement.returning(samples.c.model), values))
            # Several times as fast there, which is time that predictions have.
            return Counter(
                {
                    model: connection.execute(statement, list(rows)).rowcount
                    for model, rows in itertools.groupby(values, key=lambda row: row["model"])
                }
            )

    def get(self, number: str) -> Sample:
        """One sample.

        Raises:
            SampleNotFound: there is none of this id.
        """
        row = None
        if _ID.fullmatch(number):
            with self._reading() as connection:
                query = select(samples).where(samples.c.id == number)
                row = connection.execute(query).one_or_none()
        if row is None:
            raise SampleNotFound(f"there is no sample {number}", field="id", received=number)
        return _sample(row)

    def page(
        self,
        model: str | None,
        status: Status | None,
        order: str,
        limit: int,
        after: str | None = None,
    ) -> tuple[list[Sample], str | None]:
        """Samples, the most uncertain first, and where the next page begins; None at the end.

        A page of large inputs ends early.

        Args:
            model: whose; None for all.
            status: of which kind; None for all.
            order: one of `SCORES`.
            limit: samples of a page.
            after: what the page before came with.

        Raises:
            InvalidInput: `order` or `after` is none.
        """
        key = _key(order)
        # Which they are, an index says by itself.
        query = _of(select(samples.c.id), model, status)
        if after is not None:
            query = query.where(tuple_(key, samples.c.id) < tuple_(*_read_place(after)))
        query = query.order_by(key.desc(), samples.c.id.desc()).limit(limit + 1)
        with self._reading() as connection:
            numbers = list(connection.scalars(query))
            found: list[Sample] = []
            size = seen = 0
            while seen < min(limit, len(numbers)) and size <= _PART_BYTES:
                whole = select(samples).where(samples.c.id == numbers[seen])
                seen += 1
                # Somebody may delete it between the two looks.
                if (row := connection.execute(whole).one_or_none()) is not None:
                    found.append(_sample(row))
                    size += found[-1].input.nbytes
        more = seen < len(numbers)
        return found, _place(found[-1], order) if found and more else None

    def lease(self, model: str, order: str, limit: int, seconds: float) -> tuple[str, list[Sample]]:
        """Samples that are nobody else's to label for so long, the most uncertain first.

        Returns:
            The lease, which labels them, and the samples.
        """
        lease, now = new_id(), self._now()
        free = and_(
            samples.c.model == model,
            samples.c.status == Status.UNLABELLED,
            samples.c.lease_until < now,
        )
        key = _key(order)
        best = select(samples.c.id).where(free).order_by(key.desc(), samples.c.id.desc())
        # Others that ask at the same moment pass over these instead of waiting for them.
        best = best.limit(limit).with_for_update(skip_locked=True)
        with self._writing() as connection:
            numbers = list(connection.scalars(best))
            connection.execute(
                update(samples)
                # Whoever was first has them: a second look under the lock of the writer.
                .where(samples.c.id.in_(numbers), free)
                .values(lease=lease, lease_until=now + seconds)
            )
            taken = select(samples).where(samples.c.id.in_(numbers), samples.c.lease == lease)
            rows = connection.execute(taken.order_by(key.desc(), samples.c.id.desc())).all()
        return lease, [_sample(row) for row in rows]

    def renew(self, lease: str, seconds: float) -> list[str]:
        """Have a lease last so long from now on.

        Returns:
            The ids of what it holds: what nobody decided, and nobody else was given meanwhile.
        """
        longer = update(samples).where(samples.c.lease == lease)
        longer = longer.values(lease_until=self._now() + seconds)
        with self._writing() as connection:
            return list(connection.scalars(longer.returning(samples.c.id)))

    def release(self, lease: str) -> int:
        """Give back what a lease holds, for others to be given; returns how many there were."""
        free = update(samples).where(samples.c.lease == lease)
        with self._writing() as connection:
            return connection.execute(free.values(lease=None, lease_until=0.0)).rowcount

    def label(self, number: str, label: Any, lease: str | None = None) -> Sample:
        """Give a sample its label, or without a lease another one than it had.

        The same again by the same lease changes nothing, for who cannot know whether it arrived.

        Raises:
            SampleNotFound: there is none of this id.
            SampleConflict: it is somebody else's to label, or was decided after the lease ended.
        """
        return self._decide(number, lease, true(), status=Status.LABELLED, label=label)

    def skip(self, number: str, lease: str | None = None) -> Sample:
        """Leave a sample without a label, for good. Raises as `label`, and where it has one."""
        unlabelled = samples.c.status != Status.LABELLED
        return self._decide(number, lease, unlabelled, status=Status.SKIPPED, label=None)

    def undo(self, number: str, lease: str | None = None, seconds: float = 0.0) -> Sample:
        """Have a sample without its label again, or not skipped.

        Args:
            number: of the sample.
            lease: by which it was decided, and which holds it again, so that a decision of somebody
                else's is not undone; None whoever decided, and then nobody holds it.
            seconds: for which the lease holds it. The same again by the same lease is no error.

        Raises:
            SampleNotFound: there is none of this id.
            SampleConflict: it was not decided, or not by this lease.
        """
        self.get(number)
        decided = and_(samples.c.id == number, samples.c.status != Status.UNLABELLED)
        mine = true() if lease is None else samples.c.decided_lease == lease
        until = 0.0 if lease is None else self._now() + seconds
        change = update(samples).where(decided, mine)
        change = change.values(
            status=Status.UNLABELLED,
            label=null(),
            labelled_time=None,
            lease=lease,
            lease_until=until,
            decided_lease=None,
        )
        with self._writing() as connection:
            row = connection.execute(change.returning(samples)).one_or_none()
        if row is not None:
            return _sample(row)
        now = self.get(number)
        if lease is not None and now.lease == lease:
            return now
        why = "has no label" if now.status is Status.UNLABELLED else "was not decided by this lease"
        raise SampleConflict(
            f"sample {number} {why}: there is nothing to undo", field="lease", received=lease
        )

    def remove(
        self,
        model: str | None = None,
        numbers: Sequence[str] | None = None,
        request_id: str | None = None,
    ) -> int:
        """Delete for good: samples of a model, of these ids, of a request; returns how many.

        Raises:
            ValueError: nothing says which.
        """
        which = [
            *([samples.c.model == model] if model is not None else []),
            *([samples.c.id.in_(numbers)] if numbers is not None else []),
            *([samples.c.request_id == request_id] if request_id is not None else []),
        ]
        if not which:
            raise ValueError("samples of what?")
        with self._writing() as connection:
            count = connection.execute(delete(samples).where(*which)).rowcount
        if self._file is not None:
            self._empty_log()
        return count

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Samples by model and status."""
        query = select(samples.c.model, samples.c.status, func.count())
        query = query.group_by(samples.c.model, samples.c.status)
        with self._reading() as connection:
            return {(model, status): count for model, status, count in connection.execute(query)}

    def progress(self, model: str | None = None) -> Mapping[str, Counts]:
        """By model how far its labelling is; of one model, or of all that have samples."""
        of = [samples.c.model == model] if model is not None else []
        kinds = select(samples.c.model, samples.c.status, func.count()).where(*of)
        kinds = kinds.group_by(samples.c.model, samples.c.status)
        held = select(samples.c.model, func.count()).where(*of, LEASED)
        held = held.where(samples.c.lease_until >= self._now()).group_by(samples.c.model)
        found: dict[str, dict[str, int]] = {}
        with self._reading() as connection:
            for name, status, count in connection.execute(kinds):
                found.setdefault(name, {})[status] = count
            for name, count in connection.execute(held):
                found.setdefault(name, {})["leased"] = count
        return {name: Counts(**counts) for name, counts in sorted(found.items())}

    def every(self, model: str | None, status: Status | None) -> Iterator[Sample]:
        """All samples, of a model or of all, in the order of their ids, read in parts."""
        last, rows = "", 16
        while True:
            query = _of(select(samples), model, status).where(samples.c.id > last)
            with self._reading() as connection:
                found = connection.execute(query.order_by(samples.c.id).limit(rows)).all()
            yield from map(_sample, found)
            if len(found) < rows:
                return
            last = found[-1].id
            rows = max(1, min(1000, _PART_BYTES // max(len(row.input) for row in found)))

    def tidy(self, model: str, limits: Limits, order: str) -> int:
        """Let leave what is too old or too much, the first by `order`; returns how many did.

        Args:
            model: whose.
            limits: of it.
            order: one of `SCORES`, of which the least leave first, or `BY_TIME`, the oldest.
        """
        now = self._now()
        leaves = and_(samples.c.model == model, samples.c.lease_until < now)
        undecided = and_(leaves, samples.c.status == Status.UNLABELLED)
        with self._writing() as connection:
            gone = 0
            if math.isfinite(limits.age_s):
                old = and_(leaves, samples.c.status != Status.LABELLED)
                old = and_(old, samples.c.time < time.time() - limits.age_s)
                gone += connection.execute(delete(samples).where(old)).rowcount
            count = connection.scalar(
                select(func.count())
                .select_from(samples)
                .where(samples.c.model == model, samples.c.status == Status.UNLABELLED)
            )
            over = min(int(count or 0) - limits.samples, _LEAVES)
            if over > 0:
                first = samples.c.time if order == BY_TIME else _key(order)
                least = select(samples.c.id).where(undecided).order_by(first, samples.c.id)
                numbers = list(connection.scalars(least.limit(over)))
                # Looked at again: meanwhile somebody may have labelled one.
                chosen = and_(samples.c.id.in_(numbers), undecided)
                gone += connection.execute(delete(samples).where(chosen)).rowcount
        return gone

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    @contextmanager
    def _connected(self, engine: Engine) -> Iterator[Connection]:
        """A transaction, the database's errors told as the store's own."""
        try:
            with self._preparing:
                if not self._prepared:
                    migrations.upgrade(self._engine)
                    self._prepared = True
            with engine.begin() as connection:
                yield connection
        except (DataError, OverflowError) as error:
            raise SampleRefused(f"the sample store does not take this: {_cause(error)}") from error
        except (SQLAlchemyError, sqlite3.Error, CommandError, OSError) as error:
            cause = _cause(error)
            # What was prepared may be another file, or another server's, by now.
            if not self._is_sqlite or any(words in cause for words in _SQLITE_GONE):
                self._prepared = False
            raise StoreError(f"the sample store cannot be used: {cause}") from error

    def _reading(self) -> AbstractContextManager[Connection]:
        return self._connected(self._reader)

    def _writing(self) -> AbstractContextManager[Connection]:
        return self._connected(self._engine)

    def _now(self) -> Any:
        """By one clock for all servers: the file's own machine, or the database's."""
        if self._is_sqlite:
            return time.time()
        return cast(func.extract("epoch", func.clock_timestamp()), Float(53))

    def _empty_log(self) -> None:
        """Until then the log beside a SQLite file holds what was deleted from it.

        Raises:
            StoreError: somebody reads, and it could not be emptied.
        """
        try:
            with closing(self._engine.raw_connection()) as raw:
                cursor = raw.cursor()
                cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                busy = cursor.fetchall()[0][0]
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise _log_is_full(_cause(error)) from error
        if busy:
            raise _log_is_full("somebody reads it")

    def _decide(
        self, number: str, lease: str | None, condition: ColumnElement[bool], **values: Any
    ) -> Sample:
        mine = samples.c.lease_until < self._now() if lease is None else samples.c.lease == lease
        values |= {
            "labelled_time": time.time(),
            "lease": None,
            "lease_until": 0.0,
            "decided_lease": lease,
        }
        change = update(samples).where(samples.c.id == number, mine, condition).values(**values)
        self.get(number)
        with self._writing() as connection:
            row = connection.execute(change.returning(samples)).one_or_none()
        if row is not None:
            return _sample(row)
        now = self.get(number)
        wanted = values["status"], values["label"]
        if lease is not None and now.decided_lease == lease and (now.status, now.label) == wanted:
            return now
        left_s = max(0.0, now.lease_until - time.time())
        if left_s > 0:
            why = f"is somebody else's to label for another {left_s:.0f} seconds"
        elif lease is not None:
            why = "is not held by this lease any more"
        else:
            why = "has its label"
        raise SampleConflict(
            f"sample {number} {why}", field="lease", received=lease, retry_after_s=left_s or None
        )


def _cause(error: Exception) -> str:
    """The first line of what the database says."""
    words = str(getattr(error, "orig", None) or error).strip()
    return words.splitlines()[0] if words else type(error).__name__


def _log_is_full(why: str) -> StoreError:
    return StoreError(
        f"the samples are deleted, and the log beside the file still holds them ({why}); "
        "delete again"
    )


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() == "postgresql":
            # A table that somebody locked, or a host that is silent, must not wait for ever.
            patience = f"-c lock_timeout={_BUSY_S}s -c statement_timeout={_STATEMENT_S}s"
            limits = {
                "connect_timeout": _BUSY_S,
                "options": patience,
                "tcp_user_timeout": 1000 * _SILENT_S,
                "keepalives_idle": _SILENT_S,
            }
            return create_engine(
                parsed, pool_pre_ping=True, connect_args=limits, hide_parameters=True
            )
        if parsed.get_backend_name() != "sqlite":
            raise ArgumentError(f"{parsed.get_backend_name()} is not supported")
        if parsed.database in (None, "", ":memory:"):
            raise ArgumentError("a database in memory is another one for every connection")
        # Every transaction opens the file by its name: whoever removed it is not written past.
        engine = create_engine(parsed, poolclass=NullPool, hide_parameters=True)
    except ModuleNotFoundError as error:
        raise _no_database(f"{error}; pip install 'candor[postgresql]'") from None
    except ArgumentError as error:
        # SQLAlchemy's own words hold the address, and that may hold a password.
        raise _no_database(str(error) if url not in str(error) else "it cannot be read") from None
    except ValueError:
        raise _no_database("it cannot be read") from None
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _no_database(why: str) -> InvalidInput:
    expected = "sqlite:///FILE or postgresql://USER@HOST/DATABASE"
    return InvalidInput(
        f"CANDOR_DATABASE_URL is no address of a database: {why}; expected {expected}",
        field="database_url",
        expected=expected,
    )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Readers beside a writer, a commit that survives a crash, and deletions that leave nothing."""
    connection.isolation_level = None
    for pragma in (
        f"busy_timeout={int(1000 * _BUSY_S)}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that begins by reading cannot wait for its turn to write.
    reads = connection.get_execution_options().get("reads", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _of(query: Select[Any], model: str | None, status: Status | None) -> Select[Any]:
    if model is not None:
        query = query.where(samples.c.model == model)
    if status is not None:
        query = query.where(samples.c.status == status)
    return query


def _key(order: str) -> ColumnElement[float]:
    if order not in SCORES:
        raise InvalidInput(
            f"`order` is {order!r}; expected one of {', '.join(SCORES)}",
            field="order",
            expected=list(SCORES),
            received=order,
        )
    return ordering(order)


def _place(sample: Sample, order: str) -> str:
    """Where a page ended, whatever becomes of its last sample."""
    return f"{sample.scores.get(order, NONE).hex()}_{sample.id}"


def _read_place(text: str) -> tuple[float, str]:
    value, _, number = text.partition("_")
    try:
        if _ID.fullmatch(number):
            return float.fromhex(value), number
        raise ValueError
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"`after` is {text!r}; expected `next` of the page before", field="after", received=text
        ) from None


def _values(sample: NewSample) -> dict[str, Any]:
    content = packed(sample.input)
    return {
        "id": new_id(),
        "model": sample.model,
        "version": sample.version,
        "time": sample.time,
        "request_id": sample.request_id,
        "row": sample.row,
        "digest": digest(content),
        "input": content,
        **{name: sample.scores.get(name) for name in SCORES},
        "status": Status.UNLABELLED.value,
        "lease_until": 0.0,
    }


def _sample(row: Row[Any]) -> Sample:
    scores = {name: value for name in SCORES if (value := getattr(row, name)) is not None}
    return Sample(
        id=row.id,
        model=row.model,
        version=row.version,
        time=row.time,
        request_id=row.request_id,
        row=row.row,
        input=unpacked(row.input),
        scores=scores,
        status=Status(row.status),
        label=row.label,
        labelled_time=row.labelled_time,
        lease=row.lease,
        lease_until=row.lease_until,
        decided_lease=row.decided_lease,
    )
