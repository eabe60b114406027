"""Frequency masking of waveforms: bands of the short-time spectrum are set to zero."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

WINDOW_SECONDS = 0.025


class FrequencyMask:
    """Silences bands of frequencies over the whole clip (frequency masking of SpecAugment, applied to the waveform).

    Each band has a width drawn uniformly from [min_width_hz, max_width_hz] and a lower edge drawn uniformly from where
    the band fits below half the sample rate. Short-time Fourier transform with a Hann window of 25 ms and a hop of a
    quarter of it. Draws from `random`, which the Augmenter seeds for every clip.

    Source: Park et al., SpecAugment, Interspeech 2019, doi:10.21437/Interspeech.2019-2680.
    """

    def __init__(self, num_bands: int = 1, min_width_hz: float = 0.0, max_width_hz: float = 3200.0):
        if num_bands < 1:
            raise ValueError(f"num_bands is {num_bands}; it must be 1 or more")
        if not 0 <= min_width_hz <= max_width_hz:
            raise ValueError(
                f"0 <= min_width_hz <= max_width_hz must hold; they are {min_width_hz:g} and {max_width_hz:g}"
            )
        self.num_bands = num_bands
        self.min_width_hz = min_width_hz
        self.max_width_hz = max_width_hz

    def __call__(self, samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float32]:
        """Mask a clip of shape (samples,); the length stays.

        Raises:
            ValueError: a band could be wider than the spectrum
        """
        from scipy.signal import istft, stft

        if self.max_width_hz > sample_rate / 2:
            raise ValueError(
                f"max_width_hz is {self.max_width_hz:g}, more than half the sample rate of {sample_rate} Hz"
            )
        window = 4 * round(WINDOW_SECONDS * sample_rate / 4)
        padded = np.pad(samples, (0, max(0, window - len(samples))))
        frequencies_hz, _, spectrum = stft(padded, fs=sample_rate, nperseg=window, noverlap=window * 3 // 4)  # (F, T)
        for _ in range(self.num_bands):
            width_hz = random.uniform(self.min_width_hz, self.max_width_hz)
            low_hz = random.uniform(0, sample_rate / 2 - width_hz)
            spectrum[(frequencies_hz >= low_hz) & (frequencies_hz < low_hz + width_hz)] = 0
        _, masked = istft(spectrum, fs=sample_rate, nperseg=window, noverlap=window * 3 // 4)
        return np.asarray(masked[: len(samples)], dtype=np.float32)
