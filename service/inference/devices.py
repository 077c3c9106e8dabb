"""Picks the device to compute on."""

from __future__ import annotations

import torch

from service.errors import InvalidInput


def pick_device(wanted: str) -> torch.device:
    """`auto` is the GPU where there is one; `cpu`, `cuda` and `cuda:N` are taken at their word.

    Raises:
        InvalidInput: a GPU was asked for that is not there.
    """
    if wanted == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise InvalidInput(
                f"CANDOR_DEVICE={wanted}, but PyTorch sees {count} CUDA devices here; use auto or "
                "cpu, or install a CUDA build of PyTorch",
                field="CANDOR_DEVICE",
                received=wanted,
            )
        return torch.device("cuda", device.index or 0)
    return device
