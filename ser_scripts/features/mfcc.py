"""MFCCs and log-mel energies of a clip, with the numbers of torchaudio's transforms, in numpy and scipy.

In this order: power spectrogram of windowed frames, whose centres lie at multiples of the hop and which see the clip
mirrored beyond its ends (`center`, `reflect`); triangular mel bands, on the HTK scale and not normalised; decibels, at
least -100 and at most `top_db` below the loudest of the clip; for MFCCs an orthonormal cosine transform. Everything
runs on one thread whatever the machine, so that no bit depends on it.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import scipy.signal
import scipy.sparse
from numpy.typing import NDArray

from ser_eval.run_folder import read_json, write_json
from ser_scripts.specs.base import parse
from ser_scripts.specs.compact import FrameFeatures

FILE = "preprocessor_config.json"
_TYPE = "FrameFeatures"
_FLOOR = 1e-10
_DELTA_REACH = 2
"""A slope is fitted over this many frames before and behind."""

Array = NDArray[np.float32]


def frame_features(clip: Array, spec: FrameFeatures) -> Array:
    """The features of one clip.

    Args:
        clip: mono at `spec.sample_rate_hz`, shape (samples,), at least `min_samples(spec)` long
        spec: what to compute

    Returns:
        float32 (1 + samples // hop_samples, spec.size)
    """
    decibels = _log_mel(np.asarray(clip, dtype=np.float64), spec)
    if spec.kind == "mfcc":
        decibels = scipy.fft.dct(decibels, type=2, norm="ortho", axis=1)[:, : spec.coefficients]
    rows = [decibels]
    for _ in range(spec.deltas):
        rows.append(slopes(rows[-1]))
    features = np.concatenate(rows, axis=1)
    if spec.normalise != "none":
        features -= features.mean(axis=0)
    if spec.normalise == "mean_variance":
        features /= np.maximum(features.std(axis=0), 1e-5)  # a number that never changes stays 0
    return features.astype(np.float32)


def min_samples(spec: FrameFeatures) -> int:
    """The shortest clip that can be mirrored at its ends."""
    return spec.fft_samples // 2 + 1


def slopes(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Slope of a line fitted over five frames, the first and last frame repeated beyond the ends: (T, D) -> (T, D)."""
    reach = np.arange(1, _DELTA_REACH + 1)
    padded = np.pad(rows, ((_DELTA_REACH, _DELTA_REACH), (0, 0)), mode="edge")
    count = len(rows)
    total = np.zeros_like(rows)
    for step in reach:
        later, earlier = padded[_DELTA_REACH + step :][:count], padded[_DELTA_REACH - step :][:count]
        total += step * (later - earlier)
    return total / (2 * float(np.square(reach).sum()))


def _log_mel(clip: NDArray[np.float64], spec: FrameFeatures) -> NDArray[np.float64]:
    """Mel energies in dB, (T, mels)."""
    half = spec.fft_samples // 2
    padded = np.pad(clip, half, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, spec.fft_samples)[:: spec.hop_samples]
    spectrum = scipy.fft.rfft(frames * _window(spec), axis=1)
    power = np.square(spectrum.real) + np.square(spectrum.imag)
    bands = (_filters(spec) @ power.T).T  # sparse: five times faster, and without the threads of BLAS
    decibels: NDArray[np.float64] = 10 * np.log10(np.maximum(bands, _FLOOR))
    if spec.top_db is not None:
        decibels = np.maximum(decibels, decibels.max() - spec.top_db)
    return decibels


@functools.cache
def _window(spec: FrameFeatures) -> NDArray[np.float64]:
    """The window in the middle of the transform's length."""
    window = scipy.signal.get_window(spec.window, spec.window_samples, fftbins=True)
    left = (spec.fft_samples - spec.window_samples) // 2
    return np.pad(window, (left, spec.fft_samples - spec.window_samples - left))


@functools.cache
def _filters(spec: FrameFeatures) -> Any:
    """Triangles between points that lie evenly on the HTK mel scale, sparse (mels, bins)."""
    edges = np.linspace(_mel(spec.min_hz), _mel(spec.max_hz), spec.mels + 2)
    points_hz = 700 * (10 ** (edges / 2595) - 1)
    bins_hz = np.linspace(0, spec.sample_rate_hz // 2, spec.fft_samples // 2 + 1)
    widths = np.diff(points_hz)
    distances = points_hz[:, None] - bins_hz  # (mels + 2, bins)
    rising, falling = -distances[:-2] / widths[:-1, None], distances[2:] / widths[1:, None]
    return scipy.sparse.csr_array(np.maximum(0, np.minimum(rising, falling)))


def _mel(frequency_hz: float) -> float:
    return 2595 * float(np.log10(1 + frequency_hz / 700))


class FrameExtractor:
    """The features of a compact model, saved as transformers saves its extractors."""

    def __init__(self, spec: FrameFeatures) -> None:
        self.spec = spec

    @property
    def sampling_rate(self) -> int:
        """Of the clips, in Hz."""
        return self.spec.sample_rate_hz

    def __call__(self, clip: Array) -> Array:
        """Features of one clip, (T, D)."""
        return frame_features(clip, self.spec)

    def save_pretrained(self, folder: str) -> None:
        """Write preprocessor_config.json."""
        write_json(Path(folder) / FILE, {"feature_extractor_type": _TYPE, **self.spec.model_dump(mode="json")})

    @classmethod
    def from_pretrained(cls, folder: str) -> FrameExtractor:
        """Read what `save_pretrained` wrote.

        Raises:
            BadInput: not the file of such features
        """
        file = Path(folder) / FILE
        content = read_json(file)
        content.pop("feature_extractor_type", None)
        return cls(parse(FrameFeatures, content, source=str(file), kind="features"))
