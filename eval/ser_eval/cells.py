"""Cells: one model (and augmentation), one training set, one test corpus; all of its seeds together.

A cell is what one row of the report's table shows: the mean and spread over seeds, and the clips of all seeds pooled,
from which the confusion matrix and the interval over speakers come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_eval.intervals import SpeakerInterval, jackknife_interval
from ser_eval.metrics import ClassScores, Counts, per_class_of_counts, present_uar_of_counts
from ser_eval.run_folder import METRICS, NONE, RunFolder, read_json
from ser_eval.shortcuts import BASELINES

STAMPS = [
    "RATINGS ONLY", "SPEAKER-DEPENDENT", "VALIDATION SHARES SPEAKERS", "SPEAKERS UNKNOWN", "NOT COMPARABLE",
    "MERGED LABELS", "SEEN IN PRETRAINING", "BAND-LIMITED", "NO TELEPHONE CONCLUSION", "TRANSDUCTIVE",
]  # fmt: skip
"""Words of a protocol that every table and figure must show."""


@dataclass(frozen=True)
class Cell:
    """One model, training set and test corpus over all seeds."""

    model: str
    augmentation: str
    train_corpus: str
    test_corpus: str
    condition: str
    labels: tuple[str, ...]
    """The K classes that count."""
    columns: tuple[str, ...]
    """`labels`, then the other labels that the model may answer."""
    rows: pd.DataFrame
    """The rows of results.csv, one per seed."""
    runs: list[RunFolder]
    """The runs, folds included, behind the rows."""
    tested: list[Any]
    """What metrics.json of each of these runs says about this test corpus and condition."""
    counts: Counts
    """Confusion matrix of all seeds' test clips, shape (K, columns)."""
    gender_counts: dict[str, Counts]
    """The same per gender."""
    gender_speakers: dict[str, int | None]
    num_speakers: int | None
    """Distinct test speakers over all seeds; None where they are unknown."""
    interval: SpeakerInterval | None
    """Interval over speakers of the UAR of all seeds' clips pooled."""
    shortcuts: dict[str, float] = field(default_factory=dict)
    """UAR of each shortcut baseline, mean over the same splits."""

    @property
    def model_name(self) -> str:
        """`<model>` or `<model>+<augmentation>`."""
        return self.model if self.augmentation == NONE else f"{self.model}+{self.augmentation}"

    @property
    def test_name(self) -> str:
        """`<test corpus>` or `<test corpus>@<condition>`."""
        return self.test_corpus if self.condition == NONE else f"{self.test_corpus}@{self.condition}"

    @property
    def slug(self) -> str:
        """The start of the names of its files."""
        return f"{self.model_name}--{self.train_corpus}--{self.test_name}--{len(self.labels)}"

    @property
    def chance(self) -> float:
        """UAR of guessing."""
        return 1 / len(self.labels)

    @property
    def protocols(self) -> list[str]:
        """The protocols of its rows, without repetition."""
        return sorted(set(self.rows["protocol"]))

    @property
    def stamps(self) -> list[str]:
        """The stamps that any of its protocols carries."""
        return [stamp for stamp in STAMPS if any(stamp in protocol for protocol in self.protocols)]

    @property
    def headline_metric(self) -> str:
        """The column of results.csv that a named protocol is compared by; `uar` without one, and across corpora."""
        named = self.runs[0].record.get("protocol") if self.runs else None
        own = self.test_corpus in self.train_corpus.split("+")
        return str(named["metric"]) if named and own else "uar"

    @property
    def uars(self) -> pd.Series[float]:
        """UAR of each seed where it is defined."""
        return self.rows["uar"].dropna()

    @property
    def num_undefined(self) -> int:
        """Seeds whose test side lacks a class."""
        return int(self.rows["uar"].isna().sum())

    @property
    def pooled_uar(self) -> float | None:
        """UAR of all seeds' clips pooled: what `interval` is around. None where a class has no clips at all."""
        if any(scores.get("answers_classes") is False for scores in self.tested):
            return None
        return present_uar_of_counts(self.counts) if (self.counts.sum(axis=1) > 0).all() else None

    @property
    def per_class(self) -> dict[str, ClassScores]:
        """Scores per class of all seeds' clips pooled."""
        return per_class_of_counts(self.counts, self.labels)

    @property
    def best_shortcut(self) -> tuple[str, float] | None:
        """The shortcut baseline with the highest UAR."""
        return max(self.shortcuts.items(), key=lambda item: item[1]) if self.shortcuts else None

    def mean_sd(self, column: str) -> tuple[float | None, float | None]:
        """Mean and SD (ddof 1) of a column over seeds; None where there is no value, or only one."""
        values = self.rows[column].astype(float).dropna()
        mean = float(values.mean()) if len(values) else None
        return mean, float(values.std(ddof=1)) if len(values) > 1 else None

    @property
    def beats_shortcuts(self) -> bool | None:
        """Whether the mean UAR is above every shortcut baseline; None where it cannot be said."""
        mean, best = self.mean_sd("uar")[0], self.best_shortcut
        return None if mean is None or best is None else mean > best[1]


