"""The whole path on real speech with a real encoder: EmoDB, Whisper tiny.en."""

import json
from pathlib import Path

import pandas as pd
import pytest

from ser_scripts.cli import app

ROOT = Path(__file__).parent.parent


@pytest.mark.real
def test_two_epochs_of_whisper_tiny_beat_the_shortcuts_on_emodb(ser_data, ser_models, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SER_DATA", str(ser_data))
    monkeypatch.setenv("SER_MODELS", str(ser_models))
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SER_CACHE", str(tmp_path / "cache"))
    file = str(ROOT / "experiments" / "emodb.json")

    def ser(*arguments):
        app([*arguments], standalone_mode=False)

    ser("train", file, "--high-seed", "0", "--set", "model.training.epochs=2", "--device", "cpu")
    ser("eval", file)
    row = pd.read_csv(tmp_path / "runs/emodb/results.csv").iloc[0]
    shortcuts = pd.read_csv(tmp_path / "runs/emodb/shortcut_baselines.csv")
    assert row["n_test"] == 126
    assert row["n_test_speakers"] == 2
    assert row["uar"] > 0.45, "chance is .143; two epochs reach about .6"
    assert row["uar"] > shortcuts["uar"].max() + 0.1
    record = json.loads((tmp_path / "runs/emodb/whisper-tiny-en/emodb/seed-0/run.json").read_text())
    assert record["splits_possible"] == 400
    assert record["encoder"]["name"] == "openai/whisper-tiny.en"
    assert record["dropped"] == []
