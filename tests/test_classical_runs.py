"""Experiments with classical models: whole run folders, nothing of the test side chooses, saved models predict."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ser_eval.run_folder import GRID, PREDICTION_COLUMNS, find_runs, read_table
from ser_scripts.errors import Finding
from ser_scripts.features import functionals
from ser_scripts.modeling.classical import ClassicalModel
from ser_scripts.runs import train_classical
from ser_scripts.runs.train_classical import best, inner_folds, search
from ser_scripts.specs.classical import ClassicalSpec
from tests.tiny import ser

MODEL: dict[str, Any] = {
    "name": "tiny",
    "kind": "classical",
    "features": {"kind": "mfcc", "frames": {"coefficients": 13, "mels": 40}, "statistics": ["mean", "std"]},
    "classifier": {"kind": "rbf_svm"},
    "grid": {"C": [0.1, 1, 10]},
}


@pytest.fixture
def write(project: Any, tmp_path: Path, small_corpus: dict[str, str]) -> Any:
    """Write the experiment with a classical model; returns the experiment file."""

    def written(model: dict[str, Any] | None = None, **changes: Any) -> Path:
        file = project(**{"train": [small_corpus], **changes})
        (tmp_path / "tiny.json").write_text(json.dumps({**MODEL, **(model or {})}))
        return Path(file)

    return written


def tables(root: Path) -> dict[str, bytes]:
    """Everything but times, packages and the words of run.json."""
    names = ("predictions/*.csv", "model/*", "split.csv", "spec.json")
    return {file.relative_to(root).as_posix(): file.read_bytes() for name in names for file in sorted(root.rglob(name))}


def test_a_whole_run_folder_and_its_evaluation(write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(seeds={"low": 0, "high": 1}, conditions=["noise@10dB"])
    assert ser("check", file) == 0
    assert ser("train", file) == 0
    runs = find_runs(tmp_path / "runs" / "mini")
    assert len(runs) == 2
    for one in runs:
        grid = read_table(one.path / GRID, ["step", "C", "uar", "chosen"])
        assert list(grid["C"]) == ["0.1", "1.0", "10.0"]
        chosen = grid[grid["chosen"] == "1"].iloc[0]
        assert float(chosen["uar"]) == grid["uar"].astype(float).max()
        assert one.record["setting"] == {"kind": "rbf_svm", "C": float(chosen["C"]), "gamma": "scale"}
        assert one.record["best_step"] == int(chosen["step"])
        assert one.record["selected_by"] == "val_uar"
        assert len(one.history()) == 3
        found = one.predictions()
        assert set(found) == {("mini", ""), ("mini", "noise-10dB")}
        assert list(found["mini", ""].columns[:7]) == PREDICTION_COLUMNS
        assert np.allclose(found["mini", ""].filter(like="p_").sum(axis=1), 1)
        assert not [path for path in (one.path / "model").iterdir() if path.suffix in (".pkl", ".joblib", ".skops")]
    assert ser("eval", file) == 0
    results = pd.read_csv(tmp_path / "runs" / "mini" / "results.csv")
    assert len(results) == 4
    assert results.loc[results["condition"] == "none", "uar"].mean() > 0.6  # three classes of the toy corpus
    shortcuts = pd.read_csv(tmp_path / "runs" / "mini" / "shortcut_baselines.csv")
    assert {"majority", "duration_loudness", "silence_share", "sentence"} == set(shortcuts["baseline"])
    assert (tmp_path / "runs/mini/report/report.html").is_file()
    capsys.readouterr()
    assert ser("train", file) == 0
    assert "2 of 2 runs are finished already" in capsys.readouterr().err


def test_the_same_spec_gives_the_same_bytes(write: Any, tmp_path: Path) -> None:
    forest = {"classifier": {"kind": "random_forest", "trees": 20}, "grid": {"min_leaf": [1, 3]}}
    file = write(forest, seeds=[0, 1])
    assert ser("train", file) == 0
    first = tables(tmp_path / "runs")
    shutil.move(tmp_path / "runs", tmp_path / "before")
    shutil.rmtree(tmp_path / "cache" / "functionals")
    assert ser("train", file, "--jobs", 2) == 0
    assert tables(tmp_path / "runs") == first
    assert len(first) > 8


def test_features_are_computed_once(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ser("train", write(seeds=[0])) == 0
    monkeypatch.setattr(functionals, "_statistics", lambda *a: pytest.fail("a clip was computed again"))
    assert ser("train", write({"classifier": {"kind": "linear_svm"}}, seeds=[0, 1], name="second")) == 0
    assert len(find_runs(tmp_path / "runs" / "second")) == 2


def test_test_clips_change_nothing_but_their_own_answers(write: Any, tmp_path: Path) -> None:
    """A refit with scikit-learn on the training side alone, with the chosen C, gives the same answers."""
    assert ser("train", write(seeds=[0])) == 0
    (one,) = find_runs(tmp_path / "runs" / "mini")
    model = ClassicalModel.load(one.path / "model")
    split = one.split()
    clips = functionals_of(tmp_path, split, model)
    train, tested = (split["split"] == "train").to_numpy(), (split["split"] == "test").to_numpy()
    theirs = make_pipeline(
        StandardScaler(), SVC(C=one.record["setting"]["C"], class_weight="balanced", break_ties=True)
    ).fit(clips[train], split["class_id"][train])
    table = one.predictions()["mini", ""].set_index("path")
    answers = dict(zip(split["path"][tested], theirs.predict(clips[tested]), strict=True))
    assert {path: table.loc[path, "prediction"] for path in answers} == answers


def functionals_of(tmp_path: Path, split: pd.DataFrame, model: ClassicalModel) -> Any:
    import soundfile

    corpus = Path(json.loads((tmp_path / "mini.json").read_text())["train"][0]["path"]).parent
    samples = [soundfile.read(corpus / path, dtype="float32")[0] for path in split["path"]]
    spec = model.spec.features
    assert not hasattr(spec, "encoder")
    return functionals.open_functionals(samples, list(split["path"]), spec, tmp_path / "elsewhere", workers=1)


def test_inner_speakers_choose_and_both_sides_are_fitted(write: Any, tmp_path: Path) -> None:
    training = {"search": "inner_speakers", "inner_folds": 3, "fit_on": "train_and_validation"}
    assert ser("train", write({"training": training}, seeds=[0])) == 0
    (one,) = find_runs(tmp_path / "runs" / "mini")
    clips = one.record["n_clips"]
    assert one.record["fitted_on"] == {
        "sides": "train_and_validation", "clips": clips["train"] + clips["validation"],
    }  # fmt: skip
    assert one.record["selected_by"] == "inner_uar"
    assert any("train and the validation side together" in note for note in one.record["split_notes"])
    assert ser("eval", tmp_path / "mini.json") == 0


def test_leaving_groups_out_never_shares_a_speaker() -> None:
    groups = list("aabbbccdddde")
    for folds, count in (("speakers", 5), (3, 3)):
        found = inner_folds(groups, folds)
        assert len(found) == count
        for fitted, held in found:
            assert not {groups[i] for i in fitted} & {groups[i] for i in held}
            assert len(fitted) + len(held) == len(groups)
        assert sorted(row for _, held in found for row in held) == list(range(len(groups)))
    with pytest.raises(Finding, match=r"cannot make 6 inner folds of 5 training speaker\(s\)"):
        inner_folds(groups, 6)


def test_the_first_of_equal_settings_is_taken() -> None:
    spec = ClassicalSpec.model_validate({**MODEL, "classifier": {"kind": "linear_svm"}, "grid": {"C": [1.0, 0.5]}})
    values = np.repeat(np.eye(3), 8, axis=0)[:, None, :]
    truth = np.repeat(np.arange(3), 8)
    rows = np.arange(24)
    found = search(spec, values, truth, [(rows[::2], rows[1::2])], num_labels=3, seed=0, report=lambda text: None)
    assert [one.evaluation.val_uar for one in found] == [1.0, 1.0]
    assert best(found).setting.C == 1.0  # type: ignore[union-attr]


def test_a_saved_model_is_tested_on_a_further_corpus(
    write: Any, tmp_path: Path, mini_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(seeds=[0])
    assert ser("train", file) == 0
    lines = (mini_corpus / "clips.csv").read_text().splitlines()
    other = tmp_path / "other"
    other.mkdir()
    import soundfile

    for line in lines[1:13]:
        name = line.split(",")[0]
        samples, rate = soundfile.read(mini_corpus / name, dtype="float32")
        soundfile.write(other / name, samples[::-1] * 0.7, rate)
    renamed = [line.replace(",f1,", ",x1,") for line in lines[1:13]]
    (other / "other.csv").write_text("\n".join([lines[0], *renamed]) + "\n")
    assert ser("eval", file, "--on", other / "other.csv") == 0
    results = pd.read_csv(tmp_path / "runs" / "mini" / "results.csv")
    assert set(results["test_corpus"]) == {"mini", "other"}
    capsys.readouterr()
    assert ser("eval", file, "--on", mini_corpus / "clips.csv") != 0


def test_nothing_saved_says_so(write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write({"training": {"save_model": "none"}}, seeds=[0])
    assert ser("train", file) == 0
    (one,) = find_runs(tmp_path / "runs" / "mini")
    assert not (one.path / "model").exists()
    (tmp_path / "other.csv").write_text("path,class_id,actor\n")
    assert ser("eval", file, "--on", "emodb") == 2


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        (
            {},
            {"augmentations": [{"name": "g", "mode": "union",
                                "transforms": {"g": {"module": "audiomentations", "class": "Gain"}}}]},
            "augmentation 'g' does not go with a classical model",
        ),
        ({"kind": "clasical"}, {}, "kind: \"clasical\" is not valid; did you mean 'classical'?"),
        (
            {"features": {"kind": "embedding", "encoder": {"model_path_or_name": "/nowhere"}}},
            {},
            "no encoder '/nowhere'",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_before_any_training(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: Any, changes: Any, message: str
) -> None:
    assert ser("train", write(model, seeds=[0], **changes)) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not list((tmp_path / "runs").rglob("seed-*"))


def test_a_search_over_inner_speakers_needs_speakers(
    write: Any, tmp_path: Path, mini_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = pd.read_csv(mini_corpus / "clips.csv")
    nobody = tmp_path / "nobody.csv"
    rows.assign(path=[str(mini_corpus / path) for path in rows["path"]])[["path", "class_id"]].to_csv(
        nobody, index=False
    )
    file = write(
        {"training": {"search": "inner_speakers"}}, seeds=[0], split={"kind": "random"},
        train=[{"kind": "csv", "name": "nobody", "path": str(nobody)}],
    )  # fmt: skip
    assert ser("train", file) == 2
    assert "needs to know who speaks" in capsys.readouterr().err.replace("\n", " ")


def test_layers_of_an_encoder_are_part_of_the_grid(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The middle layer of a made-up encoder holds the answer, the others noise."""
    folder = tmp_path / "encoder"
    folder.mkdir()

    class Fake:
        spec = None
        identity = {"name": "fake", "sha256": "0" * 64, "files": {}, "revision": None}
        sample_rate_hz = 16000
        num_layers = 2

    def table(spec: Any, encoder: Any, stores: Any, clips: Any, folders: Any, **rest: Any) -> Any:
        from ser_scripts.runs.train_frozen import Table

        emotions = {"gio": 0, "rab": 1, "tri": 2}
        rng = np.random.default_rng(0)
        values = rng.normal(size=(len(clips), 3, 8)).astype(np.float32)
        for row, (_, path) in enumerate(clips):
            values[row, 1, emotions[path[:3]]] += 9
        return Table(values, {clip: row for row, clip in enumerate(clips)})

    monkeypatch.setattr(train_classical, "frozen_encoder", lambda spec, models, **more: Fake())
    found = (folder, Fake.identity, None)
    monkeypatch.setattr("ser_scripts.modeling.places.locate", lambda spec, models, **more: found)
    monkeypatch.setattr("ser_scripts.runs.train_frozen.embed_table", table)
    features = {"kind": "embedding", "encoder": {"model_path_or_name": str(folder)}}
    linear = {"features": features, "classifier": {"kind": "linear_svm"}, "grid": {}}
    assert ser("train", write(linear, seeds=[0])) == 0
    (one,) = find_runs(tmp_path / "runs" / "mini")
    assert one.record["layer"] == 1
    assert list(read_table(one.path / GRID, ["layer"])["layer"]) == ["0", "1", "2"]
    assert one.predictions()["mini", ""]["correct"].mean() == 1
    fixed = {**linear, "features": {**features, "layer": 3}}
    assert ser("train", write(fixed, seeds=[0], name="fixed")) == 2


def test_embed_fills_the_cache_of_classical_models_ahead(
    write: Any, tiny_whisper: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = {"kind": "embedding", "encoder": {"model_path_or_name": str(tiny_whisper)}}
    linear = {"features": features, "classifier": {"kind": "linear_svm"}, "grid": {}}
    file = write(linear, seeds=[0])
    assert ser("embed", file, "--device", "cpu") == 0
    assert "tiny: " in capsys.readouterr().out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ser_scripts.modeling.encoders.build_encoder", lambda *a, **k: pytest.fail("embedded once more"))
        assert ser("train", file, "--device", "cpu") == 0
    assert ser("embed", write()) == 2
    assert 'classical "features" of kind "embedding"' in capsys.readouterr().err.replace("\n", " ")
    assert ser("embed", "tiny.json", "--corpus", "emodb") == 2
    assert "nothing to embed" in capsys.readouterr().err
