"""Do the statistics keep their word? Type I error and coverage of every default, on simulated speech experiments.

    make bench-stats                       # quick: under 2 minutes
    make bench-stats ARGS=--full           # as printed in docs/statistics.md: about 15 minutes
    make bench-stats ARGS="--ratings --full"   # ratings alone: intervals of the CCC, about 5 minutes

T1 (another split of this corpus): scores of splits x 3 models x 2 test sets. A good split is good for every model, a
model has its good and bad splits, the two test sets of one trained model share its training, and the spread differs
between test sets and models (SDs of .018 and .034 as in published tables), with normal or skewed noise. Under the null
no model differs. T2 (new people): clips of 4 to 90 speakers, 7 classes; some speakers and some of their emotions are
harder (logit SDs .5 and .6), and each model has its own difficult speakers (.3). Corpora are balanced, uneven (an
eighth of the cells empty), small (3 clips per cell) or skewed (a fifth of the people are heard badly). Training anew:
the same, with 5 or 10 seeds that train on four fifths of the speakers each and test the others, or another corpus; each
training has its luck (.05), and in half of the settings the voices trained on shape the model (.05).

Ratings (`--ratings`, alone): clips of 4 to 90 speakers; ratings differ between speakers (SD .08) and clips (.15), and
answers follow them with a level (SD .06, and .05 of each model's own), a slope (.55; SD .15, and .1) and an error (.08,
and .08) of speaker and clip, which gives a CCC of about .6. Corpora are balanced (15 clips per speaker), uneven (2 to
many), small (5), skewed (for a fifth of the people the slope is .5 lower), or it is the mean over two dimensions.

The truth is known, so that rejections of a true null (5 % wanted) and intervals that hold the truth (95 %) are counted.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ser_analysis.methods import (
    between_anova,
    concordance,
    contrasts,
    descriptives,
    rm_anova,
    signflip,
    speakers,
    two_way,
)
from ser_analysis.scores import Scores
from ser_eval.errors import BadInput

Floats = npt.NDArray[np.float64]
SIZES = (4, 6, 10, 20, 90)
BLOCKS = (5, 10, 20, 50)
CLASSES = 7
DESIGNS = ("balanced", "uneven", "small", "skewed")
RATED = (*DESIGNS, "two dimensions")
TRAIN_EFFECTS = (0.0, 0.05)
SEEDS = (5, 10)
RETRAINED_SIZES = (6, 10, 20, 90)
DRAWS = 999
ALPHA = 0.05
QUICK = {"t1": 150, "t2": 60, "overlap": 60, "ratings": 100}
FULL = {"t1": 1000, "t2": 300, "overlap": 600, "ratings": 600}
"""Simulated experiments per setting."""
SEED = 20240229
DEFAULTS = ("rm_anova", "paired_t")
"""The T1 defaults, whose error and coverage must be within a point of nominal, and simulation noise."""


class Tally:
    """Hits and trials by key."""

    def __init__(self) -> None:
        self.hits: dict[tuple[str, ...], float] = defaultdict(float)
        self.trials: dict[tuple[str, ...], int] = defaultdict(int)

    def add(self, *key: object, hit: bool) -> None:
        """One trial."""
        name = tuple(map(str, key))
        self.hits[name] += float(hit)
        self.trials[name] += 1

    def rows(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """One row per key, with the standard error of the simulation."""
        told = []
        for key, n in self.trials.items():
            p = self.hits[key] / n
            told.append({**dict(zip(names, key, strict=True)), "rate": p, "se": math.sqrt(p * (1 - p) / n), "n": n})
        return told


# T1: splits


def t1_scores(rng: np.random.Generator, blocks: int, *, effect: float, skewed: bool) -> Scores:
    """Splits x (3 models x 2 test sets); `effect` is what the third model is better by, on both test sets."""

    def noise(*shape: int) -> Floats:
        drawn = rng.gamma(4.0, size=shape) / 2 - 2 if skewed else rng.normal(size=shape)  # mean 0, SD 1
        return np.asarray(drawn)

    models, tests = 3, 2
    sd_test = np.array([0.018, 0.034])
    sd_model = np.array([0.8, 1.0, 1.3])
    y = np.zeros((blocks, models, tests)) + np.array([0.75, 0.55])
    y += 0.010 * noise(blocks, 1, 1)
    y += 0.010 * noise(blocks, 1, tests)
    y += 0.010 * noise(blocks, models, 1) * sd_model[:, None]
    y += 0.6 * noise(blocks, models, tests) * sd_test * sd_model[:, None]
    y[:, 2, :] += effect
    names = tuple(f"{number:03d}" for number in range(blocks))
    return Scores(
        "uar", ("model", "test"), (("a", "b", "c"), ("home", "away")), names, y.reshape(blocks, -1), where=("test",),
        block_name="split",
    )  # fmt: skip


def t1(rng: np.random.Generator, trials: int, error: Tally, held: Tally, power: Tally) -> None:
    """Type I error, coverage and, for one UAR point, power."""
    for n in BLOCKS:
        for trial in range(trials):
            skewed = bool(trial % 2)
            shape = "skewed" if skewed else "normal"
            for effect in (0.0, 0.01):
                scores = t1_scores(rng, n, effect=effect, skewed=skewed)
                table = rm_anova.run(scores).set_index("term")
                p = {"rm_anova": float(table.loc["model", "p_gg"])}
                difference = scores.values[:, 4] - scores.values[:, 0]  # c - a, home
                told = contrasts.corrected(difference, 0.0)
                p["paired_t"] = float(told["p"])
                if n <= signflip.ENUMERATED_BLOCKS:
                    p["sign_flip"] = signflip.p_value(difference)
                if effect:
                    for method, value in p.items():
                        power.add("T1, 1 UAR point", method, n, hit=value < ALPHA)
                else:
                    p["rm_anova, interaction"] = float(table.loc["model:test", "p_gg"])
                    if trial < 120:
                        p |= legacy(scores)
                    for method, value in p.items():
                        error.add("T1", method, n, shape, hit=value < ALPHA)
                    mean = descriptives.summary(scores.values[:, 0])
                    held.add("T1", "mean of a model", n, shape, hit=mean["ci95_low"] <= 0.75 <= mean["ci95_high"])
                held.add("T1", "paired_t", n, shape, hit=told["ci95_low"] <= effect <= told["ci95_high"])


def legacy(scores: Scores) -> dict[str, float]:
    """What older papers do: every score a unit; and one constant per split."""
    blocks, cells = scores.values.shape
    rows = pd.DataFrame(
        {
            "y": scores.values.ravel(),
            "model": np.tile([cell[0] for cell in scores.cells], blocks),
            "test": np.tile([cell[1] for cell in scores.cells], blocks),
            "block": np.repeat(list(scores.blocks), cells),
        }
    ).astype({"model": object, "test": object, "block": object})
    told = {}
    for name, block in (("between_groups", None), ("constant_per_split", "block")):
        anova = between_anova.run(rows, dv="y", factors=["model", "test"], typ=3, block=block).set_index("term")
        told[name] = float(anova.loc["model", "p"])
        told[f"{name}, interaction"] = float(anova.loc["model:test", "p"])
    return told


# T2: speakers


def logistic(x: Floats) -> Floats:
    """Probability of a logit."""
    return np.asarray(1 / (1 + np.exp(-x)))


def people(rng: np.random.Generator, n: int, design: str, *, effect: float) -> tuple[Floats, Floats]:
    """Recall of each of n people and classes by two models, (n, K) each."""
    ease = np.linspace(-0.6, 1.4, CLASSES)
    person = rng.normal(0, 0.5, size=(n, 1))
    if design == "skewed":
        person = np.where(rng.random((n, 1)) < 0.2, -1.6, 0.4) + rng.normal(0, 0.25, size=(n, 1))
    shared = ease + person + rng.normal(0, 0.6, size=(n, CLASSES))
    own = rng.normal(0, 0.3, size=(2, n, 1)) + rng.normal(0, 0.3, size=(2, n, CLASSES))
    return logistic(shared + own[0]), logistic(shared + own[1] + effect)


def clips_of(rng: np.random.Generator, n: int, design: str) -> npt.NDArray[np.int64]:
    """Clips per person and class; no class stays without any."""
    if design == "uneven":
        while True:
            clips = 2 + rng.negative_binomial(2, 0.18, size=(n, CLASSES))
            clips[rng.random((n, CLASSES)) < 0.125] = 0
            if (clips.sum(axis=0) > 0).all() and ((clips > 0).sum(axis=0) > 1).all():
                return np.asarray(clips, dtype=np.int64)
    return np.full((n, CLASSES), 3 if design == "small" else 14, dtype=np.int64)


def t2(rng: np.random.Generator, trials: int, error: Tally, held: Tally, power: Tally) -> None:
    """Coverage of every interval for one UAR and for a paired difference, without and with an effect."""
    for design in DESIGNS:
        for effect in (0.0, 0.25):
            everyone = [people(rng, 200_000, design, effect=effect) for _ in range(5)]
            truth_a, truth_b = (float(np.mean([one[m].mean() for one in everyone])) for m in (0, 1))
            if not effect:
                truth_b = truth_a = (truth_a + truth_b) / 2  # the two models are alike
            truths = {"uar": truth_a, "difference": truth_b - truth_a}
            for n in SIZES:
                for _ in range(trials if not effect else trials // 2):
                    clips = clips_of(rng, n, design)
                    right = [rng.binomial(clips, p) for p in people(rng, n, design, effect=effect)]
                    stacked = np.array([right[0], right[1] - right[0]], dtype=np.int64)
                    try:
                        rows = speakers.run(clips, stacked, rng_seed=int(rng.integers(2**31)), draws=DRAWS)
                    except BadInput:
                        continue
                    for of, row in zip(truths, rows, strict=True):
                        for method in speakers.METHODS:
                            low, high = float(row[f"{method}_low"]), float(row[f"{method}_high"])
                            if not math.isnan(low):
                                held.add("T2", of, method, n, design, hit=low <= truths[of] <= high)
                    test = speakers.t_test(clips, stacked[1])
                    p = {"jackknife_t": float(test["p"])}
                    p["speaker_swap"] = (
                        float(speakers.swap(clips, stacked[0], stacked[0] + stacked[1])["p_two_sided"])
                        if n <= 20
                        else math.nan
                    )
                    for method, value in p.items():
                        if not math.isnan(value):
                            into = power if effect else error
                            into.add(
                                *(("T2, .25 logits",) if effect else ("T2",)),
                                method,
                                n,
                                *(() if effect else (design,)),
                                hit=value < ALPHA,
                            )


# Ratings


def rated_people(rng: np.random.Generator, n: int, design: str, *, effect: float) -> Floats:
    """Sums of two models over the clips of each of n people, (n, 2, D, 6); the second's slope is higher by `effect`."""
    if design == "uneven":
        clips = 2 + rng.negative_binomial(2, 0.13, size=n)
    else:
        clips = np.full(n, 5 if design == "small" else 15)
    of = np.repeat(np.arange(n), clips)
    found = np.empty((n, 2, 2 if design == "two dimensions" else 1, 6))
    for d in range(found.shape[2]):
        slope = 0.55 + rng.normal(0, 0.15, size=n)
        if design == "skewed":
            slope -= 0.5 * (rng.random(n) < 0.2)
        level, person = rng.normal(0, 0.06, size=n), rng.normal(0, 0.08, size=n)
        x = person[of] + rng.normal(0, 0.15, size=len(of))
        shared = rng.normal(0, 0.08, size=len(of))
        for m in (0, 1):
            own_slope = slope + rng.normal(0, 0.1, size=n) + m * effect
            own_level = level + rng.normal(0, 0.05, size=n)
            y = own_level[of] + own_slope[of] * x + shared + rng.normal(0, 0.08, size=len(of))
            for at, values in enumerate((np.ones(len(of)), x, y, x * x, y * y, x * y)):
                found[:, m, d, at] = np.bincount(of, values, minlength=n)
    return found


