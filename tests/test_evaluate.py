"""Run folders made up for the purpose -> metrics.json, results.csv, folds.csv, shortcut baselines; checked by hand."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ser_eval.errors import BadInput
from ser_eval.evaluate import evaluate_experiment, evaluate_predictions
from ser_eval.run_folder import RESULT_COLUMNS, RESULT_KEYS, find_runs, read_json
from ser_eval.shortcuts import Fold, shortcut_baselines
from tests import fabricated_runs as made

AB = ("a", "b")


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The report has its own tests; without it these take a tenth of the time."""
    monkeypatch.setattr("ser_eval.report.write_report", lambda summary: summary.folder)


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def tiny(
    runs: Path, answers: list[str], *, truth: list[str] | None = None, actors: list[str] | None = None, **changes: Any
) -> Path:
    """One run whose four test clips (of f1, f1, m1, m1; a, b, a, b) get these answers."""
    train = made.corpus_clips("home", actors=("f2", "m2"), classes=AB)
    test = made.corpus_clips("home", actors=("f1", "m1"), classes=AB, repeats=1)
    if truth is not None:
        test["class_id"] = truth
    if actors is not None:
        test["actor"] = actors
    made.write_clips(runs / "e", train, test)
    split = pd.concat([train.assign(split="train"), test.assign(split="test")])
    made.write_run(
        runs / "e",
        model="m",
        seed=0,
        split=split,
        tables={"home": made.prediction_table(test, answers, AB)},
        train_corpora=["home"],
        labels=AB,
        **changes,
    )
    return runs / "e"


