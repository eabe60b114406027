"""Random loudness: the whole clip is scaled to a loudness drawn anew for each copy."""

from __future__ import annotations

import random

from ser_scripts.audio.decode import Samples
from ser_scripts.audio.steps.level import to_loudness


class LoudnessNormalization:
    """Scales a clip to a loudness drawn uniformly from [min_lufs, max_lufs] (ITU-R BS.1770, as in preprocessing).

    Takes the arguments of the class of that name in audiomentations, which needs a package that this project does not
    install. Draws from `random`, which the Augmenter seeds for every clip.
    """

    def __init__(self, min_lufs: float = -31.0, max_lufs: float = -13.0):
        if not -70 <= min_lufs <= max_lufs <= 0:
            raise ValueError(f"-70 <= min_lufs <= max_lufs <= 0 must hold; they are {min_lufs:g} and {max_lufs:g}")
        self.min_lufs = min_lufs
        self.max_lufs = max_lufs

    def __call__(self, samples: Samples, sample_rate: int) -> Samples:
        """Scale a clip of shape (samples,)."""
        return to_loudness(samples, sample_rate, lufs=random.uniform(self.min_lufs, self.max_lufs))
