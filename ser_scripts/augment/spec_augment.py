"""SpecAugment on the features of a training clip: stretches of time and bands of frequency are masked."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ser_scripts.errors import BadInput
from ser_scripts.specs.augmentation import AugmentationSpec, SpecAugment


def spec_augment(features: NDArray[np.float32], spec: SpecAugment, *, stacked: int, seed: int) -> NDArray[np.float32]:
    """Mask the features of one clip (Park et al., SpecAugment, Interspeech 2019, doi:10.21437/Interspeech.2019-2680).

    A mask has a width drawn uniformly from 0..maximum, both included, and a first row (bin) drawn uniformly from where
    it fits. The maximum is never more than the clip has.

    Args:
        features: float32 (T, bins), time first; left as they are
        spec: how many masks, how wide, and what they are filled with
        stacked: frames that stand side by side in a row; a frequency mask covers the same bins of each of them
        seed: of all draws

    Returns:
        float32 (T, bins)
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    if generator.random() >= spec.probability:
        return features
    rows, width = features.shape
    bins = width // stacked
    fill = np.float32(features.mean(dtype=np.float64)) if spec.fill == "mean" else np.float32(0)
    masked = features.copy()
    frames = masked.reshape(rows, stacked, bins)
    widest = _widest(rows, spec.max_time_frames, spec.max_time_share)
    for _ in range(spec.num_time_masks):
        start, end = _draw(generator, rows, widest)
        frames[start:end] = fill
    widest = _widest(bins, spec.max_frequency_bins, spec.max_frequency_share)
    for _ in range(spec.num_frequency_masks):
        start, end = _draw(generator, bins, widest)
        frames[:, :, start:end] = fill
    return masked


def check_features(augmentation: AugmentationSpec, shape: tuple[int, ...], model: str) -> None:
    """Refuse SpecAugment on what is no spectrogram.

    Args:
        augmentation: with `features`
        shape: of the features of one clip
        model: name of the model, for the error

    Raises:
        BadInput: the model hears samples
    """
    if len(shape) == 2:
        return
    raise BadInput(
        f"augmentation '{augmentation.name}': features: spec_augment masks frames and bins of a spectrogram, and model "
        f"'{model}' hears samples. Encoders of the wav2vec 2.0 kind have a SpecAugment of their own, which their "
        "config.json sets (mask_time_prob, mask_feature_prob) and which works whenever they are trained; on samples "
        "use TimeMask (audiomentations) and FrequencyMask (ser_scripts.augment.frequency_mask)"
    )


def _widest(length: int, count: int | None, share: float | None) -> int:
    limits = [length]
    if count is not None:
        limits.append(count)
    if share is not None:
        limits.append(math.floor(share * length))
    return min(limits)


def _draw(generator: np.random.Generator, length: int, widest: int) -> tuple[int, int]:
    """First and last row (not included) of a mask."""
    width = int(generator.integers(0, widest, endpoint=True))
    start = int(generator.integers(0, length - width, endpoint=True))
    return start, start + width
