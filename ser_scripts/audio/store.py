"""Clips decoded, mixed to mono, preprocessed and resampled once, into one memory-mapped file of float32 samples.

A store lies in `<cache>/clips/<corpus>-<key>/`: `samples.f32` and `index.json`. The key is a hash of the clips' paths
and samples, the preprocessing, the rate and the versions of what computes them, so that a store is never stale.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from ser_eval.run_folder import write_json
from ser_scripts.audio import decode
from ser_scripts.audio.decode import Progress, Samples
from ser_scripts.audio.preprocess import apply_chain
from ser_scripts.errors import BadInput, Finding
from ser_scripts.manifest import Manifest, audio_sha256
from ser_scripts.specs.base import digest
from ser_scripts.specs.preprocess import PreprocessSpec

_FORMAT_VERSION = 2
_SAMPLES = "samples.f32"
_INDEX = "index.json"
_BYTES = 4
_SLACK_BYTES = 1 << 20
"""For the index, and for what a file system takes for itself."""


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

    Raises:
        BadInput: the disk is too small or not writable, or a file has changed since the manifest was built
    """
    folder = cache.absolute() / "clips" / f"{manifest.corpus}-{_key(manifest, rate_hz, chain)[:16]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if folder.is_dir():
                try:
                    return ClipStore(folder)
                except Finding:
                    shutil.rmtree(folder)
            _build(folder, manifest, rate_hz, chain, progress, workers)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _too_small(folder.parent, manifest, rate_hz) from None
        raise BadInput(f"cannot write to the cache folder {folder.parent}: {error.strerror or error}") from None
    return ClipStore(folder)


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
    if shutil.disk_usage(folder.parent).free < _needed_bytes(manifest, rate_hz):
        raise _too_small(folder.parent, manifest, rate_hz)
    paths = list(manifest.clips["path"])
    items = list(zip(paths, manifest.clips["audio_sha256"], strict=True))
    prepare = partial(_prepare, manifest.root, rate_hz, tuple(chain))
    places: list[tuple[str, int, int]] = []
    written = hashlib.sha256()
    end = 0
    try:
        partial_folder.mkdir()
        with (partial_folder / _SAMPLES).open("wb") as stream:
            clips = decode.in_order(prepare, items, workers=workers, progress=progress)
            for path, samples in zip(paths, clips, strict=True):
                start, end = end, end + len(samples)
                places.append((path, start, end))
                data = samples.tobytes()
                stream.write(data)
                written.update(data)
        index = {
            "format": _FORMAT_VERSION,
            "corpus": manifest.corpus,
            "manifest_sha256": manifest.sha256,
            "rate_hz": rate_hz,
            "chain": [step.model_dump(mode="json") for step in chain],
            "num_samples": end,
            "samples_sha256": written.hexdigest(),
            "clips": places,
        }
        write_json(partial_folder / _INDEX, {"index": index, "sha256": digest(index)})
        partial_folder.rename(folder)
    finally:
        shutil.rmtree(partial_folder, ignore_errors=True)


def _prepare(
    root: Path, rate_hz: int, chain: Sequence[PreprocessSpec], clip: tuple[str, str]
) -> npt.NDArray[np.float32]:
    """One clip as the store holds it: (samples,), little-endian float32."""
    path, expected_sha256 = clip
    samples, native_hz = decode.read(root / path)
    if audio_sha256(samples) != expected_sha256:
        raise BadInput(f"{root / path} has changed since the corpus was read; start again")
    try:
        mono = apply_chain(decode.to_mono(samples), native_hz, chain)
    except BadInput as error:
        raise BadInput(f"{root / path}: {error}") from None
    return decode.resample(mono, native_hz, rate_hz).astype("<f4", copy=False)


def _key(manifest: Manifest, rate_hz: int, chain: Sequence[PreprocessSpec]) -> str:
    return digest(
        {
            "format": _FORMAT_VERSION,
            "soxr": version("soxr"),
            "pyloudnorm": version("pyloudnorm") if chain else None,
            "clips": sorted(
                zip(
                    *(
                        manifest.clips[name].astype(str)
                        for name in ("path", "audio_sha256", "sample_rate_hz", "num_channels")
                    ),
                    strict=True,
                )
            ),
            "chain": [step.model_dump(mode="json") for step in chain],
            "rate_hz": rate_hz,
        }
    )


def _needed_bytes(manifest: Manifest, rate_hz: int) -> int:
    return int(_BYTES * rate_hz * manifest.clips["duration_seconds"].sum()) + _SLACK_BYTES


def _too_small(folder: Path, manifest: Manifest, rate_hz: int) -> BadInput:
    free = shutil.disk_usage(folder).free
    return BadInput(
        f"{folder} has {free:,} bytes free; the clips of '{manifest.corpus}' at {rate_hz} Hz need "
        f"{_needed_bytes(manifest, rate_hz):,}. Free some space, or name another cache folder in SER_CACHE."
    )
