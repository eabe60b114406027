"""Estimated marginal means and their contrasts, of a between-groups ANOVA or of a mixed model."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from ser_analysis.effect_sizes import holm
from ser_analysis.scores import Array, column_of

Adjust = Literal["tukey", "holm", "none"]
MEAN_COLUMNS = ["emmean", "SE", "df", "lower.CL", "upper.CL"]
CONTRAST_COLUMNS = ["estimate", "SE", "df", "lower.CL", "upper.CL", "t.ratio", "p"]


@dataclass(frozen=True)
class Cells:
    """Fitted cell means, their covariance, and the df of any weighted sum of them."""

    factors: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    mean: Array
    """(cells,), the last factor fastest"""
    covariance: Array
    """(cells, cells)"""
    df: Callable[[Array], float]

    def weights(self, at: Mapping[str, str]) -> Array:
        """The equally weighted mean of the cells at these levels."""
        chosen = np.array(
            [
                all(cell[self.factors.index(factor)] == level for factor, level in at.items())
                for cell in itertools.product(*self.levels)
            ]
        )
        return np.asarray(chosen / chosen.sum())

    def line(self, weights: Array) -> tuple[float, float, float]:
        """Estimate, standard error and df of a weighted sum."""
        return (
            float(weights @ self.mean),
            math.sqrt(max(0.0, float(weights @ self.covariance @ weights))),
            self.df(weights),
        )


def means(cells: Cells, factor: str) -> pd.DataFrame:
    """The mean of each level of a factor, the cells of the other factors weighing the same: with 95 % t interval.

    Unlike raw means these do not depend on how many scores a cell happens to have (Searle, Speed & Milliken 1980).
    """
    from scipy.stats import t

    rows = []
    for level in cells.levels[cells.factors.index(factor)]:
        estimate, se, df = cells.line(cells.weights({factor: level}))
        half = float(t.ppf(0.975, df)) * se
        rows.append([level, estimate, se, df, estimate - half, estimate + half])
    return pd.DataFrame(rows, columns=[column_of(factor, MEAN_COLUMNS), *MEAN_COLUMNS])


def pairwise(cells: Cells, factor: str, adjust: Adjust) -> pd.DataFrame:
    """All pairs of levels of a factor, averaged over the others (`contrast`, `a`, `b`, `CONTRAST_COLUMNS`).

    Tukey: p and intervals by the studentized range; Holm: p by Holm, intervals by Bonferroni, as R's emmeans.
    """
    levels = cells.levels[cells.factors.index(factor)]
    rows = [(a, b, cells.weights({factor: a}) - cells.weights({factor: b})) for a, b in _pairs(levels)]
    table = _tested(cells, [weights for _, _, weights in rows], adjust, len(levels))
    shown = _shown(factor, levels)
    table.insert(0, "contrast", [f"{shown[a]} - {shown[b]}" for a, b, _ in rows])
    table.insert(1, "a", [a for a, _, _ in rows])
    table.insert(2, "b", [b for _, b, _ in rows])
    return table


def simple_effects(cells: Cells, factor: str, adjust: Adjust = "holm") -> pd.DataFrame:
    """All pairs of levels of a factor at each combination of the others, `at`; the adjustment runs over all of them."""
    position = cells.factors.index(factor)
    others = [name for name in cells.factors if name != factor]
    shown, rows = _shown(factor, cells.levels[position]), []
    for levels in _grid([cells.levels[cells.factors.index(name)] for name in others]):
        at = dict(zip(others, levels, strict=True))
        for a, b in _pairs(cells.levels[position]):
            weights = cells.weights({**at, factor: a}) - cells.weights({**at, factor: b})
            where = ", ".join(f"{name}={level}" for name, level in at.items())
            head = {"contrast": f"{shown[a]} - {shown[b]}", "a": a, "b": b, "at": where}
            beside = {column_of(name, (*head, *CONTRAST_COLUMNS)): level for name, level in at.items()}
            rows.append(({**beside, **head}, weights))
    table = _tested(cells, [weights for _, weights in rows], adjust, len(cells.levels[position]))
    return pd.concat([pd.DataFrame([head for head, _ in rows]), table], axis=1)


def interaction(cells: Cells, first: str, second: str) -> pd.DataFrame:
    """Differences of differences: pairs of `first` x pairs of `second`, averaged over other factors; unadjusted."""
    heads, weights = [], []
    of = [_shown(name, cells.levels[cells.factors.index(name)]) for name in (first, second)]
    for (c, d), (a, b) in itertools.product(
        _pairs(cells.levels[cells.factors.index(second)]), _pairs(cells.levels[cells.factors.index(first)])
    ):
        one, other = f"{of[0][a]} - {of[0][b]}", f"{of[1][c]} - {of[1][d]}"
        heads.append({f"{first}_pairwise": one, f"{second}_pairwise": other})
        weights.append(
            cells.weights({first: a, second: c})
            - cells.weights({first: b, second: c})
            - cells.weights({first: a, second: d})
            + cells.weights({first: b, second: d})
        )
    return pd.concat([pd.DataFrame(heads), _tested(cells, weights, "none", 2)], axis=1)


def _tested(cells: Cells, weights: Sequence[Array], adjust: Adjust, k: int) -> pd.DataFrame:
    from scipy.stats import studentized_range, t

    rows, m, critical = [], len(weights), {}
    for row in weights:
        estimate, se, df = cells.line(row)
        ratio = estimate / se if se > 0 else math.nan
        key = round(df, 6)
        if key not in critical:
            if adjust == "tukey" and k > 2:
                critical[key] = float(studentized_range.ppf(0.95, k, df)) / math.sqrt(2)
            else:
                critical[key] = float(t.ppf(1 - 0.025 / (m if adjust == "holm" else 1), df))
        if adjust == "tukey" and k > 2:
            p = float(studentized_range.sf(abs(ratio) * math.sqrt(2), k, df))
        else:
            p = 2 * float(t.sf(abs(ratio), df))
        half = critical[key] * se
        rows.append([estimate, se, df, estimate - half, estimate + half, ratio, p])
    table = pd.DataFrame(rows, columns=CONTRAST_COLUMNS)
    if adjust == "holm":
        table["p"] = holm(table["p"].to_numpy())
    return table


def _pairs(levels: Sequence[str]) -> Iterator[tuple[str, str]]:
    return itertools.combinations(levels, 2)


def _grid(levels: Sequence[Sequence[str]]) -> Iterator[tuple[str, ...]]:
    """All combinations, the first factor fastest, as R."""
    for cell in itertools.product(*reversed(levels)):
        yield tuple(reversed(cell))


def _shown(factor: str, levels: Sequence[str]) -> dict[str, str]:
    """What to call a level in a contrast: `dose0.5` where levels are numbers."""
    number = all(re.fullmatch(r"-?\d+(\.\d+)?", level) for level in levels)
    return {level: f"{factor}{level}" if number else level for level in levels}
