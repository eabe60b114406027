"""Speed perturbation: a clip is played faster or slower, so that pitch and duration change together."""

from __future__ import annotations

import random

from ser_scripts.audio.decode import Samples


class SpeedPerturbation:
    """Resamples a clip as if it had been recorded at `factor` times its rate.

    The factor is drawn uniformly from [min_factor, max_factor]: at 1.1 a clip is 1/1.1 as long, and its pitch is 1.1
    times as high. Equal bounds give a fixed factor, e.g. .9 and 1.1 as two transforms of a union. Draws from `random`,
    which the Augmenter seeds for every clip.

    Source: Ko, Peddinti, Povey, Khudanpur: Audio augmentation for speech recognition, Interspeech 2015,
    doi:10.21437/Interspeech.2015-711.
    """

    def __init__(self, min_factor: float = 0.9, max_factor: float = 1.1):
        if not 0.1 <= min_factor <= max_factor <= 10:
            raise ValueError(
                f"0.1 <= min_factor <= max_factor <= 10 must hold; they are {min_factor:g} and {max_factor:g}"
            )
        self.min_factor = min_factor
        self.max_factor = max_factor

    def __call__(self, samples: Samples, sample_rate: int) -> Samples:
        """Resample a clip of shape (samples,); the length is divided by the factor, and at least 1."""
        import soxr

        factor = random.uniform(self.min_factor, self.max_factor)
        changed: Samples = soxr.resample(samples, sample_rate * factor, sample_rate)
        return changed if len(changed) else samples[:1]
