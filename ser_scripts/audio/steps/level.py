"""Levels: loudness, peak, root mean square, and the mean. Results are float32 and not clipped: peaks may exceed 1."""

from __future__ import annotations

import numpy as np

from ser_scripts.audio.decode import Samples
from ser_scripts.errors import BadInput

_BLOCK_SECONDS = 0.4


def to_loudness(mono: Samples, rate_hz: int, *, lufs: float) -> Samples:
    """Scale a clip to an integrated loudness; the result is float32 and not clipped, so peaks may exceed 1.

    Args:
        mono: (samples,), float32
        rate_hz: its rate
        lufs: the target in LUFS (dB re full scale, K-weighted and gated)

    Raises:
        BadInput: if the clip has no loudness (digital silence, no samples, or samples that are not finite)
    """
    gain_db = lufs - loudness_lufs(mono, rate_hz)
    return mono * np.float32(10 ** (gain_db / 20))


def loudness_lufs(mono: Samples, rate_hz: int) -> float:
    """Integrated loudness of a clip of shape (samples,) in LUFS, after ITU-R BS.1770-4 (pyloudnorm).

    Two cases that the recommendation leaves open: a clip shorter than a gating block of 0.4 s is measured as one block
    of its own length; and a clip that lies wholly below the absolute gate of -70 LUFS is measured as if its peak were
    at full scale and the difference subtracted again, so that the gate does not leave it without a loudness.

    Raises:
        BadInput: if the clip has no loudness (digital silence, no samples, or samples that are not finite)
    """
    peak = float(np.max(np.abs(mono), initial=0.0))
    if not np.isfinite(peak) or peak == 0:
        raise BadInput("a clip that is silent or not finite has no loudness and cannot be brought to a target")
    measured = _gated_lufs(mono.astype(np.float64), rate_hz)
    if np.isfinite(measured):
        return measured
    return _gated_lufs(mono.astype(np.float64) / peak, rate_hz) + 20 * float(np.log10(peak))


def _gated_lufs(mono: np.ndarray[tuple[int, ...], np.dtype[np.float64]], rate_hz: int) -> float:
    import pyloudnorm

    block_seconds = min(_BLOCK_SECONDS, len(mono) / rate_hz)
    while block_seconds * rate_hz > len(mono):  # rounding must not make the block longer than the clip
        block_seconds = float(np.nextafter(block_seconds, 0))
    return float(pyloudnorm.Meter(rate_hz, block_size=block_seconds).integrated_loudness(mono))


def to_peak(mono: Samples, *, dbfs: float) -> Samples:
    """Scale a clip of shape (samples,) so that its largest magnitude is `dbfs`.

    Raises:
        BadInput: if the clip is silent or not finite
    """
    peak = float(np.max(np.abs(mono), initial=0.0))
    if not np.isfinite(peak) or peak == 0:
        raise BadInput("a clip that is silent or not finite cannot be brought to a peak")
    return mono * np.float32(10 ** (dbfs / 20) / peak)


def to_rms(mono: Samples, *, dbfs: float) -> Samples:
    """Scale a clip of shape (samples,) so that its root mean square, pauses included, is `dbfs`.

    Raises:
        BadInput: if the clip is silent or not finite
    """
    level = rms(mono)
    if not np.isfinite(level) or level == 0:
        raise BadInput("a clip that is silent or not finite cannot be brought to a root mean square")
    return mono * np.float32(10 ** (dbfs / 20) / level)


def rms(mono: Samples) -> float:
    """Root mean square of a clip of shape (samples,); 0 without samples."""
    return float(np.sqrt(np.mean(mono.astype(np.float64) ** 2))) if mono.size else 0.0


def remove_dc(mono: Samples) -> Samples:
    """Subtract the mean of a clip of shape (samples,)."""
    return mono - np.float32(mono.mean(dtype=np.float64)) if mono.size else mono
