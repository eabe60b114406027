"""Clips decoded, mixed to mono, preprocessed and resampled once, into one memory-mapped file of float32 samples.

A store lies in `<cache>/clips/<corpus>-<key>/`: `samples.f32` and `index.json`. The key is a hash of the clips' paths
and samples, the preprocessing with the files that it names, the rate and the versions of what computes them, so that a
store is never stale.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from filelock import FileLock

from ser_eval.run_folder import write_json
from ser_scripts.audio import decode
from ser_scripts.audio.decode import Progress, Samples
from ser_scripts.audio.preprocess import (
    NoSpeech,
    apply_chain,
    chain_identity,
    has_events,
    longest_seconds,
    resolve_chain,
)
from ser_scripts.errors import BadInput, Finding
from ser_scripts.manifest import Manifest, audio_sha256, clip_name
from ser_scripts.specs.base import digest
from ser_scripts.specs.preprocess import PreprocessSpec

_FORMAT_VERSION = 3
_SAMPLES = "samples.f32"
_INDEX = "index.json"
_REFUSED = ".refused.json"
_BYTES = 4
COMMON_RATE_HZ = 16_000
"""The rate that most encoders hear."""
_SHOWN = 10
_SLACK_BYTES = 1 << 20
"""For the index, and for what a file system takes for itself."""


class ClipsRefused(BadInput):
    """Clips that a step of the preprocessing refuses; `reasons` has them by path."""

    def __init__(self, manifest: Manifest, reasons: dict[str, str]) -> None:
        self.reasons = reasons
        lines = [f"{manifest.root} holds {len(reasons)} clips of {manifest.corpus} that the preprocessing refuses:"]
        lines += [f"  {manifest.corpus}/{path}: {reason}" for path, reason in list(reasons.items())[:_SHOWN]]
        if len(reasons) > _SHOWN:
            lines.append(f"  ... and {len(reasons) - _SHOWN} more")
        lines.append(
            'List them under "allow_dropped" in the experiment '
            f'(as "{manifest.corpus}/{next(iter(reasons))}") to go on without them, or set "no_speech" to "keep".'
        )
        super().__init__("\n".join(lines))


class ClipStore:
    """Read-only samples of the clips of one corpus, opened from its folder; `store[path]` has shape (samples,).

    Pickling sends the folder only, so that workers map the same file.
    """

    def __init__(self, folder: Path) -> None:
        """Open a store.

        Raises:
            Finding: if it is damaged: index or samples are absent, of another length, or the index is altered
        """
        self.folder = folder
        try:
            content = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
            index: dict[str, Any] = content["index"]
            whole = digest(index) == content["sha256"]
            whole = whole and (folder / _SAMPLES).stat().st_size == index["num_samples"] * _BYTES
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise Finding(f"{folder} is damaged; delete it, and it is built again")
        self.rate_hz: int = index["rate_hz"]
        self.events: dict[str, list[str]] = index["events"]
        """What the preprocessing did to single clips (`vad: no_speech`), by path; clips without an event are absent."""
        self._samples_sha256: str = index["samples_sha256"]
        self._places: dict[str, tuple[int, int]] = {path: (start, end) for path, start, end in index["clips"]}
        # seen as a plain array: slicing a memmap object is slower, and the mapping stays read-only
        self._samples: Samples = np.memmap(folder / _SAMPLES, dtype="<f4", mode="r").view(np.ndarray)

    def __reduce__(self) -> tuple[type[ClipStore], tuple[Path]]:
        return ClipStore, (self.folder,)

    def __getitem__(self, path: str) -> Samples:
        start, end = self._places[path]
        return self._samples[start:end]

    def num_samples(self, path: str) -> int:
        """Length of a clip at the store's rate."""
        start, end = self._places[path]
        return end - start

    def event_counts(self, paths: Collection[str] | None = None) -> dict[str, int]:
        """Number of clips per event, sorted by event: of all clips, or of those given."""
        clips = self.events if paths is None else set(paths) & self.events.keys()
        return dict(sorted(Counter(event for path in clips for event in self.events[path]).items()))

    def verify(self) -> None:
        """Compare all samples with the checksum of when they were written.

        Raises:
            Finding: if they differ
        """
        with (self.folder / _SAMPLES).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != self._samples_sha256:
                raise Finding(f"{self.folder / _SAMPLES} has changed since it was written; delete {self.folder}")