def test_one_run_by_hand(tmp_path: Path) -> None:
    folder = tiny(tmp_path, ["a", "b", "b", "b"])  # f1 all right, m1 takes a for b
    row = evaluate_experiment(folder).results.iloc[0]
    assert row["uar"] == 0.75
    assert row["uar_chance_corrected"] == 0.5
    assert row["accuracy"] == 0.75
    assert row["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert row["nll"] == pytest.approx(-(3 * np.log(0.7) + np.log(0.3)) / 4)
    assert row["brier"] == pytest.approx((3 * 2 * 0.3**2 + 2 * 0.7**2) / 4)
    assert row["ece"] == pytest.approx(0.05)  # confidence .7, accuracy .75
    assert (row["run"], row["fold"], row["condition"], row["augmentation"]) == ("m/home/seed-0", "none", "none", "none")
    assert (row["n_classes"], row["n_train"], row["n_test"], row["n_test_speakers"]) == (2, 12, 4, 2)
    assert row["protocol"] == "speaker_independent"

    scores = read(folder / "m/home/seed-0/metrics.json")["home"]
    assert scores["confusion"] == {"rows": ["a", "b"], "columns": ["a", "b"], "counts": [[1, 1], [0, 2]]}
    assert scores["per_class"]["a"] == {"precision": 1.0, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2}
    assert scores["per_gender"]["female"]["accuracy"] == 1
    assert scores["per_gender"]["male"]["confusion"] == [[0, 1], [0, 1]]
    assert scores["per_speaker"]["m1"] == {
        "gender": "male",
        "n": 2,
        "accuracy": 0.5,
        "uar_present": 0.5,
        "classes_present": ["a", "b"],
        "clips": [1, 1],
        "correct": [0, 1],
    }
    # UAR without f1 is .5, without m1 it is 1; SE = sqrt(1/2 * 2 * .25^2); t(.975, 1) = 12.7: all of [0, 1]
    assert scores["speaker_interval"]["standard_error"] == pytest.approx(0.25)
    assert (scores["speaker_interval"]["low"], scores["speaker_interval"]["high"]) == (0, 1)


def test_results_csv_has_the_columns_of_the_contract(tmp_path: Path) -> None:
    folder = made.make_experiment(tmp_path)
    evaluate_experiment(folder)
    table = pd.read_csv(folder / "results.csv")
    assert list(table.columns) == [*RESULT_KEYS, "architecture", *RESULT_COLUMNS]
    assert len(table) == 2 * 3 * 2
    assert not table.isna().any().any()
    assert set(table["architecture"]) == {"hubert", "wavlm"}
    keys = ["model", "augmentation", "train_corpus", "test_corpus", "condition", "seed", "fold"]
    assert table[keys].equals(table[keys].sort_values(keys, ignore_index=True))
    assert not table.duplicated(keys).any()
    assert not (folder / "folds.csv").exists()


def test_a_second_evaluation_writes_the_same_bytes_wherever_the_folder_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contents(folder: Path) -> dict[str, str]:
        files = [*folder.rglob("metrics.json"), *folder.glob("*.csv")]
        return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    folder = made.make_experiment(tmp_path / "one")
    evaluate_experiment(folder)
    first = contents(folder)
    shutil.copytree(folder, tmp_path / "two" / "made-up")
    monkeypatch.chdir(tmp_path)
    evaluate_experiment(Path("two/made-up"))
    assert contents(tmp_path / "two" / "made-up") == first
    assert len(first) == 6 + 3


def test_cross_corpus_is_over_the_shared_classes_unmasked(tmp_path: Path) -> None:
    """The model knows angry, happy, neutral, sad; `away` has angry, bored, neutral, sad."""
    folder = made.make_experiment(tmp_path, models=["m"], seeds=[0])
    run = folder / "m/home/seed-0"
    file = run / "predictions" / "away.csv"
    table = pd.read_csv(file, dtype={"actor": str})
    table["prediction"] = table["truth"].replace({"bored": "sad", "neutral": "happy"})  # neutral always taken for happy
    table["correct"] = (table["truth"] == table["prediction"]).astype(int)
    table.to_csv(file, index=False)
    summary = evaluate_experiment(folder)
    row = summary.results.set_index("test_corpus").loc["away"]
    assert row["protocol"] == "cross-corpus unmasked"
    assert row["n_classes"] == 3
    assert row["n_test"] == 12
    assert row["uar"] == pytest.approx(2 / 3)  # answering happy is an error, bored clips do not count
    assert row["uar_chance_corrected"] == pytest.approx((2 / 3 - 1 / 3) / (2 / 3))
    scores = read(run / "metrics.json")["away"]
    assert scores["labels"] == ["angry", "neutral", "sad"]
    assert scores["confusion"]["columns"] == ["angry", "neutral", "sad", "happy"]
    assert scores["confusion"]["counts"][1] == [0, 0, 0, 4]
    unknown = scores["unknown_labels"]["bored"]
    assert unknown == {"n": 4, "clips": [f"{actor}/bored-{n}.wav" for actor in ("f8", "m9") for n in (0, 1)]}
    assert any("bored (4)" in note for note in summary.notes)


def test_clips_that_training_left_out_of_a_further_corpus_are_accounted_for(tmp_path: Path) -> None:
    folder = made.make_experiment(tmp_path, models=["m"], seeds=[0])
    run = folder / "m/home/seed-0"
    record = read(run / "run.json")
    record["left_out"] = [
        {"corpus": "away", "path": "f8/calm-0.wav", "class_id": "calm"},
        {"corpus": "away", "path": "f8/bored-0.wav", "class_id": "bored"},  # predicted as well: counts once
        {"corpus": "home", "path": "f1/calm-0.wav", "class_id": "calm"},  # outside the task, not outside the model
    ]
    (run / "run.json").write_text(json.dumps(record))
    evaluate_experiment(folder)
    scores = read(run / "metrics.json")
    assert {label: account["n"] for label, account in scores["away"]["unknown_labels"].items()} == {
        "bored": 4,
        "calm": 1,
    }
    assert scores["away"]["unknown_labels"]["calm"]["clips"] == ["f8/calm-0.wav"]
    assert scores["home"]["unknown_labels"] == {}


def test_a_missing_class_leaves_the_uar_empty_and_is_told(tmp_path: Path) -> None:
    folder = tiny(tmp_path, ["a", "a", "b", "a"], truth=["a", "a", "a", "a"])
    summary = evaluate_experiment(folder)
    row = summary.results.iloc[0]
    assert np.isnan(row["uar"])
    assert np.isnan(row["uar_chance_corrected"])
    assert np.isnan(row["macro_f1"])
    assert row["accuracy"] == 0.75
    assert pd.read_csv(folder / "results.csv", dtype=str, keep_default_na=False).loc[0, "uar"] == ""
    scores = read(folder / "m/home/seed-0/metrics.json")["home"]
    assert scores["uar"] is None
    assert scores["uar_undefined"] == "no clips of b"
    assert scores["uar_present"] == 0.75
    assert scores["classes_present"] == ["a"]
    assert scores["per_class"]["b"]["recall"] is None
    assert scores["speaker_interval"] is None
    assert any("UAR is not defined, no clips of b" in note for note in summary.notes)
    assert summary.cells[0].mean_sd("uar") == (None, None)
    assert "UAR not defined" in summary.lines[0]


def loso(runs: Path, *, leave_away: set[tuple[int, str]] = frozenset(), seeds: tuple[int, ...] = (0,)) -> Path:
    """Leave-one-speaker-out over f1 (a and b), m1 (a and b), m2 (only a); m1 is wrong about b, m2 about one a."""
    clips = made.corpus_clips("home", actors=("f1", "m1", "m2"), classes=AB, repeats=2, without=[("m2", "b")])
    answers = {"f1": ["a", "a", "b", "b"], "m1": ["a", "a", "a", "a"], "m2": ["a", "b"]}
    made.write_clips(runs / "e", clips)
    for seed in seeds:
        for actor in sorted({"f1", "m1", "m2"} - {name for s, name in leave_away if s == seed}):
            split = made.sides(clips, test=[actor], validation=["f1" if actor == "m2" else "m2"])
            test = split[split["split"] == "test"]
            made.write_run(
                runs / "e",
                model="m",
                seed=seed,
                fold=actor,
                split=split,
                tables={"home": made.prediction_table(test, answers[actor], AB)},
                train_corpora=["home"],
                labels=AB,
            )
    return runs / "e"


def test_folds_are_pooled_into_one_confusion_matrix(tmp_path: Path) -> None:
    folder = loso(tmp_path, seeds=(0, 1))
    summary = evaluate_experiment(folder)
    assert len(summary.results) == 2
    row = summary.results.iloc[0]
    # a: 2 + 2 + 1 of 6, b: 2 + 0 of 4; the mean of the folds over classes present would be (1 + .5 + .5) / 3
    assert row["uar"] == pytest.approx((5 / 6 + 2 / 4) / 2)
    assert (row["run"], row["fold"], row["protocol"]) == ("m/home/seed-0", "all", "leave_one_speaker_out pooled")
    assert (row["n_test"], row["n_test_speakers"]) == (10, 3)
    assert row["n_train"] == 4
    checksums = [read(folder / f"m/home/seed-0-fold-{a}/run.json")["split_sha256"] for a in ("f1", "m1", "m2")]
    assert row["split_sha256"] == hashlib.sha256("".join(f"{c}\n" for c in checksums).encode()).hexdigest()

    folds = pd.read_csv(folder / "folds.csv", keep_default_na=False).query("seed == 0").set_index("fold")
    assert list(folds.index) == ["f1", "m1", "m2"]
    assert folds.loc["m2", "uar"] == ""
    assert folds.loc["m2", "uar_present"] == 0.5
    assert folds.loc["m2", "classes_present"] == "a"
    assert folds.loc["m1", "classes_present"] == "a b"
    assert set(folds["protocol"]) == {"leave_one_speaker_out single fold"}
    cell = summary.cells[0]
    assert cell.counts.tolist() == [[10, 2], [4, 4]]
    assert cell.num_speakers == 3


def test_a_seed_with_missing_folds_is_told_and_not_pooled(tmp_path: Path) -> None:
    folder = loso(tmp_path, seeds=(0, 1), leave_away={(1, "m1")})
    summary = evaluate_experiment(folder)
    assert summary.results["seed"].tolist() == [0]
    assert summary.folds["seed"].tolist() == [0, 0, 0, 1, 1]
    assert any("m/home/seed-1" in note and "home/m1 never tested" in note for note in summary.notes)
    assert summary.cells[0].counts.sum() == 10


def test_every_fold_of_a_further_corpus_counts_its_clips_once(tmp_path: Path) -> None:
    folder = loso(tmp_path)
    away = made.corpus_clips("away", actors=("f7", "m8"), classes=AB, repeats=1)
    home = made.corpus_clips("home", actors=("f1", "m1", "m2"), classes=AB, repeats=2)
    made.write_clips(folder, home, away)
    for number, run in enumerate(sorted(folder.glob("m/home/*"))):
        answers = ["a", "b", "a", "b"] if number else ["b", "b", "b", "b"]
        made.prediction_table(away, answers, AB).to_csv(run / "predictions" / "away.csv", index=False)
    row = evaluate_experiment(folder).results.set_index("test_corpus").loc["away"]
    assert row["uar"] == pytest.approx((4 / 6 + 6 / 6) / 2)
    assert row["n_test"] == 4
    assert row["protocol"] == "cross-corpus pooled"
    (folder / "m/home/seed-0-fold-f1/predictions/away.csv").unlink()
    with pytest.raises(BadInput, match=r"1 fold\(s\) lack the predictions for away"):
        evaluate_experiment(folder)


@pytest.mark.parametrize(
    ("changes", "actors", "protocol"),
    [
        ({"split_kind": "random", "speaker_dependent": True}, None, "random SPEAKER-DEPENDENT NOT COMPARABLE"),
        ({"not_comparable": True}, None, "speaker_independent NOT COMPARABLE"),
        ({"speakers_unknown": True}, [""] * 4, "speaker_independent SPEAKERS UNKNOWN"),
        ({"seen_corpora": ["IEMOCAP", "Ho-Me"]}, None, "speaker_independent SEEN IN PRETRAINING"),
    ],
)
def test_stamps(tmp_path: Path, changes: dict[str, Any], actors: list[str] | None, protocol: str) -> None:
    folder = tiny(tmp_path, ["a", "b", "b", "b"], actors=actors, **changes)
    summary = evaluate_experiment(folder)
    assert summary.results["protocol"].tolist() == [protocol]
    stamps = summary.cells[0].stamps
    assert stamps
    assert all(f"[{stamp}]" in summary.lines[0] for stamp in stamps)


def test_speakers_unknown_have_no_interval_and_no_number(tmp_path: Path) -> None:
    folder = tiny(tmp_path, ["a", "b", "b", "b"], actors=[""] * 4, speakers_unknown=True)
    summary = evaluate_experiment(folder)
    scores = read(folder / "m/home/seed-0/metrics.json")["home"]
    assert scores["n_speakers"] is None
    assert scores["per_speaker"] == {}
    assert (scores["speaker_interval"], scores["speaker_interval_undefined"]) == (None, "speakers unknown")
    assert summary.cells[0].interval is None
    assert pd.read_csv(folder / "results.csv")["n_test_speakers"].isna().all()


def test_conditions_of_a_test_corpus_are_rows_of_their_own(tmp_path: Path) -> None:
    folder = tiny(tmp_path, ["a", "b", "b", "b"])
    predictions = folder / "m/home/seed-0/predictions"
    shutil.copy(predictions / "home.csv", predictions / "home@telephone.csv")
    summary = evaluate_experiment(folder)
    assert summary.results["condition"].tolist() == ["none", "telephone"]
    assert set(read(folder / "m/home/seed-0/metrics.json")) == {"home", "home@telephone"}
    assert len(summary.cells) == 2


def test_cells_pool_seeds_and_speakers(tmp_path: Path) -> None:
    folder = made.make_experiment(tmp_path, models=["m"])
    summary = evaluate_experiment(folder)
    cell = next(cell for cell in summary.cells if cell.test_corpus == "home")
    uars = summary.results.query("test_corpus == 'home'")["uar"]
    assert cell.mean_sd("uar") == (pytest.approx(uars.mean()), pytest.approx(uars.std(ddof=1)))
    assert cell.counts.sum() == 3 * 24
    assert cell.num_speakers == 6
    assert cell.gender_speakers == {"female": 3, "male": 3}
    assert cell.interval is not None
    assert cell.interval.num_speakers == 6
    # Every seed tests as many clips of each class, so that pooling gives the mean over seeds.
    assert cell.pooled_uar == pytest.approx(uars.mean())
    assert (cell.interval.low + cell.interval.high) / 2 == pytest.approx(cell.pooled_uar, abs=0.05)


def test_one_unknown_speaker_in_one_seed_leaves_no_interval(tmp_path: Path) -> None:
    folder = made.make_experiment(tmp_path, models=["m"])
    file = folder / "m/home/seed-1/predictions/home.csv"
    table = pd.read_csv(file)
    table.loc[0, "actor"] = ""
    table.to_csv(file, index=False)
    cell = next(cell for cell in evaluate_experiment(folder).cells if cell.test_corpus == "home")
    assert (cell.interval, cell.num_speakers) == (None, None)


def test_few_shot_is_a_protocol_of_its_own(tmp_path: Path) -> None:
    folder = made.make_experiment(tmp_path, models=["m"], seeds=[0])
    run = folder / "m/home/seed-0"
    split = pd.read_csv(run / "split.csv", dtype=str)
    split["split"] = split["split"].mask(split["path"].str.startswith("f8"), "train")
    split.to_csv(run / "split.csv", index=False)
    table = pd.read_csv(run / "predictions/away.csv", dtype=str)
    table[~table["path"].str.startswith("f8")].to_csv(run / "predictions/away.csv", index=False)
    protocols = evaluate_experiment(folder).results.set_index("test_corpus")["protocol"]
    assert protocols["away"] == "cross-corpus few-shot unmasked"
    assert protocols["home"] == "speaker_independent"


def test_missing_runs_come_from_the_plan(tmp_path: Path) -> None:
    folder = tiny(tmp_path, ["a", "b", "b", "b"])
    assert evaluate_experiment(folder).missing == []
    (folder / "plan.json").write_text(json.dumps({"runs": ["m/home/seed-0", "m/home/seed-2", "m/home/seed-1"]}))
    summary = evaluate_experiment(folder)
    assert summary.missing == ["m/home/seed-1", "m/home/seed-2"]
    assert any("2 planned run(s)" in line for line in summary.lines)
    (folder / "plan.json").write_text('["m/home/seed-0"]')
    with pytest.raises(BadInput, match=r"plan\.json: expected"):
        evaluate_experiment(folder)


def _edit_predictions(folder: Path, **columns: Any) -> None:
    file = folder / "m/home/seed-0/predictions/home.csv"
    pd.read_csv(file).assign(**columns).to_csv(file, index=False)


def test_broken_run_folders_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="holds no finished run"):
        evaluate_experiment(tmp_path)

    def fresh() -> Path:
        shutil.rmtree(tmp_path / "e", ignore_errors=True)
        return tiny(tmp_path, ["a", "b", "b", "b"])

    folder = fresh()
    (folder / "clips.csv").unlink()
    with pytest.raises(BadInput, match=r"clips\.csv: no such file"):
        evaluate_experiment(folder)
    folder = fresh()
    clips = pd.read_csv(folder / "clips.csv")
    clips.iloc[1:].to_csv(folder / "clips.csv", index=False)
    with pytest.raises(BadInput, match=f"lacks 1 clip.*home/{clips.iloc[0]['path']}"):
        evaluate_experiment(folder)
    clips.assign(rms_db="-inf").to_csv(folder / "clips.csv", index=False)
    with pytest.raises(BadInput, match=r"rms_db of home/.* is '-inf', no finite number"):
        evaluate_experiment(folder)
    for columns, text in (
        ({"correct": 1}, "'correct' contradicts truth and prediction of m1/a-0.wav"),
        ({"prediction": "z", "correct": 0}, r"prediction\(s\) z are none of the model's labels a, b"),
        ({"path": "f1/a-0.wav"}, r"hold f1/a-0\.wav twice"),
        ({"p_a": 0.9}, "no distribution"),
        ({"p_c": 0.0}, r"have the labels \['a', 'b', 'c'\]; run.json says \['a', 'b'\]"),
    ):
        folder = fresh()
        _edit_predictions(folder, **columns)
        with pytest.raises(BadInput, match=text):
            evaluate_experiment(folder)


