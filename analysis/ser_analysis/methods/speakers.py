"""T2, new people: how far a UAR, or the difference of two, would move with other speakers.

Clips of one speaker resemble each other, so the speaker is the unit of every method here. All of them work on counts
per speaker and class, never on clips: with the clips of each class fixed, a UAR is linear in the correct clips, so that
a difference of two UARs on the same clips is the UAR of the difference of their correct clips.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ser_analysis.methods.descriptives import t_interval
from ser_analysis.methods.signflip import ENUMERATED_BLOCKS, p_value
from ser_analysis.scores import Array
from ser_eval.errors import BadInput
from ser_eval.intervals import jackknife_interval

Integers = npt.NDArray[np.int64]

DRAWS = 10_000
ENUMERATED_SPEAKERS = 8
"""Up to so many speakers the bootstrap runs through every multiset of speakers; beyond, it draws."""
FEW_SPEAKERS = 20
LEVEL = 0.95
METHODS = ("jackknife_t", "t", "studentised", "bca", "percentile")
HEADLINE = "jackknife_t"
"""The interval that sentences, tables and pages lead with, chosen by benchmarks/stats_calibration.py: of a difference
it is nearest to 95 % or within the noise of the simulation of the nearest at every number of speakers, and of one UAR
no other is nearer by more than a point (`COVERAGE`); and it is the interval of the report."""
COVERAGE: dict[str, dict[int, dict[str, float]]] = {
    "uar": {
        4: {"jackknife_t": 0.937, "t": 0.939, "studentised": 0.928, "bca": 0.779, "percentile": 0.776},
        6: {"jackknife_t": 0.929, "t": 0.924, "studentised": 0.928, "bca": 0.843, "percentile": 0.841},
        10: {"jackknife_t": 0.943, "t": 0.936, "studentised": 0.952, "bca": 0.899, "percentile": 0.892},
        20: {"jackknife_t": 0.941, "t": 0.943, "studentised": 0.952, "bca": 0.931, "percentile": 0.924},
        90: {"jackknife_t": 0.959, "t": 0.958, "studentised": 0.963, "bca": 0.954, "percentile": 0.952},
    },
    "difference": {
        4: {"jackknife_t": 0.95, "t": 0.949, "studentised": 0.927, "bca": 0.805, "percentile": 0.802},
        6: {"jackknife_t": 0.946, "t": 0.953, "studentised": 0.944, "bca": 0.853, "percentile": 0.854},
        10: {"jackknife_t": 0.954, "t": 0.953, "studentised": 0.954, "bca": 0.901, "percentile": 0.906},
        20: {"jackknife_t": 0.958, "t": 0.964, "studentised": 0.96, "bca": 0.928, "percentile": 0.933},
        90: {"jackknife_t": 0.953, "t": 0.95, "studentised": 0.952, "bca": 0.948, "percentile": 0.947},
    },
}
"""Share of simulated corpora whose nominal 95 % interval held the truth, by what it is of (one UAR, or the paired
difference of two), number of test speakers and method: the mean over the designs of benchmarks/stats_calibration.py
(`make bench-stats`, full mode), which prints this table."""
MOST_REDRAWS = 1000
"""Rounds of drawing anew the draws that lack a class."""
_CHUNK = 2000


@dataclass(frozen=True)
class Draws:
    """Resamples of speakers: how often each speaker is in each, and how much each counts."""

    weights: Integers
    """(draws, speakers); every draw has clips of every class."""
    share: Array
    """(draws,), adding up to 1."""
    exact: bool
    """Whether these are all multisets there are."""
    without_a_class: float
    """Draws that lacked a class: drawn anew (their number), or left out of the enumeration (their probability)."""


def check(clips: Integers) -> None:
    """Refuse what allows no statement about other people.

    Raises:
        BadInput: fewer than two speakers, or a class without clips
    """
    if len(clips) < 2:
        told = "there is no speaker" if len(clips) == 0 else "there is one speaker"
        raise BadInput(f"{told}; what other people would get needs at least two, and is hardly known under 20")
    if (clips.sum(axis=0) == 0).any():
        raise BadInput("a class has no clips, so that the UAR is not defined")


def uars(weights: npt.ArrayLike, clips: Integers, correct: Integers) -> Array:
    """UAR of each resample and model, (draws, models).

    Args:
        weights: (draws, S)
        clips: (S, K)
        correct: (models, S, K); for a difference the difference of two models
    """
    w = np.asarray(weights, dtype=np.float64)
    total = w @ clips  # (draws, K)
    right = (w @ np.moveaxis(correct, 0, 1).reshape(len(clips), -1)).reshape(len(w), len(correct), -1)
    return np.asarray((right / total[:, None, :]).mean(axis=2))


def draw(clips: Integers, *, rng_seed: int, draws: int = DRAWS) -> Draws:
    """Resamples of S speakers with replacement: every multiset up to `ENUMERATED_SPEAKERS`, else seeded draws.

    A draw without clips of a class has no UAR; it is drawn anew, or left out of the enumeration, and counted.

    Raises:
        BadInput: as `check`, or hardly any draw has every class
    """
    check(clips)
    s = len(clips)
    if s <= ENUMERATED_SPEAKERS:
        picks = np.array(list(itertools.combinations_with_replacement(range(s), s)))
        weights = np.zeros((len(picks), s), dtype=np.int64)
        np.add.at(weights, (np.arange(len(picks))[:, None], picks), 1)
        orders = [math.factorial(s) / math.prod(map(math.factorial, row)) for row in weights.tolist()]
        share = np.array(orders) / s**s
        whole = (weights @ clips > 0).all(axis=1)
        return Draws(weights[whole], share[whole] / share[whole].sum(), True, float(share[~whole].sum()))
    rng = np.random.default_rng(rng_seed)
    weights = rng.multinomial(s, np.full(s, 1 / s), size=draws)
    again = 0
    for _ in range(MOST_REDRAWS):
        lacking = np.flatnonzero((weights @ clips == 0).any(axis=1))
        if not len(lacking):
            return Draws(weights, np.full(draws, 1 / draws), False, float(again))
        again += len(lacking)
        weights[lacking] = rng.multinomial(s, np.full(s, 1 / s), size=len(lacking))
    raise BadInput("hardly any resample of the speakers has clips of every class; the UAR of new speakers is unknown")


def run(
    clips: Integers, correct: Integers, *, rng_seed: int = 0, draws: int = DRAWS, drawn: Draws | None = None
) -> list[dict[str, float | int | bool]]:
    """Every interval of every model (or difference), one row each.

    Model: the speakers are a random sample of people, the trained models are taken as they are, and every model is
    scored on the same clips. `jackknife_t`: Student's t on the delete-one-speaker jackknife (the report's interval,
    `ser_eval.intervals`). `t`: Student's t over the UARs of the speakers, where each has every class; NaN elsewhere.
    `studentised`: bootstrap t with the linearised standard error of each draw. `bca`: bias-corrected and accelerated
    (Efron 1987). `percentile`: the plain bootstrap, which is too narrow over few speakers. All nominal 95 %, none cut.

    Args:
        clips: clips per speaker and class, (S, K), S >= 2
        correct: correct clips per model, speaker and class, (M, S, K)
        rng_seed: of the draws beyond `ENUMERATED_SPEAKERS`
        draws: how many
        drawn: resamples to use instead

    Returns:
        per model: estimate, standard_error (jackknife; NaN where all speakers scored alike), n_speakers, mean and sd of
        the bootstrap, exact, n_draws, without_a_class, and `<method>_low`, `<method>_high`

    Raises:
        BadInput: as `draw`
    """
    check(clips)
    drawn = drawn or draw(clips, rng_seed=rng_seed, draws=draws)
    s = len(clips)
    everyone = np.ones((1, s))
    estimate = uars(everyone, clips, correct)[0]
    values, errors = _resampled(drawn.weights, clips, correct)
    own_error = _errors(everyone, clips, correct)[0]
    whole = (clips > 0).all()
    rows: list[dict[str, float | int | bool]] = []
    for m, theta in enumerate(estimate):
        jackknife = jackknife_interval(clips, correct[m], lowest=-math.inf, highest=math.inf)
        boot, share = values[:, m], drawn.share
        mean = float(share @ boot)
        row: dict[str, float | int | bool] = {
            "estimate": float(theta),
            "standard_error": jackknife.standard_error if jackknife else math.nan,
            "n_speakers": s,
            "mean": mean,
            "sd": math.sqrt(max(0.0, float(share @ (boot - mean) ** 2))),
            "exact": drawn.exact,
            "n_draws": len(boot),
            "without_a_class": drawn.without_a_class,
        }
        ends = {
            "jackknife_t": (jackknife.low, jackknife.high) if jackknife else (math.nan, math.nan),
            "t": _t_of_speakers(clips, correct[m]) if whole else (math.nan, math.nan),
            "studentised": studentised(float(theta), own_error[m], boot, errors[:, m], share),
            "bca": bca(float(theta), _deleted(clips, correct[m]), boot, share),
            "percentile": (quantile(boot, share, (1 - LEVEL) / 2), quantile(boot, share, (1 + LEVEL) / 2)),
        }
        for method, (low, high) in ends.items():
            row |= {f"{method}_low": low, f"{method}_high": high}
        rows.append(row)
    return rows


def quantile(values: Array, share: Array, q: float) -> float:
    """The smallest value below or at which lies at least `q` of a weighted distribution."""
    order = np.argsort(values, kind="stable")
    # The last sums are 1 but for rounding, which must not push the end beyond the values.
    at = int(np.searchsorted(np.cumsum(share[order]), q - 1e-12))
    return float(values[order[min(at, len(order) - 1)]])


def swap(clips: Integers, correct_a: Integers, correct_b: Integers, *, rng_seed: int = 0) -> dict[str, float | int]:
    """Speaker-swap permutation test of the difference of two UARs, two-sided.

    Model: under the null hypothesis it does not matter which of the two models answered a speaker, so that all answers
    of a speaker may change sides together. The classes' clips stay, and so the difference is a sum over speakers whose
    terms change their sign: exact up to `ENUMERATED_BLOCKS` speakers, else seeded draws. Floor 2 / 2^S.
    """
    terms = ((correct_b - correct_a) / clips.sum(axis=0)).mean(axis=1)  # (S,)
    exact = len(terms) <= ENUMERATED_BLOCKS
    told: dict[str, float | int] = {"n_permutations": 2 ** len(terms)} if exact else {}
    return told | {"p_two_sided": p_value(terms, rng_seed=rng_seed)}


def t_test(clips: Integers, correct: Integers) -> dict[str, float | int]:
    """Student's t of one difference with the jackknife's standard error: t, df, p; NaN where speakers scored alike."""
    from scipy.stats import t as t_distribution

    found = jackknife_interval(clips, correct, lowest=-math.inf, highest=math.inf)
    df = len(clips) - 1
    if found is None:
        return {"t": math.nan, "df": df, "p": math.nan}
    t = float((correct.sum(axis=0) / clips.sum(axis=0)).mean()) / found.standard_error
    return {"t": t, "df": df, "p": 2 * float(t_distribution.sf(abs(t), df))}


def paired_t(clips: Integers, correct_a: Integers, correct_b: Integers) -> dict[str, float | int | list[float]] | None:
    """Paired t over the speakers' own UARs, B - A; None where a speaker lacks a class or all differences are alike."""
    from scipy.stats import t as t_distribution

    if not (clips > 0).all():
        return None
    difference = ((correct_b - correct_a) / clips).mean(axis=1)
    n, sd = len(difference), float(difference.std(ddof=1))
    if not sd > 1e-12:
        return None
    mean, se = float(difference.mean()), sd / math.sqrt(n)
    return {
        "t": mean / se,
        "df": n - 1,
        "p": 2 * float(t_distribution.sf(abs(mean / se), n - 1)),
        "ci95": list(t_interval(mean, se, n - 1)),
    }


