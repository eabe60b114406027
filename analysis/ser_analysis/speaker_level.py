"""T2 put together: the tables and sentences about new people, for predictions and for experiments."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ser_analysis import wording
from ser_analysis.effect_sizes import holm
from ser_analysis.methods import fairness, speakers, two_way
from ser_analysis.methods.speakers import Integers
from ser_analysis.output import RNG_SEED, Analysis, records
from ser_analysis.scores import natural, rows_of
from ser_eval.errors import BadInput

INTERVALS, PAIRS = "speaker_intervals", "speaker_pairs"
SPREAD, CLASSES, GAPS = "speaker_spread", "class_recalls", "speaker_gaps"
KNOWN_GROUPS = ("female", "male", "f", "m", "F", "M")
"""Groups that are put first, in this order, when a gap is told; others by name."""


@dataclass(frozen=True)
class Runs:
    """Counts of each of R >= 2 runs, for what training anew would do."""

    clips: Integers
    """(R, S, K)"""
    correct: Integers
    """(R, S, K)"""
    place: str
    """A key of `two_way.CHOSEN`."""
    test_train_ratio: float


@dataclass(frozen=True)
class Tested:
    """One model's answers at one place, counted per speaker and class."""

    names: tuple[str, ...]
    """The S speakers."""
    groups: tuple[str, ...]
    """The gender (or other group) of each speaker; empty where it is not known."""
    labels: tuple[str, ...]
    clips: Integers
    """(S, K)"""
    correct: Integers
    """(S, K)"""
    runs: Runs | None = None
    """The same by run, where there are several."""


@dataclass(frozen=True)
class Pair:
    """Two models on the same clips."""

    a: str
    b: str
    names: tuple[str, ...]
    groups: tuple[str, ...]
    clips: Integers
    correct_a: Integers
    correct_b: Integers
    planned: bool = True
    """Whether the comparison was declared before; all are where none was declared."""
    runs: Runs | None = None
    """The same by run, `correct` being A's minus B's."""


def add(
    analysis: Analysis, at: str, tested: Mapping[str, Tested], pairs: Sequence[Pair], *, draws: int = speakers.DRAWS
) -> dict[str, Any]:
    """Add the tables of one place to an analysis, and their sentences; returns the content for stats.json.

    Args:
        analysis: tables, findings and limits are added to
        at: the test set; empty where there is one
        tested: of each model
        pairs: comparisons, one Holm family for the planned and one for all
    """
    rows, spreads, classes, gapped = [], [], [], []
    for model, one in tested.items():
        (row,) = speakers.run(one.clips, one.correct[None], rng_seed=RNG_SEED, draws=draws)
        rows.append(
            {"at": at, "model": model, "n_clips": int(one.clips.sum()), **_shown(row, "uar"), **_retrained(one.runs)}
        )
        spreads.append({"at": at, "model": model, **fairness.spread(one.names, one.clips, one.correct)})
        classes += [{"at": at, "model": model, **part} for part in fairness.recalls(one.labels, one.clips, one.correct)]
        gapped += gaps(at, model, one.groups, speakers.speaker_uars(one.clips, one.correct))
    compared = []
    for pair in pairs:
        (row,) = speakers.run(pair.clips, (pair.correct_a - pair.correct_b)[None], rng_seed=RNG_SEED, draws=draws)
        swapped = speakers.swap(pair.clips, pair.correct_b, pair.correct_a, rng_seed=RNG_SEED)
        test = speakers.t_test(pair.clips, pair.correct_a - pair.correct_b)
        uar_a, uar_b = speakers.uars(
            np.ones((1, len(pair.clips))), pair.clips, np.array([pair.correct_a, pair.correct_b])
        )[0]
        compared.append(
            {
                "at": at, "a": pair.a, "b": pair.b, "n_clips": int(pair.clips.sum()), "uar_a": float(uar_a),
                "uar_b": float(uar_b), **_shown(row, "mean_diff"), **test, "p_holm": math.nan,
                "swap_p": swapped["p_two_sided"], "swap_exact": "n_permutations" in swapped, "swap_p_holm": math.nan,
                "planned": pair.planned, **_retrained(pair.runs, test=True),
            }
        )  # fmt: skip
        change = speakers.speaker_uars(pair.clips, pair.correct_a) - speakers.speaker_uars(pair.clips, pair.correct_b)
        gapped += gaps(at, f"{pair.a} minus {pair.b}", pair.groups, change)
    adjust(compared)
    for name, found in ((INTERVALS, rows), (PAIRS, compared), (SPREAD, spreads), (CLASSES, classes), (GAPS, gapped)):
        if found:
            append(analysis, name, pd.DataFrame(found))
    content = {
        INTERVALS: records(pd.DataFrame(rows)),
        PAIRS: records(pd.DataFrame(compared)),
        SPREAD: records(pd.DataFrame(spreads)),
        CLASSES: records(pd.DataFrame(classes)),
        GAPS: records(pd.DataFrame(gapped)),
    }
    analysis.people += sentences(at, rows, compared, spreads, classes, gapped)
    return content


