"""The peak of a function's tensors is what they hold at the same time."""

from __future__ import annotations

import torch

from service.inference.memory import peak_bytes


def test_only_what_lives_together_counts() -> None:
    def chain() -> None:
        x = torch.zeros(1000)
        for _ in range(10):
            x = x + 1
        x.view(10, 100).T.sum()

    with torch.inference_mode():
        # An old and a new x; views share storage, and the sum is one more number.
        assert peak_bytes(chain) == 2 * 4000


def test_what_is_kept_adds_up() -> None:
    with torch.inference_mode():
        assert peak_bytes(lambda: [torch.zeros(1000) for _ in range(5)]) == 5 * 4000
