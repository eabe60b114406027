"""Noise reduction without weights: a log-spectral amplitude estimator over a noise spectrum that is tracked."""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
from scipy import signal
from scipy.special import exp1

from ser_scripts.audio.decode import Samples

Spectrum = npt.NDArray[np.float64]

HOP_SECONDS = 0.008
_FRAME_HOPS = 4
_FLOOR = 1e-12
_SMOOTHING = 0.98
"""Weight of the last frame in the decision-directed estimate of the a-priori signal-to-noise ratio."""
_LEAST_SNR = 10 ** (-25 / 10)
_MOST_SNR = 1e3
_SPEECH_SNR = 10 ** (15 / 10)
"""A-priori signal-to-noise ratio taken for speech when its presence is judged."""
_NOISE_SMOOTHING = 0.9
_STUCK = 0.99
_QUIET_SHARE = 0.1
_QUIET_BIAS = 2.5
"""The mean of the quietest tenth of smoothed frames lies below the noise's mean by about this factor."""


def log_mmse(mono: Samples, rate_hz: int, *, max_reduction_db: float) -> Samples:
    """Reduce stationary and slowly changing noise in a clip; length and timing stay.

    Gain: the minimum mean-square error estimate of the log-spectral amplitude (Ephraim and Malah, "Speech enhancement
    using a minimum mean-square error log-spectral amplitude estimator", IEEE TASSP 33, 1985) with the decision-directed
    a-priori signal-to-noise ratio. Noise: unbiased MMSE tracking (Gerkmann and Hendriks, "Unbiased MMSE-based noise
    power estimation with low complexity and low tracking delay", IEEE TASLP 20, 2012), begun from the quietest tenth
    of the clip, since acted clips rarely begin with a pause. Hann frames of 32 ms every 8 ms.

    Args:
        mono: (samples,)
        rate_hz: its rate
        max_reduction_db: no frequency is attenuated by more, which keeps soft speech and hides musical noise
    """
    transform = _transform(rate_hz)
    size = max(len(mono), transform.m_num)  # a clip shorter than a frame
    spectrum = transform.stft(np.pad(mono.astype(np.float64), (0, size - len(mono))))  # (bins, frames)
    power = np.abs(spectrum) ** 2 + _FLOOR
    clean = transform.istft(spectrum * _gains(power, _noise_power(power), max_reduction_db), k1=size)
    return np.asarray(clean[: len(mono)], dtype=np.float32)


@functools.cache
def _transform(rate_hz: int) -> signal.ShortTimeFFT:
    hop = max(1, round(HOP_SECONDS * rate_hz))
    window = np.sqrt(signal.windows.hann(_FRAME_HOPS * hop, sym=False))
    return signal.ShortTimeFFT(window, hop, rate_hz, fft_mode="onesided")


def _noise_power(power: Spectrum) -> Spectrum:
    """Power of the noise in each bin and frame: (bins, frames) -> (bins, frames)."""
    smooth = signal.lfilter([0.3], [1, -0.7], power, axis=1, zi=0.7 * power[:, :1])[0]
    quietest = np.sort(smooth, axis=1)[:, : max(3, int(power.shape[1] * _QUIET_SHARE))]
    noise = np.maximum(quietest.mean(axis=1) * _QUIET_BIAS, _FLOOR)
    usual = np.zeros(len(power))
    tracked = np.empty_like(power)
    weight = _SPEECH_SNR / (1 + _SPEECH_SNR)
    for frame, now in enumerate(power.T):
        ratio = np.minimum(now / noise, 200.0)
        speech = 1 / (1 + (1 + _SPEECH_SNR) * np.exp(-ratio * weight))
        usual = 0.9 * usual + 0.1 * speech
        speech = np.where(usual > _STUCK, np.minimum(speech, _STUCK), speech)  # else a rise of noise is never believed
        noise = _NOISE_SMOOTHING * noise + (1 - _NOISE_SMOOTHING) * (speech * noise + (1 - speech) * now)
        tracked[:, frame] = noise
    return tracked


def _gains(power: Spectrum, noise: Spectrum, max_reduction_db: float) -> Spectrum:
    least = 10 ** (-max_reduction_db / 20)
    gains = np.empty_like(power)
    posterior = np.minimum(power / noise, _MOST_SNR)
    before = np.zeros(len(power))
    for frame in range(power.shape[1]):
        now = posterior[:, frame]
        prior = np.maximum(
            _SMOOTHING * before / noise[:, frame] + (1 - _SMOOTHING) * np.maximum(now - 1, 0), _LEAST_SNR
        )
        share = prior / (1 + prior)
        gain = share * np.exp(0.5 * exp1(np.maximum(share * now, 1e-8)))
        gain = np.clip(gain, least, 1.0)
        before = gain**2 * power[:, frame]
        gains[:, frame] = gain
    return gains
