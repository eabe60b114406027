"""Prepare a large corpus, and fail when it takes too much memory: `make bench-prepare`, or with other numbers

    python benchmarks/prepare_memory.py --clips 20000 --limit-gib 1

Writes that many short WAV files of different content into a temporary folder, builds their manifest and their clip
store as training does, searches as many fingerprints of 2.5 s for copies, and prints seconds and peak memory: of this
process, and with one largest worker per core added.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np

import ser_scripts  # noqa: F401  installs the torchaudio guard
from ser_scripts.audio.fingerprint import Fingerprint, near_duplicates
from ser_scripts.audio.store import open_store
from ser_scripts.manifest import Manifest, build_manifest
from ser_scripts.specs.corpora import CsvCorpus

RATE_HZ = 8000
SECONDS = 0.12
LABELS = ("angry", "happy", "neutral", "sad")
FOLDER_SIZE = 1000
NUM_WORDS = 122


def write_clips(folder: Path, number: int) -> Path:
    """`number` WAV files of 8 bits and their CSV, all speakers with all labels."""
    random = np.random.default_rng(0)
    rows = ["path,class_id,actor,gender"]
    for n in range(number):
        file = folder / f"{n // FOLDER_SIZE:04d}" / f"{n:07d}.wav"
        if n % FOLDER_SIZE == 0:
            file.parent.mkdir(parents=True)
        with wave.open(str(file), "wb") as stream:
            stream.setnchannels(1)
            stream.setsampwidth(1)
            stream.setframerate(RATE_HZ)
            stream.writeframes(random.integers(64, 192, round(SECONDS * RATE_HZ), dtype=np.uint8).tobytes())
        speaker = n // len(LABELS) % 500
        rows.append(
            f"{file.relative_to(folder)},{LABELS[n % len(LABELS)]},s{speaker},{('female', 'male')[speaker % 2]}"
        )
    (folder / "clips.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "clips.csv"


def random_prints(number: int) -> list[Fingerprint]:
    """Fingerprints as of clips of 2.5 s; the clips above are too short to have one."""
    random = np.random.default_rng(0)
    return [
        Fingerprint(random.integers(0, 2**32, NUM_WORDS, dtype=np.uint32), np.ones(NUM_WORDS, np.bool_))
        for _ in range(number)
    ]


def peak_gib() -> tuple[float, float]:
    """Peak resident memory of this process, and of it with a largest worker for each core (at most: the system counts
    what a worker shares with this process before it starts)."""
    own, worker = (
        resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**30
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return own, own + cores * worker


def main() -> int:
    """Run the steps and print a line for each; 1 when the limit is passed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--limit-gib", type=float, default=2.0)
    given = parser.parse_args()

    def step(name: str, function: Callable[[], object]) -> object:
        started, used = time.monotonic(), os.times()
        result = function()
        now = os.times()
        cpu = sum(after - before for after, before in zip(now[:4], used[:4], strict=True))
        own, everything = peak_gib()
        print(
            f"{name}: {time.monotonic() - started:.1f} s, {cpu:.1f} s of CPU; "
            f"peak so far {own:.2f} GiB, with workers {everything:.2f} GiB",
            flush=True,
        )
        return result

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        csv = step(f"writing {given.clips} clips", lambda: write_clips(folder / "clips", given.clips))
        spec = CsvCorpus(kind="csv", name="many", path=str(csv))

        def manifest() -> Manifest:
            return build_manifest(spec, data=folder, cache=folder / "cache", base=folder)

        step("manifest", manifest)
        table = step("manifest, again", manifest)
        assert isinstance(table, Manifest)
        step("checksum of the manifest", lambda: table.sha256)
        step("store at 16 kHz", lambda: open_store(table, 16_000, (), folder / "cache"))
        step("store, again", lambda: open_store(table, 16_000, (), folder / "cache"))
        preparing = peak_gib()[1]
        step("search for copies (no workers)", lambda: near_duplicates(random_prints(given.clips)))
    if max(preparing, peak_gib()[0]) > given.limit_gib:
        print(f"more than {given.limit_gib} GiB", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
