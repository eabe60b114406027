"""T2: intervals, tests and gaps over speakers; `ser stats --predictions`; and the same inside an experiment."""

from __future__ import annotations

import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_analysis.experiment import stats_of_experiment
from ser_analysis.methods import components, fairness, mcnemar, speakers, two_way
from ser_eval.errors import BadInput
from ser_eval.evaluate import evaluate_experiment
from ser_eval.intervals import jackknife_interval
from ser_eval.run_folder import find_runs
from ser_scripts.cli import app
from tests import fabricated_runs as made

ORACLE = Path(__file__).parent / "oracle"
COLUMNS = ["--models", "pred_a,pred_b", "--truth", "y_true", "--speaker", "speaker"]


@pytest.fixture(autouse=True)
def figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time, so only the tests named here draw."""
    if "bytes" not in request.node.name:
        monkeypatch.setattr("ser_analysis.figures.draw", lambda out, analysis: [])
        monkeypatch.setattr("ser_eval.report.write_report", lambda summary: None)


def ser(*arguments: object) -> None:
    command: Any = typer.main.get_command(app)
    command.main(["stats", *map(str, arguments)], standalone_mode=False)


def random_counts(seed: int, s: int, k: int, models: int = 2, empty: float = 0.0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    clips = rng.integers(1, 9, size=(s, k))
    clips[rng.random((s, k)) < empty] = 0
    clips[0] = np.maximum(clips[0], 1)
    return clips, np.array([rng.binomial(clips, 0.6) for _ in range(models)])


def predictions(tmp_path: Path, change: Any = None, **columns: Any) -> Path:
    table = pd.read_csv(ORACLE / "paired_predictions.csv", dtype=str)
    if change is not None:
        table = change(table)
    file = tmp_path / "predictions.csv"
    table.assign(**columns).to_csv(file, index=False)
    return file


# Arithmetic


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), s=st.integers(2, 4), k=st.integers(2, 4))
def test_the_enumerated_bootstrap_is_every_draw_with_replacement(seed: int, s: int, k: int) -> None:
    clips, correct = random_counts(seed, s, k, empty=0.3)
    drawn = speakers.draw(clips, rng_seed=0)
    values = []
    for picks in itertools.product(range(s), repeat=s):
        n, right = clips[list(picks)].sum(axis=0), correct[0][list(picks)].sum(axis=0)
        if (n > 0).all():
            values.append((right / n).mean())
    ours = speakers.uars(drawn.weights, clips, correct)[:, 0]
    assert float(drawn.share @ ours) == pytest.approx(np.mean(values))
    assert float(drawn.share @ ours**2) == pytest.approx(np.mean(np.square(values)))
    assert drawn.without_a_class == pytest.approx(1 - len(values) / s**s)


def test_the_drawn_bootstrap_agrees_with_the_enumerated_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clips, correct = random_counts(5, 7, 4)
    exact = speakers.run(clips, correct)
    monkeypatch.setattr(speakers, "ENUMERATED_SPEAKERS", 2)
    drawn = speakers.run(clips, correct, rng_seed=3)
    assert [row["exact"] for row in (exact[0], drawn[0])] == [True, False]
    for one, other in zip(exact, drawn, strict=True):
        assert other["mean"] == pytest.approx(one["mean"], abs=4 * one["sd"] / 100)
        assert other["sd"] == pytest.approx(one["sd"], rel=0.04)
        assert other["studentised_low"] == pytest.approx(one["studentised_low"], abs=0.03)
    assert drawn == speakers.run(clips, correct, rng_seed=3)
    assert drawn != speakers.run(clips, correct, rng_seed=4)


def test_draws_without_a_class_are_drawn_anew_and_counted() -> None:
    clips = np.full((12, 3), 5)
    clips[1:, 2] = 0  # one speaker alone has the third class: (11/12)^12 of the draws lack it
    drawn = speakers.draw(clips, rng_seed=1, draws=2000)
    assert (drawn.weights[:, 0] > 0).all()
    share = (11 / 12) ** 12
    assert drawn.without_a_class / 2000 == pytest.approx(share / (1 - share), rel=0.15)
    with pytest.raises(BadInput, match="a class has no clips"):
        speakers.draw(clips * np.array([1, 1, 0]), rng_seed=1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), s=st.integers(2, 12), k=st.integers(2, 5))
def test_what_holds_of_every_interval(seed: int, s: int, k: int) -> None:
    clips, correct = random_counts(seed, s, k)
    difference = correct[1] - correct[0]
    rows = speakers.run(clips, np.array([*correct, difference, -difference]), draws=400)
    assert rows[2]["estimate"] == pytest.approx(rows[1]["estimate"] - rows[0]["estimate"])
    for method in ("jackknife_t", "t"):  # B - A mirrors A - B
        assert rows[2][f"{method}_low"] == pytest.approx(-rows[3][f"{method}_high"], nan_ok=True)
    ours = jackknife_interval(clips, correct[0])
    if ours is not None:  # the same interval that the report shows, which is cut at 0 and 1
        assert max(0.0, rows[0]["jackknife_t_low"]) == ours.low
        assert min(1.0, rows[0]["jackknife_t_high"]) == ours.high
    # Every speaker twice as many clips, and twice as many right: the same UARs, the same intervals.
    again = speakers.run(2 * clips, 2 * correct, draws=400)
    assert again[0]["percentile_low"] == pytest.approx(rows[0]["percentile_low"])
    assert again[0]["bca_high"] == pytest.approx(rows[0]["bca_high"], nan_ok=True)


def test_the_t_interval_of_balanced_speakers_is_the_jackknife() -> None:
    clips = np.full((9, 4), 6)
    correct = np.random.default_rng(0).binomial(clips, 0.5)[None]
    (row,) = speakers.run(clips, correct, draws=200)
    assert (row["t_low"], row["t_high"]) == pytest.approx((row["jackknife_t_low"], row["jackknife_t_high"]))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), s=st.integers(1, 6))
def test_the_swap_test_is_every_way_of_swapping(seed: int, s: int) -> None:
    clips, (a, b) = random_counts(seed, s, 3)
    n = clips.sum(axis=0)
    gaps = []
    for swapped in itertools.product([False, True], repeat=s):
        flip = np.array(swapped)[:, None]
        one, other = np.where(flip, b, a), np.where(flip, a, b)
        gaps.append(abs((other.sum(axis=0) / n).mean() - (one.sum(axis=0) / n).mean()))
    told = speakers.swap(clips, a, b)
    assert told["n_permutations"] == 2**s
    assert told["p_two_sided"] == pytest.approx(np.mean(np.array(gaps) >= gaps[0] - 1e-12))


def test_mcnemar_of_a_textbook_table() -> None:
    """Agresti (1990), 150 and 86 discordant: chi2 17.36 without and 16.82 with continuity correction."""
    right_a, right_b = np.array([True] * 150 + [False] * 86), np.array([False] * 150 + [True] * 86)
    told = mcnemar.run(right_a, right_b)
    assert told["chi2"] == pytest.approx(17.36, abs=0.005)
    assert told["chi2_cc"] == pytest.approx(16.82, abs=0.005)
    assert told["mid_p"] < told["exact_p"] < told["p_cc"] * 1.1
    assert math.isnan(mcnemar.run(right_a, right_a)["exact_p"])


def test_the_worst_speaker_and_class_are_told_with_intervals_over_speakers() -> None:
    clips = np.full((5, 2), 10)
    correct = np.array([[9, 5], [8, 4], [9, 3], [7, 4], [2, 1]])
    told = fairness.spread(list("abcde"), clips, correct)
    assert (told["worst_speaker"], told["worst_uar"], told["best_speaker"]) == ("e", pytest.approx(0.15), "a")
    assert told["new_speaker_low"] < 0.15 < told["new_speaker_high"] <= 1
    worst = fairness.recalls(["x", "y"], clips, correct)[0]
    assert (worst["class"], worst["recall"]) == ("y", pytest.approx(0.34))
    assert worst["simultaneous_low"] < worst["ci95_low"] < 0.34 < worst["ci95_high"] < worst["simultaneous_high"]


def test_gaps_beyond_enumeration_are_drawn_and_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(2).normal(0.5, 0.1, size=11) + 0.1 * (np.arange(11) < 5)
    exact = fairness.gap(values, np.arange(11) < 5)
    assert exact["n_permutations"] == math.comb(11, 5)
    monkeypatch.setattr(fairness, "ENUMERATED", 10)
    monkeypatch.setattr(fairness, "DRAWS", 4000)
    drawn = fairness.gap(values, np.arange(11) < 5, rng_seed=1)
    assert drawn["permutation_p"] == pytest.approx(exact["permutation_p"], abs=0.03)


def test_variance_components_recover_what_was_put_in() -> None:
    rng = np.random.default_rng(4)
    y = rng.normal(0, 0.03, (60, 1)) + rng.normal(0, 0.01, (1, 50)) + rng.normal(0, 0.005, (60, 50)) + 0.6
    told = components.crossed(y)
    assert (told["sd_split"], told["sd_train_seed"], told["sd_rest"]) == pytest.approx((0.03, 0.01, 0.005), rel=0.25)
    assert told["share_split"] + told["share_train_seed"] + told["share_rest"] == pytest.approx(1)
    nested = components.nested(list(rng.normal(0, 0.03, (80, 1)) + rng.normal(0, 0.01, (80, 4))))
    assert (nested["sd_split"], nested["sd_rest"]) == pytest.approx((0.03, 0.01), rel=0.2)
    # One-way by hand: groups 1, 2 | 3, 6: within 2.5, between 9, so split (9 - 2.5) / 2.
    hand = components.nested([np.array([1.0, 2.0]), np.array([3.0, 6.0])])
    assert (hand["sd_split"] ** 2, hand["sd_rest"] ** 2) == pytest.approx((3.25, 2.5))


def test_coverage_comes_from_the_next_smaller_simulation() -> None:
    for of, sizes in speakers.COVERAGE.items():
        assert set(sizes) == {4, 6, 10, 20, 90}
        for size, rates in sizes.items():
            assert set(rates) == set(speakers.METHODS)
            assert abs(rates[speakers.HEADLINE] - 0.95) <= 0.025
            assert speakers.coverage(size + 1, of) == (rates[speakers.HEADLINE], size)
    assert speakers.coverage(2)[1] == 4
    assert "only 19 speakers" in speakers.warning(19)
    assert speakers.warning(20) == ""


def test_ten_thousand_draws_of_ten_models_take_seconds() -> None:
    rng = np.random.default_rng(0)
    labels = list("abcdef")
    who, truth = rng.integers(0, 91, 7442), rng.integers(0, 6, 7442)
    answers = [np.where(rng.random(7442) < 0.6, truth, rng.integers(0, 6, 7442)) for _ in range(10)]
    began = time.process_time()
    _, clips, correct = speakers.counts(
        [str(w) for w in who], [labels[t] for t in truth], [[labels[a] for a in of] for of in answers], labels
    )
    rows = speakers.run(clips, correct)
    assert time.process_time() - began < 20
    assert all(row["n_draws"] == 10_000 for row in rows)


# Speakers and runs


def test_two_way_is_the_sum_of_the_squared_shares_of_speakers_and_runs() -> None:
    rng = np.random.default_rng(8)
    clips = np.full((3, 4, 2), 5)
    correct = rng.binomial(clips, 0.6)
    told = two_way.run(clips, correct)
    uar = (correct.sum(axis=(0, 1)) / clips.sum(axis=(0, 1))).mean()
    assert told["estimate"] == pytest.approx(uar)
    # Balanced: both are the variances of means, by hand.
    speakers_uar, runs_uar = ((correct.sum(axis=axis) / clips.sum(axis=axis)).mean(axis=1) for axis in (0, 1))
    of_speakers, of_runs = speakers_uar.var(ddof=1) / 4, runs_uar.var(ddof=1) / 3
    assert told["standard_error"] ** 2 == pytest.approx(of_speakers + of_runs)
    df = (of_speakers + of_runs) ** 2 / (of_speakers**2 / 3 + of_runs**2 / 2)
    assert told["df"] == pytest.approx(df)
    assert told["low"] == pytest.approx(uar - scipy.stats.t.ppf(0.975, df) * told["standard_error"])
    wider = two_way.run(clips, correct, test_train_ratio=0.25, variant="sum_overlap")
    assert wider["standard_error"] ** 2 == pytest.approx(of_speakers + (1 + 3 * 0.25) * of_runs)
    cell = ((correct - clips * correct.sum(axis=(0, 1)) / 60) / 60).mean(axis=2)
    both = 12 / 11 * (cell**2).sum()
    less = two_way.run(clips, correct, variant="subtracted")
    assert less["standard_error"] ** 2 == pytest.approx(of_speakers + max(0.0, of_runs - both))


def test_two_way_without_a_second_run_or_without_any_spread_is_undefined() -> None:
    clips = np.full((2, 3, 2), 4)
    correct = np.random.default_rng(1).binomial(clips, 0.5)
    assert math.isnan(two_way.run(clips[:1], correct[:1])["p"])
    assert math.isnan(two_way.run(clips, clips)["low"])
    with pytest.raises(BadInput, match="there is one speaker"):
        two_way.run(clips[:, :1], correct[:, :1])
    unseen = np.concatenate([clips, np.zeros((2, 2, 2), dtype=int)], axis=1)  # people whom no run tests
    more = np.concatenate([correct, np.zeros((2, 2, 2), dtype=int)], axis=1)
    assert two_way.run(unseen, more) == two_way.run(clips, correct)


def test_what_training_anew_adds_is_seen() -> None:
    """The luck of a training moves all speakers of a run together; only the two-way interval sees it."""
    rng = np.random.default_rng(2)
    clips = np.full((8, 60, 3), 10)
    luck = rng.normal(0, 0.08, size=(8, 1, 1))
    correct = rng.binomial(clips, np.clip(0.6 + luck, 0, 1) * np.ones((1, 60, 3)))
    (as_trained,) = speakers.run(clips.sum(axis=0), correct.sum(axis=0)[None], draws=100)
    assert two_way.run(clips, correct)["standard_error"] > 4 * as_trained["standard_error"]


def test_the_coverage_of_training_anew_comes_from_the_simulation() -> None:
    for place, sizes in two_way.COVERAGE.items():
        assert two_way.CHOSEN[place] in two_way.VARIANTS
        for size, (mean, worst) in sizes.items():
            assert 0.90 <= worst <= mean <= 0.99
            assert two_way.coverage(size + 1, place) == (mean, worst, size)
    assert two_way.coverage(2, "other")[2] == 6


# ser stats --predictions


def test_predictions_come_out_of_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ser("--predictions", ORACLE / "paired_predictions.csv", *COLUMNS, "--out", tmp_path)
    content = json.loads((tmp_path / "stats.json").read_text())
    assert content["target"]["code"] == "T2"
    (pair,) = content["speaker_pairs"]
    assert pair["mean_diff"] == pytest.approx(-content["diff_b_minus_a"])
    assert (pair["t"], pair["p"]) == pytest.approx((-4.0, 0.0103234154808315))
    report = (tmp_path / "report.md").read_text()
    assert "Yes: for new speakers b, as trained here, is better than a." in report
    assert "## What may not be concluded" in report
    assert "only 6 speakers" in capsys.readouterr().out
    tables = {file.stem for file in tmp_path.glob("*.csv")}
    assert tables == {
        "speaker_intervals", "speaker_pairs", "speaker_spread", "class_recalls", "speaker_gaps", "mcnemar",
    }  # fmt: skip
    assert set(pd.read_csv(tmp_path / "speaker_pairs.csv")["target"]) == {"T2"}


def test_predictions_are_bytes_for_bytes_the_same_in_any_order_of_rows(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        ser("--predictions", predictions(tmp_path / name), *COLUMNS, "--out", tmp_path / name / "out")
        found.append({file.name: file.read_bytes() for file in (tmp_path / name / "out").iterdir()})
    assert found[0] == found[1]
    assert {"speakers.png", "speakers.pdf"} <= set(found[0])
    shuffled = predictions(tmp_path, lambda table: table.sample(frac=1, random_state=1))
    ser("--predictions", shuffled, *COLUMNS, "--out", tmp_path / "three")
    one, three = (json.loads((tmp_path / name / "stats.json").read_text()) for name in ("one/out", "three"))
    assert {**one, "provenance": None} == {**three, "provenance": None}


def test_three_models_are_compared_by_pairs_with_holm(tmp_path: Path) -> None:
    file = predictions(tmp_path, lambda table: table.assign(pred_c=table["y_true"]))
    ser("--predictions", file, "--models", "pred_a,pred_b,pred_c", *COLUMNS[2:], "--out", tmp_path / "out")
    content = json.loads((tmp_path / "out/stats.json").read_text())
    pairs = {(row["a"], row["b"]): row for row in content["speaker_pairs"]}
    assert len(pairs) == 3
    assert pairs["a", "b"]["p_holm"] == pytest.approx(pairs["a", "b"]["p"])  # the largest of the three
    assert min(row["p_holm"] for row in pairs.values()) == pytest.approx(3 * min(row["p"] for row in pairs.values()))
    assert set(content["speaker_swap_exact"]) == {"b_minus_a", "c_minus_a", "c_minus_b"}


def test_labels_choose_the_task_and_other_answers_are_errors(tmp_path: Path) -> None:
    ser(
        "--predictions", ORACLE / "paired_predictions.csv", *COLUMNS, "--labels", "anger,joy,fear", "--out", tmp_path
    )  # fmt: skip
    content = json.loads((tmp_path / "stats.json").read_text())
    assert content["n"] == 3 * 84
    # The recalls are those of the seven-class table: an answer outside is as wrong as before.
    expected = json.loads((ORACLE / "paired_predictions.json").read_text())["recall"]["b"]
    assert content["recall"]["b"] == {label: pytest.approx(expected[label]) for label in ("anger", "joy", "fear")}
    assert any("336 clips of classes outside the task are left out" in fact for fact in content["facts"])
    assert any("outside the task: errors" in fact for fact in content["facts"])


def repeated(table: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([table, table.head(1)])


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda t: t.assign(speaker="f1", gender="f"), COLUMNS, r"speaker has one value \(f1\); .* two speakers"),
        (lambda t: t.assign(speaker=["", *t["speaker"][1:]]), COLUMNS, r"SPEAKERS UNKNOWN: .* 1 of 588 rows \(line 2"),
        (lambda t: t.assign(speaker=""), COLUMNS, r"SPEAKERS UNKNOWN: .* 588 of 588 rows"),
        (repeated, COLUMNS, r"f1_01_anger stands there more than once \(lines 2, 590\)"),
        (lambda t: t.assign(pred_a=["", *t["pred_a"][1:]]), COLUMNS, r"line 2: no pred_a; every clip needs"),
        (lambda t: t.assign(pred_b="laughter"), COLUMNS, r"pred_b never answers one of the classes .*laughter"),
        (lambda t: t.assign(y_true="joy"), COLUMNS, r"y_true has one class \(joy\); a UAR needs two"),
        (lambda t: t.head(0), COLUMNS, r"holds no rows below its header"),
        (None, ["--models", "pred_z", *COLUMNS[2:]], r"has no column 'pred_z'; it has utt, speaker, gender"),
        (None, ["--models", "pred_a", "--truth", "pred_a", "--speaker", "speaker"], "must be columns of their own"),
        (None, [*COLUMNS, "--labels", "anger,bored"], r"no clip of bored in y_true; it has anger, disgust"),
        (None, [*COLUMNS, "--labels", "anger,anger"], r"a class stands there twice"),
        (None, [*COLUMNS, "--dv", "uar"], r"takes no experiment, and of the options only --models"),
        (None, COLUMNS[:4], r"needs --models, --truth and --speaker"),
        (lambda t: t.assign(gender=["m", *t["gender"][1:]]), COLUMNS, r"speaker f1 has several values of gender: f, m"),
    ],
)  # fmt: skip
def test_predictions_that_are_refused(tmp_path: Path, change: Any, arguments: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ser("--predictions", predictions(tmp_path, change), *arguments)
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.csv"]


# Inside an experiment


def made_up(tmp_path: Path, **changes: Any) -> Path:
    folder: Path = made.make_experiment(tmp_path, **changes)
    return folder


def test_an_experiment_tells_of_people_on_each_test_set(tmp_path: Path) -> None:
    folder = made_up(tmp_path)
    summary = evaluate_experiment(folder)
    stats_of_experiment(folder)
    content = json.loads((folder / "stats/home-on-home/stats.json").read_text())
    rows = {row["model"]: row for row in content["speakers"]["speaker_intervals"]}
    for cell in summary.cells:
        if cell.test_corpus == "home":  # one interval: the report's
            row = rows[cell.model_name]
            assert row["uar"] == pytest.approx(cell.pooled_uar)
            assert max(0.0, row["ci95_low"]) == pytest.approx(cell.interval.low)
            assert min(1.0, row["ci95_high"]) == pytest.approx(cell.interval.high)
            assert row["n_speakers"] == cell.num_speakers == 6
    (pair,) = content["speakers"]["speaker_pairs"]
    assert pair["mean_diff"] == pytest.approx(rows["hubert-a"]["uar"] - rows["wavlm-b"]["uar"])
    assert {row["first"] for row in content["speakers"]["speaker_gaps"]} == {"female"}
    report = (folder / "stats/home-on-home/report.md").read_text()
    assert report.index("## In plain words") < report.index("## What may not be concluded") < report.index("## Tables")
    assert "New people " in report
    assert "6 test speakers are a small sample" in report


def test_an_experiment_tells_what_training_anew_would_add(tmp_path: Path) -> None:
    folder = made_up(tmp_path)
    evaluate_experiment(folder)
    stats_of_experiment(folder)
    content = json.loads((folder / "stats/home-on-home/stats.json").read_text())
    (pair,) = content["speakers"]["speaker_pairs"]
    runs = [run for run in find_runs(folder) if run.record["model"] == pair["a"]]
    shape = (len(runs), 6, 4)
    names, labels = sorted({a for run in runs for a in run.predictions()["home", ""]["actor"]}), sorted(made.CLASSES)
    clips, correct = np.zeros(shape, dtype=int), np.zeros(shape, dtype=int)
    for sign, model in ((1, pair["a"]), (-1, pair["b"])):
        mine = [run for run in find_runs(folder) if run.record["model"] == model]
        for r, run in enumerate(sorted(mine, key=lambda run: int(run.record["seed"]))):
            for row in run.predictions()["home", ""].itertuples():
                at = r, names.index(row.actor), labels.index(row.truth)
                clips[at] += sign > 0
                correct[at] += sign * (row.truth == row.prediction)
    told = two_way.run(clips, correct)
    assert (pair["n_runs"], pair["retrained_p"]) == (3, pytest.approx(told["p"]))
    assert (pair["retrained_low"], pair["retrained_high"]) == pytest.approx((told["low"], told["high"]))
    assert pair["retrained_p_holm"] == pytest.approx(told["p"])
    away = json.loads((folder / "stats/home-on-away/stats.json").read_text())["speakers"]["speaker_pairs"][0]
    assert away["retrained_coverage_worst"] == two_way.COVERAGE["other"][6][1]
    report = (folder / "stats/home-on-home/report.md").read_text()
    assert "Trained anew as well (3 runs): 95 % CI [" in report


def test_mcnemar_of_an_experiment_is_of_one_run_and_says_that_it_is_of_clips(tmp_path: Path) -> None:
    folder = made_up(tmp_path)
    evaluate_experiment(folder)
    stats_of_experiment(folder)
    content = json.loads((folder / "stats/home-on-home/stats.json").read_text())
    assert content["mcnemar"]["target"] == "of these clips"
    (row,) = content["mcnemar"]["pairs"]
    tables = [
        run.predictions()["home", ""].sort_values("path")
        for model in (row["a"], row["b"])
        for run in find_runs(folder)
        if run.record["model"] == model and run.record["seed"] == 0
    ]
    right = [(table["truth"] == table["prediction"]).to_numpy() for table in tables]
    assert row["run"] == "seed-0"
    assert row["n_clips"] == len(tables[0])
    assert (row["n_a_only"], row["n_b_only"]) == (int((right[0] & ~right[1]).sum()), int((~right[0] & right[1]).sum()))
    assert set(pd.read_csv(folder / "stats/home-on-home/mcnemar.csv")["target"]) == {"of these clips"}
    assert any("nothing may be concluded about people" in fact for fact in content["facts"])


def test_unknown_speakers_and_one_speaker_get_a_sentence(tmp_path: Path) -> None:
    folder = made_up(tmp_path)
    for run in find_runs(folder):
        for name, change in (
            ("home", {"actor": "", "gender": "unknown"}),
            ("away", {"actor": "f8", "gender": "female"}),
        ):
            file = run.path / f"predictions/{name}.csv"
            pd.read_csv(file, dtype=str, keep_default_na=False).assign(**change).to_csv(file, index=False)
    evaluate_experiment(folder)
    stats_of_experiment(folder)
    for name, message in (("home", "SPEAKERS UNKNOWN, so that nothing"), ("away", "there is one speaker; what other")):
        content = json.loads((folder / f"stats/home-on-{name}/stats.json").read_text())
        assert content["speakers"] == {}
        assert any(message in fact for fact in content["facts"]), content["facts"]
        assert any(limit.startswith("Nothing about new people") for limit in content["limits"])


def test_declared_contrasts_are_the_family_of_holm(tmp_path: Path) -> None:
    models = ("hubert-a", "wavlm-b", "whisper-c")
    folder = made_up(tmp_path, models=models)
    evaluate_experiment(folder)
    stats_of_experiment(folder)
    before = json.loads((folder / "stats/home-on-home/stats.json").read_text())
    runs = [run.path.relative_to(folder).as_posix() for run in find_runs(folder)]
    plan = {"runs": runs, "contrasts": [["wavlm-b", "hubert-a"]]}
    (folder / "plan.json").write_text(json.dumps(plan))
    stats_of_experiment(folder)
    after = json.loads((folder / "stats/home-on-home/stats.json").read_text())
    for key, rows, old in (
        ("pairs", after["pairs"], before["pairs"]),
        ("speaker_pairs", after["speakers"]["speaker_pairs"], before["speakers"]["speaker_pairs"]),
    ):
        for row, was in zip(rows, old, strict=True):
            assert row["planned"] == ({row["a"], row["b"]} == {"wavlm-b", "hubert-a"}), key
            assert row["p_holm"] == (pytest.approx(row["p"]) if row["planned"] else pytest.approx(was["p_holm"]))
    assert after["planned_contrasts"] == [["wavlm-b", "hubert-a"]]
    assert any(line.endswith("(Exploratory.)") for line in after["findings"])
    assert not any("No comparison was declared" in limit for limit in after["limits"])
    (folder / "plan.json").write_text(json.dumps(plan | {"contrasts": [["wavlm-b", "hubert"]]}))
    with pytest.raises(BadInput, match=r"contrasts: 'hubert' has no scores; there are hubert-a, wavlm-b, whisper-c"):
        stats_of_experiment(folder)
