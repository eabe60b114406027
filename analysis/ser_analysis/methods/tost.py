"""Equivalence by two one-sided tests: the only ground for saying that two models do not differ."""

from __future__ import annotations

import math

from ser_analysis.scores import Array


def run(difference: Array, margin: float) -> dict[str, float]:
    """`p_lower`, `p_upper` and their maximum `p` for the mean difference of n blocks within +-margin.

    Model: independent, normal differences; `p_lower` tests that the mean is not below -margin, `p_upper` that it is not
    above +margin (Schuirmann 1987). p < .05 is the same as a 90 % t interval within the margin. The margin must be
    chosen before the data are seen. NaN with one block or without spread. Alternative: the region of practical
    equivalence of the correlated t (`bayes`), which gives a probability instead of a test.
    """
    from scipy.stats import t

    n = len(difference)
    sd = float(difference.std(ddof=1)) if n > 1 else 0.0
    if not sd > 0:
        return {"margin": margin, "p_lower": math.nan, "p_upper": math.nan, "p": math.nan}
    se, mean = sd / math.sqrt(n), float(difference.mean())
    lower, upper = float(t.sf((mean + margin) / se, n - 1)), float(t.cdf((mean - margin) / se, n - 1))
    return {"margin": margin, "p_lower": lower, "p_upper": upper, "p": max(lower, upper)}
