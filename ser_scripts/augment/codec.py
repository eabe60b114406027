"""A codec at a random bit rate: the clip is encoded and decoded in memory, as in the preprocessing step `codec`."""

from __future__ import annotations

import random
from typing import Literal, get_args

from ser_scripts.audio.decode import Samples
from ser_scripts.audio.steps.conditions import code

Name = Literal["mp3", "opus", "vorbis", "gsm"]


class Codec:
    """Encodes and decodes a clip with libsndfile; rate and length stay, and nothing is delayed.

    `mp3` and `opus` draw their bit rate uniformly from [min_bitrate_kbps, max_bitrate_kbps], `vorbis` its quality from
    [min_quality, max_quality] (0 is the smallest file, 1 the best sound); `gsm` (GSM 06.10 at 8 kHz, 13 kbit/s) draws
    nothing. Samples beyond full scale are clipped. Draws from `random`, which the Augmenter seeds for every clip.
    """

    def __init__(
        self,
        codec: Name,
        min_bitrate_kbps: float | None = None,
        max_bitrate_kbps: float | None = None,
        min_quality: float | None = None,
        max_quality: float | None = None,
    ):
        if codec not in get_args(Name):
            raise ValueError(f"codec is {codec!r}; it must be one of {', '.join(get_args(Name))}")
        self.codec = codec
        self.bitrate_kbps = _range("bitrate_kbps", min_bitrate_kbps, max_bitrate_kbps, codec in ("mp3", "opus"), codec)
        self.quality = _range("quality", min_quality, max_quality, codec == "vorbis", codec)
        low, high = {"mp3": (8, 320), "opus": (6, 256)}.get(codec, (0, 0))
        if self.bitrate_kbps is not None and not low <= self.bitrate_kbps[0] <= self.bitrate_kbps[1] <= high:
            raise ValueError(f"bit rates of {codec} lie between {low} and {high} kbit/s")
        if self.quality is not None and not 0 <= self.quality[0] <= self.quality[1] <= 1:
            raise ValueError("qualities lie between 0 and 1")

    def __call__(self, samples: Samples, sample_rate: int) -> Samples:
        """Encode and decode a clip of shape (samples,)."""
        coded, _ = code(
            samples,
            sample_rate,
            codec=self.codec,
            bitrate_kbps=None if self.bitrate_kbps is None else random.uniform(*self.bitrate_kbps),
            quality=None if self.quality is None else random.uniform(*self.quality),
        )
        return coded


def _range(name: str, low: float | None, high: float | None, needed: bool, codec: str) -> tuple[float, float] | None:
    if (low is None) != (not needed) or (high is None) != (not needed):
        raise ValueError(f"{codec} {'needs' if needed else 'takes no'} 'min_{name}' and 'max_{name}'")
    return None if low is None or high is None else (low, high)
