"""calibration.json holds what was fitted, is written at once, and says when it does not hold."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.calibration.artifact import (
    FILE,
    Calibration,
    Conditions,
    DataUsed,
    digest_of,
    read_calibration,
    stale_for,
    stale_for_request,
    write_calibration,
)
from service.calibration.conformal import ConformalClassifier
from service.calibration.drift import ReferenceBins
from service.calibration.scores import FittedScore
from service.calibration.temperature import Outcome, Temperature
from service.calibration.thresholds import Threshold
from service.errors import CalibrationFailed
from service.types import Masks, SamplePlan, Task

CONDITIONS = Conditions("ab" * 32, 50, Masks.SHARED, "float32")


def calibration() -> Calibration:
    return Calibration(
        model="mine",
        version=3,
        task=Task.CLASSIFICATION,
        created=datetime(2026, 11, 21, 12, tzinfo=UTC),
        libraries={"torch": "2.13.0"},
        data=DataUsed("validation.npz", "cd" * 32, 100),
        conditions=CONDITIONS,
        seed=0,
        score=FittedScore("variance", {}),
        threshold=Threshold(0.1 + 0.2, 100, 0.05, 0.05, (0.02, 0.1)),
        temperature=Temperature(1.5, Outcome.FITTED, 100, -0.3, -0.2),
        conformal_classifier=ConformalClassifier(
            "lac", False, False, 0.9, (0.7,), (100,), ((0.84, 0.95),)
        ),
        references={"variance": ReferenceBins((0.1, 0.2), (30, 40, 30))},
    )


def test_what_was_written_is_read_back_to_the_last_digit(tmp_path: Path) -> None:
    path = write_calibration(tmp_path, calibration())
    assert path == tmp_path / FILE
    found = read_calibration(tmp_path)
    assert found is not None
    assert found.model_dump(mode="json") == calibration().model_dump(mode="json")
    assert found.threshold.value == 0.1 + 0.2
    assert [entry.name for entry in tmp_path.iterdir()] == [FILE]


def test_a_version_without_one_has_none(tmp_path: Path) -> None:
    assert read_calibration(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: "{", "Invalid JSON"),
        (lambda text: text.replace('"threshold"', '"treshold"'), "threshold"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "format"),
        (lambda text: text.replace('"lac"', "7"), "conformal_classifier.method"),
    ],
)
def test_another_file_is_refused_by_the_place_that_is_wrong(
    change: object, sentence: str, tmp_path: Path
) -> None:
    path = write_calibration(tmp_path, calibration())
    assert callable(change)
    path.write_text(change(path.read_text()))
    with pytest.raises(CalibrationFailed, match=sentence):
        read_calibration(tmp_path)


def test_a_folder_that_cannot_be_written_to_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CalibrationFailed, match="cannot be written"):
        write_calibration(tmp_path / "missing", calibration())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({}, None),
        ({"weights": "00"}, "other weights"),
        ({"passes": 20}, "50 passes, not 20"),
        ({"masks": Masks.INDEPENDENT}, "shared masks, not independent"),
        ({"precision": "bfloat16"}, "in float32, and passes run in bfloat16"),
    ],
)
def test_it_holds_for_the_weights_passes_masks_and_precision_that_it_was_made_with(
    change: dict[str, object], sentence: str | None
) -> None:
    now = dataclasses.replace(CONDITIONS, **change)  # type: ignore[arg-type]
    reason = stale_for(CONDITIONS, now)
    assert (reason is None) if sentence is None else (reason is not None and sentence in reason)


def test_it_holds_for_any_seed_but_not_under_a_tolerance() -> None:
    assert stale_for_request(CONDITIONS, SamplePlan(50, 99, Masks.SHARED)) is None
    reason = stale_for_request(CONDITIONS, SamplePlan(50, 0, Masks.SHARED, tolerance=0.1))
    assert reason is not None
    assert "own number" in reason


def test_a_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    digest = digest_of({"a": one, "b": other})
    assert digest == digest_of({"b": other, "a": one})
    assert digest != digest_of({"a": other, "b": one})
    assert digest != digest_of({"a": one, "c": other})
