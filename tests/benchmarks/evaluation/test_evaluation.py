"""The whole evaluation on made-up files, and what it says where files are missing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evaluation import report
from benchmarks.evaluation.__main__ import Effort, evaluate
from benchmarks.evaluation.data import ORIGINS, MissingData, check
from tests.benchmarks.evaluation import synthetic

ROOT = Path(__file__).parents[3]
LITTLE = Effort(
    epochs_times=1,
    validation_passes=10,
    passes=20,
    sonar_repeats=1,
    sonar_epochs=1,
    ood_seeds=(0,),
    ood_epochs=1,
    ood_passes=5,
)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("data")
    synthetic.write(folder)
    return evaluate(folder, processes=1, effort=LITTLE)


def test_every_section_has_its_figures(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(result)) == result | {
        "machine": result["machine"] | {"load_average": [*result["machine"]["load_average"]]}
    }
    for part in result["uci"]:
        assert len(part["splits"]) == synthetic.SPLITS
        assert all(split["rate"] in (0.01, 0.1) for split in part["splits"])
    assert len(result["sonar"]["repeats"]) == 1
    assert len(result["ood"]["seeds"]) == 1


def test_the_readme_shows_every_section(result: dict[str, Any]) -> None:
    readme = report.rendered(report.README.read_text(encoding="utf-8"), result)
    for name in ("where", "uci", "sonar", "ood"):
        assert re.search(f"<!-- {name} -->\n.+?<!-- /{name} -->", readme, re.DOTALL)
    assert "| variance |" in readme
    assert "| concrete | **" in readme


def test_the_readme_shows_what_the_file_holds() -> None:
    readme = report.README.read_text(encoding="utf-8")
    result = json.loads(report.RESULT.read_text(encoding="utf-8"))
    assert report.rendered(readme, result) == readme


def test_what_is_missing_is_named_with_where_it_comes_from(tmp_path: Path) -> None:
    synthetic.write(tmp_path)
    check(tmp_path)
    (tmp_path / "sonar.csv").unlink()
    with pytest.raises(MissingData, match=r"lacks 1 of the 9 files") as caught:
        check(tmp_path)
    assert f"sonar.csv: {ORIGINS['sonar.csv']}" in str(caught.value)
    assert "mnist" not in str(caught.value)


def test_without_data_the_command_ends_with_a_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.evaluation", "--data", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"{tmp_path} lacks 9 of the 9 files")
    assert "Traceback" not in ended.stderr


def test_make_without_data_says_what_to_type() -> None:
    command = ["make", "--no-print-directory", "evaluate", "DATA="]
    # The make that runs the tests would speak through this one.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=outside
    )
    assert ended.returncode == 2
    assert "make evaluate DATA=folder" in ended.stderr
    assert not ended.stdout


@pytest.mark.parametrize(
    ("rmse", "likelihood", "holds"),
    [(1.0, -1.0, True), (1.09, -1.09, True), (1.11, -1.0, False), (0.5, -1.11, False)],
)
def test_at_most_one_standard_error_behind_in_both_holds(
    rmse: float, likelihood: float, holds: bool
) -> None:
    published = (report.Mean(1.0, 0.1), report.Mean(-1.0, 0.1))
    reached = (report.Mean(rmse, 0.0), report.Mean(likelihood, 0.0))
    standing = report.Standing("set", reached, published, published, report.Mean(1.0, 0.1))
    assert standing.holds(published) is holds
