"""Aligned rank transform (ART): a factorial analysis of ranks, for comparison with papers that use it.

Every effect gets a transform of its own: from each score is taken what its cell explains, the estimate of one effect
is put back ("aligned"), the sums are ranked, and of an ANOVA of these ranks the line of that effect alone is read
(Wobbrock, Findlater, Gergle & Higgins 2011). Contrasts align for the combination of levels that is compared (ART-C;
Elkin, Kay, Higgins & Wobbrock 2021).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ser_analysis.effect_sizes import holm, partial_eta2
from ser_analysis.methods import between_anova, lmm, rm_anova
from ser_analysis.scores import Array, Codes, Scores, natural, subset
from ser_eval.errors import BadInput

COLUMNS = [
    "term", "df1", "df2", "F", "p", "p_gg", "partial_eta2", "df2_pooled", "F_pooled", "p_pooled", "column_sum",
    "F_of_stripped_effects",
]  # fmt: skip
BETWEEN_COLUMNS = ["term", "df1", "df2", "F", "p", "partial_eta2", "column_sum", "F_of_stripped_effects"]
CONTRAST_COLUMNS = ["family", "at", "a", "b", "estimate", "SE", "t", "df", "p", "p_holm"]
STRIPPED = 1e-6
"""Largest F of an effect that counts as stripped out."""
_DIGITS = 10
"""Digits of an aligned score, in units of the largest, that are ranked: what rounding leaves must not break a tie."""


def run(scores: Scores) -> pd.DataFrame:
    """One row per effect (`COLUMNS`) of blocks x cells, in a mixed design of groups of blocks too.

    Model: ranks of the aligned scores behave as scores do in `rm_anova`; each effect is tested against its own
    interaction with the block (`F`, `p`, and `p_gg` without sphericity). `F_pooled` puts all errors within blocks
    together, as R's ARTool does for `art(y ~ a * b + (1|block))`. The ranks need no normal scores, but equal shapes and
    spreads; where spreads differ, or many scores are tied, the test rejects too often (Luepsen 2017). It says that an
    effect is there, in ranks, and not how large it is. Alternatives: `rm_anova` beside the sign-flip tests
    (`contrasts`), `friedman` for one factor. Target: that of the blocks. Complete blocks only.

    `column_sum` is the sum of the aligned scores, in units of the largest, and `F_of_stripped_effects` the largest F of
    any other effect in an ANOVA of the aligned scores before ranking: both are 0 where the alignment is clean, the
    second is not in groups of unequal size.

    Raises:
        BadInput: as `rm_anova.run`
    """
    from scipy.stats import f as f_distribution

    whole = subset(scores, scores.complete)  # and without replicates, whose means are ranked
    names, labels, y = _long(whole)
    rows = []
    for effect in rm_anova.effects(whole):
        aligned = align(y, [labels[names.index(factor)] for factor in effect.term], labels)
        shape = whole.values.shape
        ranked = rm_anova.effects(replace(whole, values=_ranks(aligned).reshape(shape)))
        own = next(part for part in ranked if part.term == effect.term)
        others = rm_anova.effects(replace(whole, values=aligned.reshape(shape)))
        errors = {part.within: part for part in ranked if part.within}
        pooled_df, pooled_ss = own.error_df, own.error_ss
        if own.within:
            pooled_df, pooled_ss = (
                sum(getattr(part, name) for part in errors.values()) for name in ("error_df", "error_ss")
            )
        f, pooled = own.f, own.ss / own.df / (pooled_ss / pooled_df) if pooled_ss > 0 else math.nan
        gg = rm_anova.greenhouse_geisser(own)
        rows.append(
            {
                "term": ":".join(effect.term), "df1": own.df, "df2": own.error_df, "F": f,
                "p": float(f_distribution.sf(f, own.df, own.error_df)),
                "p_gg": float(f_distribution.sf(f, gg * own.df, gg * own.error_df)) if not math.isnan(gg) else math.nan,
                "partial_eta2": partial_eta2(f, own.df, own.error_df), "df2_pooled": pooled_df, "F_pooled": pooled,
                "p_pooled": float(f_distribution.sf(pooled, own.df, pooled_df)),
                **_checks(aligned, [part.f for part in others if part.term != effect.term]),
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def between(table: pd.DataFrame, *, dv: str, factors: Sequence[str]) -> pd.DataFrame:
    """One row per effect (`BETWEEN_COLUMNS`) of rows that are units of their own, as `run` otherwise.

    Of each ANOVA of ranks (type III, deviation coding) the line of the effect is read, as R's ARTool does for
    `art(y ~ a * b)`.

    Raises:
        BadInput: as `between_anova.run`
    """
    from scipy.stats import f as f_distribution

    ordered, levels, labels, y = _rows(table, dv, factors)
    codes = dict(zip(factors, labels, strict=True))
    x, _, terms = lmm.coded(factors, levels, codes)
    if np.linalg.matrix_rank(x) < x.shape[1] or len(ordered) <= x.shape[1]:
        raise BadInput("aligned ranks need a row in every cell, and two in some")
    inverse: Array = np.asarray(np.linalg.inv(x.T @ x), dtype=float)
    df2, rows = len(y) - x.shape[1], []
    for order in range(1, len(factors) + 1):
        for term in itertools.combinations(range(len(factors)), order):
            name = ":".join(factors[index] for index in term)
            aligned = align(y, [labels[index] for index in term], labels)
            df1, f = _type3(_ranks(aligned), x, inverse, terms)[name]
            others = _type3(aligned, x, inverse, terms)
            rows.append(
                {
                    "term": name, "df1": df1, "df2": df2, "F": f, "p": float(f_distribution.sf(f, df1, df2)),
                    "partial_eta2": partial_eta2(f, df1, df2),
                    **_checks(aligned, [value for other, (_, value) in others.items() if other != name]),
                }
            )  # fmt: skip
    return pd.DataFrame(rows, columns=BETWEEN_COLUMNS)


def _rows(
    table: pd.DataFrame, dv: str, factors: Sequence[str]
) -> tuple[pd.DataFrame, list[list[str]], list[Codes], Array]:
    """Rows in an order that does not depend on the file's, levels, codes and scores."""
    ordered = table.sort_values([*factors, dv], kind="stable").reset_index(drop=True)
    levels = [sorted(set(ordered[factor]), key=natural) for factor in factors]
    labels = [
        ordered[factor].map({level: index for index, level in enumerate(part)}).to_numpy(dtype=np.int64)
        for factor, part in zip(factors, levels, strict=True)
    ]
    return ordered, levels, labels, ordered[dv].to_numpy(dtype=float)


