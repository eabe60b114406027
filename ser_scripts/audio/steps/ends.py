"""Where a clip begins and ends: trimming quiet ends, and one length for all clips."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ser_scripts.audio.decode import Samples
from ser_scripts.audio.steps.level import loudness_lufs

FRAME_SECONDS = 0.02
HOP_SECONDS = 0.01


def trim_silence(
    mono: Samples,
    rate_hz: int,
    *,
    threshold_db: float,
    relative_to: Literal["peak", "loudness"],
    pad_seconds: float,
    floor_dbfs: float,
) -> Samples | None:
    """Cut both ends of a clip up to where it is loud enough.

    A frame of 20 ms (every 10 ms; the last one shorter) is loud enough when its RMS in dBFS reaches `threshold_db`
    plus the clip's peak in dBFS, or plus its integrated loudness in LUFS. A single click raises no frame, so it does
    not hold an end open; a low threshold takes breaths for speech, a high one takes soft endings away.

    Args:
        mono: (samples,)
        rate_hz: its rate
        threshold_db: negative
        relative_to: what the threshold is relative to
        pad_seconds: what is left around the loud frames, where the clip has it
        floor_dbfs: with a lower peak there is no speech

    Returns:
        a view into `mono`, or None where no frame is loud enough
    """
    peak = float(np.max(np.abs(mono), initial=0.0))
    if peak == 0 or 20 * np.log10(peak) < floor_dbfs:
        return None
    reference_db = 20 * np.log10(peak) if relative_to == "peak" else loudness_lufs(mono, rate_hz)
    frame, hop = max(1, round(FRAME_SECONDS * rate_hz)), max(1, round(HOP_SECONDS * rate_hz))
    starts = np.arange(0, max(1, len(mono) - frame + hop), hop)
    ends = np.minimum(starts + frame, len(mono))
    energy = np.concatenate([[0.0], np.cumsum(mono.astype(np.float64) ** 2)])
    power = (energy[ends] - energy[starts]) / (ends - starts)
    loud = np.flatnonzero(power >= 10 ** ((reference_db + threshold_db) / 10))
    if not len(loud):
        return None
    pad = round(pad_seconds * rate_hz)
    return mono[max(0, int(starts[loud[0]]) - pad) : int(ends[loud[-1]]) + pad]


def fixed_length(
    mono: Samples,
    rate_hz: int,
    *,
    seconds: float,
    keep: Literal["start", "centre", "end"],
    pad: Literal["zeros", "reflect", "none"],
    place: Literal["start", "centre"],
) -> Samples:
    """Cut or fill a clip to `round(seconds * rate_hz)` samples.

    A reflection repeats the clip forwards and backwards around its first and last sample, which are not doubled, as
    often as the length needs, so that a clip of any length can be filled.

    Args:
        mono: (samples,), at least one
        rate_hz: its rate
        seconds: the length
        keep: which part of a longer clip stays
        pad: what fills a shorter clip; `none`: it stays short
        place: where a shorter clip lies; in the centre the odd sample is added at the end
    """
    size = max(1, round(seconds * rate_hz))
    surplus = len(mono) - size
    if surplus >= 0:
        start = {"start": 0, "centre": surplus // 2, "end": surplus}[keep]
        return mono[start : start + size]
    if pad == "none":
        return mono
    before = -surplus // 2 if place == "centre" else 0
    if pad == "zeros":
        return np.pad(mono, (before, -surplus - before))
    period = max(1, 2 * (len(mono) - 1))
    position = (np.arange(size) - before) % period
    filled: Samples = mono[np.minimum(position, period - position)]
    return filled
