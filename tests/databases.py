"""Real databases for tests: a file, and a PostgreSQL server that they start themselves."""

from __future__ import annotations

import fcntl
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

# Where pgserver keeps track of its servers; without it it warns of choosing a place by itself.
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp())

_LOCK = Path(tempfile.gettempdir()) / "candor-tests-postgresql.lock"


class PostgreSQL:
    """A server of its own, listening on a socket."""

    def __init__(self, folder: Path) -> None:
        from pgserver.postgres_server import PostgresServer

        # As root it makes a user first, which two processes must not do at once.
        with _LOCK.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._server = PostgresServer(folder, cleanup_mode=None)
        # What a test kills is never the database: it need not survive a power cut.
        self.execute("ALTER SYSTEM SET fsync = off")
        self.execute("SELECT pg_reload_conf()")

    def execute(self, statement: str) -> None:
        """As the superuser, outside any transaction."""
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def database(self) -> str:
        """The address of a new, empty database."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}")
        return str(self._server.get_uri()).replace("/postgres?", f"/{name}?")

    def stop(self) -> None:
        """At once, with all its connections."""
        from pgserver import pg_ctl  # type: ignore[attr-defined]

        words = ["-w", "-m", "immediate", "stop"]
        pg_ctl(words, pgdata=self._server.pgdata, user=self._server.system_user)

    def start(self) -> None:
        """Again."""
        self._server.ensure_postgres_running()


@contextmanager
def postgresql_server() -> Iterator[PostgreSQL]:
    """A server while the context lasts."""
    # Not in pytest's folders: as root the server is another user, and pytest locks others out.
    with tempfile.TemporaryDirectory(prefix="candor-postgresql-") as folder:
        server = PostgreSQL(Path(folder))
        try:
            yield server
        finally:
            server.stop()


def sqlite_address(folder: Path) -> str:
    """Of a file that is not there yet."""
    return f"sqlite:///{folder / 'samples.sqlite'}"
