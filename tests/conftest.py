"""Threads: the tests' tensors are small, and what runs beside them must not slow them down.

Databases: the same tests on SQLite and on PostgreSQL.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

# Read once, when torch is imported: as `candor serve` sets it (`service/__main__.py`).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
# Processes that tests start inherit it: a server whose threads are on every core slows its
# neighbours down and is no faster itself.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

from tests.databases import PostgreSQL, postgresql_server, sqlite_address
from tests.quick import load_quickly

torch.set_num_threads(1)
load_quickly()
# The same cases each time, however long a busy machine takes for one.
hypothesis.settings.register_profile("seeded", derandomize=True, deadline=None)
hypothesis.settings.load_profile("seeded")

_ORDER = ("e2e", "statistical", "assessment", "registry", "store", "inference")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first, so that no process is left alone with them at the end."""
    items.sort(key=lambda item: _place(item.path))


def pytest_configure() -> None:
    """What is imported stays, as in `service/__main__.py`."""
    gc.disable()


def pytest_collection_finish() -> None:
    """All is imported."""
    gc.freeze()
    gc.enable()


def _place(path: Path) -> int:
    return next((place for place, folder in enumerate(_ORDER) if folder in path.parts), len(_ORDER))


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
