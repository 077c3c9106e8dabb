"""A store on each database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.store.samples import SampleStore


@pytest.fixture
def store(url: str) -> Iterator[SampleStore]:
    """An empty store, ready."""
    made = SampleStore(url)
    made.prepare()
    yield made
    made.close()
