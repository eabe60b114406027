"""Repeated-measures and mixed ANOVA over blocks: each effect against its own interaction with the block."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pandas as pd

from ser_analysis.effect_sizes import holm, partial_eta2, partial_eta2_interval, partial_omega2
from ser_analysis.methods.lmm import coded
from ser_analysis.scores import Array, Scores
from ser_eval.errors import BadInput

COLUMNS = [
    "term", "df1", "df2", "mse", "F", "p", "p_gg", "p_hf", "p_holm", "p_gg_holm", "eta2_g", "partial_eta2",
    "partial_eta2_ci90_low", "partial_eta2_ci90_high", "partial_omega2", "gg_eps", "hf_eps", "mauchly_w", "mauchly_p",
]  # fmt: skip


@dataclass(frozen=True)
class Effect:
    """One effect in sums of squares."""

    term: tuple[str, ...]
    within: tuple[int, ...]
    """The within factors that it takes part in, by position: its error is their interaction with the blocks."""
    df: int
    ss: float
    error_df: int
    error_ss: float
    cells: int
    """Of the within factors together."""
    z: Array
    """(blocks, contrasts): what is left of the contrast scores beside the means of their groups."""

    @property
    def f(self) -> float:
        """NaN without an error to test against."""
        return (self.ss / self.df) / (self.error_ss / self.error_df) if self.error_ss > 0 else math.nan


def run(scores: Scores) -> pd.DataFrame:
    """One row per effect (`COLUMNS`), main effects first.

    Model: score = cell mean + block + block x effect; the block (a split) is random, every factor is fixed. Factors
    within blocks alone give repeated measures; with factors between blocks as well (a mixed design), an effect of
    between factors is tested against the blocks within groups, and every other against its within part's interaction
    with the blocks, pooled over groups. With Z = Y M, M the orthonormal contrasts of the within part, and X the groups
    in deviation coding, sums of squares are traces of the multivariate ones: type III, so that groups count the same
    whatever their sizes. Assumes normal contrast scores of equal covariance in all groups and, for several contrasts,
    sphericity: `p_gg` and `p_hf` do without (Greenhouse-Geisser; Huynh-Feldt in Lecoutre's form, as R's car; empty with
    one contrast, where nothing is to be corrected). `p_holm` adjusts `p` over the effects, `p_gg_holm` adjusts `p_gg`
    where it exists and else `p`. `eta2_g` is generalised eta2 with every factor manipulated (Olejnik & Algina 2003).
    Alternatives: sign-flip tests (`contrasts`) without normality, the mixed model (`lmm`) with missing scores.

    Only complete blocks enter.

    Raises:
        BadInput: a factor has one level, too few blocks are complete, or the scores do not vary
    """
    found = effects(scores)
    # Every error counts once: those of the within parts, that of the blocks among them.
    all_error = sum({effect.within: effect.error_ss for effect in found}.values())
    if not scores.between:
        all_error += intercept(scores).error_ss
    rows = []
    for effect in found:
        f, df1, df2 = effect.f, effect.df, effect.error_df
        row: dict[str, object] = {
            "term": ":".join(effect.term),
            "df1": df1,
            "df2": df2,
            "mse": effect.error_ss / df2,
            "F": f,
            "p": _p(f, df1, df2),
            "eta2_g": effect.ss / (effect.ss + all_error) if all_error > 0 else math.nan,
            "partial_eta2": partial_eta2(f, df1, df2),
            "partial_omega2": partial_omega2(f, df1, df1 + df2 + 1),
        }
        row["partial_eta2_ci90_low"], row["partial_eta2_ci90_high"] = partial_eta2_interval(f, df1, df2)
        if effect.z.shape[1] > 1 and effect.error_ss > 0:
            row |= _sphericity(effect)
        rows.append(row)
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    numeric = [column for column in COLUMNS if column not in ("term", "df1", "df2")]
    table[numeric] = table[numeric].astype(float)
    table["p_holm"] = holm(table["p"].to_numpy())
    table["p_gg_holm"] = holm(table["p_gg"].fillna(table["p"]).to_numpy())
    return table


def effects(scores: Scores) -> list[Effect]:
    """Every effect, main effects first, its factors in the order between, within.

    Raises:
        BadInput: as `run`
    """
    factors = [*scores.between, *scores.factors]
    first = len(scores.between)
    sums = _Sums(scores)
    return [
        sums.effect(
            tuple(factors[index] for index in term),
            tuple(index for index in term if index < first),
            tuple(index - first for index in term if index >= first),
        )
        for order in range(1, len(factors) + 1)
        for term in itertools.combinations(range(len(factors)), order)
    ]


def intercept(scores: Scores) -> Effect:
    """The grand mean against the blocks (within groups)."""
    return _Sums(scores).effect(("(Intercept)",), (), (), offset=True)


class _Sums:
    """Sums of squares of the complete blocks."""

    def __init__(self, scores: Scores) -> None:
        named = (*scores.between, *scores.factors), (*scores.between_levels, *scores.levels)
        for kind, factor, levels in zip(
            ["between"] * len(scores.between) + ["within"] * len(scores.factors), *named, strict=True
        ):
            if len(levels) < 2:
                raise BadInput(
                    f"{kind} factor '{factor}' has one level ({levels[0]}), so there is nothing to compare; "
                    "leave it out"
                )
        self.scores, whole = scores, scores.complete
        self.y = scores.values[whole]
        n = len(self.y)
        if n < 2:
            raise BadInput(
                f"repeated-measures ANOVA needs at least two blocks with a score in every one of the {self.y.shape[1]} "
                f"cells; {n} of the {len(scores.blocks)} blocks have one"
            )
        codes = {
            factor: np.array([levels.index(row[index]) for row, keep in zip(scores.groups, whole, strict=True) if keep])
            for index, (factor, levels) in enumerate(zip(scores.between, scores.between_levels, strict=True))
        }
        self.x, self.terms = np.ones((n, 1)), ["(Intercept)"]
        if codes:
            self.x, _, self.terms = coded(scores.between, scores.between_levels, codes)
            cells = list(itertools.product(*(range(len(levels)) for levels in scores.between_levels)))
            filled = set(zip(*(map(int, column) for column in codes.values()), strict=True))
            empty = [cell for cell in cells if cell not in filled]
            if empty:
                first = ", ".join(
                    f"{factor}={levels[at]}"
                    for factor, levels, at in zip(scores.between, scores.between_levels, empty[0], strict=True)
                )
                groups = " x ".join(scores.between)
                raise BadInput(f"{len(empty)} group(s) of {groups} hold no complete block ({first})")
            if n - len(cells) < 1:
                raise BadInput(
                    f"a mixed design needs more complete blocks than groups of {' x '.join(scores.between)}; there are "
                    f"{n} in {len(cells)} groups. Are the names of the blocks unique across groups?"
                )
        self.inverse = np.linalg.inv(self.x.T @ self.x)
        # Models that agree to the last digit leave rounding noise, which must not pass for an error term.
        self.noise = 1e-20 * float((self.y**2).sum())

    def effect(
        self, term: tuple[str, ...], between: tuple[int, ...], within: tuple[int, ...], offset: bool = False
    ) -> Effect:
        """The effect of these between and within factors, by position; the grand mean is one with `offset`."""
        # The grand mean is taken out of contrasts that it does not change, which saves digits.
        y = self.y if offset or not within else self.y - self.y.mean()
        z = y @ _contrasts(self.scores, within)
        beta = self.inverse @ self.x.T @ z
        name = ":".join(self.scores.between[index] for index in between) or "(Intercept)"
        rows = [index for index, of in enumerate(self.terms) if of == name]
        part = beta[rows]
        ss = float(np.trace(part.T @ np.linalg.solve(self.inverse[np.ix_(rows, rows)], part)))
        residual = z - self.x @ beta
        error = float((residual**2).sum())
        return Effect(
            term=term,
            within=within,
            df=len(rows) * z.shape[1],
            ss=ss,
            error_df=(len(z) - self.x.shape[1]) * z.shape[1],
            error_ss=error if error > self.noise else 0.0,
            cells=self.y.shape[1],
            z=residual,
        )


def _contrasts(scores: Scores, term: tuple[int, ...]) -> Array:
    """Orthonormal contrasts of a term over the cells (cells, df1): Kronecker product over the factors."""
    parts: list[Array] = [np.ones((1, 1))]
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
    return reduce(lambda a, b: np.asarray(np.kron(a, b)), parts)


def greenhouse_geisser(effect: Effect) -> float:
    """Epsilon of Greenhouse & Geisser (1959); NaN with one contrast, or without any error."""
    p = effect.z.shape[1]
    if p < 2 or not effect.error_ss > 0:
        return math.nan
    products = effect.z.T @ effect.z
    return float(np.trace(products) ** 2 / (p * (products**2).sum()))


def _sphericity(effect: Effect) -> dict[str, float]:
    """Greenhouse-Geisser and Huynh-Feldt epsilon and p, Mauchly's W and p (as R's car and mauchly.test)."""
    p = effect.z.shape[1]
    df = effect.error_df // p
    covariance = effect.z.T @ effect.z / df
    gg = greenhouse_geisser(effect)
    hf_bottom = p * (df - p * gg)
    hf = ((df + 1) * p * gg - 2) / hf_bottom if hf_bottom > 0 else math.nan
    used = min(1.0, hf) if hf > 0 else math.nan
    w, w_p = math.nan, math.nan
    if df >= p:
        w, w_p = _mauchly(covariance, df, effect.cells)
    return {
        "gg_eps": gg,
        "hf_eps": hf,
        "p_gg": _p(effect.f, gg * effect.df, gg * effect.error_df),
        "p_hf": _p(effect.f, used * effect.df, used * effect.error_df),
        "mauchly_w": w,
        "mauchly_p": w_p,
    }


def _mauchly(covariance: Array, df: int, cells: int) -> tuple[float, float]:
    """W and p. R's last digits: the second-order term of mauchly.test counts 3 times the cells, not the contrasts."""
    from scipy.stats import chi2

    p = len(covariance)
    log_w = float(np.linalg.slogdet(covariance)[1] - p * math.log(np.trace(covariance) / p))
    if not math.isfinite(log_w):
        return math.nan, math.nan
    rho = 1 - (2 * p**2 + p + 2) / (6 * p * df)
    second = (p + 2) * (p - 1) * (p - 2) * (2 * p**3 + 6 * p**2 + 3 * cells + 2) / (288 * (df * p * rho) ** 2)
    z, f = -df * rho * log_w, p * (p + 1) / 2 - 1
    first = float(chi2.sf(z, f))
    return math.exp(log_w), min(1.0, max(0.0, first + second * (float(chi2.sf(z, f + 4)) - first)))


def _p(f: float, df1: float, df2: float) -> float:
    from scipy.stats import f as f_distribution

    return float(f_distribution.sf(f, df1, df2))
