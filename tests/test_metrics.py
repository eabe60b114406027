"""Metrics and intervals: against scikit-learn on random tables, and against numbers worked by hand."""

import doctest
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from ser_eval import intervals, metrics
from ser_eval.errors import MetricError
from ser_eval.intervals import jackknife_interval, speaker_interval

LABELS = ["angry", "happy", "sad"]
TRUTH = ["angry"] * 4 + ["happy"] * 2 + ["sad"] * 2
ANSWER = ["angry", "angry", "angry", "sad", "happy", "angry", "sad", "angry"]
# angry 3/4, happy 1/2, sad 1/2; predicted angry 5, happy 1, sad 2


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[str], list[str], list[str]]:
    """(truth, prediction, labels, outside); every label has a reference clip, answers may be outside."""
    labels = [f"c{i}" for i in range(draw(st.integers(2, 5)))]
    outside = [f"x{i}" for i in range(draw(st.integers(0, 2)))]
    extra = draw(st.lists(st.sampled_from(labels), max_size=25))
    truth = draw(st.permutations(labels + extra))
    answers = st.sampled_from(labels + outside)
    return truth, draw(st.lists(answers, min_size=len(truth), max_size=len(truth))), labels, outside


@given(tables())
def test_equals_scikit_learn(table: tuple[list[str], list[str], list[str], list[str]]) -> None:
    truth, answer, labels, outside = table
    ours = {"labels": labels, "outside": outside}
    theirs = {"labels": labels, "zero_division": 0.0}
    assert metrics.accuracy(truth, answer, **ours) == pytest.approx(sk.accuracy_score(truth, answer))
    assert metrics.unweighted_average_recall(truth, answer, **ours) == pytest.approx(
        sk.recall_score(truth, answer, average="macro", **theirs)
    )
    for average, function in (
        ("macro", metrics.macro_f1),
        ("micro", metrics.micro_f1),
        ("weighted", metrics.weighted_f1),
    ):
        assert function(truth, answer, **ours) == pytest.approx(sk.f1_score(truth, answer, average=average, **theirs))
    assert metrics.macro_precision(truth, answer, **ours) == pytest.approx(
        sk.precision_score(truth, answer, average="macro", **theirs)
    )
    everything = sk.confusion_matrix(truth, answer, labels=labels + outside)
    assert (metrics.confusion_matrix(truth, answer, **ours) == everything[: len(labels)]).all()
    scores = metrics.per_class(truth, answer, **ours)
    expected = sk.precision_recall_fscore_support(truth, answer, **theirs)
    assert np.allclose(np.array(list(scores.values())).T, np.array(expected, dtype=float))


@given(tables(), st.randoms(use_true_random=False))
def test_order_of_clips_and_of_labels_is_irrelevant(table, random) -> None:
    truth, answer, labels, outside = table
    pairs = list(zip(truth, answer, strict=True))
    random.shuffle(pairs)
    turned, answers = [p[0] for p in pairs], [p[1] for p in pairs]
    before = metrics.unweighted_average_recall(truth, answer, labels=labels, outside=outside)
    after = metrics.unweighted_average_recall(turned, answers, labels=labels[::-1], outside=outside)
    assert after == pytest.approx(before, abs=1e-12)


def test_worked_by_hand() -> None:
    assert metrics.confusion_matrix(TRUTH, ANSWER, labels=LABELS).tolist() == [[3, 0, 1], [1, 1, 0], [1, 0, 1]]
    assert metrics.accuracy(TRUTH, ANSWER, labels=LABELS) == 5 / 8
    assert metrics.unweighted_average_recall(TRUTH, ANSWER, labels=LABELS) == pytest.approx((3 / 4 + 1 / 2 + 1 / 2) / 3)
    f1 = [6 / 9, 2 / 3, 2 / 4]
    assert metrics.macro_f1(TRUTH, ANSWER, labels=LABELS) == pytest.approx(sum(f1) / 3)
    assert metrics.weighted_f1(TRUTH, ANSWER, labels=LABELS) == pytest.approx((4 * f1[0] + 2 * f1[1] + 2 * f1[2]) / 8)
    assert metrics.macro_precision(TRUTH, ANSWER, labels=LABELS) == pytest.approx((3 / 5 + 1 + 1 / 2) / 3)
    assert metrics.chance_corrected_uar(1 / 3, 3) == pytest.approx(0)
    assert metrics.chance_corrected_uar(1.0, 7) == 1


