"""What servers are forked from: all that the command loads, and what a first export loads."""

from service.__main__ import main
from service.inference.reclaiming import set_apart
from tests.quick import load_quickly

__all__ = ["main"]

load_quickly()
set_apart()
