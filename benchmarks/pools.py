"""Active learning on large pools: BatchBALD, and a million rows scored.

*BatchBALD*: N = 20,000 points, C = 10, T = 50, a batch of 50; seconds, and memory beside them.
*Scoring*: `candor score` over a million rows of 60 features, in a process of its own, beside what
the engine does with rows that lie in memory; their times in one run, and the process's peak memory.

python -m benchmarks.pools --output result.json
"""

from __future__ import annotations

import argparse
import json
import os

# Read once, when torch is imported: as `candor` sets it.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from rich.console import Console

from benchmarks.machine import machine, versions
from benchmarks.servers import write_repository
from service.inference.devices import resources
from service.inference.joint import batch_bald
from service.pools.scoring import FIELDS, ROWS_AT_ONCE, score_rows
from service.registry.loading import LoadedModel
from service.registry.registry import Registry
from service.settings import load_settings

POINTS, CLASSES, PASSES, BATCH = 20_000, 10, 50, 50
ROWS, FEATURES = 1_000_000, 60
_ENGINE_S = 20.0
_GROUP_ROWS = 50_000


def main() -> None:
    """Print both parts and write them where `--output` says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rows", type=int, default=ROWS)
    arguments = parser.parse_args()
    console = Console()
    found = {
        "machine": machine(),
        "versions": versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "batch_bald": measure_batch_bald(),
        "scoring": measure_scoring(arguments.rows),
    }
    console.print_json(json.dumps(found))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(found, indent=2) + "\n")


def measure_batch_bald() -> dict[str, Any]:
    """Seconds and peak memory of one selection, beside the passes that it chooses from."""
    generator = torch.Generator().manual_seed(0)
    # Points of every kind: passes that agree, that differ a little, that differ much.
    scale_N1 = 4 * torch.rand(POINTS, 1, generator=generator)
    centre_NC = 2 * torch.randn(POINTS, CLASSES, generator=generator)
    logits_TNC = centre_NC + scale_N1 * torch.randn(PASSES, POINTS, CLASSES, generator=generator)
    probs_TNC = logits_TNC.softmax(dim=-1)
    del logits_TNC
    before_bytes = _peak_bytes()
    started = time.perf_counter()
    chosen = batch_bald(probs_TNC, BATCH, generator=torch.Generator().manual_seed(0))
    return {
        "points": POINTS,
        "classes": CLASSES,
        "passes": PASSES,
        "batch": BATCH,
        "seconds": time.perf_counter() - started,
        "passes_bytes": probs_TNC.nbytes,
        "more_bytes_at_most": max(0, _peak_bytes() - before_bytes),
        "joint_mutual_information": chosen.total,
    }


def measure_scoring(rows: int) -> dict[str, Any]:
    """Rows a second of `candor score` and of the engine alone, in turns, and its peak memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_repository(folder / "models")
        _write_pool(folder / "pool.parquet", rows)
        before_s = _engine_rate(folder / "models")
        score = [sys.executable, "-m", "service", "score", str(folder / "pool.parquet")]
        started = time.perf_counter()
        process = subprocess.Popen(
            [*score, "-o", str(folder / "scores.parquet"), "--models", str(folder / "models")],
        )
        _, status, used = os.wait4(process.pid, 0)
        elapsed_s = time.perf_counter() - started
        if status:
            raise RuntimeError(f"candor score ended with {status}")
        after_s = _engine_rate(folder / "models")
        assert pq.read_metadata(folder / "scores.parquet").num_rows == rows
    engine = (before_s + after_s) / 2
    return {
        "rows": rows,
        "features": FEATURES,
        "passes": PASSES,
        "seconds": elapsed_s,
        "rows_per_s": rows / elapsed_s,
        "engine_rows_per_s": engine,
        "times_the_engine": engine * elapsed_s / rows,
        "peak_bytes": used.ru_maxrss * 1024,
    }


def _write_pool(path: Path, rows: int) -> None:
    generator = np.random.default_rng(0)
    schema = pa.schema([("x", pa.list_(pa.float32(), FEATURES))])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, _GROUP_ROWS):
            part = generator.normal(size=(min(_GROUP_ROWS, rows - start), FEATURES))
            flat = pa.array(part.astype(np.float32).ravel())
            column = pa.FixedSizeListArray.from_arrays(flat, FEATURES)
            writer.write_table(pa.table({"x": column}, schema=schema))


def _engine_rate(models: Path) -> float:
    """Rows a second of the engine on rows in memory."""
    model = _load(models)
    rows = np.random.default_rng(0).normal(size=(ROWS_AT_ONCE, FEATURES)).astype(np.float32)
    plan = model.manifest.plan_for()
    score_rows(model, rows, 0, plan, FIELDS)
    done, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < _ENGINE_S:
        score_rows(model, rows, 0, plan, FIELDS)
        done += len(rows)
    return done / elapsed


def _load(models: Path) -> LoadedModel:
    registry = Registry(models, resources(load_settings()))
    registry.scan()
    registry.load_all()
    return registry.resolve("mlp", None)


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