def test_labels_are_never_inferred() -> None:
    """Truth of one class, one answer beside it: .25 or .5 where K is inferred; here it is not defined."""
    with pytest.raises(MetricError, match="no reference clips of joy"):
        metrics.unweighted_average_recall(["anger"] * 2, ["anger", "joy"], labels=["anger", "joy"])
    assert metrics.uar_over_present_classes(["anger"] * 2, ["anger", "joy"], labels=["anger", "joy"]) == (
        0.5,
        ["anger"],
    )
    for function in (metrics.macro_f1, metrics.macro_precision):
        with pytest.raises(MetricError, match="no reference clips of joy"):
            function(["anger"] * 2, ["anger", "joy"], labels=["anger", "joy"])


def test_division_by_zero_is_as_documented() -> None:
    scores = metrics.per_class(["a", "b"], ["b", "b"], labels=["a", "b", "c"])
    assert scores["a"] == (0.0, 0.0, 0.0, 1)  # has clips, never predicted: a failure, not an unknown
    assert all(math.isnan(value) for value in scores["c"][:3])
    assert scores["c"].support == 0
    assert metrics.per_class(["a"], ["c"], labels=["a", "c"])["c"].precision == 0  # a false alarm is known
    assert metrics.weighted_f1(["a", "b"], ["b", "b"], labels=["a", "b", "c"]) == pytest.approx((2 / 3) / 2)


@pytest.mark.parametrize(
    ("truth", "answer", "text"),
    [
        (["a"], ["a", "b"], "1 reference labels, but 2 predictions"),
        ([], [], "no clips"),
        (["a", "z"], ["a", "b"], "reference label.*z are not among the labels a, b"),
        (["a", "b"], ["a", "z"], "predicted label.*z are not among the labels a, b"),
    ],
)
def test_bad_input_is_named(truth: list[str], answer: list[str], text: str) -> None:
    with pytest.raises(MetricError, match=text):
        metrics.unweighted_average_recall(truth, answer, labels=["a", "b"])


def test_an_outside_answer_is_an_error_of_its_class_only() -> None:
    uar = metrics.unweighted_average_recall(["a", "a", "b"], ["a", "x", "b"], labels=["a", "b"], outside=["x"])
    assert uar == 0.75
    assert metrics.macro_precision(["a", "a", "b"], ["a", "x", "b"], labels=["a", "b"], outside=["x"]) == 1


