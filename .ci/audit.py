#!/usr/bin/env python3
"""Look the pinned dependencies up among the known vulnerabilities.

    .ci/audit.py                    what is pinned has no known vulnerability, or this fails
    .ci/audit.py --where-reachable  also passes, and says so, where that cannot be known

The data is that of PyPI, asked by pip-audit. Mirrors of PyPI often have none, or answer as if
nothing were vulnerable. So a release that is known to be is looked up first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

PIP_AUDIT = "pip-audit==2.10.1"
KNOWN_BAD = "django/3.0.2"
ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = ROOT / ".venv-audit"
TIMEOUT_S = 10.0


def why_unknown(index: str) -> str | None:
    """Why nothing can be known from this index; None where it can."""
    address = f"{index}/pypi/{KNOWN_BAD}/json"
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
            found = json.load(answer).get("vulnerabilities")
    except (OSError, ValueError, AttributeError) as error:
        return f"{address} cannot be read: {error}"
    return None if found else f"{address} knows of no vulnerability, and there are some"


def audit() -> int:
    """Have pip-audit look at every pin; one that it cannot look up is a failure, too."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        venv.create(ENVIRONMENT, with_pip=True)
    install = [python, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", PIP_AUDIT]
    subprocess.run(install, check=True)
    look = [python, "-m", "pip_audit", "--requirement", ROOT / "constraints.txt", "--no-deps"]
    options = ["--disable-pip", "--strict", "--progress-spinner", "off"]
    return subprocess.run([*look, *options], check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--where-reachable", action="store_true")
    parser.add_argument("--index", default="https://pypi.org", help="whose data to look for")
    given = parser.parse_args()
    why = why_unknown(given.index)
    if why is None:
        return audit()
    print(f"NOT AUDITED: dependencies were not looked up. {why}", file=sys.stderr)
    return 0 if given.where_reachable else 1


if __name__ == "__main__":
    sys.exit(main())