def speaker_uars(clips: Integers, correct: Integers) -> Array:
    """UAR of each speaker over the classes that they have, (S,)."""
    present = clips > 0
    recalls = np.where(present, correct / np.maximum(clips, 1), 0.0)
    return np.asarray(recalls.sum(axis=1) / np.maximum(present.sum(axis=1), 1))


def coverage(n_speakers: int, of: str = "difference", method: str = HEADLINE) -> tuple[float, int]:
    """Coverage that the simulation found for a nominal 95 % interval, and the number of speakers it was found with.

    The simulated number next below; the lowest one for fewer.
    """
    sizes = sorted(COVERAGE[of])
    below = [size for size in sizes if size <= n_speakers]
    size = below[-1] if below else sizes[0]
    return COVERAGE[of][size][method], size


def warning(n_speakers: int) -> str:
    """What must be said of few speakers; empty from `FEW_SPEAKERS` on."""
    if n_speakers >= FEW_SPEAKERS:
        return ""
    return f"only {n_speakers} speakers: a small sample of people, so read the interval and not the estimate" + (
        f"; no swap p can fall below 2/2^{n_speakers} = {2 / 2**n_speakers:.2g}" if n_speakers < 10 else ""
    )


def _resampled(weights: Integers, clips: Integers, correct: Integers) -> tuple[Array, Array]:
    """UAR and linearised standard error of each draw and model, in chunks that keep memory small."""
    parts = [(uars(w, clips, correct), _errors(w, clips, correct)) for w in _chunks(weights)]
    return np.concatenate([values for values, _ in parts]), np.concatenate([errors for _, errors in parts])