def test_many_clips_are_fast_enough_for_thousands_of_tables() -> None:
    rng = np.random.default_rng(0)
    truth = [LABELS[i] for i in rng.integers(3, size=20000)]
    counts = metrics.confusion_matrix(truth, truth, labels=LABELS)
    assert counts.sum() == 20000 == np.trace(counts)


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(1, 30))
def test_probability_scores_equal_scikit_learn(seed: int, k: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    labels = [f"c{i}" for i in range(k)]
    p = rng.dirichlet(np.full(k, 0.3), size=n)
    truth = [labels[i] for i in rng.integers(k, size=n)]
    assert metrics.nll(truth, p, labels=labels) == pytest.approx(sk.log_loss(truth, p, labels=labels))
    onehot = np.array([[t == label for label in labels] for t in truth], dtype=float)
    assert metrics.brier(truth, p, labels=labels) == pytest.approx(((p - onehot) ** 2).sum(axis=1).mean())
    assert 0 <= metrics.ece(truth, p, labels=labels) <= 1


def test_probability_scores_worked_by_hand() -> None:
    p = [[0.8, 0.2], [0.6, 0.4], [0.1, 0.9]]
    truth = ["a", "b", "b"]
    assert metrics.nll(truth, p, labels=["a", "b"]) == pytest.approx(-math.log(0.8 * 0.4 * 0.9) / 3)
    assert metrics.brier(truth, p, labels=["a", "b"]) == pytest.approx((0.08 + 0.72 + 0.02) / 3)
    # bins (11/15, 12/15]: right at .8; (8/15, 9/15]: wrong at .6; (13/15, 14/15]: right at .9
    assert metrics.ece(truth, p, labels=["a", "b"]) == pytest.approx((0.2 + 0.6 + 0.1) / 3)
    # two clips in one bin: mean confidence .9, accuracy .5
    assert metrics.ece(["a", "b"], [[0.9, 0.1], [0.9, 0.1]], labels=["a", "b"]) == pytest.approx(0.4)
    # .75 and .8 share the bin (11/15, 12/15], whose upper edge belongs to it: accuracy .5, mean confidence .775
    assert metrics.ece(["a", "b"], [[0.75, 0.25], [0.8, 0.2]], labels=["a", "b"]) == pytest.approx(0.275)
    assert metrics.nll(["a"], [[0.0, 1.0]], labels=["a", "b"]) == pytest.approx(-math.log(np.finfo(float).eps))


@pytest.mark.parametrize(
    ("p", "text"),
    [
        ([[0.5, 0.6]], "clip 0 are no distribution"),
        ([[-0.1, 1.1]], "clip 0 are no distribution"),
        ([[float("nan"), 1.0]], "clip 0 are no distribution"),
        ([[1.0]], r"shape \(1, 1\); expected \(1 clips, 2 labels\)"),
    ],
)
def test_probabilities_are_checked(p: list[list[float]], text: str) -> None:
    with pytest.raises(MetricError, match=text):
        metrics.nll(["a"], p, labels=["a", "b"])


def test_attribute_scores() -> None:
    x, y = [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]
    assert metrics.mse(x, y) == 1
    assert metrics.ccc(x, y) == pytest.approx((2 * 2 / 3) / (2 / 3 + 2 / 3 + 1))  # 4/7
    assert metrics.ccc(x, x) == 1
    assert metrics.ccc(x, x[::-1]) == -1
    assert metrics.ccc([1.0, 1.0], [0.0, 2.0]) == 0
    with pytest.raises(MetricError, match="same constant"):
        metrics.ccc([1.0, 1.0], [1.0, 1.0])
    with pytest.raises(MetricError, match="finite"):
        metrics.mse([1.0], [float("inf")])
    with pytest.raises(MetricError, match="same length"):
        metrics.mse([1.0], [1.0, 2.0])


def test_jackknife_of_one_class_is_the_t_interval_of_the_speakers() -> None:
    """Speakers of 10 clips with 4, 5 and 6 right: mean .5, SD .1, t(.975, 2) = 4.3027."""
    interval = jackknife_interval([[10], [10], [10]], [[4], [5], [6]])
    assert interval is not None
    assert interval.standard_error == pytest.approx(0.1 / math.sqrt(3))
    assert interval.low == pytest.approx(0.5 - 4.302653 * 0.1 / math.sqrt(3), abs=1e-6)
    assert interval.high == pytest.approx(0.5 + 4.302653 * 0.1 / math.sqrt(3), abs=1e-6)
    assert (interval.num_speakers, interval.num_incomplete) == (3, 0)


def test_jackknife_worked_by_hand_with_unequal_speakers() -> None:
    """Classes a, b; clips (2,2), (4,1), (2,1); right (1,2), (4,0), (1,1). UAR = (6/8 + 3/4)/2 = .75.

    Without each: (5/6 + 1/2)/2, (2/4 + 3/3)/2, (5/6 + 2/3)/2 = 2/3, 3/4, 3/4; mean 13/18; sum of squares 1/216.
    """
    interval = jackknife_interval([[2, 2], [4, 1], [2, 1]], [[1, 2], [4, 0], [1, 1]])
    assert interval is not None
    assert interval.standard_error == pytest.approx(math.sqrt(2 / 3 / 216))
    assert interval.low == pytest.approx(0.75 - 4.302653 * math.sqrt(2 / 3 / 216), abs=1e-6)


def test_a_speaker_who_alone_has_a_class_is_counted() -> None:
    interval = jackknife_interval([[2, 2], [4, 0], [2, 0]], [[1, 1], [4, 0], [1, 0]])
    assert interval is not None
    assert interval.num_incomplete == 1
    with pytest.raises(MetricError, match="every class"):
        jackknife_interval([[2, 0], [4, 0]], [[1, 0], [4, 0]])


def test_no_interval_where_nothing_is_known_about_speakers() -> None:
    table = pd.DataFrame(
        {
            "corpus": "c",
            "actor": ["f1", "f1", "m1", "m1"],
            "truth": ["a", "b", "a", "b"],
            "prediction": ["a", "b", "b", "b"],
        }
    )
    assert speaker_interval(table, ["a", "b"]) is not None
    assert speaker_interval(table.assign(actor=["f1", "f1", "", ""]), ["a", "b"]) is None
    assert speaker_interval(table.assign(actor="f1"), ["a", "b"]) is None
    assert speaker_interval(table.assign(prediction=table["truth"]), ["a", "b"]) is None  # all alike: no spread


def test_interval_covers_what_it_promises() -> None:
    """6 speakers of 7 classes: nominal 95 %, 2000 draws, so 93 to 97 % leaves room for four standard errors."""
    rng = np.random.default_rng(1)
    base = rng.normal(0.4, 0.8, 7)

    def draw(num_speakers: int) -> tuple[np.ndarray, np.ndarray]:
        logits = base + rng.normal(0, 0.5, (num_speakers, 1)) + rng.normal(0, 0.6, (num_speakers, 7))
        return np.full((num_speakers, 7), 14), rng.binomial(14, 1 / (1 + np.exp(-logits)))

    clips, correct = draw(200_000)
    true_uar = (correct.sum(axis=0) / clips.sum(axis=0)).mean()
    found = [jackknife_interval(*draw(6)) for _ in range(2000)]
    covered = [interval is not None and interval.low <= true_uar <= interval.high for interval in found]
    assert 0.93 < np.mean(covered) < 0.97


@pytest.mark.parametrize("module", [metrics, intervals])
def test_docstring_examples(module: object) -> None:
    outcome = doctest.testmod(module)  # type: ignore[arg-type]
    assert outcome.attempted > 0
    assert outcome.failed == 0


def test_evaluation_needs_no_torch_and_nothing_of_training() -> None:
    code = (
        "import sys, ser_eval.evaluate, ser_eval.report, ser_eval.figures\n"
        "assert not {'torch', 'ser_scripts', 'ser_analysis', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_metric_of_the_evaluate_library_loads_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ser_scripts  # noqa: F401, I001  the torchaudio guard comes first
    import evaluate

    import ser_eval

    folder = Path(ser_eval.__file__).parent / "uar_metric"
    # Its result file and its module copy belong to this test.
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path))
    metric = evaluate.load(str(folder), cache_dir=str(tmp_path))
    assert metric.compute(predictions=ANSWER, references=TRUTH, labels=LABELS) == {"uar": pytest.approx(7 / 12)}
    assert metric.compute(predictions=np.array([0, 1, 1]), references=[0, 0, 1], labels=[0, 1]) == {"uar": 0.75}
    with pytest.raises(MetricError, match="no reference clips of sad"):
        metric.compute(predictions=["angry", "happy"], references=["angry", "happy"], labels=LABELS)
