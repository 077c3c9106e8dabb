"""What was measured once is taken over by whoever loads the same later."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import InvalidInput
from service.inference.kept_choices import KeptChoices
from service.inference.tuning import Form, Tuned
from tests.registry.test_loading import Others

FORM = Form(channels_last=False, precision="bfloat16", lowered=True, prefix=True, thinned_from=8)
TUNED = Tuned(FORM, ("bfloat16", "thinned"), 256, None, 2)
OTHER = Tuned(None, (), 64, 32, 2)


def test_another_process_finds_what_was_measured(tmp_path: Path) -> None:
    folder = tmp_path / "in" / "tuning"
    first = KeptChoices(folder)
    assert first.known("digits") is None
    first.measured("digits", TUNED)
    second = KeptChoices(folder)
    assert second.known("digits") == TUNED
    assert second.known("co2") is None
    # As a whole, without what it was written by.
    assert len([*folder.iterdir()]) == 1


def test_what_others_say_goes_before_it_and_is_kept(tmp_path: Path) -> None:
    KeptChoices(tmp_path).measured("digits", TUNED)
    others = Others()
    others.told["digits"] = OTHER
    assert KeptChoices(tmp_path, others).known("digits") == OTHER
    assert KeptChoices(tmp_path).known("digits") == OTHER


def test_others_who_know_nothing_are_told(tmp_path: Path) -> None:
    KeptChoices(tmp_path).measured("digits", TUNED)
    others = Others()
    kept = KeptChoices(tmp_path, others)
    assert kept.known("digits") == TUNED
    assert others.told == {"digits": TUNED}
    assert kept.known("co2") is None
    kept.given_up("co2")
    assert others.given_up_on == ["co2"]
    kept.measured("co2", OTHER)
    assert others.told["co2"] == OTHER


def test_what_cannot_be_read_is_measured_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = KeptChoices(tmp_path)
    kept.measured("digits", TUNED)
    [file] = tmp_path.iterdir()
    for content in ("", "{}", '{"of": "digits", "tuned": {"form": null, "words": []}}'):
        file.write_text(content)
        assert kept.known("digits") is None
        assert "measured again" in caplog.text
        caplog.clear()
    kept.measured("digits", TUNED)
    assert kept.known("digits") == TUNED


def test_what_was_measured_of_something_else_is_not_taken_over(tmp_path: Path) -> None:
    kept = KeptChoices(tmp_path)
    kept.measured("digits", TUNED)
    [file] = tmp_path.iterdir()
    file.rename(kept._file("co2"))
    assert kept.known("co2") is None


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="CANDOR_TUNING names a folder"):
        KeptChoices(tmp_path / "file" / "tuning")
