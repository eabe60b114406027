"""Hidden states of frozen encoders, computed once per clip and kept by content.

A cache lies in `<cache>/embeddings/<encoder>-<key>/`. Its key is a hash of the encoder's weights and configuration, of
what is kept, and of the versions that compute it; within it a clip is found by the hash of the very samples that the
encoder hears, so that corpus names, paths, preprocessing and splits do not matter, and a clip that two experiments
share is embedded once. Clips are kept in shards of up to `SHARD_CLIPS`, never one file per clip. A shard is whole or
absent, so that a killed process loses one shard at most; one process embeds at a time, others wait and read what it
wrote.

On a CPU each clip goes through alone, on one thread: no padding is computed, and its values depend neither on the
number of workers nor on which clips were cached before. (Batches are slower there: they do not fit the processor's
cache.) On a GPU clips go in batches of like length, at most `BATCH_SECONDS` with their padding. Every encoder masks
padding, so that a clip's values are those that it has alone but for the last digits (tests: 1e-5).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from ser_eval.run_folder import write_text
from ser_scripts.audio.decode import Progress
from ser_scripts.errors import BadInput, Finding
from ser_scripts.specs.base import digest

SHARD_CLIPS = 256
BATCH_SECONDS = 240.0
"""Of one batch on a GPU, padding included."""
STATISTICS = ("mean", "std", "max")
_FORMAT = 2
_TYPES = {"pooled": "<f4", "frames": "<f2"}


@dataclass(frozen=True)
class Kept:
    """What is kept of each clip."""

    form: Literal["pooled", "frames"]
    """`pooled`: statistics over time of every hidden state, float32 (L, S, D). `frames`: the frames of the hidden
    states in `layers`, float16 (T, L, D)."""
    statistics: tuple[str, ...] = ("mean",)
    """With `pooled`: some of `STATISTICS`, in their order."""
    layers: tuple[int, ...] | None = None
    """Hidden states, 0 is the input of the first layer; all of them when None."""

    def content(self) -> dict[str, Any]:
        """What the cache's key says of it."""
        return {
            "form": self.form,
            "statistics": self.statistics if self.form == "pooled" else None,
            "layers": self.layers,
        }


class Embeddings:
    """Read-only, memory-mapped embeddings of clips, found by the hash of their samples."""

    def __init__(self, folder: Path) -> None:
        """Open every whole shard of a cache.

        Raises:
            Finding: an index is damaged, or a shard has another size than its index says
        """
        self.folder = folder
        self._places: dict[str, tuple[int, int, int]] = {}
        self._shards: list[NDArray[Any]] = []
        self.shape: tuple[int, ...] = ()
        """Of one clip: (L, S, D), or (L, D) per frame."""
        for index in sorted(folder.glob("*.json")):
            content = read_index(index)
            width = int(np.prod(content["shape"]))
            data = np.memmap(index.with_suffix(".bin"), dtype=content["dtype"], mode="r").view(np.ndarray)
            self.shape = tuple(content["shape"])
            for key, start, rows in content["clips"]:
                self._places[key] = (len(self._shards), start, rows)
            self._shards.append(data.reshape(-1, width))

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __getitem__(self, key: str) -> NDArray[Any]:
        """Pooled: (L, S, D) float32. Frames: (T, L, D) float16. `key` is what `clip_key` gives."""
        shard, start, rows = self._places[key]
        found = self._shards[shard][start : start + rows]
        return found[0].reshape(self.shape) if rows == 1 and len(self.shape) == 3 else found.reshape(rows, *self.shape)

    def table(self, keys: Sequence[str]) -> NDArray[np.float32]:
        """Pooled embeddings of clips in the order given, (N, L, S, D) float32, in memory."""
        out = np.empty((len(keys), *self.shape), dtype=np.float32)
        for row, key in zip(out, keys, strict=True):
            row[...] = self[key]
        return out


def clip_key(samples: NDArray[np.float32]) -> str:
    """SHA-256 of what an encoder hears: mono float32 samples, little-endian."""
    return hashlib.sha256(np.ascontiguousarray(samples, dtype="<f4").data).hexdigest()


