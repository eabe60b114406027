"""Sign-flip tests: paired differences without any assumption on their shape, one pair or a whole family."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ser_analysis.scores import Array

ENUMERATED_BLOCKS = 20
"""Up to so many blocks a test runs through all 2^n signs; beyond, it draws."""
DRAWS = 99_999
CHUNK = 8192


def p_value(difference: Array, *, rng_seed: int = 0) -> float:
    """Two-sided p of a mean difference over n blocks; its floor is 2 / 2^n. NaN for n = 0.

    Model: under the null hypothesis a difference and its negative are equally likely. The share of the sign patterns
    with a mean at least as far from 0: all of them up to `ENUMERATED_BLOCKS` blocks, else `DRAWS` seeded ones with
    p = (1 + hits) / (1 + draws) (Fisher 1935, Phipson & Smyth 2010). Alternative with normal differences: paired t.
    """
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
    sums = np.zeros(DRAWS)
    eights = np.append(difference, np.zeros(-n % 8)).reshape(-1, 8) @ _EIGHT_SIGNS
    for patterns, told in zip(_drawn(n, rng_seed), eights, strict=True):
        sums += told[patterns]
    return (1 + int((np.abs(sums) >= bar).sum())) / (1 + DRAWS)


_EIGHT_SIGNS = 2.0 * np.unpackbits(np.arange(256, dtype=np.uint8)[None], axis=0) - 1.0
"""The signs of eight blocks by the number that packs them, (8, 256)."""


@lru_cache(maxsize=1)
def _drawn(n: int, rng_seed: int) -> npt.NDArray[np.uint8]:
    """`DRAWS` patterns of n signs, packed by eights, (n / 8, draws); the pairs of an analysis share them."""
    drawn = np.random.default_rng(rng_seed).integers(0, 2, size=(DRAWS, n), dtype=np.int8)
    return np.ascontiguousarray(np.packbits(drawn.view(np.uint8), axis=1).T)


def max_t(differences: Array, *, rng_seed: int = 0) -> Array:
    """Family-wise p of each pair, (pairs,), from the paired differences of all pairs, (blocks, pairs).

    Model: under the null hypothesis the differences of a block may all change their sign together. The statistic is |t|
    of a pair, and its p the share of the sign patterns whose largest |t| over the pairs is at least as large (Westfall
    & Young 1993, single step), which uses the correlation between pairs and so costs less than Holm. Exact and drawn as
    `p_value`. Blocks that lack a score are left out; NaN with fewer than two blocks, and for a pair without any
    difference. Alternative: Holm on paired t.
    """
    d = differences[~np.isnan(differences).any(axis=1)]
    n, pairs = d.shape
    squares = (d**2).sum(axis=0)
    told = squares > 0
    p = np.full(pairs, math.nan)
    if n < 2 or not told.any():
        return p
    # Signs leave the sum of squares alone, so that |mean| / rms orders the patterns as |t| does.
    scaled = d[:, told] / np.sqrt(n * squares[told])
    bar = np.abs(scaled.sum(axis=0)) - 1e-9
    exact = n <= ENUMERATED_BLOCKS
    total, hits = 2 ** (n - 1) if exact else DRAWS, np.zeros(scaled.shape[1], dtype=np.int64)
    rng = np.random.default_rng(rng_seed)
    for start in range(0, total, CHUNK):
        stop = min(start + CHUNK, total)
        if exact:  # the first sign stays: the other half of the patterns mirrors these
            bits = (np.arange(start, stop)[:, None] >> np.arange(n - 1)) & 1
            signs = np.hstack([np.ones((stop - start, 1)), 1.0 - 2.0 * bits])
        else:
            signs = 1.0 - 2.0 * rng.integers(0, 2, size=(stop - start, n))
        largest = np.sort(np.abs(signs @ scaled).max(axis=1))
        hits += len(largest) - np.searchsorted(largest, bar, side="left")
    p[told] = hits / total if exact else (1 + hits) / (1 + total)
    return p
