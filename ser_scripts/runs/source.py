"""Which code a run was made with, where there is no git: an image carries a record of its commit and its sources.

A container has no git, but the source tree may be mounted over that of the image. So the record holds a checksum of
the sources beside the commit: what was edited since shows as dirty instead of passing for the commit.
"""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path
from typing import Any

from ser_eval import run_folder
from ser_scripts.errors import BadInput

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("ser_scripts", "eval/ser_eval", "analysis/ser_analysis")
RECORD = Path(sys.prefix) / "share" / "sertain.json"
"""Where an image has it: in the environment, not in the source tree, which may be mounted from elsewhere."""


def source_sha256(root: Path = ROOT) -> str:
    """SHA-256 over paths and bytes of all files of the three packages, compiled ones left out."""
    total = hashlib.sha256()
    for room in ROOMS:
        for file in sorted((root / room).rglob("*"), key=lambda file: file.relative_to(root).as_posix()):
            relative = file.relative_to(root).as_posix()
            hidden = any(part.startswith(".") or part == "__pycache__" for part in Path(relative).parts)
            if hidden or not file.is_file():
                continue
            total.update(f"{relative}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def recorded_source(root: Path = ROOT, record: Path = RECORD) -> tuple[str | None, bool | None]:
    """Commit and whether the sources differ from it, by the record of an image.

    Args:
        root: folder of the source tree
        record: file of the record

    Returns:
        (None, None) where nobody wrote a record
    """
    if not record.is_file():
        return None, None
    content = run_folder.read_json(record)
    return content["commit"], bool(content["dirty"]) or content["source_sha256"] != source_sha256(root)


def write_source_record(file: Path, described: str, root: Path = ROOT) -> None:
    """Write the record of an image.

    Args:
        file: to write
        described: the commit's 40 hexadecimal digits, `-dirty` behind them when files differed from it; may be empty
        root: folder of the source tree

    Raises:
        BadInput: `described` is something else
    """
    if described and not re.fullmatch("[0-9a-f]{40}(-dirty)?", described):
        raise BadInput(
            f"COMMIT={described} is not valid; expected 40 hexadecimal digits, then '-dirty' if files differ "
            "(git describe --always --dirty --abbrev=40 --exclude '*')"
        )
    commit, _, dirty = described.partition("-")
    content: dict[str, Any] = {"commit": commit or None, "dirty": bool(dirty), "source_sha256": source_sha256(root)}
    file.parent.mkdir(parents=True, exist_ok=True)
    run_folder.write_json(file, content)


if __name__ == "__main__":
    write_source_record(Path(sys.argv[1]), sys.argv[2])
