"""The store itself: every statement that it runs, for SQLite and PostgreSQL alike."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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

from service.errors import InvalidInput, SampleConflict, SampleNotFound, StoreError
from service.store import migrations
from service.store.contract import NewSample, Sample, Status, digest, new_id, packed, unpacked
from service.store.tables import SCORES, samples

_SQLITE_BUSY_S = 5.0
_NONE = -1e308
"""Stands for a score that a sample does not have; both databases know it."""

_LEAVES = 1000
"""Samples that leave at once, at most."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a model is kept.

    Args:
        samples: at most; beyond, the least uncertain of those that wait for a label leave first,
            and labelled ones never.
        age_s: seconds after which a sample without a label leaves.
    """

    samples: int = 100_000
    age_s: float = math.inf


class SampleStore:
    """Samples of all models in one database. Safe to use from several threads and processes.

    Args:
        url: of the database, as SQLAlchemy reads it.

    Every method raises `StoreError` where the database cannot be reached, read or written.
    """

    def __init__(self, url: str) -> None:
        try:
            self._engine = _engine(url)
        except (ArgumentError, ModuleNotFoundError) as error:
            raise InvalidInput(
                f"CANDOR_DATABASE_URL is no address of a database: {error}", field="database_url"
            ) from None
        self._reader = self._engine.execution_options(reads=True)
        self._insert = sqlite.insert if self._engine.name == "sqlite" else postgresql.insert

    def prepare(self) -> None:
        """Make or change the tables, whatever an earlier version of Candor left."""
        with _told():
            migrations.upgrade(self._engine)

    def keep(self, new: Sequence[NewSample]) -> int:
        """Keep samples in one transaction; returns how many were not there yet."""
        if not new:
            return 0
        statement = self._insert(samples).on_conflict_do_nothing(index_elements=["model", "digest"])
        values = [_values(sample) for sample in new]
        with _told(), self._engine.begin() as connection:
            return len(connection.execute(statement.returning(samples.c.id), values).all())

    def get(self, number: str) -> Sample:
        """One sample.

        Raises:
            SampleNotFound: there is none of this id.
        """
        with _told(), self._reader.connect() as connection:
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
            after: the last sample's id of the page before.
        """
        key = _key(order)
        query = _of(select(samples), model, status)
        if after is not None:
            last = self.get(after)
            value = last.scores.get(order, _NONE)
            query = query.where(tuple_(key, samples.c.id) < tuple_(value, after))
        query = query.order_by(key.desc(), samples.c.id.desc()).limit(limit + 1)
        with _told(), self._reader.connect() as connection:
            rows = connection.execute(query).all()
        found = [_sample(row) for row in rows[:limit]]
        return found, found[-1].id if len(rows) > limit else None

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
        with _told(), self._engine.begin() as connection:
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

    def remove(self, model: str | None = None, numbers: Sequence[str] | None = None) -> int:
        """Delete samples, all of a model's or those of these ids; returns how many there were."""
        statement = delete(samples)
        if model is not None:
            statement = statement.where(samples.c.model == model)
        if numbers is not None:
            statement = statement.where(samples.c.id.in_(numbers))
        with _told(), self._engine.begin() as connection:
            return connection.execute(statement).rowcount

    def counts(self) -> Mapping[tuple[str, str], int]:
        """Samples by model and status."""
        query = select(samples.c.model, samples.c.status, func.count())
        query = query.group_by(samples.c.model, samples.c.status)
        with _told(), self._reader.connect() as connection:
            return {(model, status): count for model, status, count in connection.execute(query)}

    def every(self, model: str, status: Status | None, rows: int = 1000) -> Iterator[Sample]:
        """All samples of a model in the order of their ids, read in parts."""
        last = ""
        while True:
            query = _of(select(samples), model, status).where(samples.c.id > last)
            with _told(), self._reader.connect() as connection:
                found = connection.execute(query.order_by(samples.c.id).limit(rows)).all()
            yield from map(_sample, found)
            if len(found) < rows:
                return
            last = found[-1].id

    def tidy(self, model: str, limits: Limits, order: str) -> int:
        """Let leave what is too old or too much; returns how many did."""
        waiting = and_(samples.c.model == model, samples.c.status == Status.UNLABELLED)
        with _told(), self._engine.begin() as connection:
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
                least = least.order_by(_key(order), samples.c.id).limit(over)
                gone += connection.execute(
                    delete(samples).where(samples.c.id.in_(list(connection.scalars(least))))
                ).rowcount
        return gone

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def _decide(self, number: str, lease: str | None, **values: Any) -> Sample:
        now = time.time()
        free = or_(samples.c.lease_until < now, samples.c.lease == lease)
        values |= {"labelled_time": now, "lease": None, "lease_until": 0.0}
        with _told(), self._engine.begin() as connection:
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


@contextmanager
def _told() -> Iterator[None]:
    """The database's errors as the store's own."""
    try:
        yield
    except SQLAlchemyError as error:
        cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise StoreError(f"the sample store cannot be used: {cause}") from error


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    engine = create_engine(parsed, pool_pre_ping=parsed.get_backend_name() != "sqlite")
    if engine.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """Readers beside a writer, a commit that survives a crash, and deletions that leave nothing."""
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "secure_delete=ON",
        f"busy_timeout={int(1000 * _SQLITE_BUSY_S)}",
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
