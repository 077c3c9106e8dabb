"""The batched network is so many separate networks, and drops what dropout drops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks.evaluation.members import BATCH, Draws, Members, train

MEMBERS, ROWS, FEATURES, HIDDEN, EPOCHS = 3, BATCH + 20, 4, 6, 3
RATES = torch.tensor([0.05, 0.2, 0.5])
DECAYS = torch.tensor([0.0, 1e-3, 1e-2])


def _data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(MEMBERS, ROWS, FEATURES, generator=generator)
    return x, torch.sin(x.sum(dim=2, keepdim=True))


def _kept(draws: Draws, rows: int, numbers: int) -> Tensor:
    """The next mask with its scale, as ordinary dropout would multiply by it. [M, rows, numbers]"""
    kept = torch.ones(MEMBERS * rows * numbers)
    kept[draws.dropped(RATES, rows * numbers)] = 0
    return kept.view(MEMBERS, rows, numbers) / (1 - RATES)[:, None, None]


def _train_separately(networks: list[nn.Sequential], draws: Draws) -> None:
    """What `train` documents, by autograd, one network after the other."""
    optimizers = [torch.optim.Adam(network.parameters()) for network in networks]
    x, y = _data()
    for _ in range(EPOCHS):
        order = draws.order(ROWS)
        dropped_x = x[:, order] * _kept(draws, ROWS, FEATURES)
        shuffled = y[:, order]
        for start in range(0, ROWS, BATCH):
            batch = slice(start, min(start + BATCH, ROWS))
            kept = _kept(draws, batch.stop - batch.start, HIDDEN)
            for m, (network, optimizer) in enumerate(zip(networks, optimizers, strict=True)):
                _, first, activation, _, last = network
                output = last(activation(first(dropped_x[m, batch])) * kept[m])
                assert isinstance(first, nn.Linear)
                assert isinstance(last, nn.Linear)
                penalty = first.weight.square().sum() + last.weight.square().sum()
                loss = (output - shuffled[m, batch]).square().mean() + DECAYS[m] * penalty
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()


def test_members_trained_together_are_what_each_is_alone() -> None:
    together, alone = Draws(0), Draws(0)
    members = Members.initial(RATES, FEATURES, HIDDEN, together)
    begun = Members.initial(RATES, FEATURES, HIDDEN, alone)
    networks = [begun.network(m) for m in range(MEMBERS)]
    train(members, *_data(), DECAYS, EPOCHS, together)
    _train_separately(networks, alone)
    for m, network in enumerate(networks):
        for name, value in members.network(m).state_dict().items():
            torch.testing.assert_close(value, network.state_dict()[name], atol=1e-5, rtol=1e-4)
        assert not torch.equal(members.w1[m], begun.w1[m])


def test_a_member_as_a_network_says_what_the_batched_network_says() -> None:
    members = Members.initial(torch.zeros(MEMBERS), FEATURES, HIDDEN, Draws(0))
    x, _ = _data()
    [outputs_MB] = members.sample(x, 1, Draws(1))
    for m in range(MEMBERS):
        torch.testing.assert_close(outputs_MB[m], members.network(m)(x[m])[:, 0])


def test_passes_of_the_batched_network_have_the_moments_of_ordinary_dropout() -> None:
    members = Members.initial(RATES, FEATURES, HIDDEN, Draws(0))
    x = _data()[0][:, :5]
    passes = 4000
    sampled_TMB = members.sample(x, passes, Draws(1))
    for m in range(MEMBERS):
        network = members.network(m).train()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            plain_TB = network(x[m].expand(passes, -1, -1))[..., 0]
        error_B = (2 * plain_TB.var(dim=0) / passes).sqrt()
        difference_B = sampled_TMB[:, m].mean(dim=0) - plain_TB.mean(dim=0)
        assert (difference_B.abs() < 5 * error_B).all()
        torch.testing.assert_close(
            sampled_TMB[:, m].std(dim=0), plain_TB.std(dim=0), rtol=0.15, atol=0.0
        )


@pytest.mark.parametrize("member", range(MEMBERS))
def test_a_member_drops_its_own_share(member: int) -> None:
    numbers = 40_000
    dropped = torch.zeros(MEMBERS * numbers)
    dropped[Draws(0).dropped(RATES, numbers)] = 1
    rate = float(RATES[member])
    seen = float(dropped.view(MEMBERS, numbers)[member].mean())
    assert abs(seen - rate) < 5 * (rate * (1 - rate) / numbers) ** 0.5
