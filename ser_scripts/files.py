"""Folders that must be writable before work begins, and work that one process does at a time."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ser_scripts.errors import BadInput

_GUARD = "guard"


def writable_folder(folder: Path, *, remedy: str) -> Path:
    """Create a folder where needed and check that it can be written to.

    Args:
        folder: created with its parents
        remedy: how to name another folder, e.g. `set SER_RUNS`

    Raises:
        BadInput: naming the folder, the reason and the remedy
    """
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        if not there.stat().st_mode & 0o222:  # root could write all the same
            raise BadInput(f"cannot write to {there}: it is marked read-only; {remedy} to a writable folder")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):  # its own name, or none: several may ask at once
            pass
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror}; {remedy} to a writable folder") from None
    return folder


@contextlib.contextmanager
def held(runs: Path, what: str, *, busy: str) -> Iterator[None]:
    """Hold a name below the runs folder, such as that of a run; another process that holds it is an error at once.

    The lock lies with the runs, since processes that share them may have different caches: as a file in `.locks`, which
    goes when it is released (or, after a kill, the next time). It is made, taken and removed under a guard that stays:
    who could open the file while another removes it would hold a lock that a third does not see.

    Args:
        runs: the runs folder
        what: the name, relative to it
        busy: text of the error

    Raises:
        BadInput: another process holds it, or the folder is not writable
    """
    folder = writable_folder(runs / ".locks", remedy="set SER_RUNS")
    guard, file = guarded(runs), folder / f"{hashlib.sha256(what.encode()).hexdigest()[:16]}.lock"
    lock = FileLock(file)
    with guard:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BadInput(busy) from None
    try:
        yield
    finally:
        with guard:
            lock.release()
            file.unlink(missing_ok=True)


def guarded(runs: Path) -> FileLock:
    """The one lock of a runs folder that everybody waits for, for moments only."""
    return FileLock(writable_folder(runs / ".locks", remedy="set SER_RUNS") / f"{_GUARD}.lock")
