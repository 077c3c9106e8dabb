"""Batches chosen together: what each further point says that those before it did not.

Top-k by a score of each point alone picks near-duplicates: each of them is informative, and all but
the first are not once that is known. Here the points of a batch are chosen greedily by the mutual
information that their labels, together, have with the network's weights; passes with shared masks
are draws of those weights, so that pass t of one point belongs to pass t of every other.

BatchBALD: Kirsch, van Amersfoort and Gal, "BatchBALD: efficient and diverse batch acquisition for
deep Bayesian active learning" (2019). The chain rule gives the gain of point n after labels ŷ of
those before it,

    I(y_n; w | y_<) = Σ_ŷ p(ŷ) (H[Σ_t p(t | ŷ) p_t(n)] − Σ_t p(t | ŷ) H[p_t(n)]),

The sum is over all C^b labels while those are few, then over labels drawn from their joint
distribution (their section 3.3). Over all labels Σ_ŷ p(ŷ) p(t | ŷ) is 1/T and the last term the
point's expected entropy; over drawn ones it is not quite, and taking it from the same draws keeps
every term above zero and their sum below ln T, which T passes cannot tell more than. (With the
expected entropy instead, choosing the largest gain chooses the luckiest error: 50 gains of 20,000
points added up to more than ln T.) Gains only fall as points are added (submodularity), so that a
gain of an earlier round is a bound that spares most points another look (Minoux, "Accelerated
greedy algorithms for maximizing submodular set functions", 1978).

For regressions the information of Gaussian labels is half the logarithm of a determinant; greedily,
each point counts by the variance that is left once the batch before it is known (Gaussian process
conditioning; Kirsch et al., "Black-box batch active learning for regression", 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from service.inference.measures import categorical_entropy

CONFIGURATIONS = 10_000
"""Labels of the batch so far that are summed over: all of them, or as many draws."""

_NUMBERS_AT_ONCE = 2**19
"""Of probabilities given labels: few enough to stay in a core's cache."""

_LEAST = 1e-30
"""Probability below which 0 ln 0 is taken."""

_IMPOSSIBLE = 1e-12
"""Probability of a pass, labels given, that is taken as none."""

_FIRST_LOOK = 64
"""Points that are looked at again at once in a round; twice as many each time."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Points in the order in which they were chosen.

    Args:
        indices: [k] into the pool.
        gains: [k] of each given those before it; nats, or variances of a regression without noise.
    """

    indices: list[int]
    gains: list[float]

    @property
    def total(self) -> float:
        """Mutual information of all labels with the weights, nats, by the chain rule."""
        return sum(self.gains)


def always() -> bool:
    """Somebody waits to the end."""
    return True


def batch_bald(
    probs_TNC: Tensor,
    k: int,
    *,
    generator: torch.Generator,
    exclude: Collection[int] = (),
    configurations: int = CONFIGURATIONS,
    wanted: Callable[[], bool] = always,
) -> Selection:
    """The k points whose labels together say most about the weights.

    Args:
        probs_TNC: passes with shared masks.
        k: points wanted; fewer come where fewer are left.
        generator: for labels that are drawn.
        exclude: points that are not to be chosen.
        configurations: labels that are summed over.
        wanted: whether somebody still waits; asked before each point, and where nobody does those
            that were chosen so far are all.

    Memory beside the passes: some tens of MiB, and 4 T N bytes for their entropies.
    """
    passes, points, _ = probs_TNC.shape
    known = _Labels.none(passes, configurations, generator)
    entropy_TN = _entropies(probs_TNC)
    bound_N = known.gain(probs_TNC, entropy_TN, torch.arange(points))
    bound_N[list(exclude)] = -torch.inf
    chosen: list[int] = []
    gains: list[float] = []
    for place in range(min(k, points - len(set(exclude)))):
        if not wanted():
            break
        if place:
            _tighten(bound_N, known, probs_TNC, entropy_TN)
        best = int(bound_N.argmax())
        chosen.append(best)
        gains.append(max(0.0, float(bound_N[best])))
        bound_N[best] = -torch.inf
        known = known.with_point(probs_TNC[:, best])
    return Selection(chosen, gains)