def make_cells(folder: Path, runs: Sequence[RunFolder], results: pd.DataFrame, shortcuts: pd.DataFrame) -> list[Cell]:
    """The cells of an evaluated experiment, by training set, test corpus, condition and number of classes, then model.

    Args:
        folder: `<runs>/<experiment>`
        runs: its runs, whose metrics.json stand
        results: rows of results.csv
        shortcuts: rows of shortcut_baselines.csv
    """
    parts = _parts(runs)
    keys = ["train_corpus", "test_corpus", "condition", "n_classes", "model", "augmentation"]
    cells = []
    for key, rows in results.groupby(keys, sort=True):
        train_corpus, test_corpus, condition, _, model, augmentation = (str(value) for value in key)
        mine = [
            part
            for seed in rows["seed"]
            for part in parts.get((model, augmentation, train_corpus, int(seed), test_corpus, condition), [])
            if len(part[1]["labels"]) == rows["n_classes"].iloc[0]
        ]
        tested = [scores for _, scores in mine]
        first = tested[0]
        cells.append(
            Cell(
                model=model,
                augmentation=augmentation,
                train_corpus=train_corpus,
                test_corpus=test_corpus,
                condition=condition,
                labels=tuple(first["labels"]),
                columns=tuple(first["confusion"]["columns"]),
                rows=rows,
                runs=[run for run, _ in mine],
                tested=tested,
                counts=_sum(scores["confusion"]["counts"] for scores in tested),
                gender_counts={
                    gender: _sum(s["per_gender"][gender]["confusion"] for s in tested if gender in s["per_gender"])
                    for gender in sorted({gender for scores in tested for gender in scores["per_gender"]})
                },
                gender_speakers=_gender_speakers(tested),
                num_speakers=len(_speakers(tested)) or None,
                interval=_interval(tested),
                shortcuts=_shortcuts(rows, shortcuts),
            )
        )
    return cells


def _parts(runs: Sequence[RunFolder]) -> dict[tuple[str, str, str, int, str, str], list[tuple[RunFolder, Any]]]:
    """The metrics of every run and test corpus, by model, augmentation, training set, seed, test corpus, condition."""
    parts: dict[tuple[str, str, str, int, str, str], list[tuple[RunFolder, Any]]] = {}
    for run in runs:
        record = run.record
        for name, scores in read_json(run.path / METRICS).items():
            corpus, _, condition = name.partition("@")
            key = (
                record["model"],
                record["augmentation"] or NONE,
                "+".join(record["train_corpora"]),
                record["seed"],
                corpus,
                condition or NONE,
            )
            parts.setdefault(key, []).append((run, scores))
    return parts


def _sum(matrices: Any) -> Counts:
    total: Counts = np.sum([np.asarray(matrix, dtype=np.int64) for matrix in matrices], axis=0, dtype=np.int64)
    return total


def _speakers(tested: list[Any]) -> list[str]:
    """Distinct speakers over all seeds; empty as soon as one of them is unknown."""
    if any(scores["n_speakers"] is None for scores in tested):
        return []
    return sorted({actor for scores in tested for actor in scores["per_speaker"]})


def _gender_speakers(tested: list[Any]) -> dict[str, int | None]:
    genders = sorted({gender for scores in tested for gender in scores["per_gender"]})
    if not _speakers(tested):
        return dict.fromkeys(genders)
    of = {actor: speaker["gender"] for scores in tested for actor, speaker in scores["per_speaker"].items()}
    return {gender: sum(value == gender for value in of.values()) for gender in genders}


def _interval(tested: list[Any]) -> SpeakerInterval | None:
    speakers = _speakers(tested)
    if not speakers or any(scores.get("answers_classes") is False for scores in tested):
        return None
    totals = {
        what: _sum_by_speaker(tested, speakers, what)  # (S, K)
        for what in ("clips", "correct")
    }
    if (totals["clips"].sum(axis=0) == 0).any():
        return None
    return jackknife_interval(totals["clips"], totals["correct"])


def _sum_by_speaker(tested: list[Any], speakers: list[str], what: str) -> Counts:
    return np.array(
        [_sum(s["per_speaker"][actor][what] for s in tested if actor in s["per_speaker"]) for actor in speakers]
    )


def _shortcuts(rows: pd.DataFrame, shortcuts: pd.DataFrame) -> dict[str, float]:
    """Mean UAR of each baseline over the seeds of the cell, each seed with its own split."""
    if shortcuts.empty:
        return {}
    on = ["train_corpus", "test_corpus", "split_sha256"]
    joined = rows[rows["uar"].notna()][[*on, "seed"]].merge(shortcuts, on=on)
    complete = joined.groupby("baseline", sort=True)["uar"].agg(["mean", "count"])
    num_seeds = int(rows["uar"].notna().sum())
    means = {str(name): float(row["mean"]) for name, row in complete.iterrows() if row["count"] == num_seeds}
    return {name: means[name] for name in BASELINES if name in means}
