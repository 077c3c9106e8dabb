"""Many small dropout networks with one hidden layer, trained at once as one batched network.

A member is one network with its own data, weights, dropout rate and weight decay; member m's
weights are slice m of stacked tensors. Axes: M members, N rows, B rows of a batch, D features, H
hidden units. Dropout is on the features and on the hidden units, as in Gal & Ghahramani 2016.

Members share nothing but the order in which rows come, so each is what it would be alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

BATCH = 128


class Draws:
    """All that training draws, from one seed.

    Args:
        seed: of the stream.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def weights(self, members: int, fan_in: int, fan_out: int) -> Tensor:
        """Glorot and Bengio's uniform initialisation, Keras' default. → [M, fan_in, fan_out]."""
        bound = math.sqrt(6 / (fan_in + fan_out))
        uniform = torch.rand(members, fan_in, fan_out, generator=self._generator)
        return (2 * uniform - 1) * bound

    def order(self, rows: int) -> Tensor:
        """A permutation of the rows, the same for all members. → [N]."""
        return torch.randperm(rows, generator=self._generator)

    def dropped(self, rates: Tensor, numbers: int) -> Tensor:
        """Which of M · numbers values, members one after the other, are dropped; may repeat.

        Points of a Poisson process fall on the values, −ln(1 − p) of them on each on average; where
        at least one fell, which has the probability p independently of all else, is dropped. Far
        cheaper than a random number for each value where rates are small.
        """
        counts_M = torch.poisson(-numbers * torch.log1p(-rates), generator=self._generator).long()
        first_M = numbers * torch.arange(len(rates))
        places = torch.randint(numbers, (int(counts_M.sum()),), generator=self._generator)
        return places + first_M.repeat_interleave(counts_M)


@dataclass(frozen=True, slots=True)
class Members:
    """Stacked networks.

    Args:
        w1: [M, D, H].
        b1: [M, 1, H].
        w2: [M, H, 1].
        b2: [M, 1, 1].
        rates: dropout rates.
    """

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    rates: Tensor

    @classmethod
    def initial(cls, rates: Tensor, features: int, hidden: int, draws: Draws) -> Members:
        """Untrained."""
        members = len(rates)
        return cls(
            draws.weights(members, features, hidden),
            torch.zeros(members, 1, hidden),
            draws.weights(members, hidden, 1),
            torch.zeros(members, 1, 1),
            rates,
        )

    @property
    def parameters(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is trained."""
        return self.w1, self.b1, self.w2, self.b2

    def _scale(self) -> Tensor:
        """What kept values are multiplied by; here the weights that they meet. [M, 1, 1]."""
        return (1 / (1 - self.rates))[:, None, None]

    def hidden(self, x_MBD: Tensor, dropped: Tensor) -> Tensor:
        """Hidden units after dropout, but for its scale. [M, B, D] → [M, B, H].

        Args:
            x_MBD: features after dropout, but for its scale.
            dropped: hidden units, as places in the flat [M · B · H].
        """
        hidden_MBH = torch.baddbmm(self.b1, x_MBD, self.w1 * self._scale()).relu_()
        return drop_(hidden_MBH, dropped)

    def output(self, hidden_MBH: Tensor) -> Tensor:
        """[M, B, H] → [M, B, 1]."""
        return torch.baddbmm(self.b2, hidden_MBH, self.w2 * self._scale())

    def set_gradients(self, x_MBD: Tensor, y_MB1: Tensor, dropped: Tensor, decay_M: Tensor) -> None:
        """Of each member's mean squared error + decay · (‖w1‖² + ‖w2‖²), into `.grad`.

        Written out because autograd takes half as long again on tensors this small.

        Args:
            x_MBD: features after dropout, but for its scale.
            y_MB1: targets.
            dropped: as of `hidden`.
            decay_M: strength of the penalty.
        """
        scale, decay = self._scale(), 2 * decay_M[:, None, None]
        hidden_MBH = self.hidden(x_MBD, dropped)
        slope_MB1 = (self.output(hidden_MBH) - y_MB1).mul_(2 / x_MBD.shape[1])
        # Zero where a unit is off or dropped, one where it is on.
        slope_MBH = (slope_MB1 * (self.w2 * scale).mT).mul_(hidden_MBH.sign())
        self.w1.grad = torch.bmm(x_MBD.mT, slope_MBH).mul_(scale).add_(decay * self.w1)
        self.b1.grad = slope_MBH.sum(dim=1, keepdim=True)
        self.w2.grad = torch.bmm(hidden_MBH.mT, slope_MB1).mul_(scale).add_(decay * self.w2)
        self.b2.grad = slope_MB1.sum(dim=1, keepdim=True)

    def sample(self, x_MBD: Tensor, passes: int, draws: Draws) -> Tensor:
        """Passes of every member on its own rows, masks independent. [M, B, D] → [T, M, B]."""
        _, rows, features = x_MBD.shape
        hidden = self.w1.shape[-1]
        outputs = x_MBD.new_empty(passes, len(x_MBD), rows)
        for outputs_MB in outputs:
            kept_MBD = drop_(x_MBD.clone(), draws.dropped(self.rates, rows * features))
            dropped = draws.dropped(self.rates, rows * hidden)
            outputs_MB.copy_(self.output(self.hidden(kept_MBD, dropped))[..., 0])
        return outputs

    def network(self, member: int) -> nn.Sequential:
        """One member as an ordinary network, in eval mode. [B, D] → [B, 1]."""
        features, hidden = self.w1.shape[1:]
        rate = float(self.rates[member])
        network = nn.Sequential(
            nn.Dropout(rate),
            nn.Linear(features, hidden),
            nn.ReLU(),
            nn.Dropout(rate),
            nn.Linear(hidden, 1),
        )
        weights = {
            "1.weight": self.w1[member].T,
            "1.bias": self.b1[member, 0],
            "4.weight": self.w2[member].T,
            "4.bias": self.b2[member, 0],
        }
        network.load_state_dict(weights)
        return network.eval()


def drop_(values: Tensor, dropped: Tensor) -> Tensor:
    """Itself, with zeros in these places of its flat form."""
    values.view(-1).index_fill_(0, dropped, 0.0)
    return values


def train(
    members: Members,
    x_MND: Tensor,
    y_MN1: Tensor,
    decay_M: Tensor,
    epochs: int,
    draws: Draws,
    on_epoch: Callable[[], object] = lambda: None,
) -> None:
    """Fit every member, in place, to its own rows with Adam at its defaults.

    An epoch draws the order of the rows, the dropped features of all of them, then for each batch
    its dropped hidden units.

    Args:
        members: to train.
        x_MND: features.
        y_MN1: targets.
        decay_M: strength of the penalty on each member's weights.
        epochs: how often every row is seen.
        draws: what is drawn.
        on_epoch: called after each.
    """
    _, rows, features = x_MND.shape
    hidden = members.w1.shape[-1]
    optimizer = torch.optim.Adam(members.parameters, fused=True)
    for _ in range(epochs):
        order = draws.order(rows)
        x = drop_(x_MND.index_select(1, order), draws.dropped(members.rates, rows * features))
        y = y_MN1.index_select(1, order)
        for x_MBD, y_MB1 in zip(x.split(BATCH, dim=1), y.split(BATCH, dim=1), strict=True):
            dropped = draws.dropped(members.rates, x_MBD.shape[1] * hidden)
            members.set_gradients(x_MBD, y_MB1, dropped, decay_M)
            optimizer.step()
        on_epoch()