def _tighten(bound_N: Tensor, known: _Labels, probs_TNC: Tensor, entropy_TN: Tensor) -> None:
    """Look at points again, the most promising first, until none left can be the best."""
    order_N = bound_N.argsort(descending=True)
    before_N = bound_N[order_N]
    best, start, size = -torch.inf, 0, _FIRST_LOOK
    while start < len(order_N) and float(before_N[start]) > best:
        places = order_N[start : start + size]
        places = places[bound_N[places] > -torch.inf]
        if not len(places):
            return
        gains = known.gain(probs_TNC, entropy_TN, places)
        bound_N[places] = gains
        best = max(best, float(gains.max()))
        start, size = start + size, 2 * size


@dataclass(frozen=True, slots=True)
class _Labels:
    """What the points chosen so far may turn out to be.

    Args:
        weight_M: p(ŷ) of each configuration, or one over the draws.
        passes_MT: p(t | ŷ).
        drawn: whether they are draws.
        most: configurations at most.
        generator: for draws.
    """

    weight_M: Tensor
    passes_MT: Tensor
    drawn: bool
    most: int
    generator: torch.Generator

    @classmethod
    def none(cls, passes: int, most: int, generator: torch.Generator) -> _Labels:
        """Of no points there is one configuration."""
        return cls(torch.ones(1), torch.full((1, passes), 1 / passes), False, most, generator)

    def gain(self, probs_TNC: Tensor, entropy_TN: Tensor, places_K: Tensor) -> Tensor:
        """I(y_n; w | labels of the points before) of each of these points. → [K] float64."""
        share_T = (self.weight_M.double() @ self.passes_MT.double()).float()
        return self._entropy(probs_TNC, places_K) - (share_T @ entropy_TN[:, places_K]).double()

    def _entropy(self, probs_TNC: Tensor, places_K: Tensor) -> Tensor:
        """H[y_n | labels of the points before]. → [K] float64."""
        passes, _, classes = probs_TNC.shape
        configurations = len(self.weight_M)
        at_once = max(1, min(len(places_K), _NUMBERS_AT_ONCE // (configurations * classes)))
        # In the same two places for every part: the C library's heap grows by gigabytes where
        # aligned blocks of this size come and go between small ones that stay.
        given_MX, logs_MX = torch.empty(2, configurations, at_once * classes)
        found_K = torch.empty(len(places_K), dtype=torch.float64)
        for start in range(0, len(places_K), at_once):
            places = places_K[start : start + at_once]
            probs_TX = probs_TNC[:, places].reshape(passes, -1)
            given, logs = given_MX[:, : probs_TX.shape[1]], logs_MX[:, : probs_TX.shape[1]]
            torch.mm(self.passes_MT, probs_TX, out=given)
            torch.clamp_min(given, _LEAST, out=logs).log_().mul_(given)
            terms_X = (self.weight_M @ logs).view(len(places), classes)
            found_K[start : start + at_once] = -terms_X.sum(dim=-1)
        return found_K

    def with_point(self, probs_TC: Tensor) -> _Labels:
        """The configurations once another point is among them."""
        given_MC = self.passes_MT @ probs_TC
        configurations, classes = given_MC.shape
        if not self.drawn and configurations * classes <= self.most:
            label_M = torch.arange(classes).repeat(configurations)
            from_M = torch.arange(configurations).repeat_interleave(classes)
            weight_M = (self.weight_M[:, None] * given_MC).flatten()
            drawn = False
        else:
            from_M = self._resampled()
            label_M = torch.multinomial(given_MC[from_M], 1, generator=self.generator)[:, 0]
            weight_M = torch.full((self.most,), 1 / self.most)
            drawn = True
        # p(t | ŷ, y) ∝ p(t | ŷ) p_t(y); a label that no pass gives has no weight either.
        passes_MT = self.passes_MT[from_M] * probs_TC.mT[label_M]
        passes_MT = passes_MT / passes_MT.sum(dim=1, keepdim=True).clamp_min(_LEAST)
        # Numbers near the smallest that there are make every product with them slow.
        passes_MT = nn.functional.threshold(passes_MT, _IMPOSSIBLE, 0.0)
        return _Labels(weight_M, passes_MT, drawn, self.most, self.generator)

    def _resampled(self) -> Tensor:
        """As many configurations as there may be, each as often as its weight says. → [most].

        Systematic resampling: one random number shifts an even comb, so that counts are off by less
        than one (Kitagawa 1996).
        """
        if self.drawn:
            return torch.arange(self.most)
        shift = torch.rand((), generator=self.generator, dtype=torch.float64)
        comb = (torch.arange(self.most, dtype=torch.float64) + shift) / self.most
        edges = self.weight_M.double().cumsum(0)
        return torch.searchsorted(edges / edges[-1], comb).clamp_max_(len(edges) - 1)


def _entropies(probs_TNC: Tensor) -> Tensor:
    """H[p_t(n)]. [T, N, C] → [T, N]."""
    return torch.stack([categorical_entropy(probs_NC) for probs_NC in probs_TNC])


def log_determinant(
    means_TNC: Tensor,
    k: int,
    *,
    noise_variance_NC: Tensor | None = None,
    exclude: Collection[int] = (),
    wanted: Callable[[], bool] = always,
) -> Selection:
    """The k points of a regression whose values together say most about the weights.

    With a noise variance the gain of a point is ½ Σ_c ln(1 + v_c / σ_c²), v_c the variance left in
    output c, outputs being independent. Without one it is the mean over outputs of v_c, and points
    are those of a pivoted Cholesky decomposition of the covariance.

    Args:
        means_TNC: passes with shared masks.
        k: points wanted; fewer come where fewer are left.
        noise_variance_NC: of the labels.
        exclude: points that are not to be chosen.
        wanted: see `batch_bald`.
    """
    passes, points, _ = means_TNC.shape
    centred_TNC = (means_TNC - means_TNC.mean(dim=0)).double() / (passes - 1) ** 0.5
    left_TNC = centred_TNC
    chosen: list[int] = []
    gains: list[float] = []
    taken = list(exclude)
    for _ in range(min(k, points - len(set(exclude)))):
        if not wanted():
            break
        variance_NC = left_TNC.square().sum(dim=0)
        if noise_variance_NC is None:
            gain_N = variance_NC.mean(dim=-1)
        else:
            gain_N = 0.5 * torch.log1p(variance_NC / noise_variance_NC).sum(dim=-1)
        gain_N[taken] = -torch.inf
        best = int(gain_N.argmax())
        chosen.append(best)
        gains.append(float(gain_N[best]))
        taken.append(best)
        noise_C = 0.0 if noise_variance_NC is None else noise_variance_NC[best].double()
        left_TNC = _conditioned(left_TNC, best, noise_C)
    return Selection(chosen, gains)


def _conditioned(left_TNC: Tensor, point: int, noise_C: Tensor | float) -> Tensor:
    """What is left once a point's values are known up to their noise.

    With F the columns of all points and f that of this one, the covariance F'F becomes
    F'(I − f f' / (v + σ²))F = (F − a f f'F)'(F − a f f'F), v = f'f, a = (1 − √(σ² / (v + σ²))) / v.
    """
    own_TC = left_TNC[:, point]
    variance_C = own_TC.square().sum(dim=0)
    kept_C = (noise_C / (variance_C + noise_C)) ** 0.5 if not isinstance(noise_C, float) else 0.0
    factor_C = torch.where(variance_C > 0, (1 - kept_C) / variance_C, 0.0)
    shared_NC = torch.einsum("tc,tnc->nc", own_TC, left_TNC)
    return left_TNC - factor_C * own_TC[:, None] * shared_NC
