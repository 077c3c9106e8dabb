"""An audit that could not be made never looks like one that found nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "audit.py"


def _audit(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=120
    )


@contextmanager
def _index(body: bytes) -> Iterator[str]:
    """A mirror that answers every question with the same."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    "body", [json.dumps({"info": {}, "vulnerabilities": []}).encode(), b"[]", b"<html>"]
)
def test_a_mirror_that_knows_of_no_vulnerability_is_not_believed(body: bytes) -> None:
    with _index(body) as address:
        done = _audit("--index", address)
        assert done.returncode == 1
        assert "NOT AUDITED" in done.stderr


def test_ci_goes_on_without_an_audit_and_says_so() -> None:
    done = _audit("--where-reachable", "--index", "http://127.0.0.1:1")
    assert done.returncode == 0
    assert "NOT AUDITED" in done.stderr
