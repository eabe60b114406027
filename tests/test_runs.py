"""Whole runs on a small corpus through the command line: artefacts, resuming after kills, and what must be refused."""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_eval import run_folder
from ser_scripts.cli import app, main
from ser_scripts.training import loop
from tests.tiny import predictions


def here(*arguments):
    """Run the command in this process, for tests that look at the outcome only."""
    return app([str(argument) for argument in arguments], standalone_mode=False)


def test_a_run_leaves_the_whole_contract(project, tmp_path):
    here("train", project(seeds=[0]), "--device", "cpu")
    run = tmp_path / "runs/mini/tiny/mini/seed-0"
    names = {path.name for path in run.iterdir()}
    assert names >= {"spec.json", "run.json", "environment.txt", "split.csv", "history.csv", "model", "predictions"}
    assert not names & {"checkpoints", "best.safetensors"}
    chosen_on = run_folder.read_predictions(run / "validation.csv")
    record = run_folder.read_json(run / "run.json")
    assert record["labels"] == ["angry", "happy", "sad"]
    assert record["chance_uar"] == pytest.approx(1 / 3)
    assert record["n_speakers"] == {"train": 4, "validation": 2, "test": 2}
    split = run_folder.read_table(run / "split.csv", run_folder.SPLIT_COLUMNS)
    assert list(split.columns) == run_folder.SPLIT_COLUMNS
    assert len(split) == 96
    sides = split.groupby("split")["actor"].agg(set)
    assert not sides["train"] & sides["test"]
    assert not sides["train"] & sides["validation"]
    assert set(chosen_on["path"]) == set(split.loc[split["split"] == "validation", "path"])
    table = run_folder.read_predictions(run / "predictions/mini.csv")
    assert list(table.columns) == [*run_folder.PREDICTION_COLUMNS, "p_angry", "p_happy", "p_sad"]
    assert table["path"].is_monotonic_increasing
    assert set(table["path"]) == set(split.loc[split["split"] == "test", "path"])
    assert np.allclose(table[["p_angry", "p_happy", "p_sad"]].sum(axis=1), 1)
    history = pd.read_csv(run / "history.csv")
    assert list(history.columns) == run_folder.HISTORY_COLUMNS
    assert list(history["epoch"]) == [1, 2, 3, 4]


def test_training_twice_gives_the_same_bytes_and_skips_what_is_finished(
    project, small_corpus, tmp_path, capsys, monkeypatch
):
    file = project(seeds=[0, 1], train=[small_corpus], training={"epochs": 2})
    here("train", file, "--device", "cpu")
    first = predictions(tmp_path / "runs")
    assert len(first) == 2
    here("train", file, "--device", "cpu")
    assert "2 of 2 runs are finished already" in capsys.readouterr().err
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "again"))
    here("train", file, "--device", "cpu", "--loader-workers", "2")
    assert predictions(tmp_path / "again") == first
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "jobs"))
    monkeypatch.setenv("PYTHONHASHSEED", "7")  # of the two processes
    here("train", file, "--device", "cpu", "--jobs", "2")
    assert predictions(tmp_path / "jobs") == first


KILLS = {
    "at epochs": ({"epochs": 12, "accumulation": 2, "batch_size": 4}, ["epoch 1/", "epoch 8/"]),
    "at steps": ({"epochs": 12, "eval_every": 5, "accumulation": 2, "batch_size": 4}, ["epoch 9"]),
    "after the last update": (
        {"epochs": 2.5, "scheduler": "constant", "select": "last", "precision": "bf16"},
        ["epoch 2.5/"],
    ),
    "after an early stop": (
        {
            "epochs": 30,
            "precision": "bf16",
            "early_stopping": {"metric": "val_loss", "patience": 1, "min_delta": 0.9},
        },
        ["epoch 2/"],
    ),
}
"""Training, and the lines of progress shortly after which it is killed, in turn."""


