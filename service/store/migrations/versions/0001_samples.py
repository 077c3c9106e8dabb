"""The table of samples."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SCORES = ("variance", "predictive_entropy", "mutual_information", "variation_ratio")


def upgrade() -> None:
    op.create_table(
        "samples",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("time", sa.Float(53), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("row", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        *(sa.Column(name, sa.Float(53)) for name in _SCORES),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("label", sa.JSON),
        sa.Column("labelled_time", sa.Float(53)),
        sa.Column("lease", sa.String(32)),
        sa.Column("lease_until", sa.Float(53), nullable=False),
        sa.Column("input", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("model", "digest", name="samples_once"),
    )
    for name in _SCORES:
        score = sa.text(f"coalesce({name}, -1e+308)")
        op.create_index(f"samples_by_{name}", "samples", ["model", "status", score, "id"])
    op.create_index("samples_by_time", "samples", ["model", "time"])


def downgrade() -> None:
    op.drop_table("samples")
