"""Robustness: what a model loses on the same test clips under a condition, against the clips as they are.

Both scores come from the same clips of the same speakers, so that the difference is far surer than either: what makes a
speaker hard to recognise is in both, and cancels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ser_eval.cells import Cell
from ser_eval.errors import BadInput
from ser_eval.intervals import SpeakerInterval, jackknife_interval
from ser_eval.run_folder import NONE

COLUMNS = [
    "model", "augmentation", "train_corpus", "test_corpus", "condition", "n_classes", "n_seeds", "n_test_speakers",
    "uar_clean", "uar", "drop", "drop_low", "drop_high", "stamps",
]  # fmt: skip
"""Of robustness.csv."""
CLEAN = "clean"
"""How the clips without a condition are called beside those with one."""


@dataclass(frozen=True)
class Drop:
    """One model on one test corpus under one condition, over the seeds that were tested with and without it."""

    cell: Cell
    clean: Cell
    uars_clean: list[float]
    """Per seed whose UAR is defined."""
    uars: list[float]
    """The same seeds, under the condition."""
    interval: SpeakerInterval | None
    """Paired, over speakers, of the fall of the UAR of all seeds' clips pooled; None where there is none."""

    @property
    def uar_clean(self) -> float | None:
        """Mean over the seeds."""
        return float(np.mean(self.uars_clean)) if self.uars_clean else None

    @property
    def uar(self) -> float | None:
        """Mean over the seeds."""
        return float(np.mean(self.uars)) if self.uars else None

    @property
    def drop(self) -> float | None:
        """Mean over the seeds of what the UAR falls by; negative where the condition helps."""
        return float(np.mean(np.subtract(self.uars_clean, self.uars))) if self.uars else None

    @property
    def words(self) -> str:
        """The finding as a line for a terminal."""
        where = f"{self.cell.model_name}: {self.cell.train_corpus} -> {self.cell.test_name}"
        if self.drop is None:
            return f"{where}: drop against clean not defined"
        reach = f", 95 % over speakers {self.interval.low:.3f} to {self.interval.high:.3f}" if self.interval else ""
        stamps = "".join(f" [{stamp}]" for stamp in self.cell.stamps)
        return f"{where}: drop against clean {self.drop:.3f} ({self.uar_clean:.3f} to {self.uar:.3f}{reach}){stamps}"


def make_drops(cells: Sequence[Cell]) -> list[Drop]:
    """Every cell under a condition beside its clean cell, by training set, test corpus, model and condition.

    Raises:
        BadInput: if a run's clips under a condition are not those that it was tested on without
    """

    def key(cell: Cell) -> tuple[str, str, tuple[str, ...], str]:
        return (cell.train_corpus, cell.test_corpus, cell.labels, cell.model_name)

    clean = {key(cell): cell for cell in cells if cell.condition == NONE}
    degraded = [cell for cell in cells if cell.condition != NONE and key(cell) in clean]
    degraded.sort(key=lambda cell: (key(cell), natural(cell.condition)))
    return [_drop(cell, clean[key(cell)]) for cell in degraded]


def drops_table(drops: Sequence[Drop]) -> pd.DataFrame:
    """The rows of robustness.csv."""
    rows = [
        {
            "model": drop.cell.model,
            "augmentation": drop.cell.augmentation,
            "train_corpus": drop.cell.train_corpus,
            "test_corpus": drop.cell.test_corpus,
            "condition": drop.cell.condition,
            "n_classes": len(drop.cell.labels),
            "n_seeds": len(drop.uars),
            "n_test_speakers": drop.cell.num_speakers,
            "uar_clean": drop.uar_clean,
            "uar": drop.uar,
            "drop": drop.drop,
            "drop_low": drop.interval.low if drop.interval else None,
            "drop_high": drop.interval.high if drop.interval else None,
            "stamps": "; ".join(drop.cell.stamps),
        }
        for drop in drops
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"n_test_speakers": "Int64"})


def natural(text: str) -> list[tuple[int, float, str]]:
    """Sort key that puts `noise-5dB` before `noise-10dB`."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(1, 0.0, part) if number % 2 == 0 else (0, float(part), "") for number, part in enumerate(parts)]


def _drop(cell: Cell, clean: Cell) -> Drop:
    without = {run.path: scores for run, scores in zip(clean.runs, clean.tested, strict=True)}
    pairs = []
    for run, scores in zip(cell.runs, cell.tested, strict=True):
        if run.path not in without:
            continue
        base = without[run.path]
        if _clips(base) != _clips(scores):
            raise BadInput(f"{run.path}: the clips of {cell.test_name} are not those of {clean.test_name}")
        pairs.append((base, scores))
    uars = cell.rows.set_index("seed")["uar"].astype(float)
    uars_clean = clean.rows.set_index("seed")["uar"].astype(float)
    seeds = sorted(set(uars.dropna().index) & set(uars_clean.dropna().index), key=int)
    return Drop(
        cell=cell,
        clean=clean,
        uars_clean=[float(uars_clean[seed]) for seed in seeds],
        uars=[float(uars[seed]) for seed in seeds],
        interval=_interval(pairs),
    )


def _clips(scores: dict[str, Any]) -> Any:
    """Clips per class, and per speaker and class where speakers are known."""
    classes = {label: values["support"] for label, values in scores["per_class"].items()}
    return classes, {actor: speaker["clips"] for actor, speaker in scores["per_speaker"].items()}


def _interval(pairs: list[tuple[Any, Any]]) -> SpeakerInterval | None:
    """Of UAR clean minus UAR under the condition: the UAR is linear in the correct clips, so their difference does."""
    if not pairs or any(scores["n_speakers"] is None for _, scores in pairs):
        return None
    clips: dict[str, Any] = {}
    lost: dict[str, Any] = {}
    for base, scores in pairs:
        for actor, speaker in scores["per_speaker"].items():
            change = np.subtract(base["per_speaker"][actor]["correct"], speaker["correct"])
            clips[actor] = clips.get(actor, 0) + np.asarray(speaker["clips"])
            lost[actor] = lost.get(actor, 0) + change
    speakers = sorted(clips)
    totals = np.array([clips[actor] for actor in speakers])  # (S, K)
    if (totals.sum(axis=0) == 0).any():
        return None
    return jackknife_interval(totals, np.array([lost[actor] for actor in speakers]), lowest=-1.0)