def only_sad(run: Path) -> None:
    """Make `away` a corpus that shares one class with the model."""
    split = pd.read_csv(run / "split.csv", dtype=str, keep_default_na=False)
    split = split[(split["corpus"] != "away") | (split["class_id"] == "sad")]
    split.to_csv(run / "split.csv", index=False)
    table = pd.read_csv(run / "predictions" / "away.csv").query("truth == 'sad'")
    table.to_csv(run / "predictions" / "away.csv", index=False)


def test_a_corpus_that_shares_no_two_classes_has_no_row_and_the_others_have(tmp_path: Path) -> None:
    folder = made.make_experiment(tmp_path, models=["m"], seeds=[0, 1])
    only_sad(folder / "m/home/seed-0")
    summary = evaluate_experiment(folder)
    rows = summary.results[["test_corpus", "seed"]].to_numpy().tolist()
    assert rows == [["away", 1], ["home", 0], ["home", 1]]
    assert set(read(folder / "m/home/seed-0/metrics.json")) == {"home"}
    text = "m/home/seed-0: NOT SCORED on away: the corpus shares sad with the model's labels angry, happy, neutral, sad"
    assert any(note.startswith(text) for note in summary.notes)
    assert any(text in line for line in summary.lines)


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (lambda t: t.iloc[:-3], r"predictions/home\.csv does not hold .*: 3 missing, e\.g\. home/m1/sad-0\.wav"),
        (lambda t: pd.concat([t, t.head(1).assign(path="z.wav")]), r"1 extra, e\.g\. home/z\.wav"),
        (lambda t: t.assign(corpus="other"), r"24 missing, e\.g\. .*; 24 extra, e\.g\. other/"),
        (
            lambda t: t.assign(truth=t["prediction"], correct=1),
            r"\d+ of another class, e\.g\. home/.*; delete the run folder and train again",
        ),
    ],
)
def test_predictions_must_be_of_the_test_clips_of_the_split(tmp_path: Path, edit: Any, text: str) -> None:
    folder = made.make_experiment(tmp_path, models=["m"], seeds=[0])
    file = folder / "m/home/seed-0/predictions/home.csv"
    edit(pd.read_csv(file)).to_csv(file, index=False)
    with pytest.raises(BadInput, match=text):
        evaluate_experiment(folder)


