"""What `deploy/` and docker-compose.yml say holds of the server and of each other."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client import Counter
from prometheus_client.parser import text_string_to_metric_families

from service.api import connections, errors
from service.metrics import Metrics
from service.settings import load_settings
from service.types import ModelRef

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
GRAFANA = DEPLOY / "grafana"
README_TABLE = (ROOT / "README.md").read_text().partition("| metric | |")[2].partition("\n\n")[0]
CONNECTIONS = Path(connections.__file__)
CASES = Path(__file__).with_name("alerts.yml")

METRIC = re.compile(r"\b(?:candor|process)_[a-z0-9_]+\b")
GROUPED = re.compile(r"\b(?:by|on|ignoring|without) ?\(([^)]*)\)")
MATCHED = re.compile(r'(\w+)(?:=~|!~|!=|=)"')
OF_PROMETHEUS = {"job", "instance", "le", "alertname", "alertstate"}
VARIABLES = {"$__rate_interval": "1m", "$model": ".*"}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed (apt-get install --no-install-recommends prometheus)",
)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def dashboard() -> dict[str, Any]:
    [file] = (GRAFANA / "dashboards").glob("*.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def rules() -> list[dict[str, str]]:
    return [rule for group in read(DEPLOY / "alerts.yml")["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def panel_expressions() -> list[str]:
    found = [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())
    ]
    return found + [note["expr"] for note in dashboard()["annotations"]["list"]]


def expressions() -> list[str]:
    return panel_expressions() + [rule["expr"] for rule in rules()]


def metrics() -> tuple[set[str], set[str]]:
    """Names of series, and of labels, that a server has."""
    own = Metrics()
    # What is counted by the collector of all requests has its labels once there was one.
    own.answered("mine", 1, "/predict", 200, 0.1)
    names, labels = set(), set()
    for line in own.render().decode().splitlines():
        labels |= set(re.findall(r'(\w+)="', line))
        if line.startswith("# TYPE"):
            name, kind = line.split()[2:]
            names |= {name} | {
                f"{name}_{suffix}" for suffix in ("bucket", "sum", "count") if kind == "histogram"
            }
    for value in vars(own).values():
        labels |= set(getattr(value, "_labelnames", ()))
    return names, labels | {"measure"}


def promtool(*arguments: object) -> None:
    done = subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_metric_that_is_named_exists() -> None:
    names, _ = metrics()
    texts = {
        "the dashboard": " ".join(panel_expressions()),
        "deploy/alerts.yml": (DEPLOY / "alerts.yml").read_text(),
        "tests/deploy/alerts.yml": CASES.read_text(),
        "README.md": (ROOT / "README.md").read_text(),
    }
    for place, text in texts.items():
        named = set(METRIC.findall(text))
        assert len(named) > 5, place
        assert named <= names, f"{place} names {named - names}"


def test_every_metric_is_in_the_readme() -> None:
    names, _ = metrics()
    families = {name for name in names if name.startswith("candor_")}
    families -= {name for name in families if re.search("_(bucket|sum|count|created)$", name)}
    readme = (ROOT / "README.md").read_text()
    assert {name for name in families if f"`{name}" not in readme} == set()


def test_the_readme_says_which_labels_a_metric_has() -> None:
    found = re.findall(r"`(candor_\w+)(?:{([\w,]+)})?`[,| ]", README_TABLE)
    labels = {name: tuple(filter(None, names.split(","))) for name, names in found}
    for metric in vars(Metrics()).values():
        names = getattr(metric, "_labelnames", None)
        if names is not None:
            total = "_total" if isinstance(metric, Counter) else ""
            assert labels[metric._name + total] == names


def test_the_readme_says_which_labels_what_is_counted_in_batches_has() -> None:
    own = Metrics()
    own.answered("m", 1, "/predict", 200, 0.1)
    own.uncertainty.observe(ModelRef("m", 1), "variance", np.zeros(1))
    found = re.findall(r"`(candor_\w+){([\w,]+)}`[,| ]", README_TABLE)
    for name, labels in found:
        if not name.startswith(("candor_version_", "candor_uncertainty")):
            continue
        [family] = [
            family
            for family in text_string_to_metric_families(own.render().decode())
            if family.name == name.removesuffix("_total")
        ]
        for sample in family.samples:
            assert {*sample.labels} - {"le"} == {*labels.split(",")}, name


def test_the_readme_names_every_reason_of_refusals() -> None:
    counted = re.findall(r'"(slow_client|connections|invalid_http)"', CONNECTIONS.read_text())
    assert len(set(counted)) == 3
    reasons = {*errors._REASONS.values(), *counted}
    assert {reason for reason in reasons if f"`{reason}`" not in README_TABLE} == set()


def test_every_label_that_is_named_exists() -> None:
    _, labels = metrics()
    for expression in expressions():
        grouped = [name for group in GROUPED.findall(expression) for name in group.split(",")]
        named = {name.strip() for name in grouped} | set(MATCHED.findall(expression))
        assert named - {""} <= labels | OF_PROMETHEUS, expression


def test_rules_that_are_named_are_recorded() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for expression in expressions():
        assert set(re.findall(r"candor:[a-z0-9_:]+", expression)) <= recorded, expression


def test_an_alert_says_how_bad_it_is_and_what_to_do() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert len(rule["annotations"]["description"]) > 100, name
        assert rule["annotations"]["summary"]
        for other in re.findall(r"\bCandor[A-Z]\w+", rule["annotations"]["description"]):
            assert other in alerts(), f"{name} points at {other}"


def test_every_alert_has_a_case_that_fires_and_one_that_does_not() -> None:
    names = [case["name"] for case in read(CASES)["tests"]]
    assert names == [f"{name} {what}" for name in alerts() for what in ("fires", "is silent")]
    for case in read(CASES)["tests"]:
        [test] = case["promql_expr_test"]
        name = case["name"].split()[0]
        assert test["expr"] == f'ALERTS{{alertname="{name}", alertstate="firing"}}'
        assert bool(test["exp_samples"]) == case["name"].endswith("fires")


def test_what_an_alert_tells_of_its_labels_it_has() -> None:
    for case in read(CASES)["tests"]:
        for sample in case["promql_expr_test"][0]["exp_samples"]:
            has = set(re.findall(r"(\w+)=", sample["labels"]))
            texts = " ".join(alerts()[case["name"].split()[0]]["annotations"].values())
            assert set(re.findall(r"\$labels\.(\w+)", texts)) <= has, case["name"]


@needs_promtool
def test_prometheus_reads_the_configuration_and_the_rules() -> None:
    promtool("check", "config", DEPLOY / "prometheus.yml")
    promtool("check", "rules", DEPLOY / "alerts.yml")


@needs_promtool
def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", CASES)


@needs_promtool
def test_prometheus_understands_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    def plain(expression: str) -> str:
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)
        return expression

    texts = [plain(expression) for expression in panel_expressions()]
    assert not any("$" in text for text in texts)
    written = [{"record": f"panel:{i}", "expr": text} for i, text in enumerate(texts)]
    file = tmp_path / "panels.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": written}]}))
    promtool("check", "rules", file)


def _datasources(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        if "datasource" in part:
            yield part["datasource"]["uid"]
        for value in part.values():
            yield from _datasources(value)
    elif isinstance(part, list):
        for value in part:
            yield from _datasources(value)


def test_the_dashboard_asks_the_source_that_is_provisioned() -> None:
    [source] = read(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    assert set(_datasources(dashboard())) == {source["uid"]}
    assert source["url"] == "http://prometheus:9090"
    for panel in dashboard()["panels"]:
        assert panel["title"]
        assert panel["type"] == "row" or panel["targets"]


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert taken.isdisjoint(cells), panel["title"]
        taken |= cells


def test_compose_mounts_what_is_there_and_opens_nothing_beyond_this_machine() -> None:
    compose = read(ROOT / "docker-compose.yml")
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), name
        assert "build" in service or re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"])
        for volume in service["volumes"]:
            source, _, options = volume.partition(":")
            if source.startswith("."):
                assert (ROOT / source).exists(), volume
                assert options.endswith(":ro"), volume
            else:
                assert source in compose["volumes"]


def test_compose_mounts_files_where_those_who_read_them_look() -> None:
    services = read(ROOT / "docker-compose.yml")["services"]
    places = {
        target: ROOT / source
        for service in ("prometheus", "grafana")
        for source, target, _ in (volume.split(":") for volume in services[service]["volumes"])
    }
    for file in read(DEPLOY / "prometheus.yml")["rule_files"]:
        assert places[f"/etc/prometheus/{file}"] == DEPLOY / file
    [provider] = read(GRAFANA / "provisioning" / "dashboards" / "candor.yml")["providers"]
    folder = provider["options"]["path"]
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (places[folder] / Path(home).name).is_file()
    assert Path(home).parent == Path(folder)
    [scrape] = read(DEPLOY / "prometheus.yml")["scrape_configs"]
    [target] = scrape["static_configs"][0]["targets"]
    assert target.split(":")[0] in services
    assert scrape["job_name"] == "candor"


def test_the_files_for_ray_hold_settings_that_go_together() -> None:
    by_file = load_settings({"config": str(DEPLOY / "ray" / "candor.toml")}, environment={})
    assert by_file.ray == "auto"
    serve = read(DEPLOY / "ray" / "serve.yaml")
    [application] = serve["applications"]
    module, function = application["import_path"].split(":")
    assert module == "service.ray_app"
    assert f"\ndef {function}(" in (ROOT / "service" / "ray_app.py").read_text()
    by_serve = load_settings(application["args"], environment={})
    for name in ("models", "ray_replicas", "ray_cpus", "ray_doors"):
        assert getattr(by_serve, name) == getattr(by_file, name), name
    assert serve["http_options"] == {"host": by_file.host, "port": by_file.port}
