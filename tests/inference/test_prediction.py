"""Requests that run together get what each gets alone; what nobody waits for is not computed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from service.inference.fields import FIELDS, ROWS_SECOND, Fields
from service.inference.prediction import Request, predict
from service.inference.sampler import Sampler, build_sampler
from service.inference.stopping import looks
from service.types import Masks, SamplePlan, Task
from tests.networks import build, example
from tests.sampling import outputs_of, sampler_of

CPU = torch.device("cpu")
ROUNDING = 1e-5
"""Products of batches of other sizes round otherwise in float32; outputs are of order one."""


def alone(sampler: Sampler, task: Task, request: Request) -> Fields:
    [fields] = predict(sampler, task, [request])
    assert fields is not None
    return fields


def assert_equal(got: Fields | None, expected: Fields | None) -> None:
    assert got is not None
    assert expected is not None
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        other = got[name]
        if array is None or other is None:
            assert array is other is None
        elif name in ("label", "passes", "variation_ratio"):
            np.testing.assert_array_equal(other, array)
        else:
            np.testing.assert_allclose(other, array, rtol=0, atol=ROUNDING, err_msg=name)


@st.composite
def crowds(draw: st.DrawFn, masks: Masks) -> list[Request]:
    """Requests of differing T, seed, rows and fields."""
    requests = []
    for _ in range(draw(st.integers(1, 4))):
        plan = SamplePlan(draw(st.integers(2, 12)), draw(st.integers(0, 2)), masks)
        first, count = draw(st.integers(0, 5)), draw(st.integers(1, 4))
        inputs = example("mlp")(9)[first : first + count]
        requests.append(Request(inputs, plan, draw(st.sets(st.sampled_from(FIELDS), min_size=1))))
    return requests


@pytest.mark.parametrize("memory_bytes", [20_000, 2**26])
@pytest.mark.parametrize("masks", list(Masks))
@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_request_gets_in_a_crowd_what_it_gets_alone(
    memory_bytes: int, masks: Masks, data: st.DataObject
) -> None:
    requests = data.draw(crowds(masks))
    together = predict(sampler_of("mlp", memory_bytes), Task.CLASSIFICATION, requests)
    assert len(together) == len(requests)
    for request, got in zip(requests, together, strict=True):
        assert_equal(got, alone(sampler_of("mlp"), Task.CLASSIFICATION, request))


@pytest.mark.parametrize("masks", list(Masks))
def test_fields_are_reductions_of_the_passes(masks: Masks) -> None:
    sampler, inputs = sampler_of("mlp"), example("mlp")(5)
    fields = ["samples", "quantiles", "mean", "std"]
    answer = alone(sampler, Task.CLASSIFICATION, Request(inputs, SamplePlan(9, 3, masks), fields))
    samples = outputs_of(sampler, inputs, 9, masks, seed=3).double().softmax(-1).numpy()
    expected = {
        "samples": samples,
        "quantiles": np.quantile(samples, [0.025, 0.25, 0.5, 0.75, 0.975], axis=0),
        "mean": samples.mean(0),
        "std": samples.std(0, ddof=1),
    }
    for name, array in expected.items():
        np.testing.assert_allclose(np.asarray(answer[name]), array, rtol=0, atol=1e-6)
        assert np.asarray(answer[name]).dtype == np.float32
    assert np.asarray(answer["passes"]).tolist() == [9] * 5


def test_kept_passes_of_many_rows_are_brought_together_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sampler = sampler_of("mlp", 20_000)
    request = Request(example("mlp")(7), SamplePlan(6, 0, Masks.SHARED), list(ROWS_SECOND))
    whole = alone(sampler, Task.CLASSIFICATION, request)
    monkeypatch.setattr("service.inference.kept._NUMBERS_AT_ONCE", 6 * 3 * 2)
    assert_equal(alone(sampler, Task.CLASSIFICATION, request), whole)


def test_rows_number_on_where_a_long_request_is_sent_in_parts() -> None:
    sampler, inputs = sampler_of("mlp"), example("mlp")(6)
    plan = SamplePlan(5, 0, Masks.INDEPENDENT)
    whole = alone(sampler, Task.CLASSIFICATION, Request(inputs, plan, ["mean"]))["mean"]
    rest = Request(inputs[4:], plan, ["mean"], rows=range(4, 6))
    assert whole is not None
    part = alone(sampler, Task.CLASSIFICATION, rest)["mean"]
    np.testing.assert_allclose(np.asarray(part), whole[4:], rtol=0, atol=ROUNDING)


TOLERANCES = (0.2, 0.03, 0.012)


@pytest.mark.parametrize("memory_bytes", [50_000, 2**26])
@pytest.mark.parametrize("masks", list(Masks))
@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_a_row_under_a_tolerance_is_the_row_of_its_own_passes(
    tolerance: float, masks: Masks, memory_bytes: int
) -> None:
    sampler, inputs = sampler_of("mlp", memory_bytes), 2 * example("mlp")(6)
    fields = [name for name in FIELDS if name != "samples"]
    plan = SamplePlan(300, 5, masks, tolerance)
    answer = alone(sampler, Task.CLASSIFICATION, Request(inputs, plan, fields))
    passes = np.asarray(answer["passes"])
    assert set(passes.tolist()) <= {*looks(300), 300}
    for row, count in enumerate(passes.tolist()):
        request = Request(inputs[row : row + 1], SamplePlan(count, 5, masks), fields, rows=[row])
        own = {
            name: None if array is None else np.take(array, [row], axis=int(name in ROWS_SECOND))
            for name, array in answer.items()
        }
        assert_equal(own, alone(sampler, Task.CLASSIFICATION, request))
    error = np.asarray(answer["standard_error"]).max(axis=1)
    assert (error[passes < 300] <= tolerance).all()


def test_rows_under_a_tolerance_stop_on_their_own() -> None:
    inputs = example("mlp")(20) * torch.linspace(0.1, 10, 20)[:, None]
    plan = SamplePlan(1000, 0, Masks.SHARED, tolerance=0.02)
    answer = alone(sampler_of("mlp"), Task.CLASSIFICATION, Request(inputs, plan, ["mean"]))
    assert len(set(np.asarray(answer["passes"]).tolist())) >= 4


def test_company_does_not_change_when_a_row_stops() -> None:
    def request(tolerance: float | None, passes: int, seed: int = 0) -> Request:
        plan = SamplePlan(passes, seed, Masks.SHARED, tolerance)
        return Request(example("mlp")(4), plan, ["mean", "std", "mutual_information", "quantiles"])

    requests = [request(0.03, 500), request(None, 70), request(0.01, 200, 1), request(None, 16)]
    for memory_bytes in (50_000, 2**26):
        sampler = sampler_of("mlp", memory_bytes)
        together = predict(sampler, Task.CLASSIFICATION, requests)
        for one, got in zip(requests, together, strict=True):
            assert_equal(got, alone(sampler_of("mlp"), Task.CLASSIFICATION, one))


def test_no_pass_is_run_for_a_row_that_has_stopped() -> None:
    sampler, network = counted(memory_bytes=2**26)
    inputs = example("mlp")(8) * torch.linspace(0.1, 10, 8)[:, None]
    plan = SamplePlan(1000, 0, Masks.SHARED, tolerance=0.02)
    answer = alone(sampler, Task.CLASSIFICATION, Request(inputs, plan, ["mean"]))
    assert network.count == np.asarray(answer["passes"]).sum() < 8 * 1000


class Counting(nn.Module):
    """Counts rows × passes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = build("mlp")
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += len(x)
        output: Tensor = self.layers(x)
        return output


