"""What passes say, summed as they come: nothing here grows with T.

Statistics of two sets of passes merge into those of their union, so passes may be summed in any
chunks. Counts, means and sums of squared deviations merge as in Chan, Golub and LeVeque,
"Algorithms for computing the sample variance" (1983), eq. 2.1.

Mutual information is H[p̄] − 1/T Σ_t H[p_t], a difference of entropies in float64: right to some
1e-15, far below what the rounding of a network's float32 outputs leaves of it.

The noise variances v_t of a regression are reached through their logarithms, which may be beyond
float64 themselves, and their part of the mutual information is kept as a mean of Itakura–Saito
divergences v/v̄ − ln(v/v̄) − 1, that is ln v̄ − 1/T Σ_t ln v_t. Such sums merge by terms that are
never negative (Banerjee et al., "Clustering with Bregman divergences", JMLR 2005, theorem 1).

Shapes: rows B first, places D... of a dense output next, outputs C last, all float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import cache, partial

import torch
from torch import Tensor

from service.inference import measures, outputs, regression
from service.inference.fields import SUMMARY_FIELDS
from service.types import Task

Summary = dict[str, Tensor]
"""Fields by name, float64: [B, C, D...], or [B, D...] where a row or place has one value."""

_Sums = dict[str, Tensor]

_NUMBERS_AT_ONCE = 2**16
"""Of passes × rows × outputs: temporaries of half a megabyte stay in the cache, and are not given
back to the system each time, which would cost more than the arithmetic."""


class RunningStatistics:
    """Sums over the passes so far of each row, which may have seen differing numbers of them.

    Args:
        task: says what outputs mean.
        rows: B.
    """

    def __init__(self, task: Task, rows: int) -> None:
        self._task = task
        self._rows = rows
        self._sums: _Sums | None = None

    def update(self, raw: Tensor, rows: Collection[int] | None = None) -> None:
        """Add passes.

        Args:
            raw: outputs of the network [t, b, C, D...].
            rows: which b of the B rows they are of, each once; all by default.
        """
        self._add(_sums_of(self._task, raw), rows)

    def merge(self, other: RunningStatistics) -> None:
        """Add the passes that another has seen of the same rows."""
        if other._sums is not None:
            self._add(other._sums, None)

    def std(self, rows: Collection[int]) -> Tensor:
        """Sample standard deviation over passes of these rows' values, [b, D..., C]."""
        sums = self._seen()
        places = torch.tensor(list(rows), device=sums["count"].device)
        return _variance(sums["count"][places], sums["deviations"][places]).sqrt()

    def summary(self, fields: Collection[str] = SUMMARY_FIELDS) -> Summary:
        """The fields wanted that the task has; of a row with fewer than two passes nonsense."""
        make = _fields(self._task, self._seen())
        return {name: make[name]() for name in fields if name in make}

    def _seen(self) -> _Sums:
        if self._sums is None:
            raise ValueError("no pass was added yet")
        return self._sums

    def _add(self, more: _Sums, rows: Collection[int] | None) -> None:
        if rows is not None and len(rows) == self._rows and list(rows) == [*range(self._rows)]:
            rows = None
        if self._sums is None:
            if rows is None:
                self._sums = more
                return
            self._sums = {
                name: sums.new_zeros(self._rows, *sums.shape[1:]) for name, sums in more.items()
            }
        if rows is None:
            self._sums = _merged(self._task, self._sums, more)
            return
        device = more["count"].device
        places = torch.tensor(list(rows), device=device)
        before = {name: sums[places] for name, sums in self._sums.items()}
        for name, sums in _merged(self._task, before, more).items():
            self._sums[name][places] = sums


