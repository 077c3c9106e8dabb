"""Turns the files that the benchmarks wrote into the README's tables and a plot: `make bench`.

python -m benchmarks.render
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.active_learning import report as active_learning
from benchmarks.scaling import report as scaling

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"

TARGETS: dict[str, dict[str, dict[int, float]]] = {
    "mlp": {"float32": {32: 8, 256: 15}, "bfloat16": {32: 14, 256: 25}},
    "cnn": {"float32": {32: 30, 256: 30}, "bfloat16": {32: 50, 256: 50}},
    "resnet": {"float32": {32: 40, 256: 40}, "bfloat16": {32: 50, 256: 50}},
    "transformer": {"float32": {32: 2.5, 256: 2.5}, "bfloat16": {32: 8, 256: 8}},
    "lstm": {"float32": {32: 2, 256: 2}, "bfloat16": {32: 6, 256: 6}},
}
"""What was set out to be reached: the better plain way's time over Candor's, by rows."""


def _cell(name: str, precision: str, case: dict[str, Any]) -> str:
    ratio, limit = case["ratio"][precision], case["times_limit"][precision]
    wanted = TARGETS.get(name, {}).get(precision, {}).get(case["rows"], 1)
    mark = "" if ratio >= wanted else f" (aim {wanted:g}×)"
    return f"**{ratio:.1f}×**{mark}, {limit:.1f}"


def engine_table(result: dict[str, Any]) -> str:
    """Markdown: each network and number of rows, milliseconds of the plain ways, ratios, limits."""
    lines = [
        "| network | B | loop, ms | repeated batch, ms | float32 | bfloat16 | `auto` takes |",
        "|---|---|---|---|---|---|---|",
    ]
    for network in result["networks"]:
        for case in network["cases"]:
            scaled = "~" if case["plain_passes"] < result["passes"] else ""
            plain = [f"{scaled}{1e3 * case['seconds'][way]:,.1f}" for way in ("loop", "repeat")]
            cells = [_cell(network["network"], p, case) for p in ("float32", "bfloat16")]
            row = [network["network"], str(case["rows"]), *plain, *cells, network["auto"]]
            lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _where(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    threads = _counted(machine["torch_threads"], "thread")
    return f"{machine['processor']}, {threads}, torch {versions['torch']}, {result['date'][:10]}"


def engine_section(result: dict[str, Any]) -> str:
    """The README's section about the engine."""
    rates = result["multiply_adds_a_second"]
    return "\n".join(
        [
            f"Seen on {_where(result)}, T = {result['passes']}, shared masks. Each cell is the",
            "time of the better plain way over Candor's, then Candor's time over that of the",
            "matrix products it still has, at the rate of one large product here "
            f"({2e-9 * rates['float32']:,.0f} and",
            f"{2e-9 * rates['bfloat16']:,.0f} GFLOP/s). A time with ~ was scaled up from fewer",
            "passes.",
            "",
            engine_table(result),
            "",
            "![Time of the better plain way over Candor's](benchmarks/results/engine.svg)",
        ]
    )


def service_section(result: dict[str, Any]) -> str:
    """The README's section about the service."""
    servers = list(dict.fromkeys(row["server"] for row in result["rows"]))
    connections = sorted({row["connections"] for row in result["rows"]})
    found = {(row["server"], row["connections"]): row for row in result["rows"]}
    lines = [
        f"Seen on {_where(result)}: one row of 60 features a request, T = 50; requests a second",
        "(median ms, 99th percentile ms).",
        "",
        f"| server | {' | '.join(f'{n} connections' for n in connections)} |",
        f"|---|{'---|' * len(connections)}",
    ]
    for server in servers:
        cells = [
            f"{row['requests_per_s']:,.0f} ({1e3 * row['p50_s']:.1f}, {1e3 * row['p99_s']:.1f})"
            for row in (found[server, n] for n in connections)
        ]
        lines.append(f"| {server} | {' | '.join(cells)} |")
    ratios = [f"{result['ratio_to_best_peer'].get(str(n), 0):.1f}×" for n in connections]
    lines.append(f"| *Candor over the best other* | {' | '.join(ratios)} |")
    large = result["large_bodies"]
    shares = ", ".join(f"{row['share']:.1%} at {row['connections']}" for row in large)
    generator = max(row["generator_share"] for row in large)
    lines += [
        "",
        "Bodies of 256 rows as .npy, answers as .npz, float32: of what the engine alone does in",
        "the processor time that the load generator leaves it on this machine (the generator",
        f"takes up to {generator:.1%} of a core), {shares} connections",
        "come through HTTP. A single connection waits for its own request and answer to be read.",
    ]
    return "\n".join(lines)


