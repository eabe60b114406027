"""Paired contrasts: who is better, and by how much, over the blocks that both sides share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ser_analysis.effect_sizes import hedges_j, holm, noncentral_t_interval
from ser_analysis.methods import bayes, tost
from ser_analysis.methods.descriptives import t_interval
from ser_analysis.methods.friedman import wilcoxon
from ser_analysis.methods.signflip import ENUMERATED_BLOCKS, max_t
from ser_analysis.methods.signflip import p_value as signflip_p
from ser_analysis.scores import Array, Scores

FAMILY = ["family", "at", "averaged_over"]
ADJUSTED = ["p_holm", "p_bonferroni", "p_bh", "p_by"]
COLUMNS = [
    *FAMILY, "a", "b", "n", "mean_a", "mean_b", "mean_diff", "ci95_low", "ci95_high", "sd_diff", "t", "df", "p",
    *ADJUSTED, "signflip_exact_p", "signflip_mc_p", "signflip_p_holm", "signflip_p_max_t", "d_z", "d_z_ci95_low",
    "d_z_ci95_high", "hedges_gz_exactJ", "hedges_gz_approxJ", "d_av", "d_av_rms", "g_av", "r", "wilcoxon_V",
    "wilcoxon_exact_p", "wilcoxon_p", "hodges_lehmann", "shapiro_diff_p", "prob_a_gt_b_paired", "prob_a_gt_b_ci95_low",
    "prob_a_gt_b_ci95_high", "prob_a_gt_b_unpaired",
]  # fmt: skip
TOST = ["tost_margin", "tost_p_lower", "tost_p_upper", "tost_p", "tost_p_holm"]
"""On the same rows, where a margin is given."""
NADEAU_BENGIO = ["ratio_test_train", "rho", "se", "t", "df", "p", "ci95_low", "ci95_high", "p_holm"]
"""With the prefix `nb_` on the same rows; empty where the test set is not of the training corpora."""
BAYES = ["rope", "p_left", "p_rope", "p_right"]
"""With the prefix `bayes_`, likewise, where a margin is given."""


@dataclass(frozen=True)
class Family:
    """Comparisons that Holm's correction treats together."""

    name: str
    """The factors whose levels are compared, joined with +."""
    at: str
    """The test set they are compared on, e.g. `test_corpus=emovo`; empty when over all."""
    averaged_over: str
    """The factors whose levels are averaged within each block, with equal weights."""
    members: tuple[tuple[str, tuple[int, ...]], ...]
    """Name and cells of each side."""


def families(scores: Scores) -> Iterator[Family]:
    """All models within each test set; then the levels of each factor, averaged over the other factors."""
    cells = scores.cells
    model = [scores.factors.index(factor) for factor in scores.model]
    where = [index for index in range(len(scores.factors)) if index not in model]
    for place in itertools.product(*(scores.levels[index] for index in where)):
        members: tuple[tuple[str, tuple[int, ...]], ...] = tuple(
            (scores.name(tuple(cell[index] for index in model)), (column,))
            for column, cell in enumerate(cells)
            if tuple(cell[index] for index in where) == place
        )
        at = ", ".join(f"{scores.factors[index]}={level}" for index, level in zip(where, place, strict=True))
        yield Family("+".join(scores.model), at, "", members)
    if len(scores.factors) > 1:
        for index, factor in enumerate(scores.factors):
            members = tuple(
                (
                    scores.name((level,)) if scores.model == (factor,) else level,
                    tuple(column for column, cell in enumerate(cells) if cell[index] == level),
                )
                for level in scores.levels[index]
            )
            others = ", ".join(other for other in scores.factors if other != factor)
            yield Family(factor, "", others, members)