@pytest.mark.parametrize(
    "when", [when if when == "at steps" else pytest.param(when, marks=pytest.mark.slow) for when in sorted(KILLS)]
)
def test_a_killed_training_ends_with_the_same_predictions(project, tmp_path, capsys, monkeypatch, when):
    training, strikes = KILLS[when]
    augmentation = {
        "name": "noise",
        "mode": "on_the_fly",
        "transforms": {"white": {"module": "audiomentations", "class": "AddGaussianSNR"}},
    }
    file = project(training=training, seeds=[0], augmentations=[augmentation])
    here("train", file, "--device", "cpu")
    expected = predictions(tmp_path / "runs")
    history = next((tmp_path / "runs").rglob("history.csv")).read_text().splitlines()
    assert len(expected) == 1
    killed = tmp_path / "killed"
    resumed = 0
    rng = random.Random(f"kill {when}")
    for strike in strikes:
        process = subprocess.Popen(
            [sys.executable, "-c", "from ser_scripts.cli import main; main()", "train", str(file), "--device", "cpu"],
            env={**os.environ, "SER_RUNS": str(killed)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for line in process.stderr:
            resumed += "resumes after" in line
            if strike in line and "val loss" in line:
                time.sleep(rng.uniform(0, 0.3) if "after" not in when else rng.uniform(0.02, 0.08))
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
    monkeypatch.setenv("SER_RUNS", str(killed))
    capsys.readouterr()
    here("train", file, "--device", "cpu")
    resumed += "resumes after" in capsys.readouterr().err
    assert predictions(killed) == expected
    again = next(killed.rglob("history.csv")).read_text().splitlines()
    assert [line.rpartition(",")[0] for line in again] == [line.rpartition(",")[0] for line in history]
    if "after" not in when:
        assert resumed >= 1, "no kill fell into the training, so nothing was tested"


INTERRUPTIBLE = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from ser_scripts.cli import main; main()"
)
"""The command, also where the tests run in the background of a shell, whose processes ignore Ctrl-C from birth."""


def test_ctrl_c_between_two_epochs_leaves_what_the_same_command_goes_on_with(project, tmp_path, capsys):
    file = project(seeds=[0])
    start = loop.SerTrainer._start_epoch

    def interrupted(self, number):
        if number == 2:
            signal.raise_signal(signal.SIGINT)
        start(self, number)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored, in the background of a shell
    try:
        with patch.object(loop.SerTrainer, "_start_epoch", interrupted):
            said = refused("train", file, "--device", "cpu", code=130)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "the same command goes on" in said
    assert (tmp_path / "runs/mini/tiny/mini/seed-0.partial").is_dir()
    assert not (tmp_path / "runs/mini/tiny/mini/seed-0").exists()
    here("train", file, "--device", "cpu")
    assert "resumes after epoch 2" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(project, tmp_path):
    file = project(training={"epochs": 200}, seeds=[0])
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "train", str(file), "--device", "cpu"],
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if "epoch 3/" in line:
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait() == 130
    assert "Traceback" not in rest
    assert "the same command goes on" in rest
    assert (tmp_path / "runs/mini/tiny/mini/seed-0.partial").is_dir()
    assert not (tmp_path / "runs/mini/tiny/mini/seed-0").exists()


def refused(*arguments, code=2):
    """What the command says when it ends with this exit code; in this process."""
    said = io.StringIO()
    with (
        patch.object(sys, "argv", ["ser", *map(str, arguments)]),
        contextlib.redirect_stderr(said),
        pytest.raises(SystemExit) as end,
    ):
        main()
    assert end.value.code == code, said.getvalue()
    assert "Traceback" not in said.getvalue()
    return said.getvalue()


def test_a_changed_spec_in_the_same_place_is_refused_and_force_moves_it_aside(project, tmp_path):
    here("train", project(seeds=[0]), "--device", "cpu")
    before = predictions(tmp_path / "runs")
    text = refused("train", project(seeds=[0], training={"epochs": 2}), "--device", "cpu")
    assert "model.training.epochs: was 4" in text
    assert predictions(tmp_path / "runs") == before
    here("train", project(seeds=[0], training={"epochs": 2}), "--device", "cpu", "--force")
    assert len(list((tmp_path / "runs/mini/old").iterdir())) == 1
    assert predictions(tmp_path / "runs/mini/tiny") != before


def test_more_seeds_reuse_the_finished_runs(project, tmp_path, capsys):
    here("train", project(seeds=[0]), "--device", "cpu")
    here("train", project(seeds=[0, 1]), "--device", "cpu")
    assert "1 of 2 runs are finished already" in capsys.readouterr().err


