"""Run folders -> metrics.json per run; results.csv, folds.csv, shortcut_baselines.csv and report/ per experiment.

The classes of a test corpus are the model's labels that the corpus has. Clips of other classes are named and left out.
An answer outside the classes is an error ("unmasked"), or, in experiments whose task says so, impossible: its
probability is set to zero before the decision ("masked"). A class without a clip on the training side is never
answered. The folds of a seed are pooled into one confusion matrix, since a fold may lack a class.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from ser_eval import metrics
from ser_eval.band import bandwidths, is_band_limited
from ser_eval.calibration import calibrate
from ser_eval.cells import Cell, make_cells
from ser_eval.errors import BadInput
from ser_eval.intervals import speaker_counts, speaker_interval
from ser_eval.ratings import (
    BASELINE_COLUMNS,
    cell_lines,
    dimensions_of,
    rating_baselines,
    rating_cells,
    rating_scores,
    result_columns,
    result_columns_in,
    result_values,
)
from ser_eval.robustness import Drop, drops_table, make_drops
from ser_eval.run_folder import (
    CLIP_COLUMNS,
    CLIPS,
    DAMAGED,
    FOLDS,
    METRICS,
    NONE,
    PROBABILITY_PREFIX,
    RATING_BASELINES,
    RATINGS,
    REPORT,
    RESULT_COLUMNS,
    RESULT_KEYS,
    RESULTS,
    ROBUSTNESS,
    SHORTCUTS,
    SPLIT,
    RunFolder,
    find_runs,
    planned_runs,
    prediction_file,
    read_table,
    run_name,
    seen_in_pretraining,
    write_json,
    write_table,
)
from ser_eval.shortcuts import BASELINES, Fold, shortcut_baselines
from ser_eval.soft import soft_scores

FOLD_COLUMNS = ["uar_present", "classes_present"]
"""Further columns of folds.csv: the mean recall over the classes that the fold has, and which these are."""
SHORTCUT_COLUMNS = [
    "train_corpus", "test_corpus", "split_sha256", "baseline", "n_classes", "n_train", "n_test", "uar", "accuracy",
]  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """What an evaluation found."""

    folder: Path
    runs: list[RunFolder]
    results: pd.DataFrame
    """The rows of results.csv; `uar` and what follows from it are NaN where the UAR is not defined."""
    folds: pd.DataFrame
    """The rows of folds.csv; empty without folds."""
    shortcuts: pd.DataFrame
    """The rows of shortcut_baselines.csv."""
    missing: list[str]
    """Runs of plan.json that are not finished, as paths relative to the experiment folder."""
    notes: list[str]
    """What a reader must know: undefined UARs, cells without a score, clips of unknown labels, incomplete folds."""
    cells: list[Cell]
    """One per model, training set and test corpus, over all seeds."""
    drops: list[Drop]
    """What every cell under a condition loses against its clean cell."""
    bandwidth_hz: dict[str, float]
    """Median bandwidth of the clips of each corpus."""
    ratings: pd.DataFrame = field(default_factory=pd.DataFrame)
    """The rows of ratings.csv; empty where no model predicts ratings."""

    @property
    def lines(self) -> list[str]:
        """The outcome in plain words, for a terminal."""
        lines = [_cell_line(cell) for cell in self.cells]
        lines += cell_lines(self.ratings)
        lines += [drop.words for drop in self.drops]
        lines += [f"note: {note}" for note in self.notes]
        if self.missing:
            lines.append(f"missing: {len(self.missing)} planned run(s) are not finished, e.g. {self.missing[0]}")
        return [*lines, f"report: {self.folder / REPORT / 'report.html'}"]


def evaluate_experiment(folder: Path, *, progress: Callable[[str], None] | None = None) -> Summary:
    """Evaluate every finished run of an experiment and write its report; running it again writes the same bytes.

    Args:
        folder: `<runs>/<experiment>`
        progress: called with a line of text as the work goes on

    Raises:
        BadInput: if there is no finished run, or a file breaks the contract of the run folder
    """
    from ser_eval.report import write_report  # brings matplotlib, which evaluate_predictions does without

    runs = find_runs(folder)
    if not runs:
        raise BadInput(f"{folder} holds no finished run (expected <model>/<train corpora>/seed-<n>/run.json below it)")
    _check_one_spec(runs)
    _check_one_condition(runs)
    clips = read_clips(folder / CLIPS)
    factors = sorted({name for run in runs for name in run.record["factors"]})
    bandwidth_hz = bandwidths(clips)
    found = _Found(band_limited=frozenset(name for name, top_hz in bandwidth_hz.items() if is_band_limited(top_hz)))
    for group in _groups(folder, runs):
        if progress:
            progress(f"evaluating {_group_name(folder, group)}")
        _evaluate_group(folder, group, clips, factors, found)
    _note_unequal_tests(folder, runs, found)
    rated = result_columns(sorted(found.dimensions))
    results = _table(found.rows, [*RESULT_KEYS, *factors, *RESULT_COLUMNS, *rated])
    folds = _table(found.fold_rows, [*RESULT_KEYS, *factors, *RESULT_COLUMNS, *rated, *FOLD_COLUMNS])
    baselines = [row for key in sorted(found.baselines) for row in found.baselines[key]]
    shortcuts = pd.DataFrame(baselines, columns=SHORTCUT_COLUMNS)
    write_table(folder / RESULTS, results)
    write_table(folder / SHORTCUTS, shortcuts)
    if found.fold_rows:
        write_table(folder / FOLDS, folds)
    else:
        (folder / FOLDS).unlink(missing_ok=True)
    cells = make_cells(folder, runs, results, shortcuts)
    ratings = _write_ratings(folder, cells, found)
    drops = make_drops(cells)
    if drops:
        write_table(folder / ROBUSTNESS, drops_table(drops))
    else:
        (folder / ROBUSTNESS).unlink(missing_ok=True)
    summary = Summary(
        folder=folder,
        runs=runs,
        results=results,
        folds=folds,
        shortcuts=shortcuts,
        missing=_missing(folder, runs),
        notes=[f"{_runs(about)}: {text}" for text, about in found.notes.items()],
        cells=cells,
        drops=drops,
        bandwidth_hz=bandwidth_hz,
        ratings=ratings,
    )
    if progress:
        progress("writing the report")
    write_report(summary)
    return summary


def _write_ratings(folder: Path, cells: list[Cell], found: _Found) -> pd.DataFrame:
    """Write ratings.csv and rating_baselines.csv; of an experiment without ratings neither is there."""
    if not found.dimensions:
        for name in (RATINGS, RATING_BASELINES):
            (folder / name).unlink(missing_ok=True)
        return pd.DataFrame()
    rows = [row for key in sorted(found.rating_baselines) for row in found.rating_baselines[key]]
    baselines = pd.DataFrame(rows, columns=BASELINE_COLUMNS)
    table = rating_cells(cells, baselines)
    table["n_speakers"] = table["n_speakers"].astype("Int64")
    write_table(folder / RATING_BASELINES, baselines)
    write_table(folder / RATINGS, table)
    return table


def evaluate_predictions(table: pd.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    """All metrics of one prediction table, ready for JSON (None where a number is not defined).

    Args:
        table: columns of a prediction file; the `p_<label>` columns name the labels that the model knows
        labels: the K labels of the task; clips of other labels are left out and named under `unknown_labels`

    Returns:
        labels, model_labels, n, n_speakers, chance_uar, uar (None with `uar_undefined`, a reason, where a class has no
        clips), uar_present and classes_present (mean recall over the classes that have clips), uar_chance_corrected,
        accuracy, macro_f1, weighted_f1, micro_f1, macro_precision, nll, brier and ece (over all labels of the model),
        per_class, per_gender, per_speaker, speaker_interval (None with `speaker_interval_undefined`), unknown_labels,
        confusion (counts; rows `labels`, columns `labels` and then the other labels of the model); of a table with
        predicted ratings also `ratings`, what `ratings.rating_scores` gives for all of its clips

    Raises:
        BadInput: if the table contradicts itself, or fewer than two labels are given
        MetricError: if no clip has one of the labels, or the probabilities are no distributions
    """
    labels = list(labels)
    model_labels = _model_labels(table)
    _check_predictions(table, labels, model_labels)
    ratings = {"ratings": rating_scores(table)} if dimensions_of(table) else {}
    known = table["truth"].isin(labels)
    unknown = table[~known]
    table = table[known].reset_index(drop=True)
    outside = sorted(set(model_labels) - set(labels))
    truth, prediction = table["truth"].tolist(), table["prediction"].tolist()
    counts = metrics.confusion_matrix(truth, prediction, labels=labels, outside=outside)
    probabilities = table[[PROBABILITY_PREFIX + label for label in model_labels]].to_numpy()
    support = counts.sum(axis=1)
    absent = [label for label, n in zip(labels, support, strict=True) if n == 0]
    uar = None if absent else metrics.uar_of_counts(counts, labels)
    speakers_known = bool((table["actor"] != "").all())
    result: dict[str, Any] = {
        "labels": labels,
        "model_labels": sorted(model_labels),
        "n": len(table),
        "n_speakers": len(table[["corpus", "actor"]].drop_duplicates()) if speakers_known else None,
        "chance_uar": 1 / len(labels),
        "uar": uar,
        "uar_undefined": f"no clips of {', '.join(absent)}" if absent else None,
        "uar_present": metrics.present_uar_of_counts(counts),
        "classes_present": [label for label in labels if label not in absent],
        "uar_chance_corrected": None if uar is None else metrics.chance_corrected_uar(uar, len(labels)),
        "accuracy": float(np.trace(counts) / counts.sum()),
        "macro_f1": None if absent else metrics.macro_f1_of_counts(counts, labels),
        "weighted_f1": metrics.weighted_f1_of_counts(counts),
        "micro_f1": metrics.micro_f1_of_counts(counts),
        "macro_precision": None if absent else metrics.macro_precision_of_counts(counts, labels),
        "nll": metrics.nll(truth, probabilities, labels=model_labels),
        "brier": metrics.brier(truth, probabilities, labels=model_labels),
        "ece": metrics.ece(truth, probabilities, labels=model_labels),
        "per_class": {
            label: {name: _none_for_nan(value) for name, value in scores._asdict().items()}
            for label, scores in metrics.per_class_of_counts(counts, labels).items()
        },
        "per_gender": {
            gender: _gender_scores(group, labels, outside) for gender, group in table.groupby("gender", sort=True)
        },
        "per_speaker": _speaker_scores(table, labels) if speakers_known else {},
        "unknown_labels": {
            str(label): {"n": len(group), "clips": sorted(group["path"])}
            for label, group in unknown.groupby("truth", sort=True)
        },
        "confusion": {"rows": labels, "columns": [*labels, *outside], "counts": counts.tolist()},
    }
    return result | ratings | _interval(table, labels, absent, speakers_known)


def mask_predictions(table: pd.DataFrame, masked: Sequence[str]) -> pd.DataFrame:
    """A prediction table whose model may not answer some labels.

    Their probabilities become 0, the others are divided by their sum, and an answer that was one of them becomes the
    most probable other label (of equal ones the first in the order of the columns). Other answers stay.

    Args:
        table: columns of a prediction file
        masked: labels that must not be answered

    Raises:
        BadInput: fewer than two labels are left, or a clip has no probability on any of them
    """
    if not masked:
        return table
    names = _model_labels(table)
    allowed = [label for label in names if label not in set(masked)]
    if len(allowed) < 2:
        raise BadInput(f"masking {', '.join(masked)} leaves {', '.join(allowed) or 'no label'}; two are needed")
    columns = [PROBABILITY_PREFIX + label for label in allowed]
    kept = table[columns].to_numpy(dtype=float)
    mass = kept.sum(axis=1)
    if (mass <= 0).any():
        raise BadInput(
            f"{table['path'].to_numpy()[mass <= 0][0]}: the probabilities of {', '.join(allowed)} are all 0, so that "
            f"nothing can be decided without {', '.join(masked)}"
        )
    best = np.array(allowed, dtype=object)[kept.argmax(axis=1)]
    prediction = table["prediction"].where(table["prediction"].isin(allowed), pd.Series(best, index=table.index))
    result = table.assign(prediction=prediction, correct=(table["truth"] == prediction).astype(int))
    result[[PROBABILITY_PREFIX + label for label in names if label not in allowed]] = 0.0
    result[columns] = kept / mass[:, None]
    return result


def read_clips(file: Path) -> pd.DataFrame:
    """The table of clips.csv, indexed by (corpus, path), with numbers as float.

    Raises:
        BadInput: if the file is not there, lacks a column, or a measure of a clip is no finite number
    """
    if not file.is_file():
        raise BadInput(f"{file}: no such file; training writes it, and the shortcut baselines need it")
    table = read_table(file, CLIP_COLUMNS)
    for column in ("duration_seconds", "rms_db", "silence_share", "bandwidth_hz"):
        numbers = pd.to_numeric(table[column], errors="coerce")
        wrong = ~np.isfinite(numbers)
        if wrong.any():
            row = table[wrong].iloc[0]
            raise BadInput(f"{file}: {column} of {row['corpus']}/{row['path']} is {row[column]!r}, no finite number")
        table[column] = numbers.astype(float)
    return table.set_index(["corpus", "path"])


VARIES_WITHIN_A_MODEL = {"seed", "split_seed", "train_seed", "fold", "split_sha256"}
"""Keys of spec.json in which the runs of one model may differ."""


@dataclass(frozen=True)
class _Tested:
    """One test corpus of one run."""

    table: pd.DataFrame
    metrics: dict[str, Any]

    masked: tuple[str, ...] = ()
    """Labels that the model was not allowed to answer."""

    @property
    def known_paths(self) -> list[str]:
        return self.table.loc[self.table["truth"].isin(self.metrics["labels"]), "path"].tolist()


@dataclass
class _Found:
    """What the groups evaluated so far have given."""

    band_limited: frozenset[str]
    """Corpora whose audio ends far below 8 kHz."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    fold_rows: list[dict[str, Any]] = field(default_factory=list)
    baselines: dict[tuple[str, str, str], list[dict[str, Any]]] = field(default_factory=dict)
    """By training corpora, test corpus and checksum of the split: every model of a split shares them."""
    rating_baselines: dict[tuple[str, str, str], list[dict[str, Any]]] = field(default_factory=dict)
    """Likewise."""
    dimensions: set[str] = field(default_factory=set)
    """Of ratings that any model predicts."""
    notes: dict[str, list[str]] = field(default_factory=dict)
    """Text -> the runs it is about."""

    def note(self, run: str, text: str) -> None:
        self.notes.setdefault(text, []).append(run)


