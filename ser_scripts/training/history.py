"""What a training leaves in history.csv, and what is decided from it: which weights are tested, when to stop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ser_eval import metrics
from ser_eval.run_folder import HISTORY_COLUMNS, write_text
from ser_scripts.errors import BadInput, Finding
from ser_scripts.specs.model import EarlyStoppingSpec
from ser_scripts.training.schedules import improves

CHECKPOINTS = "checkpoints"
BEST = "best"
"""Folder of the best weights so far, `<step>.safetensors`; older ones go once the checkpoint after them is whole."""
LAST = "last.safetensors"
MEMORY = "memory.json"
"""In a `.partial` folder: batches halved so far; a training that goes on must part its batches in the same way."""


@dataclass(frozen=True)
class Evaluation:
    """One row of history.csv."""

    step: int
    epoch: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    val_uar: float
    learning_rate: float
    seconds: float
    further: tuple[tuple[str, float], ...] = ()
    """Name and value of further columns: of predicted ratings (`val_ccc`, their mean, first), of an adversary."""

    @property
    def val_ccc(self) -> float:
        """Mean CCC of the predicted ratings, of a model that has some."""
        return dict(self.further)["val_ccc"]


def rating_scores(
    dimensions: Sequence[str], truth: NDArray[np.float64], predicted: NDArray[Any]
) -> list[tuple[str, float]]:
    """Of the rated validation clips: the mean CCC, and CCC and RMSE of each dimension; for `Evaluation.further`.

    Args:
        dimensions: those that are predicted, D
        truth: ratings in [0, 1], NaN where a clip has none, (N, D)
        predicted: (N, D)

    Raises:
        Finding: a prediction is not finite
    """
    if not np.isfinite(predicted).all():
        raise Finding("the predicted ratings of the validation clips are not finite; lower training.learning_rate")
    scores: list[tuple[str, float]] = []
    for number, name in enumerate(dimensions):
        known = ~np.isnan(truth[:, number])
        pair = truth[known, number], predicted[known, number].astype(np.float64)
        scores += [(f"val_ccc_{name}", metrics.ccc(*pair)), (f"val_rmse_{name}", math.sqrt(metrics.mse(*pair)))]
    cccs = [value for name, value in scores if name.startswith("val_ccc_")]
    return [("val_ccc", sum(cccs) / len(cccs)), *scores]


@dataclass(frozen=True)
class Trained:
    """What a training leaves behind, besides the weights in the model."""

    history: list[Evaluation]
    selected: Evaluation
    resumed_from_step: int | None


def select(history: Sequence[Evaluation], rule: str) -> int:
    """Index of the evaluation whose weights are tested: the first best one, or the last with the rule `last`."""
    if rule == "last":
        return len(history) - 1
    best = 0
    for index, row in enumerate(history):
        if improves(rule, getattr(row, rule), getattr(history[best], rule)):
            best = index
    return best


def should_stop(history: Sequence[Evaluation], spec: EarlyStoppingSpec | None) -> bool:
    """Whether the metric has failed to improve by more than `min_delta` at the last `patience` evaluations."""
    if spec is None or not history:
        return False
    best, waited = getattr(history[0], spec.metric), 0
    for row in history[1:]:
        value = getattr(row, spec.metric)
        if improves(spec.metric, value, best, min_delta=spec.min_delta):
            best, waited = value, 0
        else:
            waited += 1
    return waited >= spec.patience


def write_history(file: Path, history: Sequence[Evaluation]) -> None:
    """Write history.csv (floats in full precision)."""
    lines = [",".join([*HISTORY_COLUMNS, *(name for name, _ in (history[0].further if history else ()))])]
    for row in history:
        values = [*(asdict(row)[column] for column in HISTORY_COLUMNS), *(value for _, value in row.further)]
        lines.append(",".join(map(repr, values)))
    write_text(file, "\n".join(lines) + "\n")


def read_history(file: Path) -> list[Evaluation]:
    """Read what `write_history` wrote, exactly."""
    header, *lines = file.read_text(encoding="utf-8").splitlines()
    columns, count = header.split(","), len(HISTORY_COLUMNS)
    if columns[:count] != HISTORY_COLUMNS:
        raise BadInput(f"{file} is no history of a training: unexpected columns {header[:60]}; delete its folder")
    history = []
    for line in lines:
        pairs = list(zip(columns, line.split(","), strict=True))
        own = {key: float(value) for key, value in pairs[1:count]}
        further = tuple((key, float(value)) for key, value in pairs[count:])
        history.append(Evaluation(step=int(pairs[0][1]), **own, further=further))
    return history