def _chunks(weights: Integers) -> Iterator[Array]:
    for start in range(0, len(weights), _CHUNK):
        yield weights[start : start + _CHUNK].astype(np.float64)


def _errors(weights: Array, clips: Integers, correct: Integers) -> Array:
    """Linearised standard error of the UAR of each draw and model, (draws, models).

    The influence of a speaker is the mean over classes of (correct - recall x clips) / clips of the class; the variance
    is the sum of its squares over the draw, times S / (S - 1).
    """
    s, k = clips.shape
    total = weights @ clips  # (draws, K)
    found = np.empty((len(weights), len(correct)))
    for m, right in enumerate(correct):
        recalls = (weights @ right) / total
        influence = ((1 / total) @ right.T - (recalls / total) @ clips.T) / k  # (draws, S)
        found[:, m] = np.sqrt(np.maximum(0.0, (weights * influence**2).sum(axis=1)) * s / (s - 1))
    return found


def _t_of_speakers(clips: Integers, correct: Integers) -> tuple[float, float]:
    values = (correct / clips).mean(axis=1)
    n, sd = len(values), float(values.std(ddof=1))
    return t_interval(float(values.mean()), sd / math.sqrt(n), n - 1) if sd > 1e-12 else (math.nan, math.nan)


def studentised(theta: float, error: float, boot: Array, errors: Array, share: Array) -> tuple[float, float]:
    """95 % bootstrap-t interval (Efron & Tibshirani 1993, ch. 12.5); NaN where no standard error is above 0.

    Args:
        theta: the estimate
        error: its standard error
        boot: the estimate of each draw, (draws,)
        errors: the standard error of each draw, (draws,)
        share: how much each draw counts, adding up to 1
    """
    told = errors > 1e-12
    if not error > 1e-12 or not told.any():
        return math.nan, math.nan
    t, part = (boot[told] - theta) / errors[told], share[told] / share[told].sum()
    return (
        theta - quantile(t, part, (1 + LEVEL) / 2) * error,
        theta - quantile(t, part, (1 - LEVEL) / 2) * error,
    )


