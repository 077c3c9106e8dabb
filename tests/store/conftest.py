"""The same tests on both databases; PostgreSQL is a real one, started here."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from service.store.samples import SampleStore


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own; the address of its first database."""
    # Where it keeps track of its servers; without the variable it warns of choosing a place itself.
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp())
    from pgserver.postgres_server import get_server

    server = get_server(tmp_path_factory.mktemp("postgresql"), cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'samples.sqlite'}"
    address: str = request.getfixturevalue("postgresql")
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return address.replace("/postgres?", f"/{name}?")


@pytest.fixture
def store(url: str) -> Iterator[SampleStore]:
    """An empty store, ready."""
    made = SampleStore(url)
    made.prepare()
    yield made
    made.close()
