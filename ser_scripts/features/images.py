"""A clip as an image of mel energies: a length of its own or a fixed one, decibels or 0 to 1, any number of frames.

The energies are those of `features/mfcc.py` (torchaudio's numbers), on one thread whatever the machine.
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from ser_eval.run_folder import read_json, write_json
from ser_scripts.features import mfcc
from ser_scripts.specs.base import parse
from ser_scripts.specs.compact import FrameFeatures
from ser_scripts.specs.spectrogram import ImageFeatures

_TYPE = "ImageFeatures"

Array = NDArray[np.float32]


def image(clip: Array, spec: ImageFeatures) -> Array:
    """The image of one clip.

    Args:
        clip: mono at `spec.sample_rate_hz`, shape (samples,); with the length `variable` at least `min_samples(spec)`
        spec: with every number given (`ImageFeatures.completed`)

    Returns:
        float32 (frames, mels): time first, low frequencies first
    """
    if spec.length == "fixed":
        clip = fit_length(clip, spec.clip_samples)
    energies = mfcc.frame_features(clip, _frame_spec(spec))
    if spec.scaling == "unit":
        assert spec.top_db is not None
        energies = (energies - energies.max() + np.float32(spec.top_db)) / np.float32(spec.top_db)
    if spec.frames is not None and len(energies) != spec.frames:
        energies = (_interpolation(len(energies), spec.frames) @ energies.astype(np.float64)).astype(np.float32)
    return energies


def min_samples(spec: ImageFeatures) -> int:
    """The shortest clip that needs no zeros behind it."""
    return 1 if spec.length == "fixed" else spec.fft_samples // 2 + 1


def fit_length(clip: Array, samples: int) -> Array:
    """A clip of exactly so many samples.

    A longer one loses its end. A shorter one stands in the middle (the odd sample at its end) and is mirrored on both
    sides without repeating its first or last sample; a clip that is too short for one reflection is reflected again.

    Args:
        clip: shape (n,), n > 0
        samples: the length that is wanted

    Returns:
        shape (samples,)
    """
    missing = samples - len(clip)
    if missing <= 0:
        return clip[:samples]
    if len(clip) == 1:
        return np.repeat(clip, samples)
    period = 2 * (len(clip) - 1)
    places = (np.arange(samples) - missing // 2) % period
    return clip[np.where(places < len(clip), places, period - places)]


def _frame_spec(spec: ImageFeatures) -> FrameFeatures:
    assert spec.mels is not None
    assert spec.hop_samples is not None
    assert spec.max_hz is not None
    return FrameFeatures(
        kind="log_mel",
        sample_rate_hz=spec.sample_rate_hz,
        mels=spec.mels,
        window="hann",
        window_samples=spec.fft_samples,
        fft_samples=spec.fft_samples,
        hop_samples=spec.hop_samples,
        min_hz=spec.min_hz,
        max_hz=spec.max_hz,
        top_db=spec.top_db,
    )


@functools.cache
def _interpolation(inputs: int, outputs: int) -> scipy.sparse.csr_array:
    """Linear interpolation between frame centres, sparse (outputs, inputs); a wider triangle where frames become fewer.

    The weights of torch's `interpolate` with `bilinear`, `align_corners=False` and `antialias=True`.
    """
    scale = inputs / outputs
    reach = max(1.0, scale)
    centres = (np.arange(outputs) + 0.5) * scale - 0.5
    weights = np.maximum(0.0, 1 - np.abs(np.arange(inputs) - centres[:, None]) / reach)
    return scipy.sparse.csr_array(weights / weights.sum(axis=1, keepdims=True))


class ImageExtractor:
    """The images of a spectrogram CNN, saved as transformers saves its extractors."""

    def __init__(self, spec: ImageFeatures) -> None:
        """Keep a spec in which every number is given."""
        self.spec = spec

    @property
    def sampling_rate(self) -> int:
        """Of the clips, in Hz."""
        return self.spec.sample_rate_hz

    def __call__(self, clip: Array) -> Array:
        """The image of one clip, (frames, mels)."""
        return image(clip, self.spec)

    def save_pretrained(self, folder: str) -> None:
        """Write preprocessor_config.json."""
        write_json(Path(folder) / mfcc.FILE, {"feature_extractor_type": _TYPE, **self.spec.model_dump(mode="json")})

    @classmethod
    def from_pretrained(cls, folder: str) -> ImageExtractor:
        """Read what `save_pretrained` wrote.

        Raises:
            BadInput: not the file of such features
        """
        file = Path(folder) / mfcc.FILE
        content = read_json(file)
        content.pop("feature_extractor_type", None)
        return cls(parse(ImageFeatures, content, source=str(file), kind="features"))
