"""The README's figures are those of the files that the benchmarks wrote, and no others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks.render import README, RESULTS, SECTIONS, engine_table, rendered


def test_the_readme_shows_what_the_files_hold() -> None:
    readme = README.read_text(encoding="utf-8")
    assert rendered(readme) == readme
    for name in SECTIONS:
        assert (RESULTS / f"{name}.json").is_file()
        assert re.search(f"<!-- {name} -->\n.+?<!-- /{name} -->", readme, re.DOTALL)


def test_other_figures_would_show(tmp_path: Path) -> None:
    result = json.loads((RESULTS / "engine.json").read_text(encoding="utf-8"))
    result["networks"][0]["cases"][0]["ratio"]["float32"] = 12345.6
    (tmp_path / "engine.json").write_text(json.dumps(result), encoding="utf-8")
    assert "12345.6×" in rendered(README.read_text(encoding="utf-8"), tmp_path)


@pytest.mark.parametrize(("ratio", "shown"), [(8.0, "**8.0×**, 2.0"), (7.9, "(aim 8×)")])
def test_an_aim_that_was_missed_stands_beside_what_was_seen(ratio: float, shown: str) -> None:
    case = {
        "rows": 32,
        "plain_passes": 50,
        "seconds": {"loop": 0.03, "repeat": 0.02},
        "ratio": {"float32": ratio, "bfloat16": 20.0},
        "times_limit": {"float32": 2.0, "bfloat16": 3.0},
    }
    network = {"network": "mlp", "auto": "float32", "cases": [case]}
    assert shown in engine_table({"passes": 50, "networks": [network]})
