"""Dense outputs: each pixel or token is predicted as a row of its own would be."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.inference.fields import FIELDS, JACKKNIFE_FIELDS, SUMMARY_FIELDS, Fields
from service.inference.memory import peak_bytes
from service.inference.prediction import Request, evaluate, predict
from service.inference.sampler import Sampler, build_sampler
from service.types import Masks, SamplePlan, Task
from tests.networks import build, example

CPU = torch.device("cpu")


def ask(sampler: Sampler, task: Task, request: Request) -> Fields:
    [fields] = predict(sampler, task, [request])
    assert fields is not None
    return fields


class OnePlace(nn.Module):
    """Of a dense network only what it says of one place, as an ordinary [B, C]."""

    def __init__(self, dense: nn.Module, place: tuple[int, ...]) -> None:
        super().__init__()
        self.dense, self.place = dense, place

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.dense(x)[(..., *self.place)]
        return outputs


@functools.cache
def sampler_of(
    name: str,
    place: tuple[int, ...] | None = None,
    memory_bytes: int = 2**26,
    noise_bytes: int = 2**26,
) -> Sampler:
    """Of a dense network, or of what it says of one place; exporting takes a second."""
    network = build(name)
    return build_sampler(
        network if place is None else OnePlace(network, place).eval(),
        example(name),
        device=CPU,
        memory_bytes=memory_bytes,
        noise_bytes=noise_bytes,
    )


@pytest.mark.parametrize("masks", list(Masks))
@pytest.mark.parametrize(
    ("name", "task", "place"),
    [
        ("segmentation", Task.CLASSIFICATION, (2, 4)),
        ("segmentation", Task.MULTILABEL, (0, 0)),
        ("segmentation", Task.REGRESSION, (5, 1)),
        ("tagging", Task.CLASSIFICATION, (3,)),
        ("tagging", Task.HETEROSCEDASTIC_REGRESSION, (6,)),
    ],
)
def test_a_place_says_what_it_says_alone(
    name: str, task: Task, place: tuple[int, ...], masks: Masks
) -> None:
    inputs = example(name)(3)
    index = np.ravel_multi_index(place, inputs.shape[2:])
    request = Request(inputs, SamplePlan(20, 1, masks), FIELDS)
    dense = ask(sampler_of(name), task, request)
    alone = ask(sampler_of(name, place), task, request)
    for field, expected in alone.items():
        got = dense[field]
        if expected is None:
            assert got is None
        elif field == "passes":
            np.testing.assert_array_equal(np.asarray(got), expected)
        else:
            at_place = np.asarray(got).reshape(*expected.shape, -1)[..., index]
            np.testing.assert_allclose(at_place, expected, rtol=0, atol=1e-5, err_msg=field)
    deterministic = evaluate(sampler_of(name), task, inputs)
    for field, expected in evaluate(sampler_of(name, place), task, inputs).items():
        if expected is not None:
            at_place = np.asarray(deterministic[field]).reshape(*expected.shape, -1)[..., index]
            np.testing.assert_allclose(at_place, expected, rtol=0, atol=1e-5, err_msg=field)


def test_shapes_are_outputs_then_places() -> None:
    request = Request(example("segmentation")(2), SamplePlan(4, 0, Masks.SHARED), FIELDS)
    answer = ask(sampler_of("segmentation"), Task.CLASSIFICATION, request)
    shapes = {name: array.shape for name, array in answer.items() if array is not None}
    per_row = ("predictive_entropy", "expected_entropy", "mutual_information", "variation_ratio")
    assert shapes == {
        "passes": (2,),
        **dict.fromkeys(("mean", "std", "standard_error"), (2, 3, 6, 5)),
        **dict.fromkeys((*per_row, *JACKKNIFE_FIELDS, "label", "variance"), (2, 6, 5)),
        "quantiles": (5, 2, 3, 6, 5),
        "samples": (4, 2, 3, 6, 5),
    }


def test_a_row_under_a_tolerance_stops_when_its_last_place_may() -> None:
    plan = SamplePlan(2000, 0, Masks.SHARED, tolerance=0.02)
    request = Request(3 * example("segmentation")(4), plan, ["standard_error"])
    answer = ask(sampler_of("segmentation"), Task.CLASSIFICATION, request)
    passes, error = np.asarray(answer["passes"]), np.asarray(answer["standard_error"])
    assert passes.shape == (4,)
    assert (error.reshape(4, -1).max(axis=1)[passes < 2000] <= 0.02).all()


def peak_of(passes: int, fields: Sequence[str]) -> int:
    # What is kept of the noise has a budget of its own.
    sampler = sampler_of("segmentation", memory_bytes=100_000, noise_bytes=0)
    request = Request(example("segmentation")(4), SamplePlan(passes, 0, Masks.SHARED), fields)
    ask(sampler, Task.CLASSIFICATION, request)
    return peak_bytes(lambda: ask(sampler, Task.CLASSIFICATION, request))


def test_memory_does_not_grow_with_passes_unless_they_are_asked_for() -> None:
    """All T passes of 4 rows of 90 numbers would be 1,440 T bytes in float32 alone."""
    few, many = (peak_of(passes, SUMMARY_FIELDS) for passes in (200, 2000))
    assert many <= few
    assert many < 2000 * 1440 / 2
    assert peak_of(2000, ["samples"]) > 2000 * 1440