def _apart(result: dict[str, Any]) -> str:
    """Which processors serve, and which send."""
    generators, workers = result["generators"], result["workers"]
    if generators == 1 and workers == 1:
        return "one of which the load generator has to itself"
    return (
        f"{generators} of which the load generators have to themselves, `CANDOR_WORKERS={workers}`"
    )


def overload_section(result: dict[str, Any]) -> str:
    """The README's section about more load than can be served."""
    machine = result["machine"]
    lines = [
        f"Seen on {_where(result)}, with a load average of {machine['load_average'][0]:.0f} on",
        f"{machine['cpus']} processors, {_apart(result)}: requests",
        "arrive at random, whether earlier ones were answered or not, each with a deadline of",
        f"{result['cases'][0]['deadline_s']:g} s. Each figure is of the best of several rounds.",
        "",
        "| request | sustainable a second | load | in time a second | refused | late "
        "| median ms, 99th |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in result["cases"]:
        for run in case["runs"]:
            cells = [
                case["case"],
                f"{case['sustainable_per_s']:,.0f}",
                f"{run['times']:g}×",
                f"{run['goodput_per_s']:,.0f}",
                f"{run['refused']:.1%}",
                f"{run['late']:.1%}",
                f"{1e3 * run['p50_s']:,.0f}, {1e3 * run['p99_s']:,.0f}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    for case in result["cases"]:
        told = case["retry_after"]
        of_sustainable = case["runs"][-1]["goodput_per_s"] / case["sustainable_per_s"]
        lines += [
            "",
            f"{case['case']}: at five times the load {of_sustainable:.0%} of the sustainable rate,",
            f"{case['goodput_at_5']:.0%} of the best goodput. Of a burst,",
            f"{told['as_told_served']:.0%} of the clients that came back when",
            f"they were told, up to three times, were served, and {told['fixed_served']:.0%} of",
            "those that came back after a quarter of a second.",
        ]
    return "\n".join(lines)


def pools_section(result: dict[str, Any]) -> str:
    """The README's section about large pools."""
    batch, scoring = result["batch_bald"], result["scoring"]
    return "\n".join(
        [
            f"Seen on {_where(result)}, T = {scoring['passes']}:",
            f"{scoring['rows']:,} rows of {scoring['features']} features take `candor score` "
            f"{scoring['seconds']:.0f} s from its start to its end,",
            f"{scoring['times_the_engine']:.2f} times what the engine takes for rows in memory, "
            f"and {scoring['peak_bytes'] / 2**30:.2f} GiB of memory;",
            f"`batch_bald` chooses {batch['batch']} of {batch['points']:,} points of "
            f"{batch['classes']} classes in {batch['seconds']:.0f} s, with "
            f"{batch['more_bytes_at_most'] / 2**20:.0f} MiB beside their passes.",
        ]
    )


def soak_section(result: dict[str, Any]) -> str:
    """The README's section about the soak."""
    reloads = result["reloads"]
    seen = {"right": 0, "wrong": 0, "lost": 0, "refused": 0, "left": 0, **result["outcomes"]}
    lines = [
        f"Seen on {_where(result)}, {_counted(round(result['seconds'] / 60), 'minute')} at "
        f"{result['requests_per_s']:,.0f} requests a second, the load generator taking",
        f"{result['generator_share']:.0%} of a core: {result['sent']:,} requests, of which "
        f"{seen['right']:,} were answered with the right numbers,",
        f"{seen['wrong']:,} with wrong ones; {seen['lost']:,} were lost; {seen['refused']:,} were "
        f"bad and refused as documented, {seen['left']:,} of",
        f"clients that left; {reloads.get('good', 0):,} reloads with other",
        f"weights and {reloads.get('broken', 0):,} with a broken file.",
        "",
        "| what has to hold | | |",
        "|---|---|---|",
    ]
    for finding in result["findings"]:
        holds = "holds" if finding["holds"] else "**does not hold**"
        lines.append(f"| {finding['name']} | {holds} | {finding['said']} |")
    return "\n".join(lines)


def page_section(result: dict[str, Any]) -> str:
    """The README's section about how soon the page is there."""
    drawing, loads, machine = result["drawing"], result["loads"], result["machine"]
    rate = drawing["updates"] / drawing["seconds"]
    return "\n".join(
        [
            f"Seen on {_where(result)}, Chromium {result['versions']['chromium']}, with a load",
            f"average of {machine['load_average'][0]:.0f} on {machine['cpus']} processors; median",
            f"of {len(loads)} visitors with an empty cache: the first paint after "
            f"{1e3 * result['first_paint_s']:,.0f} ms, the first answer with its doubt after",
            f"{1e3 * result['answered_s']:,.0f} ms and {loads[0]['bytes'] / 1e3:,.0f} kB. Drawing "
            f"with {rate:.0f} updates a second for {drawing['seconds']:.0f} s sent",
            f"{sum(drawing['sent'].values()):,} requests, at most "
            f"{drawing['most_at_a_time']} at a time; the last answer was there",
            f"{1e3 * drawing['settled_s']:,.0f} ms after the last movement.",
        ]
    )


def ray_section(result: dict[str, Any]) -> str:
    """The README's section about a cluster: each server's throughput, and what it shows."""
    loads = {(row["case"], row["server"]): row for row in result["rows"]}
    servers = list(dict.fromkeys(row["server"] for row in result["rows"]))
    cases = list(dict.fromkeys(row["case"] for row in result["rows"]))
    lines = [
        f"Seen on {_where(result)}, Ray {result['versions']['ray']}, "
        f"{result['connections']} connections: requests a second",
        "(median ms, 99th percentile ms), each process that computes on one thread.",
        "",
        f"| request | {' | '.join(servers)} | 2 / 1 |",
        f"|---|{'---|' * (len(servers) + 1)}",
    ]
    for case in cases:
        found = [loads[case, server] for server in servers]
        cells = [
            f"{one['requests_per_s']:,.1f} ({1e3 * one['p50_s']:.1f}, {1e3 * one['p99_s']:.1f})"
            for one in found
        ]
        ratio = found[-1]["requests_per_s"] / found[-2]["requests_per_s"]
        lines.append(f"| {case} | {' | '.join(cells)} | {ratio:.2f}× |")
    return "\n".join(lines)


SECTIONS = {
    "engine": engine_section,
    "service": service_section,
    "overload": overload_section,
    "overload_workers": overload_section,
    "pools": pools_section,
    "soak": soak_section,
    "page": page_section,
    "ray": ray_section,
    "scaling": scaling.section,
    "active_learning": active_learning.section,
}


def rendered(readme: str, results: Path = RESULTS) -> str:
    """The README with the sections that the files in `results` give."""
    for name, section in SECTIONS.items():
        path = results / f"{name}.json"
        if path.exists():
            text = section(json.loads(path.read_text(encoding="utf-8")))
            pattern = re.compile(f"<!-- {name} -->.*?<!-- /{name} -->", re.DOTALL)
            block = f"<!-- {name} -->\n{text}\n<!-- /{name} -->"
            readme = pattern.sub(block.replace("\\", "\\\\"), readme)
    return readme


def plot(result: dict[str, Any], path: Path) -> None:
    """Bars: the ratio of each network at its largest number of rows, in both precisions."""
    import matplotlib
    from matplotlib.figure import Figure

    # The same figures give the same file.
    matplotlib.rcParams["svg.hashsalt"] = "candor"
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axes = figure.subplots()
    names = [f"{n['network']}, B = {n['cases'][-1]['rows']}" for n in result["networks"]]
    for offset, precision in ((-0.2, "float32"), (0.2, "bfloat16")):
        ratios = [n["cases"][-1]["ratio"][precision] for n in result["networks"]]
        bars = axes.bar([i + offset for i in range(len(names))], ratios, 0.38, label=precision)
        axes.bar_label(bars, fmt="%.1f×", padding=2, fontsize=8)
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_ylabel("times faster than\nthe better plain way")
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Render everything that is there."""
    engine = RESULTS / "engine.json"
    if engine.exists():
        plot(json.loads(engine.read_text(encoding="utf-8")), RESULTS / "engine.svg")
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
