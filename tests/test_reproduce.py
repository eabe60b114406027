"""A finished run again from its own record: the same bytes here, and a plain word where something differs."""

import errno
import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import soundfile

from ser_eval import run_folder
from ser_scripts.cli import app, main
from ser_scripts.errors import BadInput, Finding
from ser_scripts.runs import comparing, reproduce, source
from tests.conftest import TINY_MODEL

RUN = "runs/mini/tiny/mini/seed-0"


def here(*arguments):
    """Run the command in this process."""
    return app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, mini_corpus):
    """A folder with an experiment of one run of one epoch, trained."""
    place = tmp_path_factory.mktemp("finished")
    training = {**TINY_MODEL["training"], "epochs": 1}
    experiment = {
        "name": "mini",
        "train": [{"kind": "csv", "name": "mini", "path": str(mini_corpus / "clips.csv")}],
        "models": ["tiny"],
        "split": {"kind": "speaker_independent"},
        "seeds": [0],
    }
    (place / "tiny.json").write_text(json.dumps({**TINY_MODEL, "training": training}))
    (place / "mini.json").write_text(json.dumps(experiment))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SER_RUNS", str(place / "runs"))
        patch.setenv("SER_CACHE", str(place / "cache"))
        here("train", place / "mini.json", "--device", "cpu")
    return place


@pytest.fixture
def trained(finished, tmp_path, monkeypatch):
    """A copy of that run, which a test may spoil; the experiment is out of reach."""
    shutil.copytree(finished / "runs", tmp_path / "runs")
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("SER_CACHE", str(finished / "cache"))
    monkeypatch.setenv("SER_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("SER_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path / RUN


def test_a_run_comes_out_the_same_from_its_record_alone(trained, tmp_path, capsys):
    before = {file: file.read_bytes() for file in sorted(trained.rglob("*")) if file.is_file()}
    here("reproduce", trained, "--out", tmp_path / "again")
    told = capsys.readouterr().out
    assert "then and now: the same environment, code and data" in told
    assert "predictions/mini.csv: identical, byte for byte" in told
    assert told.endswith("reproduced\n")
    again = tmp_path / "again/mini/tiny/mini/seed-0"
    assert (again / "predictions/mini.csv").read_bytes() == (trained / "predictions/mini.csv").read_bytes()
    assert run_folder.read_json(again / "spec.json") == run_folder.read_json(trained / "spec.json")
    assert before == {file: file.read_bytes() for file in sorted(trained.rglob("*")) if file.is_file()}


def test_what_differs_between_then_and_now_is_told(trained, tmp_path, capsys):
    file = trained / "environment.txt"
    text = file.read_text().replace("numpy==", "numpy==1.0.0+old").replace("cpu ", "cpu Imaginary 9000 of ")
    file.write_text(text + "gone-away==3.1\n")
    record = run_folder.read_json(trained / "run.json")
    record["code"]["commit"] = "0" * 40
    run_folder.write_json(trained / "run.json", record)
    here("reproduce", trained)
    told = capsys.readouterr().out
    assert "numpy: 1.0.0+old" in told
    assert "cpu: Imaginary 9000 of" in told
    assert "packages only then: gone-away" in told
    assert f"code commit: {'0' * 40}, now" in told


def test_other_predictions_are_a_finding_with_numbers(trained, tmp_path, capsys):
    file = trained / "predictions/mini.csv"
    table = run_folder.read_predictions(file)
    other = next(label for label in ("angry", "happy", "sad") if label != table.loc[0, "prediction"])
    table.loc[0, "prediction"] = other
    table["correct"] = (table["truth"] == table["prediction"]).astype(int)
    run_folder.write_table(file, table)
    with pytest.raises(Finding, match="not reproduced"):
        here("reproduce", trained)
    told = capsys.readouterr().out
    assert f"1 of {len(table)} answers differ" in told
    assert "UAR" in told


def test_changed_audio_shows_as_other_data(project, tmp_path, mini_corpus, capsys):
    shutil.copytree(mini_corpus, tmp_path / "copy")
    corpus = [{"kind": "csv", "name": "mini", "path": str(tmp_path / "copy/clips.csv")}]
    here("train", project(seeds=[0], train=corpus, training={"epochs": 1}), "--device", "cpu")
    for clip in (tmp_path / "copy").glob("*.wav"):
        samples, rate = soundfile.read(clip)
        soundfile.write(clip, samples[::-1], rate, subtype="PCM_16")
    with pytest.raises(Finding, match="not reproduced"):
        here("reproduce", tmp_path / RUN)
    assert "spec manifest_sha256.mini: was" in capsys.readouterr().out


def test_a_fold_and_crossed_seeds_find_their_run_again(project, tmp_path, capsys):
    split = {"kind": "k_fold", "folds": 4}
    seeds = {"split_seeds": [3], "train_seeds": [5, 7]}
    here("train", project(seeds=seeds, split=split, training={"epochs": 1}), "--device", "cpu")
    runs = sorted((tmp_path / "runs/mini/tiny/mini").iterdir())
    assert len(runs) == 8
    capsys.readouterr()
    here("reproduce", runs[5])
    assert "identical" in capsys.readouterr().out
    assert "seed-1-fold" in str(runs[5])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "run.json").unlink(), "is no folder of a finished run"),
        (lambda run: (run / "run.json").write_text("{}"), "lacks experiment"),
        (lambda run: (run / "spec.json").write_text("{}"), "lacks 'experiment'"),
        (lambda run: shutil.rmtree(run / "predictions"), "holds no predictions"),
    ],
)
def test_a_damaged_run_folder_is_refused(trained, damage, message):
    damage(trained)
    with pytest.raises(BadInput, match=message):
        here("reproduce", trained)


