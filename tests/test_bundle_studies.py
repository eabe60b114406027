"""Searches in a bundle: all of them are packed, and a study that was tampered with is found, although checksums fit."""

import hashlib
import json
import shutil
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ser_eval.run_folder import find_runs, read_json, write_json
from ser_scripts.runs.bundle_studies import check_studies
from tests.conftest import TINY_MODEL
from tests.tiny import ser

pytest.importorskip("rocrate", reason="`ser bundle` writes its metadata with rocrate")
STUDY = "search/tiny/mini/seed-0"


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, small_corpus: dict[str, str], tiny_whisper: Path) -> Path:
    """An evaluated experiment of two seeds, each with a search of its own."""
    place = tmp_path_factory.mktemp("searched")
    model = {
        **TINY_MODEL,
        "encoder": {"model_path_or_name": str(tiny_whisper), "frozen": True},
        "freeze": {"cnn": True},
        "head": {"kind": "mlp", "hidden": 16},
        "layers": {"use": 1},
        "training": {**TINY_MODEL["training"], "epochs": 3, "learning_rate": 1e-2, "select": "val_loss"},
    }
    experiment = {
        "name": "mini",
        "train": [small_corpus],
        "models": ["tiny"],
        "split": {"kind": "speaker_independent"},
        "seeds": [0, 1],
        "search": {
            "parameters": {
                "training.learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True},
                "head.dropout": {"kind": "float", "low": 0, "high": 0.5},
            },
            "num_trials": 3,
            "metric": "val_loss",
        },
    }
    (place / "tiny.json").write_text(json.dumps(model))
    (place / "mini.json").write_text(json.dumps(experiment))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SER_RUNS", str(place / "runs"))
        patch.setenv("SER_CACHE", str(place / "cache"))
        patch.delenv("SER_MODELS", raising=False)
        patch.chdir(place)
        assert ser("train", "mini.json", "--device", "cpu") == 0
        assert ser("eval", "mini.json") == 0
        assert ser("bundle", "mini.json") == 0
    return place


@pytest.fixture
def unpacked(searched: Path, tmp_path: Path) -> Path:
    """Its bundle, unpacked where a test may spoil it."""
    with zipfile.ZipFile(searched / "mini-bundle.zip") as archive:
        archive.extractall(tmp_path / "there")
    return tmp_path / "there/mini"


