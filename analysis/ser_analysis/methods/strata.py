"""Error strata: the same sums of squares as `rm_anova`, pooled as a split-plot or a classical `aov` table has them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from ser_analysis.methods import rm_anova
from ser_analysis.scores import Scores

COLUMNS = ["stratum", "term", "df", "ss", "ms", "F", "p"]


def run(scores: Scores, *, plots: Sequence[str], by_plot: bool = False) -> pd.DataFrame:
    """One row per effect and per residual of each stratum (`COLUMNS`).

    Model: a block holds whole plots (trained models), and a whole plot holds sub-plots (the places where the one
    trained model is tested); block, whole plot and sub-plot are random. Effects of the model stand in the stratum of
    the whole plots, everything with a factor of `plots` in the one beneath (Yates 1935); `by_plot` gives the places a
    stratum of their own, for blocks that favour a place. Assumes normal errors of equal variance within each stratum:
    stronger than `rm_anova`, where each effect has its own error. Complete blocks only. Alternative: `lmm`.

    Args:
        scores: blocks x cells
        plots: the factors of the sub-plots
        by_plot: whether effects of the places alone are tested against their own interaction with the blocks
    """
    whole = [factor for factor in scores.factors if factor not in plots]
    strata: dict[str, list[rm_anova.Effect]] = {f"Error: {scores.block_name}": []}
    inner = [f"Error: {scores.block_name}:{_name(part)}" for part in (whole, plots)]
    for effect in rm_anova.effects(scores):
        inside = [factor for factor in effect.term if factor not in scores.between]
        if not inside:
            strata[f"Error: {scores.block_name}"].append(effect)
        elif set(inside) <= set(whole):
            strata.setdefault(inner[0], []).append(effect)
        elif by_plot and set(inside) <= set(plots):
            strata.setdefault(inner[1], []).append(effect)
        else:
            strata.setdefault("Error: Within", []).append(effect)
    order = [f"Error: {scores.block_name}", *inner, "Error: Within"]
    return _table(scores, {name: strata[name] for name in order if name in strata})


def each(scores: Scores) -> pd.DataFrame:
    """The strata of `rm_anova` itself: every within part against its own interaction with the blocks."""
    strata: dict[str, list[rm_anova.Effect]] = {f"Error: {scores.block_name}": []}
    for effect in rm_anova.effects(scores):
        inside = [scores.block_name, *(scores.factors[index] for index in effect.within)]
        strata.setdefault(f"Error: {':'.join(inside)}", []).append(effect)
    return _table(scores, strata)


def _name(factors: Sequence[str]) -> str:
    return factors[0] if len(factors) == 1 else "model"


def _table(scores: Scores, strata: dict[str, list[rm_anova.Effect]]) -> pd.DataFrame:
    from scipy.stats import f as f_distribution

    rows: list[dict[str, object]] = []
    for stratum, effects in strata.items():
        # The effects of several groups share the error of their within part, which counts once.
        errors = {effect.within: effect for effect in effects} or {(): rm_anova.intercept(scores)}
        df, ss = sum(part.error_df for part in errors.values()), sum(part.error_ss for part in errors.values())
        for effect in effects:
            f = effect.ss / effect.df / (ss / df) if ss > 0 else math.nan
            p = float(f_distribution.sf(f, effect.df, df))
            rows.append(
                {"stratum": stratum, "term": ":".join(effect.term), "df": effect.df, "ss": effect.ss,
                 "ms": effect.ss / effect.df, "F": f, "p": p}
            )  # fmt: skip
        rows.append({"stratum": stratum, "term": "Residuals", "df": df, "ss": ss, "ms": ss / df})
    return pd.DataFrame(rows, columns=COLUMNS)
