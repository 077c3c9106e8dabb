"""The store's tables, as SQLAlchemy sees them; `migrations/` makes and changes them."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    func,
    literal_column,
)

SCORES = ("variance", "predictive_entropy", "mutual_information", "variation_ratio")
"""Scores that samples can be ordered by, each a column of its own."""

NONE = -1e308
"""Stands for a score that a sample does not have; both databases know it."""


def ordering(score: str) -> ColumnElement[float]:
    """What samples are ordered by, those without the score last.

    Word for word what its index is of: a database looks no deeper to know it again.
    """
    return func.coalesce(literal_column(score), literal_column(f"{NONE}", Float(53)))


LEASED = literal_column("lease").is_not(None)
"""Only a sample without a label has a lease, which may have ended."""

metadata = MetaData()

samples = Table(
    "samples",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("model", String(255), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("time", Float(53), nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("row", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    *(Column(name, Float(53)) for name in SCORES),
    Column("status", String(16), nullable=False),
    Column("label", JSON),
    Column("labelled_time", Float(53)),
    Column("lease", String(32)),
    Column("lease_until", Float(53), nullable=False, default=0.0),
    Column("decided_lease", String(32)),
    # Last: whoever looks at the others need not read it.
    Column("input", LargeBinary, nullable=False),
    # The same input is worth one label, whoever sends it how often.
    UniqueConstraint("model", "digest", name="samples_once"),
    *(Index(f"samples_by_{name}", "model", "status", ordering(name), "id") for name in SCORES),
    Index("samples_by_time", "model", "time"),
    Index("samples_by_lease", "lease", sqlite_where=LEASED, postgresql_where=LEASED),
)