def adjust(rows: Sequence[dict[str, Any]]) -> None:
    """Holm over the pairs of one place: the planned ones are one family, the others are adjusted over all."""
    for planned in (True, False):
        family = [row for row in rows if not planned or row["planned"]]
        for p, name in (("p", "p_holm"), ("swap_p", "swap_p_holm"), ("retrained_p", "retrained_p_holm")):
            if any(p not in row for row in rows):
                continue
            for row, value in zip(family, holm(np.array([row[p] for row in family], dtype=float)), strict=True):
                if row["planned"] == planned:
                    row[name] = float(value)


def _shown(row: Mapping[str, Any], estimate: str) -> dict[str, Any]:
    of = "uar" if estimate == "uar" else "difference"
    return shown(row, estimate, speakers.HEADLINE, speakers.coverage(int(row["n_speakers"]), of))


def shown(
    row: Mapping[str, Any], estimate: str, headline: str, coverage: tuple[float, int], *, without: Collection[str] = ()
) -> dict[str, Any]:
    """A row of `speakers.run` or `concordance.run`, its headline interval in front and what the simulation says of it.

    Args:
        row: it
        estimate: what the estimate is called
        headline: the method whose interval leads
        coverage: simulated coverage of that interval, and for how many speakers
        without: further keys to leave out
    """
    front = ("estimate", "n_speakers", "mean", "sd", *without)
    return {
        "n_speakers": row["n_speakers"],
        estimate: row["estimate"],
        "ci95_low": row[f"{headline}_low"],
        "ci95_high": row[f"{headline}_high"],
        "interval": headline,
        "simulated_coverage": coverage[0],
        "simulated_speakers": coverage[1],
        "bootstrap_mean": row["mean"],
        "bootstrap_sd": row["sd"],
        **{key: value for key, value in row.items() if key not in front},
    }


def append(analysis: Analysis, name: str, table: pd.DataFrame) -> None:
    """Add rows to a table of an analysis, which may not be there yet."""
    old = analysis.tables.get(name)
    analysis.tables[name] = table if old is None else pd.concat([old, table], ignore_index=True)


def _retrained(runs: Runs | None, *, test: bool = False) -> dict[str, Any]:
    """The interval (and test) over speakers and runs; nothing where there is one run."""
    if runs is None:
        return {}
    told = two_way.run(
        runs.clips, runs.correct, test_train_ratio=runs.test_train_ratio, variant=two_way.CHOSEN[runs.place]
    )
    mean, worst, size = two_way.coverage(int(told["n_speakers"]), runs.place)
    found: dict[str, Any] = {
        "n_runs": told["n_runs"],
        "retrained_low": told["low"],
        "retrained_high": told["high"],
        "retrained_se": told["standard_error"],
        "retrained_df": told["df"],
        "retrained_coverage": mean,
        "retrained_coverage_worst": worst,
        "retrained_speakers": size,
    }
    if test:
        found |= {"retrained_t": told["t"], "retrained_p": told["p"], "retrained_p_holm": math.nan}
    return found


def gaps(at: str, model: str, groups: Sequence[str], values: Any) -> list[dict[str, Any]]:
    """Every pair of groups of speakers; none where a speaker's group is not known to be one of two or more."""
    named = sorted({group for group in groups if group}, key=group_order)
    found = []
    for first, second in itertools.combinations(named, 2):
        chosen = np.array([group in (first, second) for group in groups])
        inside = np.array([group == first for group in groups])[chosen]
        told = fairness.gap(np.asarray(values)[chosen], inside, rng_seed=RNG_SEED)
        found.append({"at": at, "model": model, "first": first, "second": second, **told})
    return found


