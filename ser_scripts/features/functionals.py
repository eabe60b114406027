"""One vector of numbers per clip: openSMILE's functionals, or statistics over MFCC frames; kept by content.

A cache lies in `<cache>/functionals/<extractor>-<key>/`. Its key is a hash of the extractor's settings and version;
within it a clip is found by the hash of its samples, as with embeddings. Vectors are kept in tables of up to
`TABLE_CLIPS`, whose file name is the hash of their content: a table is whole or absent, and `ser cache verify` tells.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import os
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
from filelock import FileLock
from numpy.typing import NDArray
from safetensors.numpy import load, save

from ser_scripts.audio.decode import Progress, in_order
from ser_scripts.errors import BadInput, Finding
from ser_scripts.features.embeddings import clip_key
from ser_scripts.features.mfcc import frame_features, min_samples
from ser_scripts.specs.base import digest
from ser_scripts.specs.classical import MfccFeatures, OpenSmileFeatures

KIND = "functionals"
TABLE_CLIPS = 1024
_FORMAT = 1
_WORTH_PROCESSES = 4096
"""Fewer clips give their MFCC statistics sooner than processes start."""
_SUFFIX = ".safetensors"
_FLOOR_DB = -100.0
_QUANTILES = {"median": 50.0, "q05": 5.0, "q25": 25.0, "q75": 75.0, "q95": 95.0}

Vector = NDArray[np.float64]
Features = OpenSmileFeatures | MfccFeatures


def check_installed(spec: Features) -> None:
    """Refuse features whose package is not installed.

    Raises:
        BadInput: naming the extra that brings it
    """
    if isinstance(spec, OpenSmileFeatures) and importlib.util.find_spec("opensmile") is None:
        raise BadInput(
            "features.kind 'opensmile' needs the package opensmile, which is not installed, since its licence allows "
            "no commercial use: .venv/bin/pip install -e '.[opensmile]', or take the features 'mfcc'"
        )


def identity(spec: Features) -> dict[str, Any]:
    """What the numbers depend on besides the samples: settings, and the version of what computes them.

    Raises:
        BadInput: its package is not installed
    """
    check_installed(spec)
    name: str
    if isinstance(spec, OpenSmileFeatures):
        made_by = {"opensmile": version("opensmile")}
        name = spec.feature_set
    else:
        made_by = {"numpy": version("numpy"), "scipy": version("scipy")}
        name = f"{spec.frames.kind}-statistics"
    return {"name": name, "settings": spec.model_dump(mode="json"), "made_by": made_by, "format": _FORMAT}


def sample_rate_hz(spec: Features) -> int:
    """Of the clips that the features are computed from."""
    return spec.sample_rate_hz if isinstance(spec, OpenSmileFeatures) else spec.frames.sample_rate_hz


def open_functionals(
    clips: Sequence[NDArray[np.float32]],
    names: Sequence[str],
    spec: Features,
    cache: Path,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Vectors of clips, (N, D); those that are not in the cache are computed and kept.

    Args:
        clips: samples (samples,) at `sample_rate_hz(spec)`, N of them
        names: what a message calls each clip
        spec: which numbers
        cache: folder of all caches
        workers: processes; one per core when None. The values do not depend on it.
        progress: called with (clips done, clips to do)

    Raises:
        BadInput: the package is not installed, the cache cannot be written, or a clip has no finite features
        Finding: a table is damaged
    """
    what = identity(spec)
    keys = [clip_key(clip) for clip in clips]
    place = cache.absolute() / KIND / f"{what['name']}-{digest(what)[:16]}"
    try:
        place.mkdir(parents=True, exist_ok=True)
        found = _read(place)
        if any(key not in found for key in keys):
            with FileLock(f"{place}.lock"):
                found = _read(place)  # another process may have computed them meanwhile
                missing = {key: number for number, key in enumerate(keys) if key not in found}
                for stale in place.glob("*.tmp"):
                    stale.unlink()
                items = [clips[number] for number in missing.values()]
                if isinstance(spec, MfccFeatures):
                    _check_lengths({names[number]: len(clips[number]) for number in missing.values()}, spec)
                compute = functools.partial(functionals, spec=spec)
                if isinstance(spec, MfccFeatures) and len(items) < _WORTH_PROCESSES:
                    workers = 1
                made: dict[str, Vector] = {}
                for key, vector in zip(
                    missing, in_order(compute, items, workers=workers, progress=progress), strict=True
                ):
                    if not np.isfinite(vector).all():
                        raise BadInput(
                            f"{names[missing[key]]}: {int((~np.isfinite(vector)).sum())} of the {len(vector)} features "
                            f"'{what['name']}' are no finite numbers; the clip may be too short for them: take it out "
                            "of the corpus, or choose other features"
                        )
                    made[key] = vector
                    if len(made) == TABLE_CLIPS:
                        _write(place, made)
                        made = {}
                if made:
                    _write(place, made)
                found = _read(place)
        os.utime(place)
    except OSError as error:
        raise BadInput(f"cannot write to the cache folder {place}: {error.strerror or error}") from None
    return np.stack([found[key] for key in keys])


