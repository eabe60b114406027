"""What a clip's samples tell about how it was recorded: pure functions on float32 arrays."""

from __future__ import annotations

import numpy as np
import scipy.fft

from ser_scripts.audio.decode import Samples

CLIPPED_FROM = 0.9
"""Of full scale (-0.9 dB): an extreme below it may be a flat top all the same, but is no clipping at full scale."""
CLIPPED_RUN = 3
SILENCE_FRAME_SECONDS = 0.01
SILENCE_BELOW_LOUDEST_DB = 30.0
SILENCE_FLOOR_DBFS = -70.0
SPECTRUM_SECONDS = 0.03
BANDWIDTH_BELOW_MAXIMUM_DB = 50.0

_BLOCK_FRAMES = 2048


def clipped_share(samples: Samples) -> float:
    """Share of samples at a flat top: runs of three or more equal samples at a channel's highest or lowest value.

    The value must be at least `CLIPPED_FROM` of full scale. A lossy codec rounds the flat tops off (Eaton and Naylor,
    "Detection of clipping in coded speech signals", EUSIPCO 2013), so that 0 says nothing there.

    Args:
        samples: (channels, samples)

    Returns:
        in [0, 1], over the samples of all channels; 0 without samples
    """
    clipped = 0
    for channel in samples:
        for value in (float(channel.max(initial=0.0)), float(channel.min(initial=0.0))):
            if abs(value) >= CLIPPED_FROM:
                edges = np.flatnonzero(np.diff(channel == value, prepend=False, append=False))
                lengths = edges[1::2] - edges[::2]
                clipped += int(lengths[lengths >= CLIPPED_RUN].sum())
    return clipped / max(1, samples.size)


def silence_share(mono: Samples, rate_hz: int) -> float:
    """Share of frames of 10 ms that are more than 30 dB below the loudest frame, or below -70 dBFS.

    The rule of 30 dB is that of the energy detector in Kinnunen and Li, "An overview of text-independent speaker
    recognition", Speech Communication 52(1), 2010. Their floor of -55 dBFS suits one telephone line; here it is the
    absolute gate of ITU-R BS.1770, so that a corpus recorded at a low level is not all silence. The level of a frame
    is its RMS about the clip's mean, so that a DC offset is not taken for sound; a rest shorter than a frame is left.

    Args:
        mono: (samples,)
        rate_hz: its rate

    Returns:
        in [0, 1]; 0 for less than a frame
    """
    size = max(1, round(rate_hz * SILENCE_FRAME_SECONDS))
    frames = (mono[: len(mono) // size * size] - mono.mean(dtype=np.float64)).reshape(-1, size)
    if not len(frames):
        return 0.0
    power = np.mean(frames**2, axis=1)
    threshold = max(
        float(power.max()) * 10 ** (-SILENCE_BELOW_LOUDEST_DB / 10),
        10 ** (SILENCE_FLOOR_DBFS / 10),
    )
    return float(np.mean(power < threshold))


def bandwidth_hz(mono: Samples, rate_hz: int) -> float:
    """Highest frequency whose mean power over the clip is within 50 dB of the strongest frequency's.

    The spectrum is Welch's: the mean over Hann windows of at least 30 ms that overlap by half. 50 dB stays above the
    noise that a lossy codec leaves beyond the band edge, and below the natural fall of speech up to 8 kHz.

    Args:
        mono: (samples,)
        rate_hz: its rate

    Returns:
        0 to half the rate, in steps of the spectrum (at most 33 Hz)
    """
    size = 1 << int(np.ceil(np.log2(rate_hz * SPECTRUM_SECONDS)))
    centred = (mono - mono.mean(dtype=np.float64)).astype(np.float32)
    if len(centred) < size:
        centred = np.pad(centred, (0, size - len(centred)))
    window = np.hanning(size).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(centred, size)[:: size // 2]
    power = np.zeros(size // 2 + 1)
    for start in range(0, len(frames), _BLOCK_FRAMES):
        spectra = scipy.fft.rfft(frames[start : start + _BLOCK_FRAMES] * window, axis=1)
        power += (spectra.real**2 + spectra.imag**2).sum(axis=0, dtype=np.float64)
    heard = np.flatnonzero(power >= power.max() * 10 ** (-BANDWIDTH_BELOW_MAXIMUM_DB / 10))
    return float(heard[-1]) * rate_hz / size if power.max() > 0 else 0.0
