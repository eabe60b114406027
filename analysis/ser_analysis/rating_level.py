"""Ratings put together: T2 of the CCC over speakers, and every dimension in short (T1 and T2)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ser_analysis import speaker_level, wording
from ser_analysis.methods import concordance, contrasts, descriptives, speakers
from ser_analysis.output import RNG_SEED, Analysis, records
from ser_analysis.scores import Array, Scores, natural, rows_of
from ser_eval.errors import BadInput

MEANS, CONTRASTS = "rating_means", "rating_contrasts"
"""T1, a row per dimension and cell, and per dimension and pair."""
INTERVALS, PAIRS, SPREAD, GAPS = "rating_intervals", "rating_pairs", "rating_spread", "rating_gaps"
"""T2."""
MOST_CELLS = 6
"""In one line."""
SPEAKERS_UNKNOWN = "speakers unknown"
"""What metrics.json says of ratings without speakers."""


@dataclass(frozen=True)
class Rated:
    """Sums over the rated clips of some models at one place, of the same runs and clips."""

    names: tuple[str, ...]
    """The S speakers."""
    groups: tuple[str, ...]
    """The gender of each speaker; empty where it is not known."""
    sums: Array
    """(S, M, D, 6), see `concordance`."""


def of_runs(
    analysis: Analysis,
    place: str,
    found: Mapping[str, Mapping[tuple[str, str], Any]],
    planned: Sequence[tuple[str, str]],
    *,
    several: bool,
    dimensions: Mapping[str, Sequence[str]],
    dv: str,
    draws: int = speakers.DRAWS,
) -> dict[str, list[dict[str, Any]]]:
    """The T2 tables of the ratings of one test set of an experiment; all seeds of a model together.

    A pair takes the runs that both models have on the same rated clips. What cannot be told is told in `facts`.

    Args:
        analysis: tables, facts, short lines and, where `dv` is a CCC, sentences are added to
        place: the test corpus (and condition)
        found: by model, then by seed and fold, what metrics.json says about this place
        planned: declared pairs of models; none where every pair is
        several: whether there are other places, so that the tables must name this one
        dimensions: of each score (`ccc`, `ccc_valence`), those that it is the mean over
        dv: the score that the whole analysis is of
        draws: of the bootstrap over more than 8 speakers

    Returns:
        the rows of each table, for stats.json
    """
    at, start = place if several else "", f"T2, on {place}: "
    rated = {
        model: {key: tested for key, tested in runs.items() if tested.get("ratings")}
        for model, runs in sorted(found.items(), key=lambda item: natural(item[0]))
    }
    rated = {model: runs for model, runs in rated.items() if runs}
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in (INTERVALS, PAIRS, SPREAD, GAPS)}
    declared = {frozenset(pair) for pair in planned}
    without: dict[str, dict[str, list[str]]] = {}  # reason -> score -> models
    for score, of in dimensions.items():
        told: dict[str, list[dict[str, Any]]] = {name: [] for name in tables}
        label = wording.label(score)
        models = [model for model in rated if _has(rated[model], of)]
        if any(
            one["ratings"][name]["intervals_undefined"] == SPEAKERS_UNKNOWN
            for model in models
            for one in rated[model].values()
            for name in of
        ):
            without.setdefault("SPEAKERS UNKNOWN, so that nothing can be said about other people", {})[label] = models
            continue
        for model in models:
            one = _together([rated[model]], of)
            if why := _undefined(one.sums, of):
                without.setdefault(why, {}).setdefault(label, []).append(model)
                continue
            try:
                row = concordance.run(one.sums, concordance.ONE, rng_seed=RNG_SEED, draws=draws)
            except BadInput as error:
                without.setdefault(str(error), {}).setdefault(label, []).append(model)
                continue
            n_clips = int(one.sums[:, 0, :, concordance.N].sum(axis=0).max())
            start_row = {"at": at, "dv": score, "model": model}
            told[INTERVALS].append({**start_row, "n_clips": n_clips, **_shown(row, "ccc", "ccc")})
            told[SPREAD].append({**start_row, **concordance.spread(one.names, one.sums[:, 0])})
            told[GAPS] += _gaps(at, score, model, one, concordance.ONE)
        apart = []
        for a, b in itertools.combinations([row["model"] for row in told[INTERVALS]], 2):
            shared = [key for key in rated[a] if key in rated[b] and _same_clips(rated[a][key], rated[b][key], of)]
            both = _together([{key: rated[model][key] for key in shared} for model in (a, b)], of) if shared else None
            if both is None or len(both.sums) < 2:
                apart.append(f"{a} and {b}")
                continue
            row = concordance.run(both.sums, concordance.DIFFERENCE, rng_seed=RNG_SEED, draws=draws)
            swapped = concordance.swap(both.sums, rng_seed=RNG_SEED)
            total = both.sums.sum(axis=0)
            first, second = (float(concordance.theta(total[[m]], concordance.ONE)) for m in (0, 1))
            told[PAIRS].append(
                {
                    "at": at, "dv": score, "a": a, "b": b,
                    "n_clips": int(both.sums[:, 0, :, concordance.N].sum(axis=0).max()),
                    "ccc_a": first, "ccc_b": second, **_shown(row, "mean_diff", "difference"),
                    "t": row["t"], "df": row["df"], "p": row["p"], "p_holm": math.nan, "swap_p": swapped["p_two_sided"],
                    "swap_exact": swapped["exact"], "swap_p_holm": math.nan,
                    "planned": not declared or frozenset((a, b)) in declared,
                }
            )  # fmt: skip
            told[GAPS] += _gaps(at, score, f"{a} minus {b}", both, concordance.DIFFERENCE)
        if apart:
            analysis.facts.append(
                f"{start}no runs on the same rated clips of two speakers or more, so that their {label} is not "
                f"compared: {'; '.join(apart)}."
            )
        speaker_level.adjust(told[PAIRS])
        if score == dv:
            analysis.people += sentences(start, score, told)
        elif told[INTERVALS]:
            analysis.ratings.append(_short(start, score, told))
        for name, rows in told.items():
            tables[name] += rows
    for why, scores in without.items():
        named = "; ".join(f"{label} ({', '.join(models)})" for label, models in scores.items())
        analysis.facts.append(f"{start}no interval of {named}: {why}.")
    for name, rows in tables.items():
        if rows:
            speaker_level.append(analysis, name, pd.DataFrame(rows))
    return {name: records(pd.DataFrame(rows)) for name, rows in tables.items()}


def in_short(
    analysis: Analysis, scores: Scores, planned: Sequence[tuple[str, str]], *, margin: float, lines: bool
) -> dict[str, list[dict[str, Any]]]:
    """T1 of one score of the ratings: the mean over blocks of each cell, and the pairs of models at each test set.

    Args:
        analysis: tables and, with `lines`, short lines are added to
        scores: of that score
        planned: declared pairs of models
        margin: what counts as no difference
        lines: whether the score is not that of the analysis, which is told at length
    """
    score = scores.dv
    means = descriptives.run(scores)
    means.insert(0, "dv", score)
    content = {MEANS: records(means), CONTRASTS: []}
    speaker_level.append(analysis, MEANS, means)
    cells = [wording.descriptive_line(row, scores) for row in rows_of(means)]
    models = math.prod(len(scores.levels[scores.factors.index(factor)]) for factor in scores.model)
    shown = "; ".join(cells[:MOST_CELLS]) + (
        f"; and {len(cells) - MOST_CELLS} more in {MEANS}.md" if len(cells) > MOST_CELLS else ""
    )
    if lines:
        analysis.ratings.append(f"{scores.target}, {wording.label(score)}: {shown}.")
    if models < 2:
        return content
    pairs = contrasts.run(scores, rng_seed=RNG_SEED, margin=margin, planned=planned)
    pairs = pairs[(pairs["averaged_over"] == "") & (pairs["n"] > 0)].reset_index(drop=True)
    if pairs.empty:
        return content
    pairs.insert(0, "dv", score)
    speaker_level.append(
        analysis, CONTRASTS, pairs.drop(columns=[name for name in pairs if str(name).startswith("bayes_")])
    )
    content[CONTRASTS] = records(analysis.tables[CONTRASTS][analysis.tables[CONTRASTS]["dv"] == score])
    for _, group in pairs.groupby("at", sort=False) if lines else ():
        ahead = {row[side]: row[f"mean_{side}"] for row in rows_of(group) for side in ("a", "b")}
        top = set(sorted(ahead, key=lambda name: -ahead[name])[:2])
        analysis.ratings += [
            wording.pair_line(row, score, scores.target) + "." for row in rows_of(group) if {row["a"], row["b"]} == top
        ]
    return content


def sentences(start: str, dv: str, tables: Mapping[str, Sequence[dict[str, Any]]]) -> list[str]:
    """What the T2 tables of one place and score say."""
    label, told = wording.label(dv), []
    intervals = tables[INTERVALS]
    for row in intervals:
        reach = speaker_level.reach_text(row, 1, "cannot be told: all speakers are alike", least=-1.0)
        n = row["n_speakers"]
        told.append(f"{start}{row['model']}: {label} {row['ccc']:.3f} for people like these {n} speakers, {reach}.")
    told += [start + speaker_level.pair_sentence(row, dv) for row in tables[PAIRS]]
    told += [start + spread_sentence(row, label) for row in tables[SPREAD]]
    told += [start + speaker_level.gap_sentence(row, dv) for row in tables[GAPS] if row["n_first"] and row["n_second"]]
    if intervals:
        least = min(intervals, key=lambda row: int(row["n_speakers"]))
        told.append(
            f"{start}the intervals are Student's t on the delete-one-speaker jackknife, of a single CCC on Fisher's z. "
            f"Called 95 %, they held the CCC in {100 * least['simulated_coverage']:.1f} % of simulated corpora with "
            f"{least['simulated_speakers']} speakers (there are {least['n_speakers']} here). They are of all seeds' "
            "clips together, which is another number than the mean over seeds, and take the trained models as they "
            "are: training anew on other people would add to them."
        )
        if note := speakers.warning(int(least["n_speakers"])):
            told.append(f"{start}WARNING: {note}.")
    return told


def spread_sentence(row: Mapping[str, Any], label: str) -> str:
    """Worst and best speaker of one model."""
    n, few = int(row["n_speakers"]), int(row["too_few_clips"])
    left = (
        f" {few} speaker(s) with fewer than {concordance.ENOUGH_CLIPS} rated clips, or all rated alike, are left out."
        if few
        else ""
    )
    if n < 2:
        return f"{row['model']}: no worst speaker can be named: {n} of them can be scored alone.{left}"
    return (
        f"{row['model']}, {label} of the clips of one speaker: worst {row['worst_speaker']} ({row['worst_ccc']:.3f}), "
        f"best {row['best_speaker']} ({row['best_ccc']:.3f}); that of the next person lies between "
        f"{row['new_speaker_low']:.2f} and {row['new_speaker_high']:.2f} (95 % prediction interval).{left}"
    )


def _short(start: str, score: str, tables: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """One line per place and score: every model, and the two best against each other."""
    ranked = sorted(tables[INTERVALS], key=lambda row: -row["ccc"])
    parts = []
    for row in ranked:
        ends = "" if math.isnan(row["ci95_low"]) else f" [{row['ci95_low']:.3f}, {row['ci95_high']:.3f}]"
        parts.append(f"{row['model']} {row['ccc']:.3f}{ends}")
    text = f"{start}{wording.label(score)}, 95 % CI over {ranked[0]['n_speakers']} speakers: {', '.join(parts)}"
    top = {row["model"] for row in ranked[:2]}
    for row in tables[PAIRS]:
        if {row["a"], row["b"]} != top or wording.is_tie(row["mean_diff"]) or math.isnan(row["p"]):
            continue
        sign = -100.0 if row["mean_diff"] < 0 else 100.0
        better, worse = (row["b"], row["a"]) if sign < 0 else (row["a"], row["b"])
        low, high = sorted((sign * row["ci95_low"], sign * row["ci95_high"]))
        verdict = "shown" if row["p_holm"] < wording.ALPHA else "not shown"
        text += (
            f"; {better} above {worse} by {wording.difference(sign * row['mean_diff'])} points, "
            f"{wording.span(low, high)}, Holm {wording.p_text(row['p_holm'])}: {verdict}"
        )
    return f"{text}."


def _has(runs: Mapping[tuple[str, str], Any], dimensions: Sequence[str]) -> bool:
    """Whether every run predicts these dimensions, of clips that are rated."""
    return all(
        name in tested["ratings"] and tested["ratings"][name]["n"] > 0
        for tested in runs.values()
        for name in dimensions
    )


def _same_clips(one: Any, other: Any, dimensions: Sequence[str]) -> bool:
    """Whether two runs were tested on the same ratings, speaker by speaker."""
    for name in dimensions:
        a, b = (tested["ratings"][name]["per_speaker"] for tested in (one, other))
        of_truth = [concordance.N, concordance.X, concordance.XX]
        if set(a) != set(b) or not all(
            np.allclose(np.array(a[actor])[of_truth], np.array(b[actor])[of_truth], rtol=1e-9, atol=1e-9) for actor in a
        ):
            return False
    return True


def _together(sides: Sequence[Mapping[tuple[str, str], Any]], dimensions: Sequence[str]) -> Rated:
    """The sums of all runs of each model; a clip tested in several runs counts in each."""
    everything = [tested for runs in sides for tested in runs.values()]
    found = {actor for tested in everything for name in dimensions for actor in tested["ratings"][name]["per_speaker"]}
    names = sorted(found, key=natural)
    index = {name: number for number, name in enumerate(names)}
    sums = np.zeros((len(names), len(sides), len(dimensions), 6))
    groups = dict.fromkeys(names, "")
    for m, runs in enumerate(sides):
        for tested in runs.values():
            for d, name in enumerate(dimensions):
                for actor, values in tested["ratings"][name]["per_speaker"].items():
                    sums[index[actor], m, d] += values
            for actor, speaker in tested["per_speaker"].items():
                if actor in groups and speaker["gender"] != "unknown":
                    groups[actor] = speaker["gender"]
    return Rated(tuple(names), tuple(groups[name] for name in names), sums)


def _undefined(sums: Array, dimensions: Sequence[str]) -> str:
    """Why the CCC of one model says nothing about other speakers; empty where it does."""
    n, x, y, xx, yy, _ = np.moveaxis(sums.sum(axis=(0, 1)), -1, 0)  # (D,) each
    for what, first, second in (("answers", y, yy), ("ratings", x, xx)):
        constant = second / n - (first / n) ** 2 < concordance.SMALLEST_VARIANCE
        if constant.any():
            named = ", ".join(name for name, alike in zip(dimensions, constant, strict=True) if alike)
            return f"all {what} of {named} are the same number, with which nothing can go up and down (CCC 0)"
    return ""


def _gaps(at: str, score: str, model: str, one: Rated, contrast: Sequence[float]) -> list[dict[str, Any]]:
    named = sorted({group for group in one.groups if group}, key=speaker_level.group_order)
    found = []
    for first, second in itertools.combinations(named, 2):
        chosen = np.array([group in (first, second) for group in one.groups])
        inside = np.array([group == first for group in one.groups])[chosen]
        told = concordance.gap(one.sums[chosen], contrast, inside, rng_seed=RNG_SEED)
        found.append({"at": at, "dv": score, "model": model, "first": first, "second": second, **told})
    return found


def _shown(row: Mapping[str, Any], estimate: str, of: str) -> dict[str, Any]:
    covered = concordance.coverage(int(row["n_speakers"]), of)
    return speaker_level.shown(row, estimate, concordance.HEADLINE, covered, without=("t", "df", "p"))