def _model_key(run: RunFolder) -> tuple[str, str, tuple[str, ...]]:
    return run.record["model"], run.record["augmentation"] or NONE, tuple(run.record["train_corpora"])


def _check_one_spec(runs: list[RunFolder]) -> None:
    """Refuse to average over runs of one model that were made from different specs, data or encoder weights."""
    first: dict[tuple[str, str, tuple[str, ...]], tuple[RunFolder, dict[str, Any]]] = {}
    for run in runs:
        fixed = without_searched({key: value for key, value in run.spec.items() if key not in VARIES_WITHIN_A_MODEL})
        other, known = first.setdefault(_model_key(run), (run, fixed))
        if fixed != known:
            where, old, new = _first_difference(known, fixed)
            raise BadInput(
                f"{other.path} and {run.path} are seeds or folds of one model, but differ in {where}: {old!r} and "
                f"{new!r}; train them from one spec (ser train --force moves runs of another one aside)"
            )


def without_searched(spec: dict[str, Any]) -> dict[str, Any]:
    """The content of spec.json without what a search inside each split has chosen, which may differ between splits."""
    spec = copy.deepcopy(spec)
    for path in spec.get("search", {}).get("parameters", {}):
        *parents, last = path.split(".")
        part = spec.get("model")
        for parent in parents:
            part = part.get(parent) if isinstance(part, dict) else None
        if isinstance(part, dict):
            part.pop(last, None)
        if path.startswith("encoder."):
            spec.pop("inputs", None)
    return spec


