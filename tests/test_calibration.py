"""Temperature scaling on validation clips, and what it does to test clips."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_eval import calibration, metrics
from ser_eval.evaluate import evaluate_experiment
from ser_eval.run_folder import find_runs, read_json
from tests import fabricated_runs as made

LABELS = ["a", "b", "c"]


def drawn(seed: int, n: int, temperature: float) -> tuple[list[str], np.ndarray]:
    """Labels drawn from probabilities, and the probabilities told at another temperature: overconfident below 1."""
    rng = np.random.default_rng(seed)
    honest = rng.dirichlet([0.8] * 3, size=n)
    truth = [LABELS[rng.choice(3, p=row)] for row in honest]
    return truth, calibration.scaled(honest, temperature)


@pytest.mark.parametrize("wrong", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_put_in_is_taken_out(wrong: float) -> None:
    truth, told = drawn(1, 4000, wrong)
    found = calibration.fit_temperature(truth, told, labels=LABELS)
    assert found == pytest.approx(1 / wrong, rel=0.08)
    better = calibration.scaled(told, found)
    assert metrics.nll(truth, better, labels=LABELS) <= metrics.nll(truth, told, labels=LABELS) + 1e-9
    assert metrics.ece(truth, better, labels=LABELS) < 0.03


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), temperature=st.floats(0.05, 20))
def test_a_temperature_changes_no_answer(seed: int, temperature: float) -> None:
    p = np.random.default_rng(seed).dirichlet([0.3] * 4, size=30)
    scaled = calibration.scaled(p, temperature)
    assert scaled.sum(axis=1) == pytest.approx(np.ones(30))
    assert (p.argmax(axis=1) == scaled.argmax(axis=1)).all()
    entropy = [-np.where(q > 0, q * np.log(np.maximum(q, 1e-300)), 0).sum(axis=1) for q in (p, scaled)]
    assert ((entropy[1] >= entropy[0] - 1e-9) == (temperature >= 1)).all() or abs(temperature - 1) < 1e-9


def test_a_probability_of_zero_stays_zero() -> None:
    assert calibration.scaled([[0.0, 0.25, 0.75]], 2.0)[0, 0] == 0


def test_classwise_ece_by_hand() -> None:
    """Two clips of p(a) = .9 of which one is a: class a .4; the same for b at .1; mean .4."""
    p = np.array([[0.9, 0.1], [0.9, 0.1]])
    assert calibration.classwise_ece(["a", "b"], p, labels=["a", "b"]) == pytest.approx(0.4)
    assert calibration.classwise_ece(["a", "b"], np.array([[1.0, 0], [0, 1]]), labels=["a", "b"]) == 0


def test_a_perfect_model_ends_at_the_bound_and_says_so() -> None:
    table = pd.DataFrame({"truth": ["a", "b"] * 5, "p_a": [0.9, 0.1] * 5, "p_b": [0.1, 0.9] * 5})
    told = calibration.calibrate(table, table)
    assert told["at_bound"] is True
    assert told["temperature"] == pytest.approx(calibration.COLDEST, rel=1e-3)


def test_the_temperature_comes_from_validation_and_the_scores_from_test(tmp_path: Path) -> None:
    folder: Path = made.make_experiment(tmp_path, models=("hubert-a",))
    evaluate_experiment(folder)
    (first, *_) = runs = find_runs(folder)
    assert all("calibration" not in scores for run in runs for scores in read_json(run.path / "metrics.json").values())
    assert 'id="calibration"' not in (folder / "report/report.html").read_text()
    for run in runs:
        split = run.split()
        clips = split[split["split"] == "validation"]
        answers = made.answers(clips["class_id"].tolist(), made.CLASSES, 0.2, run.record["seed"])
        made.prediction_table(clips, answers, made.CLASSES).to_csv(run.path / "validation.csv", index=False)
    evaluate_experiment(folder)
    told = read_json(first.path / "metrics.json")["home"]
    validation, test = first.validation(), first.predictions()["home", ""]
    assert validation is not None
    columns = [f"p_{label}" for label in made.CLASSES]
    expected = calibration.fit_temperature(
        validation["truth"].tolist(), validation[columns].to_numpy(), labels=made.CLASSES
    )
    assert told["calibration"]["temperature"] == pytest.approx(expected, rel=1e-6)
    assert told["calibration"]["temperature"] > 1.5  # right one time in five, and sure of itself
    assert told["calibration"]["n_validation"] == len(validation)
    for name in ("nll", "brier", "ece"):
        assert told["calibration"]["before"][name] == pytest.approx(told[name])
    after = calibration.scaled(test[columns].to_numpy(), expected)
    nll = metrics.nll(test["truth"].tolist(), after, labels=made.CLASSES)
    assert told["calibration"]["after"]["nll"] == pytest.approx(nll)
    assert sum(told["calibration"]["after"]["bins"]["clips"]) == len(test)
    assert not math.isclose(told["calibration"]["after"]["nll"], told["nll"])
    page = (folder / "report/report.html").read_text()
    assert 'id="calibration"' in page
    assert "classwise ECE" in page
    assert (folder / "report/figures").glob("reliability--*.png")