def ratings(rng: np.random.Generator, trials: int) -> int:
    """Coverage of every interval for one CCC and for a paired difference, and true nulls rejected; prints tables.

    Returns:
        1 where the interval that is shown is more than two points, and the noise, below 95 % for a difference, else 0
    """
    held, error = Tally(), Tally()
    for design, effect in itertools.product(RATED, (0.0, 0.1)):
        everyone = rated_people(rng, 400_000, design, effect=effect).sum(axis=0)
        first, second = (float(concordance.theta(everyone[[m]], concordance.ONE)) for m in (0, 1))
        if not effect:
            first = second = (first + second) / 2  # the two models are alike
        truths = {"ccc": first, "difference": second - first}
        for n, _ in itertools.product(SIZES, range(trials if not effect else trials // 2)):
            sums = rated_people(rng, n, design, effect=effect)
            seed = int(rng.integers(2**31))
            drawn = speakers.draw(np.ones((n, 1), dtype=np.int64), rng_seed=seed, draws=DRAWS)
            told = {
                "ccc": concordance.run(sums[:, [0]], concordance.ONE, drawn=drawn),
                "difference": concordance.run(sums[:, ::-1], concordance.DIFFERENCE, drawn=drawn),
            }
            for of, row in told.items():
                for method in concordance.METHODS:
                    low, high = float(row[f"{method}_low"]), float(row[f"{method}_high"])
                    if not math.isnan(low):
                        held.add(of, method, n, design, hit=low <= truths[of] <= high)
            if not effect:
                error.add("jackknife_t", n, design, hit=float(told["difference"]["p"]) < ALPHA)
                if n <= 10:  # beyond, it is the same test with more patterns, and slow
                    error.add("speaker_swap", n, design, hit=concordance.swap(sums)["p_two_sided"] < ALPHA)
    covered = pooled(held.rows(["of", "method", "speakers", "setting"]), ["of", "method", "speakers"])
    rejected = pooled(error.rows(["method", "speakers", "setting"]), ["method", "speakers"])
    print(f"\nRatings: 95 % intervals that held the truth, %; mean, lowest and highest design\n{shown(covered)}")
    print(f"\nRatings: true nulls rejected, % (5 wanted)\n{shown(rejected)}")
    best: dict[str, dict[int, dict[str, float]]] = {}
    for row in covered.to_dict("records"):
        sizes = best.setdefault(str(row["of"]), {})
        sizes.setdefault(int(row["speakers"]), {})[str(row["method"])] = round(float(row["rate"]), 3)
    print(f"\nCOVERAGE of ser_analysis/methods/concordance.py:\n{json.dumps(best, indent=1)}")
    shown_interval = covered[(covered["of"] == "difference") & (covered["method"] == concordance.HEADLINE)]
    low = shown_interval[shown_interval["rate"] < 0.93 - 2.6 * shown_interval["se"]]
    print(
        "\nThe interval of ratings holds." if low.empty else f"\nThe interval of ratings does not hold:\n{shown(low)}"
    )
    return int(len(low) > 0)


# Overlapping splits


def overlap(rng: np.random.Generator, trials: int, error: Tally, held: Tally) -> None:
    """Seeds that each train on four fifths of the corpus: what may be said of people who are not in it?

    In the corpus each seed tests the fifth that is left; on another corpus every seed tests all of its speakers, and
    the models are trained on 20 speakers.
    """
    for other, seeds, n, train_effect in itertools.product((False, True), SEEDS, RETRAINED_SIZES, TRAIN_EFFECTS):
        setting = f"{'another' if other else 'the same'} corpus, {seeds} seeds, {train_effect:g}"
        for _ in range(trials):
            clips, difference, ratio = trained(rng, n, seeds, train_effect, other=other)
            each = np.array([np.mean(d.sum(axis=0) / c.sum(axis=0)) for c, d in zip(clips, difference, strict=True)])
            told = {
                "paired t of splits (T1)": contrasts.corrected(each, 0.0),
                "Nadeau-Bengio": contrasts.corrected(each, ratio),
                "speaker jackknife": jackknife(clips, difference),
                **{
                    name: two_way.run(clips, difference, test_train_ratio=ratio, variant=name)
                    for name in two_way.VARIANTS
                },
            }
            for method, answer in told.items():
                if not math.isnan(answer["p"]):
                    error.add("overlap", method, n, setting, hit=answer["p"] < ALPHA)
                    held.add("overlap", method, n, setting, hit=answer["p"] >= ALPHA)


def jackknife(clips: npt.NDArray[np.int64], difference: npt.NDArray[np.int64]) -> dict[str, float | int]:
    """The test over speakers that takes the models as trained, of (seeds, n, K)."""
    seen = clips.sum(axis=(0, 2)) > 0
    return speakers.t_test(clips.sum(axis=0)[seen], difference.sum(axis=0)[seen])


def trained(
    rng: np.random.Generator, n: int, seeds: int, train_effect: float, *, other: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], float]:
    """Clips and differences of correct clips of two alike models, (seeds, n, K), and clips tested / trained on."""
    voices = 20 if other else n
    p = people(rng, n, "balanced", effect=0.0)
    logits = [np.log(part / (1 - part)) for part in p]
    taught = rng.normal(0, train_effect, size=(2, voices))  # what each speaker's voice teaches each model
    held_out = max(2, voices // 5)
    clips, difference = np.zeros((seeds, n, CLASSES), dtype=np.int64), np.zeros((seeds, n, CLASSES), dtype=np.int64)
    for seed in range(seeds):
        drawn = rng.permutation(voices)
        tested, trained_on = (np.arange(n) if other else drawn[:held_out]), drawn[held_out:]
        clips[seed, tested] = 6
        right = []
        for m in (0, 1):
            shift = taught[m, trained_on].sum() / math.sqrt(len(trained_on)) + rng.normal(0, 0.05)
            right.append(rng.binomial(clips[seed, tested], logistic(logits[m][tested] + shift)))
        difference[seed, tested] = right[1] - right[0]
    return clips, difference, held_out / (voices - held_out)


def retrained(rows: list[dict[str, Any]]) -> dict[str, dict[int, tuple[float, float]]]:
    """Mean and worst coverage of the chosen interval over speakers and runs, by place and number of speakers."""
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for place, start in (("in_domain", "the same corpus"), ("other", "another corpus")):
        for size in map(str, RETRAINED_SIZES):
            held = [
                1 - row["rate"]
                for row in rows
                if row["size"] == size and row["method"] == two_way.CHOSEN[place] and row["setting"].startswith(start)
            ]
            found.setdefault(place, {})[int(size)] = (round(float(np.mean(held)), 3), round(min(held), 3))
    return found


def pooled(rows: list[dict[str, Any]], keys: list[str]) -> pd.DataFrame:
    """The mean rate over what is not among the keys, every setting weighing the same, and the worst setting."""
    table = pd.DataFrame(rows)
    if "of" in keys:
        # The t interval needs every class of every speaker; where a design hardly ever has them, the rest is no sample.
        table = table[table["n"] >= table.groupby(["of", "speakers"])["n"].transform("max") / 2]
    found = table.groupby(keys, sort=False).agg(
        rate=("rate", "mean"), lowest=("rate", "min"), highest=("rate", "max"), n=("n", "sum"),
        se=("se", lambda column: math.sqrt(float((column**2).sum())) / len(column)),
    )  # fmt: skip
    return found.reset_index()


def shown(table: pd.DataFrame) -> str:
    """Rows as aligned text, rates in percent."""
    told = table.copy()
    for column in ("rate", "lowest", "highest", "se"):
        told[column] = (100 * told[column]).map("{:.1f}".format)
    return str(told.to_string(index=False))


def figure(held: pd.DataFrame, error: pd.DataFrame, file: Path) -> None:
    """Coverage over speakers by method, and type I error over splits by method."""
    from matplotlib.figure import Figure

    page = Figure(figsize=(10, 3.6), layout="constrained")
    axes = page.subplots(1, 3)
    colours = dict(zip(speakers.METHODS, ("#0072B2", "#009E73", "#CC79A7", "#B58900", "#D55E00"), strict=True))
    for axis, of in zip(axes, ("uar", "difference"), strict=False):
        axis.axhspan(94, 96, color="#eeeeee")
        for method, part in held[held["of"] == of].groupby("method", sort=False):
            axis.plot(
                part["speakers"].astype(int),
                100 * part["rate"],
                "o-",
                color=colours[str(method)],
                label=method,
                markersize=4,
            )
        axis.set_xscale("log")
        axis.set_xticks(SIZES, [str(size) for size in SIZES])
        axis.minorticks_off()
        axis.set_xlabel("test speakers")
        axis.set_ylabel("intervals that held the truth, %")
        axis.set_title(f"T2: 95 % interval of {'a UAR' if of == 'uar' else 'a paired difference'}", fontsize=9)
    axes[0].legend(fontsize=7, frameon=False, loc="lower right")
    axis = axes[2]
    axis.axhspan(4, 6, color="#eeeeee")
    for (method, part), colour in zip(
        error.groupby("method", sort=False),
        ("#0072B2", "#009E73", "#B58900", "#56B4E9", "#D55E00", "#A33B00", "#8a8a8a", "#CC79A7"),
        strict=False,
    ):
        axis.plot(part["blocks"].astype(int), 100 * part["rate"], "o-", color=colour, label=method, markersize=4)
    axis.set_xscale("log")
    axis.set_xticks(BLOCKS, [str(size) for size in BLOCKS])
    axis.minorticks_off()
    axis.set_xlabel("splits")
    axis.set_ylabel("true nulls rejected, %")
    axis.set_title("T1: type I error, nominal 5 %", fontsize=9)
    axis.legend(fontsize=6, frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    page.savefig(file, dpi=130, metadata={"Software": None})


def main() -> int:
    """Simulate, print, and say whether the T1 defaults hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="as many experiments as docs/statistics.md prints")
    parser.add_argument("--ratings", action="store_true", help="intervals of the CCC of ratings, and nothing else")
    parser.add_argument("--json", type=Path, help="also write every rate to this file")
    parser.add_argument("--figure", type=Path, help="also draw coverage and error into this PNG")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", RuntimeWarning)
    trials = FULL if arguments.full else QUICK
    began = time.monotonic()
    if arguments.ratings:
        code = ratings(np.random.default_rng([SEED, *b"ratings"]), trials["ratings"])
        print(f"{time.monotonic() - began:.0f} s")
        return code
    error, held, power = Tally(), Tally(), Tally()
    for part, work in (("t2", t2), ("t1", t1)):
        work(np.random.default_rng([SEED, *part.encode()]), trials[part], error, held, power)
        print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    overlap(np.random.default_rng([SEED, 3]), trials["overlap"], error, held)
    print(f"overlap: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    errors, covered = ({key: [] for key in ("T1", "T2", "overlap")} for _ in range(2))  # type: ignore[var-annotated]
    for key, n in error.trials.items():
        rate = error.hits[key] / n
        errors[key[0]].append(
            {
                "method": key[1],
                "size": key[2],
                "setting": key[3],
                "rate": rate,
                "se": math.sqrt(rate * (1 - rate) / n),
                "n": n,
            }
        )
    for key, n in held.trials.items():
        rate = held.hits[key] / n
        row = {"rate": rate, "se": math.sqrt(rate * (1 - rate) / n), "n": n}
        if key[0] == "T2":
            covered["T2"].append({"of": key[1], "method": key[2], "speakers": key[3], "setting": key[4], **row})
        else:
            covered[key[0]].append({"method": key[1], "size": key[2], "setting": key[3], **row})
    t1_error = pooled(errors["T1"], ["method", "size"]).rename(columns={"size": "blocks"})
    t1_held = pooled(covered["T1"], ["method", "size"]).rename(columns={"size": "blocks"})
    t2_held = pooled(covered["T2"], ["of", "method", "speakers"])
    for title, table in (
        ("T1: true nulls rejected, % (5 wanted), by splits", t1_error),
        ("T1: 95 % intervals that held the truth, %, by splits", t1_held),
        ("T2: 95 % intervals that held the truth, %, by speakers; mean, lowest and highest of the designs", t2_held),
        ("T2: true nulls rejected, %, by speakers", pooled(errors["T2"], ["method", "size"])),
        (
            "Training anew, claims about new people: true nulls rejected, %; tested where, by how many seeds, what a "
            "speaker teaches (SD in logits)",
            pd.DataFrame(errors["overlap"]).assign(lowest=math.nan, highest=math.nan)[
                ["method", "size", "setting", "rate", "lowest", "highest", "se", "n"]
            ],
        ),
        (
            "Power, %: effects found",
            pd.DataFrame(
                [
                    {
                        "setting": k[0],
                        "method": k[1],
                        "size": k[2],
                        "rate": power.hits[k] / n,
                        "lowest": math.nan,
                        "highest": math.nan,
                        "se": 0.0,
                        "n": n,
                    }
                    for k, n in power.trials.items()
                ]
            ),
        ),
    ):
        print(f"\n{title}\n{shown(table)}")
    print("\nCOVERAGE of ser_analysis/methods/speakers.py:")
    best: dict[str, dict[int, dict[str, float]]] = {}
    for of, part in t2_held.groupby("of", sort=False):
        sizes = best.setdefault(str(of), {})
        for row in part.itertuples():
            sizes.setdefault(int(str(row.speakers)), {})[str(row.method)] = round(float(str(row.rate)), 3)
    print(json.dumps(best, indent=1))
    for of, sizes in best.items():
        for size, rates in sizes.items():
            nearest = min(rates, key=lambda method: abs(rates[method] - 0.95))
            print(f"{of}, {size} speakers: nearest to 95 % is {nearest} ({100 * rates[nearest]:.1f} %)")
    print("\nCOVERAGE of ser_analysis/methods/two_way.py (mean, worst):")
    print(json.dumps(retrained(errors["overlap"])))
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"trials": trials, "error": errors, "coverage": covered, "best": best}, indent=1) + "\n"
        )
    if arguments.figure:
        figure(t2_held, t1_error, arguments.figure)
    faults: list[str] = []
    remarks: list[str] = []
    for what, table, wanted in (("type I error", t1_error, 0.05), ("coverage", t1_held, 0.95)):
        for row in table[table["method"].isin(DEFAULTS)].itertuples():
            room = 0.01 + 2.6 * float(str(row.se))  # a point, and the noise of the simulation
            rate = float(str(row.rate))
            if abs(rate - wanted) > room:
                strict = rate < wanted if what == "type I error" else rate > wanted
                (remarks if strict else faults).append(
                    f"{what} of {row.method} with {row.blocks} splits: {100 * float(str(row.rate)):.1f} %"
                )
    if remarks:
        print(f"\nStricter than they say, which costs power and misleads nobody: {'; '.join(remarks)}")
    print("\nT1 defaults hold." if not faults else "\nT1 defaults do not hold: " + "; ".join(faults))
    print(f"{time.monotonic() - began:.0f} s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
