"""Servers, and a browser, that many tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.browser import browsing, visiting
from tests.e2e.servers import SHIPPED, Server, serving
from tests.repositories import FRAGILE, SLOW, write_model


@pytest.fixture(scope="session")
def shipped() -> Iterator[Server]:
    """The shipped models, served with the defaults."""
    with serving(SHIPPED) as server:
        yield server


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two classifiers of four numbers, `first` and `second`, served with the defaults."""
    root = tmp_path_factory.mktemp("tiny")
    write_model(root, "first", more='labels = ["a", "b", "c"]')
    write_model(root, "second")
    with serving(root, "--default-model", "first") as server:
        yield server


@pytest.fixture(scope="session")
def odd_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with good, slow, fragile and broken models."""
    root = tmp_path_factory.mktemp("odd")
    write_model(root, "good")
    write_model(root, "slow", SLOW, shape="[1]", more="passes = 2")
    write_model(root, "fragile", FRAGILE, shape="[1]")
    write_model(root, "unknown_key", more="colour = 1")
    folder = write_model(root, "raises")
    (folder / "network.py").write_text("def build():\n    raise ValueError('no such layer')\n")
    return root


@pytest.fixture(scope="session")
def odd(odd_models: Path) -> Iterator[Server]:
    """The odd models, with small limits."""
    with serving(odd_models, "--queue-requests", "8", "--max-body-bytes", "100000") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with visiting(browser) as opened:
        yield opened
