"""The `candor` command, also as `python -m service`."""

import gc
import os

# Before anything loads torch, whose OpenMP reads it once. A thread that waits for the others' share
# of an operation spins for milliseconds by default; where a core is busy with something else, be it
# the event loop, another process or a container's quota, it spins away what the others need. Asleep
# at once it would wake too late for the next operation. So it spins for a few microseconds.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# What is imported stays. Looking through it for garbage, again and again while it grows, would take
# a fifth of the time that a command needs to start.
gc.disable()
from service.cli import main  # noqa: E402

gc.freeze()
gc.enable()

__all__ = ["main"]

if __name__ == "__main__":
    main()