def test_two_processes_on_one_run(project, tmp_path):
    from ser_scripts.files import held

    file = project(seeds=[0])
    with held(tmp_path / "runs", "mini/tiny/mini/seed-0", busy=""):
        text = refused("train", file, "--device", "cpu")
    assert "another process is training this run" in text
    assert not list((tmp_path / "runs/mini").rglob("*.partial"))


def bad_corpus(mini_corpus, folder, change):
    """A copy of the mini corpus with one change."""
    shutil.copytree(mini_corpus, folder)
    change(folder)
    return [{"kind": "csv", "name": "mini", "path": str(folder / "clips.csv")}]


def overwrite(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def write_wav(name, samples, rate=16000, subtype="FLOAT"):
    return lambda folder: soundfile.write(folder / name, samples, rate, subtype=subtype)


VICTIM = "rab-f1-b1.wav"
BAD_CLIPS = {
    "text file": overwrite(VICTIM, b"this is not audio at all\n" * 50),
    "zero bytes": overwrite(VICTIM, b""),
    "torn": lambda folder: (folder / VICTIM).write_bytes((folder / VICTIM).read_bytes()[:30]),
    "NaN": write_wav(VICTIM, np.full(16000, np.nan, dtype=np.float32)),
    "silent": write_wav(VICTIM, np.zeros(16000, dtype=np.float32)),
    "short": write_wav(VICTIM, np.full(100, 0.1, dtype=np.float32)),
    "gone": lambda folder: [(folder / f"rab-f1-{s}.wav").unlink() for s in ("b1", "b2", "l1")],
}


@pytest.mark.parametrize("kind", sorted(BAD_CLIPS))
def test_bad_clips_stop_the_run_before_anything_is_written(project, mini_corpus, tmp_path, kind):
    file = project(train=bad_corpus(mini_corpus, tmp_path / "bad", BAD_CLIPS[kind]), seeds=[0])
    from ser_scripts.errors import BadInput

    with pytest.raises(BadInput) as error:
        here("train", file, "--device", "cpu")
    assert "rab-f1-b1" in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_a_listed_clip_may_be_bad_and_stands_in_the_record(project, mini_corpus, tmp_path):
    train = bad_corpus(mini_corpus, tmp_path / "bad", BAD_CLIPS["silent"])
    file = project(train=train, seeds=[0], training={"epochs": 1}, allow_dropped=[f"mini/{VICTIM}"])
    here("train", file, "--device", "cpu")
    record = run_folder.read_json(tmp_path / "runs/mini/tiny/mini/seed-0/run.json")
    assert [(item["corpus"], item["path"]) for item in record["dropped"]] == [("mini", VICTIM)]
    assert "silent" in record["dropped"][0]["reason"]
    assert sum(record["n_clips"].values()) == 95


def test_a_stereo_48_khz_clip_works(project, mini_corpus, tmp_path):
    samples, _rate = soundfile.read(mini_corpus / VICTIM, dtype="float32")
    stereo = np.repeat(np.stack([samples, samples * 0.5], axis=1), 3, axis=0)
    train = bad_corpus(mini_corpus, tmp_path / "stereo", write_wav(VICTIM, stereo, rate=48000))
    here("train", project(train=train, seeds=[0], training={"epochs": 1}), "--device", "cpu")
    assert len(predictions(tmp_path / "runs")) == 1


def only(keep):
    """A change that keeps the rows of clips.csv for which `keep(class, actor)` holds."""

    def change(folder):
        header, *rows = (folder / "clips.csv").read_text().splitlines()
        kept = [row for row in rows if keep(*row.split(",")[1:3])]
        (folder / "clips.csv").write_text("\n".join([header, *kept]) + "\n")

    return change


def test_two_speakers_are_refused(project, mini_corpus, tmp_path):
    train = bad_corpus(mini_corpus, tmp_path / "two", only(lambda _, actor: actor in ("f1", "m1")))
    text = refused("train", project(train=train, seeds=[0]), "--device", "cpu", code=1)
    assert "seed 0" in text
    assert "speaker" in text
    assert not predictions(tmp_path / "runs")


def test_two_classes_work(project, mini_corpus, tmp_path):
    train = bad_corpus(mini_corpus, tmp_path / "two", only(lambda label, _: label != "sad"))
    here("train", project(train=train, seeds=[0], training={"epochs": 1}), "--device", "cpu")
    table = next(iter((tmp_path / "runs").rglob("predictions/*.csv")))
    assert "p_angry,p_happy" in table.read_text().splitlines()[0]


def test_a_class_with_one_speaker_is_refused_for_the_seeds_that_lose_it(project, mini_corpus, tmp_path, capsys):
    lone = only(lambda label, actor: label != "sad" or actor == "f1")
    train = bad_corpus(mini_corpus, tmp_path / "lone", lone)
    refused("check", project(train=train, seeds={"high": 7}), code=1)
    said = capsys.readouterr().out
    assert "sad" in said
    assert "refused: seed" in said


def test_unwritable_output_folder(project, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    file = project(seeds=[0])
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "file" / "runs"))
    said = refused("train", file, "--device", "cpu")
    assert "cannot write to" in said
    assert "SER_RUNS" in said


