"""Errors say which file, which key and what would be valid, whatever verb finds them; and names that folders get."""

import json
import pickle
import shutil
import tempfile

import pytest

from ser_scripts.errors import BadInput
from ser_scripts.runs.execute import Options
from tests.tiny import ser

VERBS = ("check", "split", "train", "tune", "embed", "prepare", "preview", "describe")
CORPUS = {"kind": "csv", "name": "mini"}
WRONG = {
    "train corpus": ({"train": ["toyy"]}, "train: corpus 'toyy' is not known; did you mean 'toy'?"),
    "corpus that is not here": ({"train": ["emovo"]}, "train: corpus 'emovo': no folder"),
    "CSV that is not there": ({"train": [{**CORPUS, "path": "no.csv"}]}, "no.csv: no such CSV file"),
    "test corpus": ({"test": [{"name": "emodb", "labels": "x"}]}, "test: corpus 'emodb'"),
    "model": ({"models": ["tinyy"]}, "models: model 'tinyy' not found"),
    "protocol": ({"split": {"protocol": "emodb-losoo"}}, "split.protocol: no protocol 'emodb-losoo'; did you mean"),
    "preset": ({"split": {"kind": "preset", "path": "no.csv"}}, "split: "),
    "condition": (
        {"conditions": [{"name": "hum", "steps": [{"kind": "noise", "folder": "no", "snr_db": 5}]}]},
        "condition 'hum': preprocess.0 (noise): folder: 'no' does not exist",
    ),
    "augmentation": (
        {"augmentations": [{"name": "x", "transforms": [{"class": "audiomentations.Gainn"}]}]},
        "audiomentations.Gainn",
    ),
    "clip that may be missing": ({"allow_dropped": ["mini/elsewhere/rab-f1-b1.wav"]}, "allow_dropped: "),
}


def test_loader_workers_need_a_short_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their sockets lie there; with a longer path they would hang."""
    long = "/scratch/" + "x" * 67
    monkeypatch.setattr(tempfile, "tempdir", long)
    Options(loader_workers=0)
    with pytest.raises(BadInput, match=r"--loader-workers 2: .*/scratch/xx.* set TMPDIR to a shorter one"):
        Options(loader_workers=2)
    monkeypatch.setattr(tempfile, "tempdir", long[:-1])
    Options(loader_workers=2)


@pytest.mark.parametrize("fault", WRONG)
def test_faults_of_an_experiment_name_its_file_and_key(project, capsys, fault):
    changes, text = WRONG[fault]
    file = project(**changes)
    assert ser("check", file) == 2
    told = capsys.readouterr().err
    assert f"ser: {file}" in told
    assert text in told


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_names_the_file(project, capsys, tmp_path, verb):
    file = project(train=["emovo"])
    assert ser(verb, file, *(["--out", tmp_path / "out"] if verb == "split" else [])) == 2
    assert f"{file}: train: corpus 'emovo'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"init_from": "nowhere"}, "init_from: 'nowhere' is no finished run folder"),
        ({"encoder": {"kind": "random", "config": {"model_type": "whisperr"}}}, "did you mean 'whisper'?"),
        ({"encoder": {"kind": "random", "config": {"model_type": "whisper", "d_modl": 8}}}, "did you mean 'd_model'?"),
        ({"name": "stats"}, "name: 'stats' is taken by what stands beside the runs"),
        ({"name": "Results.csv"}, "name: 'Results.csv' is taken by what stands beside the runs"),
    ],
)
def test_faults_of_a_model_name_its_file(project, capsys, tmp_path, change, text):
    file = project(model=change)
    assert ser("check", file) == 2
    told = capsys.readouterr().err
    assert f"{tmp_path / 'tiny.json'}: " in told
    assert text in told
    if "config" in change.get("encoder", {}):
        assert ser("check", tmp_path / "tiny.json") == 2
        assert text in capsys.readouterr().err


def test_an_ensemble_is_not_called_like_a_folder_beside_it(project, tmp_path, capsys):
    file = project(models=["tiny", "other"], ensembles=[{"name": "report", "models": ["tiny", "other"]}])
    other = json.loads((tmp_path / "tiny.json").read_text()) | {"name": "other"}
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert ser("check", file) == 2
    assert f"{file}: ensembles: name: 'report' is taken" in capsys.readouterr().err


def test_a_name_that_no_folder_can_have_is_refused_before_training(project, capsys):
    file = project(name="a" * 201)
    assert ser("check", file) == 2
    assert f"{file}: name: 'aaaa" in capsys.readouterr().err


def test_a_corpus_is_not_pooled_with_itself(project, mini_corpus, capsys):
    corpus = {**CORPUS, "path": str(mini_corpus / "clips.csv")}
    file = project(train=[corpus, corpus])
    assert ser("check", file) == 2
    assert "train.0: 'mini' stands there twice" in capsys.readouterr().err


def test_a_fault_of_set_is_not_laid_at_the_door_of_the_file(project, capsys, tmp_path):
    file = project()
    assert ser("check", file, "--set", "training.learning_rate=NaN") == 2
    assert f"{tmp_path / 'tiny.json'} --set training.learning_rate=NaN is not a valid model" in capsys.readouterr().err
    assert ser("check", file, "--set", "seeds=5") == 2
    assert f"{file} --set seeds=5 is not a valid experiment" in capsys.readouterr().err


def test_weights_that_are_more_than_tensors_are_refused_by_the_check(project, capsys, tmp_path, tiny_whisper):
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_whisper, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))
    file = project(model={"encoder": {"model_path_or_name": str(folder), "frozen": True}, "freeze": {}})
    assert ser("check", file) == 2
    assert "pytorch_model.bin cannot be read as plain weights" in capsys.readouterr().err