def open_embeddings(
    clips: Sequence[NDArray[np.float32]],
    keys: Sequence[str],
    identity: dict[str, Any],
    kept: Kept,
    cache: Path,
    build: Callable[[], Any],
    *,
    device: str = "cpu",
    workers: int | None = None,
    progress: Progress | None = None,
    report: Callable[[str], None] = lambda text: None,
) -> Embeddings:
    """Embeddings of all the clips; those that are not in the cache are computed and kept.

    Args:
        clips: samples (samples,) at the encoder's rate, N of them; read only where they are missing
        keys: `clip_key` of each
        identity: what the values depend on besides the samples: the encoder's `identity()`, configuration, weight type
        kept: what is kept
        cache: folder of all caches
        build: makes the encoder (eval mode); called only when something is missing
        device: where the encoder runs
        workers: threads on a CPU; one per core when None. The values do not depend on it.
        progress: called with (clips done, clips to do)
        report: told when batches on a GPU are halved, since one does not fit into memory

    Raises:
        BadInput: the cache cannot be written
        Finding: a shard is damaged, or a single clip does not fit into memory
    """
    place = folder_of(cache, identity, kept, device)
    try:
        place.mkdir(parents=True, exist_ok=True)
        found = Embeddings(place)
        if any(key not in found for key in keys):
            with FileLock(f"{place}.lock"):
                found = Embeddings(place)  # another process may have embedded them meanwhile
                missing = {key: number for number, key in enumerate(keys) if key not in found}
                if missing:
                    for stale in place.glob("*.tmp"):
                        stale.unlink()
                    _embed(place, clips, missing, identity, kept, build(), device, workers, progress, report)
                    found = Embeddings(place)
        os.utime(place)
    except OSError as error:
        raise BadInput(f"cannot write to the cache folder {place}: {error.strerror or error}") from None
    return found


def folder_of(cache: Path, identity: dict[str, Any], kept: Kept, device: str) -> Path:
    """Where the embeddings of an encoder lie."""
    made_by: dict[str, Any] = {
        "format": _FORMAT,
        "torch": version("torch"),
        "transformers": version("transformers"),
        "device": device,
        "encoder": identity,
        "kept": kept.content(),
    }
    if device != "cpu":
        made_by["batches"] = {"seconds": BATCH_SECONDS}
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", str(identity["name"]))[-60:].strip("-.")
    return cache.absolute() / "embeddings" / f"{name}-{kept.form}-{digest(made_by)[:16]}"


