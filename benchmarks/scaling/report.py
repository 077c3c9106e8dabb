"""What was measured, computed and checked, as the README shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.scaling.model import Plan


def section(result: dict[str, Any]) -> str:
    """The README's section about scaling."""
    machine, versions = result["machine"], result["versions"]
    plan = Plan(**result["plan"])
    lines = [
        f"Seen on {machine['processor']}, torch {versions['torch']}, {result['date'][:10]}: one",
        "replica on one processor, float32, kept busy. A prediction is a row with its T passes.",
        "*Full first* is the part that would be if each had a processor of its own. *May be used*",
        "is how much of a replica so that 99 of 100 requests that come at random are answered in",
        "0.1 s, or ten times what one takes alone. Assumed are "
        f"{plan.predictions_a_day:,.0f} predictions a day,",
        f"up to {plan.peak:g} times as many a second as on average, {plan.spare} replica to spare, "
        f"and {plan.processor_hour:g} an hour for a processor.",
        "",
        "| network | request | T | predictions a second | processor hours a million | its price "
        "| full first | may be used | replicas |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_case(case) for case in result["cases"]),
        "",
        _paper(result["cases"]),
        _link(result["cases"], plan),
    ]
    if result["gpu"] is not None:
        lines += ["", *_gpu(result["gpu"])]
    return "\n".join([*lines, "", *_random(result["at_random"]), "", *_beside(result)])


def _request(case: dict[str, Any]) -> str:
    rows = case["rows"]
    return f"{rows} {'row' if rows == 1 else 'rows'}, {case['form']}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _case(case: dict[str, Any]) -> str:
    may, replicas = case["load"], case["replicas"]
    return _row(
        case["network"],
        _request(case),
        f"{case['passes']}",
        f"{case['rows_per_s']:,.0f}",
        f"{case['processor_hours']:,.3g}",
        f"{case['price']:,.2g}",
        case["first_full"],
        "none in time" if may is None else f"{may:.0%}",
        "" if replicas is None else f"{replicas:,}",
    )


def _paper(cases: Sequence[dict[str, Any]]) -> str:
    ratios = [case["paper_rows_per_s"] / case["rows_per_s"] for case in cases]
    return (
        "What the two threads took of each request, added up, gives "
        f"{min(ratios):.0%} to {max(ratios):.0%} of these predictions a second."
    )


def _link(cases: Sequence[dict[str, Any]], plan: Plan) -> str:
    carried = {
        case["rows"] * case["bounds_per_s"]["network"] / case["rows_per_s"]: case for case in cases
    }
    least = min(carried)
    case = carried[least]
    return (
        f"A link of {plan.network_bits_per_s / 1e9:g} Gbit/s carries what {least:,.0f} replicas or "
        f"more answer; the fewest of {case['network']}, {_request(case)}, T = {case['passes']}, "
        f"which sends {case['bytes_in']:,} bytes and gets {case['bytes_out']:,}."
    )


def _gpu(gpu: dict[str, Any]) -> list[str]:
    return [
        f"On paper alone: {gpu['name']} computes as `make check-gpu` saw it, and HTTP takes what",
        "it took above.",
        "",
        "| network | rows | T | rows a second of the GPU | processors for HTTP | full first |",
        "|---|---|---|---|---|---|",
        *(
            _row(
                case["network"],
                f"{case['rows']}",
                f"{case['passes']}",
                f"{case['rows_per_s']:,.0f}",
                f"{case['http_processors']:.2f}",
                case["first_full"],
            )
            for case in gpu["cases"]
        ),
    ]


def _random(found: dict[str, Any]) -> list[str]:
    lines = [
        f"Checked against the simulation that says how much may be used: {found['network']}, "
        f"{_request(found)}, T = {found['passes']},",
        f"requests at random, of {found['full_per_s']:,.0f} a second that the replica does when it "
        "is full:",
        "",
        "| load | sent a second | in time | median ms, 99th | simulated |",
        "|---|---|---|---|---|",
    ]
    for run in found["runs"]:
        lines.append(
            _row(
                f"{run['load']:.0%}",
                f"{run['offered_per_s']:,.0f}",
                f"{run['in_time_per_s']:,.0f}",
                f"{1e3 * run['p50_s']:,.1f}, {1e3 * run['p99_s']:,.1f}",
                f"{1e3 * run['simulated_p50_s']:,.1f}, {1e3 * run['simulated_p99_s']:,.1f}",
            )
        )
    return lines


def _beside(result: dict[str, Any]) -> list[str]:
    lines = [
        f"Checked side by side: replicas on this machine's {result['machine']['cpus']} processors,",
        "which they share with the load generator (one replica has a processor for itself).",
        "Two processors cannot show what a hundred replicas do, only that replicas share nothing:",
        "a request takes as much of a processor however many there are, and together they do what",
        "the processors allow.",
        "",
        "| request | replicas | processors left to them | requests a second | of what one does "
        "on so many | processor ms a request |",
        "|---|---|---|---|---|---|",
    ]
    for found in result["side_by_side"]:
        name = f"{found['network']}, {_request(found)}, T = {found['passes']}"
        for run in found["runs"]:
            lines.append(
                _row(
                    name,
                    f"{run['count']}",
                    f"{run['processors']:.2f}",
                    f"{run['requests_per_s']:,.0f}",
                    f"{run['of_expected']:.0%}",
                    f"{1e3 * run['processor_s']:,.2f}",
                )
            )
    return lines