def seal(bundle: Path) -> None:
    """Write the checksums again, as somebody would who has changed a file."""
    files = sorted(file for file in bundle.rglob("*") if file.is_file() and file.name != "SHA256SUMS")
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(bundle).as_posix()}" for file in files
    ]
    (bundle / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def edit(file: Path, change: Callable[[Any], object]) -> None:
    content = read_json(file)
    change(content)
    write_json(file, content)


def test_a_bundle_has_the_studies_and_checks_them(
    unpacked: Path, searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = unpacked / "runs/mini" / STUDY
    assert {file.name for file in study.iterdir()} == {
        "study.json", "study.db", "trials.csv", "result.json", "study.png"
    }  # fmt: skip
    for file in study.iterdir():
        assert file.read_bytes() == (searched / "runs/mini" / STUDY / file.name).read_bytes()
    crate = {entity["@id"]: entity for entity in read_json(unpacked / "ro-crate-metadata.json")["@graph"]}
    assert crate[f"runs/mini/{STUDY}/study.db"]["encodingFormat"] == "application/vnd.sqlite3"
    assert "`search/`" in (unpacked / "README.md").read_text()
    before = {file: file.read_bytes() for file in unpacked.rglob("*") if file.is_file()}
    capsys.readouterr()
    assert ser("reproduce", unpacked) == 0
    told = capsys.readouterr().out
    for seed in (0, 1):
        assert f"search/tiny/mini/seed-{seed}/trials.csv: identical" in told
        assert f"search/tiny/mini/seed-{seed}/result.json: identical" in told
        assert f"search/tiny/mini/seed-{seed}: settings and listeners of 1 run: equal" in told
    assert told.endswith("reproduced\n")
    assert before == {file: file.read_bytes() for file in unpacked.rglob("*") if file.is_file()}


def set_value(file: Path, **values: Any) -> None:
    edit(file, lambda content: content.update(values))


def better_trial(runs: Path) -> None:
    """The second trial claims a score that it did not have, in table and database."""
    with sqlite3.connect(runs / STUDY / "study.db") as database:
        database.execute("update trial_values set value = 0.001 where trial_id = (select max(trial_id) from trials)")
    database.close()


def other_settings(runs: Path) -> None:
    file = runs / "tiny/mini/seed-0/spec.json"
    edit(file, lambda content: content["model"]["head"].update(dropout=0.4321))


def other_unsearched_setting(runs: Path) -> None:
    for file in runs.glob("tiny/mini/*/spec.json"):
        edit(file, lambda content: content["model"]["training"].update(batch_size=4))


def a_test_speaker_heard(runs: Path) -> None:
    actor = next(
        line.split(",")[3]
        for line in (runs / "tiny/mini/seed-0/split.csv").read_text().splitlines()
        if line.endswith(",test")
    )
    for file in (runs / STUDY / "result.json", runs / "tiny/mini/seed-0/run.json"):
        edit(file, lambda content: content["tuned_on"][0]["actors"].append(actor))


def other_sides(runs: Path) -> None:
    file = runs / "tiny/mini/seed-0/split.csv"
    lines = file.read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.endswith(",validation"))
    lines[first] = lines[first].removesuffix("validation") + "train"
    file.write_text("\n".join(lines) + "\n")


def of_the_other_seed(runs: Path) -> None:
    shutil.rmtree(runs / STUDY)
    shutil.copytree(runs / "search/tiny/mini/seed-1", runs / STUDY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda runs: set_value(runs / STUDY / "result.json", best_value=0.01), "result.json: DIFFERENT (best_value"),
        (lambda runs: set_value(runs / STUDY / "result.json", best_trial=7), "best_trial: 7, now"),
        (better_trial, "trials.csv: DIFFERENT"),
        (other_settings, "spec.json: model.head.dropout: 0.4321, now"),
        (other_unsearched_setting, "spec.json: model.training.batch_size: 4, now"),
        (
            lambda runs: edit(runs / "tiny/mini/seed-0/run.json", lambda run: run["search"].update(num_trials=2)),
            "run.json: search.completed: 3, now 2",
        ),
        (a_test_speaker_heard, "trials heard speakers whom it tests: mini/"),
        (other_sides, "split.csv: not the clips that the trials heard"),
        (of_the_other_seed, f"{STUDY}/result.json: DIFFERENT"),
        (lambda runs: shutil.rmtree(runs / STUDY), f"{STUDY}: DIFFERENT (not there, but runs have its settings)"),
        (lambda runs: (runs / STUDY / "study.db").unlink(), "study.db: DIFFERENT (not there)"),
        (lambda runs: (runs / STUDY / "study.db").write_bytes(b"no database"), "study.db is damaged"),
        (lambda runs: set_value(runs / STUDY / "study.json", identity={}), "damaged: KeyError: 'search'"),
    ],
)  # fmt: skip
def test_a_study_that_was_tampered_with_is_found(
    unpacked: Path, tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    runs = unpacked / "runs/mini"
    change(runs)
    compared = check_studies(runs, find_runs(runs), tmp_path / "scratch", 1e-9)
    assert message in "\n".join(one.line() for one in compared if one.verdict == "different")


def test_checksums_that_fit_do_not_hide_it(unpacked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    better_trial(unpacked / "runs/mini")
    assert ser("reproduce", unpacked) == 1
    assert f"changed: runs/mini/{STUDY}/study.db" in capsys.readouterr().err
    seal(unpacked)
    assert ser("reproduce", unpacked) == 1
    told = capsys.readouterr()
    assert f"{STUDY}/trials.csv: DIFFERENT (val_loss, line 4" in told.out
    assert "not reproduced" in told.err


def test_runs_whose_study_is_gone_are_not_packed(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(searched / "runs/mini", tmp_path / "mini")
    (tmp_path / "mini" / STUDY / "study.db").unlink()
    assert ser("bundle", tmp_path / "mini", "--out", tmp_path / "x.zip") == 1
    assert "whose study.db is not there" in capsys.readouterr().err
    assert not (tmp_path / "x.zip").exists()


def test_a_study_that_went_on_after_its_run_still_holds(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Trials beyond those that a run knows: its winner is that of the first ones."""
    shutil.copytree(searched, tmp_path / "more")
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "more/runs"))
    monkeypatch.setenv("SER_CACHE", str(searched / "cache"))
    monkeypatch.chdir(tmp_path / "more")
    assert ser("tune", "mini.json", "--set", "search.num_trials=5", "--device", "cpu") == 0
    assert ser("bundle", tmp_path / "more/runs/mini", "--out", tmp_path / "more.zip") == 0
    capsys.readouterr()
    assert ser("reproduce", tmp_path / "more.zip") == 0
    assert len((tmp_path / "more/runs/mini" / STUDY / "trials.csv").read_text().splitlines()) == 6
    assert "seed-0: settings and listeners of 1 run: equal" in capsys.readouterr().out