def read_index(file: Path) -> dict[str, Any]:
    """The index of a shard, checked against its own checksum and the shard's size.

    Raises:
        Finding: it is damaged
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        index: dict[str, Any] = content["index"]
        whole = digest(index) == content["sha256"]
        whole = whole and file.with_suffix(".bin").stat().st_size == index["bytes"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        raise Finding(f"{file} is damaged; delete it and its .bin (`ser cache verify --delete`), and it is built again")
    return index


def verify(folder: Path) -> list[Path]:
    """The shards of a cache whose content is not what was written, by their index file."""
    bad = []
    for file in sorted(folder.glob("*.json")):
        try:
            index = read_index(file)
            with file.with_suffix(".bin").open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != index["bin_sha256"]:
                    bad.append(file)
        except Finding:
            bad.append(file)
    return bad


def _embed(
    place: Path,
    clips: Sequence[NDArray[np.float32]],
    missing: dict[str, int],
    identity: dict[str, Any],
    kept: Kept,
    encoder: Any,
    device: str,
    workers: int | None,
    progress: Progress | None,
    report: Callable[[str], None],
) -> None:
    # longest first: memory shows its worst at once, and threads end together
    order = sorted(missing.items(), key=lambda item: (-len(clips[item[1]]), item[0]))
    done = 0
    results = _run(encoder, [clips[number] for _, number in order], kept, device, workers, report)
    names = iter(key for key, _ in order)
    while shard := list(zip(islice(names, SHARD_CLIPS), results, strict=False)):
        _write_shard(place, shard, kept)
        done += len(shard)
        if progress is not None:
            progress(done, len(order))


def _run(
    encoder: Any,
    clips: Sequence[NDArray[np.float32]],
    kept: Kept,
    device: str,
    workers: int | None,
    report: Callable[[str], None],
) -> Iterator[NDArray[Any]]:
    """Values of each clip, in the order given (longest first)."""
    import torch

    encoder.eval().to(device)
    if device != "cpu":
        yield from _batchwise(encoder, clips, int(BATCH_SECONDS * encoder.sample_rate_hz), kept, device, report)
        return
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            rest = iter(clips)
            while portion := list(islice(rest, SHARD_CLIPS)):
                yield from pool.map(lambda clip: _one(encoder, clip, kept, device), portion)
    finally:
        torch.set_num_threads(threads)


def batches(lengths: Sequence[int], limit: int) -> list[range]:
    """Batches of clips in the order given, longest first: as many as `limit` samples hold, each as long as the first.

    Args:
        lengths: samples of each clip, falling
        limit: samples of one batch with its padding; a longer clip is a batch of its own
    """
    out, start = [], 0
    while start < len(lengths):
        end = min(len(lengths), start + max(1, limit // max(1, lengths[start])))
        out.append(range(start, end))
        start = end
    return out


def _one(encoder: Any, clip: NDArray[np.float32], kept: Kept, device: str) -> NDArray[Any]:
    return _several(encoder, [clip], kept, device)[0]


def _batchwise(
    encoder: Any,
    clips: Sequence[NDArray[np.float32]],
    limit: int,
    kept: Kept,
    device: str,
    report: Callable[[str], None],
) -> Iterator[NDArray[Any]]:
    """Values of each clip, heard in batches of `limit` samples; after one that does not fit into memory, of fewer."""
    from ser_scripts.training.memory import half, is_out_of_memory

    rate_hz = encoder.sample_rate_hz
    for batch in batches([len(clip) for clip in clips], limit):
        part = clips[batch.start : batch.stop]
        try:
            yield from _several(encoder, part, kept, device)
            continue
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        seconds = len(part[0]) / rate_hz
        single = f"a clip of {seconds:.1f} s does not fit into the memory of '{device}'; use --device cpu"
        now = half(len(part), single) * len(part[0])
        report(
            f"out of memory: {len(part)} clips of up to {seconds:.1f} s at once do not fit in embedding; from here on "
            f"{now / rate_hz:.1f} s of sound at once"
        )
        yield from _batchwise(encoder, clips[batch.start :], now, kept, device, report)
        return


def _several(encoder: Any, clips: Sequence[NDArray[np.float32]], kept: Kept, device: str) -> list[NDArray[Any]]:
    """Values of each clip of a batch; statistics are those of its own frames."""
    import torch

    with torch.inference_mode():
        inputs = encoder.collate([encoder.features(clip) for clip in clips])
        depth = None if kept.layers is None else max(kept.layers)
        states, mask = encoder(inputs["inputs"].to(device), inputs["lengths"].to(device), depth)
        wanted = range(len(states)) if kept.layers is None else kept.layers
        return [
            _values(torch.stack([states[layer][row, :frames].float() for layer in wanted]), kept)
            for row, frames in enumerate(mask.sum(dim=1).tolist())
        ]


def _values(states: Any, kept: Kept) -> NDArray[Any]:
    """What is kept of one clip's hidden states, (L, T, D)."""
    import torch

    if kept.form == "frames":
        out: NDArray[np.float32] = states.transpose(0, 1).cpu().numpy()
        if not np.abs(out).max(initial=0.0) < np.finfo(np.float16).max:
            raise BadInput("a hidden state is beyond the range of float16; keep pooled statistics instead")
        return out.astype("<f2")
    parts = {"mean": states.mean(dim=1), "max": states.amax(dim=1)}
    if "std" in kept.statistics:
        parts["std"] = states.std(dim=1, correction=0)
    pooled: NDArray[np.float32] = torch.stack([parts[name] for name in kept.statistics], dim=1).cpu().numpy()
    return pooled.astype("<f4")[None]


def _write_shard(place: Path, shard: Sequence[tuple[str, NDArray[Any]]], kept: Kept) -> None:
    name = hashlib.sha256("".join(key for key, _ in shard).encode()).hexdigest()[:16]
    temporary = place / f"{name}.bin.tmp"
    written, places, start = hashlib.sha256(), [], 0
    with temporary.open("wb") as stream:
        for key, values in shard:
            data = values.tobytes()
            stream.write(data)
            written.update(data)
            places.append([key, start, len(values)])
            start += len(values)
        stream.flush()
        os.fsync(stream.fileno())
    size = temporary.stat().st_size
    os.replace(temporary, place / f"{name}.bin")
    index = {
        "bytes": size,
        "bin_sha256": written.hexdigest(),
        "dtype": _TYPES[kept.form],
        "shape": list(shard[0][1].shape[1:]),
        "clips": places,
    }
    write_text(place / f"{name}.json", json.dumps({"index": index, "sha256": digest(index)}))  # last: it makes it whole
