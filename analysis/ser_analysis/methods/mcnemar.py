"""McNemar's test: two classifiers on the same clips, every clip taken for independent."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def run(right_a: npt.NDArray[np.bool_], right_b: npt.NDArray[np.bool_]) -> dict[str, float | int]:
    """Exact, mid-p and chi-squared p of whether A and B are right equally often.

    Model: the clips on which only one of the two is right fall to either side like independent fair coins. Clips of one
    speaker are not independent, so that p is too small for a claim about people: the speaker-swap test is the one for
    that. It compares accuracies, which are UARs only where all classes have as many clips. NaN where both are right on
    the same clips.

    Args:
        right_a: whether A is right, N clips
        right_b: the same of B
    """
    from scipy.stats import binom, chi2

    a, b = int((right_a & ~right_b).sum()), int((~right_a & right_b).sum())
    n = a + b
    told: dict[str, float | int] = {"n_a_only": a, "n_b_only": b}
    if n == 0:
        return told | dict.fromkeys(("exact_p", "chi2_cc", "p_cc", "chi2", "p", "mid_p"), math.nan)
    low = min(a, b)
    tail = float(binom.cdf(low, n, 0.5))
    plain, corrected = (a - b) ** 2 / n, max(0, abs(a - b) - 1) ** 2 / n
    return told | {
        "exact_p": min(1.0, 2 * tail),
        "chi2_cc": corrected,
        "p_cc": float(chi2.sf(corrected, 1)),
        "chi2": plain,
        "p": float(chi2.sf(plain, 1)),
        "mid_p": min(1.0, 2 * tail - float(binom.pmf(low, n, 0.5))),
    }
