"""Progress of long counts as lines that also read well in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable

from ser_scripts.training.clock import duration

EVERY_SECONDS = 5.0


def counter(say: Callable[[str], None], what: str) -> Callable[[int, int], None]:
    """A callback (done, total) that reports at most every few seconds, with the time left."""
    started = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY_SECONDS and done:
            last = now
            say(f"{what}: {done} of {total}, about {duration((now - started) / done * (total - done))} left")

    return report
