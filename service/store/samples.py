"""The store itself: every statement that it runs, for SQLite and PostgreSQL alike."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    Select,
    and_,
    create_engine,
    delete,
    event,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from service.errors import InvalidInput, SampleConflict, SampleNotFound, StoreError
from service.store import migrations
from service.store.contract import NewSample, Sample, Status, digest, new_id, packed, unpacked
from service.store.tables import SCORES, samples

_BUSY_S = 5
"""Seconds that another's lock is waited for, and PostgreSQL's host."""

_STATEMENT_S = 60
_NONE = -1e308
"""Stands for a score that a sample does not have; both databases know it."""

_LEAVES = 1000
"""Samples that leave at once, at most."""

BY_TIME = "time"
"""The order of leaving in which the oldest goes first."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a model is kept.

    Args:
        samples: at most, as far as those that have a label allow, which never leave.
        age_s: seconds after which a sample without a label leaves.
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
        self._insert = sqlite.insert if self._is_sqlite else postgresql.insert
        self._prepared = False
        self._preparing = threading.Lock()

    def prepare(self) -> None:
        """Make the tables, or change those that an earlier version of Candor left."""
        with self._reading():
            pass

    def keep(self, new: Sequence[NewSample]) -> Counter[str]:
        """Keep samples in one transaction; returns how many of each model were not there yet."""
        if not new:
            return Counter()
        statement = self._insert(samples).on_conflict_do_nothing(index_elements=["model", "digest"])
        values = [_values(sample) for sample in new]
        with self._writing() as connection:
            return Counter(connection.scalars(statement.returning(samples.c.model), values))

    def get(self, number: str) -> Sample:
        """One sample.

        Raises:
            SampleNotFound: there is none of this id.
        """
        with self._reading() as connection:
            row = connection.execute(select(samples).where(samples.c.id == number)).one_or_none()
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
        query = _of(select(samples), model, status)
        if after is not None:
            query = query.where(tuple_(key, samples.c.id) < tuple_(*_read_place(after)))
        query = query.order_by(key.desc(), samples.c.id.desc()).limit(limit + 1)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        found = [_sample(row) for row in rows[:limit]]
        return found, _place(found[-1], order) if len(rows) > limit else None

    def lease(self, model: str, order: str, limit: int, seconds: float) -> tuple[str, list[Sample]]:
        """Samples that are nobody else's to label for so long, the most uncertain first.

        Returns:
            The lease, which labels them, and the samples.
        """
        lease, now = new_id(), time.time()
        free = and_(
            samples.c.model == model,
            samples.c.status == Status.UNLABELLED,
            samples.c.lease_until < now,
        )
        best = select(samples.c.id).where(free).order_by(_key(order).desc(), samples.c.id.desc())
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
            taken = select(samples).where(samples.c.lease == lease)
            rows = connection.execute(taken.order_by(_key(order).desc(), samples.c.id.desc())).all()
        return lease, [_sample(row) for row in rows]

    def label(self, number: str, label: Any, lease: str | None = None) -> Sample:
        """Give a sample its label, or another one than it had.

        Raises:
            SampleNotFound: there is none of this id.
            SampleConflict: it is somebody else's to label.
        """
        return self._decide(number, lease, status=Status.LABELLED, label=label)

    def skip(self, number: str, lease: str | None = None) -> Sample:
        """Leave a sample without a label, for good. Raises as `label`."""
        return self._decide(number, lease, status=Status.SKIPPED, label=None)

    def remove(
        self,
        model: str | None = None,
        numbers: Sequence[str] | None = None,
        request_id: str | None = None,
    ) -> int:
        """Delete for good: samples of a model, of these ids, of a request; returns how many."""
        statement = delete(samples)
        if model is not None:
            statement = statement.where(samples.c.model == model)
        if numbers is not None:
            statement = statement.where(samples.c.id.in_(numbers))
        if request_id is not None:
            statement = statement.where(samples.c.request_id == request_id)
        with self._writing() as connection:
            count = connection.execute(statement).rowcount
        if self._is_sqlite:
            # Until then the log beside the file holds what was deleted.
            with closing(self._engine.raw_connection()) as raw:
                raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return count

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Samples by model and status."""
        query = select(samples.c.model, samples.c.status, func.count())
        query = query.group_by(samples.c.model, samples.c.status)
        with self._reading() as connection:
            return {(model, status): count for model, status, count in connection.execute(query)}

    def every(self, model: str | None, status: Status | None, rows: int = 1000) -> Iterator[Sample]:
        """All samples, of a model or of all, in the order of their ids, read in parts."""
        last = ""
        while True:
            query = _of(select(samples), model, status).where(samples.c.id > last)
            with self._reading() as connection:
                found = connection.execute(query.order_by(samples.c.id).limit(rows)).all()
            yield from map(_sample, found)
            if len(found) < rows:
                return
            last = found[-1].id

    def tidy(self, model: str, limits: Limits, order: str) -> int:
        """Let leave what is too old or too much, the first by `order`; returns how many did.

        Args:
            model: whose.
            limits: of it.
            order: one of `SCORES`, of which the least leave first, or `BY_TIME`, the oldest.
        """
        waiting = and_(samples.c.model == model, samples.c.status == Status.UNLABELLED)
        with self._writing() as connection:
            gone = 0
            if math.isfinite(limits.age_s):
                old = delete(samples).where(waiting, samples.c.time < time.time() - limits.age_s)
                gone += connection.execute(old).rowcount
            count = connection.scalar(
                select(func.count()).select_from(samples).where(samples.c.model == model)
            )
            over = min(int(count or 0) - limits.samples, _LEAVES)
            if over > 0:
                least = select(samples.c.id).where(waiting, samples.c.lease_until < time.time())
                first = samples.c.time if order == BY_TIME else _key(order)
                least = least.order_by(first, samples.c.id).limit(over)
                gone += connection.execute(
                    delete(samples).where(samples.c.id.in_(list(connection.scalars(least))))
                ).rowcount
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
        except SQLAlchemyError as error:
            self._prepared = False
            cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise StoreError(f"the sample store cannot be used: {cause}") from error

    def _reading(self) -> AbstractContextManager[Connection]:
        return self._connected(self._reader)

    def _writing(self) -> AbstractContextManager[Connection]:
        return self._connected(self._engine)

    def _decide(self, number: str, lease: str | None, **values: Any) -> Sample:
        now = time.time()
        free = or_(samples.c.lease_until < now, samples.c.lease == lease)
        values |= {"labelled_time": now, "lease": None, "lease_until": 0.0}
        with self._writing() as connection:
            done = connection.execute(
                update(samples).where(samples.c.id == number, free).values(**values)
            ).rowcount
        found = self.get(number)
        if not done:
            raise SampleConflict(
                f"sample {number} is somebody else's to label for another "
                f"{found.lease_until - now:.0f} seconds",
                field="lease",
                received=lease,
                retry_after_s=max(0.0, found.lease_until - now),
            )
        return found


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() == "postgresql":
            # A table that somebody locked, or a host that is silent, must not wait for ever.
            patience = f"-c lock_timeout={_BUSY_S}s -c statement_timeout={_STATEMENT_S}s"
            limits = {"connect_timeout": _BUSY_S, "options": patience}
            return create_engine(parsed, pool_pre_ping=True, connect_args=limits)
        if parsed.get_backend_name() != "sqlite":
            raise ArgumentError(f"{parsed.get_backend_name()} is not supported")
        # Every transaction opens the file by its name: whoever removed it is not written past.
        engine = create_engine(parsed, poolclass=NullPool)
    except ModuleNotFoundError as error:
        raise _no_database(f"{error}; pip install 'candor[postgresql]'") from None
    except (ArgumentError, ValueError) as error:
        raise _no_database(str(error)) from None
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _no_database(why: str) -> InvalidInput:
    expected = "sqlite:///FILE or postgresql://USER@HOST/DATABASE"
    # The value may hold a password.
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


def _key(order: str) -> Any:
    """The column of a score, what has none coming last."""
    if order not in SCORES:
        raise InvalidInput(
            f"`order` is {order!r}; expected one of {', '.join(SCORES)}",
            field="order",
            expected=list(SCORES),
            received=order,
        )
    return func.coalesce(samples.c[order], _NONE)


def _place(sample: Sample, order: str) -> str:
    """Where a page ended, whatever becomes of its last sample."""
    return f"{sample.scores.get(order, _NONE).hex()}_{sample.id}"


def _read_place(text: str) -> tuple[float, str]:
    value, _, number = text.partition("_")
    try:
        return float.fromhex(value), number
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
        "input_bytes": len(content),
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
    )