def group_order(group: str) -> tuple[int, str]:
    """Sort key: the known groups first."""
    return (KNOWN_GROUPS.index(group) if group in KNOWN_GROUPS else len(KNOWN_GROUPS), group)


def sentences(
    at: str,
    intervals: Sequence[dict[str, Any]],
    pairs: Sequence[dict[str, Any]],
    spreads: Sequence[dict[str, Any]],
    classes: Sequence[dict[str, Any]],
    gaps: Sequence[dict[str, Any]],
) -> list[str]:
    """What the tables of one place say, each with its target."""
    start = f"T2{', on ' + at if at else ''}: "
    told = []
    for row in intervals:
        n = int(row["n_speakers"])
        reach = reach_text(row, 1, "cannot be told: all speakers scored alike")
        told.append(f"{start}{row['model']}: UAR {row['uar']:.3f} for people like these {n} speakers, {reach}.")
    told += [start + pair_sentence(row) for row in pairs]
    for row in spreads:
        worst = next(part for part in classes if part["model"] == row["model"])
        told.append(
            f"{start}{row['model']}, worst cases: speaker {row['worst_speaker']} ({row['worst_uar']:.3f}; best "
            f"{row['best_speaker']} {row['best_uar']:.3f}); the next person lies between {row['new_speaker_low']:.2f} "
            f"and {row['new_speaker_high']:.2f} (95 % prediction interval). Worst class: {worst['class']}, recall "
            f"{worst['recall']:.3f}" + _simultaneous(worst) + "."
        )
    told += [start + gap_sentence(row) for row in gaps if row["n_first"] and row["n_second"]]
    if intervals:
        least = min(intervals, key=lambda row: int(row["n_speakers"]))
        told.append(
            f"{start}the intervals are Student's t on the delete-one-speaker jackknife. Called 95 %, they held the "
            f"truth in {100 * least['simulated_coverage']:.1f} % of simulated corpora with "
            f"{least['simulated_speakers']} speakers (there are {least['n_speakers']} here). They take the trained "
            "models as they are"
            + (
                ": training anew on other people would add to them."
                if "n_runs" not in least
                else f"; those called trained anew add the spread between the {least['n_runs']} runs, and held the "
                f"truth in {100 * least['retrained_coverage']:.1f} % (at worst "
                f"{100 * least['retrained_coverage_worst']:.1f} %) with {least['retrained_speakers']} speakers."
            )
        )
    if intervals and (note := speakers.warning(min(int(row["n_speakers"]) for row in intervals))):
        told.append(f"{start}WARNING: {note}.")
    return told


def reach_text(row: Mapping[str, Any], scale: float, without: str, *, least: float = 0.0) -> str:
    """The interval over speakers, of a score (`scale` 1) cut at `least` and 1; `without` where there is none."""
    low, high = scale * row["ci95_low"], scale * row["ci95_high"]
    if math.isnan(low):
        return f"interval over speakers {without}"
    low, high = sorted((low, high))
    ends = f"[{max(least, low):.3f}, {min(1.0, high):.3f}]" if scale == 1 else f"[{low:.2f}, {high:.2f}]"
    return f"95 % CI over speakers {ends}"


def _simultaneous(row: Mapping[str, Any]) -> str:
    low, high = row["simultaneous_low"], row["simultaneous_high"]
    return "" if math.isnan(low) else f" (over speakers {low:.3f} to {high:.3f}, for all classes at once)"


def pair_sentence(row: Mapping[str, Any], dv: str = "uar") -> str:
    """Who is ahead for new speakers, by how much, and whether that is shown."""
    flip = row["mean_diff"] < 0
    better, worse = (row["b"], row["a"]) if flip else (row["a"], row["b"])
    scale = -100.0 if flip else 100.0
    if wording.is_tie(row["mean_diff"]):
        n = row["n_speakers"]
        return f"{row['a']} and {row['b']} are equal on these {n} speakers; that shows no equality for others."
    points = wording.unit(dv)[1]
    lead = f"{better} scores {wording.difference(scale * row['mean_diff'])} {points} above {worse}, "
    swap = f"speaker-swap {wording.p_text(row['swap_p'])} (Holm {wording.p_text(row['swap_p_holm'])})"
    if math.isnan(row["p"]):
        return f"{lead}by the same amount for every speaker; {swap}."
    test = f"t({row['df']}) = {abs(row['t']):.2f}, {wording.p_text(row['p'])} (Holm {wording.p_text(row['p_holm'])})"
    shown, swapped = row["p_holm"] < wording.ALPHA, row["swap_p_holm"] < wording.ALPHA
    verdict = (
        f"Yes: for new speakers {better}, as trained here, is better than {worse}." if shown
        else "Not shown for new speakers, which does not show them equal."
    )  # fmt: skip
    if shown != swapped:
        floor = 2 / 2 ** row["n_speakers"]
        verdict += f" The swap test disagrees; its floor with {row['n_speakers']} speakers is {floor:.2g}."
    return f"{lead}{reach_text(row, scale, 'not defined')}, {test}, {swap}. {verdict}{_anew(row, scale, shown)}"


