"""What a soak showed: each thing that has to hold, whether it did, and the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.soak.memory import Growth, Memory, growth
from benchmarks.soak.reloads import Reloads
from benchmarks.soak.traffic import Tally

SHORTEST_S = 240.0
"""A run under it says nothing about what grows: reloads alone move memory and latency by more."""

_GROWS_AT_MOST = 0.05
"""Of the memory used, over the whole run."""
_LONG_S = 1800.0
"""From which on the upper end of its confidence interval has to stay below that, and not only the
growth that was seen: with a reload every ten seconds a few minutes do not tell it so closely."""
_SLOWER_AT_MOST = {50: 1.3, 99: 2.0}
"""Percentile of the latency: its last third of the run over its first."""
_GIB, _MIB = 2**30, 2**20


@dataclass(frozen=True)
class Finding:
    """One thing that has to hold.

    Args:
        name: of it.
        holds: whether it did.
        said: with the figures.
    """

    name: str
    holds: bool
    said: str


def answers(tally: Tally, reloads: Reloads, wanted_unlike: Sequence[str]) -> list[Finding]:
    """No wrong answer, none lost, bad requests refused, the server's counts those of the load.

    Args:
        tally: of the load.
        reloads: that went on meanwhile.
        wanted_unlike: where the server's counts differ.
    """
    seen = tally.outcomes
    kinds = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(seen.items()))
    done = reloads.done
    return [
        Finding(
            "no wrong answer",
            seen["wrong"] == 0 and seen["right"] > 0,
            f"{seen['right']:,} answers were those of weights that were served, {seen['wrong']} "
            "were not",
        ),
        Finding(
            "none lost",
            seen["lost"] == 0 and seen.total() == tally.sent,
            f"{tally.sent:,} sent: {kinds}",
        ),
        Finding(
            "no status that is not documented",
            seen["unexpected"] == 0,
            f"{seen['refused']:,} bad requests got their documented error, {seen['unexpected']} "
            "requests another answer than they should have",
        ),
        Finding(
            "the server counted the same",
            not wanted_unlike,
            "; ".join(wanted_unlike) or "by endpoint and status",
        ),
        Finding(
            "reloads",
            not reloads.wrong and done["good"] > 0,
            "; ".join(reloads.wrong)
            or f"{done['good']} with other weights and {done['broken']} with a broken file, which "
            f"left the old serving; the longest took {reloads.longest_s:.1f} s",
        ),
    ]


def steadiness(tally: Tally, memory: Memory, warm_up_s: float, seconds: float) -> list[Finding]:
    """Flat memory and flat latency, measured after `warm_up_s`; nothing of a run too short."""
    if seconds < SHORTEST_S:
        return []
    begin = memory.times_s[0] + warm_up_s
    first = next(n for n, time_s in enumerate(memory.times_s) if time_s >= begin)
    grown = growth(memory.times_s[first:], memory.used_bytes[first:])
    return [flat_memory(grown, seconds), *_flat_latency(tally, warm_up_s, seconds)]


def flat_memory(grown: Growth, seconds: float) -> Finding:
    """Whether memory stayed as it was, as closely as a run of so many seconds tells."""
    closely = seconds >= _LONG_S
    share = (grown.at_most if closely else grown.whole) / grown.mean
    return Finding(
        "flat memory",
        share <= _GROWS_AT_MOST,
        f"{grown.mean / _MIB:,.0f} MiB on average, grown by {grown.whole / _MIB:+.1f} MiB over the "
        f"run (95 % interval {grown.at_least / _MIB:+.1f} to {grown.at_most / _MIB:+.1f}); "
        f"{'its upper end' if closely else 'that'} is {share:.1%} of the average, and may be "
        f"{_GROWS_AT_MOST:.0%}",
    )


def _flat_latency(tally: Tally, warm_up_s: float, seconds: float) -> list[Finding]:
    started = np.asarray(tally.started_s)
    latencies = np.asarray(tally.latencies_s)
    third = (seconds - warm_up_s) / 3
    first = latencies[(started >= warm_up_s) & (started < warm_up_s + third)]
    last = latencies[started >= seconds - third]
    found = []
    for percentile, bound in _SLOWER_AT_MOST.items():
        before, after = np.percentile(first, percentile), np.percentile(last, percentile)
        found.append(
            Finding(
                f"flat latency, {percentile}th percentile",
                bool(after <= bound * before),
                f"{1e3 * before:.1f} ms in the first third, {1e3 * after:.1f} ms in the last: "
                f"{after / before:.2f} times, and may be {bound:g}",
            )
        )
    return found


def by_minute(tally: Tally) -> list[dict[str, float]]:
    """Requests and percentiles of their latency in seconds, for each minute of the load."""
    started = np.asarray(tally.started_s)
    latencies = np.asarray(tally.latencies_s)
    minutes = (started // 60).astype(int)
    found = []
    for minute in np.unique(minutes):
        inside = latencies[minutes == minute]
        p50, p99 = np.percentile(inside, [50, 99])
        found.append(
            {
                "minute": int(minute),
                "requests": len(inside),
                "p50_s": round(float(p50), 6),
                "p99_s": round(float(p99), 6),
            }
        )
    return found
