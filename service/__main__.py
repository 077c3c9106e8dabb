"""The `candor` command, also as `python -m service`."""

import os

# Before anything loads torch, whose OpenMP reads it once: a thread that waits for the others' share
# of an operation sleeps. By default it spins, and where a core is busy with something else, be it
# the event loop, another process or a container's quota, it spins away what the others need.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from service.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