def counted(memory_bytes: int) -> tuple[Sampler, Counting]:
    network = Counting().eval()
    sampler = build_sampler(network, example("mlp"), device=CPU, memory_bytes=memory_bytes)
    sampler.chunking(example("mlp")(1))
    network.count = 0
    return sampler, network


@pytest.mark.parametrize("memory_bytes", [1, 2**26])
def test_no_pass_is_run_that_no_request_asked_for(memory_bytes: int) -> None:
    sampler, network = counted(memory_bytes)
    requests = [
        Request(example("mlp")(rows), SamplePlan(passes, seed, Masks.SHARED), ["mean"])
        for rows, passes, seed in ((3, 4, 0), (1, 20, 0), (2, 7, 1))
    ]
    predict(sampler, Task.CLASSIFICATION, requests)
    assert network.count == 3 * 4 + 1 * 20 + 2 * 7


def patience(chunks: dict[int, int]) -> Callable[[int], bool]:
    """The request of each number leaves after so many questions; others never."""
    asked: dict[int, int] = {}

    def wanted(request: int) -> bool:
        asked[request] = asked.get(request, 0) + 1
        return asked[request] < chunks.get(request, 10**9)

    return wanted


@pytest.mark.parametrize("leaving", [0, 1, 2])
@pytest.mark.parametrize("after", [1, 2, 9, 14])
def test_who_leaves_is_dropped_and_harms_nobody(leaving: int, after: int) -> None:
    sampler, network = counted(memory_bytes=1)  # each chunk is one pass of one row
    requests = [
        Request(example("mlp")(2), SamplePlan(passes, seed, Masks.SHARED), ["mean", "samples"])
        for passes, seed in ((8, 0), (12, 1), (8, 0))
    ]
    answers = predict(sampler, Task.CLASSIFICATION, requests, patience({leaving: after}))
    assert answers[leaving] is None
    assert network.count < 2 * (8 + 12 + 8)
    for number, (request, got) in enumerate(zip(requests, answers, strict=True)):
        if number != leaving:
            assert_equal(got, alone(sampler, Task.CLASSIFICATION, request))


def test_when_nobody_is_left_computation_stops_at_once() -> None:
    sampler, network = counted(memory_bytes=1)
    request = Request(example("mlp")(3), SamplePlan(50, 0, Masks.SHARED), ["mean"])
    leaving = patience({0: 4, 1: 4})
    assert predict(sampler, Task.CLASSIFICATION, [request, request], leaving) == [None, None]
    assert network.count == 4