def test_missing_corpus_says_where_it_looked(project, tmp_path):
    text = refused("train", project(train=["emovo"], seeds=[0]), "--device", "cpu")
    assert str(tmp_path / "data" / "emovo") in text
    assert "ser corpora emovo" in text


def test_unknown_corpus_names_the_nearest(project):
    assert "emodb" in refused("train", project(train=["emodbb"], seeds=[0]), "--device", "cpu")


def test_missing_encoder_says_where_it_looked(project):
    model = {"encoder": {"model_path_or_name": "nobody/nothing"}}
    text = refused("train", project(model=model, seeds=[0]), "--device", "cpu")
    assert "nobody/nothing" in text
    assert "SER_MODELS" in text


def tmpfs(folder, size):
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True, check=False
    )
    return made.returncode == 0


@pytest.mark.parametrize("size", ["300k", "900k"])
def test_disk_full_leaves_nothing_that_looks_whole(project, small_corpus, tmp_path, monkeypatch, size):
    disk = tmp_path / "disk"
    if not tmpfs(disk, size):
        pytest.skip("needs the right to mount a small tmpfs")
    try:
        file = project(seeds=[0], train=[small_corpus])
        here("train", file, "--device", "cpu")
        monkeypatch.setenv("SER_RUNS", str(disk))
        assert "no space left" in refused("train", file, "--device", "cpu")
        assert not (disk / "mini/tiny/mini/seed-0").exists()
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        here("train", file, "--device", "cpu")
        assert predictions(disk) == predictions(tmp_path / "runs")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_init_from_a_run_refuses_its_speakers_and_starts_from_its_weights(project, tmp_path, capsys):
    here("train", project(seeds=[0]), "--device", "cpu")
    start = "mini/tiny/mini/seed-0"
    model = {"name": "tiny2", "init_from": start}
    shutil.copy(project(model=model, seeds=[0], name="next"), tmp_path / "next.json")
    here("train", tmp_path / "next.json", "--device", "cpu")  # the same split: its test speakers are unseen
    record = run_folder.read_json(tmp_path / "runs/next/tiny2/mini/seed-0/run.json")
    assert len(record["seen_speakers"]) == 6
    text = refused("train", project(model=model, seeds=[1], name="next"), "--device", "cpu", code=1)
    assert "the initial checkpoint: mini/" in text


def test_speaker_dependent_splits_are_stamped(project, tmp_path):
    here("train", project(seeds=[0], split={"kind": "random"}, training={"epochs": 1}), "--device", "cpu")
    record = run_folder.read_json(tmp_path / "runs/mini/tiny/mini/seed-0/run.json")
    assert record["speaker_dependent"]
    assert record["not_comparable"]


def test_whole_path_with_folds_eval_and_stats(project, small_corpus, tmp_path, capsys):
    split = {"kind": "k_fold", "folds": 4}
    file = project(seeds=[0, 1], train=[small_corpus], split=split, training={"epochs": 1})
    here("train", file, "--device", "cpu")
    here("eval", file)
    here("stats", file)
    results = pd.read_csv(tmp_path / "runs/mini/results.csv", dtype=str, keep_default_na=False)
    assert list(results["fold"]) == ["all", "all"]
    assert list(results["n_test"]) == ["48", "48"]
    assert json.loads((tmp_path / "runs/mini/stats/stats.json").read_text())
    assert (tmp_path / "runs/mini/report/report.html").stat().st_size > 10_000


