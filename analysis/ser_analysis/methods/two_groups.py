"""Two independent groups: Welch's and Student's t, Cohen's d, Hedges' g, Mann-Whitney."""

from __future__ import annotations

import math

import numpy as np

from ser_analysis.effect_sizes import hedges_j, noncentral_t_interval
from ser_analysis.scores import Array


def run(a: Array, b: Array) -> dict[str, dict[str, float]]:
    """a - b, as blocks: welch_t, student_t, cohens_d_pooled, hedges_g_pooled, mann_whitney.

    Model: independent, normal scores; Student's t with one variance, Welch's with two. d is the difference over the
    pooled SD with its 95 % interval from the noncentral t; g carries Hedges' exact correction. Mann-Whitney needs no
    normality (exact for small groups without ties, else normal with continuity correction, as R). NaN where a group has
    one score or the two have no spread.
    """
    from scipy import stats

    difference, (n, m) = float(a.mean() - b.mean()), (len(a), len(b))
    va, vb = (float(np.var(x, ddof=1)) if len(x) > 1 else math.nan for x in (a, b))
    df = n + m - 2
    pooled = math.sqrt(((n - 1) * va + (m - 1) * vb) / df) if df > 0 and va + vb > 0 else math.nan
    welch_se = math.sqrt(va / n + vb / m) if va + vb > 0 else math.nan
    welch_df = (va / n + vb / m) ** 2 / ((va / n) ** 2 / (n - 1) + (vb / m) ** 2 / (m - 1)) if va + vb > 0 else math.nan
    half = float(stats.t.ppf(0.975, welch_df)) * welch_se
    root = math.sqrt(1 / n + 1 / m)
    t, d, j = difference / (pooled * root), difference / pooled, hedges_j(df)
    low, high = (root * end for end in noncentral_t_interval(t, df))
    ties = len(np.unique(np.concatenate([a, b]))) < n + m
    exact = n < 50 and m < 50 and not ties
    u = stats.mannwhitneyu(a, b, method="exact" if exact else "asymptotic")
    return {
        "welch_t": {
            "t": difference / welch_se,
            "df": welch_df,
            "p": 2 * float(stats.t.sf(abs(difference / welch_se), welch_df)),
            "ci95_low": difference - half,
            "ci95_high": difference + half,
        },
        "student_t": {"t": t, "df": df, "p": 2 * float(stats.t.sf(abs(t), df))},
        "cohens_d_pooled": {"Cohens_d": d, "CI": 0.95, "CI_low": low, "CI_high": high},
        "hedges_g_pooled": {"Hedges_g": j * d, "CI": 0.95, "CI_low": j * low, "CI_high": j * high},
        "mann_whitney": {"W": float(u.statistic), "p": float(u.pvalue)},
    }
