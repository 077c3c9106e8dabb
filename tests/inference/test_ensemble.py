"""Members are sampled in turns as one posterior: their own passes, stacked, and nothing else."""

from __future__ import annotations

import functools
import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from service.inference import tuning
from service.inference.ensemble import Ensemble, own_passes
from service.inference.fields import FIELDS, SUMMARY_FIELDS
from service.inference.masks import member_seed
from service.inference.prediction import Request, evaluate, predict
from service.inference.sampler import Sampler, build_sampler
from service.inference.statistics import RunningStatistics
from service.inference.stopping import FIRST_LOOK
from service.inference.workers import workers
from service.types import Masks, SamplePlan, Task
from tests.networks import build, example
from tests.sampling import outputs_of

CPU = torch.device("cpu")
ROUNDING = 1e-6
MEMBERS = 3


def network_of(name: str, member: int) -> nn.Module:
    """One of the tests' networks, with weights of its own."""
    network = build(name)
    generator = torch.Generator().manual_seed(member)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


@functools.cache
def samplers_of(name: str, memory_bytes: int = 2**26) -> list[Sampler]:
    return [
        build_sampler(
            network_of(name, member), example(name), device=CPU, memory_bytes=memory_bytes
        )
        for member in range(MEMBERS)
    ]


def ensemble_of(name: str, memory_bytes: int = 2**26) -> Ensemble:
    return Ensemble(samplers_of(name, memory_bytes))


