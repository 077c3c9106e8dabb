"""The report's tables: numbers as they are read, the best of each column marked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.assessment.ranking import OutOfDistribution
from service.assessment.report import Report
from service.calibration.detection import Detection
from service.calibration.reliability import Bins


@dataclass(frozen=True, slots=True)
class Cell:
    """One number, and whether none in its column is better."""

    text: str
    best: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What a row is of, and its cells."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table; the header has one more name than there are cells in a row."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class _Column:
    """How a column is read: `better` is max, min, or None where no number is better."""

    name: str
    values: Sequence[float | None]
    text: Callable[[float], str]
    better: Callable[[Sequence[float]], float] | None


def methods(report: Report) -> Table:
    """Every method's quality."""
    if not report.class_methods:
        return _regression_methods(report)
    found = report.class_methods
    width = [method.calibration[Bins.EQUAL_WIDTH] for method in found]
    mass = [method.calibration[Bins.EQUAL_MASS] for method in found]
    columns = (
        _Column("accuracy", [method.accuracy for method in found], "{:.2%}".format, max),
        _Column(
            "log-likelihood", [method.log_likelihood for method in found], "{:.4f}".format, max
        ),
        _Column("Brier", [method.brier for method in found], "{:.4f}".format, min),
        _Column("ECE, equal width", [each.expected for each in width], "{:.4f}".format, min),
        _Column("ECE, equal mass", [each.expected for each in mass], "{:.4f}".format, min),
        _Column("ECE, debiased", [each.debiased for each in mass], "{:.4f}".format, min),
    )
    return _table(
        "Best in bold. Log-likelihood in nats a row: higher is better; Brier score and expected "
        "calibration error (ECE): lower is better.",
        "method",
        [method.title for method in found],
        columns,
    )


def deferral(report: Report) -> Table:
    """What deferring shares of the rows removes, by every score."""
    found = report.rankings
    shares = [each.share for each in found[0].deferrals]
    lost = "errors" if report.class_methods else "squared error"
    columns = [
        _Column(
            f"{share:.0%} deferred",
            [ranking.deferrals[place].avoided for ranking in found],
            "{:.0%}".format,
            max,
        )
        for place, share in enumerate(shares)
    ]
    columns.append(_Column("AURC", [ranking.area for ranking in found], "{:.3g}".format, min))
    return _table(
        f"Share of the {lost} that goes with the rows deferred; area under the risk–coverage curve "
        "(AURC): lower is better. Each row by the errors of its own prediction.",
        "score",
        [ranking.title for ranking in found],
        columns,
    )


def detection(found: OutOfDistribution) -> Table:
    """Every score's rates on all rows, with intervals."""
    rates = [each.rates for each in found.separations]

    def column(name: str, rate: str, better: Callable[[Sequence[float]], float]) -> _Column:
        return _Column(name, [getattr(each, rate) for each in rates], "{:.3f}".format, better)

    columns = (
        column("AUROC", "auroc", max),
        column("AUPR", "aupr_out", max),
        column("FPR95", "fpr95", min),
    )
    table = _table(
        "On all rows, with 95 % intervals. AUROC and AUPR: higher is better; FPR95, the held-out "
        "rows flagged where 95 % of the strangers are: lower is better.",
        "score",
        [each.title for each in found.separations],
        columns,
    )
    rows = zip(table.rows, rates, strict=True)
    return Table(table.caption, table.header, tuple(_with_intervals(*each) for each in rows))


def _with_intervals(row: Row, rates: Detection) -> Row:
    intervals = (rates.auroc_interval, rates.aupr_out_interval, rates.fpr95_interval)
    pairs = zip(row.cells, intervals, strict=True)
    return Row(
        row.name,
        tuple(
            Cell(f"{cell.text} ({low:.3f}–{high:.3f})", cell.best) for cell, (low, high) in pairs
        ),
    )


def _regression_methods(report: Report) -> Table:
    found = report.regression_methods
    columns = [
        _Column(
            "RMSE" if len(found[0].root_mean_squared_error) == 1 else f"RMSE of output {output}",
            [method.root_mean_squared_error[output] for method in found],
            "{:.4g}".format,
            min,
        )
        for output in range(len(found[0].root_mean_squared_error))
    ]
    columns.append(
        _Column("log-likelihood", [m.log_likelihood for m in found], "{:.3f}".format, max)
    )
    columns += [
        _Column(
            f"in {each.level:.0%} interval",
            [method.coverage[place].observed for method in found],
            "{:.1%}".format,
            None,
        )
        for place, each in enumerate(found[0].coverage)
    ]
    return _table(
        "Best in bold. RMSE: lower is better; log-likelihood in nats a row: higher is better; of "
        "the intervals, the closer to their level the better.",
        "method",
        [method.title for method in found],
        columns,
    )


def _table(caption: str, first: str, names: Sequence[str], columns: Sequence[_Column]) -> Table:
    by_column = [_cells(column) for column in columns]
    return Table(
        caption,
        (first, *(column.name for column in columns)),
        tuple(
            Row(name, tuple(cells[place] for cells in by_column))
            for place, name in enumerate(names)
        ),
    )


def _cells(column: _Column) -> list[Cell]:
    """As they are read: numbers that read alike are equally good."""
    known = [value for value in column.values if value is not None]
    best = column.text(column.better(known)) if column.better is not None and known else None
    texts = ["–" if value is None else column.text(value) for value in column.values]
    several = len(set(texts)) > 1
    return [Cell(text, several and text == best) for text in texts]