def functionals(clip: NDArray[np.float32], spec: Features) -> Vector:
    """The vector of one clip, (D,); NaN where it is too short for openSMILE."""
    return _opensmile(clip, spec) if isinstance(spec, OpenSmileFeatures) else _statistics(clip, spec)


def verify(place: Path) -> list[Path]:
    """The tables of a cache whose content is not what was written."""
    return [file for file in sorted(place.glob(f"*{_SUFFIX}")) if not _is_whole(file, file.read_bytes())]


def _check_lengths(num_samples: dict[str, int], spec: MfccFeatures) -> None:
    least = min_samples(spec.frames)
    for name, length in num_samples.items():
        if length < least:
            raise BadInput(
                f"{name}: {length} samples are too few for features.frames.fft_samples ({spec.frames.fft_samples}), "
                f"which needs {least}; make it smaller, or take the clip out of the corpus"
            )


def _is_whole(file: Path, content: bytes) -> bool:
    return hashlib.sha256(content).hexdigest()[:32] == file.stem


def _read(place: Path) -> dict[str, Vector]:
    found: dict[str, Vector] = {}
    for file in sorted(place.glob(f"*{_SUFFIX}")):
        content = file.read_bytes()
        if not _is_whole(file, content):
            raise Finding(f"{file} is damaged; delete it (`ser cache verify --delete`), and it is made again")
        tensors = load(content)
        keys = [row.tobytes().hex() for row in tensors["keys"]]
        found.update(zip(keys, tensors["values"], strict=True))
    return found


def _write(place: Path, made: dict[str, Vector]) -> None:
    keys = np.stack([np.frombuffer(bytes.fromhex(key), dtype=np.uint8) for key in made])
    content = save({"keys": keys, "values": np.stack(list(made.values()))})
    target = place / (hashlib.sha256(content).hexdigest()[:32] + _SUFFIX)
    temporary = target.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, target)


@functools.cache
def _smile(feature_set: str) -> Any:
    opensmile: Any = importlib.import_module("opensmile")
    return opensmile.Smile(
        feature_set=getattr(opensmile.FeatureSet, feature_set),
        feature_level=opensmile.FeatureLevel.Functionals,
        num_workers=1,
    )


def _opensmile(clip: NDArray[np.float32], spec: OpenSmileFeatures) -> Vector:
    check_installed(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a clip is too short: its features are NaN, which is told
        table = _smile(spec.feature_set).process_signal(np.asarray(clip, dtype=np.float32), spec.sample_rate_hz)
    return np.asarray(table.to_numpy()[0], dtype=np.float64)


def _statistics(clip: NDArray[np.float32], spec: MfccFeatures) -> Vector:
    rows = [frame_features(clip, spec.frames).astype(np.float64)]
    if spec.loudness:
        rows.append(_level_db(clip, spec)[:, None])
    numbers = statistics(np.concatenate(rows, axis=1), spec.statistics)
    if spec.duration:
        numbers = np.append(numbers, np.log(len(clip) / spec.frames.sample_rate_hz))
    return numbers


def statistics(frames: Vector, names: Sequence[str]) -> Vector:
    """Statistics over time, (T, D) -> (len(names) x D,), all numbers of one statistic together.

    Skewness and excess kurtosis are those of the sample (biased); 0 for a number that does not change.
    """
    parts = []
    for name in names:
        if name in _QUANTILES:
            parts.append(np.percentile(frames, _QUANTILES[name], axis=0))
        elif name in ("skewness", "kurtosis"):
            spread = frames.std(axis=0)
            moves = spread > 1e-9 * (1 + np.abs(frames.mean(axis=0)))
            moment: Any = scipy.stats.skew if name == "skewness" else scipy.stats.kurtosis
            values = np.zeros(frames.shape[1])
            if moves.any():
                values[moves] = moment(frames[:, moves], axis=0)
            parts.append(values)
        else:
            parts.append(getattr(frames, name)(axis=0))
    return np.concatenate(parts)


def _level_db(clip: NDArray[np.float32], spec: MfccFeatures) -> Vector:
    """Root mean square of each frame in dB below full scale, (T,); frames as those of the MFCCs, -100 at the least."""
    half = spec.frames.fft_samples // 2
    padded = np.pad(np.asarray(clip, dtype=np.float64), half, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, spec.frames.fft_samples)[:: spec.frames.hop_samples]
    power = np.square(windows).mean(axis=1)
    return np.asarray(np.maximum(10 * np.log10(np.maximum(power, 1e-30)), _FLOOR_DB))
