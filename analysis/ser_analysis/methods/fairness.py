"""Who is served worse: gaps between groups of speakers, the worst speaker and the worst class. The unit is the speaker.

Descriptive with few speakers: with 3 and 3 the smallest two-sided permutation p there can be is .10.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from ser_analysis.methods.descriptives import t_interval
from ser_analysis.methods.speakers import Integers, speaker_uars
from ser_analysis.scores import Array
from ser_eval.intervals import jackknife_interval

ENUMERATED = 200_000
"""Up to so many ways of giving the group's name to speakers a test runs through all of them."""
DRAWS = 99_999


def gap(values: Array, first: Sequence[bool] | Array, *, rng_seed: int = 0) -> dict[str, float | int]:
    """Mean of one group of speakers minus that of the others, with Welch's t interval and a permutation test.

    Model: the speakers of either group are a random sample of such people. The permutation test gives the group's name
    to every choice of as many speakers (seeded draws beyond `ENUMERATED`); two-sided, ties by rounding count as equal.
    NaN where a group has one speaker or no spread.

    Args:
        values: one number per speaker, (S,)
        first: which speakers are of the first group
    """
    from scipy.stats import t as t_distribution

    inside = np.asarray(first, dtype=bool)
    a, b = values[inside], values[~inside]
    n_a, n_b = len(a), len(b)
    mean = float(a.mean() - b.mean()) if n_a and n_b else math.nan
    told: dict[str, float | int] = {"n_first": n_a, "n_second": n_b, "gap": mean}
    low = high = p = math.nan
    if n_a > 1 and n_b > 1:
        parts = [float(part.var(ddof=1)) / len(part) for part in (a, b)]
        se = math.sqrt(sum(parts))
        if se > 1e-12:
            df = sum(parts) ** 2 / sum(part**2 / (n - 1) for part, n in zip(parts, (n_a, n_b), strict=True))
            low, high = t_interval(mean, se, df)
            p = 2 * float(t_distribution.sf(abs(mean / se), df))
    return told | {"ci95_low": low, "ci95_high": high, "welch_p": p, **_permutation(values, inside, rng_seed)}


def _permutation(values: Array, inside: np.typing.NDArray[np.bool_], rng_seed: int) -> dict[str, float | int]:
    n, n_a = len(values), int(inside.sum())
    if not 0 < n_a < n:
        return {"permutation_p": math.nan, "n_permutations": 0, "exact": True, "smallest_possible_p": math.nan}
    total, ways = float(values.sum()), math.comb(n, n_a)
    exact = ways <= ENUMERATED
    if exact:
        sums = values[np.array(list(itertools.combinations(range(n), n_a)))].sum(axis=1)
    else:
        rng = np.random.default_rng(rng_seed)
        sums = np.array([values[rng.permutation(n)[:n_a]].sum() for _ in range(DRAWS)])
    gaps = np.abs(sums / n_a - (total - sums) / (n - n_a))
    own = float(values[inside].sum())
    bar = abs(own / n_a - (total - own) / (n - n_a)) - 1e-9
    hits = int((gaps >= bar).sum())
    return {
        "permutation_p": hits / ways if exact else (1 + hits) / (1 + DRAWS),
        "n_permutations": ways if exact else DRAWS,
        "exact": exact,
        "smallest_possible_p": min(1.0, (2 if 2 * n_a == n else 1) / ways),
    }


def spread(names: Sequence[str], clips: Integers, correct: Integers) -> dict[str, float | int | str]:
    """Worst and best speaker, the SD between speakers, and where the UAR of one new speaker would lie.

    Model: the UARs of speakers (over the classes that each has) are normal; the 95 % prediction interval is
    mean -+ t(.975, S - 1) SD sqrt(1 + 1/S), cut at 0 and 1. The worst of S is worse than that speaker would be heard
    again, since luck chose it too; so the interval is for the next person, not for the worst one.
    """
    values = speaker_uars(clips, correct)
    order = np.argsort(values, kind="stable")
    n, sd = len(values), float(values.std(ddof=1)) if len(values) > 1 else math.nan
    low, high = t_interval(float(values.mean()), sd * math.sqrt(1 + 1 / n), n - 1) if n > 1 else (math.nan, math.nan)
    return {
        "n_speakers": n,
        "worst_speaker": names[int(order[0])],
        "worst_uar": float(values[order[0]]),
        "best_speaker": names[int(order[-1])],
        "best_uar": float(values[order[-1]]),
        "sd_between_speakers": sd,
        "new_speaker_low": max(0.0, low),
        "new_speaker_high": min(1.0, high),
        "speakers_without_a_class": int((clips == 0).any(axis=1).sum()),
    }


def recalls(labels: Sequence[str], clips: Integers, correct: Integers) -> list[dict[str, float | int | str]]:
    """Recall of each class with its 95 % interval over speakers, worst first.

    `simultaneous_...` holds for all K classes at once (Bonferroni), and so also for the worst, which was chosen after
    it was seen. Student's t on the delete-one-speaker jackknife over the speakers that have the class, cut at 0 and 1;
    NaN where fewer than two have it, or all alike.
    """
    rows = []
    for k, label in enumerate(labels):
        has = clips[:, k] > 0
        n, right = clips[has][:, [k]], correct[has][:, [k]]
        row: dict[str, float | int | str] = {
            "class": label,
            "recall": float(right.sum() / n.sum()) if has.any() else math.nan,
            "n_clips": int(n.sum()),
            "n_speakers": int(has.sum()),
        }
        for name, level in (("ci95", 0.95), ("simultaneous", 1 - 0.05 / len(labels))):
            found = jackknife_interval(n, right, level=level) if has.sum() > 1 else None
            row |= {
                f"{name}_low": found.low if found else math.nan,
                f"{name}_high": found.high if found else math.nan,
            }
        rows.append(row)
    return sorted(rows, key=lambda row: (math.isnan(float(row["recall"])), row["recall"]))
