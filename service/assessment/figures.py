"""The report's figures as SVG, to stand inside an HTML page that is light or dark.

Ink and series are CSS variables of the page. Each figure is one panel as wide as a telephone, so
that its letters are as large there as on a desk. The same numbers give the same text.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator, MaxNLocator, PercentFormatter, StrMethodFormatter

from service.assessment.measured import MEASURE_TITLES
from service.assessment.methods import ClassMethod
from service.assessment.ranking import Histogram, Ranking, Separation
from service.assessment.regression_methods import RegressionMethod
from service.assessment.report import Fit
from service.assessment.settling import WITHIN, Settling
from service.calibration.reliability import Bins

INK, MUTED, GRID = "#010101", "#020202", "#030303"
SERIES = ("#040101", "#040202", "#040303", "#040404", "#040505", "#040606", "#040707")
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, 1)},
}
"""Colours that nobody would choose stand for the page's own."""

_LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (1, 1)))
"""A series is told by its dashes, too."""

_PLACES = re.compile(r'\b(?:d|x|y|transform|width|height)="[^"]*"')
"""Attributes that say where something is drawn."""
_DIGITS = re.compile(r"-?\d+\.\d{3,}")

_SIZE = (3.7, 2.8)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "candor",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.8,
    "figure.constrained_layout.use": True,
    "path.simplify": True,
    # Names come from users; a dollar sign in one is no formula.
    "text.parse_math": False,
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One panel.

    Args:
        title: above it, for people.
        alt: what it shows, in words, for those who do not see it.
        svg: `<svg>` without anything that is not drawing.
    """

    title: str
    alt: str
    svg: str


def reliability(method: ClassMethod) -> Figure:
    """Accuracy against confidence in bins of equal mass, with intervals."""
    diagram = method.diagrams[Bins.EQUAL_MASS]
    error = method.calibration[Bins.EQUAL_MASS]
    confidence, accuracy = np.asarray(diagram.confidence), np.asarray(diagram.accuracy)
    low, high = np.asarray(diagram.interval).T
    with _panel() as (canvas, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
        axes.errorbar(
            confidence,
            accuracy,
            yerr=np.clip([accuracy - low, high - accuracy], 0, None),
            fmt="none",
            ecolor=SERIES[0],
            elinewidth=1,
            alpha=0.6,
        )
        axes.plot(confidence, accuracy, "o-", color=SERIES[0], markersize=4)
        start = max(0.0, min(float(confidence.min()), float(low.min())) - 0.03)
        _shares(axes, "confidence", "accuracy", (start, 1.01), (start, 1.01))
        svg = _svg(canvas)
    worst = int(np.argmax(np.abs(confidence - accuracy)))
    alt = (
        f"Reliability diagram of {method.title}: accuracy against confidence in "
        f"{len(confidence)} bins of about as many rows each; the diagonal is perfect calibration. "
        f"Expected calibration error {error.expected:.3f}. The bin furthest from the diagonal has "
        f"confidence {confidence[worst]:.2f} and accuracy {accuracy[worst]:.2f}."
    )
    return _figure(method.title, alt, svg)


def predictive_quantiles(methods: Sequence[RegressionMethod]) -> Figure:
    """Share of targets below each predictive quantile."""
    with _panel() as (canvas, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
        for method, (colour, line) in zip(methods, _looks(), strict=False):
            curve = method.curve
            axes.plot(
                curve.levels, curve.observed, color=colour, linestyle=line, label=method.title
            )
        _shares(axes, "level of the predicted quantile", "targets below it", (0, 1), (0, 1))
        axes.legend(loc="upper left")
        svg = _svg(canvas)
    errors = "; ".join(f"{method.title} {method.curve.error:.3f}" for method in methods)
    alt = (
        "Share of targets below predicted quantiles against their level; the diagonal is perfect "
        f"calibration. Sum of squared distances from it: {errors}."
    )
    return _figure("Are predicted quantiles right?", alt, svg)


def fit(curve: Fit) -> Figure:
    """A regression over its single input."""
    x, mean, std = np.asarray(curve.x), np.asarray(curve.mean), np.asarray(curve.std)
    with _panel() as (canvas, axes):
        axes.fill_between(
            x, mean - 2 * std, mean + 2 * std, color=SERIES[0], alpha=0.25, linewidth=0
        )
        axes.plot(x, mean, color=SERIES[0], label="MC dropout, ± 2 std")
        axes.plot(x, curve.deterministic, color=SERIES[1], linestyle="--", label="deterministic")
        axes.plot(x, curve.truth, ".", color=INK, markersize=2, alpha=0.6, label="truth")
        axes.set_xlabel("input")
        axes.set_ylabel("output")
        axes.legend(loc="best")
        svg = _svg(canvas)
    alt = (
        f"Predictions over the input from {x[0]:.4g} to {x[-1]:.4g} with a band of two standard "
        f"deviations over passes, between {std.min():.2g} and {std.max():.2g}, and the true values."
    )
    return _figure("The fit", alt, svg)


def risk_coverage(rankings: Sequence[Ranking], loss: str, *, root: bool) -> Figure:
    """Loss of the rows kept against the share of rows kept, the surest first.

    Args:
        rankings: at most as many as there are series.
        loss: what is left, as the axis calls it.
        root: show the square root, for squared errors.
    """
    with _panel() as (canvas, axes):
        for ranking, (colour, line) in zip(rankings, _looks(), strict=False):
            risk = np.sqrt(ranking.risk) if root else np.asarray(ranking.risk)
            axes.plot(ranking.coverage, risk, color=colour, linestyle=line, label=ranking.title)
        axes.axhline(float(risk[-1]), color=MUTED, linewidth=1, linestyle=":")
        axes.set_xlim(0, 1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("share of rows that the model keeps")
        axes.set_ylabel(loss)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        if not root:
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.legend(loc="upper left")
        svg = _svg(canvas)
    areas = "; ".join(f"{ranking.title} {ranking.area:.4g}" for ranking in rankings)
    alt = (
        f"Risk–coverage curves: {loss} among the rows kept, the surest first. "
        f"Area under the curve: {areas}."
    )
    return _figure("What is left after deferring the rest", alt, svg)


def histogram(values: Histogram) -> Figure:
    """A measure in and, where there is such data, out of distribution."""
    edges = np.asarray(values.edges)
    title = MEASURE_TITLES[values.name]
    kinds = [("held-out data", np.asarray(values.inside))]
    if values.outside is not None:
        kinds.append(("out of distribution", np.asarray(values.outside)))
    with _panel() as (canvas, axes):
        for (name, counts), (colour, line) in zip(kinds, _looks(), strict=False):
            share = counts / counts.sum()
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.25)
            axes.stairs(share, edges, color=colour, linestyle=line, linewidth=1.5, label=name)
        if values.logarithmic:
            axes.set_xscale("log")
            axes.minorticks_off()
            axes.xaxis.set_major_locator(LogLocator(numticks=5))
            # The usual 10^k is a formula, and those are not read.
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0e}"))
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylim(bottom=0)
        axes.set_xlabel(title)
        axes.set_ylabel("share of rows")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        if len(kinds) > 1:
            axes.legend(loc="best")
        svg = _svg(canvas)
    peaks = "; ".join(
        f"{name}: most rows between {edges[counts.argmax()]:.2g} and "
        f"{edges[counts.argmax() + 1]:.2g}"
        for name, counts in kinds
    )
    scale = ", logarithmic axis" if values.logarithmic else ""
    return _figure(title[0].upper() + title[1:], f"Histogram of {title}{scale}. {peaks}.", svg)


def receiver(separations: Sequence[Separation]) -> Figure:
    """ROC curves of every score."""
    with _panel() as (canvas, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
        for each, (colour, line) in zip(separations, _looks(), strict=False):
            axes.plot(
                each.false_positive_rate,
                each.true_positive_rate,
                color=colour,
                linestyle=line,
                label=each.title,
            )
        _shares(axes, "held-out rows flagged", "strangers flagged", (-0.01, 1), (0, 1.01))
        axes.legend(loc="lower right")
        svg = _svg(canvas)
    areas = "; ".join(f"{s.title} {s.rates.auroc:.3f}" for s in separations)
    alt = (
        "ROC curves: out-of-distribution rows flagged against held-out rows flagged. "
        f"Area under the curve: {areas}."
    )
    return _figure("Telling strangers apart", alt, svg)


def noise(found: Settling) -> Figure:
    """Monte Carlo noise of the measures against the number of passes."""
    with _panel() as (canvas, axes):
        for (name, shares), (colour, line) in zip(found.noise.items(), _looks(), strict=False):
            axes.plot(
                found.passes, shares, color=colour, linestyle=line, label=MEASURE_TITLES[name]
            )
        axes.axhline(WITHIN, color=MUTED, linewidth=1, linestyle=":")
        _passes(axes, found.passes)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("noise, share of the measure")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.legend(loc="upper right")
        svg = _svg(canvas)
    last = "; ".join(f"{MEASURE_TITLES[n]} {100 * s[-1]:.0f} %" for n, s in found.noise.items())
    alt = (
        f"Monte Carlo noise of the measures against the number of passes, {found.passes[0]} to "
        f"{found.passes[-1]}. With all of them: {last}. The dotted line is {100 * WITHIN:.0f} %."
    )
    return _figure("How steady the measures are", alt, svg)


def quality(found: Settling) -> Figure:
    """Quality of the mean prediction against the number of passes."""
    name = found.judged_by
    values = np.asarray(found.quality[name])
    spread = np.asarray(found.quality_noise[name])
    title = name.replace("_", "-" if name == "log_likelihood" else " ")
    with _panel() as (canvas, axes):
        axes.axhspan(
            values[-1] - found.judged_error,
            values[-1] + found.judged_error,
            color=MUTED,
            alpha=0.15,
            linewidth=0,
        )
        axes.fill_between(
            found.passes, values - spread, values + spread, color=SERIES[0], alpha=0.25, linewidth=0
        )
        axes.plot(found.passes, values, "o-", color=SERIES[0], markersize=3.5)
        _passes(axes, found.passes)
        axes.set_ylabel(title)
        svg = _svg(canvas)
    alt = (
        f"The {title} of the mean over passes against their number: {values[0]:.4g} with "
        f"{found.passes[0]}, {values[-1]:.4g} with {found.passes[-1]}. The grey band is the "
        f"standard error that the number of rows alone leaves, ± {found.judged_error:.2g}."
    )
    return _figure("How good the predictions are", alt, svg)


@contextmanager
def _panel() -> Iterator[tuple[Canvas, Axes]]:
    with mpl.rc_context(_STYLE):
        canvas = Canvas(figsize=_SIZE)
        yield canvas, canvas.add_subplot()


def _looks() -> Iterator[tuple[str, str | tuple[int, tuple[int, ...]]]]:
    return zip(cycle(SERIES), cycle(_LINES), strict=False)


def _shares(
    axes: Axes, x: str, y: str, x_range: tuple[float, float], y_range: tuple[float, float]
) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_xlim(*x_range)
    axes.set_ylim(*y_range)
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))


def _passes(axes: Axes, passes: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.minorticks_off()
    ticks = [each for each in (2, 5, 10, 20, 50, 100, 200, 500, 1000) if each <= passes[-1]]
    axes.set_xticks(ticks, [str(each) for each in ticks])
    axes.set_xlabel("passes")


def _svg(canvas: Canvas) -> str:
    """The drawing alone, in the page's colours."""
    content = io.StringIO()
    canvas.savefig(
        content,
        format="svg",
        transparent=True,
        metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
    )
    svg = content.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = svg.replace("xlink:href", "href").replace("'DejaVu Sans'", "inherit")
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return _short(svg)


def _short(svg: str) -> str:
    """The same drawing in a good deal fewer bytes: to a hundredth of a unit, and unindented."""
    svg = _PLACES.sub(lambda places: _DIGITS.sub(_rounded, places[0]), svg)
    # Nothing refers to a group.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    return re.sub(r'\n(?=[LMCQz"])', "", svg)


def _rounded(number: re.Match[str]) -> str:
    text = f"{float(number[0]):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _figure(title: str, alt: str, svg: str) -> Figure:
    return Figure(title, alt, svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1))


def unique(figure: Figure, prefix: str) -> Figure:
    """The figure with names of its own for what it refers to, to stand beside others."""
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', figure.svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    return Figure(figure.title, figure.alt, svg)