def stacked(
    name: str,
    inputs: Tensor,
    passes: int,
    masks: Masks,
    seed: int = 0,
    rows: list[int] | None = None,
) -> Tensor:
    """What the members say one by one, brought together by hand: [T, B, ...]."""
    most = -(-passes // MEMBERS)
    own = [
        outputs_of(sampler, inputs, most, masks, seed=member_seed(seed, member), rows=rows)
        for member, sampler in enumerate(samplers_of(name))
    ]
    return torch.stack([own[t % MEMBERS][t // MEMBERS] for t in range(passes)])


def ask(posterior: Ensemble | Sampler, request: Request, task: Task = Task.CLASSIFICATION) -> Any:
    [fields] = predict(posterior, task, [request])
    assert fields is not None
    return fields


@pytest.mark.parametrize("masks", list(Masks))
@pytest.mark.parametrize("passes", [1, 2, 3, 20])
@pytest.mark.parametrize("name", ["mlp", "spatial_2d", "lstm"])
def test_passes_are_the_members_own_in_turns(name: str, passes: int, masks: Masks) -> None:
    inputs = example(name)(4)
    got = outputs_of(ensemble_of(name), inputs, passes, masks, seed=5)
    expected = stacked(name, inputs, passes, masks, seed=5)
    torch.testing.assert_close(got, expected, rtol=0, atol=ROUNDING)
    assert torch.equal(got, outputs_of(ensemble_of(name), inputs, passes, masks, seed=5))


@pytest.mark.parametrize("masks", list(Masks))
@pytest.mark.parametrize("memory_bytes", [1, 20_000, 2**26])
def test_any_passes_of_any_rows_come_in_order(memory_bytes: int, masks: Masks) -> None:
    inputs, seeds, rows = example("mlp")(5), [1, 2, 1, 1, 2], [0, 0, 1, 2, 1]
    alone = [
        stacked("mlp", inputs[[place]], 11, masks, seeds[place], [rows[place]])
        for place in range(5)
    ]
    expected = torch.cat(alone, dim=1)
    batch = ensemble_of("mlp", memory_bytes).open(inputs, masks, seeds, rows)
    some = [4, 1, 2]
    for opened, places in ((batch, [*range(5)]), (batch.select(some), some)):
        assert len(opened) == len(places)
        for passes in (range(11), range(4, 5), range(2, 4), range(1, 9)):
            seen: list[list[int]] = [[] for _ in places]
            for chunk in opened.run(passes):
                own = [places[row] for row in chunk.rows]
                wanted = expected[[*chunk.passes]][:, own]
                torch.testing.assert_close(chunk.outputs, wanted, rtol=0, atol=ROUNDING)
                for row in chunk.rows:
                    seen[row].extend(chunk.passes)
            assert seen == [list(passes)] * len(places)


def test_shares_of_a_range_cover_it() -> None:
    for start, length, members in itertools.product(range(7), range(9), range(1, 6)):
        passes = range(start, start + length)
        found = [
            number * members + member
            for member in range(members)
            for number in own_passes(passes, member, members)
        ]
        assert sorted(found) == list(passes)


def test_members_of_equal_weights_drop_differently_and_the_first_as_it_does_alone() -> None:
    sampler, inputs = samplers_of("mlp")[0], example("mlp")(3)
    alone = outputs_of(sampler, inputs, 4)
    twins = outputs_of(Ensemble([sampler, sampler]), inputs, 8)
    assert torch.equal(twins[::2], alone)
    distances = (twins[:, None] - twins[None]).abs().amax(dim=(2, 3))
    assert (distances + torch.eye(8) > 1e-3).all()


@pytest.mark.parametrize("masks", list(Masks))
def test_fields_are_reductions_of_the_stacked_passes(masks: Masks) -> None:
    inputs = example("mlp")(4)
    plan = SamplePlan(10, 3, masks)
    answer = ask(ensemble_of("mlp"), Request(inputs, plan, FIELDS))
    passes = stacked("mlp", inputs, 10, masks, seed=3)
    np.testing.assert_allclose(answer["samples"], passes.softmax(-1), rtol=0, atol=ROUNDING)
    statistics = RunningStatistics(Task.CLASSIFICATION, 4)
    statistics.update(passes)
    for field, expected in statistics.summary(SUMMARY_FIELDS).items():
        np.testing.assert_allclose(answer[field], expected, rtol=0, atol=ROUNDING, err_msg=field)


def test_a_request_gets_in_a_crowd_what_it_gets_alone() -> None:
    inputs, ensemble = example("mlp")(6), ensemble_of("mlp", 20_000)
    requests = [
        Request(inputs[:2], SamplePlan(2, 0, Masks.SHARED), ["mean", "samples"]),
        Request(inputs[2:3], SamplePlan(7, 1, Masks.SHARED), ["std", "mutual_information"]),
        Request(inputs[3:], SamplePlan(200, 0, Masks.SHARED, tolerance=0.02), ["mean"]),
    ]
    together: list[Any] = [*predict(ensemble, Task.CLASSIFICATION, requests)]
    for request, got in zip(requests, together, strict=True):
        for name, array in ask(ensemble_of("mlp"), request).items():
            np.testing.assert_allclose(got[name], array, rtol=0, atol=ROUNDING, err_msg=name)


def test_who_leaves_is_not_computed_and_the_others_get_their_own() -> None:
    inputs, ensemble = example("mlp")(4), ensemble_of("mlp", 20_000)
    plan = SamplePlan(40, 0, Masks.SHARED)
    requests = [Request(inputs[:2], plan, ["mean"]), Request(inputs[2:], plan, ["mean"])]
    gone, kept = predict(ensemble, Task.CLASSIFICATION, requests, lambda number: number == 1)
    assert gone is None
    assert kept is not None
    expected = ask(ensemble, requests[1])["mean"]
    np.testing.assert_allclose(kept["mean"], expected, rtol=0, atol=ROUNDING)  # type: ignore[arg-type]


def test_a_row_under_a_tolerance_has_the_answer_of_its_passes() -> None:
    inputs, ensemble = example("mlp")(4), ensemble_of("mlp")
    plan = SamplePlan(400, 0, Masks.SHARED, tolerance=0.02)
    answer = ask(ensemble, Request(inputs, plan, ["mean"]))
    assert FIRST_LOOK <= answer["passes"].min() < 400
    for row, passes in enumerate(answer["passes"].tolist()):
        expected = stacked("mlp", inputs, passes, Masks.SHARED)[:, row].softmax(-1).mean(0)
        np.testing.assert_allclose(answer["mean"][row], expected, rtol=0, atol=ROUNDING)


def test_no_row_stops_before_every_member_was_asked() -> None:
    sampler, members = samplers_of("mlp")[0], FIRST_LOOK + 1
    plan = SamplePlan(100, 0, Masks.SHARED, tolerance=0.5)
    request = Request(example("mlp")(2), plan, ["mean"])
    assert ask(sampler, request)["passes"].tolist() == [FIRST_LOOK] * 2
    assert ask(Ensemble([sampler] * members), request)["passes"].min() >= members


@pytest.mark.parametrize("task", [Task.CLASSIFICATION, Task.MULTILABEL, Task.REGRESSION])
def test_evaluation_is_the_mean_of_the_members(task: Task) -> None:
    inputs = example("mlp")(5)
    outputs = torch.stack([s.deterministic(inputs) for s in samplers_of("mlp")])
    values = {
        Task.CLASSIFICATION: outputs.softmax(-1),
        Task.MULTILABEL: outputs.sigmoid(),
        Task.REGRESSION: outputs,
    }[task]
    answer: Any = evaluate(ensemble_of("mlp"), task, inputs)
    np.testing.assert_allclose(answer["mean"], values.mean(0), rtol=0, atol=ROUNDING)


class _Pair(nn.Module):
    """Two outputs, whatever the input."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.tensor([first, second]))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1] * 0 + self.own


def _without_dropout(network: nn.Module) -> Sampler:
    return build_sampler(
        network.eval(), example("mlp"), device=CPU, memory_bytes=2**20, deterministic=True
    )


def test_evaluation_of_predicted_noise_has_the_mixtures_variance() -> None:
    members = [_without_dropout(_Pair(m, v)) for m, v in ((0.0, 0.0), (2.0, 1.0), (4.0, -1.0))]
    answer: Any = evaluate(Ensemble(members), Task.HETEROSCEDASTIC_REGRESSION, torch.ones(1, 6))
    np.testing.assert_allclose(answer["mean"], [[2.0]], rtol=1e-6)
    variance = (1 + np.e + 1 / np.e) / 3 + (4 + 0 + 4) / 3
    entropy = 0.5 * np.log(2 * np.pi * np.e * variance)
    np.testing.assert_allclose(answer["predictive_entropy"], [entropy], rtol=1e-6)


def test_members_in_which_nothing_drops_are_a_deep_ensemble() -> None:
    values = [(0.0, 0.0), (2.0, 1.0), (7.0, -1.0)]
    ensemble = Ensemble([_without_dropout(_Pair(a, b)) for a, b in values])
    request = Request(torch.ones(2, 6), SamplePlan(3, 0, Masks.SHARED), ["mean", "std", "samples"])
    answer = ask(ensemble, request, Task.REGRESSION)
    np.testing.assert_allclose(answer["mean"], [np.mean(values, axis=0)] * 2, atol=1e-6)
    np.testing.assert_allclose(answer["std"], [np.std(values, axis=0, ddof=1)] * 2, rtol=1e-6)
    np.testing.assert_allclose(answer["samples"][:, 0], values, atol=1e-6)


@pytest.mark.parametrize("masks", list(Masks))
def test_no_chunk_is_larger_than_the_budget_allows(masks: Masks) -> None:
    share = 100_000
    batch = ensemble_of("mlp", share).open(example("mlp")(300), masks, [0] * 300, range(300))
    chunks = [chunk.outputs for chunk in batch.run(range(40))]
    assert sum(chunk[..., 0].numel() for chunk in chunks) == 300 * 40
    # With the statistics' temporaries around it a number of the outputs counts so many bytes.
    assert max(chunk.numel() for chunk in chunks) * 96 <= MEMBERS * share


def test_members_may_run_side_by_side() -> None:
    inputs = example("mlp")(6)
    samplers = [
        build_sampler(network_of("mlp", member), example("mlp"), device=CPU, memory_bytes=2**26)
        for member in range(MEMBERS)
    ]
    for sampler in samplers:
        sampler._several = (4, workers(2))
    batch = Ensemble(samplers).open(inputs, Masks.SHARED, [0] * 6, range(6))
    assert [len(chunk.passes) for chunk in batch.run(range(40))] == [9, 9, 9, 9, 4]
    got = outputs_of(Ensemble(samplers), inputs, 40)
    expected = stacked("mlp", inputs, 40, Masks.SHARED)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_what_is_measured_is_measured_of_the_first_member(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "spatial_2d"
    first = samplers_of(name)[0]

    def measured_again(*_: object) -> None:
        raise AssertionError

    for function in ("choose_form", "time_chunks", "choose_workers"):
        monkeypatch.setattr(tuning, function, measured_again)
    written = json.dumps(first.tuned_as.written())
    like = tuning.Tuned.read(json.loads(written))
    second = build_sampler(
        network_of(name, 1), example(name), device=CPU, memory_bytes=2**26, like=like
    )
    inputs = example(name)(5)
    assert second.form == first.form
    assert second.tuned_as == first.tuned_as
    assert second.strategy == first.strategy
    assert second.chunking(inputs, 10**6) == first.chunking(inputs, 10**6)
    expected = outputs_of(samplers_of(name)[1], inputs, 9)
    torch.testing.assert_close(outputs_of(second, inputs, 9), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("lowered", [False, True])
def test_a_form_is_had_for_another_program(lowered: bool) -> None:
    program = samplers_of("spatial_2d")[1]._program
    assert program is not None
    form = tuning.Form(True, "bfloat16" if lowered else "float32", lowered, True, 1)
    formed = form.of(program)
    assert formed._channels_last
    assert all(chain.thinned_from_rows == 1 for chain in formed.chains)
    with torch.inference_mode():
        boundary = formed.open(example("spatial_2d")(2))
    types = {value.dtype for value in boundary.values if isinstance(value, Tensor)}
    assert types == {torch.bfloat16 if lowered else torch.float32}


class _Looking(nn.Module):
    """Looks at values, which no graph can say."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.drop = nn.Linear(6, 3), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        scale = 2.0 if x.sum() > 0 else 1.0
        output: Tensor = self.line(self.drop(x)) * scale
        return output


def test_what_is_shown_is_of_all_members() -> None:
    ensemble, first = ensemble_of("mlp"), samplers_of("mlp")[0]
    assert ensemble.members == MEMBERS
    assert ensemble.dropping.sites == first.dropping.sites
    assert ensemble.strategy.name == "sampling_program"
    assert ensemble.strategy.reason.startswith("member 1 of 3, 3 of which run so: equal to")
    plain = build_sampler(_Looking().eval(), example("mlp"), device=CPU, memory_bytes=2**20)
    mixed = Ensemble([first, first, plain])
    assert mixed.strategy.name == plain.strategy.name == "row_by_row"
    assert mixed.strategy.reason.startswith("member 3 of 3, 1 of which run so")