def test_flags_that_cannot_be_are_refused(trained, tmp_path):
    with pytest.raises(BadInput, match="--tolerance 1 is not valid"):
        here("reproduce", trained, "--tolerance", "1")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    with pytest.raises(BadInput, match="the folder is not empty"):
        here("reproduce", trained, "--out", tmp_path / "full")
    with pytest.raises(BadInput, match="--device cuda: not available"):
        here("reproduce", trained, "--device", "cuda")


def test_a_gpu_run_goes_on_without_one_and_says_so(trained, capsys):
    record = run_folder.read_json(trained / "run.json")
    run_folder.write_json(trained / "run.json", record | {"device": "cuda"})
    here("reproduce", trained)
    assert "device: cuda, now cpu" in capsys.readouterr().out


def predictions(*probabilities):
    rows = [
        {
            "corpus": "c",
            "path": f"{number}.wav",
            "actor": "a",
            "gender": "female",
            "truth": "sad",
            "prediction": "sad" if p > 0.5 else "angry",
            "correct": int(p > 0.5),
            "p_angry": 1 - p,
            "p_sad": p,
        }
        for number, p in enumerate(probabilities)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("new", "verdict", "detail"),
    [
        ((0.9, 0.2), "identical", ""),
        ((0.9 + 5e-7, 0.2), "equal", "largest difference of a probability or rating 5e-07"),
        ((0.9 + 5e-6, 0.2), "different", "0 of 2 answers differ"),
        ((0.9, 0.6), "different", "1 of 2 answers differ"),
        ((0.9,), "different", "2 clips, now 1, 1 of them the same"),
    ],
)
def test_predictions_are_compared_by_bytes_and_then_by_numbers(tmp_path, new, verdict, detail):
    run_folder.write_table(tmp_path / "old.csv", predictions(0.9, 0.2))
    run_folder.write_table(tmp_path / "new.csv", predictions(*new))
    result = comparing.compare_predictions("x", tmp_path / "old.csv", tmp_path / "new.csv", 1e-6)
    assert result.verdict == verdict
    assert detail in result.line()


def test_json_and_tables_are_compared_value_by_value(tmp_path):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps({"a": [1, 2.0, {"b": None}], "python": "3.11", "c": True}))
    new.write_text(json.dumps({"a": [1, 2.0 + 1e-12, {"b": None}], "python": "3.12", "c": True}))
    assert comparing.compare_json("x", old, new, 1e-9, ignore=frozenset({"python"})).verdict == "equal"
    assert comparing.compare_json("x", old, new, 1e-9).details == ("python: '3.11', now '3.12'",)
    new.write_text(json.dumps({"a": [1, 2.0], "python": "3.11", "c": 1}))
    told = comparing.compare_json("x", old, new, 1e-9).details
    assert told[0].startswith("a: [1, 2.0, {")
    old.with_suffix(".csv").write_text("n,x\na,1.0\nb,nan\n")
    new.with_suffix(".csv").write_text("n,x\na,1.0000000000001\nb,NaN\n")
    tables = (old.with_suffix(".csv"), new.with_suffix(".csv"))
    assert comparing.compare_tables("x", *tables, 1e-9).verdict == "equal"
    assert comparing.compare_tables("x", *tables, 0.0).details == ("x, line 2: '1.0', now '1.0000000000001'",)


def test_nothing_compared_is_not_reproduced():
    assert not reproduce.Reproduction((), ()).reproduced
    good = comparing.Compared("x", "equal")
    assert reproduce.Reproduction((), (good,)).reproduced
    assert not reproduce.Reproduction((), (good, replace(good, verdict="different"))).reproduced


def test_an_image_tells_its_commit_until_the_sources_differ(tmp_path):
    for room in source.ROOMS:
        (tmp_path / room).mkdir(parents=True)
        (tmp_path / room / "a.py").write_text("x = 1\n")
    record = tmp_path / "share/sertain.json"
    assert source.recorded_source(tmp_path, record) == (None, None)
    source.write_source_record(record, "a" * 40, tmp_path)
    (tmp_path / "ser_scripts/__pycache__").mkdir()
    (tmp_path / "ser_scripts/__pycache__/a.pyc").write_bytes(b"compiled")
    assert source.recorded_source(tmp_path, record) == ("a" * 40, False)
    (tmp_path / "ser_scripts/a.py").write_text("x = 2\n")
    assert source.recorded_source(tmp_path, record) == ("a" * 40, True)
    source.write_source_record(record, "a" * 40 + "-dirty", tmp_path)
    assert source.recorded_source(tmp_path, record) == ("a" * 40, True)
    source.write_source_record(record, "", tmp_path)
    assert source.recorded_source(tmp_path, record) == (None, False)
    with pytest.raises(BadInput, match="COMMIT=main is not valid"):
        source.write_source_record(record, "main", tmp_path)


def test_a_full_disk_is_a_message_whichever_command_fills_it(monkeypatch, capsys):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ser_scripts.runs.locate.experiment_folder", full)
    monkeypatch.setattr("sys.argv", ["ser", "bundle", "x"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "ser: no space left on the disk of the runs, the cache or temporary files" in capsys.readouterr().err
