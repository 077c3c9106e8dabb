"""Threads: the tests' tensors are small, and what runs beside them must not slow them down.

Databases: the same tests on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

# Read once, when torch is imported: as `candor serve` sets it (`service/__main__.py`).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# Processes that tests start inherit it: a server whose threads are on every core slows its
# neighbours down and is no faster itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from tests.databases import PostgreSQL, postgresql_server, sqlite_address

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no process is left alone with them at the end."""
    items.sort(key=lambda item: "statistical" not in item.path.parts)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A server that tests share; each takes a database of its own."""
    with postgresql_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return sqlite_address(tmp_path)
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database()
