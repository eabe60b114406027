"""Checks of assumptions: reported, never used as a switch between tests."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ser_analysis.scores import Array

COLUMNS = ["check", "statistic", "value", "df1", "df2", "p"]
MOST_SHAPIRO = 5000
"""Royston's approximation of the p-value (1995) reaches so far."""


def run(groups: list[Array], residuals: Array) -> pd.DataFrame:
    """Normality of the residuals and equality of the cell variances, one row per check (`COLUMNS`).

    Shapiro-Wilk on the residuals; Brown-Forsythe (median centring), Levene, Bartlett and Fligner-Killeen over the
    cells; the ratio of the largest to the smallest cell variance. A check that is not defined (too few values, no
    spread) is left out.

    Args:
        groups: the scores of each cell
        residuals: all residuals of the model
    """
    from scipy import stats

    rows: list[dict[str, object]] = []

    def add(check: str, statistic: str, value: float, p: float | None = None, *df: int) -> None:
        rows.append(
            {
                "check": check,
                "statistic": statistic,
                "value": value,
                "p": p,
                **dict(zip(("df1", "df2"), df, strict=False)),
            }
        )

    # As float, since scipy's Bartlett fails on whole numbers.
    groups = [np.asarray(group, dtype=float) for group in groups]
    spread = float(np.ptp(residuals)) if len(residuals) else 0.0
    if 3 <= len(residuals) <= MOST_SHAPIRO and spread > 1e-12 * max(
        float(np.abs(group).max(initial=0)) for group in groups
    ):
        w, p = stats.shapiro(residuals)
        add("shapiro_residuals", "W", float(w), float(p))
    variances = [float(np.var(group, ddof=1)) for group in groups if len(group) > 1]
    if len(groups) > 1 and len(variances) == len(groups) and min(variances) > 0:
        df = (len(groups) - 1, sum(map(len, groups)) - len(groups))
        with np.errstate(invalid="ignore", divide="ignore"):  # what is not defined is left out
            answers = (
                ("brown_forsythe_median_cells", "F", stats.levene(*groups, center="median"), df),
                ("levene_mean_cells", "F", stats.levene(*groups, center="mean"), df),
                ("bartlett_cells", "chi2", stats.bartlett(*groups), df[:1]),
                ("fligner_cells", "chi2", stats.fligner(*groups, center="median"), df[:1]),
            )
        for check, name, answer, degrees in answers:
            if np.isfinite(answer.statistic):
                add(check, name, float(answer.statistic), float(answer.pvalue), *degrees)
        add("variance_ratio_cells", "max_over_min", max(variances) / min(variances))
    return pd.DataFrame(rows, columns=COLUMNS).astype({"df1": "Int64", "df2": "Int64", "p": float})


def as_blocks(table: pd.DataFrame) -> dict[str, dict[str, object]]:
    """The rows of `run` as {check: {statistic: value, df1, df2, p}}."""
    blocks: dict[str, dict[str, object]] = {}
    for row in table.to_dict("records"):
        block: dict[str, object] = {str(row["statistic"]): row["value"], "p": row["p"]}
        if not pd.isna(row["df1"]):
            one = pd.isna(row["df2"])
            block |= {"df": int(row["df1"])} if one else {"df1": int(row["df1"]), "df2": int(row["df2"])}
        blocks[str(row["check"])] = block
    return blocks