def run(
    scores: Scores,
    *,
    rng_seed: int = 0,
    margin: float | None = None,
    planned: Sequence[tuple[str, str]] = (),
) -> pd.DataFrame:
    """One row per pair (`COLUMNS`, `TOST` with a margin, `NADEAU_BENGIO` and `BAYES` where clips are known).

    Model: the difference of two sides in a block, the score of a side being its mean over its cells within the block;
    blocks are independent, and a pair uses every block that has both sides. Interval and t are Student's over blocks,
    which assumes normal differences (`shapiro_diff_p`). Without it: the sign-flip tests (of the pair, and
    `signflip_p_max_t` over the family) and the signed-rank test. Holm, Bonferroni, Benjamini-Hochberg and -Yekutieli
    adjust within a family. d_z is the mean difference over its SD, with the interval of the noncentral t; d_av over the
    mean of the two SDs, d_av_rms over the root of their mean square; g values carry Hedges' exact correction with n - 1
    df. P(A>B) counts ties half, with a Wilson interval. Undefined values (one block, differences without any spread)
    are NaN.

    The Nadeau-Bengio columns replace 1/n in the standard error by 1/n + n_test/n_train, since in-domain test scores of
    overlapping training sets are correlated (Nadeau & Bengio 2003); target T2. The margin, +- in units of the score, is
    what counts as no difference, for `tost` and for the region of practical equivalence of `bayes`.

    `planned` names the pairs of models declared before the experiment: at each test set they are one family for Holm
    and max-T, and the column `planned` tells them; every other pair is exploratory and adjusted over all pairs.
    """
    rows, nadeau_bengio = [], scores.test_train_ratio is not None
    for family in families(scores):
        block, differences = [], []
        for (name_a, cells_a), (name_b, cells_b) in itertools.combinations(family.members, 2):
            a, b = scores.values[:, list(cells_a)].mean(axis=1), scores.values[:, list(cells_b)].mean(axis=1)
            shared = ~np.isnan(a - b)
            row: dict[str, object] = {
                "family": family.name,
                "at": family.at,
                "averaged_over": family.averaged_over,
                "a": name_a,
                "b": name_b,
                **compare(a[shared], b[shared], rng_seed=rng_seed),
            }
            if margin is not None:
                row |= {f"tost_{key}": value for key, value in tost.run(a[shared] - b[shared], margin).items()}
            if scores.test_train_ratio is not None:
                ratio = float(scores.test_train_ratio[[*cells_a, *cells_b]].mean())
                nb = corrected(a[shared] - b[shared], ratio)
                row |= {f"nb_{key}": value for key, value in nb.items()}
                if margin is not None:
                    posterior = bayes.run(float(row["mean_diff"]), nb["se"], int(nb["df"]), margin)  # type: ignore[arg-type]
                    row |= {f"bayes_{key}": value for key, value in posterior.items()}
            block.append(row)
            differences.append(a - b)
        table = pd.DataFrame(block)
        if table.empty:
            continue
        if planned:
            declared = {frozenset(pair) for pair in planned}
            here = [
                not family.averaged_over and frozenset(pair) in declared
                for pair in zip(table["a"], table["b"], strict=True)
            ]
            table["planned"] = here
            if any(here):
                chosen = np.array(here)
                own = table[chosen].copy()
                _adjust_all(own, [differences[i] for i in np.flatnonzero(chosen)], nadeau_bengio, margin, rng_seed)
                _adjust_all(table, differences, nadeau_bengio, margin, rng_seed)
                table = pd.concat([own, table[~chosen]]).sort_index()
                rows.append(table)
                continue
        _adjust_all(table, differences, nadeau_bengio, margin, rng_seed)
        rows.append(table)
    columns = COLUMNS + (TOST if margin is not None else []) + (["planned"] if planned else [])
    if nadeau_bengio:
        columns = columns + [f"nb_{key}" for key in NADEAU_BENGIO]
        columns = columns + ([f"bayes_{key}" for key in BAYES] if margin is not None else [])
    return pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)


