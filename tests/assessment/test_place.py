"""Where a report goes: beside its version, where the user says, or, on a read-only disk, here."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.assessment.place import ELSEWHERE, place_of
from service.errors import InvalidInput, ModelBroken
from service.types import ModelRef

REF = ModelRef("digits", 2)
NOW = datetime(2026, 11, 27, 10, 30, 5, tzinfo=UTC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "models" / "digits" / "2").mkdir(parents=True)
    return tmp_path / "models"


def test_it_goes_beside_its_version_under_the_time(root: Path) -> None:
    folder = root / "digits" / "2" / "reports"
    place = place_of(root, REF, None, None, NOW)
    assert place.page == folder / "2026-11-27T10-30-05Z.html"
    assert place.numbers == folder / "2026-11-27T10-30-05Z.json"
    assert place.beside
    # It is made when there is something to put there.
    assert not folder.exists()
    folder.mkdir()
    place.numbers.touch()
    second = place_of(root, REF, None, None, NOW)
    assert second.page.name == "2026-11-27T10-30-05Z-2.html"
    second.page.touch()
    assert place_of(root, REF, None, None, NOW).page.name == "2026-11-27T10-30-05Z-3.html"


def test_or_under_a_name_which_replaces_the_one_of_that_name(root: Path) -> None:
    for _ in range(2):
        place = place_of(root, REF, None, "v1.2", NOW)
        assert place.page == root / "digits" / "2" / "reports" / "v1.2.html"
        assert place.numbers.name == "v1.2.json"
        place.page.parent.mkdir(exist_ok=True)
        place.page.touch()
    for name in ("", ".x", "../x", "a b", "x/y"):
        with pytest.raises(InvalidInput, match="cannot be the name of a report"):
            place_of(root, REF, None, name, NOW)


def test_or_where_the_user_says(root: Path, tmp_path: Path) -> None:
    place = place_of(root, REF, tmp_path / "doubt.html", None, NOW)
    assert (place.page, place.numbers) == (tmp_path / "doubt.html", tmp_path / "doubt.json")
    assert not place.beside
    with pytest.raises(InvalidInput, match="--out names the page"):
        place_of(root, REF, tmp_path / "doubt.json", None, NOW)
    with pytest.raises(InvalidInput, match="--name is of a report beside its version"):
        place_of(root, REF, tmp_path / "doubt.html", "x", NOW)


def test_what_cannot_be_written_to_is_said_before_the_work(root: Path) -> None:
    # No permission and no read-only disk stops root, as whom tests may run.
    (root / "digits" / "2" / "reports").touch()
    place = place_of(root, REF, None, None, NOW)
    assert (place.page, place.beside) == (ELSEWHERE, False)
    assert "models/digits/2/reports cannot be written to" in place.why_not
    with pytest.raises(InvalidInput, match=r"--out FILE\.html writes the report elsewhere"):
        place_of(root, REF, None, "named", NOW)


def test_nothing_is_written_outside_the_repository(root: Path, tmp_path: Path) -> None:
    (root / "digits" / "2" / "reports").symlink_to(tmp_path)
    with pytest.raises(ModelBroken, match="leads out of"):
        place_of(root, REF, None, None, NOW)
