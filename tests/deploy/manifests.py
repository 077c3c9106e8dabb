"""The files of `deploy/kubernetes`, read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
KSERVE = KUBERNETES / "kserve"
MONITORING = KUBERNETES / "monitoring"
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def read(path: Path) -> Any:
    """One document."""
    return yaml.safe_load(path.read_text())


def kustomization(folder: Path = KUBERNETES) -> dict[str, Any]:
    """What `kubectl apply -k` reads there."""
    found: dict[str, Any] = read(folder / "kustomization.yaml")
    return found


def manifests() -> dict[str, dict[str, Any]]:
    """Those that are applied, by kind."""
    files = [read(KUBERNETES / name) for name in kustomization()["resources"]]
    return {manifest["kind"]: manifest for manifest in files}


def pod() -> dict[str, Any]:
    """The spec of the Deployment's pods."""
    found: dict[str, Any] = manifests()["Deployment"]["spec"]["template"]["spec"]
    return found


def container() -> dict[str, Any]:
    """The one of a pod."""
    [found] = pod()["containers"]
    assert isinstance(found, dict)
    return found


def runtime() -> dict[str, Any]:
    """The spec of KServe's runtime."""
    found: dict[str, Any] = read(KSERVE / "runtime.yaml")["spec"]
    return found


def predictor() -> dict[str, Any]:
    """The predictor of KServe's service."""
    found: dict[str, Any] = read(KSERVE / "inferenceservice.yaml")["spec"]["predictor"]
    return found


def given(one: dict[str, Any]) -> dict[str, str]:
    """Variables of a container that have a value of their own."""
    return {each["name"]: each["value"] for each in one["env"] if "value" in each}


def of_the_image() -> dict[str, str]:
    """Variables that the image sets."""
    [block] = re.findall(r"^ENV ((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
    return dict(re.findall(r"(CANDOR_\w+)=(\S+)", block))


def patched(manifest: dict[str, Any], patch: str) -> dict[str, Any]:
    """A manifest after the operations of a JSON patch, of which `add` and `replace` are enough."""
    result = deepcopy(manifest)
    for operation in yaml.safe_load(patch):
        assert operation["op"] in {"add", "replace"}
        *way, last = _steps(operation["path"])
        place: Any = result
        for step in way:
            place = place[int(step) if isinstance(place, list) else step]
        assert operation["op"] == "add" or last in place, operation
        place[last] = operation["value"]
    return result


def _steps(pointer: str) -> Iterator[str]:
    assert pointer.startswith("/")
    for step in pointer[1:].split("/"):
        yield step.replace("~1", "/").replace("~0", "~")
