"""Between-groups ANOVA, type II and III: every row is a unit of its own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import pandas as pd

from ser_analysis.effect_sizes import noncentrality_interval, partial_epsilon2, partial_eta2, partial_omega2
from ser_eval.errors import BadInput

COLUMNS = ["term", "df", "ss", "F", "p", "partial_eta2", "partial_omega2", "partial_epsilon2"]


def run(table: pd.DataFrame, *, dv: str, factors: Sequence[str], typ: Literal[2, 3]) -> pd.DataFrame:
    """One row per effect and one for the residuals (`COLUMNS`).

    Model: score = cell mean + error; independent rows, normal errors of equal variance. Factors are coded by deviation
    (`C(x, Sum)`): with treatment coding type III is wrong even in balanced data. Not for scores that share seeds or
    splits: those are repeated measures (`rm_anova`).

    Raises:
        BadInput: a factor has one level, a cell is empty, or no cell has two rows
    """
    import statsmodels.api as sm
    from statsmodels.formula.api import ols

    for factor in factors:
        if table[factor].nunique() < 2:
            raise BadInput(f"between factor '{factor}' has one level ({table[factor].iloc[0]}); leave it out")
    _refuse_empty_cells(table, factors)
    codes = {f"f{index}": factor for index, factor in enumerate(factors)}
    frame = pd.DataFrame({"y": table[dv].to_numpy(dtype=float)})
    for code, factor in codes.items():
        frame[code] = table[factor].astype(object).to_numpy()
    model = ols("y ~ " + " * ".join(f"C({code}, Sum)" for code in codes), data=frame).fit()
    if model.df_resid < 1:
        raise BadInput(
            "between-groups ANOVA needs at least two rows in some cell; each cell has one. Is --block missing?"
        )
    answer = sm.stats.anova_lm(model, typ=typ)
    df2 = float(model.df_resid)
    rows = []
    for term in [names for order in range(1, len(codes) + 1) for names in itertools.combinations(codes, order)]:
        line = answer.loc[":".join(f"C({code}, Sum)" for code in term)]
        df, f = int(line["df"]), float(line["F"])
        rows.append(
            {
                "term": ":".join(codes[code] for code in term),
                "df": df,
                "ss": float(line["sum_sq"]),
                "F": f,
                "p": float(line["PR(>F)"]),
                "partial_eta2": partial_eta2(f, df, df2),
                "partial_omega2": partial_omega2(f, df, len(frame)),
                "partial_epsilon2": partial_epsilon2(f, df, df2),
            }
        )
    rows.append({"term": "Residuals", "df": int(df2), "ss": float(answer.loc["Residual", "sum_sq"])})
    return pd.DataFrame(rows, columns=COLUMNS)


def effect_intervals(anova: pd.DataFrame) -> pd.DataFrame:
    """90 % noncentral-F intervals of partial eta2 for each effect of `run`: ncp / (ncp + N) and ncp / (ncp + df2).

    N = df1 + df2 + 1, the observations that the effect and its error term account for (Steiger 2004).
    """
    df2 = int(anova.loc[anova["term"] == "Residuals", "df"].iloc[0])
    rows = []
    for row in anova[anova["term"] != "Residuals"].to_dict("records"):
        n = int(row["df"]) + df2 + 1
        low, high = noncentrality_interval(float(row["F"]), float(row["df"]), df2)
        rows.append(
            {
                "term": row["term"],
                "ci": 0.9,
                "ncp_over_ncp_plus_N_low": low / (low + n),
                "ncp_over_ncp_plus_N_high": high / (high + n),
                "ncp_over_ncp_plus_df2_low": low / (low + df2),
                "ncp_over_ncp_plus_df2_high": high / (high + df2),
            }
        )
    return pd.DataFrame(rows)


def _refuse_empty_cells(table: pd.DataFrame, factors: Sequence[str]) -> None:
    levels = [sorted(set(table[factor])) for factor in factors]
    filled = set(zip(*(table[factor] for factor in factors), strict=True))
    empty = [cell for cell in itertools.product(*levels) if cell not in filled]
    if empty:
        named = "; ".join(", ".join(f"{f}={v}" for f, v in zip(factors, cell, strict=True)) for cell in empty[:5])
        raise BadInput(
            f"{len(empty)} cell(s) of {' x '.join(factors)} hold no row ({named}); type II and III are not defined"
        )
