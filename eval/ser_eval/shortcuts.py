"""Shortcut baselines: what can be had without hearing any emotion. A model that does not beat them has learned none.

They see the same clips on the same sides as the model. `majority` always answers the commonest class of the training
clips (UAR 1/K by construction). `duration_loudness` knows the length and the level of a clip and nothing else;
`silence_share` how much of it is silence, which gave away the answers of a well-known benchmark (Mueller et al.,
"Speech is silver, silence is golden: what do ASVspoof-trained models really learn?", ASVspoof workshop 2021).
`sentence` knows only which sentence is spoken; it exists where every training and test clip has a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ser_eval import metrics
from ser_eval.errors import BadInput

BASELINES = {
    "majority": "majority class",
    "duration_loudness": "duration + loudness",
    "silence_share": "silence share",
    "sentence": "sentence identity",
}
"""Name in shortcut_baselines.csv -> name in the report."""
MEASURED = {"duration_loudness": ["duration_seconds", "rms_db"], "silence_share": ["silence_share"]}
"""Baselines that answer by columns of clips.csv -> these columns."""


@dataclass(frozen=True)
class Fold:
    """One split and the clips tested on it."""

    split: pd.DataFrame
    """Columns of split.csv."""
    test: pd.DataFrame
    """Columns corpus, path and truth."""


def shortcut_baselines(
    folds: Sequence[Fold],
    clips: pd.DataFrame,
    *,
    labels: Sequence[str],
    model_labels: Sequence[str],
    train_corpora: Sequence[str],
    source: Path,
) -> list[dict[str, Any]]:
    """Scores of the baselines on one split, or on all folds of a seed, pooled.

    Args:
        folds: one, or all folds of a seed
        clips: indexed by (corpus, path); columns sentence, duration_seconds, rms_db, silence_share
        labels: the K labels of the test corpus that count
        model_labels: the labels of the training clips; an answer outside `labels` is an error, as it is for a model
        train_corpora: the corpora trained on; sentences mean something only within them
        source: the file of `clips`, for messages

    Returns:
        one row per baseline: baseline, n_classes, n_train (mean over folds, rounded), n_test, uar (None where a class
        has no test clips), accuracy

    Raises:
        BadInput: if a training or test clip is not in `clips`
    """
    truth: list[str] = []
    answers: dict[str, list[str]] = {name: [] for name in BASELINES}
    n_train = []
    for fold in folds:
        train = fold.split[(fold.split["split"] == "train") & fold.split["class_id"].isin(model_labels)]
        test = fold.test[fold.test["truth"].isin(labels)]
        if train.empty:
            raise BadInput(f"the split has no training clips of {', '.join(model_labels)}")
        heard, tested = look_up(train, clips, source), look_up(test, clips, source)
        classes = train["class_id"].to_numpy(dtype=object)
        truth.extend(test["truth"])
        n_train.append(len(train))
        answers["majority"].extend([_commonest(classes)] * len(test))
        for name, columns in MEASURED.items():
            answers[name].extend(_by_measures(heard[columns].to_numpy(), classes, tested[columns].to_numpy()))
        sentences_known = (heard["sentence"] != "").all() and (tested["sentence"] != "").all()
        if sentences_known and set(test["corpus"]) <= set(train_corpora):
            answers["sentence"].extend(_by_sentence(heard, classes, tested))
    outside = sorted(set(model_labels) - set(labels))
    rows = []
    for name, answer in answers.items():
        if len(answer) != len(truth):  # a sentence is unknown in one fold or more
            continue
        counts = metrics.confusion_matrix(truth, answer, labels=labels, outside=outside)
        defined = bool((counts.sum(axis=1) > 0).all())
        rows.append(
            {
                "baseline": name,
                "n_classes": len(labels),
                "n_train": round(float(np.mean(n_train))),
                "n_test": len(truth),
                "uar": metrics.uar_of_counts(counts, labels) if defined else None,
                "accuracy": float(np.trace(counts) / counts.sum()),
            }
        )
    return rows


def look_up(table: pd.DataFrame, clips: pd.DataFrame, source: Path) -> pd.DataFrame:
    """The rows of clips.csv of some clips, in their order.

    Raises:
        BadInput: if one is not there
    """
    keys = pd.MultiIndex.from_frame(table[["corpus", "path"]])
    absent = table[~keys.isin(clips.index)]
    if len(absent):
        first = absent.iloc[0]
        raise BadInput(f"{source} lacks {len(absent)} clip(s) of the split, e.g. {first['corpus']}/{first['path']}")
    return clips.loc[keys]


def _commonest(classes: np.ndarray[Any, Any]) -> str:
    """The commonest class; of equally common ones the first in the alphabet."""
    names, counts = np.unique(classes, return_counts=True)
    return str(names[counts.argmax()])


def _by_measures(heard: np.ndarray[Any, Any], classes: np.ndarray[Any, Any], tested: np.ndarray[Any, Any]) -> list[str]:
    """Standardised measures -> multinomial logistic regression with balanced classes, fitted on training.

    Args:
        heard: (training clips, measures)
        classes: (training clips,)
        tested: (test clips, measures)
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(classes)) < 2:
        return [_commonest(classes)] * len(tested)
    model = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
    model.fit(heard, classes.astype(str))
    return [str(answer) for answer in model.predict(tested)]


def _by_sentence(heard: pd.DataFrame, classes: np.ndarray[Any, Any], tested: pd.DataFrame) -> list[str]:
    """The class most over-represented in the sentence: its clips there as a share of all its training clips.

    An unheard sentence, and a sentence that is equally frequent in every class, gets the commonest class.
    """
    keys = heard.index.get_level_values(0) + "/" + heard["sentence"].to_numpy()
    shares = pd.crosstab(np.asarray(keys), classes)
    shares = shares / shares.sum(axis=0)
    fallback = _commonest(classes)
    best = {}
    for sentence, row in zip(shares.index, shares.to_numpy(), strict=True):
        winners = np.flatnonzero(np.isclose(row, row.max(), rtol=1e-9, atol=0))
        best[sentence] = str(shares.columns[winners[0]]) if len(winners) < len(row) else fallback
    wanted = tested.index.get_level_values(0) + "/" + tested["sentence"].to_numpy()
    return [best.get(sentence, fallback) for sentence in wanted]
