"""T2 of ratings, new people: how far a CCC, or the difference of two, would move with other speakers.

Clips of one speaker resemble each other, so the speaker is the unit of every method here, as it is in `speakers`. The
concordance correlation coefficient (Lin 1989) of any choice of speakers follows from six sums per speaker, model and
dimension: n, and the sums of x, y, x^2, y^2 and xy over the rated clips, x the rating and y the answer. So speakers are
resampled, left out, swapped and relabelled by adding sums; no clip is touched. What is estimated is

    theta = sum over models m of contrast[m] x mean over dimensions d of CCC(m, d)

one CCC with the contrast (1,), a difference A - B with (1, -1), of one dimension or of the mean over several.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ser_analysis.methods import fairness
from ser_analysis.methods.descriptives import t_interval
from ser_analysis.methods.speakers import DRAWS, LEVEL, Draws, bca, draw, quantile, studentised
from ser_analysis.scores import Array
from ser_eval.errors import BadInput

N, X, Y, XX, YY, XY = range(6)
"""Where each sum stands on the last axis."""
ONE, DIFFERENCE = (1.0,), (1.0, -1.0)
"""Contrasts."""
METHODS = ("jackknife_t", "studentised", "bca", "percentile")
HEADLINE = "jackknife_t"
"""The interval that sentences and tables lead with, that of the report; see `COVERAGE`."""
COVERAGE: dict[str, dict[int, dict[str, float]]] = {
    "ccc": {
        4: {"jackknife_t": 0.949, "studentised": 0.918, "bca": 0.766, "percentile": 0.8},
        6: {"jackknife_t": 0.95, "studentised": 0.934, "bca": 0.828, "percentile": 0.862},
        10: {"jackknife_t": 0.945, "studentised": 0.937, "bca": 0.874, "percentile": 0.895},
        20: {"jackknife_t": 0.942, "studentised": 0.937, "bca": 0.891, "percentile": 0.913},
        90: {"jackknife_t": 0.95, "studentised": 0.946, "bca": 0.932, "percentile": 0.941},
    },
    "difference": {
        4: {"jackknife_t": 0.958, "studentised": 0.921, "bca": 0.788, "percentile": 0.818},
        6: {"jackknife_t": 0.953, "studentised": 0.932, "bca": 0.826, "percentile": 0.855},
        10: {"jackknife_t": 0.956, "studentised": 0.935, "bca": 0.867, "percentile": 0.901},
        20: {"jackknife_t": 0.952, "studentised": 0.933, "bca": 0.899, "percentile": 0.921},
        90: {"jackknife_t": 0.952, "studentised": 0.942, "bca": 0.936, "percentile": 0.944},
    },
}
"""Share of simulated corpora whose nominal 95 % interval held the truth, by what it is of (one CCC, or the paired
difference of two), number of test speakers and method: the mean over the designs of benchmarks/stats_calibration.py
(`make bench-stats ARGS="--ratings --full"`), which prints this table."""
SWAPPED_SPEAKERS = 17
"""Up to so many speakers the swap test runs through all swaps; beyond, it draws."""
SWAPS = 99_999
ENOUGH_CLIPS = 10
"""Fewer rated clips give a speaker no CCC to be called worst by: it is chance that orders such speakers."""
SMALLEST_VARIANCE = 1e-12
"""Below it a variance is rounding: the values are the same."""
_CHUNK = 2000


def cccs(sums: npt.ArrayLike) -> Array:
    """CCC of sums over clips, (..., 6) -> (...); as `ser_eval.metrics.ccc` of these clips.

    2 cov(x, y) / (var(x) + var(y) + (mean(x) - mean(y))^2), moments divided by n. Constant ratings or answers have no
    covariance, so that the CCC is 0; NaN without clips, and where both are constant and equal (0/0).
    """
    n, x, y, xx, yy, xy = np.moveaxis(np.asarray(sums, dtype=np.float64), -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_x, mean_y = x / n, y / n
        var_x, var_y = xx / n - mean_x**2, yy / n - mean_y**2
        var_x, var_y = (np.where(var < SMALLEST_VARIANCE, 0.0, var) for var in (var_x, var_y))
        cov = np.where((var_x == 0) | (var_y == 0), 0.0, xy / n - mean_x * mean_y)
        found = np.clip(2 * cov / (var_x + var_y + (mean_x - mean_y) ** 2), -1, 1)
        return np.asarray(np.where(n > 0, found, np.nan))


def theta(sums: Array, contrast: Sequence[float]) -> Array:
    """The estimate of each of some sums, (..., M, D, 6) -> (...)."""
    return np.asarray(cccs(sums).mean(axis=-1) @ np.asarray(contrast, dtype=np.float64))


def check(sums: Array) -> None:
    """Refuse what allows no statement about other people.

    Args:
        sums: (S, M, D, 6)

    Raises:
        BadInput: fewer than two speakers with rated clips, or a dimension without any
    """
    rated = sums[:, :, :, N]
    count = int((rated > 0).any(axis=(1, 2)).sum())
    if count < 2:
        told = "there is no speaker with rated clips" if count == 0 else "there is one speaker with rated clips"
        raise BadInput(f"{told}; what other people would get needs at least two, and is hardly known under 20")
    if (rated.sum(axis=0) == 0).any():
        raise BadInput("a dimension has no rated clips, so that its CCC is not defined")


def run(
    sums: Array,
    contrast: Sequence[float],
    *,
    rng_seed: int = 0,
    draws: int = DRAWS,
    drawn: Draws | None = None,
) -> dict[str, float | int | bool]:
    """Every interval of one estimate.

    Model: the speakers are a random sample of people, the trained models are taken as they are, and both models of a
    difference are scored on the same clips. `jackknife_t`: Student's t on the delete-one-speaker jackknife, of one CCC
    on Fisher's z and taken back, which is the interval of the report (`ser_eval.ratings`). `studentised`: bootstrap t
    with the linearised standard error of each draw. `bca`: bias-corrected and accelerated (Efron 1987). `percentile`:
    the plain bootstrap over speakers, too narrow over few. All nominal 95 %, none cut.

    Args:
        sums: per speaker, model and dimension, (S, M, D, 6); M is the length of `contrast`
        contrast: `ONE` or `DIFFERENCE`
        rng_seed: of the draws beyond `speakers.ENUMERATED_SPEAKERS`
        draws: how many
        drawn: resamples to use instead

    Returns:
        estimate, standard_error (jackknife, on the scale of the CCC; NaN where all speakers are alike), n_speakers, t,
        df and p of the estimate against 0, mean and sd of the bootstrap, exact, n_draws, undefined_draws (left out,
        since their CCC is 0/0), and `<method>_low`, `<method>_high`

    Raises:
        BadInput: as `check`, or hardly any draw has rated clips of every dimension
    """
    from scipy.stats import t as t_distribution

    check(sums)
    s = len(sums)
    rated = np.asarray((sums[:, :, :, N] > 0).all(axis=1), dtype=np.int64)  # (S, D)
    if drawn is None:
        try:
            drawn = draw(rated, rng_seed=rng_seed, draws=draws)
        except BadInput:
            raise BadInput(
                "hardly any resample of the speakers has rated clips of every dimension; the CCC of new speakers is "
                "unknown"
            ) from None
    total = sums.sum(axis=0)
    estimate = float(theta(total, contrast))
    deleted = theta(total - sums, contrast)
    single = tuple(contrast) == ONE
    there, back = (_z, math.tanh) if single else (_same, float)
    error = _jackknife(deleted)
    boot, errors = _resampled(drawn.weights, sums, contrast)
    defined = np.isfinite(boot)
    boot, errors, share = boot[defined], errors[defined], drawn.share[defined]
    share = share / share.sum() if len(share) else share
    own = float(_errors(np.ones((1, s)), sums, contrast)[0])
    mean = float(share @ boot) if len(boot) else math.nan
    ends = dict.fromkeys(METHODS, (math.nan, math.nan))
    on_scale = _jackknife(there(deleted))
    if not math.isnan(on_scale):
        low, high = t_interval(float(there(np.array(estimate))), on_scale, s - 1)
        ends["jackknife_t"] = back(low), back(high)
    if len(boot) and not math.isnan(error):
        ends["studentised"] = studentised(estimate, own, boot, errors, share)
        ends["bca"] = bca(estimate, deleted, boot, share)
        ends["percentile"] = quantile(boot, share, (1 - LEVEL) / 2), quantile(boot, share, (1 + LEVEL) / 2)
    t = estimate / error if error > 0 else math.nan
    told: dict[str, float | int | bool] = {
        "estimate": estimate,
        "standard_error": error,
        "n_speakers": s,
        "t": t,
        "df": s - 1,
        "p": 2 * float(t_distribution.sf(abs(t), s - 1)),
        "mean": mean,
        "sd": math.sqrt(max(0.0, float(share @ (boot - mean) ** 2))) if len(boot) else math.nan,
        "exact": drawn.exact,
        "n_draws": len(boot),
        "undefined_draws": int((~defined).sum()),
    }
    for method, (low, high) in ends.items():
        told |= {f"{method}_low": low, f"{method}_high": high}
    return told


def swap(sums: Array, *, rng_seed: int = 0) -> dict[str, float | int | bool]:
    """Speaker-swap permutation test of the difference of two models, two-sided.

    Model: under the null hypothesis it does not matter which of the two models answered a speaker, so that all answers
    of a speaker may change sides together. Exact up to `SWAPPED_SPEAKERS` speakers, else seeded draws with
    p = (1 + hits) / (1 + draws). Floor 2 / 2^S. NaN where the difference is not defined.

    Args:
        sums: of the two models, (S, 2, D, 6)
    """
    s, total = len(sums), sums.sum(axis=0)
    bar = abs(float(theta(total, DIFFERENCE)))
    if math.isnan(bar):
        return {"p_two_sided": math.nan, "exact": True, "n_swaps": 0}
    moved = (sums[:, 1] - sums[:, 0]).reshape(s, -1)  # what A gains where a speaker changes sides, (S, D x 6)
    exact = s <= SWAPPED_SPEAKERS
    rng = np.random.default_rng(rng_seed)
    # One speaker stays: the other half of the patterns mirrors these.
    count, hits = 2 ** (s - 1) if exact else SWAPS, 0
    for start in range(0, count, _CHUNK):
        stop = min(start + _CHUNK, count)
        if exact:
            flipped = (np.arange(start, stop)[:, None] >> np.arange(s)) & 1
        else:
            flipped = rng.integers(0, 2, size=(stop - start, s))
        gained = (flipped @ moved).reshape(len(flipped), *total.shape[1:])
        both = np.stack([total[0] + gained, total[1] - gained], axis=1)
        hits += int((np.abs(theta(both, DIFFERENCE)) >= bar - 1e-9).sum())
    p = hits / count if exact else (1 + hits) / (1 + count)
    return {"p_two_sided": p, "exact": exact, "n_swaps": 2**s if exact else count}


def gap(
    sums: Array, contrast: Sequence[float], first: Sequence[bool] | npt.NDArray[np.bool_], *, rng_seed: int = 0
) -> dict[str, float | int | bool]:
    """The estimate on one group of speakers minus that on the others, with an interval and a permutation test.

    Model: the speakers of either group are a random sample of such people. The standard error is that of two
    independent jackknives, with Welch's df. The permutation test gives the group's name to every choice of as many
    speakers (seeded draws beyond `fairness.ENUMERATED`); two-sided, its floor stands beside it. The CCC of a group is
    of all its clips together, so that it asks for the order of its speakers as well as of their clips.

    Args:
        sums: (S, M, D, 6)
        contrast: `ONE`, or `DIFFERENCE` for the gap of a change
        first: which speakers are of the first group

    Returns:
        n_first, n_second, of_first, of_second, gap (NaN where one of the two is not defined), ci95_low, ci95_high,
        welch_p (NaN with one speaker in a group, or no spread), permutation_p, n_permutations, exact,
        smallest_possible_p
    """
    from scipy.stats import t as t_distribution

    inside = np.asarray(first, dtype=bool)
    n, n_a = len(sums), int(inside.sum())
    groups = [sums[inside], sums[~inside]]
    values = [float(theta(part.sum(axis=0), contrast)) if len(part) else math.nan for part in groups]
    mean = values[0] - values[1]
    errors = [_jackknife(theta(part.sum(axis=0) - part, contrast)) if len(part) > 1 else math.nan for part in groups]
    told: dict[str, float | int | bool] = {
        "n_first": n_a, "n_second": n - n_a, "of_first": values[0], "of_second": values[1], "gap": mean,
        "ci95_low": math.nan, "ci95_high": math.nan, "welch_p": math.nan, "permutation_p": math.nan,
        "n_permutations": 0, "exact": True, "smallest_possible_p": math.nan,
    }  # fmt: skip
    if math.isnan(mean):
        return told
    if not any(map(math.isnan, errors)):
        parts = [error**2 for error in errors]
        se = math.sqrt(sum(parts))
        df = se**4 / sum(part**2 / (len(group) - 1) for part, group in zip(parts, groups, strict=True))
        told["ci95_low"], told["ci95_high"] = t_interval(mean, se, df)
        told["welch_p"] = 2 * float(t_distribution.sf(abs(mean) / se, df))
    ways = math.comb(n, n_a)
    exact = ways <= fairness.ENUMERATED
    total, hits, undefined, count = sums.sum(axis=0), 0, 0, 0
    for chosen in _choices(n, n_a, exact, rng_seed):
        weights = np.zeros((len(chosen), n))
        np.put_along_axis(weights, chosen, 1.0, axis=1)
        one = (weights @ sums.reshape(n, -1)).reshape(len(chosen), *total.shape)
        gaps = np.abs(theta(one, contrast) - theta(total - one, contrast))
        undefined += int(np.isnan(gaps).sum())
        hits += int((gaps >= abs(mean) - 1e-9).sum())
        count += len(chosen)
    # A relabelling whose gap is not defined counts as one as large: that can only make p too large.
    hits += undefined
    return told | {
        "permutation_p": hits / ways if exact else (1 + hits) / (1 + count),
        "n_permutations": count,
        "exact": exact,
        "smallest_possible_p": min(1.0, (2 if 2 * n_a == n else 1) / ways),
    }


def spread(names: Sequence[str], sums: Array) -> dict[str, float | int | str]:
    """Worst and best speaker by the CCC of their own clips, and where that of one new speaker would lie.

    Speakers with fewer than `ENOUGH_CLIPS` rated clips of a dimension, or whose ratings are all the same, are counted
    and left out: their CCC is chance, or 0 whatever is answered. Model: the Fisher z of the others' CCCs are normal;
    the 95 % prediction interval is mean -+ t(.975, S - 1) SD sqrt(1 + 1/S) of z, taken back. The CCC of one speaker is
    of the order within that speaker alone, so that it is mostly below that of all clips together.

    Args:
        names: of the S speakers
        sums: of one model, (S, D, 6)
    """
    n = sums[..., N]
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = sums[..., XX] / n - (sums[..., X] / n) ** 2
    told = np.asarray(((n >= ENOUGH_CLIPS) & (variance > SMALLEST_VARIANCE)).all(axis=1), dtype=bool)
    values = np.where(told, cccs(np.where(told[:, None, None], sums, np.nan)).mean(axis=1), np.nan)
    found = values[told]
    result: dict[str, float | int | str] = {
        "n_speakers": len(found), "too_few_clips": int((~told).sum()), "worst_speaker": "", "worst_ccc": math.nan,
        "best_speaker": "", "best_ccc": math.nan, "sd_between_speakers": math.nan, "new_speaker_low": math.nan,
        "new_speaker_high": math.nan,
    }  # fmt: skip
    if not len(found):
        return result
    order = np.argsort(np.where(told, values, np.inf), kind="stable")[: len(found)]
    result |= {
        "worst_speaker": names[int(order[0])],
        "worst_ccc": float(values[order[0]]),
        "best_speaker": names[int(order[-1])],
        "best_ccc": float(values[order[-1]]),
    }
    if len(found) > 1:
        z = _z(np.clip(found, -1 + 1e-12, 1 - 1e-12))
        reach = float(z.std(ddof=1)) * math.sqrt(1 + 1 / len(z))
        low, high = t_interval(float(z.mean()), reach, len(z) - 1)
        result |= {
            "sd_between_speakers": float(found.std(ddof=1)),
            "new_speaker_low": math.tanh(low),
            "new_speaker_high": math.tanh(high),
        }
    return result


def coverage(n_speakers: int, of: str, method: str = HEADLINE) -> tuple[float, int]:
    """Coverage that the simulation found for a nominal 95 % interval, and the number of speakers simulated.

    The simulated number next below; the lowest one for fewer.

    Args:
        n_speakers: how many there are
        of: `ccc` or `difference`
        method: of `METHODS`
    """
    sizes = sorted(COVERAGE[of])
    size = max((size for size in sizes if size <= n_speakers), default=sizes[0])
    return COVERAGE[of][size][method], size


def _z(values: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.arctanh(values))


def _same(values: Array) -> Array:
    return values


def _jackknife(deleted: Array) -> float:
    """Standard error from the estimates without each of S speakers; NaN where one is not defined, or all are alike."""
    s = len(deleted)
    if s < 2 or not np.isfinite(deleted).all():
        return math.nan
    error = math.sqrt((s - 1) / s * float(((deleted - deleted.mean()) ** 2).sum()))
    return error if error > 1e-12 else math.nan


def _resampled(weights: npt.NDArray[np.int64], sums: Array, contrast: Sequence[float]) -> tuple[Array, Array]:
    """Estimate and linearised standard error of each draw, (draws,) each, in chunks that keep memory small."""
    values, errors = [], []
    for start in range(0, len(weights), _CHUNK):
        w = weights[start : start + _CHUNK].astype(np.float64)
        values.append(theta(_weighted(w, sums), contrast))
        errors.append(_errors(w, sums, contrast))
    return np.concatenate(values), np.concatenate(errors)


def _weighted(weights: Array, sums: Array) -> Array:
    """Sums of each draw, (draws, M, D, 6)."""
    return np.asarray((weights @ sums.reshape(len(sums), -1)).reshape(len(weights), *sums.shape[1:]))


def _errors(weights: Array, sums: Array, contrast: Sequence[float]) -> Array:
    """Linearised standard error of the estimate of each draw, (draws,).

    The influence of a speaker is the gradient of the estimate in the sums, times the sums of the speaker; it adds up to
    0 over a draw, since a CCC does not depend on how often all clips are counted. The variance is the sum of its
    squares over the draw, times S / (S - 1).
    """
    s = len(sums)
    total = _weighted(weights, sums)
    gradient = _gradient(total) * np.asarray(contrast, dtype=np.float64)[:, None, None] / sums.shape[2]
    influence = gradient.reshape(len(weights), -1) @ sums.reshape(s, -1).T  # (draws, S)
    return np.asarray(np.sqrt(np.maximum(0.0, (weights * influence**2).sum(axis=1)) * s / (s - 1)))


def _gradient(sums: Array) -> Array:
    """Derivatives of the CCC in its six sums, (..., 6) -> (..., 6), with CCC = 2 (n xy - x y) / (n (xx + yy) - 2 x y).

    0 where the CCC is 0 because something is constant.
    """
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    zero = np.zeros_like(n)
    below = n * (xx + yy) - 2 * x * y
    value = cccs(sums)
    top = np.stack([2 * xy, -2 * y, -2 * x, zero, zero, 2 * n], axis=-1)
    bottom = np.stack([xx + yy, -2 * y, -2 * x, n, n, zero], axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (top - value[..., None] * bottom) / below[..., None]
        constant = (xx / n - (x / n) ** 2 < SMALLEST_VARIANCE) | (yy / n - (y / n) ** 2 < SMALLEST_VARIANCE)
    return np.where(np.asarray(constant | ~np.isfinite(value))[..., None], 0.0, found)


def _choices(n: int, k: int, exact: bool, rng_seed: int) -> list[npt.NDArray[np.int64]]:
    """Which k of n speakers are the first group: every way, or drawn; in chunks."""
    if exact:
        everything = np.array(list(itertools.combinations(range(n), k)), dtype=np.int64)
    else:
        rng = np.random.default_rng(rng_seed)
        everything = np.array([rng.permutation(n)[:k] for _ in range(fairness.DRAWS)], dtype=np.int64)
    return [everything[start : start + _CHUNK] for start in range(0, len(everything), _CHUNK)]
