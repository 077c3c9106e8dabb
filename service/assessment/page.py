"""The report as one HTML file that needs nothing else: no network, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from service.assessment import figures, tables, words
from service.assessment.figures import Figure
from service.assessment.ranking import Ranking
from service.assessment.report import Report

TEMPLATE = "page.html"
_FOLDER = Path(__file__).parent

NOT_DRAWN = ("expected_entropy", "variation_ratio")
"""Scores whose risk–coverage curves are left to the table: more than five cannot be told apart."""

GLOSSARY: Mapping[str, str] = {
    "predictive entropy": "entropy of the mean prediction, in nats: the whole uncertainty",
    "expected entropy": "mean over passes of each pass's entropy: noise in the data, which more "
    "training data would not take away (aleatoric)",
    "mutual information": "predictive less expected entropy: what the passes disagree about, which "
    "more training data would (epistemic)",
    "variance": "mean over outputs of the variance across passes",
    "variation ratio": "share of the passes that disagree with the most frequent label",
    "deterministic confidence": "the largest probability with dropout off",
    "temperature": "one number that the logits are divided by, so that confidence fits accuracy",
    "expected calibration error": "mean difference between confidence and accuracy over bins",
    "AURC": "area under the risk–coverage curve: mean error left over all shares of rows kept",
}


def render(report: Report) -> str:
    """The page. The same report gives the same text."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER), autoescape=True, undefined=StrictUndefined
    )
    # Nothing but figures made here passes unescaped.
    environment.filters["drawn"] = Markup
    return environment.get_template(TEMPLATE).render(
        report=report,
        words=_words(report),
        tables=_tables(report),
        drawn=_drawn(report),
        glossary=GLOSSARY,
    )


def _words(report: Report) -> dict[str, words.Sentences]:
    found = {
        "verdict": words.verdict(report),
        "methods": words.methods(report),
        "deferral": words.deferral(report),
        "detection": () if report.detection is None else words.detection(report.detection),
        "settling": words.settling(report.settling, report.passes),
        "examples": words.examples(report),
    }
    # A number and its sign are not torn apart at the end of a line.
    return {
        section: tuple(sentence.replace(" %", "\N{NO-BREAK SPACE}%") for sentence in sentences)
        for section, sentences in found.items()
    }


def _tables(report: Report) -> dict[str, Any]:
    return {
        "methods": tables.methods(report),
        "deferral": tables.deferral(report),
        "detection": None if report.detection is None else tables.detection(report.detection),
    }


def _drawn(report: Report) -> dict[str, list[Figure]]:
    if report.class_methods:
        methods = [figures.reliability(method) for method in report.class_methods]
        loss, root = "share of them that is wrong", False
    else:
        methods = [figures.predictive_quantiles(report.regression_methods)]
        methods += [figures.fit(report.fit)] if report.fit is not None else []
        loss, root = "root mean squared error of them", True
    found = {
        "methods": methods,
        "deferral": [figures.risk_coverage(_curves(report), loss, root=root)],
        "measures": [figures.histogram(each) for each in report.histograms],
        "detection": []
        if report.detection is None
        else [figures.receiver(report.detection.separations)],
        "settling": [figures.quality(report.settling), figures.noise(report.settling)],
    }
    return {
        section: [figures.unique(each, f"{section}-{i}") for i, each in enumerate(drawn)]
        for section, drawn in found.items()
    }


def _curves(report: Report) -> Sequence[Ranking]:
    return [each for each in report.rankings if each.name not in NOT_DRAWN]