def test_splits_are_written_without_training_and_audited(project, tmp_path, capsys):
    here("split", project(seeds=[0, 1]), "--out", tmp_path / "splits")
    files = sorted((tmp_path / "splits").rglob("seed-*.csv"))
    assert [file.name for file in files] == ["seed-0.csv", "seed-1.csv"]
    for file in files:
        here("audit", file)
    assert not (tmp_path / "runs").exists()
    table = pd.read_csv(files[0], dtype=str)
    actor = table.loc[table["split"] == "test", "actor"].iloc[0]
    table.loc[table.index[table["actor"] == actor][:1], "split"] = "train"
    table.to_csv(tmp_path / "leak.csv", index=False)
    refused("audit", tmp_path / "leak.csv", code=1)


def test_eval_on_another_corpus_and_by_table(project, mini_corpus, tmp_path, capsys):
    here("train", project(seeds=[0]), "--device", "cpu")
    run = tmp_path / "runs/mini/tiny/mini/seed-0"
    split = run_folder.read_table(run / "split.csv", run_folder.SPLIT_COLUMNS)
    actors = {side: set(rows["actor"]) for side, rows in split.groupby("split")}
    for name, allowed in (("fresh", actors["test"]), ("known", actors["train"])):
        bad_corpus(mini_corpus, tmp_path / name, only(lambda _, actor, allowed=allowed: actor in allowed))
        (tmp_path / name / "clips.csv").rename(tmp_path / name / f"{name}.csv")
    here("eval", "mini", "--on", tmp_path / "fresh/fresh.csv", "--device", "cpu")
    results = pd.read_csv(tmp_path / "runs/mini/results.csv", dtype=str, keep_default_na=False)
    assert sorted(results["test_corpus"]) == ["fresh", "mini"]
    columns = "model_name,dataset_name,model_path,eval_csv_path,eval_out_path"
    (tmp_path / "table.csv").write_text(f"{columns}\ntiny,fresh,{run},{tmp_path}/fresh/fresh.csv,{tmp_path}/out\n")
    here("eval", "--table", tmp_path / "table.csv", "--device", "cpu")
    one = run_folder.read_predictions(tmp_path / "out/predictions.csv")
    two = run_folder.read_predictions(run / "predictions/fresh.csv")
    assert (one["prediction"] == two["prediction"]).all()
    assert len(one) == 24
    (tmp_path / "fresh/fresh.csv").rename(tmp_path / "fresh/mini.csv")
    text = refused("eval", "mini", "--on", tmp_path / "fresh/mini.csv", "--device", "cpu")
    assert "'mini' is a corpus of this run already" in text
    # the same recordings under another corpus name: known by their samples
    text = refused("eval", "mini", "--on", tmp_path / "known/known.csv", "--device", "cpu", code=1)
    assert "has trained or selected on" in text
    assert not (run / "predictions/known.csv").exists()


def test_init_from_knows_recordings_under_another_name(project, mini_corpus, tmp_path):
    here("train", project(seeds=[0]), "--device", "cpu")
    renamed = [{"kind": "csv", "name": "renamed", "path": str(mini_corpus / "clips.csv")}]
    model = {"name": "tiny2", "init_from": "mini/tiny/mini/seed-0"}
    file = project(model=model, name="next", train=renamed, seeds=[1])
    text = refused("train", file, "--device", "cpu", code=1)
    assert "has heard recordings of" in text


def test_init_from_another_build_is_bad_input(project, tmp_path):
    here("train", project(seeds=[0]), "--device", "cpu")
    model = {"name": "tiny2", "init_from": "mini/tiny/mini/seed-0", "pooling": {"kind": "attentive_stats"}}
    assert "built in another way" in refused("train", project(model=model, name="next", seeds=[0]), "--device", "cpu")


def test_runs_of_different_specs_are_never_averaged(project, tmp_path):
    here("train", project(seeds=[0, 1]), "--device", "cpu", "--low-seed", "0", "--high-seed", "0")
    here(
        "train", project(seeds=[0, 1], training={"epochs": 2}), "--device", "cpu", "--low-seed", "1", "--high-seed", "1"
    )
    assert len(run_folder.read_json(tmp_path / "runs/mini/plan.json")["runs"]) == 2
    text = refused("eval", "mini")
    assert "model.training.epochs: 4.0 and 2.0" in text
    assert not (tmp_path / "runs/mini/results.csv").exists()