def _anew(row: Mapping[str, Any], scale: float, shown: bool) -> str:
    """Whether it would hold for models trained anew as well."""
    if math.isnan(row.get("retrained_p", math.nan)):
        return ""
    low, high = sorted((scale * row["retrained_low"], scale * row["retrained_high"]))
    text = (
        f" Trained anew as well ({row['n_runs']} runs): 95 % CI [{low:.2f}, {high:.2f}], "
        f"{wording.p_text(row['retrained_p'])} (Holm {wording.p_text(row['retrained_p_holm'])})"
    )
    if shown and not row["retrained_p_holm"] < wording.ALPHA:
        text += ", so that it is shown for these trained models and not for the way to train them"
    return f"{text}."


def gap_sentence(row: Mapping[str, Any], dv: str = "uar") -> str:
    """The gap between two groups of speakers."""
    text = (
        f"{row['model']}: {row['first']} minus {row['second']} speakers {100 * row['gap']:.2f} {wording.unit(dv)[1]} "
        f"({row['n_first']} and {row['n_second']} speakers"
    )
    if not math.isnan(row["ci95_low"]):
        text += f", {wording.span(100 * row['ci95_low'], 100 * row['ci95_high'])}"
    text += f"), permutation {wording.p_text(row['permutation_p'])}"
    if row["smallest_possible_p"] > wording.ALPHA:
        floor = row["smallest_possible_p"]
        return f"{text}: descriptive only, since with so few speakers no p can fall below {floor:.2g}."
    shown = row["permutation_p"] < wording.ALPHA
    return f"{text}: {'a gap is shown' if shown else 'no gap is shown, which does not show there is none'}."


def best_and_next(rows: pd.DataFrame, dv: str = "uar") -> list[str]:
    """For the terminal: at each place the pair of the two highest scores."""
    score = "uar" if dv == "uar" else "ccc"
    lines = []
    for at, group in rows.groupby("at", sort=False):
        means = {row[side]: row[f"{score}_{side}"] for row in rows_of(group) for side in ("a", "b")}
        top = set(sorted(means, key=lambda name: -means[name])[:2])
        lines += [
            f"T2, best and next{' on ' + str(at) if at else ''}: {pair_sentence(row, dv)}"
            for row in rows_of(group)
            if {row["a"], row["b"]} == top
        ]
    return lines


