"""How much of the spread lies between blocks: the interval of the intraclass correlation of one random intercept."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ser_analysis.scores import Array

LEVEL = 0.95


def interval(
    y: Array, fixed: Array, blocks: npt.NDArray[np.int64], *, level: float = LEVEL
) -> tuple[float, float] | None:
    """Exact interval of the share of blocks in the variance beside the fixed effects (Harville & Fenech 1985).

    Model: y = fixed b + block + rest, both normal, of variances s_b^2 and s_e^2; ICC = g / (1 + g), g = s_b^2 / s_e^2.
    With M = I - P_fixed, Z the blocks and Z'MZ = P D P' (its r eigenvalues above 0), the components
    t = D^(-1/2) P'Z'My are independent with variances s_e^2 (1 + g d), and independent of the residual sum of squares
    of the fit with a constant per block (f df). So

        Q(g) = sum of t^2 / (1 + g d) / r / (residual / f)  is  F(r, f)

    at the true g, and falls in g: the interval holds the g at which it lies between the quantiles. Any sizes of blocks,
    any fixed effects. In balanced tables without a factor it is Searle's (1971). A g is not below 0: an end that would
    be is 0, both where the blocks differ less than chance would let them. Alternatives: bootstrap of the mixed model,
    which hold less than they say with few blocks.

    Args:
        y: (n,)
        fixed: columns of the fixed effects, the constant among them, (n, p)
        blocks: of each row, 0 to b - 1, (n,)
        level: share of the intervals that is to hold the truth

    Returns:
        low and high, in [0, 1]; None where the blocks cannot be told from the fixed effects, no block has two rows to
        tell its rest from, or the rest is 0
    """
    from scipy.optimize import brentq
    from scipy.stats import f as f_distribution

    basis = _basis(fixed)
    y_left = y - basis @ (basis.T @ y)  # My
    sizes = np.bincount(blocks).astype(np.float64)
    across = np.zeros((len(sizes), basis.shape[1]))
    np.add.at(across, blocks, basis)
    values, vectors = np.linalg.eigh(np.diag(sizes) - across @ across.T)  # of Z'MZ
    kept = values > 1e-9 * max(1.0, float(values.max()))
    d = values[kept]
    r, f = int(kept.sum()), len(y) - basis.shape[1] - int(kept.sum())
    if r < 1 or f < 1:
        return None
    t = (vectors[:, kept].T @ np.bincount(blocks, y_left)) / np.sqrt(d)
    rest = max(0.0, float(y_left @ y_left - t @ t))
    if not rest > 1e-12 * float(y_left @ y_left):
        return None
    error = rest / f
    ends = []
    for q in ((1 + level) / 2, (1 - level) / 2):
        wanted = float(f_distribution.ppf(q, r, f))

        def beyond(log_g: float, wanted: float = wanted) -> float:
            return float((t**2 / (1 + math.exp(log_g) * d)).sum() / r / error - wanted)

        if float((t**2).sum()) / r / error <= wanted:
            ends.append(0.0)
            continue
        low, high = -40.0, 1.0
        while beyond(high) > 0:
            high += 5.0
        g = math.exp(float(brentq(beyond, low, high, xtol=1e-12))) if beyond(low) > 0 else 0.0
        ends.append(g / (1 + g))
    return ends[0], ends[1]


def _basis(fixed: Array) -> Array:
    """Orthonormal columns that span the same."""
    u, s, _ = np.linalg.svd(fixed, full_matrices=False)
    return np.asarray(u[:, s > 1e-10 * s[0]])
