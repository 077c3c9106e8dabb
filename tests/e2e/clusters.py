"""A real Ray cluster on this machine, of several nodes: each with processes of its own.

In a process of its own, so that the tests' own one does not have Ray's threads, and ends it by
ending.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.servers import Printed

_STORE_BYTES = 100 * 2**20
_START_S = 120.0


@contextmanager
def cluster(nodes: int, cpus: int) -> Iterator[str]:
    """The address of a cluster while the context lasts.

    Args:
        nodes: of it.
        cpus: that each says it has, whatever this machine has.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.clusters", str(nodes), str(cpus)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    printed = Printed(process.stdout, "address ")
    try:
        yield printed.awaited(_START_S).split()[1]
    finally:
        process.stdin.close()
        process.wait(_START_S)
        printed.close()


def processes(title: str) -> list[int]:
    """Ids of processes of Ray that are called so."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if words.startswith("ray::") and title in words:
                found.append(int(folder.name))
    return sorted(found)


def main() -> None:
    """Start a cluster, say where it is, and end it when nobody wants it any more."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    nodes, cpus = map(int, sys.argv[1:])
    size: dict[str, Any] = {"num_cpus": cpus, "object_store_memory": _STORE_BYTES}
    found = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    for _ in range(nodes - 1):
        found.add_node(**size)
    found.wait_for_nodes()
    print(f"address {found.address}", flush=True)
    sys.stdin.read()
    found.shutdown()


if __name__ == "__main__":
    main()
