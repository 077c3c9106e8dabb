"""What servers are forked from: all that the command loads, and what a first export loads."""

from service.__main__ import main
from service.inference.reclaiming import set_apart

__all__ = ["main"]

set_apart()
