"""Candor: serves dropout-trained PyTorch models that say how sure they are."""

__version__ = "0.1.0"