def open_store(
    manifest: Manifest,
    rate_hz: int,
    chain: Sequence[PreprocessSpec],
    cache: Path,
    progress: Progress | None = None,
    *,
    workers: int | None = None,
    base: Path = Path(),
) -> ClipStore:
    """The clips of a corpus as a model hears them; built when they are not there yet, or damaged.

    Order of work per clip: decode, mean over channels, `chain` at the clip's own rate, resample. Of two processes that
    ask at once, one builds and the other waits. A store is whole or absent: it is built under another name.

    Args:
        manifest: which clips, and what their samples are
        rate_hz: the rate wanted
        chain: preprocessing steps, in order
        cache: folder of all caches
        progress: called with (clips done, clips in all) while the store is built
        workers: processes that decode; one per core when None. The result does not depend on it.
        base: folder that relative paths of the chain resolve against, before the working directory

    Raises:
        ClipsRefused: a step with `"no_speech": "refuse"` finds no speech in some clips; all of them are named
        BadInput: the disk is too small or not writable, or a file has changed since the manifest was built
    """
    folder = cache.absolute() / "clips" / f"{manifest.corpus}-{_key(manifest, rate_hz, chain, base)[:16]}"
    refused = folder.with_name(folder.name + _REFUSED)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if folder.is_dir():
                try:
                    return ClipStore(folder)
                except Finding:
                    shutil.rmtree(folder)
            if refused.is_file():  # so that the same clips are not gone through again to be refused again
                raise ClipsRefused(manifest, json.loads(refused.read_text(encoding="utf-8")))
            try:
                _build(folder, manifest, rate_hz, resolve_chain(chain, base), progress, workers)
            except ClipsRefused as error:
                write_json(refused, error.reasons)
                raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _too_small(folder.parent, manifest, rate_hz, chain) from None
        raise BadInput(f"cannot write to the cache folder {folder.parent}: {error.strerror or error}") from None
    return ClipStore(folder)


def without_refused(
    manifest: Manifest,
    chain: Sequence[PreprocessSpec],
    cache: Path,
    *,
    allowed: Collection[str],
    by_stem: bool,
    progress: Progress | None = None,
    base: Path = Path(),
) -> Manifest:
    """The manifest without the clips that the chain refuses; a chain that refuses none costs nothing.

    A chain with `"no_speech": "refuse"` has to hear every clip before a split is drawn. What is found is kept.

    Args:
        manifest: the corpus
        chain: preprocessing steps, in order
        cache: folder of all caches
        allowed: `allow_dropped` of the experiment; suffixes do not count
        by_stem: nor do folders, since no two clips of the corpus have one stem
        progress: called with (clips done, clips in all) while clips are heard
        base: folder that relative paths of the chain resolve against, before the working directory

    Raises:
        ClipsRefused: a clip is refused that `allowed` does not list
    """
    if not any(getattr(step, "no_speech", "keep") == "refuse" for step in chain):
        return manifest
    try:
        open_store(manifest, COMMON_RATE_HZ, chain, cache, progress, base=base)
    except ClipsRefused as refusal:
        prefix = f"{manifest.corpus}/"
        listed = {clip_name(entry.removeprefix(prefix), by_stem) for entry in allowed if entry.startswith(prefix)}
        lacking = {path: why for path, why in refusal.reasons.items() if clip_name(path, by_stem) not in listed}
        if lacking:
            raise ClipsRefused(manifest, lacking) from None
        gone = pd.DataFrame(sorted(refusal.reasons.items()), columns=["path", "reason"], dtype="str")
        clips = manifest.clips[~manifest.clips["path"].isin(gone["path"])].reset_index(drop=True)
        if clips.empty:
            raise BadInput(f"{manifest.root}: no clip of {manifest.corpus} is left, all are refused") from None
        dropped = pd.concat([manifest.dropped, gone]).sort_values("path", ignore_index=True)
        return replace(manifest, clips=clips, dropped=dropped)
    return manifest


def preprocessing_events(
    manifest: Manifest,
    chain: Sequence[PreprocessSpec],
    cache: Path,
    *,
    progress: Progress | None = None,
    base: Path = Path(),
) -> dict[str, int]:
    """Number of clips per event of a corpus; {} without work where no step of the chain can have an event.

    The clips are prepared at the rate of most encoders, so that training finds them prepared.
    """
    if not has_events(chain):
        return {}
    return open_store(manifest, COMMON_RATE_HZ, chain, cache, progress, base=base).event_counts()