def _type3(y: Array, x: Array, inverse: Array, terms: Sequence[str]) -> dict[str, tuple[int, float]]:
    """df1 and F of every term of y on x in deviation coding, `inverse` being that of x'x; NaN without an error."""
    beta = inverse @ (x.T @ y)
    error = float(((y - x @ beta) ** 2).sum()) / (len(y) - x.shape[1])
    told = {}
    for name in dict.fromkeys(terms[1:]):
        rows = [index for index, of in enumerate(terms) if of == name]
        ss = float(beta[rows] @ np.linalg.solve(inverse[np.ix_(rows, rows)], beta[rows]))
        told[name] = len(rows), ss / len(rows) / error if error > 0 else math.nan
    return told


def contrasts(scores: Scores) -> pd.DataFrame:
    """ART-C over blocks: models at each test set, then the levels of each factor (`CONTRAST_COLUMNS`).

    Model: the scores are aligned for the main effect of the combination of factors whose levels are compared and
    ranked; a mixed model of the ranks with `(1|block)` gives differences of mean ranks, t and Satterthwaite df, as R's
    `ARTool::art.con`. Holm within a family (`family`, `at`). `estimate` is in ranks, not in units of the score.

    Raises:
        BadInput: as `lmm.fit`
    """
    from scipy.stats import t as t_distribution

    whole = subset(scores, scores.complete)  # and without replicates, whose means are ranked
    names, labels, y = _long(whole)
    table = lmm.design(whole)
    x, _, _ = table.fixed()
    levels = (*whole.between_levels, *whole.levels)
    grid = np.array(list(itertools.product(*(range(len(part)) for part in levels))), dtype=np.int64)
    of_cells, _, _ = lmm.coded(names, levels, {name: grid[:, index] for index, name in enumerate(names)})
    place_of = [names.index(factor) for factor in whole.factors if factor not in whole.model]
    model_of = [index for index, name in enumerate(names) if index not in place_of]
    several = len(names) > 1
    families = [("+".join(names[index] for index in model_of), model_of, place_of, tuple(range(len(names))))]
    families += [(name, [index], [], (index,)) for index, name in enumerate(names) if several]
    rows = []
    for family, compared, at_factors, combined in families:
        aligned = align(y, [_combined([labels[index] for index in combined])], labels)
        fitted = lmm.fit(_ranks(aligned), x, {whole.block_name: table.codes[whole.block_name]})
        for place in itertools.product(*(range(len(levels[index])) for index in at_factors)):
            here = np.all(grid[:, at_factors] == np.array(place, dtype=np.int64), axis=1)
            sides = {}
            for side in itertools.product(*(range(len(levels[index])) for index in compared)):
                chosen = here & np.all(grid[:, compared] == np.array(side), axis=1)
                parts = tuple(levels[index][level] for index, level in zip(compared, side, strict=True))
                name = (
                    whole.name(parts) if tuple(names[index] for index in compared) == whole.model else "+".join(parts)
                )
                sides[name] = of_cells[chosen].mean(axis=0)
            at = ", ".join(f"{names[i]}={levels[i][level]}" for i, level in zip(at_factors, place, strict=True))
            told = []
            for (a, one), (b, other) in itertools.combinations(sides.items(), 2):
                row = one - other
                estimate, se, df = float(row @ fitted.beta), math.sqrt(row @ fitted.covariance @ row), fitted.df(row)
                p = 2 * float(t_distribution.sf(abs(estimate) / se, df))
                told.append([family, at, a, b, estimate, se, estimate / se, df, p])
            adjusted = holm(np.array([row[-1] for row in told], dtype=float))
            rows += [[*row, float(p)] for row, p in zip(told, adjusted, strict=True)]
    return pd.DataFrame(rows, columns=CONTRAST_COLUMNS)


