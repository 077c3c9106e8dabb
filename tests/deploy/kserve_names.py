"""What KServe's own package does not know of manifests, as JSON: a list of paths for each.

Run by the Python of an environment that has it: python kserve_names.py FILE.yaml...
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kserve.models
import kubernetes.client
import yaml

_PARTS = re.compile(r"list\[(\w+)\]")


def unknown(kind: str, value: Any, path: str) -> Iterator[str]:
    """Paths of keys that a type of the two packages has not."""
    parts = _PARTS.fullmatch(kind)
    if parts is not None:
        for number, part in enumerate(value):
            yield from unknown(parts[1], part, f"{path}[{number}]")
        return
    model = getattr(kserve.models, kind, None) or getattr(kubernetes.client, kind, None)
    if model is None:
        return
    types = {model.attribute_map[name]: each for name, each in model.openapi_types.items()}
    for key, part in value.items():
        if key not in types:
            yield f"{path}.{key}"
        else:
            yield from unknown(types[key], part, f"{path}.{key}")


def of_file(path: Path) -> list[str]:
    """Of a manifest of KServe."""
    manifest = yaml.safe_load(path.read_text())
    version = manifest["apiVersion"].removeprefix("serving.kserve.io/").capitalize()
    kind = version + manifest["kind"]
    if not hasattr(kserve.models, kind):
        return [kind]
    return list(unknown(kind, manifest, manifest["kind"]))


if __name__ == "__main__":
    json.dump([of_file(Path(name)) for name in sys.argv[1:]], sys.stdout)
