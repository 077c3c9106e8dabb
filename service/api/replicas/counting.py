"""Sums of what several processes counted, as one process would have."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_TOTALS = frozenset({"counter", "histogram", "summary"})
"""Kinds that only grow: what an ended process counted stays counted."""

_Rule = Callable[[Sequence[float]], float]

_OF_ALL: dict[str, _Rule] = {
    "candor_build_info": max,
    "candor_model_ready": min,
    "candor_calibration_stale": max,
    "candor_sample_store_up": min,
    "candor_ood_flagged_rate": statistics.fmean,
    "candor_population_stability_index": max,
    "process_start_time_seconds": min,
    "process_max_fds": min,
}
"""Of gauges whose sum would say nothing: a version is ready where it is on all, drift is that of
whoever sees most of it."""

_CREATED = "_created"


def counted(registry: CollectorRegistry, only: Collection[str] = ()) -> list[Metric]:
    """What a process counted so far.

    Args:
        registry: of it.
        only: names of families wanted, without what their samples add; all by default.
    """
    return [family for family in registry.collect() if not only or family.name in only]


def totals(families: Iterable[Metric]) -> list[Metric]:
    """What stays when its process is gone."""
    return [
        family
        for family in families
        if family.type in _TOTALS and not family.name.startswith("process_")
    ]


def summed(of_each: Iterable[Iterable[Metric]]) -> list[Metric]:
    """One family of each name, with one sample for each that any process has."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
    for own in of_each:
        for family in own:
            families.setdefault(family.name, family)
            found = values.setdefault(family.name, {})
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                found.setdefault(key, []).append(sample.value)
    return [_family(families[name], values[name]) for name in families]


def _family(
    like: Metric, values: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]
) -> Metric:
    family = Metric(like.name, like.documentation, like.type, like.unit)
    for (name, labels), found in values.items():
        rule: _Rule = min if name.endswith(_CREATED) else _OF_ALL.get(like.name, sum)
        family.samples.append(Sample(name, dict(labels), float(rule(found))))
    return family


class _Fixed(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def render(families: Sequence[Metric]) -> bytes:
    """The text that `/metrics` answers."""
    registry = CollectorRegistry()
    registry.register(_Fixed(families))
    return generate_latest(registry)
