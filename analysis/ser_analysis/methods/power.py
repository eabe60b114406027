"""How many splits, seeds or speakers a comparison needs."""

from __future__ import annotations

import math
from collections.abc import Callable

ALPHA, POWER = 0.05, 0.8
MOST = 100_000
"""More units than this are not asked for."""


def paired_t(effect: float, n: float, *, alpha: float = ALPHA, overlap: float = 0.0) -> float:
    """Power of the two-sided paired t-test, both tails counted.

    Model: n independent, normal differences with standardised mean `effect` (mean / SD of the differences). With
    `overlap` = clips tested / trained on, the Nadeau-Bengio test: its standard error is SD sqrt(1/n + overlap).

    Args:
        effect: d_z; its sign does not matter
        n: units, above 1; need not be whole
        alpha: two-sided level
        overlap: 0 for independent units
    """
    from scipy.stats import nct, t

    if not n > 1:
        return math.nan
    df, d = n - 1, abs(effect)
    shift = d / math.sqrt(1 / n + overlap)
    bar = float(t.isf(alpha / 2, df))
    upper, lower = float(nct.sf(bar, df, shift)), float(nct.cdf(-bar, df, shift))
    # scipy's noncentral t is NaN far out, where the tail is 1 or 0 to every digit shown.
    upper = (1.0 if shift > bar else 0.0) if math.isnan(upper) else upper
    return upper + (0.0 if math.isnan(lower) else lower)


def units_for(effect: float, *, power: float = POWER, alpha: float = ALPHA, overlap: float = 0.0) -> float:
    """The n, not rounded, at which the paired t-test reaches a power; infinite where no number up to `MOST` does."""
    from scipy.optimize import brentq

    if effect == 0 or paired_t(effect, MOST, alpha=alpha, overlap=overlap) < power:
        return math.inf

    def lacking(n: float) -> float:
        return paired_t(effect, n, alpha=alpha, overlap=overlap) - power

    low = 2.0
    return low if lacking(low) >= 0 else float(brentq(lacking, low, MOST, xtol=1e-9, rtol=1e-12))


def detectable(n: int, *, power: float = POWER, alpha: float = ALPHA, overlap: float = 0.0) -> float:
    """The smallest d_z that n units find with a power; infinite below 2 units."""
    from scipy.optimize import brentq

    if n < 2:
        return math.inf
    return _root(lambda d: paired_t(d, n, alpha=alpha, overlap=overlap) - power, brentq)


def _root(f: Callable[[float], float], brentq: Callable[..., float]) -> float:
    high = 1.0
    while f(high) < 0 and high < 1e6:
        high *= 2
    return float(brentq(f, 0.0, high, xtol=1e-12)) if high < 1e6 else math.inf


def anova_f(effect: float, n: int, *, df1: int, df2: int, alpha: float = ALPHA) -> float:
    """Power of a fixed-effects F test with Cohen's f = `effect`; the noncentrality is f^2 n."""
    from scipy.stats import f, ncf

    return float(ncf.sf(float(f.isf(alpha, df1, df2)), df1, df2, effect**2 * n))


def noether(share: float, *, alpha: float = ALPHA, power: float = 1 - ALPHA) -> float:
    """Blocks for which P(A > B) = `share` is shown one-sided (Noether 1987; Bouthillier et al. 2021)."""
    from scipy.stats import norm

    if share == 0.5:
        return math.inf
    return float(((float(norm.isf(alpha)) + float(norm.ppf(power))) / (math.sqrt(6) * (0.5 - share))) ** 2)


def signflip_floor(n: int) -> float:
    """The smallest p that a two-sided sign-flip (or speaker-swap) test of n units can give."""
    return 2.0 ** (1 - n)


def signflip_units(*, alpha: float = ALPHA, comparisons: int = 1) -> int:
    """The fewest units whose floor, times the comparisons of Holm's first step, is below alpha."""
    return math.floor(math.log2(2 * comparisons / alpha)) + 1
