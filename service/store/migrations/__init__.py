"""How the store's tables came to be what they are: Alembic, one file a change."""

from __future__ import annotations

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, func, select

_alone = threading.Lock()
"""Alembic keeps what it is doing in module variables."""

_LOCK = 0x43616E646F72
"""Of the database: servers that start together change it one after the other."""


def upgrade(engine: Engine) -> None:
    """Make the tables, or bring those of an earlier version up to this one, in one transaction."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    with _alone, engine.begin() as connection:
        if engine.name == "postgresql":
            connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
