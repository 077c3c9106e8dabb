"""What has to be so before the `candor` command loads anything heavy."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LOOK = """
import os, sys

class Look:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"))
            # What comes after it takes seconds.
            sys.exit()

sys.meta_path.insert(0, Look())
import service.__main__
"""


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_waiting_threads_spin_shortly_unless_somebody_chose_otherwise(
    given: dict[str, str], found: str
) -> None:
    chosen = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {k: v for k, v in os.environ.items() if k not in chosen} | given
    done = subprocess.run(
        [sys.executable, "-c", LOOK],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [found]


def test_the_installed_command_starts_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"]["candor"] == "service.__main__:main"


def test_a_start_does_not_pay_for_what_only_some_commands_need() -> None:
    heavy = ("scipy.stats", "scipy.optimize", "sklearn", "matplotlib", "pyarrow")
    look = f"import sys, service.cli; print(*(set({heavy!r}) & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not done.stdout.split()
