"""Traces are an extra: nothing of it is loaded while they are off, and what is missing is said."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.errors import InvalidInput
from service.settings import load_settings
from service.tracing import Part, tracing_by

ROOT = Path(__file__).parents[1]


def test_nothing_of_the_extra_is_loaded_while_it_is_off(tmp_path: Path) -> None:
    code = (
        "import sys; from service.api.app import build_app, build_service; "
        "from service.settings import load_settings; "
        f"build_app(build_service(load_settings({{'models': {str(tmp_path)!r}}}, {{}}))); "
        "print({'opentelemetry.sdk', 'opentelemetry.exporter', 'requests'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "set()"


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "service.tracing.spans", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    settings = load_settings({"tracing": True}, environment={})
    with pytest.raises(InvalidInput, match=r"pip install 'candor\[otel\]'") as caught:
        tracing_by(settings)
    assert caught.value.field == "CANDOR_TRACING"


def test_it_is_off_unless_switched_on() -> None:
    assert tracing_by(load_settings(environment={})) is None
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    assert tracing_by(load_settings(environment=environment)) is None


def test_a_collector_that_is_not_there_keeps_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
        tracing = tracing_by(load_settings({"tracing": True}, environment={}))
        assert tracing is not None
        spans = tracing.request("POST", "/predict", {}, "id")
        assert spans.traceparent is not None
        now_s = time.monotonic()
        parts = [Part(spans.traceparent, now_s, {"candor.rows": 1})]
        tracing.step("sample", now_s, now_s, {}, parts)
        spans.end("/predict", 200, "m")
        tracing.close(timeout_s=0.1)
    assert any("aborting retry" in record.message for record in caplog.records)


def test_opentelemetry_s_own_switch_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracing = tracing_by(load_settings({"tracing": True}, environment={}))
    assert tracing is not None
    spans = tracing.request("POST", "/predict", {}, "id")
    assert (spans.traceparent, spans.trace_id) == (None, None)
    spans.parsed({})
    spans.computed(degraded=False)
    spans.end("/predict", 200, "m")
    tracing.close()
