"""Friedman's rank test over blocks, with Iman-Davenport's F, Nemenyi's pairs and the critical difference."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ser_analysis.effect_sizes import holm
from ser_analysis.scores import Array

LARGEST_K = 10
"""`q05_table` runs from 2 treatments to this many."""


def run(values: Array, names: list[str]) -> tuple[dict[str, Any], pd.DataFrame]:
    """The test of all treatments, and one row per pair.

    Model: within each block the k treatments are ranked (rank 1 is the highest score, ties get the mean rank); under
    the null hypothesis every order within a block is equally likely. Assumes independent blocks, and neither normality
    nor equal spread. Blocks lacking a score are left out. Source: Demsar (2006), Friedman (1937), Iman & Davenport
    (1980), Nemenyi (1963). Alternative on the scale of the scores: repeated-measures ANOVA and paired t (`rm_anova`,
    `contrasts`).

    The tie-corrected chi2 is that of R and scipy; the uncorrected one is what Demsar's paper prints. Two treatments
    differ by Nemenyi's test at .05 when their mean ranks lie at least `CD_nemenyi_05` apart. Kendall's W is the
    tie-corrected chi2 over N (k - 1). Of the pairs, z compares mean ranks by the normal distribution (adjusted by
    Bonferroni or Holm over all pairs), and `p_wilcoxon` is the signed-rank test on the scores of the pair alone.

    Args:
        values: (blocks, treatments), NaN where a score is missing
        names: of the treatments
    """
    from scipy.stats import chi2, norm, rankdata, studentized_range
    from scipy.stats import f as f_distribution

    y = values[~np.isnan(values).any(axis=1)]
    n, k = y.shape
    ranks = rankdata(-y, axis=1)
    mean = ranks.mean(axis=0)
    plain = 12 * n / (k * (k + 1)) * (float((mean**2).sum()) - k * (k + 1) ** 2 / 4)
    ties = sum(int(count) ** 3 - int(count) for row in y for count in np.unique(row, return_counts=True)[1])
    correction = 1 - ties / (n * k * (k * k - 1))
    corrected = plain / correction if correction > 0 else math.nan

    def chi_square(value: float) -> dict[str, float | int]:
        return {"chi2": value, "df": k - 1, "p": float(chi2.sf(value, k - 1))}

    def iman_davenport(value: float) -> dict[str, float | int]:
        bottom = n * (k - 1) - value
        f = (n - 1) * value / bottom if bottom > 1e-12 * n * k else math.inf if value > 0 else math.nan
        df1, df2 = k - 1, (k - 1) * (n - 1)
        return {"F": f, "df1": df1, "df2": df2, "p": float(f_distribution.sf(f, df1, df2))}

    q05 = {m: float(studentized_range.ppf(0.95, m, np.inf)) / math.sqrt(2) for m in range(2, max(k, LARGEST_K) + 1)}
    se = math.sqrt(k * (k + 1) / (6 * n))
    content = {
        "N": n,
        "k": k,
        "mean_ranks": dict(zip(names, map(float, mean), strict=True)),
        "friedman_tie_corrected": chi_square(corrected),
        "friedman_no_tie_correction": chi_square(plain),
        "iman_davenport_tie": iman_davenport(corrected),
        "iman_davenport_no_tie": iman_davenport(plain),
        "kendall_W": corrected / (n * (k - 1)),
        "q05": q05[k],
        "CD_nemenyi_05": q05[k] * se,
        "q05_table": {str(m): value for m, value in q05.items()},
    }
    rows = []
    for a, b in itertools.combinations(range(k), 2):
        z = abs(float(mean[a] - mean[b])) / se
        rows.append(
            {
                "a": names[a],
                "b": names[b],
                "rank_diff": float(mean[a] - mean[b]),
                "z": z,
                "p_nemenyi": float(studentized_range.sf(z * math.sqrt(2), k, np.inf)) if z > 0 else 1.0,
                "p_z": 2 * float(norm.sf(z)),
                "p_wilcoxon_R_default": wilcoxon(y[:, a] - y[:, b])["p"],
            }
        )
    pairs = pd.DataFrame(rows)
    pairs["p_bonferroni_dunn_z"] = (pairs["p_z"] * len(pairs)).clip(upper=1)
    pairs["p_holm_z"] = holm(pairs["p_z"].to_numpy())
    pairs["p_wilcoxon_holm"] = holm(pairs["p_wilcoxon_R_default"].to_numpy())
    return content, pairs.drop(columns="p_z")


def wilcoxon(difference: Array) -> dict[str, float]:
    """Two-sided signed-rank test as R's default: V, p, whether it is exact, and the Hodges-Lehmann estimate.

    Exact for fewer than 50 differences without ties and zeros, else normal with continuity correction; differences of 0
    are left out. NaN where none is left.
    """
    from scipy import stats

    # Rounding must not break the ties that differences of shares have by nature.
    scale = float(np.abs(difference).max(initial=0))
    d = np.round(difference / scale, 11) if scale > 0 else difference * 0
    moved = d[d != 0]
    if not len(moved):
        return {"V": math.nan, "p": math.nan, "exact": False, "hodges_lehmann": 0.0 if len(d) else math.nan}
    v = float(stats.rankdata(np.abs(moved))[moved > 0].sum())
    exact = len(d) < 50 and len(moved) == len(d) and len(np.unique(np.abs(d))) == len(d)
    answer: Any = stats.wilcoxon(moved, method="exact" if exact else "approx", correction=True)
    p = answer.pvalue
    i, j = np.triu_indices(len(difference))
    walsh = float(np.median((difference[i] + difference[j]) / 2))
    return {"V": v, "p": min(1.0, float(p)), "exact": exact, "hodges_lehmann": walsh}


def cliques(content: Mapping[str, Any]) -> list[list[str]]:
    """Largest groups of treatments whose mean ranks lie within the critical difference, best rank first."""
    ranked = sorted(content["mean_ranks"].items(), key=lambda item: (item[1], item[0]))
    groups: list[list[str]] = []
    for start, (_, low) in enumerate(ranked):
        group = [name for name, rank in ranked[start:] if rank - low < content["CD_nemenyi_05"]]
        if len(group) > 1 and not (groups and set(group) <= set(groups[-1])):
            groups.append(group)
    return groups