def test_so_must_those_of_a_further_corpus_that_the_split_tests_but_no_other(tmp_path: Path) -> None:
    folder = made.make_experiment(tmp_path, models=["m"], seeds=[0])
    run = folder / "m/home/seed-0"
    away = run / "predictions/away.csv"
    table = pd.read_csv(away)
    table.iloc[1:].to_csv(away, index=False)
    with pytest.raises(BadInput, match=r"away\.csv does not hold .* 1 missing"):
        evaluate_experiment(folder)
    away.unlink()
    with pytest.raises(BadInput, match=r"away\.csv: no such file, but split\.csv has test clips of away"):
        evaluate_experiment(folder)
    table.iloc[1:].to_csv(away, index=False)  # predicted later: split.csv says nothing about it
    split = pd.read_csv(run / "split.csv", dtype=str, keep_default_na=False)
    split[split["corpus"] == "home"].to_csv(run / "split.csv", index=False)
    assert len(evaluate_experiment(folder).results) == 2


def _cut(file: Path) -> None:
    file.write_text(file.read_text().rstrip("\n").rpartition(",")[0])


def _swap(old: str, new: str) -> Callable[[Path], None]:
    def edit(file: Path) -> None:
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return edit


RUN_AGAIN = "the run folder is damaged: delete it and train again"


