"""Effect sizes of an F test, and Holm's correction."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from ser_analysis.scores import Array


def partial_eta2(f: float, df1: float, df2: float) -> float:
    """Share of variance of effect and its error that the effect takes: F df1 / (F df1 + df2), in [0, 1]."""
    return f * df1 / (f * df1 + df2)


def partial_omega2(f: float, df1: float, n: float) -> float:
    """Less biased partial eta2: df1 (F - 1) / (df1 (F - 1) + n) (Olejnik & Algina 2003). Negative when F < 1.

    `n` is the number of observations of a between-groups design; df1 + df2 + 1 for an effect with its own error term.
    """
    return df1 * (f - 1) / (df1 * (f - 1) + n)


def partial_epsilon2(f: float, df1: float, df2: float) -> float:
    """Adjusted partial eta2: df1 (F - 1) / (df1 F + df2). Negative when F < 1."""
    return df1 * (f - 1) / (df1 * f + df2)


def noncentrality_interval(f: float, df1: float, df2: float, level: float = 0.90) -> tuple[float, float]:
    """Interval of the noncentrality behind an F, by inversion of the CDF (Steiger 2004); 0 where F is too small.

    90 % is customary for a one-sided quantity such as eta2: its lower end excludes 0 exactly when p < .05. NaN where F
    is so large (about 1e10) that the CDF cannot be computed.
    """
    from scipy.optimize import brentq
    from scipy.special import ncfdtr

    def solve(probability: float) -> float:
        def gap(noncentrality: float) -> float:
            return float(ncfdtr(df1, df2, noncentrality, f)) - probability

        if not gap(0.0) > 0:
            return 0.0
        high = max(1.0, f * df1)
        while gap(high) > 0:
            high *= 2
        if math.isnan(gap(high)):
            return math.nan
        return float(brentq(gap, 0.0, high, xtol=1e-10, rtol=1e-12, maxiter=500))

    return solve((1 + level) / 2), solve((1 - level) / 2)


def partial_eta2_interval(f: float, df1: float, df2: float, level: float = 0.90) -> tuple[float, float]:
    """Noncentral-F interval of partial eta2: ncp / (ncp + df2)."""
    if not math.isfinite(f):
        return math.nan, math.nan
    low, high = noncentrality_interval(f, df1, df2, level)
    return low / (low + df2), high / (high + df2)


def noncentral_t_interval(t: float, df: float, level: float = 0.95) -> tuple[float, float]:
    """Interval of the noncentrality behind a t, by inversion of the CDF; NaN where t is not defined.

    The CDF is the chance that z + ncp lies under t s, for a normal z and s, the SD of df + 1 values relative to the
    true one; Gauss-Legendre quadrature over s, or over z for large t, where it is smooth. scipy's own is NaN in tails.
    """
    from scipy.optimize import brentq
    from scipy.special import gammaincc, ndtr
    from scipy.stats import chi

    if not math.isfinite(t) or df < 1:
        return math.nan, math.nan
    if t < 0:
        low, high = noncentral_t_interval(-t, df, level)
        return -high, -low
    nodes, weights = _legendre()
    if t < 4:
        root = math.sqrt(df)
        first, last = (float(chi.ppf(p, df)) / root for p in (1e-15, 1 - 1e-15))
        s = first + (nodes + 1) * (last - first) / 2
        weights = weights * np.asarray(chi.pdf(s * root, df))
    else:
        z = 9 * nodes
        weights = weights * np.exp(-(z**2) / 2)
    weights = weights / weights.sum()

    def solve(probability: float) -> float:
        def gap(noncentrality: float) -> float:
            if t < 4:
                return float(weights @ ndtr(t * s - noncentrality)) - probability
            above = gammaincc(df / 2, df / 2 * (np.maximum(z + noncentrality, 0.0) / t) ** 2)
            return float(weights @ above) - probability

        reach = 5.0 + 5.0 * t
        return float(brentq(gap, -reach, reach, xtol=1e-10, rtol=1e-12, maxiter=500))

    return solve((1 + level) / 2), solve((1 - level) / 2)


@cache
def _legendre() -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(200)
    return np.asarray(nodes), np.asarray(weights)


def hedges_j(df: float) -> float:
    """Hedges' exact small-sample correction: Gamma(df/2) / (sqrt(df/2) Gamma((df-1)/2)); NaN for df < 2."""
    if df < 2:
        return math.nan
    return math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)


def holm(p: Array) -> Array:
    """Holm's step-down adjustment of one family; undefined p-values stay undefined and do not count."""
    p = np.asarray(p, dtype=float)
    adjusted = np.full(p.shape, np.nan)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]  # NaN sorts last
    steps = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * steps))
    return adjusted
