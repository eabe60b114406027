"""Do the probabilities deserve trust? Temperature scaling fitted on validation clips, before and after on test clips.

The temperature comes from the validation side only, which also picked the epoch; test clips select nothing. One number
cannot undo what a class-weighted loss does to single classes, so that NLL and Brier come before ECE.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ser_eval import metrics
from ser_eval.metrics import ECE_BINS
from ser_eval.run_folder import PROBABILITY_PREFIX

Floats = npt.NDArray[np.float64]

COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of the temperature; a fit that ends at one says so."""
SCORES = ("nll", "brier", "ece", "classwise_ece")


def scaled(probabilities: npt.ArrayLike, temperature: float) -> Floats:
    """Probabilities at another temperature: softmax(log p / T), shape (N, K); 0 stays 0, T = 1 changes nothing.

    Above 1 the model becomes less sure, below 1 more. The answer stays the same (Guo et al. 2017).

    Examples:
        >>> scaled([[0.8, 0.2]], 2.0).round(3).tolist()
        [[0.667, 0.333]]
    """
    p = np.asarray(probabilities, dtype=np.float64)
    with np.errstate(divide="ignore"):
        logits = np.log(p) / temperature
    # The largest becomes 0, so that nothing overflows and at least one stays.
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_temperature(truth: Sequence[str], probabilities: npt.ArrayLike, *, labels: Sequence[str]) -> float:
    """The temperature in [`COLDEST`, `HOTTEST`] with the lowest NLL on these clips.

    Args:
        truth: reference label of each clip, length N
        probabilities: (N, K), in the order of `labels`
        labels: the K labels

    Raises:
        MetricError: as `metrics.nll`
    """
    from scipy.optimize import minimize_scalar

    p = np.asarray(probabilities, dtype=np.float64)
    metrics.nll(truth, p, labels=labels)  # refuses what is no distribution

    def loss(log_temperature: float) -> float:
        return metrics.nll(truth, scaled(p, math.exp(log_temperature)), labels=labels)

    bounds = (math.log(COLDEST), math.log(HOTTEST))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6})
    # The search never touches the bounds; where all clips are right the loss is flat, and the bound is the answer.
    for bound in bounds:
        if loss(bound) <= loss(float(found.x)) + 1e-9:
            return math.exp(bound)
    return math.exp(float(found.x))


def classwise_ece(truth: Sequence[str], probabilities: npt.ArrayLike, *, labels: Sequence[str]) -> float:
    """Mean over classes of the calibration error of each class' own probability, in [0, 1] (Nixon et al. 2019).

    Of each class all N clips are sorted by its probability into 15 bins of equal width; the error is the mean over the
    bins of |share of the class - mean probability|, weighted by their clips. Unlike ECE it sees classes that are never
    the most probable; like ECE it is biased upward on few clips.

    Raises:
        MetricError: as `metrics.nll`

    Examples:
        >>> round(classwise_ece(["a", "b"], [[0.9, 0.1], [0.9, 0.1]], labels=["a", "b"]), 4)
        0.4
    """
    metrics.nll(truth, probabilities, labels=labels)
    p = np.asarray(probabilities, dtype=np.float64)
    errors = []
    for k, label in enumerate(labels):
        right = (np.asarray(truth, dtype=object) == label).astype(np.float64)
        gap = np.bincount(_bins(p[:, k]), weights=right - p[:, k], minlength=ECE_BINS)
        errors.append(float(np.abs(gap).sum()) / len(p))
    return float(np.mean(errors))


def reliability(truth: Sequence[str], probabilities: npt.ArrayLike, *, labels: Sequence[str]) -> dict[str, list[float]]:
    """Of the 15 bins of the ECE: clips, sum of the confidences, correct clips."""
    p = np.asarray(probabilities, dtype=np.float64)
    confidence, answer = p.max(axis=1), p.argmax(axis=1)
    right = np.asarray([labels[a] == t for a, t in zip(answer, truth, strict=True)], dtype=np.float64)
    bins = _bins(confidence)
    return {
        "clips": np.bincount(bins, minlength=ECE_BINS).astype(float).tolist(),
        "confidence": np.bincount(bins, weights=confidence, minlength=ECE_BINS).tolist(),
        "correct": np.bincount(bins, weights=right, minlength=ECE_BINS).tolist(),
    }


def calibrate(validation: pd.DataFrame, test: pd.DataFrame, *, masked: Sequence[str] = ()) -> dict[str, Any]:
    """Temperature from the validation table; scores and bins of the test table before and after.

    Args:
        validation: a prediction table; clips whose label the model does not know are left out
        test: a prediction table of the same labels
        masked: labels that the model may not answer; validation clips of them are left out

    Returns:
        temperature, n_validation, at_bound, `before` and `after` (`SCORES` and `bins`); or `undefined`, a reason
    """
    names = [column for column in test.columns if column.startswith(PROBABILITY_PREFIX)]
    labels = [name.removeprefix(PROBABILITY_PREFIX) for name in names]
    known = validation[validation["truth"].isin(labels) & ~validation["truth"].isin(masked)]
    tested = test[test["truth"].isin(labels)]
    if known.empty:
        return {"undefined": "no validation clip has a label that the model knows"}
    temperature = fit_temperature(known["truth"].tolist(), known[names].to_numpy(), labels=labels)
    truth, before = tested["truth"].tolist(), tested[names].to_numpy()
    after = scaled(before, temperature)
    edge = 1e-3
    return {
        "temperature": temperature,
        "n_validation": len(known),
        "at_bound": temperature < COLDEST * (1 + edge) or temperature > HOTTEST * (1 - edge),
        "before": _scores(truth, before, labels),
        "after": _scores(truth, after, labels),
    }


def _scores(truth: list[str], p: Floats, labels: list[str]) -> dict[str, Any]:
    return {
        "nll": metrics.nll(truth, p, labels=labels),
        "brier": metrics.brier(truth, p, labels=labels),
        "ece": metrics.ece(truth, p, labels=labels),
        "classwise_ece": classwise_ece(truth, p, labels=labels),
        "bins": reliability(truth, p, labels=labels),
    }


def _bins(values: Floats) -> npt.NDArray[np.int64]:
    return np.clip(np.ceil(values * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
