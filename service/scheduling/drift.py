"""Whether what calibrated models answer still is distributed as at their calibration."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence

import numpy as np

from service.calibration.apply import OOD_VALUES
from service.calibration.artifact import Calibration
from service.calibration.drift import ReferenceBins, SlidingWindow
from service.inference.fields import Fields
from service.metrics import Metrics
from service.registry.verified import VerifiedModel
from service.types import ModelRef

_Windows = dict[str, SlidingWindow]


class Drift:
    """Sliding windows over the rows of each calibrated version; metrics read them when asked.

    Args:
        metrics: that show them.
        rows: of a window.
    """

    def __init__(self, metrics: Metrics, rows: int) -> None:
        self._metrics = metrics
        self._rows = rows
        self._windows: dict[ModelRef, tuple[int, _Windows]] = {}

    def observe(
        self, model: VerifiedModel, calibration: Calibration, answers: Sequence[Fields]
    ) -> None:
        """Add the rows of a model's answers to which its calibration was applied.

        A version that was loaded again begins anew; what its old load still answers is not added.
        """
        known, windows = self._windows.get(model.ref, (0, {}))
        if known > model.generation:
            return
        if known < model.generation:
            self._forget(model.ref)
            windows = self._begin(model.ref, calibration)
            self._windows[model.ref] = (model.generation, windows)
        for measure, window in windows.items():
            values = [array for fields in answers if (array := fields.get(measure)) is not None]
            if values:
                together = np.concatenate(values) if len(values) > 1 else values[0]
                window.add(together[~np.isnan(together)])

    def _begin(self, ref: ModelRef, calibration: Calibration) -> _Windows:
        windows = {
            measure: SlidingWindow(reference, self._rows)
            for measure, reference in calibration.references.items()
        }
        labels = (ref.name, str(ref.version))
        for measure, window in windows.items():
            self._metrics.stability_index.labels(*labels, measure).set_function(
                window.population_stability_index
            )
            for place in range(len(window.reference.counts)):
                self._metrics.drift_bin_rows.labels(*labels, measure, place + 1).set_function(
                    functools.partial(window.rows_in, place)
                )
        # The share of flagged rows needs no bins.
        flags = windows[OOD_VALUES] = SlidingWindow(
            ReferenceBins((), (calibration.threshold.rows,)),
            self._rows,
            calibration.threshold.value,
        )
        self._metrics.ood_flagged_rate.labels(*labels).set_function(flags.flagged_rate)
        self._metrics.drift_rows.labels(*labels).set_function(lambda: flags.rows)
        return windows

    def keep(self, refs: Collection[ModelRef]) -> None:
        """Forget all versions but these."""
        for ref in [ref for ref in self._windows if ref not in refs]:
            self._forget(ref)

    def _forget(self, ref: ModelRef) -> None:
        if ref not in self._windows:
            return
        _, windows = self._windows.pop(ref)
        labels = (ref.name, str(ref.version))
        for measure in windows.keys() - {OOD_VALUES}:
            self._metrics.stability_index.remove(*labels, measure)
            for place in range(len(windows[measure].reference.counts)):
                self._metrics.drift_bin_rows.remove(*labels, measure, place + 1)
        self._metrics.ood_flagged_rate.remove(*labels)
        self._metrics.drift_rows.remove(*labels)