def _check_one_condition(runs: list[RunFolder]) -> None:
    """Refuse one name of a condition for two of them."""
    first: dict[str, tuple[RunFolder, str]] = {}
    for run in runs:
        for name, condition in run.record.get("conditions", {}).items():
            other, known = first.setdefault(name, (run, condition["sha256"]))
            if known != condition["sha256"]:
                raise BadInput(
                    f"{other.path} and {run.path} were tested under two conditions that are both named '{name}'; "
                    "`ser train` says how they differ"
                )


def _first_difference(one: Any, other: Any, key: str = "") -> tuple[str, Any, Any]:
    if isinstance(one, dict) and isinstance(other, dict):
        name = next(name for name in sorted({*one, *other}) if one.get(name) != other.get(name))
        return _first_difference(one.get(name), other.get(name), f"{key}.{name}" if key else name)
    return key, one, other


def _note_unequal_tests(folder: Path, runs: list[RunFolder], found: _Found) -> None:
    """Say where some seeds of a model were tested on a further corpus and others were not."""
    tested: dict[tuple[str, str, tuple[str, ...]], dict[str, list[str]]] = {}
    for run in runs:
        own = run.record["train_corpora"]
        corpora = [_test_name(key) for key in run.predictions() if key[0] not in own or key[1]]
        further = ", ".join(sorted(corpora)) or "no further corpus"
        tested.setdefault(_model_key(run), {}).setdefault(further, []).append(run.path.relative_to(folder).as_posix())
    for by_corpora in tested.values():
        for further, names in by_corpora.items():
            for name in names if len(by_corpora) > 1 else []:
                found.note(name, f"tested on {further}, unlike other runs of its model: its rows rest on other seeds")