def test_words_may_change_after_training_and_numbers_may_not(project, tmp_path):
    here("train", project(seeds=[0]), "--device", "cpu")
    model = {"description": "better words", "factors": {"size": "tiny"}}
    here("train", project(model=model, training={"track": ["tensorboard"]}, seeds=[0]), "--device", "cpu")
    record = run_folder.read_json(tmp_path / "runs/mini/tiny/mini/seed-0/run.json")
    assert record["factors"] == {"size": "tiny"}
    text = refused("train", project(model={**model, "head": {"dropout": 0.3}}, seeds=[0]), "--device", "cpu")
    assert "model.head.dropout: was 0.2, is 0.3" in text


def test_replaced_encoder_weights_are_noticed(project, tmp_path, capsys):
    here("train", project(seeds=[0]), "--device", "cpu")
    encoder = tmp_path / "encoder"
    shutil.copytree(tmp_path / "runs/mini/tiny/mini/seed-0/model", encoder)
    model = {"encoder": {"model_path_or_name": str(encoder)}}
    here("train", project(model=model, name="other", seeds=[0]), "--device", "cpu")
    from safetensors.torch import load_file, save_file

    weights = load_file(encoder / "model.safetensors")
    save_file({name: tensor + 0.01 for name, tensor in weights.items()}, encoder / "model.safetensors")
    text = refused("train", project(model=model, name="other", seeds=[0]), "--device", "cpu")
    assert "inputs.encoder_sha256: was" in text


def test_unknown_device_and_double_seeds(project):
    assert "not available; on this machine" in refused("train", project(seeds=[0]), "--device", "gpu")
    assert "seeds: '0' stands there twice" in refused("train", project(seeds=[0, 0]), "--device", "cpu")


def test_a_name_cannot_lead_out_of_the_runs_folder(project, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "evil.json").write_text(json.dumps({"name": "../outside"}))
    assert "is not valid" in refused("eval", tmp_path / "evil.json")
    assert "no such folder" in refused("describe", "../elsewhere")


