"""What lies in the cache folder, whether it is whole, and making room: `ser cache ls|verify|prune`."""

from __future__ import annotations

import datetime
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ser_scripts.audio.store import ClipStore
from ser_scripts.errors import BadInput, Finding
from ser_scripts.features import embeddings, functionals
from ser_scripts.manifest import FAULTS

KINDS = (
    "clips", "embeddings", "fingerprints", "functionals", "huggingface", "inductor", "loudness", "manifests",
)  # fmt: skip
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class Entry:
    """One thing in the cache that is made anew when it is gone."""

    kind: str
    path: Path
    bytes: int
    used: float
    """Seconds since the epoch of its last use (of its last change, for a manifest)."""


def entries(cache: Path) -> list[Entry]:
    """Everything in the cache, least recently used first; what a killed process left half-made included."""
    found = []
    for kind in KINDS:
        for path in sorted((cache / kind).glob("*")):
            if path.suffix != ".lock":
                files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
                found.append(Entry(kind, path, sum(file.stat().st_size for file in files), path.stat().st_mtime))
    return sorted(found, key=lambda entry: (entry.used, str(entry.path)))


def list_cache(cache: Path) -> list[str]:
    """One line per entry, and the sum."""
    lines = []
    for entry in entries(cache):
        when = datetime.datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
        lines.append(f"{entry.bytes / 1e6:10.1f} MB  {when}  {entry.kind}/{entry.path.name}")
    total = sum(entry.bytes for entry in entries(cache))
    return [*lines, f"{total / 1e6:10.1f} MB in {cache}"]


def verify_cache(cache: Path, *, delete: bool) -> Iterator[str]:
    """Read everything and compare it with its checksums; a line for each entry.

    Args:
        cache: the cache folder
        delete: remove what is damaged; it is made anew when it is needed

    Raises:
        Finding: at the end, when something is damaged and was not deleted
    """
    damaged = 0
    for entry in entries(cache):
        bad = _damaged(entry)
        if not bad:
            yield f"whole    {entry.kind}/{entry.path.name}"
        for path in bad:
            damaged += 1
            yield f"{'deleted' if delete else 'DAMAGED'}  {path.relative_to(cache)}"
            if delete:
                _remove(path)
                if path.suffix == ".json" and entry.kind == "embeddings":
                    _remove(path.with_suffix(".bin"))
    if damaged and not delete:
        raise Finding(f"{damaged} damaged in {cache}; `ser cache verify --delete` removes them, and they are made anew")


def prune_cache(cache: Path, max_size: str) -> Iterator[str]:
    """Remove what was used least recently until the rest is no larger than `max_size`; a line for each.

    Args:
        cache: the cache folder
        max_size: bytes, or a number with K, M, G or T (powers of 1000)

    Raises:
        BadInput: not a size
    """
    limit = parse_size(max_size)
    total = sum(entry.bytes for entry in entries(cache))
    for entry in entries(cache):
        if total <= limit:
            break
        try:
            with FileLock(f"{entry.path}.lock", timeout=0):
                _remove(entry.path)
        except Timeout:
            yield f"in use   {entry.kind}/{entry.path.name}"
            continue
        total -= entry.bytes
        yield f"removed  {entry.kind}/{entry.path.name} ({entry.bytes / 1e6:.1f} MB)"
    yield f"{total / 1e6:.1f} MB are left in {cache}"


def parse_size(text: str) -> int:
    """Bytes of `500M`, `2.5G`, `1000`.

    Raises:
        BadInput: anything else
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)B?", text.strip().upper())
    if match is None:
        raise BadInput(f"--max-size {text}: expected bytes, or a number with K, M, G or T, e.g. 500M or 20G")
    return int(float(match[1]) * _UNITS[match[2]])


def _damaged(entry: Entry) -> list[Path]:
    """The damaged part of an entry: itself, or single shards."""
    if entry.path.suffix == ".partial":
        return [entry.path]
    if entry.kind == "embeddings":
        return embeddings.verify(entry.path)
    if entry.kind == functionals.KIND:
        return functionals.verify(entry.path)
    if entry.kind == "clips":
        try:
            ClipStore(entry.path).verify()
        except Finding:
            return [entry.path]
    if entry.kind == "huggingface":
        from ser_scripts.corpora.huggingface_corpus import is_whole  # pyarrow: import when needed

        return [] if is_whole(entry.path) else [entry.path]
    if entry.kind in ("fingerprints", "loudness", "manifests") and not entry.path.name.endswith(FAULTS):
        checksum, _, content = entry.path.read_bytes().partition(b"\n")
        return [] if hashlib.sha256(content).hexdigest().encode() == checksum else [entry.path]
    return []  # a list of faulty clips, or torch's


def _remove(path: Path) -> None:
    """Remove a file or folder; of a folder nothing is left under its name if this is killed halfway."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    if path.suffix != ".partial":
        path = path.rename(path.with_name(f"{path.name}.{os.getpid()}.partial"))
    shutil.rmtree(path)
