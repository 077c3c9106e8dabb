"""By which lease a sample was decided, so that who decided may take it back; leases by an index."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_LEASED = sa.text("lease IS NOT NULL")


def upgrade() -> None:
    op.add_column("samples", sa.Column("decided_lease", sa.String(32)))
    op.create_index(
        "samples_by_lease", "samples", ["lease"], sqlite_where=_LEASED, postgresql_where=_LEASED
    )


def downgrade() -> None:
    op.drop_index("samples_by_lease", "samples")
    op.drop_column("samples", "decided_lease")
