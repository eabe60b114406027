"""Descriptives of every cell."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from ser_analysis.scores import Array, Scores, column_of

COLUMNS = ["n", "n_runs", "mean", "sd", "median", "min", "max", "ci95_low", "ci95_high", "sd_within_block"]


def run(scores: Scores) -> pd.DataFrame:
    """One row per cell: its factor levels (`scores.column_of`), then `COLUMNS`, over the blocks that have a score.

    `n` counts blocks and `n_runs` the runs averaged into them; `sd` has ddof 1; the interval of the mean is Student's t
    over blocks. `sd_within_block` is the pooled SD of runs that share a block (training seeds of one split), empty
    where there is one run each.
    """
    rows, factors = [], [column_of(factor, COLUMNS) for factor in scores.factors]
    for index, cell in enumerate(scores.cells):
        column = scores.values[:, index]
        known = column[~np.isnan(column)]
        rows.append(
            {
                **dict(zip(factors, cell, strict=True)),
                **summary(known),
                "n_runs": int(scores.n_runs[:, index].sum()) if scores.n_runs is not None else len(known),
                "sd_within_block": math.nan if scores.sd_within is None else float(scores.sd_within[index]),
            }
        )
    return pd.DataFrame(rows, columns=[*factors, *COLUMNS])


def summary(values: Array) -> dict[str, float | int]:
    """n, mean, SD (ddof 1), median, min, max and 95 % t-interval of the mean; undefined ones are NaN."""
    n = len(values)
    if n == 0:
        return {"n": 0, **dict.fromkeys(("mean", "sd", "median", "min", "max", "ci95_low", "ci95_high"), math.nan)}
    mean, sd = float(values.mean()), float(values.std(ddof=1)) if n > 1 else math.nan
    low, high = t_interval(mean, sd / math.sqrt(n), n - 1)
    return {
        "n": n,
        "mean": mean,
        "sd": sd,
        "median": float(np.median(values)),
        "min": float(values.min()),
        "max": float(values.max()),
        "ci95_low": low,
        "ci95_high": high,
    }


def t_interval(mean: float, se: float, df: float) -> tuple[float, float]:
    """95 % interval mean +- t(.975, df) se; NaN for df < 1."""
    from scipy.stats import t

    half = float(t.ppf(0.975, df)) * se if df >= 1 else math.nan
    return mean - half, mean + half
