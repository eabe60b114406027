"""T2, new people and training anew: how far a UAR, or the difference of two, would move with other speakers and runs.

The intervals of `speakers` take the trained models as they are. Where an experiment trains every model several times
(seeds, splits), the spread between runs tells how much of a difference is the luck of training.
"""

from __future__ import annotations

import math

from ser_analysis.methods.descriptives import t_interval
from ser_analysis.methods.speakers import Integers, check
from ser_eval.intervals import jackknife_interval

VARIANTS = ("sum", "sum_overlap", "subtracted")
CHOSEN = {"in_domain": "sum", "other": "sum_overlap"}
"""The variant for test sets of the training corpora and for others: of those that reject at most a tenth of the true
nulls in every setting of benchmarks/stats_calibration.py, the one nearest to 5 %."""
COVERAGE: dict[str, dict[int, tuple[float, float]]] = {
    "in_domain": {6: (0.967, 0.955), 10: (0.968, 0.962), 20: (0.976, 0.973), 90: (0.957, 0.917)},
    "other": {6: (0.975, 0.968), 10: (0.973, 0.963), 20: (0.966, 0.957), 90: (0.962, 0.935)},
}
"""Share of simulated experiments whose nominal 95 % interval held the truth, by place and number of test speakers: the
mean over the settings and the worst of them (5 or 10 runs; voices trained on shape a model or not), as
benchmarks/stats_calibration.py prints it in full mode."""


def run(
    clips: Integers, correct: Integers, *, test_train_ratio: float = 0.0, variant: str = "sum"
) -> dict[str, float | int]:
    """Estimate, standard error, t, df, p and 95 % interval over speakers and runs.

    Model: runs (splits) and speakers are two crossed samples; each adds its own spread to the UAR of all clips of all
    runs, which is linear in the correct clips, so that it is a sum of the shares of speakers and of runs. `sum` is

        V = V_speakers + V_runs

    with V_speakers from the delete-one-speaker jackknife and V_runs = R / (R - 1) times the sum of the squared shares
    of the R runs; Student's t with Satterthwaite's df. The chance of single clips counts in both, and where every run
    tests people of its own, so do people: that makes the interval too wide where training is no lottery, and pays for
    what the runs cannot show, that their training sets overlap. `sum_overlap` pays for it where all runs test the same
    people: V_runs x (1 + R n_test / n_train), Nadeau & Bengio's (2003) factor. `subtracted` takes out what counts twice
    (Cameron, Gelbach & Miller 2011), and rejects too often where there are many speakers. `CHOSEN` by simulation.
    Alternatives: `speakers` (the models as trained), the Nadeau-Bengio test over runs (`contrasts`).

    Args:
        clips: clips per run, speaker and class, (R, S, K); 0 for speakers whom a run does not test
        correct: correct clips, (R, S, K); for a difference the difference of two models
        test_train_ratio: clips held out / trained on by one run, on the training corpora; 0 where no training clips are
            shared
        variant: of `VARIANTS`

    Raises:
        BadInput: as `speakers.check`
    """
    from scipy.stats import t as t_distribution

    seen = clips.sum(axis=(0, 2)) > 0
    clips, correct = clips[:, seen], correct[:, seen]
    pooled, right = clips.sum(axis=0), correct.sum(axis=0)
    check(pooled)
    r, s = clips.shape[:2]
    total = pooled.sum(axis=0)  # (K,)
    recalls = right.sum(axis=0) / total
    estimate = float(recalls.mean())
    told: dict[str, float | int] = {"estimate": estimate, "n_runs": r, "n_speakers": s}
    undefined = dict.fromkeys(("standard_error", "t", "df", "p", "low", "high"), math.nan)
    jackknife = jackknife_interval(pooled, right, lowest=-math.inf, highest=math.inf)
    if r < 2 or jackknife is None:
        return told | undefined
    shares = ((correct - recalls * clips) / total).mean(axis=2)  # (R, S)
    of_speakers = jackknife.standard_error**2
    of_runs = r / (r - 1) * float((shares.sum(axis=1) ** 2).sum())
    factor = 1 + r * test_train_ratio if variant == "sum_overlap" else 1.0
    parts = [(of_speakers, s - 1), (factor * of_runs, r - 1)]
    if variant == "subtracted":
        cells = int((clips.sum(axis=2) > 0).sum())
        both = cells / (cells - 1) * float((shares**2).sum())
        parts = [(of_speakers, s - 1), *([(of_runs, r - 1), (-both, cells - 1)] if of_runs > both else [])]
    variance = sum(part for part, _ in parts)
    if not variance > 0:
        return told | undefined
    df = variance**2 / sum(part**2 / df for part, df in parts)
    error = math.sqrt(variance)
    low, high = t_interval(estimate, error, df)
    t = estimate / error
    p = 2 * float(t_distribution.sf(abs(t), df))
    return told | {"standard_error": error, "t": t, "df": df, "p": p, "low": low, "high": high}


def coverage(n_speakers: int, place: str) -> tuple[float, float, int]:
    """Mean and worst simulated coverage of the chosen interval, and the number of speakers simulated (next below)."""
    sizes = sorted(COVERAGE[place])
    size = max((size for size in sizes if size <= n_speakers), default=sizes[0])
    return *COVERAGE[place][size], size
