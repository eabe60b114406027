"""Between-groups ANOVA of types I, II and III: every row is a unit of its own."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, Literal

import numpy as np
import pandas as pd

from ser_analysis.effect_sizes import (
    noncentrality_interval,
    partial_epsilon2,
    partial_eta2,
    partial_eta2_interval,
    partial_omega2,
)
from ser_analysis.methods.lmm import coded, deviation
from ser_analysis.methods.marginal_means import Cells
from ser_analysis.scores import Array, Codes, natural
from ser_eval.errors import BadInput

COLUMNS = ["term", "df", "ss", "F", "p", "partial_eta2", "partial_omega2", "partial_epsilon2"]


def run(
    table: pd.DataFrame, *, dv: str, factors: Sequence[str], typ: Literal[1, 2, 3], block: str | None = None
) -> pd.DataFrame:
    """One row per effect and one for the residuals (`COLUMNS`).

    Model: score = cell mean (+ a fixed effect of the block) + error; independent rows, normal errors of equal variance.
    Type I adds the terms one after the other, II tests a term beside all that do not contain it, III beside all others.
    Factors are coded by deviation (`C(x, Sum)`): with treatment coding type III is wrong even in balanced data. Not for
    scores that share seeds or splits: those are repeated measures (`rm_anova`); with `block` this is what older papers
    do about that, one constant per seed, which takes interactions of the seed for noise. Alternatives: `robust` without
    equal variances, `oneway.welch` and `oneway.kruskal` over cells. Source: Fox (2016), Langsrud (2003).

    Raises:
        BadInput: a factor has one level, a cell is empty, no cell has two rows, or rows do not vary within cells
    """
    import statsmodels.api as sm

    if block is not None:
        return _beside_blocks(table, dv, factors, typ, block)
    model, codes = _fitted(table, dv, factors)
    answer = sm.stats.anova_lm(model, typ=typ)
    df2 = int(model.df_resid)
    rows = []
    for term, name in _terms(codes):
        line = answer.loc[term]
        rows.append(_row(name, int(line["df"]), float(line["sum_sq"]), float(line["F"]), df2, len(table)))
    rows.append({"term": "Residuals", "df": df2, "ss": float(answer.loc["Residual", "sum_sq"])})
    return pd.DataFrame(rows, columns=COLUMNS)


def _row(term: str, df: int, ss: float, f: float, df2: int, n: int) -> dict[str, object]:
    from scipy.stats import f as f_distribution

    return {
        "term": term,
        "df": df,
        "ss": ss,
        "F": f,
        "p": float(f_distribution.sf(f, df, df2)),
        "partial_eta2": partial_eta2(f, df, df2),
        "partial_omega2": partial_omega2(f, df, n),
        "partial_epsilon2": partial_epsilon2(f, df, df2),
    }


def _beside_blocks(
    table: pd.DataFrame, dv: str, factors: Sequence[str], typ: Literal[1, 2, 3], block: str
) -> pd.DataFrame:
    """`run` with a constant per block, taken out first (Frisch & Waugh 1933): a thousand blocks cost nothing."""
    if typ == 1:
        raise ValueError("type I needs an order of all terms, the block's included; it goes with types II and III")
    _refuse_constant(table, factors)
    _refuse_empty_cells(table, factors)
    ordered = table.sort_values([*factors, block, dv], kind="stable")
    levels = [sorted(set(ordered[factor]), key=natural) for factor in factors]
    codes = {
        factor: ordered[factor].map({level: at for at, level in enumerate(part)}).to_numpy(dtype=np.int64)
        for factor, part in zip(factors, levels, strict=True)
    }
    blocks = np.asarray(pd.factorize(ordered[block], sort=True)[0], dtype=np.int64)
    scores = ordered[dv].to_numpy(dtype=float)
    scores = (scores - scores.mean())[:, None]
    coding, _, of = coded(factors, levels, codes)
    x, y = _within(coding[:, 1:], blocks), _within(scores, blocks)
    n, df2, names = len(y), len(y) - x.shape[1] - int(blocks.max()) - 1, np.array(of[1:])
    if df2 < 1:
        raise BadInput(f"{dv}: {n} rows are too few for the cells of {' x '.join(factors)} and a constant per {block}")
    if np.linalg.matrix_rank(x) < x.shape[1]:
        raise BadInput(f"the effects of {' x '.join(factors)} cannot be told from those of {block}")
    residual = _squares(np.empty((n, 0)), x, y, rest=True)
    if residual <= 1e-20 * float((ordered[dv].to_numpy(dtype=float) ** 2).sum()):
        raise BadInput(f"{dv} does not vary within cells of {' x '.join(factors)}: there is no error to test against")
    mse = residual / df2
    alone = _squares(np.empty((n, 0)), coding, scores, rest=True)
    rows = [_row(block, int(blocks.max()), alone - residual, (alone - residual) / int(blocks.max()) / mse, df2, n)]
    for term in dict.fromkeys(of[1:]):
        inside = set(term.split(":"))
        beside = [typ == 3 or not inside <= set(name.split(":")) for name in names]
        mine = names == term
        ss = _squares(x[:, np.array(beside) & ~mine], x[:, mine], y)
        rows.append(_row(term, int(mine.sum()), ss, ss / int(mine.sum()) / mse, df2, n))
    rows.append({"term": "Residuals", "df": df2, "ss": residual})
    return pd.DataFrame(rows, columns=COLUMNS)


def _within(values: Array, blocks: Codes) -> Array:
    """Deviations of the columns of (rows, columns) from their means over each block."""
    means = np.stack([np.bincount(blocks, weights=column) for column in values.T], axis=1)
    return np.asarray(values - (means / np.bincount(blocks)[:, None])[blocks], dtype=np.float64)


def _squares(beside: Array, columns: Array, y: Array, *, rest: bool = False) -> float:
    """Sum of squares of y (rows, 1) that columns explain beside others, or, with `rest`, that both leave."""
    basis = np.linalg.qr(np.hstack([beside, columns]))[0]
    if rest:
        return float(((y - basis @ (basis.T @ y)) ** 2).sum())
    return float(((basis[:, beside.shape[1] :].T @ y) ** 2).sum())


def robust(table: pd.DataFrame, *, dv: str, factors: Sequence[str], typ: Literal[2, 3]) -> pd.DataFrame:
    """The same effects with a covariance that allows every row a variance of its own (HC3): term, df, F, p.

    Wald F tests with MacKinnon & White's HC3 (Long & Ervin 2000), as R's car with white.adjust = "hc3". Empty where a
    cell has one row, whose variance HC3 cannot see.
    """
    import statsmodels.api as sm

    columns = ["term", "df", "F", "p"]
    if table.groupby(list(factors)).size().min() < 2:
        return pd.DataFrame(columns=columns)
    model, codes = _fitted(table, dv, factors)
    answer = sm.stats.anova_lm(model, typ=typ, robust="hc3")
    rows: list[dict[str, object]] = []
    for term, name in _terms(codes):
        line = answer.loc[term]
        rows.append({"term": name, "df": int(line["df"]), "F": float(line["F"]), "p": float(line["PR(>F)"])})
    return pd.DataFrame([*rows, {"term": "Residuals", "df": int(model.df_resid)}], columns=columns)


def cells(table: pd.DataFrame, *, dv: str, factors: Sequence[str]) -> Cells:
    """The cell means with the pooled variance of the rows around them, for `marginal_means`."""
    levels = tuple(tuple(sorted(set(table[factor]), key=natural)) for factor in factors)
    grouped = dict(iter(table.groupby(list(factors), sort=False)[dv]))
    values = [np.sort(grouped[cell].to_numpy(dtype=float)) for cell in itertools.product(*levels)]
    sizes = np.array([len(part) for part in values])
    df = int(sizes.sum()) - len(values)
    mse = sum(float(((part - part.mean()) ** 2).sum()) for part in values) / df
    return Cells(
        factors=tuple(factors),
        levels=levels,
        mean=np.array([part.mean() for part in values]),
        covariance=np.diag(mse / sizes),
        df=lambda weights: df,
    )


def from_summaries(
    table: pd.DataFrame, *, mean: str, sd: str, n: str, factors: Sequence[str], population: bool
) -> pd.DataFrame:
    """Type III ANOVA of published cell means and SDs: term, ss, df, F, df2, p, partial_eta2, partial_omega2.

    Model: as `run`; a full factorial needs no more than mean, SD and number of scores of each cell. `population` says
    that the SD was divided by n (numpy's default) instead of n - 1, which papers rarely tell.

    Args:
        table: one row per cell
        mean: column of the means; `sd` and `n` likewise, numbers with n of at least 2
        factors: the columns that name the cells
        population: ddof 0
    """
    from scipy.stats import f as f_distribution

    levels = [sorted(set(table[factor]), key=natural) for factor in factors]
    rows = table.set_index(list(factors)).loc[list(itertools.product(*levels))] if len(factors) > 1 else None
    if rows is None:
        rows = table.set_index(factors[0]).loc[levels[0]]
    means, sds, sizes = (rows[column].to_numpy(dtype=float) for column in (mean, sd, n))
    df2 = int(sizes.sum()) - len(sizes)
    mse = float((sds**2 * (sizes if population else sizes - 1)).sum()) / df2
    told = []
    for term in _lattice(len(factors)):
        contrast = reduce(
            np.kron,
            [
                _differences(len(part)) if index in term else np.full((1, len(part)), 1 / len(part))
                for index, part in enumerate(levels)
            ],
        )
        effect = contrast @ means
        ss = float(effect @ np.linalg.solve((contrast / sizes) @ contrast.T, effect))
        df = len(contrast)
        f = ss / df / mse
        told.append(
            {
                "term": ":".join(factors[index] for index in term),
                "ss": ss,
                "df": df,
                "F": f,
                "df2": df2,
                "p": float(f_distribution.sf(f, df, df2)),
                "partial_eta2": partial_eta2(f, df, df2),
                "partial_omega2": partial_omega2(f, df, float(sizes.sum())),
            }
        )
    return pd.DataFrame(told)


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


def effect_sizes(anova: pd.DataFrame) -> dict[str, list[dict[str, object]]]:
    """Partial eta2, omega2 and epsilon2 of each effect of `run` with 90 % intervals, as R's effectsize.

    Sizes beneath 0 are told as 0; the interval of omega2 and epsilon2 is that of the F which would give an eta2 of
    their size.
    """
    df2 = int(anova.loc[anova["term"] == "Residuals", "df"].iloc[0])
    told: dict[str, list[dict[str, object]]] = {}
    for block, column, name in (
        ("eta2p", "partial_eta2", "Eta2_partial"),
        ("omega2p", "partial_omega2", "Omega2_partial"),
        ("epsilon2p", "partial_epsilon2", "Epsilon2_partial"),
    ):
        told[block] = []
        for row in anova[anova["term"] != "Residuals"].to_dict("records"):
            df, size = int(row["df"]), max(0.0, float(row[column]))
            f = size / df / ((1 - size) / df2) if size < 1 else math.nan
            low, high = partial_eta2_interval(f, df, df2)
            told[block].append(
                {"term": row["term"], "Parameter": row["term"], name: size, "CI": 0.9, "CI_low": low, "CI_high": high}
            )
    return told


def _fitted(table: pd.DataFrame, dv: str, factors: Sequence[str]) -> tuple[Any, dict[str, str]]:
    from statsmodels.formula.api import ols

    _refuse_constant(table, factors)
    _refuse_empty_cells(table, factors)
    codes = {f"f{index}": factor for index, factor in enumerate(factors)}
    # Sorted, since a sum in floating point depends on the order of its terms, and so would the result on the file's.
    ordered = table.sort_values([*factors, dv], kind="stable")
    frame = pd.DataFrame({"y": ordered[dv].to_numpy(dtype=float)})
    for code, factor in codes.items():
        frame[code] = ordered[factor].astype(object).to_numpy()
    model = ols("y ~ " + " * ".join(f"C({code}, Sum)" for code in codes), data=frame).fit()
    if model.df_resid < 1:
        raise BadInput(
            "between-groups ANOVA needs at least two rows in some cell; each cell has one. Is --block missing?"
        )
    if model.ssr <= 1e-20 * float((frame["y"] ** 2).sum()):
        raise BadInput(f"{dv} does not vary within cells of {' x '.join(factors)}: there is no error to test against")
    return model, codes


def _terms(codes: dict[str, str]) -> list[tuple[str, str]]:
    """What the fitted model calls each term, and its name."""
    inner = list(codes)
    return [
        (":".join(f"C({inner[index]}, Sum)" for index in term), ":".join(codes[inner[index]] for index in term))
        for term in _lattice(len(inner))
    ]


def _lattice(k: int) -> list[tuple[int, ...]]:
    return [term for order in range(1, k + 1) for term in itertools.combinations(range(k), order)]


def _differences(k: int) -> Array:
    """k - 1 contrasts that vanish where all levels agree, (k - 1, k)."""
    return np.asarray(np.linalg.pinv(deviation(k)))


def _refuse_constant(table: pd.DataFrame, factors: Sequence[str]) -> None:
    for factor in factors:
        if table[factor].nunique() < 2:
            raise BadInput(f"between factor '{factor}' has one level ({table[factor].iloc[0]}); leave it out")


def _refuse_empty_cells(table: pd.DataFrame, factors: Sequence[str]) -> None:
    levels = [sorted(set(table[factor])) for factor in factors]
    filled = set(zip(*(table[factor] for factor in factors), strict=True))
    empty = [cell for cell in itertools.product(*levels) if cell not in filled]
    if empty:
        named = "; ".join(", ".join(f"{f}={v}" for f, v in zip(factors, cell, strict=True)) for cell in empty[:5])
        raise BadInput(
            f"{len(empty)} cell(s) of {' x '.join(factors)} hold no row ({named}); type II and III are not defined"
        )