def between_contrasts(table: pd.DataFrame, *, dv: str, factors: Sequence[str]) -> pd.DataFrame:
    """ART-C over rows that are units: all pairs of cells, then of the levels of each factor (`CONTRAST_COLUMNS`).

    As `contrasts`, with the error of an ordinary ANOVA of the ranks: R's `art.con` on `art(y ~ a * b)`.

    Raises:
        BadInput: as `between_anova.run`
    """
    from scipy.stats import t as t_distribution

    ordered, _, labels, y = _rows(table, dv, factors)
    frame = ordered[list(factors)]
    families = [tuple(range(len(factors)))] + ([(index,) for index in range(len(factors))] if len(factors) > 1 else [])
    column, rows = _free(factors), []
    for combined in families:
        aligned = align(y, [_combined([labels[index] for index in combined])], labels)
        ranked = frame.assign(**{column: _ranks(aligned)})
        cells = between_anova.cells(ranked, dv=column, factors=factors)
        if not cells.covariance.max() > 0:
            raise BadInput("aligned ranks do not vary within cells: there is no error to test against")
        named = [factors[index] for index in combined]
        sides = {
            "+".join(side): cells.weights(dict(zip(named, side, strict=True)))
            for side in itertools.product(*(cells.levels[index] for index in combined))
        }
        told = []
        for (a, one), (b, other) in itertools.combinations(sides.items(), 2):
            estimate, se, df = cells.line(one - other)
            p = 2 * float(t_distribution.sf(abs(estimate) / se, df))
            told.append(["+".join(named), "", a, b, estimate, se, estimate / se, df, p])
        adjusted = holm(np.array([row[-1] for row in told], dtype=float))
        rows += [[*row, float(p)] for row, p in zip(told, adjusted, strict=True)]
    return pd.DataFrame(rows, columns=CONTRAST_COLUMNS)


def align(y: Array, term: Sequence[Codes], factors: Sequence[Codes]) -> Array:
    """The scores (n,) with every effect taken out but one: residual + estimated effect (Wobbrock et al. 2011, eq. 1).

    Args:
        y: (n,)
        term: codes of the factors of the effect, each (n,); means are of the rows
        factors: codes of all factors
    """
    effect = np.zeros(len(y))
    for order in range(len(term) + 1):
        for part in itertools.combinations(term, order):
            effect += (-1) ** (len(term) - order) * _means(y, part)
    return np.asarray(y - _means(y, factors) + effect)


def _means(y: Array, factors: Sequence[Codes]) -> Array:
    """For each row the mean of all rows with its levels; of all rows without a factor."""
    codes = _combined(factors) if len(factors) else np.zeros(len(y), dtype=np.int64)
    return np.asarray((np.bincount(codes, weights=y) / np.maximum(np.bincount(codes), 1))[codes])


def _combined(factors: Sequence[Codes]) -> Codes:
    """One code per combination of levels."""
    return np.asarray(np.unique(np.column_stack(factors), axis=0, return_inverse=True)[1], dtype=np.int64).reshape(-1)


def _ranks(aligned: Array) -> Array:
    from scipy.stats import rankdata

    largest = float(np.abs(aligned).max())
    return np.asarray(
        rankdata(np.round(aligned / largest, _DIGITS)) if largest > 0 else np.ones(len(aligned)), dtype=float
    )


def _checks(aligned: Array, others: Sequence[float]) -> dict[str, float]:
    known = [f for f in others if not math.isnan(f)]
    largest = max(float(np.abs(aligned).max()), 1e-300)
    return {"column_sum": float(aligned.sum()) / largest, "F_of_stripped_effects": max(known, default=0.0)}


def _long(scores: Scores) -> tuple[list[str], list[Codes], Array]:
    """Factors (between, then within), their codes per score, and the scores, block by block."""
    blocks, cells = scores.values.shape
    labels = [
        np.repeat([levels.index(group[index]) for group in scores.groups], cells).astype(np.int64)
        for index, levels in enumerate(scores.between_levels)
    ]
    grid = np.array(list(itertools.product(*(range(len(part)) for part in scores.levels))), dtype=np.int64)
    labels += [np.tile(grid[:, index], blocks) for index in range(len(scores.factors))]
    return [*scores.between, *scores.factors], labels, scores.values.ravel()


def _free(taken: Sequence[str]) -> str:
    """A name that no factor has."""
    return next(
        name for name in itertools.chain(("aligned",), (f"aligned{k}" for k in itertools.count())) if name not in taken
    )