def bca(theta: float, deleted: Array, boot: Array, share: Array) -> tuple[float, float]:
    """95 % bias-corrected and accelerated bootstrap interval (Efron 1987); NaN where all is alike.

    Args:
        theta: the estimate
        deleted: the estimate without each speaker in turn, (S,)
        boot: the estimate of each draw, (draws,)
        share: how much each draw counts, adding up to 1
    """
    from scipy.stats import norm

    # Equal values count half; rounding must not decide what is equal.
    below = float(share[boot < theta - 1e-12].sum() + share[np.abs(boot - theta) <= 1e-12].sum() / 2)
    if not 0 < below < 1:
        return math.nan, math.nan
    d = deleted.mean() - deleted
    scale = float((d**2).sum())
    if not scale > 1e-24:
        return math.nan, math.nan
    a, z0 = float((d**3).sum()) / (6 * scale**1.5), float(norm.ppf(below))
    ends = []
    for q in ((1 - LEVEL) / 2, (1 + LEVEL) / 2):
        z = z0 + float(norm.ppf(q))
        ends.append(quantile(boot, share, float(norm.cdf(z0 + z / (1 - a * z)))))
    return ends[0], ends[1]


def _deleted(clips: Integers, correct: Integers) -> Array:
    """UAR without each speaker in turn, over the classes that are left."""
    left, right = clips.sum(axis=0) - clips, correct.sum(axis=0) - correct
    return speaker_uars(left, right)


def counts(
    speakers: Sequence[str], truth: Sequence[str], answers: Sequence[Sequence[str]], labels: Sequence[str]
) -> tuple[list[str], Integers, Integers]:
    """Names of the speakers (sorted), clips (S, K) and correct clips (models, S, K) of N clips.

    Args:
        speakers: of each clip, N
        truth: of each clip, N, all among `labels`
        answers: per model, N each
        labels: the K labels of the task
    """
    names = sorted(set(speakers))
    index = {name: number for number, name in enumerate(names)}
    column = {label: number for number, label in enumerate(labels)}
    cell = np.array([index[s] * len(labels) + column[t] for s, t in zip(speakers, truth, strict=True)], dtype=np.int64)
    size, shape = len(names) * len(labels), (len(names), len(labels))
    reference = np.asarray(truth, dtype=object)
    right = [np.bincount(cell[np.asarray(a, dtype=object) == reference], minlength=size) for a in answers]
    clips = np.bincount(cell, minlength=size).reshape(shape).astype(np.int64)
    return names, clips, np.array(right, dtype=np.int64).reshape(len(answers), *shape)