def test_model_faults_show_before_the_first_run(project, tmp_path):
    file = project(seeds=[0])
    good = json.loads((tmp_path / "tiny.json").read_text())
    for name, change, said in (
        ("layer", {"layers": {"use": 7}}, "hidden states 0 to 1"),
        ("frozen", {"freeze": {"cnn": False, "all_but_last": 9}}, "all_but_last"),
        ("key", {"encoder": {"kind": "random", "config": {"model_type": "whisper", "d_modle": 32}}}, "d_model"),
        ("half", {"training": {**good["training"], "precision": "fp16"}}, "needs a GPU"),
        ("watched", {"training": {**good["training"], "track": ["wandb"]}}, "wandb"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps({**good, "name": name, **change}))
        content = json.loads(file.read_text())
        (tmp_path / "two.json").write_text(json.dumps({**content, "models": ["tiny", "bad"]}))
        for command in (["check"], ["train", "--device", "cpu"]):
            text = refused(command[0], tmp_path / "two.json", *command[1:])
            assert said in text, text
            assert name in text, text
    assert not list((tmp_path / "runs").rglob("seed-0*"))


def test_augmentation_faults_show_in_check(project):
    bad = {"name": "bad", "transforms": {"x": {"module": "os", "class": "system"}}}
    assert "'os'" in refused("check", project(seeds=[0], augmentations=[bad]))


def test_empty_plans_and_slips_in_allow_dropped_are_refused(project):
    assert "at least 1" in refused("check", project(seeds=[]))
    assert "at least 1" in refused("check", project(augmentations=[]))
    assert "names no clip of the 96 of 'mini'" in refused("check", project(seeds=[0], allow_dropped=["mini/zzz.wav"]))
    near = refused("check", project(seeds=[0], allow_dropped=["mini/gio-f9-b1.wav"]))
    assert "names no clip; did you mean 'mini/gio-f" in near


def test_a_test_corpus_without_shared_classes_is_refused_before_training(project, mini_corpus, tmp_path):
    rows = (mini_corpus / "clips.csv").read_text().replace("mini", "other").splitlines()
    other = [
        rows[0],
        *(row.replace(",angry,", ",x,").replace(",happy,", ",y,") for row in rows[1:] if "sad" not in row),
    ]
    (mini_corpus / "strange.csv").write_text("\n".join(other) + "\n")
    test = [{"kind": "csv", "name": "strange", "path": str(mini_corpus / "strange.csv")}]
    split = {"kind": "cross_corpus"}
    assert "shares no class" in refused("check", project(seeds=[0], test=test, split=split))
    here("train", project(seeds=[0], training={"epochs": 1}), "--device", "cpu")
    assert "shares no class" in refused("eval", "mini", "--on", mini_corpus / "strange.csv")
    assert not list((tmp_path / "runs").rglob("predictions/strange.csv"))


def test_a_damaged_run_is_not_taken_for_finished(project, tmp_path):
    file = project(seeds=[0], training={"epochs": 1})
    here("train", file, "--device", "cpu")
    (tmp_path / "runs/mini/tiny/mini/seed-0/predictions/mini.csv").unlink()
    assert "is damaged" in refused("train", file, "--device", "cpu")


def test_stats_of_all_goes_on_past_an_experiment_that_is_not_evaluated(project, small_corpus, tmp_path):
    for name in ("one", "two"):
        here("train", project(name=name, seeds=[0], train=[small_corpus], training={"epochs": 1}), "--device", "cpu")
    here("eval", "two")
    text = refused("stats", code=1)
    assert "one" in text
    assert (tmp_path / "runs/two/stats/stats.json").is_file()


@pytest.mark.parametrize("command", ["schemas", "split", "new"])
def test_unwritable_targets_are_one_clear_error(project, tmp_path, command):
    (tmp_path / "file").write_text("")
    arguments = {"schemas": [], "split": [project(seeds=[0])], "new": ["model", "m"]}[command]
    out = tmp_path / "file" / ("x.json" if command == "new" else "x")
    assert "cannot write to" in refused(command, *arguments, "--out", out)


def test_models_are_found_from_inside_the_experiments_folder(project, tmp_path, monkeypatch):
    file = project(seeds=[0])
    for folder in ("experiments", "models"):
        (tmp_path / folder).mkdir()
    file.rename(tmp_path / "experiments/e.json")
    (tmp_path / "tiny.json").rename(tmp_path / "models/tiny.json")
    monkeypatch.chdir(tmp_path / "experiments")
    here("check", "e.json")


def test_predictions_do_not_depend_on_loader_workers_with_many_threads(project, tmp_path, monkeypatch):
    file = project(seeds=[0], training={"threads": 4, "epochs": 1})
    here("train", file, "--device", "cpu")
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "workers"))
    here("train", file, "--device", "cpu", "--loader-workers", "2")
    assert predictions(tmp_path / "workers") == predictions(tmp_path / "runs")


def test_augmented_conditions_have_their_own_folders(project, tmp_path):
    union = {
        "name": "union",
        "mode": "union",
        "transforms": {"gain": {"module": "audiomentations", "class": "Gain"}},
    }
    control = {"name": "control", "mode": "repeat", "copies": 1}
    file = project(seeds=[0], augmentations=[None, union, control], training={"epochs": 1})
    here("train", file, "--device", "cpu")
    folders = sorted(path.name for path in (tmp_path / "runs/mini").iterdir() if path.is_dir() and path.name[0] != ".")
    assert folders == ["tiny", "tiny+control", "tiny+union"]
    steps = {
        name: int(pd.read_csv(tmp_path / f"runs/mini/{name}/mini/seed-0/history.csv")["step"].iloc[-1])
        for name in folders
    }
    assert steps["tiny+union"] == steps["tiny+control"] == 2 * steps["tiny"]


def test_ctrl_c_stops_all_processes_of_a_parallel_training(project, tmp_path):
    file = project(training={"epochs": 500}, seeds=[0, 1])
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "train", str(file), "--jobs", "2"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    for line in process.stderr:
        if "epoch 2/" in line:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            alive = [Path("/proc") / pid for pid in children.read_text().split()] if children.is_file() else []
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()  # ends when the last process that holds the pipe has ended
    assert process.wait() == 130
    assert "Traceback" not in rest, rest
    assert "the same command goes on" in rest
    deadline = time.monotonic() + 60  # multiprocessing's own helper takes a moment
    while any(path.exists() for path in alive) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(path.exists() for path in alive)
