"""Noise of a colour at a signal-to-noise ratio, made as in the preprocessing step `noise`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import get_args

import numpy as np

from ser_scripts.audio.decode import Samples
from ser_scripts.audio.steps.conditions import Colour, add_noise, coloured_noise


class ColouredNoise:
    """Adds Gaussian noise: white, pink (-3 dB per octave), brown (-6 dB per octave) or with the spectrum of speech.

    The colour is drawn from `colours`, and the ratio of the clip's power to that of the noise, both over the whole
    clip, uniformly from [min_snr_db, max_snr_db]. Draws from `random`, which the Augmenter seeds for every clip.
    """

    def __init__(self, min_snr_db: float = 5.0, max_snr_db: float = 20.0, colours: Sequence[Colour] = ("white",)):
        if not -40 <= min_snr_db <= max_snr_db <= 80:
            raise ValueError(
                f"-40 <= min_snr_db <= max_snr_db <= 80 must hold; they are {min_snr_db:g} and {max_snr_db:g}"
            )
        if isinstance(colours, str) or not colours or not set(colours) <= set(get_args(Colour)):
            raise ValueError(f"colours is {colours!r}; it must be a list of {', '.join(get_args(Colour))}")
        self.snr_db = min_snr_db, max_snr_db
        self.colours = tuple(colours)

    def __call__(self, samples: Samples, sample_rate: int) -> Samples:
        """Add noise to a clip of shape (samples,) that is not silent."""
        snr_db, colour = random.uniform(*self.snr_db), random.choice(self.colours)
        generator = np.random.Generator(np.random.PCG64(random.getrandbits(64)))
        return add_noise(
            samples, coloured_noise(len(samples), sample_rate, colour=colour, random=generator), snr_db=snr_db
        )
