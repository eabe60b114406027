"""The four folders that the environment may name, and nothing else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Folders:
    """Where corpora, encoders, run folders and caches lie."""

    data: Path
    models: Path | None
    """A local mirror of encoders, laid out by hub id; None: only paths and the hub."""
    runs: Path
    cache: Path


def folders() -> Folders:
    """Read SER_DATA (default data/raw), SER_MODELS (default: none), SER_RUNS (runs) and SER_CACHE (.cache/sertain)."""
    models = os.environ.get("SER_MODELS")
    return Folders(
        data=Path(os.environ.get("SER_DATA") or "data/raw"),
        models=Path(models) if models else None,
        runs=Path(os.environ.get("SER_RUNS") or "runs"),
        cache=Path(os.environ.get("SER_CACHE") or ".cache/sertain"),
    )
