"""Every way of running passes gives the same numbers, and the best that does is chosen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from service.inference.masks import Streams
from service.inference.sampler import build_sampler
from service.inference.sightings import switched
from service.inference.sites import inspect
from service.inference.strategies import PLAIN, Choice, Strategy, choose_plain, run_passes
from service.types import Masks
from tests.networks import NETWORKS, Branching, build, example
from tests.sampling import outputs_of, sampler_of

PLAINER = {
    "drop_connect": Strategy.PASS_BY_PASS,
    "embedding": Strategy.PASS_BY_PASS,
    "lstm_packed": Strategy.ROW_BY_ROW,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_best_strategy_that_is_right_is_chosen(name: str) -> None:
    network = build(name)
    dropping = inspect(network, example(name))
    choice = choose_plain(network, dropping, example(name))
    assert choice.name == PLAINER.get(name, Strategy.REPEATED_BATCH)
    assert choice.reason


@pytest.mark.parametrize("masks", list(Masks))
@pytest.mark.parametrize("name", NETWORKS)
def test_a_row_alone_gives_what_it_gives_in_a_crowd(name: str, masks: Masks) -> None:
    sampler = sampler_of(name)
    # A hundred for the plain ones; what runs row by row takes too long.
    rows = 9 if PLAINER.get(name) == Strategy.ROW_BY_ROW else 100
    inputs = example(name)(rows)
    crowd = outputs_of(sampler, inputs, 7, masks, seed=11)
    some = range(0, rows, max(1, rows // 20))
    alone = [outputs_of(sampler, inputs[i : i + 1], 7, masks, seed=11, rows=[i]) for i in some]
    # Products of other sizes round otherwise, some 1e-7; nothing else may differ.
    torch.testing.assert_close(crowd[:, some], torch.cat(alone, dim=1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - set(PLAINER)))
def test_strategies_agree(name: str) -> None:
    network = build(name)
    dropping = inspect(network, example(name))
    inputs = example(name)(4)
    for rows in (None, range(4)):
        streams = Streams(seed=5, passes=range(3), rows=rows)
        with torch.inference_mode(), switched(network, dropping.modules):
            outputs = [run_passes(network, dropping, s, inputs, streams) for s in PLAIN]
        assert all(o.shape == outputs[0].shape for o in outputs)
        torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=1e-5)
        torch.testing.assert_close(outputs[0], outputs[2], rtol=0, atol=1e-5)


def test_control_flow_that_depends_on_data_is_run_row_by_row() -> None:
    torch.manual_seed(0)
    network = Branching().eval()

    def inputs(rows: int) -> Tensor:
        return torch.randn(rows, 6, generator=torch.Generator().manual_seed(1))

    sampler = build_sampler(network, inputs, device=torch.device("cpu"), memory_bytes=2**20)
    assert sampler.strategy.name == Strategy.ROW_BY_ROW
    assert "looks at values" in sampler.strategy.reason
    rows = torch.stack([torch.ones(6), -torch.ones(6)])
    together = outputs_of(sampler, rows, 400)
    for index in range(2):
        alone = outputs_of(sampler, rows[index : index + 1], 400)
        torch.testing.assert_close(together[:, index], alone[:, 0], rtol=0, atol=1e-6)


class _FoldsRowsInside(nn.Module):
    """Puts the rows behind something else, so that no dimension has passes outermost."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        folded = self.drop(x.T.reshape(-1))
        output: Tensor = self.head(folded.reshape(6, -1).T)
        return output


def test_a_strategy_that_differs_is_refused_with_the_reason() -> None:
    torch.manual_seed(0)
    network = _FoldsRowsInside().eval()

    def inputs(rows: int) -> Tensor:
        return torch.randn(rows, 6, generator=torch.Generator().manual_seed(1))

    choice = choose_plain(network, inspect(network, inputs), inputs)
    assert choice == Choice(Strategy.ROW_BY_ROW, choice.reason)
    assert "off by" in choice.reason
