"""What a line does to speech: band-pass, a lower rate, and the logarithmic codes of ITU-T Recommendation G.711."""

from __future__ import annotations

import functools
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import signal

from ser_scripts.audio import decode
from ser_scripts.audio.decode import Samples

Law = Literal["mu_law", "a_law"]
Levels = npt.NDArray[np.float64]

STOP_DB = 60.0
EDGE_HZ = 100.0
"""Half of the width in which the band-pass falls from 0 to -60 dB; -6 dB lies in the middle."""
FULL_SCALE = {"mu_law": 8192.0, "a_law": 4096.0}
"""What sample value 1.0 is in the units of the Recommendation (14 bits and 13 bits with sign)."""


def telephone(
    mono: Samples,
    rate_hz: int,
    *,
    low_hz: float,
    high_hz: float,
    line_rate_hz: int,
    codec: Law | None,
    output_rate_hz: int,
) -> tuple[Samples, bool]:
    """A clip as it comes out of a telephone line.

    Order: to the line's rate, band-pass (linear phase, so that nothing is delayed), G.711 round trip, to the output's
    rate. What exceeds full scale is clipped by G.711, as on a line; a codec's noise therefore depends on the clip's
    level: put `loudness` before.

    Args:
        mono: (samples,)
        rate_hz: its rate
        low_hz: lower -6 dB edge
        high_hz: upper -6 dB edge
        line_rate_hz: rate of the line
        codec: None leaves the code out
        output_rate_hz: rate of the result

    Returns:
        (samples,) and whether a sample was clipped
    """
    line = band_pass(decode.resample(mono, rate_hz, line_rate_hz), line_rate_hz, low_hz=low_hz, high_hz=high_hz)
    clipped = False
    if codec is not None:
        clipped = bool(np.max(np.abs(line), initial=0.0) > 1)
        line = g711_decode(g711_encode(line, codec), codec)
    return decode.resample(line, line_rate_hz, output_rate_hz), clipped


def band_pass(mono: Samples, rate_hz: int, *, low_hz: float, high_hz: float) -> Samples:
    """Linear-phase band-pass without delay: -6 dB at the edges, 60 dB down 100 Hz outside, flat 100 Hz inside."""
    taps = _taps(rate_hz, low_hz, high_hz)
    filtered = signal.fftconvolve(mono.astype(np.float64), taps)
    delay = len(taps) // 2
    return filtered[delay : delay + len(mono)].astype(np.float32)


@functools.cache
def _taps(rate_hz: int, low_hz: float, high_hz: float) -> Levels:
    count, beta = signal.kaiserord(STOP_DB, 2 * EDGE_HZ / (rate_hz / 2))
    taps: Levels = signal.firwin(count | 1, [low_hz, high_hz], pass_zero=False, fs=rate_hz, window=("kaiser", beta))
    return taps


def limit_band(mono: Samples, rate_hz: int, *, limit_hz: int, back: bool) -> tuple[Samples, int]:
    """Resample a clip to a lower rate, and back to its own.

    Args:
        mono: (samples,)
        rate_hz: its rate, above `limit_hz`
        limit_hz: the lower rate
        back: return to `rate_hz`, with the same number of samples

    Returns:
        (samples,) and their rate
    """
    low = decode.resample(mono, rate_hz, limit_hz)
    return (to_length(decode.resample(low, limit_hz, rate_hz), len(mono)), rate_hz) if back else (low, limit_hz)


def to_length(mono: Samples, size: int) -> Samples:
    """Cut or fill the end with zeros: two resamplings may round the length differently."""
    return mono[:size] if len(mono) >= size else np.pad(mono, (0, size - len(mono)))


def g711_encode(mono: Samples, law: Law) -> npt.NDArray[np.uint8]:
    """Samples in [-1, 1] to the 8-bit characters of G.711, in the order of transmission (A-law: even bits inverted).

    A value that equals a decision value belongs to the interval above it, in magnitude; zero counts as positive. What
    exceeds full scale becomes the outermost character.
    """
    decisions, _ = g711_levels(law)
    magnitude = np.abs(mono.astype(np.float64)) * FULL_SCALE[law]
    # interval n lies between decision values n and n + 1, and its number is the character's seven low bits
    number = np.searchsorted(decisions[1:-1], magnitude, side="right").astype(np.uint8)
    positive = np.where(np.signbit(mono) & (mono != 0), 0, 0x80).astype(np.uint8)
    # mu-law sends the bits of the number inverted (tables 2a and 2b), A-law every other one (table 1a, note 2)
    characters = positive | (number ^ 0x7F) if law == "mu_law" else (positive | number) ^ 0x55
    return np.asarray(characters, dtype=np.uint8)


def g711_decode(characters: npt.NDArray[np.uint8], law: Law) -> Samples:
    """The 8-bit characters of G.711 to samples in (-1, 1)."""
    _, values = g711_levels(law)
    plain = characters ^ (0x7F if law == "mu_law" else 0x55)
    sign = np.where(plain & 0x80, 1.0, -1.0)
    decoded: Samples = (sign * values[plain & 0x7F] / FULL_SCALE[law]).astype(np.float32)
    return decoded


@functools.cache
def g711_levels(law: Law) -> tuple[Levels, Levels]:
    """The Recommendation's decision values x_1 ... x_129 and quantized values y_1 ... y_128 of the positive half.

    Eight segments of 16 intervals, each segment's intervals twice as wide as the last one's; in A-law the first two
    have the same width, in mu-law the first interval is half as wide (tables 1a and 2a; units as in `FULL_SCALE`). A
    quantized value is the middle of its interval, in mu-law's first one zero.
    """
    if law == "mu_law":
        widths = np.concatenate([np.full(16, 2.0 ** (segment + 1)) for segment in range(8)])
        widths[0] = 1
    else:
        widths = np.concatenate([np.full(16, 2.0 ** max(1, segment)) for segment in range(8)])
    decisions = np.concatenate([[0.0], np.cumsum(widths)])
    values = (decisions[:-1] + decisions[1:]) / 2
    if law == "mu_law":
        values[0] = 0
    return decisions, values
