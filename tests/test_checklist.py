"""The checklist for papers: ticked where the records answer, open where they do not."""

from pathlib import Path

import pytest

from ser_eval import run_folder
from ser_eval.checklist import checklist
from ser_eval.errors import BadInput
from ser_eval.evaluate import evaluate_experiment
from ser_scripts.cli import app
from tests import fabricated_runs as made


def line(text: str, title: str) -> str:
    (found,) = [line for line in text.splitlines() if f"**{title}" in line]
    return found


def edit(run: Path, **changes: object) -> None:
    file = run / "run.json"
    run_folder.write_json(file, run_folder.read_json(file) | changes)


@pytest.fixture
def folder(tmp_path):
    found = made.make_experiment(tmp_path / "runs")
    evaluate_experiment(found)
    return found


def test_the_records_answer_what_they_can(folder):
    text = checklist(folder)
    assert text == checklist(folder)
    assert line(text, "Test speakers apart") == (
        "- [x] **Test speakers apart**: yes: no test speaker is in training or validation of any run"
    )
    assert "angry, happy, neutral, sad (K = 4, guessing has UAR 0.250)" in line(text, "Classes")
    assert line(text, "Seeds") == "- [x] **Seeds**: 0, 1, 2"
    assert "hubert-a home home" in line(text, "UAR, mean and SD")
    assert "by val_uar on validation speakers" in line(text, "How the tested checkpoint")
    assert "commit abc1234" in line(text, "Code")
    assert "- [ ]" in line(text, "Consent and use")
    assert "- [ ]" in line(text, "Which difference is real")
    assert "- [ ]" in line(text, "How settings")
    done, whole = text.count("- [x]"), text.count("- [")
    assert f"{done} of {whole} points are answered by the records of 6 runs." in text


def test_what_must_not_pass_is_said(folder):
    one = folder / "hubert-a/home/seed-0"
    edit(one, speaker_dependent=True, code={"version": "0.1.0", "commit": None, "dirty": None}, not_comparable=True)
    run_folder.write_json(folder / "plan.json", {"runs": ["hubert-a/home/seed-0", "hubert-a/home/seed-9"]})
    text = checklist(folder)
    assert "NO: 1 of 6 runs test speakers that they trained on" in line(text, "Test speakers apart")
    assert line(text, "Code").startswith("- [ ]")
    assert line(text, "Runs that were planned") == (
        "- [ ] **Runs that were planned and are missing**: 1: hubert-a/home/seed-9"
    )
    assert "1 of 6 runs" in line(text, "Figures that are not comparable")


def test_folds_are_one_figure_with_all_of_its_speakers(tmp_path):
    folder = tmp_path / "runs" / "folds"
    home = made.corpus_clips("home")
    made.write_clips(folder, home)
    actors = sorted(set(home["actor"]))
    for place, actor in enumerate(actors):
        split = made.sides(home, test=(actor,), validation=(actors[place - 1],))
        test = split[split["split"] == "test"]
        told = made.prediction_table(
            test, made.answers(test["class_id"].tolist(), made.CLASSES, 0.7, place), made.CLASSES
        )
        made.write_run(
            folder, model="a", seed=0, split=split, tables={"home": told}, train_corpora=["home"],
            labels=made.CLASSES, fold=actor,
        )  # fmt: skip
    (cell,) = evaluate_experiment(folder).cells
    text = checklist(folder)
    assert f"home {cell.interval.low:.3f} to {cell.interval.high:.3f}" in line(text, "Interval over speakers")
    assert f"{len(actors)} different ones" in line(text, "Test speakers behind")


def test_what_is_derived_is_no_training_of_its_own(folder):
    for seed in range(3):
        edit(folder / f"wavlm-b/home/seed-{seed}", members={"hubert-a/home/seed-0": 1.0}, selected_by="its members",
             epochs_run=0, best_epoch=0, tuned_on=[{"corpus": "home", "actors": ["f9"]}])  # fmt: skip
    evaluate_experiment(folder)
    text = checklist(folder)
    assert "answered by the records of 3 runs and 3 derived from them." in text
    assert line(text, "Epochs").startswith("- [x] **Epochs**: 3 to 5, selected")
    assert "its members" not in line(text, "How the tested checkpoint")
    assert "earlier search" not in text
    page = (folder / "report/report.html").read_text(encoding="utf-8")
    assert "wavlm-b, trained on home" not in page, "a figure of a training that was none"
    assert "3 runs and 3 derived from them" in page


def test_it_needs_an_evaluation_of_these_runs(folder, tmp_path):
    with pytest.raises(BadInput, match="holds no finished run"):
        checklist(tmp_path)
    table = run_folder.read_table(folder / "results.csv", [])
    run_folder.write_table(folder / "results.csv", table[table["model"] != "wavlm-b"])
    with pytest.raises(BadInput, match="lacks the run wavlm-b/home/seed-0"):
        checklist(folder)
    (folder / "results.csv").unlink()
    with pytest.raises(BadInput, match="run `ser eval"):
        checklist(folder)


def test_the_command_prints_or_writes_it(folder, tmp_path, capsys):
    def here(*arguments):
        return app([str(argument) for argument in arguments], standalone_mode=False)

    here("report", folder, "--checklist", "--out", tmp_path / "list.md")
    assert capsys.readouterr().out == f"{tmp_path / 'list.md'}\n"
    here("report", folder, "--checklist")
    assert capsys.readouterr().out == (tmp_path / "list.md").read_text(encoding="utf-8")
    here("report", folder)
    assert capsys.readouterr().out.endswith("report/report.html\n")
    with pytest.raises(BadInput, match="--out goes with --checklist"):
        here("report", folder, "--out", tmp_path / "x")
