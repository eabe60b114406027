"""Tukey's honest significant difference (Tukey-Kramer for unequal sizes) and the Games-Howell test."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from ser_analysis.scores import Array

HSD_COLUMNS = ["pair", "a", "b", "diff", "lwr", "upr", "p adj"]
GH_COLUMNS = ["group1", "group2", "a", "b", "estimate", "conf.low", "conf.high", "se", "statistic", "df", "p"]


def hsd(groups: Mapping[str, Array], *, mse: float, df: int) -> pd.DataFrame:
    """All pairs of levels, b - a as in R's TukeyHSD (`HSD_COLUMNS`), family-wise 95 %.

    Model: independent, normal scores of one variance, estimated by `mse` with `df` (of the one-way or a larger model).
    Exact for equal sizes, a little conservative for others (Tukey 1949, Kramer 1956). Alternative without equal
    variances: `games_howell`.
    """
    from scipy.stats import studentized_range

    k, rows = len(groups), []
    critical = float(studentized_range.ppf(0.95, k, df))
    for (a, x), (b, y) in itertools.combinations(groups.items(), 2):
        difference = float(y.mean() - x.mean())
        se = math.sqrt(mse / 2 * (1 / len(x) + 1 / len(y)))
        p = float(studentized_range.sf(abs(difference) / se, k, df))
        rows.append([f"{b}-{a}", a, b, difference, difference - critical * se, difference + critical * se, p])
    return pd.DataFrame(rows, columns=HSD_COLUMNS)


def games_howell(groups: Mapping[str, Array]) -> pd.DataFrame:
    """All pairs of levels, b - a, each with its own variances and Welch df (`GH_COLUMNS`), family-wise 95 %.

    Model: independent, normal scores, a variance of its own per level (Games & Howell 1976). `se` is that of the
    studentized range, as rstatix gives it (Welch's over the root of 2), and `statistic` is Welch's |t|. Empty where a
    level has one score or no spread.
    """
    from scipy.stats import studentized_range

    k, rows = len(groups), []
    shares = {name: float(np.var(x, ddof=1)) / len(x) if len(x) > 1 else 0.0 for name, x in groups.items()}
    if min(shares.values()) <= 0:
        return pd.DataFrame(columns=GH_COLUMNS)
    for (a, x), (b, y) in itertools.combinations(groups.items(), 2):
        difference, both = float(y.mean() - x.mean()), shares[a] + shares[b]
        df = both**2 / (shares[a] ** 2 / (len(x) - 1) + shares[b] ** 2 / (len(y) - 1))
        se = math.sqrt(both / 2)
        half = float(studentized_range.ppf(0.95, k, df)) * se
        p = float(studentized_range.sf(abs(difference) / se, k, df))
        t = abs(difference) / math.sqrt(both)
        rows.append([a, b, a, b, difference, difference - half, difference + half, se, t, df, p])
    return pd.DataFrame(rows, columns=GH_COLUMNS)
