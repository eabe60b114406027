"""Statistics of predictions: `ser stats --predictions TABLE`, one row per clip, one column of answers per model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_analysis import speaker_level, wording
from ser_analysis.methods import mcnemar, speakers
from ser_analysis.output import RNG_SEED, Analysis, StatsResult, provenance, records, remove_stale, write
from ser_analysis.scores import natural, need_columns, read_text_table
from ser_eval.errors import BadInput

CLIP_COLUMNS = ("path", "utt", "utterance", "clip", "file", "filename", "id")
"""Columns that name a clip, where a table has one; a clip must not stand there twice."""
PREFIX = "pred_"
"""Left out when a model is called by its column."""
MOST_LISTED = 5


def stats_of_predictions(
    table: Path,
    *,
    models: Sequence[str],
    truth: str,
    speaker: str,
    labels: Sequence[str] = (),
    group: str | None = None,
    out: Path | None = None,
    draws: int = speakers.DRAWS,
) -> StatsResult:
    """UAR of every model and every paired difference, over speakers (T2), and write the results.

    Args:
        table: one row per clip, with a header; separated by comma, semicolon or tab
        models: columns of answers; a model is called by its column without `pred_`
        truth: column of reference labels
        speaker: column of speakers
        labels: the K classes that count; clips of others are left out and counted, answers of others are errors. All
            classes of `truth` when absent
        group: column of the speakers' gender or another group; `gender` where the table has it
        out: folder for the results; `<table without suffix>-stats` when absent
        draws: of the bootstrap over more than 8 speakers

    Raises:
        BadInput: a column is missing or empty somewhere, a clip stands there twice, speakers are unknown or fewer than
            two, a class has no clips
    """
    source = table.name
    frame = read_text_table(table)
    need_columns(frame, [truth, speaker, *models], source)
    if not models or len({truth, speaker, *models}) < len(models) + 2:
        raise BadInput(f"{source}: --truth, --speaker and each of --models must be columns of their own")
    group = group if group is not None else "gender" if "gender" in frame.columns else None
    if group is not None:
        need_columns(frame, [group], source)
    facts = _check(frame, models, truth, speaker, source)
    frame, classes, more = _classes(frame, models, truth, labels, source)
    names = {column: _name(column, models) for column in models}
    people = natural_sorted(frame[speaker])
    if len(people) < 2:
        raise BadInput(
            f"{source}: {speaker} has one value ({people[0]}); what other people would get needs two speakers or more, "
            "and is hardly known under 20"
        )
    position = {person: f"{number:09d}" for number, person in enumerate(people)}  # keeps the natural order
    _, clips, correct = speakers.counts(
        [position[person] for person in frame[speaker]], list(frame[truth]), [list(frame[m]) for m in models], classes
    )
    groups = _groups(frame, people, speaker, group, source)
    facts += [
        f"{len(frame)} clips of {len(people)} speakers and {len(classes)} classes ({', '.join(classes)}): chance level "
        f"of UAR is {1 / len(classes):.3f}.",
        *more,
        "The trained models are taken as they are: nothing here says what training anew would give.",
    ]
    content: dict[str, Any] = {
        "target": {"code": "T2", "question": wording.TARGETS["T2"]},
        "provenance": provenance(table),
        "audit": {"dv": "uar", "labels": classes, "models": list(names.values()), "n_speakers": len(people)},
        "n": len(frame),
    }
    analysis = Analysis(f"Statistics of the predictions in {source}", content, {}, facts, chance=1 / len(classes))
    tested = {
        names[column]: speaker_level.Tested(tuple(people), groups, tuple(classes), clips, correct[m])
        for m, column in enumerate(models)
    }
    pairs = [
        speaker_level.Pair(names[models[i]], names[models[j]], tuple(people), groups, clips, correct[i], correct[j])
        for i, j in itertools.combinations(range(len(models)), 2)
    ]
    content |= speaker_level.add(analysis, "", tested, pairs, draws=draws)
    content |= _named(names, models, people, groups, classes, clips, correct, draws)
    _mcnemar(analysis, frame, names, models, truth)
    analysis.limits += [
        "Nothing about other recordings, languages or corpora (T3), and nothing about training the models anew (T1).",
        "A difference that is not shown is not shown to be absent.",
    ]
    content |= {"facts": facts, "findings": analysis.people, "limits": analysis.limits}
    folder = out if out is not None else table.with_name(f"{table.stem}-stats")
    remove_stale(folder, write(folder, analysis))
    shown = analysis.people[: len(models) + len(pairs)]
    if len(shown) > 12:
        shown = [*shown[:12], f"... and {len(shown) - 12} more in report.md"]
    warnings = [line for line in analysis.people if "WARNING" in line]
    return StatsResult(folder, [analysis.title, *facts[:1], *shown, *warnings, f"written to {folder}"], content)


def natural_sorted(values: pd.Series[str]) -> list[str]:
    """The distinct values, `s2` before `s10`."""
    return sorted(set(values), key=natural)


def _check(frame: pd.DataFrame, models: Sequence[str], truth: str, speaker: str, source: str) -> list[str]:
    for column in (truth, *models):
        empty = np.flatnonzero(frame[column].str.strip() == "")
        if len(empty):
            raise BadInput(f"{source}, line {int(empty[0]) + 2}: no {column}; every clip needs a label and an answer")
    unknown = np.flatnonzero(frame[speaker].str.strip() == "")
    if len(unknown):
        raise BadInput(
            f"SPEAKERS UNKNOWN: {source} has no {speaker} in {len(unknown)} of {len(frame)} rows (line "
            f"{int(unknown[0]) + 2} is the first). Clips of one speaker are not independent, so nothing can be said "
            "about other people without knowing who speaks"
        )
    named = [column for column in CLIP_COLUMNS if column in frame.columns]
    key = [*(["corpus"] if "corpus" in frame.columns else []), *named]
    if named and (twice := frame.duplicated(key, keep=False)).any():
        lines = ", ".join(str(index + 2) for index in np.flatnonzero(twice)[:MOST_LISTED])
        raise BadInput(
            f"{source}: {'/'.join(frame.loc[twice, key].iloc[0])} stands there more than once (lines {lines})"
        )
    return [] if named else ["No column names the clips, so that rows standing there twice cannot be told."]


def _classes(
    frame: pd.DataFrame, models: Sequence[str], truth: str, labels: Sequence[str], source: str
) -> tuple[pd.DataFrame, list[str], list[str]]:
    there = natural_sorted(frame[truth])
    classes, facts = list(labels) or there, []
    if len(set(classes)) < len(classes):
        raise BadInput("--labels: a class stands there twice")
    if absent := [label for label in classes if label not in there]:
        raise BadInput(f"{source}: no clip of {', '.join(absent)} in {truth}; it has {', '.join(there)}")
    if len(classes) < 2:
        raise BadInput(f"{source}: {truth} has one class ({classes[0]}); a UAR needs two")
    left_out = frame[~frame[truth].isin(classes)]
    if len(left_out):
        counted = ", ".join(f"{label} ({int(n)})" for label, n in sorted(left_out[truth].value_counts().items()))
        facts.append(f"{len(left_out)} clips of classes outside the task are left out: {counted}.")
        frame = frame[frame[truth].isin(classes)].reset_index(drop=True)
    for column in models:
        answers = set(frame[column])
        if not answers & set(classes):
            raise BadInput(
                f"{source}: {column} never answers one of the classes {', '.join(classes)}; it answers "
                f"{', '.join(sorted(answers)[:MOST_LISTED])}"
            )
        if stray := sorted(answers - set(classes)):
            n = int(frame[column].isin(stray).sum())
            facts.append(f"{column} answers {', '.join(stray[:MOST_LISTED])} on {n} clips, outside the task: errors.")
    return frame, classes, facts


def _groups(
    frame: pd.DataFrame, people: Sequence[str], speaker: str, group: str | None, source: str
) -> tuple[str, ...]:
    if group is None:
        return ("",) * len(people)
    of = frame.groupby(speaker)[group].agg(lambda column: sorted(set(column)))
    for person, found in of.items():
        if len(found) > 1:
            raise BadInput(f"{source}: speaker {person} has several values of {group}: {', '.join(found)}")
    return tuple("" if of[person][0] == "unknown" else str(of[person][0]) for person in people)


def _name(column: str, models: Sequence[str]) -> str:
    short = column.removeprefix(PREFIX)
    return short if short and short not in models else column


def _named(
    names: dict[str, str],
    models: Sequence[str],
    people: Sequence[str],
    groups: Sequence[str],
    classes: Sequence[str],
    clips: speakers.Integers,
    correct: speakers.Integers,
    draws: int,
) -> dict[str, Any]:
    """The blocks that go by their own names: of every model, and of the pairs as B minus A."""
    drawn = speakers.draw(clips, rng_seed=RNG_SEED, draws=draws)
    pairs = list(itertools.combinations(range(len(models)), 2))
    short = [names[column] for column in models]
    told = [*(f"uar_{name}" for name in short), *(f"diff_{short[j]}_minus_{short[i]}" for i, j in pairs)]
    stacked = np.concatenate([correct, *([correct[j] - correct[i]] for i, j in pairs)])
    boot = {
        name: {"mean": row["mean"], "sd": row["sd"], "q025": row["percentile_low"], "q975": row["percentile_high"]}
        for name, row in zip(told, speakers.run(clips, stacked, drawn=drawn), strict=True)
    }
    size = {"n_multisets": len(drawn.weights)} if drawn.exact else {"n_draws": len(drawn.weights)}
    lacking = "probability_without_a_class" if drawn.exact else "redrawn_without_a_class"
    all_uars = speakers.uars(np.ones((1, len(people))), clips, correct)[0]
    content: dict[str, Any] = {
        "uar": dict(zip(short, all_uars.tolist(), strict=True)),
        "accuracy": {name: float(correct[m].sum() / clips.sum()) for m, name in enumerate(short)},
        "recall": {
            name: dict(zip(classes, (correct[m].sum(axis=0) / clips.sum(axis=0)).tolist(), strict=True))
            for m, name in enumerate(short)
        },
        f"speaker_bootstrap{'_exact' if drawn.exact else ''}": {**size, lacking: drawn.without_a_class, **boot},
        "per_speaker": [
            {
                "speaker": person,
                "gender": groups[s] or None,
                **{
                    f"uar_{name}": float(speakers.speaker_uars(clips[[s]], correct[m][[s]])[0])
                    for m, name in enumerate(short)
                },
                "classes": int((clips[s] > 0).sum()),
            }
            for s, person in enumerate(people)
        ],
        "fairness": _fairness(short, pairs, groups, clips, correct),
    }
    swaps, paired = {}, {}
    for i, j in pairs:
        key = f"{short[j]}_minus_{short[i]}"
        content[f"diff_{key}"] = float(all_uars[j] - all_uars[i])
        swaps[key] = speakers.swap(clips, correct[i], correct[j], rng_seed=RNG_SEED)
        paired[key] = speakers.paired_t(clips, correct[i], correct[j])
    for name, of_pairs in (("speaker_swap", swaps), ("paired_t_over_speakers", paired)):
        exact = name == "speaker_swap" and all("n_permutations" in told for told in swaps.values())
        only = of_pairs[next(iter(of_pairs))] if len(of_pairs) == 1 else of_pairs
        if of_pairs:
            content[f"{name}_exact" if exact else name] = only
    return content


def _fairness(
    short: Sequence[str],
    pairs: Sequence[tuple[int, int]],
    groups: Sequence[str],
    clips: speakers.Integers,
    correct: speakers.Integers,
) -> dict[str, Any]:
    values = {f"model_{name}": speakers.speaker_uars(clips, correct[m]) for m, name in enumerate(short)}
    for i, j in pairs:
        difference = values[f"model_{short[j]}"] - values[f"model_{short[i]}"]
        values[f"change_{short[j]}_minus_{short[i]}"] = difference
    told: dict[str, Any] = {}
    for name, numbers in values.items():
        for row in speaker_level.gaps("", name, groups, numbers):
            told.setdefault(name, {}).update(
                {
                    f"gap_{row['first']}_minus_{row['second']}": row["gap"],
                    "exact_permutation_p" if row["exact"] else "permutation_p": row["permutation_p"],
                    "n_permutations": row["n_permutations"],
                    "smallest_possible_p": row["smallest_possible_p"],
                    "welch_p": row["welch_p"],
                }
            )
    return told


def _mcnemar(analysis: Analysis, frame: pd.DataFrame, names: dict[str, str], models: Sequence[str], truth: str) -> None:
    rows = []
    for a, b in itertools.combinations(models, 2):
        right = [(frame[column] == frame[truth]).to_numpy() for column in (a, b)]
        rows.append({"a": names[a], "b": names[b], **mcnemar.run(*right)})
    if not rows:
        return
    analysis.tables["mcnemar"] = pd.DataFrame(rows)
    told = records(analysis.tables["mcnemar"])
    analysis.content["mcnemar"] = (
        {key: value for key, value in told[0].items() if key not in ("a", "b")} if len(told) == 1 else told
    )
    for row in rows:
        analysis.people.append(
            f"Of these clips only, as if each were another person: {row['a']} alone is right on {row['n_a_only']}, "
            f"{row['b']} alone on {row['n_b_only']}; McNemar exact {wording.p_text(float(row['exact_p']))}. It tests "
            "accuracies and is too sure of itself where speakers have many clips."
        )