def _evaluate_group(
    folder: Path, group: list[RunFolder], clips: pd.DataFrame, factors: list[str], found: _Found
) -> None:
    """Evaluate one run, or all folds of a seed: each for itself, and pooled where no fold is missing."""
    tested = [_evaluate_run(folder, run, clips, found) for run in group]
    name, is_folds = _group_name(folder, group), group[0].record["fold"] is not None
    if is_folds:
        for run, scores in zip(group, tested, strict=True):
            for key, part in scores.items():
                row = _row(folder, [run], key, part.metrics, factors)
                row["uar_present"] = part.metrics["uar_present"]
                row["classes_present"] = " ".join(part.metrics["classes_present"])
                found.fold_rows.append(row)
        untested = _untested_groups(group)
        if untested:
            found.note(
                name,
                f"folds are missing ({', '.join(untested)} never tested), so that the seed has no row in {RESULTS}; "
                f"its finished folds stand in {FOLDS}",
            )
            return
    for key in sorted({key for scores in tested for key in scores}):
        parts = [(run, scores[key]) for run, scores in zip(group, tested, strict=True) if key in scores]
        if key[0] not in group[0].record["train_corpora"] and len(parts) < len(group):
            raise BadInput(f"{name}: {len(group) - len(parts)} fold(s) lack the predictions for {_test_name(key)}")
        if lacking := sum((key[0], "") in scores and key not in scores for scores in tested):
            raise BadInput(
                f"{name}: {lacking} fold(s) lack the predictions for {_test_name(key)}; `ser train` makes them"
            )
        scored = (
            _pool(group[0], key, [part for _, part in parts], found.band_limited) if is_folds else parts[0][1].metrics
        )
        row = _row(folder, group, key, scored, factors)
        found.rows.append(row)
        for text in _notes(key, scored):
            found.note(row["run"], text)
        split_key = (row["train_corpus"], row["test_corpus"], row["split_sha256"])
        if row["condition"] == NONE and split_key not in found.baselines:
            baselines = shortcut_baselines(
                [Fold(run.split(), part.table) for run, part in parts],
                clips,
                labels=scored["labels"],
                model_labels=[
                    label for label in group[0].record["labels"] if not all(label in part.masked for _, part in parts)
                ],
                train_corpora=group[0].record["train_corpora"],
                source=folder / CLIPS,
            )
            kept = dict(zip(SHORTCUT_COLUMNS, split_key, strict=False))
            found.baselines[split_key] = [kept | baseline for baseline in baselines]
        dimensions = list(scored.get("ratings", {}))
        found.dimensions.update(dimensions)
        if row["condition"] == NONE and dimensions and split_key not in found.rating_baselines:
            kept = dict(zip(BASELINE_COLUMNS, split_key, strict=False))
            found.rating_baselines[split_key] = [
                kept | baseline
                for baseline in rating_baselines(
                    [Fold(run.split(), part.table) for run, part in parts],
                    clips,
                    dimensions=dimensions,
                    source=folder / CLIPS,
                )
            ]