def _adjust_all(
    table: pd.DataFrame, differences: Sequence[Array], nadeau_bengio: bool, margin: float | None, rng_seed: int
) -> None:
    """Every adjustment of one family."""
    adjust(table)
    table["signflip_p_holm"] = holm(table["signflip_exact_p"].fillna(table["signflip_mc_p"]).to_numpy())
    table["signflip_p_max_t"] = max_t(np.column_stack(differences), rng_seed=rng_seed)
    if nadeau_bengio:
        table["nb_p_holm"] = holm(table["nb_p"].to_numpy())
    if margin is not None:
        table["tost_p_holm"] = holm(table["tost_p"].to_numpy())


def of_scores(scores: Scores, *, rng_seed: int = 0) -> dict[str, dict[str, object]]:
    """Contrasts of one degree of freedom as scores per block: mean, t, F, df, p, ci95, signflip_exact_p.

    For a factor of two levels the second minus the first, under its name; for more levels every pair, as `b_minus_a`;
    for two factors of two levels the difference of differences, as `f_x_g`. The others are averaged within the block.
    """
    cells = scores.cells
    told: dict[str, dict[str, object]] = {}

    def weights(at: dict[int, str]) -> Array:
        chosen = np.array([all(cell[index] == level for index, level in at.items()) for cell in cells])
        return np.asarray(chosen / chosen.sum())

    found: dict[str, Array] = {}
    binary = [index for index, levels in enumerate(scores.levels) if len(levels) == 2]
    for index, levels in enumerate(scores.levels):
        for a, b in itertools.combinations(levels, 2):
            name = scores.factors[index] if index in binary else f"{b}_minus_{a}"
            found[name] = weights({index: b}) - weights({index: a})
    for i, j in itertools.combinations(binary, 2):
        (a, b), (c, d) = scores.levels[i], scores.levels[j]
        found[f"{scores.factors[i]}_x_{scores.factors[j]}"] = (
            weights({i: b, j: d}) - weights({i: a, j: d}) - weights({i: b, j: c}) + weights({i: a, j: c})
        )
    for name, row in found.items():
        used = row != 0
        values = scores.values[:, used] @ row[used]
        values = values[~np.isnan(values)]
        answer = compare(values, np.zeros(len(values)), rng_seed=rng_seed)
        told[name] = {
            "n": answer["n"],
            "mean": answer["mean_diff"],
            "t": answer["t"],
            "F": answer["t"] ** 2,
            "df": answer["df"],
            "p": answer["p"],
            "ci95": [answer["ci95_low"], answer["ci95_high"]],
            "signflip_exact_p": answer["signflip_exact_p"],
            "signflip_mc_p": answer["signflip_mc_p"],
        }
    return told


def adjust(table: pd.DataFrame) -> None:
    """Add `ADJUSTED`, over the defined `p` of one family."""
    p = table["p"].to_numpy(dtype=float)
    known = ~np.isnan(p)
    m = int(known.sum())
    order = np.argsort(p)[:m]  # NaN sorts last
    steps = p[order] * m / np.arange(1, m + 1)
    bh, by = np.full(len(p), np.nan), np.full(len(p), np.nan)
    descending = np.minimum.accumulate(steps[::-1])[::-1]
    bh[order] = np.minimum(1.0, descending)
    by[order] = np.minimum(1.0, descending * (1 / np.arange(1, m + 1)).sum())
    table["p_holm"], table["p_bonferroni"] = holm(p), np.minimum(1.0, p * m)
    table["p_bh"], table["p_by"] = bh, by


