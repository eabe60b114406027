"""Writing large files: enough room beforehand, and a clear word when the disk refuses."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import TypeVar

from ser_scripts.download.sources import megabytes
from ser_scripts.errors import BadInput

SPARE_BYTES = 10**8
"""Left free on the disk."""

T = TypeVar("T")


def require_room(folder: Path, needed_bytes: int, purpose: str) -> None:
    """Check the free space of a folder's disk.

    Raises:
        BadInput: less is free than is needed, and a little to spare
    """
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + SPARE_BYTES:
        raise BadInput(
            f"{folder}: {megabytes(needed_bytes + SPARE_BYTES)} are needed {purpose}, but {megabytes(free)} are free; "
            "make room, or set SER_DATA to another disk"
        )


def writing(file: Path, action: Callable[[], T]) -> T:
    """Do something that writes to a file.

    Raises:
        BadInput: what the disk refuses, which is the user's to mend
    """
    try:
        return action()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise BadInput(
                f"{file}: the disk is full; what was downloaded is kept. Make room, and the same command goes on"
            ) from None
        raise BadInput(f"cannot write to {file}: {error.strerror or error}") from None


def write_all(file: Path, stream: FileIO, data: bytes) -> None:
    """Write every byte to an unbuffered stream: a buffer would fail once more, and less clearly, when it is closed.

    Raises:
        BadInput: the disk refuses
    """
    rest = memoryview(data)
    while rest:
        rest = rest[writing(file, lambda rest=rest: stream.write(rest)) or 0 :]  # type: ignore[misc]
