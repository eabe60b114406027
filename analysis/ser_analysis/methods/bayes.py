"""Bayesian correlated t: how probable it is that a model is practically better, worse or the same."""

from __future__ import annotations

import math


def run(mean: float, se: float, df: int, rope: float) -> dict[str, float]:
    """`p_left`, `p_rope`, `p_right`: that a - b lies below -rope, within, above +rope.

    Model: the posterior of the mean difference is Student's t around the observed mean, with the standard error of
    Nadeau & Bengio, which counts that training sets overlap; flat prior (Corani & Benavoli 2015, Benavoli et al. 2017).
    Assumes normal differences. Target T2, in-domain only. NaN where the standard error is 0 or unknown. Alternative:
    `tost`.
    """
    from scipy.stats import t

    if not se > 0 or df < 1:
        return {"rope": rope, "p_left": math.nan, "p_rope": math.nan, "p_right": math.nan}
    left, right = float(t.cdf((-rope - mean) / se, df)), float(t.sf((rope - mean) / se, df))
    return {"rope": rope, "p_left": left, "p_rope": max(0.0, 1 - left - right), "p_right": right}