@pytest.mark.parametrize(
    ("name", "edit", "text"),
    [
        ("predictions/home.csv", lambda f: f.write_text(""), "is empty"),
        ("predictions/home.csv", lambda f: f.write_bytes(b"\x80\x00\xff"), "is not a CSV table in UTF-8"),
        ("predictions/home.csv", _cut, "line 5: 8 fields, but the header has 9"),
        ("predictions/home.csv", _swap("0.7", "x"), "p_a = 'x' is no finite number"),
        ("predictions/home.csv", _swap(",1,", ",2,"), "correct of .* is '2', neither 0 nor 1"),
        ("predictions/home.csv", lambda f: f.unlink(), "no such file"),
        ("split.csv", _cut, "fields, but the header has 7"),
        ("history.csv", lambda f: f.unlink(), "no such file"),
        ("history.csv", lambda f: f.write_text(""), "is empty"),
        ("history.csv", lambda f: f.write_text("a,b\n1,2\n"), "lacks the column"),
        ("history.csv", lambda f: f.write_text(f.read_text().partition("\n")[0] + "\n"), "holds no rows"),
        ("history.csv", _swap("1.4,", "high,"), "train_loss = 'high' is no finite number"),
        ("spec.json", lambda f: f.unlink(), "no such file"),
        ("spec.json", lambda f: f.write_text("[]"), "holds no JSON object"),
        ("run.json", lambda f: f.write_text("{}"), "lacks experiment, .*train_corpora.*"),
        ("run.json", lambda f: f.write_text("[]"), "holds no JSON object"),
        ("run.json", lambda f: f.write_bytes(b'{"a": "\xff"}'), "is not in UTF-8"),
        ("run.json", lambda f: f.write_text("{"), "is not valid JSON: line 1"),
    ],
)
def test_damaged_files_are_named_with_the_remedy(
    tmp_path: Path, name: str, edit: Callable[[Path], None], text: str
) -> None:
    folder = tiny(tmp_path, ["a", "b", "b", "b"])
    file = folder / "m/home/seed-0" / name
    edit(file)
    # The report is left out here, and the history is its matter.
    read_all = (
        (lambda: find_runs(folder)[0].history()) if name == "history.csv" else lambda: evaluate_experiment(folder)
    )
    with pytest.raises(BadInput, match=f"{re.escape(str(file))}.*{text}.*{RUN_AGAIN}"):
        read_all()