def _sums_of(task: Task, raw: Tensor) -> _Sums:
    """The sums of passes [t, b, C, D...] by themselves."""
    rows = raw.shape[1]
    sums_of = _classification_sums if task is Task.CLASSIFICATION else partial(_values_sums, task)
    at_once = max(1, _NUMBERS_AT_ONCE * max(1, rows) // max(1, raw.numel()))
    if raw.device.type != "cpu" or rows <= at_once:
        return {"count": _count(raw), **sums_of(raw)}
    parts = [sums_of(part) for part in raw.split(at_once, dim=1)]
    return {
        "count": _count(raw),
        **{name: torch.cat([part[name] for part in parts]) for name in parts[0]},
    }


def _count(raw: Tensor) -> Tensor:
    return raw.new_full(raw.shape[1:2], len(raw), dtype=torch.float64)


def _values_sums(task: Task, raw: Tensor) -> _Sums:
    precise = raw.double()
    values_TBC = outputs.values(task, precise)
    mean_BC = measures.mean(values_TBC)
    sums = {"mean": mean_BC, "deviations": (values_TBC - mean_BC).square_().sum(dim=0)}
    if task is Task.HETEROSCEDASTIC_REGRESSION:
        noise_TBC = outputs.log_variances(precise)
        passes = len(noise_TBC)
        log_mean_BC = noise_TBC.logsumexp(dim=0) - math.log(passes)
        sums["log_noise"] = log_mean_BC
        sums["entropy"] = passes * regression.expected_entropy(noise_TBC)
        sums["divergence"] = _noise_divergence(noise_TBC, log_mean_BC).sum(dim=0)
    elif not task.is_regression:
        sums["entropy"] = measures.bernoulli_entropy(values_TBC).sum(dim=0)
        sums["votes"] = (values_TBC >= 0.5).sum(dim=0, dtype=torch.float64)
    return sums


def _classification_sums(logits: Tensor) -> _Sums:
    """Softmax, its entropy and its sums in one go: the logarithms are at hand only in between."""
    classes, passes = 2, 0
    if logits.dim() == 3 and logits.shape[2] < logits.shape[0] * logits.shape[1]:
        # A reduction over a short last dimension is several times slower than over the first.
        logits, classes, passes = logits.movedim(2, 0).contiguous(), 0, 1
    logits = logits.double()
    # Beyond this the exponential is zero; zero times −∞ would not be.
    below = (logits - logits.amax(dim=classes, keepdim=True)).clamp_min_(-750.0)
    probs = below.exp()
    totals = probs.sum(dim=classes, keepdim=True)
    probs.div_(totals)
    mean = probs.mean(dim=passes)
    labels = probs.max(dim=classes).indices
    entropy = below.mul_(probs).sum(dim=classes, keepdim=True).neg_().add_(totals.log_())
    deviations = probs.sub_(mean.unsqueeze(passes)).square_().sum(dim=passes)
    # Of rows and classes alone, the passes having been summed: [C, B] or [B, C, D...].
    class_dim = 0 if classes == 0 else 1
    chosen = labels.movedim(0, class_dim)
    votes = torch.zeros_like(mean)
    votes.scatter_add_(class_dim, chosen, votes.new_ones(()).expand(chosen.shape))
    return {
        "mean": mean.movedim(class_dim, -1),
        "deviations": deviations.movedim(class_dim, -1),
        "entropy": entropy.squeeze(classes).sum(dim=0),
        "votes": votes.movedim(class_dim, -1),
    }


def _merged(task: Task, a: _Sums, b: _Sums) -> _Sums:
    """The sums of two sets of passes over the same rows; either may be empty."""
    count_B = a["count"] + b["count"]
    share_B = b["count"] / count_B.clamp_min(1)
    difference_BC = b["mean"] - a["mean"]
    mean_BC = a["mean"] + difference_BC * _per_row(share_B, difference_BC)
    weight = _per_row(a["count"] * share_B, difference_BC)
    merged = {
        "count": count_B,
        "mean": mean_BC,
        "deviations": a["deviations"] + b["deviations"] + difference_BC.square() * weight,
    }
    for name in a.keys() & {"entropy", "votes"}:
        merged[name] = a[name] + b[name]
    if task is not Task.HETEROSCEDASTIC_REGRESSION:
        return merged
    log_mean_BC = _merged_log_noise(a, b, count_B)
    merged["log_noise"] = log_mean_BC
    moved = [(part, _noise_divergence(part["log_noise"], log_mean_BC)) for part in (a, b)]
    merged["divergence"] = sum(
        (part["divergence"] + _weighted(_per_row(part["count"], gap), gap) for part, gap in moved),
        start=torch.zeros_like(a["divergence"]),
    )
    return merged


def _merged_log_noise(a: _Sums, b: _Sums, count_B: Tensor) -> Tensor:
    """Logarithm of the mean noise variance of the union."""
    weighted = [
        part["log_noise"] + _per_row(part["count"].log(), part["log_noise"]) for part in (a, b)
    ]
    log_mean = torch.logaddexp(*weighted) - _per_row(count_B.log(), weighted[0])
    return torch.where(_per_row(count_B > 0, log_mean), log_mean, 0.0)


def _fields(task: Task, sums: _Sums) -> dict[str, Callable[[], Tensor]]:
    """How each field that the task has is made."""
    after_rows = outputs.outputs_after_rows
    mean_BC, count_B = sums["mean"], sums["count"]

    @cache
    def variance_BC() -> Tensor:
        return _variance(count_B, sums["deviations"])

    @cache
    def std() -> Tensor:
        return after_rows(variance_BC().sqrt())

    def per_pass(total: Tensor) -> Tensor:
        return total / _per_row(count_B, total)

    make: dict[str, Callable[[], Tensor]] = {
        "mean": lambda: after_rows(mean_BC),
        "std": std,
        "standard_error": lambda: std() / _per_row(count_B, std()).sqrt(),
        "variance": lambda: variance_BC().mean(dim=-1),
    }
    if not task.is_regression:

        @cache
        def predictive_entropy() -> Tensor:
            return measures.entropy_of(task)(mean_BC)

        make |= {
            "predictive_entropy": predictive_entropy,
            "expected_entropy": lambda: per_pass(sums["entropy"]),
            # Jensen's inequality keeps it above zero; what rounding takes below is put back.
            "mutual_information": lambda: (
                predictive_entropy() - per_pass(sums["entropy"])
            ).clamp_min_(0.0),
            "variation_ratio": lambda: _variation_ratio(task, per_pass(sums["votes"])),
            "label": lambda: outputs.labels(task, mean_BC),
        }
        return make
    make["epistemic_std"] = std
    make["predictive_entropy"] = lambda: regression.gaussian_entropy(variance_BC())
    if task is Task.HETEROSCEDASTIC_REGRESSION:
        noise_BC = sums["log_noise"]

        def mutual_information() -> Tensor:
            # ½ Σ_c ln(1 + epistemic / aleatoric), without ever subtracting entropies.
            ratio_BC = variance_BC().log() - noise_BC
            more_BC = torch.logaddexp(ratio_BC, torch.zeros_like(ratio_BC))
            gap_B = per_pass(sums["divergence"])
            return (0.5 * (more_BC.sum(dim=-1) + gap_B)).clamp_min(0.0)

        make |= {
            "aleatoric_std": lambda: after_rows((0.5 * noise_BC).exp()),
            "predictive_entropy": lambda: regression.gaussian_entropy(
                variance_BC() + noise_BC.exp()
            ),
            "expected_entropy": lambda: per_pass(sums["entropy"]),
            "mutual_information": mutual_information,
        }
    return make


def _variance(count_B: Tensor, deviations_BC: Tensor) -> Tensor:
    """With T − 1; of a row with fewer than two passes not a number."""
    return deviations_BC / _per_row(count_B - 1, deviations_BC)


def _per_row(value_B: Tensor, like: Tensor) -> Tensor:
    """Numbers of rows [B] in a shape that broadcasts against [B, ...]."""
    return value_B.view(-1, *[1] * (like.dim() - 1))


def _weighted(weight: Tensor, divergence: Tensor) -> Tensor:
    """weight × divergence; a set without passes has a mean without meaning, and adds nothing."""
    return torch.where(weight > 0, weight * divergence, 0.0)


def _noise_divergence(log_v_C: Tensor, log_mean_C: Tensor) -> Tensor:
    """Σ_c of Itakura–Saito's v / v̄ − ln(v / v̄) − 1, from logarithms. [..., C] → [...]."""
    log_ratio = log_v_C - log_mean_C
    return (torch.expm1(log_ratio) - log_ratio).sum(dim=-1)


def _variation_ratio(task: Task, share_BC: Tensor) -> Tensor:
    """From the share of passes that chose each class, or said yes. → [B, D...]."""
    if task is Task.CLASSIFICATION:
        return 1 - share_BC.amax(dim=-1)
    return torch.minimum(share_BC, 1 - share_BC).mean(dim=-1)
