"""Predictions against the raters' votes: how near the probabilities come to the shares of the votes.

The votes of a clip are made shares of the classes that the model knows; votes for anything else do not count, and clips
without a vote inside are left out and counted. The hard labels, and with them UAR and all other metrics, stay what they
are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ser_eval.errors import BadInput, MetricError
from ser_eval.metrics import SMALLEST_PROBABILITY
from ser_eval.run_folder import CLIPS, PROBABILITY_PREFIX, VOTES_PREFIX

Floats = npt.NDArray[np.float64]


def cross_entropy(votes: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean over clips of `- sum over classes of share * ln probability`, in nats; at best `entropy` of the shares.

    Args:
        votes: shares of the votes, shape (N, K), rows sum to 1
        probabilities: of the model, shape (N, K), rows sum to 1; one under `SMALLEST_PROBABILITY` counts as that

    Raises:
        MetricError: if the shapes differ, there are no clips, or the rows are no distributions

    Examples:
        >>> round(cross_entropy([[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.75, 0.25]]), 4)
        0.4904
    """
    q, p = _checked(votes, probabilities)
    return float(-(q * np.log(np.clip(p, SMALLEST_PROBABILITY, 1.0))).sum(axis=1).mean())


def entropy(votes: npt.ArrayLike) -> float:
    """Mean over clips of the entropy of the votes, in nats: how much the raters disagree, 0 to ln K.

    Examples:
        >>> round(entropy([[0.5, 0.5], [1.0, 0.0]]), 4)
        0.3466
    """
    q, _ = _checked(votes, votes)
    return float(_plogp(q).sum(axis=1).mean() * -1)


def jensen_shannon_divergence(votes: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean over clips of the Jensen-Shannon divergence (Lin 1991) in bits, in [0, 1]; 0 where both are the same.

    `H((q + p) / 2) - (H(q) + H(p)) / 2` with entropies H to base 2. Arguments and errors as in `cross_entropy`.

    Examples:
        >>> jensen_shannon_divergence([[1.0, 0.0]], [[0.0, 1.0]])
        1.0
    """
    q, p = _checked(votes, probabilities)
    divergence = (_plogp(q) + _plogp(p)) / 2 - _plogp((q + p) / 2)
    return float(np.clip(divergence.sum(axis=1) / np.log(2), 0.0, 1.0).mean())


def multilabel_macro_f1(votes: npt.ArrayLike, probabilities: npt.ArrayLike) -> float:
    """Mean over classes of the F1 of "the class is present", as EMO-SUPERB scores, in [0, 1].

    A class is present where its share of the votes is above 1/K, and is answered where its probability is above 1/K
    (Wu et al., Open-Emotion: A Reproducible EMO-SUPERB, SLT 2024). Over all clips at once; the code published with the
    paper averages over batches.

    Args:
        votes: as in `cross_entropy`
        probabilities: likewise

    Raises:
        MetricError: as `cross_entropy`, or if a class is present in no clip

    Examples:
        >>> round(multilabel_macro_f1([[0.6, 0.4], [0.5, 0.5], [0.2, 0.8]], [[0.7, 0.3], [0.3, 0.7], [0.1, 0.9]]), 4)
        0.8333
    """
    q, p = _checked(votes, probabilities)
    present, answered = q > 1 / q.shape[1], p > 1 / q.shape[1]
    if not present.any(axis=0).all():
        absent = ", ".join(map(str, np.flatnonzero(~present.any(axis=0))))
        raise MetricError(f"no clip has a share of the votes above 1/{q.shape[1]} for class number {absent}")
    return float((2 * (present & answered).sum(axis=0) / (present.sum(axis=0) + answered.sum(axis=0))).mean())


def soft_scores(
    table: pd.DataFrame, clips: pd.DataFrame, *, labels: Sequence[str], classes: Mapping[str, str]
) -> dict[str, Any]:
    """All metrics of this module for one prediction table, ready for JSON.

    Args:
        table: rows of a prediction file, with `p_<label>` for all `labels`
        clips: of clips.csv, indexed by (corpus, path), with the votes as `votes_<label that raters chose>`
        labels: the K classes that the model may answer
        classes: which label that raters chose counts for which class

    Returns:
        n, n_without_votes (left out), cross_entropy, vote_entropy, jensen_shannon, multilabel_macro_f1 (None with
        `multilabel_macro_f1_undefined`); all of them None where no clip has votes

    Raises:
        BadInput: clips.csv lacks a clip, or a column of votes
    """
    keys = pd.MultiIndex.from_frame(table[["corpus", "path"]])
    columns = {VOTES_PREFIX + chosen: new for chosen, new in classes.items() if new in labels}
    if missing := sorted(columns.keys() - set(clips.columns)):
        raise BadInput(f"{CLIPS} lacks the column(s) {', '.join(missing)} that the run has votes for; train again")
    if not keys.isin(clips.index).all():
        corpus, path = keys[~keys.isin(clips.index)][0]
        raise BadInput(f"{CLIPS} lacks the clip {corpus}/{path}; run `ser train` again, which writes it anew")
    rows = clips.loc[keys, list(columns)].apply(pd.to_numeric).fillna(0.0)
    counts = np.zeros((len(table), len(labels)))
    for column, new in columns.items():
        counts[:, list(labels).index(new)] += rows[column].to_numpy()
    voted = counts.sum(axis=1) > 0
    scores: dict[str, Any] = {"n": int(voted.sum()), "n_without_votes": int((~voted).sum())}
    names = ("cross_entropy", "vote_entropy", "jensen_shannon", "multilabel_macro_f1")
    if not voted.any():
        return scores | dict.fromkeys(names)
    q = counts[voted] / counts[voted].sum(axis=1, keepdims=True)
    p = table[[PROBABILITY_PREFIX + label for label in labels]].to_numpy()[voted]
    values: list[float | None] = [cross_entropy(q, p), entropy(q), jensen_shannon_divergence(q, p)]
    absent = [label for label, present in zip(labels, (q > 1 / len(labels)).any(axis=0), strict=True) if not present]
    if absent:
        scores["multilabel_macro_f1_undefined"] = f"no clip has a share of votes above 1/K for {', '.join(absent)}"
    return scores | dict(zip(names, [*values, None if absent else multilabel_macro_f1(q, p)], strict=True))


def _plogp(p: Floats) -> Floats:
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0)), 0.0)


def _checked(votes: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[Floats, Floats]:
    q, p = np.asarray(votes, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if q.ndim != 2 or q.shape != p.shape or q.size == 0:
        raise MetricError(f"expected two tables (clips, classes) of the same shape; got {q.shape} and {p.shape}")
    for name, rows in (("votes", q), ("probabilities", p)):
        wrong = ~((rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) < 1e-4))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise MetricError(f"{name} of clip {row} are no distribution: {rows[row].tolist()}")
    return q, p