def _pool(run: RunFolder, key: tuple[str, str], folds: list[_Tested], band_limited: frozenset[str]) -> dict[str, Any]:
    """Metrics of all folds' clips together."""
    labels = [label for label in run.record["labels"] if any(label in fold.metrics["labels"] for fold in folds)]
    scores = evaluate_predictions(pd.concat([fold.table for fold in folds]), labels)
    if run.record.get("answers_classes") is False:
        scores |= _no_classes()
    scores["protocol"] = _protocol(run, key, scores, pooled=True, band_limited=band_limited)
    # A further corpus is tested whole by every fold: each clip answers once per fold.
    scores["n"] = len({path for fold in folds for path in fold.known_paths})
    return scores


def _evaluate_run(folder: Path, run: RunFolder, clips: pd.DataFrame, found: _Found) -> dict[tuple[str, str], _Tested]:
    """Compute and write metrics.json of one run; the result is keyed by (test corpus, condition).

    A test corpus that shares fewer than two classes with the model has no score: a note says so.
    """
    record, split = run.record, run.split()
    predictions = run.predictions()
    clean = {corpus for corpus, condition in predictions if not condition}
    absent = sorted({*split.loc[split["split"] == "test", "corpus"], *(corpus for corpus, _ in predictions)} - clean)
    if absent:
        file = run.path / prediction_file(absent[0])
        raise BadInput(f"{file}: no such file, but {SPLIT} has test clips of {absent[0]}; {DAMAGED}")
    if not predictions:
        raise BadInput(f"{run.path} holds no predictions; {DAMAGED}")
    trained = set(split.loc[split["split"] == "train", "class_id"])
    untrained = [label for label in record["labels"] if label not in trained]
    if untrained:
        found.note(
            run.path.relative_to(folder).as_posix(),
            f"without a clip on the training side, and therefore never answered: {', '.join(untrained)}",
        )
    tested = {}
    validation = run.validation()
    for key, table in predictions.items():
        corpus = key[0]
        source = f"{run.path}: predictions of {_test_name(key)}"
        p_labels = _model_labels(table)
        if p_labels != record["labels"]:
            raise BadInput(f"{source} have the labels {p_labels}; run.json says {record['labels']}")
        if table.empty:
            raise BadInput(f"{source} are empty; {DAMAGED}")
        if table["path"].duplicated().any():
            raise BadInput(f"{source} hold {table.loc[table['path'].duplicated(), 'path'].iloc[0]} twice")
        _check_against_split(run, key, table, split)
        in_corpus = {*split.loc[split["corpus"] == corpus, "class_id"], *table["truth"]}
        if corpus not in record["train_corpora"]:
            in_corpus -= set(untrained)  # to the model their clips are of an unknown label
        labels = [label for label in record["labels"] if label in in_corpus]
        if len(labels) < 2:
            found.note(
                run.path.relative_to(folder).as_posix(),
                f"NOT SCORED on {_test_name(key)}: the corpus shares {', '.join(labels) or 'no class'} with the "
                f"model's labels {', '.join(record['labels'])}; a score needs two classes or more, so there is no row",
            )
            continue
        lacking = [label for label in record["labels"] if label not in labels and record.get("across") == "masked"]
        masked = tuple(sorted({*untrained, *lacking}))
        try:
            table = mask_predictions(table, masked)
            scores = evaluate_predictions(table, labels)
        except BadInput as error:
            raise BadInput(f"{source}: {error}") from None
        if corpus not in record["train_corpora"]:
            # Training may already have left these clips unpredicted; they belong to the same account.
            for clip in record["left_out"]:
                if clip["corpus"] == corpus:
                    account = scores["unknown_labels"].setdefault(clip["class_id"], {"n": 0, "clips": []})
                    account["clips"] = sorted({*account["clips"], clip["path"]})
                    account["n"] = len(account["clips"])
        if record.get("answers_classes") is False:
            scores |= _no_classes()
        scores["protocol"] = _protocol(run, key, scores, pooled=False, band_limited=found.band_limited)
        scores["masked_labels"] = list(masked)
        if validation is not None and record.get("answers_classes") is not False:
            known = table[table["truth"].isin(labels)]
            scores["calibration"] = calibrate(mask_predictions(validation, masked), known, masked=masked)
        if votes := record.get("vote_classes", {}).get(corpus):
            answered = [label for label in p_labels if label not in masked]
            scores["soft"] = soft_scores(table[table["truth"].isin(labels)], clips, labels=answered, classes=votes)
        tested[key] = _Tested(table, scores, masked)
    write_json(run.path / METRICS, {_test_name(key): part.metrics for key, part in tested.items()})
    return tested


