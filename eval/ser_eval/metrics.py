"""Metrics: pure functions, the labels always given. Checked against scikit-learn and against numbers worked by hand.

One convention for everything that is divided by zero: a class that has reference clips and is never predicted has
precision 0 and F1 0, since the model failed on it; a class without reference clips has no recall and no F1 (NaN per
class), and a mean over classes that would need them raises `MetricError`. No score is ever filled in.

`outside` names labels that the model may answer though they are not among the K labels of the task (a model of seven
emotions tested on a corpus of four). Such an answer is an error of the model: it lowers recall and accuracy, and is no
false alarm of any of the K classes. This is the protocol "unmasked".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from ser_eval.errors import MetricError

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Labels = Sequence[str]

ECE_BINS = 15
SMALLEST_PROBABILITY = float(np.finfo(np.float64).eps)
"""Probabilities of the true class below this count as this (2.2e-16, an NLL of 36), as in scikit-learn."""


class ClassScores(NamedTuple):
    """Scores of one class. NaN where the class has no reference clips."""

    precision: float
    recall: float
    f1: float
    support: int
    """Number of reference clips."""


def confusion_matrix(truth: Labels, prediction: Labels, *, labels: Labels, outside: Labels = ()) -> Counts:
    """Counts of (reference label, predicted label).

    Args:
        truth: reference label of each clip, length N
        prediction: predicted label of each clip, same order, length N
        labels: the K labels of the task; never inferred, since a class that happens to be absent would change K
        outside: further labels that the model may answer; each answer is an error (module docstring)

    Returns:
        matrix of shape (K, K + len(outside)); rows are references, columns predictions: first `labels`, then `outside`

    Raises:
        MetricError: if the lengths differ, there are no clips, or a value is not among the labels

    Examples:
        >>> confusion_matrix(["a", "a", "b"], ["a", "b", "b"], labels=["a", "b"]).tolist()
        [[1, 1], [0, 1]]
    """
    columns = [*labels, *outside]
    if len(columns) != len(set(columns)) or not labels:
        raise MetricError(f"the labels must be at least one and distinct; given: {', '.join(columns) or 'none'}")
    if len(truth) != len(prediction):
        raise MetricError(f"{len(truth)} reference labels, but {len(prediction)} predictions")
    if len(truth) == 0:
        raise MetricError("there are no clips to score")
    rows = _codes(truth, labels, "reference")
    hits = _codes(prediction, columns, "predicted")
    cells = np.bincount(rows * len(columns) + hits, minlength=len(labels) * len(columns))
    return cells.reshape(len(labels), len(columns)).astype(np.int64)


def accuracy(truth: Labels, prediction: Labels, *, labels: Labels, outside: Labels = ()) -> float:
    """Share of clips labelled correctly (weighted accuracy, WA): classes count by their size.

    Arguments as in `confusion_matrix`.

    Returns:
        accuracy in [0, 1]; always answering the largest class reaches the share of that class

    Raises:
        MetricError: as `confusion_matrix`

    Examples:
        >>> accuracy(["a", "a", "a", "b"], ["a", "a", "a", "a"], labels=["a", "b"])
        0.75
    """
    counts = confusion_matrix(truth, prediction, labels=labels, outside=outside)
    return float(np.trace(counts) / counts.sum())


def unweighted_average_recall(truth: Labels, prediction: Labels, *, labels: Labels, outside: Labels = ()) -> float:
    """Mean of the per-class recalls (UAR): every class counts the same.

    `UAR = 1/K * sum over classes of (correct clips of the class / clips of the class)`

    Args:
        truth: reference label of each clip, length N
        prediction: predicted label of each clip, same order, length N
        labels: the K labels of the task; never inferred, since a class that happens to be absent would change K
        outside: further labels that the model may answer; each answer is an error

    Returns:
        UAR in [0, 1]; chance level is 1/K

    Raises:
        MetricError: if the lengths differ, a label is unknown, or a label has no reference clip

    Examples:
        >>> unweighted_average_recall(["anger", "anger", "joy"], ["anger", "joy", "joy"], labels=["anger", "joy"])
        0.75
    """
    return uar_of_counts(confusion_matrix(truth, prediction, labels=labels, outside=outside), labels)


def uar_over_present_classes(
    truth: Labels, prediction: Labels, *, labels: Labels, outside: Labels = ()
) -> tuple[float, list[str]]:
    """Mean recall over the classes that have reference clips. NOT the UAR where a class is missing: its K differs.

    For single folds and for groups (a gender, a speaker) only; never rank or average it beside a UAR.

    Returns:
        (the mean in [0, 1], the classes it is a mean of, in the order of `labels`)

    Raises:
        MetricError: as `confusion_matrix`

    Examples:
        >>> uar_over_present_classes(["a", "a"], ["a", "b"], labels=["a", "b"])
        (0.5, ['a'])
    """
    counts = confusion_matrix(truth, prediction, labels=labels, outside=outside)
    return present_uar_of_counts(counts), [labels[int(i)] for i in np.flatnonzero(counts.sum(axis=1))]


def chance_corrected_uar(uar: float, num_classes: int) -> float:
    """UAR with guessing at 0 and perfection at 1: `(UAR - 1/K) / (1 - 1/K)`; below 0 is worse than guessing.

    Raises:
        MetricError: with fewer than two classes

    Examples:
        >>> chance_corrected_uar(0.625, 4)
        0.5
    """
    if num_classes < 2:
        raise MetricError(f"chance correction needs two classes or more, not {num_classes}")
    return (uar - 1 / num_classes) / (1 - 1 / num_classes)


def per_class(truth: Labels, prediction: Labels, *, labels: Labels, outside: Labels = ()) -> dict[str, ClassScores]:
    """Precision, recall, F1 and number of reference clips of each class.

    Division by zero: see the module docstring.

    Raises:
        MetricError: as `confusion_matrix`

    Examples:
        >>> per_class(["a", "a", "b"], ["a", "b", "b"], labels=["a", "b"])["a"]
        ClassScores(precision=1.0, recall=0.5, f1=0.6666666666666666, support=2)
    """
    return per_class_of_counts(confusion_matrix(truth, prediction, labels=labels, outside=outside), labels)


def macro_f1(truth: Labels, prediction: Labels, *, labels: Labels, outside: Labels = ()) -> float:
    """Mean of the per-class F1 scores, in [0, 1].

    Raises:
        MetricError: as `unweighted_average_recall`

    Examples:
        >>> round(macro_f1(["a", "a", "b"], ["a", "b", "b"], labels=["a", "b"]), 4)
        0.6667
    """
    return macro_f1_of_counts(confusion_matrix(truth, prediction, labels=labels, outside=outside), labels)


def macro_precision(truth: Labels, prediction: Labels, *, labels: Labels, outside: Labels = ()) -> float:
    """Mean of the per-class precisions, in [0, 1]; a class never predicted counts as 0.

    Raises:
        MetricError: as `unweighted_average_recall`

    Examples:
        >>> macro_precision(["a", "a", "b"], ["a", "b", "b"], labels=["a", "b"])
        0.75
    """
    return macro_precision_of_counts(confusion_matrix(truth, prediction, labels=labels, outside=outside), labels)


def weighted_f1(truth: Labels, prediction: Labels, *, labels: Labels, outside: Labels = ()) -> float:
    """Mean of the per-class F1 scores, each weighted by its reference clips, in [0, 1].

    A class without reference clips has weight 0, so that this is defined where `macro_f1` is not.

    Raises:
        MetricError: as `confusion_matrix`

    Examples:
        >>> round(weighted_f1(["a", "a", "b"], ["a", "b", "b"], labels=["a", "b"]), 4)
        0.6667
    """
    return weighted_f1_of_counts(confusion_matrix(truth, prediction, labels=labels, outside=outside))


def micro_f1(truth: Labels, prediction: Labels, *, labels: Labels, outside: Labels = ()) -> float:
    """F1 of the summed counts: `2 TP / (2 TP + FP + FN)`, in [0, 1].

    It equals the accuracy unless the model answers `outside` labels, which are misses but no false alarms of a class.

    Raises:
        MetricError: as `confusion_matrix`

    Examples:
        >>> micro_f1(["a", "a", "a", "b"], ["a", "a", "a", "a"], labels=["a", "b"])
        0.75
    """
    return micro_f1_of_counts(confusion_matrix(truth, prediction, labels=labels, outside=outside))


def uar_of_counts(counts: Counts, labels: Labels) -> float:
    """`unweighted_average_recall` of a confusion matrix."""
    _need_every_class(counts, labels)
    return present_uar_of_counts(counts)


def present_uar_of_counts(counts: Counts) -> float:
    """The value of `uar_over_present_classes` of a confusion matrix."""
    support = counts.sum(axis=1)
    return float((np.diagonal(counts)[support > 0] / support[support > 0]).mean())


def per_class_of_counts(counts: Counts, labels: Labels) -> dict[str, ClassScores]:
    """`per_class` of a confusion matrix."""
    correct = np.diagonal(counts).astype(float)
    support, predicted = counts.sum(axis=1), counts[:, : len(labels)].sum(axis=0)
    scores = {}
    for i, label in enumerate(labels):
        has_clips = support[i] > 0
        never_predicted = 0.0 if has_clips else float("nan")
        scores[label] = ClassScores(
            precision=float(correct[i] / predicted[i]) if predicted[i] else never_predicted,
            recall=float(correct[i] / support[i]) if has_clips else float("nan"),
            f1=float(2 * correct[i] / (support[i] + predicted[i])) if has_clips else float("nan"),
            support=int(support[i]),
        )
    return scores


def macro_f1_of_counts(counts: Counts, labels: Labels) -> float:
    """`macro_f1` of a confusion matrix."""
    _need_every_class(counts, labels)
    return float(np.mean([scores.f1 for scores in per_class_of_counts(counts, labels).values()]))


def macro_precision_of_counts(counts: Counts, labels: Labels) -> float:
    """`macro_precision` of a confusion matrix."""
    _need_every_class(counts, labels)
    return float(np.mean([scores.precision for scores in per_class_of_counts(counts, labels).values()]))


def weighted_f1_of_counts(counts: Counts) -> float:
    """`weighted_f1` of a confusion matrix."""
    support, predicted = counts.sum(axis=1), counts[:, : len(counts)].sum(axis=0)
    f1 = 2 * np.diagonal(counts) / np.maximum(support + predicted, 1)
    return float(np.average(f1, weights=support))


def micro_f1_of_counts(counts: Counts) -> float:
    """`micro_f1` of a confusion matrix."""
    return float(2 * np.trace(counts) / (counts.sum() + counts[:, : len(counts)].sum()))


def nll(truth: Labels, probabilities: npt.ArrayLike, *, labels: Labels) -> float:
    """Negative log-likelihood: mean of -ln p(true class), in nats; 0 is best, ln K is guessing.

    Args:
        truth: reference label of each clip, length N
        probabilities: shape (N, K), columns in the order of `labels`, rows sum to 1
        labels: the K labels the probabilities are of

    Returns:
        a number >= 0; a probability under `SMALLEST_PROBABILITY` counts as that, so that it is finite

    Raises:
        MetricError: if the shapes do not fit, a label is unknown, or the rows are no distributions

    Examples:
        >>> round(nll(["a", "b"], [[0.5, 0.5], [0.75, 0.25]], labels=["a", "b"]), 4)
        1.0397
    """
    p, codes = _distributions(truth, probabilities, labels)
    return float(-np.log(np.clip(p[np.arange(len(codes)), codes], SMALLEST_PROBABILITY, 1.0)).mean())


def brier(truth: Labels, probabilities: npt.ArrayLike, *, labels: Labels) -> float:
    """Brier score (Brier 1950): mean over clips of the summed squared errors of all K probabilities, in [0, 2].

    Arguments and errors as in `nll`; guessing gives 1 - 1/K.

    Examples:
        >>> brier(["a", "b"], [[1.0, 0.0], [0.5, 0.5]], labels=["a", "b"])
        0.25
    """
    p, codes = _distributions(truth, probabilities, labels)
    return float(((p - np.eye(len(labels))[codes]) ** 2).sum(axis=1).mean())


def ece(truth: Labels, probabilities: npt.ArrayLike, *, labels: Labels) -> float:
    """Expected calibration error: how far confidence and accuracy lie apart, in [0, 1] (Guo et al. 2017).

    The clips are sorted by the probability of their most probable class into 15 bins of equal width,
    (0, 1/15], ..., (14/15, 1]; ECE is the mean of |accuracy - mean confidence| over the bins, weighted by their clips.
    It is biased upward on few clips and blind to errors that cancel: read NLL and Brier first.

    Arguments and errors as in `nll`; of equal probabilities the first in the order of `labels` is the answer.

    Examples:
        >>> round(ece(["a", "b"], [[0.9, 0.1], [0.9, 0.1]], labels=["a", "b"]), 4)
        0.4
    """
    p, codes = _distributions(truth, probabilities, labels)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == codes
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    gap = np.bincount(bins, weights=right - confidence, minlength=ECE_BINS)
    return float(np.abs(gap).sum() / len(codes))


def mse(truth: npt.ArrayLike, prediction: npt.ArrayLike) -> float:
    """Mean squared error of a continuous attribute (arousal, valence, dominance), >= 0.

    Raises:
        MetricError: if the lengths differ, there are no values, or a value is not finite

    Examples:
        >>> mse([1.0, 2.0], [1.0, 4.0])
        2.0
    """
    x, y = _numbers(truth, prediction)
    return float(((x - y) ** 2).mean())


def ccc(truth: npt.ArrayLike, prediction: npt.ArrayLike) -> float:
    """Concordance correlation coefficient (Lin 1989), in [-1, 1]; 1 only where prediction and truth are the same.

    `CCC = 2 cov(x, y) / (var(x) + var(y) + (mean(x) - mean(y))^2)`, moments divided by N as in Lin's paper.

    Raises:
        MetricError: as `mse`, or if truth and prediction are the same constant (0/0)

    Examples:
        >>> round(ccc([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]), 4)
        0.5714
    """
    x, y = _numbers(truth, prediction)
    scale = x.var() + y.var() + (x.mean() - y.mean()) ** 2
    if scale == 0:
        raise MetricError("CCC is not defined where truth and prediction are the same constant")
    return float(2 * ((x - x.mean()) * (y - y.mean())).mean() / scale)


def _codes(values: Labels, labels: Labels, what: str) -> npt.NDArray[np.intp]:
    codes = pd.Index(list(labels), dtype=object).get_indexer(pd.Index(np.asarray(values, dtype=object)))
    if (codes < 0).any():
        unknown = sorted({str(values[int(i)]) for i in np.flatnonzero(codes < 0)})
        raise MetricError(f"{what} label(s) {', '.join(unknown)} are not among the labels {', '.join(labels)}")
    return codes


def _need_every_class(counts: Counts, labels: Labels) -> None:
    absent = [labels[int(i)] for i in np.flatnonzero(counts.sum(axis=1) == 0)]
    if absent:
        raise MetricError(
            f"no reference clips of {', '.join(absent)}: the mean over the {len(labels)} classes is not defined "
            "(uar_over_present_classes gives the mean over the classes present)"
        )


def _distributions(truth: Labels, probabilities: Any, labels: Labels) -> tuple[Floats, npt.NDArray[np.intp]]:
    p = np.asarray(probabilities, dtype=np.float64)
    if p.shape != (len(truth), len(labels)) or len(truth) == 0:
        raise MetricError(
            f"probabilities have shape {p.shape}; expected ({len(truth)} clips, {len(labels)} labels), at least 1 clip"
        )
    # Softmax in float32, written as text, is this near to 1 and no nearer.
    wrong = ~((p >= 0).all(axis=1) & (np.abs(p.sum(axis=1) - 1) < 1e-4))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise MetricError(f"probabilities of clip {row} are no distribution: {p[row].tolist()}")
    return p, _codes(truth, labels, "reference")


def _numbers(truth: npt.ArrayLike, prediction: npt.ArrayLike) -> tuple[Floats, Floats]:
    x, y = np.asarray(truth, dtype=np.float64), np.asarray(prediction, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) == 0:
        raise MetricError(f"expected two sequences of the same length; got shapes {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise MetricError("truth and prediction must be finite numbers")
    return x, y
