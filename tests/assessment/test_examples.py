"""Inputs as people see them."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from service.assessment.examples import SHOWN, examples, is_picture, picture
from tests.assessment.synthetic import classifier, regressor


def pixels_of(uri: str) -> np.ndarray:
    head, content = uri.split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((8, 8), True),
        ((1, 28, 28), True),
        ((3, 32, 48), True),
        ((2, 32, 32), False),
        ((64,), False),
        ((2, 64), False),
        ((), False),
        ((3, 8, 8, 8), False),
    ],
)
def test_which_shapes_are_pictures(shape: tuple[int, ...], expected: bool) -> None:
    assert is_picture(shape) is expected


def test_a_picture_holds_its_pixels() -> None:
    grey = np.linspace(0, 16, 30).reshape(1, 5, 6)
    assert pixels_of(picture(grey, 0, 16)).tolist() == np.rint(grey[0] / 16 * 255).tolist()
    coloured = np.random.default_rng(0).integers(0, 256, (3, 4, 5))
    found = pixels_of(picture(coloured, 0, 255))
    assert found.tolist() == np.moveaxis(coloured, 0, -1).tolist()
    assert pixels_of(picture(np.zeros((1000, 500)), 0, 1)).shape == (125, 63)
    assert not pixels_of(picture(np.full((4, 4), 3.0), 3, 3)).any()


def test_both_ends_of_a_measure() -> None:
    measured, labels_B = classifier(rows=100)
    x = np.random.default_rng(0).random((100, 1, 8, 8)).astype(np.float32)
    found = examples(measured, x, labels_B, ("a", "b", "c", "d"), "predictive_entropy")
    entropy_B = measured.fields["predictive_entropy"]
    assert [each.row for each in found.most] == np.argsort(-entropy_B)[:SHOWN].tolist()
    assert [each.row for each in found.least] == np.argsort(entropy_B)[:SHOWN].tolist()
    first = found.most[0]
    assert first.truth == "abcd"[labels_B[first.row]]
    assert first.predicted == "abcd"[measured.mean_BC[first.row].argmax()]
    assert first.right is (first.truth == first.predicted)
    assert first.confidence == measured.mean_BC[first.row].max()
    assert first.picture is not None
    assert first.features == ()


def test_few_rows_are_shown_at_one_end_only() -> None:
    measured, labels_B = classifier(rows=9)
    found = examples(measured, np.zeros((9, 2)), labels_B, None, "variance")
    rows = [each.row for each in (*found.most, *found.least)]
    assert len(rows) == 8
    assert len(set(rows)) == 8


def test_other_inputs_are_shown_by_what_is_unusual() -> None:
    measured, targets_BC = regressor(rows=100)
    x = np.random.default_rng(0).normal(size=(100, 2, 20))
    row = int(measured.fields["variance"].argmax())
    x[row, 1, 3] = 50.0
    found = examples(measured, x, targets_BC, None, "variance")
    first = found.most[0]
    assert first.row == row
    assert first.picture is None
    assert first.right is None
    [unusual] = [each for each in first.features if each.index == (1, 3)]
    assert unusual.value == 50
    assert unusual.deviations == pytest.approx((50 - x[:, 1, 3].mean()) / x[:, 1, 3].std())
    assert "±" in first.predicted