def _check_against_split(run: RunFolder, key: tuple[str, str], table: pd.DataFrame, split: pd.DataFrame) -> None:
    """Refuse predictions that are not of the test clips of split.csv; corpora predicted later do not stand there."""
    rows = split[(split["corpus"] == key[0]) & (split["split"] == "test")]
    if rows.empty and key[0] not in run.record["train_corpora"]:
        return
    truth = dict(zip(rows["corpus"] + "/" + rows["path"], rows["class_id"], strict=True))
    predicted = dict(zip(table["corpus"] + "/" + table["path"], table["truth"], strict=True))
    differing = {clip for clip in truth.keys() & predicted.keys() if truth[clip] != predicted[clip]}
    wrong = (
        ("missing", truth.keys() - predicted.keys()),
        ("extra", predicted.keys() - truth.keys()),
        ("of another class", differing),
    )
    told = [f"{len(clips)} {what}, e.g. {min(clips)}" for what, clips in wrong if clips]
    if told:
        raise BadInput(
            f"{run.path / prediction_file(*key)} does not hold the test clips of {SPLIT}: {'; '.join(told)}; "
            "delete the run folder and train again"
        )


def _protocol(
    run: RunFolder, key: tuple[str, str], scores: dict[str, Any], *, pooled: bool, band_limited: frozenset[str]
) -> str:
    """How the number came about, with every stamp that it must carry."""
    record, split, corpus = run.record, run.split(), key[0]
    cross = corpus not in record["train_corpora"]
    named = (record.get("protocol") or {}).get("name")
    words = ["cross-corpus" if cross else named or record["split_kind"]]
    if cross and ((split["corpus"] == corpus) & (split["split"] == "train")).any():
        words.append("few-shot")
    if record["fold"] is not None:
        words.append("pooled" if pooled else "single fold")
    if record.get("answers_classes") is False:
        words.append("RATINGS ONLY")
    if record.get("not_shared"):
        words.append("intersection")
    if scores["labels"] != record["labels"]:
        words.append("masked" if record.get("across") == "masked" else "unmasked")
    if record.get("relabelled"):
        words.append("MERGED LABELS")
    if record["speaker_dependent"] and not cross:
        words.append("SPEAKER-DEPENDENT")
    if record.get("validation_shares_speakers"):
        words.append("VALIDATION SHARES SPEAKERS")
    if record["speakers_unknown"] or scores["n_speakers"] is None:
        words.append("SPEAKERS UNKNOWN")
    if seen_in_pretraining(record, corpus):
        words.append("SEEN IN PRETRAINING")
    if record.get("transductive"):
        words.append("TRANSDUCTIVE")
    if record["not_comparable"] or (record["speaker_dependent"] and not cross):
        words.append("NOT COMPARABLE")
    if band_limited & {corpus, *record["train_corpora"]}:
        words.append("BAND-LIMITED")
        if record.get("conditions", {}).get(key[1], {}).get("narrows_band"):
            words.append("NO TELEPHONE CONCLUSION")
    return " ".join(words)


