"""Eight threads that have samples kept, and say which were, until somebody kills them."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Sequence

import numpy as np

from service.store.contract import NewRows, NewSample
from service.store.samples import SampleStore
from service.store.writer import SampleWriter

WRITERS = 8


def main() -> None:
    """Go on until killed."""
    _, url, run = sys.argv
    store = SampleStore(url)

    def kept(batch: Sequence[NewSample], _new: Counter[str]) -> None:
        sys.stdout.write("".join(f"{sample.request_id}\n" for sample in batch))
        sys.stdout.flush()

    writer = SampleWriter(store, 2**20, kept, lambda _count: None)

    scores = {"variance": np.ones(1)}

    def write(number: int) -> None:
        for count in range(10**9):
            request = f"{run}-{number}-{count}"
            name = np.array([request], dtype=np.object_)
            values = np.frombuffer(request.ljust(32).encode(), dtype=np.uint8)
            writer.offer(
                NewRows("digits", 1, np.zeros(1), name, np.zeros(1, np.int64), values[None], scores)
            )
            if count % 20 == 0:
                threading.Event().wait(0.01)

    threads = [threading.Thread(target=write, args=(n,), daemon=True) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    threads[0].join()


if __name__ == "__main__":
    main()