def of_runs(
    analysis: Analysis,
    place: str,
    found: Mapping[str, Mapping[tuple[str, str], Any]],
    planned: Sequence[tuple[str, str]],
    *,
    several: bool,
    splits: Mapping[tuple[str, str], str],
    in_domain: bool,
    test_train_ratio: float,
) -> dict[str, Any]:
    """The tables of one test set of an experiment, from metrics.json of its runs; all seeds of a model together.

    A pair takes the runs that both models have on the same clips. Where nothing can be said about people, `facts` gets
    the reason and the answer is empty.

    Args:
        analysis: see `add`
        place: the test corpus (and condition)
        found: by model, then by seed and fold, what metrics.json says about this place
        planned: declared pairs of models; none where every pair is
        several: whether there are other places, so that the tables must name this one
        splits: the split of each seed and fold; runs that share one count as one run
        in_domain: whether the place is of the corpora that the models were trained on
        test_train_ratio: see `two_way.run`
    """
    start = f"T2, on {place}: "
    everything = [tested for runs in found.values() for tested in runs.values()]
    if any(tested.get("answers_classes") is False for tested in everything):
        analysis.facts.append(f"{start}a model answers no class, so that there is no UAR over speakers.")
        return {}
    if any(tested["n_speakers"] is None for tested in everything):
        analysis.facts.append(f"{start}SPEAKERS UNKNOWN, so that nothing can be said about other people.")
        return {}
    labels = everything[0]["labels"]
    if any(tested["labels"] != labels for tested in everything):
        analysis.facts.append(f"{start}runs differ in their classes, so that they are not put together over speakers.")
        return {}
    place_kind = "in_domain" if in_domain else "other"

    def by_run(*sides: Mapping[tuple[str, str], Any]) -> Runs | None:
        counted = _by_run(sides, labels, splits)
        return None if counted is None else Runs(*counted, place_kind, test_train_ratio)

    tested_models = {
        model: replace(_together(runs, labels), runs=by_run(runs))
        for model, runs in sorted(found.items(), key=lambda item: natural(item[0]))
    }
    for model, one in tested_models.items():
        try:
            speakers.check(one.clips)
        except BadInput as error:
            analysis.facts.append(f"{start}{model}: {error}.")
            return {}
    declared = {frozenset(pair) for pair in planned}
    pairs, apart = [], []
    for a, b in itertools.combinations(tested_models, 2):
        shared = [key for key in found[a] if key in found[b] and _clips(found[a][key]) == _clips(found[b][key])]
        if not shared:
            apart.append(f"{a} and {b}")
            continue
        both = [{key: found[model][key] for key in shared} for model in (a, b)]
        sides = [_together(runs, labels) for runs in both]
        if len(sides[0].clips) < 2 or (sides[0].clips.sum(axis=0) == 0).any():
            apart.append(f"{a} and {b}")
            continue
        pairs.append(
            Pair(
                a, b, sides[0].names, sides[0].groups, sides[0].clips, sides[0].correct, sides[1].correct,
                not declared or frozenset((a, b)) in declared, by_run(*both),
            )
        )  # fmt: skip
    if apart:
        analysis.facts.append(
            f"{start}no runs on the same clips of two speakers or more and every class: {'; '.join(apart)}."
        )
    return add(analysis, place if several else "", tested_models, pairs)


def _clips(tested: Any) -> dict[str, Any]:
    return {actor: speaker["clips"] for actor, speaker in tested["per_speaker"].items()}


def _by_run(
    sides: Sequence[Mapping[tuple[str, str], Any]], labels: Sequence[str], splits: Mapping[tuple[str, str], str]
) -> tuple[Integers, Integers] | None:
    """Clips and correct clips by run, speaker and class, of two sides the difference; None for fewer than two runs.

    Runs of one split are put together, unless there is one split: then every seed is a run, and its folds are one.
    """
    of = {key: splits[key] for key in sides[0]}
    if len(set(of.values())) < 2:
        of = {key: key[0] for key in sides[0]}
    if len(set(of.values())) < 2:
        return None
    runs = {name: number for number, name in enumerate(sorted(set(of.values())))}
    names = sorted({actor for tested in sides[0].values() for actor in tested["per_speaker"]}, key=natural)
    index = {name: number for number, name in enumerate(names)}
    clips = np.zeros((len(runs), len(names), len(labels)), dtype=np.int64)
    correct = np.zeros_like(clips)
    for sign, side in zip((1, -1), sides, strict=False):
        for key, tested in side.items():
            for name, speaker in tested["per_speaker"].items():
                at = runs[of[key]], index[name]
                correct[at] += sign * np.asarray(speaker["correct"], dtype=np.int64)
                if sign > 0:
                    clips[at] += np.asarray(speaker["clips"], dtype=np.int64)
    return clips, correct


def _together(runs: Mapping[tuple[str, str], Any], labels: Sequence[str]) -> Tested:
    """All runs' clips per speaker and class; a clip tested in several runs counts in each."""
    names = sorted({actor for tested in runs.values() for actor in tested["per_speaker"]}, key=natural)
    clips = {name: np.zeros(len(labels), dtype=np.int64) for name in names}
    correct = {name: np.zeros(len(labels), dtype=np.int64) for name in names}
    group: dict[str, str] = {}
    for tested in runs.values():
        for name, speaker in tested["per_speaker"].items():
            clips[name] += np.asarray(speaker["clips"], dtype=np.int64)
            correct[name] += np.asarray(speaker["correct"], dtype=np.int64)
            group[name] = "" if speaker["gender"] == "unknown" else speaker["gender"]
    shape = (len(names), len(labels))
    return Tested(
        tuple(names),
        tuple(group[name] for name in names),
        tuple(labels),
        np.array([clips[name] for name in names], dtype=np.int64).reshape(shape),
        np.array([correct[name] for name in names], dtype=np.int64).reshape(shape),
    )
