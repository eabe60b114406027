"""Paired contrasts: who is better, and by how much, over the blocks that both sides share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ser_analysis.effect_sizes import hedges_j, holm
from ser_analysis.methods.descriptives import t_interval
from ser_analysis.scores import Array, Scores

ENUMERATED_BLOCKS = 20
"""Up to so many blocks the sign-flip test runs through all 2^n signs; beyond, it draws."""
DRAWS = 99_999
FAMILY = ["family", "at", "averaged_over"]
COLUMNS = [
    *FAMILY, "a", "b", "n", "mean_a", "mean_b", "mean_diff", "ci95_low", "ci95_high", "sd_diff", "t", "df", "p",
    "p_holm", "signflip_exact_p", "signflip_mc_p", "signflip_p_holm", "d_z", "hedges_gz_exactJ", "d_av", "g_av", "r",
    "prob_a_gt_b_paired", "prob_a_gt_b_ci95_low", "prob_a_gt_b_ci95_high", "prob_a_gt_b_unpaired",
]  # fmt: skip
NADEAU_BENGIO = ["ratio_test_train", "rho", "se", "t", "df", "p", "ci95_low", "ci95_high", "p_holm"]
"""With the prefix `nb_` on the same rows; empty where the test set is not of the training corpora."""


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


def run(scores: Scores, *, rng_seed: int = 0) -> pd.DataFrame:
    """One row per pair (`COLUMNS`, then `nb_*` where clips are known), Holm within each family.

    The score of a side is its mean over its cells within a block; a pair uses every block that has both sides. Interval
    and t are Student's over blocks. The sign-flip test is two-sided on the mean difference: all 2^n signs up to
    `ENUMERATED_BLOCKS` blocks, else `DRAWS` seeded draws with p = (1 + hits) / (1 + draws). d_z is the mean difference
    over its SD; d_av over the mean of the two SDs; g values carry Hedges' exact correction with n - 1 df. P(A>B) counts
    ties half, with a Wilson interval. Undefined values (one block, differences without any spread) are NaN.

    The Nadeau-Bengio columns replace 1/n in the standard error by 1/n + n_test/n_train, since in-domain test scores of
    overlapping training sets are correlated (Nadeau & Bengio 2003).
    """
    rows, nadeau_bengio = [], scores.test_train_ratio is not None
    for family in families(scores):
        block = []
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
            if scores.test_train_ratio is not None:
                ratio = float(scores.test_train_ratio[[*cells_a, *cells_b]].mean())
                row |= {f"nb_{key}": value for key, value in corrected(a[shared] - b[shared], ratio).items()}
            block.append(row)
        table = pd.DataFrame(block)
        if table.empty:
            continue
        table["p_holm"] = holm(table["p"].to_numpy())
        table["signflip_p_holm"] = holm(table["signflip_exact_p"].fillna(table["signflip_mc_p"]).to_numpy())
        if nadeau_bengio:
            table["nb_p_holm"] = holm(table["nb_p"].to_numpy())
        rows.append(table)
    columns = COLUMNS + ([f"nb_{key}" for key in NADEAU_BENGIO] if nadeau_bengio else [])
    return pd.concat(rows, ignore_index=True)[columns] if rows else pd.DataFrame(columns=columns)


def compare(a: Array, b: Array, *, rng_seed: int = 0) -> dict[str, float | int]:
    """The statistics of one pair over the n blocks both have: a, b of shape (n,)."""
    from scipy.stats import t as t_distribution

    n, difference = len(a), a - b
    mean = float(difference.mean()) if n else math.nan
    sd, sd_a, sd_b = (_sd(values, a, b) for values in (difference, a, b))
    t = mean / (sd / math.sqrt(n)) if sd > 0 else math.nan
    low, high = t_interval(mean, sd / math.sqrt(n), n - 1) if sd > 0 else (math.nan, math.nan)
    d_z, d_av = (mean / sd if sd > 0 else math.nan), (mean / ((sd_a + sd_b) / 2) if sd_a + sd_b > 0 else math.nan)
    wins = float((difference > 0).sum() + (difference == 0).sum() / 2)
    ahead_low, ahead_high = _wilson(wins, n)
    flip = signflip_p(difference, rng_seed=rng_seed)
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
        "hedges_gz_exactJ": d_z * hedges_j(n - 1),
        "d_av": d_av,
        "g_av": d_av * hedges_j(n - 1),
        "r": float(np.corrcoef(a, b)[0, 1]) if sd_a > 0 and sd_b > 0 else math.nan,
        "prob_a_gt_b_paired": wins / n if n else math.nan,
        "prob_a_gt_b_ci95_low": ahead_low,
        "prob_a_gt_b_ci95_high": ahead_high,
        "prob_a_gt_b_unpaired": float((np.sign(a[:, None] - b[None, :]) + 1).mean() / 2) if n else math.nan,
    }


def signflip_p(difference: Array, *, rng_seed: int = 0) -> float:
    """Two-sided sign-flip p of a mean difference over n blocks; its floor is 2 / 2^n. NaN for n = 0."""
    n = len(difference)
    if n == 0:
        return math.nan
    # Scores are fractions of counts, so exact ties are common and rounding must not decide them.
    bar = abs(float(difference.sum())) - 1e-9 * float(np.abs(difference).sum())
    if n <= ENUMERATED_BLOCKS:
        sums = difference[:1]
        for value in difference[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float((np.abs(sums) >= bar).mean())
    rng = np.random.default_rng(rng_seed)
    signs = rng.integers(0, 2, size=(DRAWS, n), dtype=np.int8) * 2.0 - 1.0
    return (1 + int((np.abs(signs @ difference) >= bar).sum())) / (1 + DRAWS)


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