def compare(a: Array, b: Array, *, rng_seed: int = 0) -> dict[str, float | int]:
    """The statistics of one pair over the n blocks both have: a, b of shape (n,)."""
    from scipy.stats import shapiro
    from scipy.stats import t as t_distribution

    n, difference = len(a), a - b
    mean = float(difference.mean()) if n else math.nan
    sd, sd_a, sd_b = (_sd(values, a, b) for values in (difference, a, b))
    t = mean / (sd / math.sqrt(n)) if sd > 0 else math.nan
    low, high = t_interval(mean, sd / math.sqrt(n), n - 1) if sd > 0 else (math.nan, math.nan)
    d_z, d_av = (mean / sd if sd > 0 else math.nan), (mean / ((sd_a + sd_b) / 2) if sd_a + sd_b > 0 else math.nan)
    z_low, z_high = (end / math.sqrt(n) for end in noncentral_t_interval(t, n - 1)) if sd > 0 else (math.nan, math.nan)
    wins = float((difference > 0).sum() + (difference == 0).sum() / 2)
    ahead_low, ahead_high = _wilson(wins, n)
    flip, ranked = signflip_p(difference, rng_seed=rng_seed), wilcoxon(difference)
    return {
        "n": n,
        "mean_a": float(a.mean()) if n else math.nan,
        "mean_b": float(b.mean()) if n else math.nan,
        "mean_diff": mean,
        "ci95_low": low,
        "ci95_high": high,
        "sd_diff": sd,
        "t": t,
        "df": n - 1,
        "p": 2 * float(t_distribution.sf(abs(t), n - 1)) if sd > 0 else math.nan,
        "signflip_exact_p": flip if n <= ENUMERATED_BLOCKS else math.nan,
        "signflip_mc_p": flip if n > ENUMERATED_BLOCKS else math.nan,
        "d_z": d_z,
        "d_z_ci95_low": z_low,
        "d_z_ci95_high": z_high,
        "hedges_gz_exactJ": d_z * hedges_j(n - 1),
        "hedges_gz_approxJ": d_z * (1 - 3 / (4 * (n - 1) - 1)) if n > 1 else math.nan,
        "d_av": d_av,
        "d_av_rms": mean / math.sqrt((sd_a**2 + sd_b**2) / 2) if sd_a + sd_b > 0 else math.nan,
        "g_av": d_av * hedges_j(n - 1),
        "r": float(np.corrcoef(a, b)[0, 1]) if sd_a > 0 and sd_b > 0 else math.nan,
        "wilcoxon_V": ranked["V"],
        "wilcoxon_exact_p": ranked["p"] if ranked["exact"] else math.nan,
        "wilcoxon_p": ranked["p"],
        "hodges_lehmann": ranked["hodges_lehmann"],
        "shapiro_diff_p": float(shapiro(difference).pvalue) if n > 2 and sd > 0 else math.nan,
        "prob_a_gt_b_paired": wins / n if n else math.nan,
        "prob_a_gt_b_ci95_low": ahead_low,
        "prob_a_gt_b_ci95_high": ahead_high,
        "prob_a_gt_b_unpaired": float((np.sign(a[:, None] - b[None, :]) + 1).mean() / 2) if n else math.nan,
    }


def corrected(difference: Array, ratio: float) -> dict[str, float | int]:
    """Nadeau-Bengio t of the differences of n blocks; `ratio` is clips tested / clips trained on, NaN for none."""
    from scipy.stats import t as t_distribution

    n = len(difference)
    sd = _sd(difference, difference)
    se = sd * math.sqrt(1 / n + ratio) if sd > 0 else math.nan
    mean = float(difference.mean()) if n else math.nan
    low, high = t_interval(mean, se, n - 1)
    return {
        "ratio_test_train": ratio,
        "rho": ratio / (1 + ratio),
        "se": se,
        "t": mean / se,
        "df": n - 1,
        "p": 2 * float(t_distribution.sf(abs(mean / se), n - 1)),
        "ci95_low": low,
        "ci95_high": high,
    }


def _sd(values: Array, *scale: Array) -> float:
    """SD (ddof 1); 0 where it is rounding noise beside the scores, NaN for fewer than two."""
    if len(values) < 2:
        return math.nan
    sd = float(values.std(ddof=1))
    return sd if sd > 1e-12 * max(float(np.abs(part).max()) for part in scale) else 0.0


def _wilson(wins: float, n: int) -> tuple[float, float]:
    if n == 0:
        return math.nan, math.nan
    z2, share = 1.959963984540054**2, wins / n
    centre, half = share + z2 / (2 * n), math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))
    return max(0.0, (centre - half) / (1 + z2 / n)), min(1.0, (centre + half) / (1 + z2 / n))
