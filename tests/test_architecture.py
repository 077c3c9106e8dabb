"""Imports go one way, and rooms keep to what they may know."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SERVICE = ROOT / "service"

GROUND = {"errors", "types", "settings", "schemas", "tokens", "configuration", "files"}
MAY_IMPORT: dict[str, set[str]] = {
    **dict.fromkeys(GROUND, GROUND),
    "collectors": GROUND,
    "metrics": GROUND | {"collectors"},
    "flags": GROUND,
    "logs": set(),
    "tracing": GROUND,
    "client": {"errors", "schemas"},
    "inference": GROUND,
    "calibration": GROUND,
    "registry": GROUND | {"inference", "calibration"},
    # Measures a loaded version, so it stands on the registry; what serves does not need it.
    "assessment": GROUND | {"inference", "calibration", "registry"},
    # How a cluster is reached, and what was measured there.
    "cluster": GROUND | {"inference"},
    # Pools of any size, for the command line; the server is sent what it chooses from.
    "pools": GROUND | {"inference", "calibration", "registry", "cluster"},
    "store": GROUND,
    "scheduling": GROUND | {"metrics", "tracing", "inference", "calibration", "registry"},
    "api": GROUND
    | {"logs", "tracing", "metrics", "inference", "calibration", "registry", "store", "scheduling"},
    # Wiring, as `api/app.py` and `api/server.py` are for one machine.
    "ray_app": GROUND | {"logs", "cluster", "registry", "api"},
    "cli": GROUND
    | {
        "cluster",
        "ray_app",
        "logs",
        "metrics",
        "inference",
        "calibration",
        "registry",
        "assessment",
        "pools",
        "scheduling",
        "api",
    }
    | {"client", "flags"},
    "__main__": {"cli"},
    "__init__": set(),
}
ONLY_IN: dict[str, set[str]] = {
    "fastapi": {"api"},
    "ray": {"cluster", "pools", "ray_app"},
    "starlette": {"api", "ray_app"},
    "fastapi_offline": {"api"},
    "uvicorn": {"api"},
    "asyncio": {"api", "ray_app", "scheduling", "client"},
    "httpx": {"client"},
    "typer": {"cli", "flags"},
    "pyarrow": {"pools", "store"},
    "sqlalchemy": {"store"},
    "alembic": {"store"},
    "opentelemetry": {"tracing"},
    "PIL": {"assessment", "pools"},
}


def _room(path: Path) -> str:
    parts = path.relative_to(SERVICE).parts
    return parts[0].removesuffix(".py")


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "service":
                yield from (f"service.{alias.name}" for alias in node.names)
            else:
                yield node.module


FILES = sorted(SERVICE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = _room(path)
    for module in _imports(path):
        first, _, rest = module.partition(".")
        if first == "service" and rest:
            other = rest.split(".")[0]
            if other not in {room, "__version__"}:
                assert other in MAY_IMPORT[room], f"{room} may not import {other}"
        elif first in ONLY_IN:
            assert room in ONLY_IN[first], f"{first} lives only in {ONLY_IN[first]}"


def test_models_know_nothing_of_the_service() -> None:
    for path in (ROOT / "models").rglob("*.py"):
        assert not any(module.split(".")[0] == "service" for module in _imports(path)), path


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("service.client", ("torch", "fastapi", "uvicorn")),
        ("service.calibration.conformal", ("torch", "fastapi", "pydantic")),
        ("service.api.workers.process", ("torch", "sklearn", "sqlalchemy", "matplotlib")),
        ("service.api.replicas.door", ("torch", "sklearn", "sqlalchemy", "ray")),
        ("service.cluster", ("torch", "ray")),
        ("service.cli", ("ray",)),
        ("service.inference.prediction", ("fastapi", "pydantic", "uvicorn", "httpx")),
    ],
)
def test_importing_a_room_does_not_load_what_it_must_not_know(
    module: str, unwanted: tuple[str, ...]
) -> None:
    code = f"import sys, {module}; print([m for m in {unwanted!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
