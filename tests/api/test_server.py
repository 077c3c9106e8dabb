"""The end of a server does not wait for ever for those who send or take without end."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from pathlib import Path

import pytest

from service.api import drain
from service.api.app import build_app, build_service
from service.api.listening import configuration
from service.api.server import DrainingServer
from service.settings import load_settings

HALF = b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"


@pytest.mark.parametrize(("drain_timeout_s", "signals"), [(0.1, 1), (1e6, 2), ("inf", 2)])
def test_a_body_that_does_not_end_does_not_keep_a_server_that_was_told_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drain_timeout_s: float | str, signals: int
) -> None:
    monkeypatch.setattr(drain, "_LEAST_S", 0.1)
    settings = load_settings(
        {
            "models": tmp_path,
            "database_url": f"sqlite:///{tmp_path}/samples.sqlite",
            "drain_timeout_s": drain_timeout_s,
            "drain_linger_s": 0,
        },
        environment={},
    )
    service = build_service(settings)
    app = build_app(service)
    config = configuration(app, settings, service.tally, app)
    server = DrainingServer(config, service)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # uvicorn takes signals in the main thread alone; here they are given by hand.
        thread = threading.Thread(
            target=lambda: asyncio.run(server.serve([listening])), daemon=True
        )
        thread.start()
        with socket.create_connection(listening.getsockname(), timeout=60) as client:
            client.sendall(HALF)
            while not server.server_state.connections:
                thread.join(0.01)
            for _ in range(signals):
                server.handle_exit(signal.SIGTERM, None)
            thread.join(60)
            assert not thread.is_alive()