def _row(
    folder: Path, group: list[RunFolder], key: tuple[str, str], scores: dict[str, Any], factors: list[str]
) -> dict[str, Any]:
    """A row of results.csv (a run, or the pooled folds of a seed) or of folds.csv (one fold)."""
    record = group[0].record
    run, fold, checksum, n_train = _identity(folder, group)
    return {
        "run": run,
        "experiment": record["experiment"],
        "model": record["model"],
        "augmentation": record["augmentation"] or NONE,
        **{name: _level(record["factors"].get(name, NONE)) for name in factors},
        "train_corpus": "+".join(record["train_corpora"]),
        "test_corpus": key[0],
        "condition": key[1] or NONE,
        "protocol": scores["protocol"],
        "seed": record["seed"],
        "split_seed": record["split_seed"],
        "train_seed": record["train_seed"],
        "split_sha256": checksum,
        "fold": fold,
        "n_classes": len(scores["labels"]),
        "n_train": n_train,
        "n_test": scores["n"],
        "n_test_speakers": scores["n_speakers"],
        **{name: scores[name] for name in RESULT_COLUMNS[RESULT_COLUMNS.index("uar") :]},
        **result_values(scores.get("ratings", {})),
    }


def _identity(folder: Path, group: list[RunFolder]) -> tuple[str, str, str, int]:
    """Name, fold, checksum and training clips: of the run, or of the pooled folds.

    Pooled, the checksum is the SHA-256 of the folds' checksums, one per line, in order of the fold's name, and the
    number of training clips is the mean over the folds, rounded.
    """
    record = group[0].record
    if len(group) == 1:
        fold = record["fold"] if record["fold"] is not None else NONE
        return group[0].path.relative_to(folder).as_posix(), fold, record["split_sha256"], record["n_clips"]["train"]
    lines = "".join(f"{run.record['split_sha256']}\n" for run in group)
    return (
        _group_name(folder, group),
        "all",
        hashlib.sha256(lines.encode()).hexdigest(),
        round(fmean(run.record["n_clips"]["train"] for run in group)),
    )


def _groups(folder: Path, runs: list[RunFolder]) -> list[list[RunFolder]]:
    """The runs of one model, augmentation, training set and seed: one run, or its folds in order of their names."""
    groups: dict[tuple[str, str, str, int], list[RunFolder]] = {}
    for run in runs:
        record = run.record
        key = (record["model"], record["augmentation"] or "", "+".join(record["train_corpora"]), record["seed"])
        groups.setdefault(key, []).append(run)
    for group in groups.values():
        folds = [run.record["fold"] for run in group]
        if len(group) > 1 and (None in folds or len(set(folds)) < len(folds)):
            raise BadInput(f"{_group_name(folder, group)}: runs with and without folds, or one fold twice: {folds}")
        group.sort(key=lambda run: str(run.record["fold"]))
    return [groups[key] for key in sorted(groups)]


def _group_name(folder: Path, group: list[RunFolder]) -> str:
    first = group[0]
    return (first.path.parent.relative_to(folder) / run_name(first.record["seed"], None)).as_posix()


def _untested_groups(folds: list[RunFolder]) -> list[str]:
    """Groups of the training corpora that no fold tests, sorted: folds are missing."""
    tables = [run.split() for run in folds]
    everyone = pd.concat(tables)
    everyone = everyone[everyone["corpus"].isin(folds[0].record["train_corpora"]) & (everyone["split"] != "unused")]
    names = everyone["corpus"] + "/" + everyone["group"]
    return sorted(set(names) - set(names[everyone["split"] == "test"]))


def _missing(folder: Path, runs: list[RunFolder]) -> list[str]:
    return sorted(set(planned_runs(folder)) - {run.path.relative_to(folder).as_posix() for run in runs})


def _notes(key: tuple[str, str], scores: dict[str, Any]) -> list[str]:
    where = f"tested on {_test_name(key)}"
    notes = []
    if scores["uar_undefined"] and scores.get("answers_classes") is not False:
        notes.append(
            f"{where}: the UAR is not defined, {scores['uar_undefined']}; "
            f"mean recall over the {len(scores['classes_present'])} classes present: {scores['uar_present']:.3f}"
        )
    if scores["unknown_labels"]:
        listed = ", ".join(f"{label} ({account['n']})" for label, account in scores["unknown_labels"].items())
        notes.append(f"{where}: clips left out, since the model does not know their label: {listed}; see {METRICS}")
    return notes


def _runs(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} runs ({names[0]}, ...)"


def _no_classes() -> dict[str, Any]:
    """What a model that predicts ratings only cannot have: its probabilities are all 1/K and its answers the first."""
    undefined = ("uar", "uar_chance_corrected", "macro_f1", "macro_precision", "speaker_interval")
    reason = "the model predicts ratings and answers no class"
    undefined_because = {"uar_undefined": reason, "speaker_interval_undefined": reason}
    return {**dict.fromkeys(undefined), **undefined_because, "answers_classes": False}


def _model_labels(table: pd.DataFrame) -> list[str]:
    return [name.removeprefix(PROBABILITY_PREFIX) for name in table.columns if name.startswith(PROBABILITY_PREFIX)]


