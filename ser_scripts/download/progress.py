"""Bytes done and to do: a bar on a terminal, a line now and then elsewhere. Always on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ser_scripts.download.sources import megabytes

EVERY_SECONDS = 10.0

Report = Callable[[int, int | None], None]
"""Called with the bytes done and the bytes in all (None where unknown)."""


@contextmanager
def bytes_shown(what: str, say: Callable[[str], None]) -> Iterator[Report]:
    """Show the progress of one file while the block runs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(what, say)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=None)

        def report(done: int, total: int | None) -> None:
            progress.update(task, completed=done, total=total)

        yield report


def _lines(what: str, say: Callable[[str], None]) -> Report:
    last = time.monotonic()

    def report(done: int, total: int | None) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY_SECONDS:
            last = time.monotonic()
            share = f" of {megabytes(total)} ({done / total:.0%})" if total else ""
            say(f"{what}: {megabytes(done)}{share}")

    return report
