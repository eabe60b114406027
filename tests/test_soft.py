"""Scores against raters' votes, with second implementations and golden numbers."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import f1_score

from ser_eval.errors import BadInput, MetricError
from ser_eval.soft import cross_entropy, entropy, jensen_shannon_divergence, multilabel_macro_f1, soft_scores


def distributions(seed: int, clips: int, classes: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(classes, 0.5), clips)


@given(seed=st.integers(0, 500), clips=st.integers(1, 20), classes=st.integers(2, 8))
def test_scores_agree_with_scipy_and_scikit_learn(seed: int, clips: int, classes: int) -> None:
    q, p = distributions(seed, clips, classes), distributions(seed + 1000, clips, classes)
    divergence = np.mean([jensenshannon(a, b, base=2) ** 2 for a, b in zip(q, p, strict=True)])
    assert jensen_shannon_divergence(q, p) == pytest.approx(divergence, abs=1e-12)
    assert jensen_shannon_divergence(q, q) == 0
    assert jensen_shannon_divergence(q, p) == pytest.approx(jensen_shannon_divergence(p, q))
    assert cross_entropy(q, p) >= entropy(q) - 1e-12
    assert cross_entropy(q, q) == pytest.approx(entropy(q), abs=1e-9)
    present, answered = q > 1 / classes, p > 1 / classes
    if present.any(axis=0).all():
        expected = f1_score(present, answered, average="macro", zero_division=0)
        assert multilabel_macro_f1(q, p) == pytest.approx(expected)
    else:
        with pytest.raises(MetricError, match=f"above 1/{classes} for class number"):
            multilabel_macro_f1(q, p)


def test_a_share_of_exactly_one_over_k_is_absent() -> None:
    assert multilabel_macro_f1([[0.5, 0.5], [0.9, 0.1], [0.1, 0.9]], [[0.5, 0.5], [0.9, 0.1], [0.1, 0.9]]) == 1
    assert multilabel_macro_f1([[0.6, 0.4], [0.4, 0.6]], [[0.5, 0.5], [0.5, 0.5]]) == 0


def test_what_is_no_distribution_is_refused() -> None:
    with pytest.raises(MetricError, match=r"votes of clip 1 are no distribution: \[0.5, 0.4\]"):
        cross_entropy([[1, 0], [0.5, 0.4]], [[1, 0], [1, 0]])
    with pytest.raises(MetricError, match=r"got \(1, 2\) and \(1, 3\)"):
        cross_entropy([[1, 0]], [[1, 0, 0]])


TABLE = pd.DataFrame(
    {"corpus": "c", "path": ["a", "b", "d"], "p_angry": [0.7, 0.2, 0.5], "p_sad": [0.3, 0.8, 0.5]}
)  # fmt: skip
CLIPS = pd.DataFrame(
    {
        "corpus": "c", "path": ["d", "b", "a"],
        "votes_rage": ["0.0", "0.0", "2.0"], "votes_angry": ["", "1.0", "1.0"], "votes_sad": ["0.0", "3.0", "1.0"],
        "votes_other": ["5.0", "0.0", "9.0"],
    }
).set_index(["corpus", "path"])  # fmt: skip
CLASSES = {"rage": "angry", "angry": "angry", "sad": "sad"}


def test_votes_are_mapped_and_clips_without_any_are_counted() -> None:
    scores = soft_scores(TABLE, CLIPS, labels=["angry", "sad"], classes=CLASSES)
    q, p = [[0.75, 0.25], [0.25, 0.75]], [[0.7, 0.3], [0.2, 0.8]]
    assert scores == {
        "n": 2, "n_without_votes": 1, "cross_entropy": cross_entropy(q, p), "vote_entropy": entropy(q),
        "jensen_shannon": jensen_shannon_divergence(q, p), "multilabel_macro_f1": 1.0,
    }  # fmt: skip
    one = soft_scores(TABLE[:1], CLIPS, labels=["angry", "sad"], classes=CLASSES)
    assert one["multilabel_macro_f1"] is None
    assert one["multilabel_macro_f1_undefined"] == "no clip has a share of votes above 1/K for sad"
    none = soft_scores(TABLE[2:], CLIPS, labels=["angry", "sad"], classes=CLASSES)
    assert none == {
        "n": 0, "n_without_votes": 1, "cross_entropy": None, "vote_entropy": None, "jensen_shannon": None,
        "multilabel_macro_f1": None,
    }  # fmt: skip


def test_missing_clips_and_columns_are_named() -> None:
    with pytest.raises(BadInput, match="lacks the clip c/d"):
        soft_scores(TABLE, CLIPS.drop(index=("c", "d")), labels=["angry", "sad"], classes=CLASSES)
    with pytest.raises(BadInput, match="votes_joy"):
        soft_scores(TABLE, CLIPS, labels=["angry", "sad"], classes={"joy": "sad"})