def test_a_history_may_hold_a_loss_that_is_no_number(tmp_path: Path) -> None:
    folder = tiny(tmp_path, ["a", "b", "b", "b"])
    _swap("1.4,", "nan,")(folder / "m/home/seed-0/history.csv")
    (run,) = find_runs(folder)
    assert run.history()["train_loss"].isna().tolist() == [True, False, False]


def test_an_older_clips_csv_says_what_writes_it_anew(tmp_path: Path) -> None:
    folder = tiny(tmp_path, ["a", "b", "b", "b"])
    pd.read_csv(folder / "clips.csv").drop(columns="audio_sha256").to_csv(folder / "clips.csv", index=False)
    with pytest.raises(BadInput, match=r"clips\.csv lacks .*audio_sha256;.*run `ser train` again"):
        evaluate_experiment(folder)


def test_json_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "x.json") == {"a": 1}


def test_predictions_of_anybody(tmp_path: Path) -> None:
    clips = made.corpus_clips("c", classes=("a", "b", "c"), repeats=1)
    table = made.prediction_table(clips, clips["class_id"].tolist(), ("a", "b", "c"))
    scores = evaluate_predictions(table, ["a", "b"])
    assert scores["uar"] == 1
    assert scores["n"] == 12
    assert scores["unknown_labels"]["c"]["n"] == 6
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    with pytest.raises(BadInput, match="no probability column of z"):
        evaluate_predictions(table, ["a", "z"])
    with pytest.raises(BadInput, match="two distinct labels"):
        evaluate_predictions(table, ["a"])


