"""Where and with what something was measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def machine(device: torch.device | None = None) -> dict[str, Any]:
    """The processor or card, how much of it, and how busy it was."""
    on_card = device is not None and device.type == "cuda"
    return {
        "platform": platform.platform(),
        "processor": torch.cuda.get_device_name(device) if on_card else _processor(),
        "cpus": os.cpu_count(),
        "load_average": os.getloadavg(),
        "torch_threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Of Python and the libraries that matter."""
    found = {name: version(name) for name in ("torch", "fastapi", "uvicorn", "numpy")}
    return {"python": platform.python_version(), **found}


def _processor() -> str:
    """Its name and, of what makes it fast, the units for lower precision."""
    information = Path("/proc/cpuinfo")
    if not information.exists():
        return platform.processor() or platform.machine()
    lines = dict(line.split(":", 1) for line in information.read_text().splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    units = [u for u in ("amx_bf16", "avx512_bf16") if u in fields.get("flags", "").split()]
    return " ".join([fields.get("model name", platform.machine()), *units])
