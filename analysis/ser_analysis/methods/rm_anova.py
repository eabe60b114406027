"""Repeated-measures ANOVA over blocks: each effect against its own interaction with the block."""

from __future__ import annotations

import itertools
import math
from functools import reduce

import numpy as np
import pandas as pd

from ser_analysis.effect_sizes import holm, partial_eta2, partial_eta2_interval, partial_omega2
from ser_analysis.scores import Array, Scores
from ser_eval.errors import BadInput

COLUMNS = [
    "term", "df1", "df2", "mse", "F", "p", "p_gg", "p_hf", "p_holm", "p_gg_holm", "eta2_g", "partial_eta2",
    "partial_eta2_ci90_low", "partial_eta2_ci90_high", "partial_omega2", "gg_eps", "hf_eps", "mauchly_w", "mauchly_p",
]  # fmt: skip


def run(scores: Scores) -> pd.DataFrame:
    """One row per effect (`COLUMNS`), main effects first.

    Model: score = cell mean + block + block x effect; the block (a split) is random, every factor is fixed and varies
    within blocks. With Z = Y M, M the orthonormal contrasts of a term, F = n |mean Z|^2 / df1 over the mean square of Z
    around its mean. Assumes normal contrast scores and, for df1 > 1, sphericity: `p_gg` and `p_hf` do without
    (Greenhouse-Geisser, Huynh-Feldt; empty where df1 = 1, since nothing is to be corrected). `p_holm` adjusts `p` over
    the effects, `p_gg_holm` adjusts `p_gg` where it exists and else `p`. `eta2_g` is generalised eta2 with every factor
    manipulated (Olejnik & Algina 2003). Alternative without normality: the sign-flip tests of `contrasts`.

    Only complete blocks enter.

    Raises:
        BadInput: a factor has one level, or fewer than two blocks are complete
    """
    for factor, levels in zip(scores.factors, scores.levels, strict=True):
        if len(levels) < 2:
            raise BadInput(
                f"within factor '{factor}' has one level ({levels[0]}), so there is nothing to compare; leave it out"
            )
    y = scores.values[scores.complete]
    n = len(y)
    if n < 2:
        raise BadInput(
            f"repeated-measures ANOVA needs at least two blocks with a score in every one of the {y.shape[1]} cells; "
            f"{n} of the {len(scores.blocks)} blocks have one"
        )
    terms = [
        term
        for order in range(1, len(scores.factors) + 1)
        for term in itertools.combinations(range(len(scores.factors)), order)
    ]
    # The mean of each block is constant over the cells: taking it out changes no contrast and saves digits.
    contrast_scores = {term: (y - y.mean()) @ _contrasts(scores, term) for term in terms}
    errors = {term: float(((z - z.mean(axis=0)) ** 2).sum()) for term, z in contrast_scores.items()}
    subjects = y.shape[1] * float(((y.mean(axis=1) - y.mean()) ** 2).sum())
    all_error = subjects + sum(errors.values())
    # Models that agree to the last digit leave rounding noise, which must not pass for an error term.
    noise = 1e-20 * float((y**2).sum())

    rows = []
    for term in terms:
        z, error = contrast_scores[term], errors[term]
        df1, df2 = z.shape[1], z.shape[1] * (n - 1)
        effect = n * float((z.mean(axis=0) ** 2).sum())
        f = (effect / df1) / (error / df2) if error > noise else math.nan
        row: dict[str, object] = {
            "term": ":".join(scores.factors[index] for index in term),
            "df1": df1,
            "df2": df2,
            "mse": error / df2,
            "F": f,
            "p": _p(f, df1, df2),
            "eta2_g": effect / (effect + all_error) if all_error > noise else math.nan,
            "partial_eta2": partial_eta2(f, df1, df2),
            "partial_omega2": partial_omega2(f, df1, df1 + df2 + 1),
        }
        row["partial_eta2_ci90_low"], row["partial_eta2_ci90_high"] = partial_eta2_interval(f, df1, df2)
        if df1 > 1 and error > noise:
            row |= _sphericity(z, f)
        rows.append(row)
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    numeric = [column for column in COLUMNS if column not in ("term", "df1", "df2")]
    table[numeric] = table[numeric].astype(float)
    table["p_holm"] = holm(table["p"].to_numpy())
    table["p_gg_holm"] = holm(table["p_gg"].where(table["df1"] > 1, table["p"]).to_numpy())
    return table


def _contrasts(scores: Scores, term: tuple[int, ...]) -> Array:
    """Orthonormal contrasts of a term over the cells (cells, df1): Kronecker product over the factors."""
    parts = []
    for index, levels in enumerate(scores.levels):
        k = len(levels)
        if index not in term:
            parts.append(np.full((k, 1), 1 / math.sqrt(k)))
            continue
        helmert = np.zeros((k, k - 1))
        for column in range(k - 1):
            helmert[: column + 1, column] = 1
            helmert[column + 1, column] = -(column + 1)
        parts.append(helmert / np.linalg.norm(helmert, axis=0))
    return reduce(np.kron, parts)


def _sphericity(z: Array, f: float) -> dict[str, float]:
    """Greenhouse-Geisser and Huynh-Feldt epsilon and p, Mauchly's W and p (as R's car and mauchly.test)."""
    n, p = z.shape
    df = n - 1
    covariance = np.atleast_2d(np.cov(z, rowvar=False))
    gg = float(np.trace(covariance) ** 2 / (p * (covariance**2).sum()))
    hf_bottom = p * (df - p * gg)
    hf = ((df + 1) * p * gg - 2) / hf_bottom if hf_bottom > 0 else math.nan
    used = min(1.0, hf) if hf > 0 else math.nan
    w, w_p = math.nan, math.nan
    if df >= p:
        w, w_p = _mauchly(covariance, df)
    return {
        "gg_eps": gg,
        "hf_eps": hf,
        "p_gg": _p(f, gg * p, gg * p * df),
        "p_hf": _p(f, used * p, used * p * df),
        "mauchly_w": w,
        "mauchly_p": w_p,
    }


def _mauchly(covariance: Array, df: int) -> tuple[float, float]:
    from scipy.stats import chi2

    p = len(covariance)
    log_w = float(np.linalg.slogdet(covariance)[1] - p * math.log(np.trace(covariance) / p))
    if not math.isfinite(log_w):
        return math.nan, math.nan
    rho = 1 - (2 * p**2 + p + 2) / (6 * p * df)
    second = (p + 2) * (p - 1) * (p - 2) * (2 * p**3 + 6 * p**2 + 3 * p + 2) / (288 * (df * p * rho) ** 2)
    z, f = -df * rho * log_w, p * (p + 1) / 2 - 1
    first = float(chi2.sf(z, f))
    return math.exp(log_w), min(1.0, max(0.0, first + second * (float(chi2.sf(z, f + 4)) - first)))


def _p(f: float, df1: float, df2: float) -> float:
    from scipy.stats import f as f_distribution

    return float(f_distribution.sf(f, df1, df2))