def _baselines(train: pd.DataFrame, test: pd.DataFrame, labels: tuple[str, ...] = AB) -> dict[str, float]:
    clips = pd.concat([train, test]).set_index(["corpus", "path"])
    test = test.assign(truth=test["class_id"])
    rows = shortcut_baselines(
        [Fold(pd.concat([train.assign(split="train"), test.assign(split="test")]), test)],
        clips,
        labels=labels,
        model_labels=labels,
        train_corpora=["home"],
        source=Path("clips.csv"),
    )
    return {row["baseline"]: row["uar"] for row in rows}


def test_shortcuts_find_what_is_there_and_nothing_else() -> None:
    train = made.corpus_clips("home", actors=("f1", "m1"), classes=AB, repeats=4)
    test = made.corpus_clips("home", actors=("f2",), classes=AB, repeats=4)
    for table in (train, test):
        table["duration_seconds"], table["rms_db"] = 2.0, -20.0 - np.tile([0, 1, 2, 3], len(table) // 4)
        table["silence_share"] = np.tile([0.1, 0.2, 0.3, 0.4], len(table) // 4)
    found = _baselines(train, test)
    assert found == {"majority": 0.5, "duration_loudness": 0.5, "silence_share": 0.5, "sentence": 0.5}
    for table in (train, test):  # b is longer: the length alone gives it away
        table["duration_seconds"] = np.where(table["class_id"] == "b", 3.0, 2.0)
    assert _baselines(train, test)["duration_loudness"] == 1
    assert _baselines(train, test)["silence_share"] == 0.5
    for table in (train, test):  # b was cut with longer pauses around it
        table["silence_share"] = np.where(table["class_id"] == "b", 0.4, 0.1)
        table["duration_seconds"] = 2.0
    assert _baselines(train, test)["silence_share"] == 1
    assert _baselines(train, test)["duration_loudness"] == 0.5
    for table in (train, test):  # one sentence per class
        table["sentence"] = table["class_id"].map({"a": "s1", "b": "s2"})
    assert _baselines(train, test)["sentence"] == 1
    train.loc[train.index[0], "sentence"] = ""
    assert "sentence" not in _baselines(train, test)


def test_shortcuts_learn_from_training_clips_only() -> None:
    """Lengths that tell the classes apart in the test clips alone must not help."""
    train = made.corpus_clips("home", actors=("f1", "m1"), classes=AB, repeats=4).assign(duration_seconds=2.0)
    train["rms_db"] = np.tile([-20.0, -21.0, -22.0, -23.0], 4)
    test = made.corpus_clips("home", actors=("f2",), classes=AB, repeats=4)
    test["duration_seconds"] = np.where(test["class_id"] == "b", 3.0, 2.0)
    test["rms_db"] = -21.5
    assert _baselines(train, test)["duration_loudness"] == 0.5


def test_majority_is_one_over_k_where_a_class_is_most_frequent() -> None:
    train = made.corpus_clips("home", actors=("f1", "f3"), classes=("a", "b", "c"), without=[("f3", "a"), ("f3", "b")])
    test = made.corpus_clips("home", actors=("f2",), classes=("a", "b", "c"))
    assert _baselines(train, test, ("a", "b", "c"))["majority"] == pytest.approx(1 / 3)


def test_shortcuts_are_of_the_same_split_and_classes_as_the_model(tmp_path: Path) -> None:
    folder = made.make_experiment(tmp_path)
    summary = evaluate_experiment(folder)
    table = summary.shortcuts
    keys = ["train_corpus", "test_corpus", "split_sha256"]
    pairs = set(map(tuple, summary.results[[*keys, "n_classes", "n_test"]].to_numpy()))
    assert pairs == set(map(tuple, table[[*keys, "n_classes", "n_test"]].to_numpy()))
    assert not table.duplicated([*keys, "baseline"]).any()
    majority = table[table["baseline"] == "majority"]
    assert np.allclose(majority["uar"], 1 / majority["n_classes"])
    away = table[table["test_corpus"] == "away"]
    assert set(away["baseline"]) == {"majority", "duration_loudness", "silence_share"}
    cell = next(cell for cell in summary.cells if cell.model == "wavlm-b" and cell.test_corpus == "away")
    assert cell.best_shortcut is not None
    assert cell.beats_shortcuts is (cell.mean_sd("uar")[0] > cell.best_shortcut[1])


def test_a_corpus_without_high_frequencies_is_stamped_wherever_it_trains_or_is_tested(tmp_path: Path) -> None:
    folder = made.make_experiment(tmp_path)
    assert not any(cell.stamps for cell in evaluate_experiment(folder).cells)
    clips = pd.read_csv(folder / "clips.csv")
    clips.loc[clips["corpus"] == "away", "bandwidth_hz"] = 5400.0
    clips.to_csv(folder / "clips.csv", index=False)
    summary = evaluate_experiment(folder)
    assert {cell.test_corpus: cell.stamps for cell in summary.cells} == {"home": [], "away": ["BAND-LIMITED"]}
    assert summary.bandwidth_hz == {"away": 5400.0, "home": 8000.0}
    scores = json.loads((summary.runs[0].path / "metrics.json").read_text())
    assert scores["away"]["protocol"].endswith(" BAND-LIMITED")
    assert "BAND" not in scores["home"]["protocol"]
    assert any("away" in line and "[BAND-LIMITED]" in line for line in summary.lines)
    clips["bandwidth_hz"] = np.where(clips["corpus"] == "home", 6999.0, 8000.0)
    clips.to_csv(folder / "clips.csv", index=False)
    assert all(cell.stamps == ["BAND-LIMITED"] for cell in evaluate_experiment(folder).cells)
