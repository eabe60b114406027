"""What the report says of settings that trials or sides have chosen."""

import html
import re
from pathlib import Path
from typing import Any

import pytest

from ser_eval import run_folder
from ser_eval.checklist import checklist
from ser_eval.chosen import card_lines, choices
from ser_eval.evaluate import evaluate_experiment
from ser_eval.run_folder import find_runs
from tests import fabricated_runs as made

SEARCH: dict[str, Any] = {
    "scope": "nested",
    "sampler": "tpe",
    "metric": "val_uar",
    "amount_of_training_data": 0.5,
    "parameters": ["head.dropout", "training.learning_rate"],
    "num_trials": 20,
    "completed": 15,
    "pruned": 4,
    "failed": 1,
    "best_trial": 7,
    "best_value": 0.8125,
    "values": {"training.learning_rate": 0.00123456, "head.dropout": 0.25},
    "seconds": 1800.0,
}


def edit(run: Path, **changes: Any) -> None:
    file = run / "run.json"
    run_folder.write_json(file, run_folder.read_json(file) | changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """hubert-a was searched inside each split, wavlm-b is as its file says."""
    found: Path = made.make_experiment(tmp_path / "runs")
    for seed in range(3):
        study = f"search/hubert-a/home/seed-{seed}"
        edit(found / f"hubert-a/home/seed-{seed}", search=SEARCH | {"study": study}, tuned_on=[])
    return found


def words(folder: Path) -> str:
    page = (folder / "report/report.html").read_text(encoding="utf-8")
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", page)).split())


def test_a_search_stands_in_the_report_the_card_and_the_checklist(folder: Path) -> None:
    said = (
        "hubert-a: 60 trials in 3 studies (12 pruned, 3 failed) over head.dropout, training.learning_rate, drawn by "
        "TPE, each looking at those before it, compared by val_uar, trained on 50% of the training speakers; nested: "
        "one study inside each split; no test speaker of a split takes part in its study; 1.50 hours"
    )
    assert card_lines(folder, find_runs(folder)) == [said]
    evaluate_experiment(folder)
    text = words(folder)
    assert f"Settings chosen by {said}" in text
    assert "seed 2 head.dropout 0.25, training.learning_rate 0.00123 0.812 trial 7 of 20" in text
    (line,) = [line for line in checklist(folder).splitlines() if "How settings" in line]
    assert line.startswith("- [ ]")  # those of wavlm-b are not known
    assert said in line
    assert line.endswith("say how those of wavlm-b were, and on which clips")


def test_the_picture_of_the_first_study_is_shown(folder: Path) -> None:
    evaluate_experiment(folder)
    before = (folder / "report/report.html").read_text(encoding="utf-8").count("data:image/png")
    picture = folder / "search/hubert-a/home/seed-1/study.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes((folder / "report/figures").glob("*.png").__next__().read_bytes())
    evaluate_experiment(folder)
    page = (folder / "report/report.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == before + 1
    assert "The first of 3 studies" in page


def test_a_locked_search_is_one_study_of_all_seeds(folder: Path) -> None:
    for seed in range(3):
        locked = SEARCH | {"study": "search/hubert-a/home/locked", "scope": "locked", "amount_of_training_data": 1.0}
        edit(folder / f"hubert-a/home/seed-{seed}", search=locked)
    (line,) = card_lines(folder, find_runs(folder))
    assert "20 trials in 1 study (4 pruned, 1 failed)" in line
    assert "locked: one study for all seeds, whose test speakers were set aside before it" in line
    assert "training speakers" not in line


def test_settings_of_an_earlier_search_name_whom_they_were_tuned_on(folder: Path) -> None:
    for seed in range(3):
        tuned = [{"corpus": "away", "actors": ["f8", "m9"], "manifest_sha256": "0" * 64}]
        edit(folder / f"hubert-a/home/seed-{seed}", search=None, tuned_on=tuned)
    lines = card_lines(folder, find_runs(folder))
    assert lines == [
        "hubert-a: by an earlier search, whose trials 2 speakers of away trained or scored; nobody who is tested is "
        "among them"
    ]


def test_grids_and_layers_are_counted(folder: Path) -> None:
    for seed in range(3):
        edit(folder / f"hubert-a/home/seed-{seed}", search=None, settings_tried=12, layer=seed // 2,
             setting={"kind": "rbf_svm", "C": 10.0, "gamma": "scale"}, selected_by="inner_uar")  # fmt: skip
        run = folder / f"wavlm-b/home/seed-{seed}"
        edit(run, layer=3)
        spec = run_folder.read_json(run / "spec.json")
        run_folder.write_json(run / "spec.json", spec | {"model": {"layers": {"use": "search"}}})
    grid, layers = choices(folder, find_runs(folder))
    assert grid.words == "one of 12 settings per run, by the UAR of left-out training speakers; test clips take no part"
    assert grid.rows == (
        ("2 runs", "layer 0, C 10, gamma scale", "", "12"),
        ("1 run", "layer 1, C 10, gamma scale", "", "12"),
    )
    assert layers.words == "the hidden state per run, by the UAR of the validation side; test clips take no part"
    assert layers.rows == (("3 runs", "layer 3", "", "every layer"),)


def test_nothing_chosen_is_said(tmp_path: Path) -> None:
    folder = made.make_experiment(tmp_path / "runs")
    assert choices(folder, find_runs(folder)) == []
    evaluate_experiment(folder)
    assert "nothing that these runs know of: they stand in the model files as they are" in words(folder)


def test_a_short_search_by_tpe_is_told_as_random(folder: Path) -> None:
    for seed in range(3):
        study = f"search/hubert-a/home/seed-{seed}"
        edit(folder / f"hubert-a/home/seed-{seed}", search=SEARCH | {"study": study, "num_trials": 10})
    (line,) = card_lines(folder, find_runs(folder))
    assert "drawn at random, compared by" in line