def _cell_line(cell: Cell) -> str:
    mean, sd = cell.mean_sd("uar")
    found = "UAR not defined" if mean is None else f"UAR {mean:.3f}" + (f" +- {sd:.3f}" if sd is not None else "")
    facts = [
        f"{len(cell.uars)} seed(s)",
        f"{cell.rows['split_sha256'].nunique()} split(s)",
        "speakers unknown" if cell.num_speakers is None else f"{cell.num_speakers} test speaker(s)",
        f"guessing {cell.chance:.3f}",
    ]
    if cell.interval:
        facts.append(f"95 % over speakers {cell.interval.low:.3f} to {cell.interval.high:.3f}")
    if cell.best_shortcut:
        verdict = "" if cell.beats_shortcuts else "; NOT BEATEN"
        facts.append(f"best shortcut {cell.best_shortcut[1]:.3f} ({BASELINES[cell.best_shortcut[0]]}{verdict})")
    stamps = "".join(f" [{stamp}]" for stamp in cell.stamps)
    return f"{cell.model_name}: {cell.train_corpus} -> {cell.test_name}: {found} ({', '.join(facts)}){stamps}"


def _check_predictions(table: pd.DataFrame, labels: list[str], model_labels: list[str]) -> None:
    if len(labels) < 2 or len(labels) != len(set(labels)):
        raise BadInput(f"expected two distinct labels or more, got: {', '.join(labels) or 'none'}")
    stray = sorted(set(labels) - set(model_labels))
    if stray:
        raise BadInput(f"no probability column of {', '.join(stray)}; there are: {', '.join(model_labels) or 'none'}")
    answers = sorted(set(table["prediction"]) - set(model_labels))
    if answers:
        raise BadInput(f"prediction(s) {', '.join(answers)} are none of the model's labels {', '.join(model_labels)}")
    wrong = table["correct"].astype(int) != (table["truth"] == table["prediction"]).astype(int)
    if wrong.any():
        raise BadInput(f"column 'correct' contradicts truth and prediction of {table[wrong].iloc[0]['path']}")


def _gender_scores(table: pd.DataFrame, labels: list[str], outside: list[str]) -> dict[str, Any]:
    counts = metrics.confusion_matrix(
        table["truth"].tolist(), table["prediction"].tolist(), labels=labels, outside=outside
    )
    known = (table["actor"] != "").all()
    return {
        "n": len(table),
        "n_speakers": len(table[["corpus", "actor"]].drop_duplicates()) if known else None,
        "accuracy": float(np.trace(counts) / counts.sum()),
        "uar_present": metrics.present_uar_of_counts(counts),
        "classes_present": [label for label, n in zip(labels, counts.sum(axis=1), strict=True) if n],
        "confusion": counts.tolist(),
    }


def _speaker_scores(table: pd.DataFrame, labels: list[str]) -> dict[str, Any]:
    """Per speaker: gender, and clips and correct clips per class in the order of the labels."""
    clips, correct = speaker_counts(table, labels)
    speakers = table.drop_duplicates(["corpus", "actor"]).sort_values(["corpus", "actor"])
    scores = {}
    for actor, gender, n, right in zip(speakers["actor"], speakers["gender"], clips, correct, strict=True):
        scores[actor] = {
            "gender": gender,
            "n": int(n.sum()),
            "accuracy": float(right.sum() / n.sum()),
            "uar_present": float((right[n > 0] / n[n > 0]).mean()),
            "classes_present": [label for label, clips_of in zip(labels, n, strict=True) if clips_of],
            "clips": n.tolist(),
            "correct": right.tolist(),
        }
    return scores


def _interval(table: pd.DataFrame, labels: list[str], absent: list[str], speakers_known: bool) -> dict[str, Any]:
    if absent:
        return {"speaker_interval": None, "speaker_interval_undefined": f"no clips of {', '.join(absent)}"}
    interval = speaker_interval(table, labels)
    if interval is None:
        reason = "one speaker, or all scored alike" if speakers_known else "speakers unknown"
        return {"speaker_interval": None, "speaker_interval_undefined": reason}
    return {"speaker_interval": asdict(interval), "speaker_interval_undefined": None}


def _table(rows: list[dict[str, Any]], columns: list[str]) -> pd.DataFrame:
    order = ["model", "augmentation", "train_corpus", "test_corpus", "condition", "seed", "fold"]
    rows = sorted(rows, key=lambda row: [row[column] for column in order])
    table = pd.DataFrame(rows, columns=columns)
    table["n_test_speakers"] = table["n_test_speakers"].astype("Int64")
    for column in ("uar", "uar_chance_corrected", "macro_f1", "macro_precision", *result_columns_in(columns)):
        table[column] = table[column].astype(float)
    return table


def _level(value: Any) -> str:
    """A factor level as it stands in the model JSON."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _none_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _test_name(key: tuple[str, str]) -> str:
    return f"{key[0]}@{key[1]}" if key[1] else key[0]
