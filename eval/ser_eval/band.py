"""How far up the audio of a corpus reaches: audio made from a lower rate stays so, whatever its files say."""

from __future__ import annotations

import pandas as pd

BAND_LIMITED_HZ = 7000.0
"""Audio of 16 kHz reaches up to 8 kHz, telephone audio up to 3.4 or 4 kHz, audio of 11,025 Hz up to 5.5 kHz."""


def bandwidths(clips: pd.DataFrame) -> dict[str, float]:
    """Median bandwidth of the clips of each corpus in Hz, by corpus, sorted.

    Args:
        clips: a column bandwidth_hz, and corpus as a column or as a level of the index
    """
    medians = clips.groupby("corpus", sort=True)["bandwidth_hz"].median()
    return {str(corpus): float(median) for corpus, median in medians.items()}


def is_band_limited(bandwidth_hz: float) -> bool:
    """Whether a corpus of this bandwidth has audibly less than the 16 kHz audio that it is fed as."""
    return bandwidth_hz < BAND_LIMITED_HZ


def bandwidth_words(bandwidth_hz: float) -> str:
    """What a bandwidth means for the figures, in words."""
    if not is_band_limited(bandwidth_hz):
        return f"up to {bandwidth_hz / 1000:.1f} kHz"
    return (
        f"BAND-LIMITED: nothing above {bandwidth_hz / 1000:.1f} kHz; figures are not comparable with 16 kHz audio, "
        "and allow no conclusion about telephone speech"
    )
