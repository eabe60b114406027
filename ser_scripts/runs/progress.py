"""Progress of long counts as lines that also read well in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable

from ser_scripts.training.clock import duration

EVERY_SECONDS = 5.0


def counter(say: Callable[[str], None], what: str) -> Callable[[int, int], None]:
    """A callback (done, total) that reports at most every few seconds, with the time left."""
    began = last = time.monotonic()
    done_before: int | None = None

    def report(done: int, total: int) -> None:
        nonlocal began, last, done_before
        now = time.monotonic()
        if done_before is None:  # processes have started, which says nothing about the rest
            began, done_before = now, done
        if now - last >= EVERY_SECONDS and done > done_before:
            last = now
            seconds = (now - began) / (done - done_before) * (total - done)
            say(f"{what}: {done} of {total}, about {duration(seconds)} left")

    return report
