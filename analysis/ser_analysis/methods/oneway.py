"""One factor without equal variances or without normality: Welch's F, Kruskal-Wallis, Brown-Forsythe."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ser_analysis.scores import Array


def welch(groups: Sequence[Array]) -> dict[str, float | int]:
    """Welch's F of equal means: F, df1, df2, p.

    Model: independent, normal scores, a variance of its own per group (Welch 1951). Alternative: `kruskal`. NaN where a
    group has one score or no spread.
    """
    from scipy.stats import f as f_distribution

    k = len(groups)
    variances = [float(np.var(group, ddof=1)) if len(group) > 1 else 0.0 for group in groups]
    if min(variances) <= 0 or k < 2:
        return {"F": math.nan, "df1": k - 1, "df2": math.nan, "p": math.nan}
    weights = np.array([len(group) / variance for group, variance in zip(groups, variances, strict=True)])
    means = np.array([group.mean() for group in groups])
    share = weights / weights.sum()
    top = float((weights * (means - share @ means) ** 2).sum()) / (k - 1)
    loss = float(((1 - share) ** 2 / (np.array([len(group) for group in groups]) - 1)).sum())
    f, df2 = top / (1 + 2 * (k - 2) * loss / (k * k - 1)), (k * k - 1) / (3 * loss)
    return {"F": f, "df1": k - 1, "df2": df2, "p": float(f_distribution.sf(f, k - 1, df2))}


def kruskal(groups: Sequence[Array]) -> dict[str, float | int]:
    """Kruskal-Wallis H with tie correction: H, df, p.

    Model: independent scores whose distributions have the same shape; compares their places. Alternative: `welch`.
    """
    from scipy import stats

    answer = stats.kruskal(*groups)
    return {"H": float(answer.statistic), "df": len(groups) - 1, "p": float(answer.pvalue)}


def brown_forsythe(groups: Sequence[Array]) -> dict[str, float | int]:
    """Brown-Forsythe (Levene around the medians) of equal variances: F, df1, df2, p."""
    from scipy import stats

    answer = stats.levene(*groups, center="median")
    df2 = sum(map(len, groups)) - len(groups)
    return {"F": float(answer.statistic), "df1": len(groups) - 1, "df2": df2, "p": float(answer.pvalue)}
