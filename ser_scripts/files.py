"""Folders that must be writable before work begins."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ser_scripts.errors import BadInput


def writable_folder(folder: Path, *, remedy: str) -> Path:
    """Create a folder where needed and check that it can be written to.

    Args:
        folder: created with its parents
        remedy: how to name another folder, e.g. `set SER_RUNS`

    Raises:
        BadInput: naming the folder, the reason and the remedy
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not folder.stat().st_mode & 0o222:  # root could write all the same
            raise BadInput(f"cannot write to {folder}: it is marked read-only; {remedy} to a writable folder")
        with tempfile.TemporaryFile(dir=folder):  # its own name, or none: several may ask at once
            pass
    except OSError as error:
        raise BadInput(f"cannot write to {folder}: {error.strerror}; {remedy} to a writable folder") from None
    return folder
