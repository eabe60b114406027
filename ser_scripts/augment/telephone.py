"""A telephone line of random width: band-pass, 8 kHz, G.711, as the preprocessing step of that name."""

from __future__ import annotations

import random
from collections.abc import Sequence

from ser_scripts.audio.decode import Samples
from ser_scripts.audio.steps.line import Law, telephone, to_length

LINE_RATE_HZ = 8000
CODECS: dict[str, Law | None] = {"mu_law": "mu_law", "a_law": "a_law", "none": None}


class Telephone:
    """Puts a clip through a telephone line; rate and length stay.

    The edges of the band are drawn uniformly from [min_low_hz, max_low_hz] and [min_high_hz, max_high_hz], the code
    from `codecs`. Samples beyond full scale are clipped, as on a line. Draws from `random`, which the Augmenter seeds
    for every clip.
    """

    def __init__(
        self,
        min_low_hz: float = 250.0,
        max_low_hz: float = 350.0,
        min_high_hz: float = 3200.0,
        max_high_hz: float = 3500.0,
        codecs: Sequence[str] = ("mu_law", "a_law"),
    ):
        highest_hz = LINE_RATE_HZ / 2 - 100
        if not 50 <= min_low_hz <= max_low_hz <= min_high_hz - 200 or not min_high_hz <= max_high_hz <= highest_hz:
            raise ValueError(
                "50 <= min_low_hz <= max_low_hz <= min_high_hz - 200 and min_high_hz <= max_high_hz <= "
                f"{highest_hz:g} must hold; they are {min_low_hz:g}, {max_low_hz:g}, {min_high_hz:g}, {max_high_hz:g}"
            )
        if isinstance(codecs, str) or not codecs or not set(codecs) <= set(CODECS):
            raise ValueError(f"codecs is {codecs!r}; it must be a list of {', '.join(CODECS)}")
        self.low_hz = min_low_hz, max_low_hz
        self.high_hz = min_high_hz, max_high_hz
        self.codecs = tuple(codecs)

    def __call__(self, samples: Samples, sample_rate: int) -> Samples:
        """Send a clip of shape (samples,) through the line."""
        # Whole hertz: the filter of a band is computed once and kept.
        low_hz, high_hz = round(random.uniform(*self.low_hz)), round(random.uniform(*self.high_hz))
        line, _ = telephone(
            samples,
            sample_rate,
            low_hz=low_hz,
            high_hz=high_hz,
            line_rate_hz=LINE_RATE_HZ,
            codec=CODECS[random.choice(self.codecs)],
            output_rate_hz=sample_rate,
        )
        return to_length(line, len(samples))