def _build(
    folder: Path,
    manifest: Manifest,
    rate_hz: int,
    chain: Sequence[PreprocessSpec],
    progress: Progress | None,
    workers: int | None,
) -> None:
    partial_folder = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial_folder, ignore_errors=True)  # left by a process that was killed
    if shutil.disk_usage(folder.parent).free < _needed_bytes(manifest, rate_hz, chain):
        raise _too_small(folder.parent, manifest, rate_hz, chain)
    paths = list(manifest.clips["path"])
    items = list(zip(paths, manifest.clips["audio_sha256"], strict=True))
    prepare = partial(_prepare, manifest.corpus, manifest.root, rate_hz, tuple(chain))
    places: list[tuple[str, int, int]] = []
    events: dict[str, list[str]] = {}
    refused: dict[str, str] = {}
    written = hashlib.sha256()
    end = 0
    try:
        partial_folder.mkdir()
        with (partial_folder / _SAMPLES).open("wb") as stream:
            clips = decode.in_order(prepare, items, workers=workers, progress=progress)
            for path, clip in zip(paths, clips, strict=True):
                if isinstance(clip, str):
                    refused[path] = clip
                    continue
                samples, happened = clip
                if happened:
                    events[path] = list(happened)
                start, end = end, end + len(samples)
                places.append((path, start, end))
                data = samples.tobytes()
                stream.write(data)
                written.update(data)
        if refused:
            raise ClipsRefused(manifest, refused)
        index = {
            "format": _FORMAT_VERSION,
            "corpus": manifest.corpus,
            "manifest_sha256": manifest.sha256,
            "rate_hz": rate_hz,
            "chain": [step.model_dump(mode="json") for step in chain],
            "num_samples": end,
            "samples_sha256": written.hexdigest(),
            "clips": places,
            "events": events,
        }
        write_json(partial_folder / _INDEX, {"index": index, "sha256": digest(index)})
        partial_folder.rename(folder)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)


def _prepare(
    corpus: str, root: Path, rate_hz: int, chain: Sequence[PreprocessSpec], clip: tuple[str, str]
) -> tuple[npt.NDArray[np.float32], tuple[str, ...]] | str:
    """One clip as the store holds it, (samples,) little-endian float32, with its events; or why it is refused."""
    path, expected_sha256 = clip
    samples, native_hz = decode.read(root / path)
    if audio_sha256(samples) != expected_sha256:
        raise BadInput(f"{root / path} has changed since the corpus was read; start again")
    try:
        done = apply_chain(decode.to_mono(samples), native_hz, chain, clip_key=f"{corpus}/{path}")
    except NoSpeech as refusal:
        return str(refusal)
    except BadInput as error:
        raise BadInput(f"{root / path}: {error}") from None
    return decode.resample(done.samples, done.rate_hz, rate_hz).astype("<f4", copy=False), done.events


def _key(manifest: Manifest, rate_hz: int, chain: Sequence[PreprocessSpec], base: Path) -> str:
    return digest(
        {
            "format": _FORMAT_VERSION,
            "soxr": version("soxr"),
            "clips": sorted(
                zip(
                    *(
                        manifest.clips[name].astype(str)
                        for name in ("path", "audio_sha256", "sample_rate_hz", "num_channels")
                    ),
                    strict=True,
                )
            ),
            "chain": chain_identity(chain, base),
            "rate_hz": rate_hz,
        }
    )


def _needed_bytes(manifest: Manifest, rate_hz: int, chain: Sequence[PreprocessSpec]) -> int:
    seconds = sum(longest_seconds(float(one), chain) for one in manifest.clips["duration_seconds"])
    return int(_BYTES * rate_hz * seconds) + _SLACK_BYTES


def _too_small(folder: Path, manifest: Manifest, rate_hz: int, chain: Sequence[PreprocessSpec]) -> BadInput:
    free = shutil.disk_usage(folder).free
    return BadInput(
        f"{folder} has {free:,} bytes free; the clips of '{manifest.corpus}' at {rate_hz} Hz need "
        f"{_needed_bytes(manifest, rate_hz, chain):,}. Free some space, or name another cache folder in SER_CACHE."
    )
