"""Configurations of the older two-tier system: every key is taken over, refused, or ignored with a word."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ser_scripts.cli import app
from ser_scripts.errors import BadInput
from ser_scripts.modeling.encoders import build_encoder
from ser_scripts.modeling.model import SerModel
from ser_scripts.runs.plan import load_experiment, make_plan
from ser_scripts.settings import folders
from ser_scripts.specs.base import parse
from ser_scripts.specs.model import ModelSpec
from ser_scripts.specs.two_tier import IGNORED, TwoTier, read_config, translate, with_flags, write_translation

DEFAULTS = """
audio: {sample_rate: 16000, n_mfcc: 40, n_fft: 512, hop_length: 160, win_length: 400, f_min: 20.0, f_max: 8000.0}
augmentation:
  enabled: true
  time_stretch_prob: 0.3
  time_stretch_rate: !!python/tuple [0.8, 1.2]
  pitch_shift_prob: 0.3
  pitch_shift_steps: !!python/tuple
  - -2
  - 2
  noise_injection_prob: 0.3
  noise_level: !!python/tuple [0.001, 0.01]
  mixup_prob: 0.2
  mixup_alpha: 0.4
model: {n_mfcc: 40, num_classes: 6, conv_channels: [128, 256], lstm_hidden: 128, lstm_layers: 2, dropout: 0.2,
        use_depthwise: true, use_temp_scale: true, use_residual: true, attention_heads: 4}
training:
  epochs: 50
  batch_size: 16
  lr: 1e-3
  weight_decay: 1e-4
  warmup_epochs: 5
  patience: 10
  min_delta: 1e-4
  grad_clip: 1.0
  label_smoothing: 0.1
  class_weights: true
  scheduler: cosine
  scheduler_params:
    cosine: {T_max: 50, eta_min: 1e-6}
    plateau: {factor: 0.5, patience: 5, min_lr: 1e-6}
    step: {step_size: 10, gamma: 0.5}
data: {train_csv: train.csv, val_csv: val.csv, test_csv: test.csv, cache_dir: feat_cache, num_workers: 2,
       val_split: 0.1, pin_memory: true, max_audio_length: 10, min_audio_length: 0.5}
system: {device: auto, seed: 42, amp: true, out_dir: checkpoints, log_dir: logs, save_best_only: false,
         save_interval: 5}
"""
SHIPPED = Path(__file__).parents[1] / "models/compact.json"


def config(**parts: dict[str, Any]) -> dict[str, Any]:
    return {"model": {"num_classes": 6, **parts.pop("model", {})}, **parts}


@pytest.fixture
def folder(mini_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration and its three CSV files, by speaker, of the mini corpus."""
    monkeypatch.setenv("SER_CACHE", str(tmp_path / "cache"))
    text = DEFAULTS.replace("num_classes: 6", "num_classes: 3").replace("feat_cache", "cache")
    (tmp_path / "mine.yaml").write_text(text)
    sides = {"train": ("f1", "f2", "m1", "m2"), "val": ("f3", "m3"), "test": ("f4", "m4")}
    clips = [line.split(",") for line in (mini_corpus / "clips.csv").read_text().splitlines()[1:]]
    for side, actors in sides.items():
        lines = [f"{mini_corpus / path},{label}" for path, label, actor, *_ in clips if actor in actors]
        columns = "path,label" if side == "train" else "file_path,emotion_code"
        (tmp_path / f"{side}.csv").write_text("\n".join([columns, *lines]) + "\n")
    return tmp_path


def test_the_default_configuration_is_the_shipped_model() -> None:
    done = translate(yaml.load(DEFAULTS.replace("!!python/tuple", ""), yaml.SafeLoader), "compact.yaml")
    mine = parse(ModelSpec, done.model, source="x", kind="model")
    shipped = parse(ModelSpec, json.loads(SHIPPED.read_text()), source="x", kind="model")
    assert mine.model_copy(update={"description": shipped.description, "training": shipped.training}) == shipped
    for key in ("epochs", "batch_size", "learning_rate", "weight_decay", "scheduler", "warmup", "min_learning_rate"):
        assert getattr(mine.training, key) == getattr(shipped.training, key), key
    assert mine.training.early_stopping == shipped.training.early_stopping
    model = SerModel(mine, "abcdef", encoder=build_encoder(mine.encoder, models=None))
    assert sum(parameter.numel() for parameter in model.parameters()) == 927_056
    assert translate({"model": {"num_classes": 6}}, "compact.yaml").model == done.model


def test_the_augmentation_is_taken_over() -> None:
    (augmentation,) = translate(config(), "c.yaml").experiment["augmentations"]
    assert augmentation["probability"] == 0.3
    assert augmentation["transforms"]["time_stretch"]["min_rate"] == 0.8
    assert augmentation["transforms"]["pitch_shift"]["max_semitones"] == 2
    assert augmentation["transforms"]["noise"]["max_amplitude"] == 0.01
    assert augmentation["batch"] == {"kind": "mixup", "alpha": 0.4, "probability": 0.2}
    assert [mask.get("max_time_frames", mask.get("max_frequency_bins")) for mask in augmentation["features"]] == [8, 25]
    assert translate(config(augmentation={"enabled": False}), "c.yaml").experiment["augmentations"] == [None]
    (bare,) = translate(
        config(
            augmentation={"time_stretch_prob": 0, "pitch_shift_prob": 0.5, "noise_injection_prob": 0.5, "mixup_prob": 0}
        ),
        "c.yaml",
    ).experiment["augmentations"]
    assert sorted(bare["transforms"]) == ["noise", "pitch_shift"]
    assert bare["probability"] == 0.5
    assert "batch" not in bare
    (mixed,) = translate(config(augmentation={"noise_injection_prob": 0.1}), "c.yaml").experiment["augmentations"]
    assert mixed["probabilities"] == {"time_stretch": 0.3, "pitch_shift": 0.3, "noise": 0.1}


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"scheduler": "plateau"}, {"plateau": {"factor": 0.5, "patience": 5}, "min_learning_rate": 1e-6}),
        ({"scheduler": "step", "scheduler_params": {"step": {"step_size": 3}}}, {"step": {"epochs": 3, "factor": 0.5}}),
        ({"warmup_epochs": 0, "epochs": 30}, {"warmup": 0, "epochs": 30}),
        ({"grad_clip": 0}, {"gradient_clip": None}),
    ],
)
def test_the_training_is_taken_over(training: dict[str, Any], expected: dict[str, Any]) -> None:
    made = translate(config(training=training), "c.yaml").model["training"]
    assert {key: made[key] for key in expected} == expected


def test_every_key_is_known_and_what_is_ignored_is_said() -> None:
    content = yaml.load(DEFAULTS.replace("!!python/tuple", ""), yaml.SafeLoader)
    for part, kind in TwoTier.model_fields.items():
        assert content[part].keys() == kind.annotation.model_fields.keys(), part  # type: ignore[union-attr]
    messages = "\n".join(translate(content, "c.yaml").messages)
    for key in IGNORED:
        assert f"c.yaml: {key} ignored: " in messages
    assert "cosine.T_max ignored" in messages
    assert "scheduler_params.plateau ignored: the scheduler is 'cosine'" in messages
    assert "dns64" in messages


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"modell": {}}, "modell: unknown key; did you mean 'model'"),
        ({"training": {"learning_rate": 1}}, r"training\.learning_rate: unknown key"),
        ({"training": {"scheduler": "cosin"}}, "'cosine'"),
        ({"training": {"epochs": 5}}, r"warmup_epochs \(5\) must lie below training\.epochs \(5\)"),
        ({"model": {"n_mfcc": 13}}, r"model\.n_mfcc \(13\) and audio\.n_mfcc \(40\) differ"),
        ({"audio": {"f_max": 9000}}, "half the sample rate"),
    ],
)
def test_what_cannot_be_honoured_is_refused(content: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        translate(content, "c.yaml")


def test_tuples_are_read_and_other_objects_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("augmentation:\n  noise_level: !!python/tuple [0.1, 0.2]\n")
    assert read_config(file) == {"augmentation": {"noise_level": [0.1, 0.2]}}
    file.write_text("system: !!python/object/apply:os.system ['touch harm']\n")
    with pytest.raises(BadInput, match=r"c\.yaml is no plain YAML.*os\.system"):
        read_config(file)
    file.write_text("- 1\n")
    with pytest.raises(BadInput, match="expected keys and values, found list"):
        read_config(file)


def test_flags_win_over_the_file() -> None:
    content, said = with_flags(
        {"training": {"epochs": 50, "lr": 0.1}},
        ["--epochs", "7", "--lr=1e-4", "--num_classes", "3", "--no_augmentation", "--amp", "--resume", "last.pt"],
    )
    older = parse(TwoTier, content, source="c.yaml", kind="configuration")
    assert (older.training.epochs, older.training.lr, older.model.num_classes) == (7, 1e-4, 3)
    assert not older.augmentation.enabled
    assert said == ["--resume ignored: the same `ser train` goes on where a run stopped"]
    with pytest.raises(BadInput, match="--epoch: unknown flag; did you mean 'epochs'"):
        with_flags({}, ["--epoch", "3"])
    with pytest.raises(BadInput, match="--epochs: its value is missing"):
        with_flags({}, ["--epochs"])


def test_what_is_written_can_be_trained(folder: Path) -> None:
    result = CliRunner().invoke(
        app, ["translate", str(folder / "mine.yaml"), "--out", str(folder / "new"), "--epochs", "12", "--seed", "7"]
    )
    assert result.exit_code == 0, result.output
    assert "data.cache_dir ignored" in result.stderr
    assert [Path(line).name for line in result.stdout.splitlines()] == [
        "mine.json",
        "mine-model.json",
        "mine-clips.csv",
        "mine-split.csv",
    ]
    experiment = load_experiment(folder / "new/mine.json")
    assert experiment.models[0].training.epochs == 12
    (run,) = make_plan(experiment, folders(), progress=lambda text: None).runs
    assert run.seed == 7
    assert run.labels == ("angry", "happy", "sad")
    assert run.split.table["split"].value_counts().to_dict() == {"train": 48, "validation": 24, "test": 24}
    with pytest.raises(BadInput, match=r"mine\.json is there already"):
        write_translation(folder / "mine.yaml", folder / "new")


def test_the_command_line_of_its_train_py_works_as_it_was(folder: Path) -> None:
    (folder / "bare.yaml").write_text("model: {num_classes: 3}\n")
    sides = [f"--{side}_csv={side}.csv" for side in ("train", "val", "test")]
    flags = ["--config", str(folder / "bare.yaml"), *sides, "--no_augmentation", "--epochs", "7", "--amp"]
    for number, order in enumerate((flags, [*flags[2:], *flags[:2]])):
        out = folder / f"new-{number}"
        result = CliRunner().invoke(app, ["translate", *order, "--out", str(out)])
        assert result.exit_code == 0, result.output
        assert load_experiment(out / "bare.json").models[0].training.epochs == 7
    with pytest.raises(BadInput, match=r"mine\.yaml: unknown flag"):
        app(["translate", str(folder / "mine.yaml"), *flags], standalone_mode=False)
    with pytest.raises(BadInput, match="name the configuration"):
        app(["translate"], standalone_mode=False)


def test_csv_files_that_do_not_fit_are_named(folder: Path) -> None:
    def refused(flags: list[str], said: str) -> None:
        with pytest.raises(BadInput, match=said):
            write_translation(folder / "mine.yaml", folder / "new", flags)
        assert not (folder / "new").exists()

    refused(["--num_classes", "4"], "num_classes is 4, but the CSV files have 3 labels: angry, happy, sad")
    refused(["--train_csv", "gone.csv"], r"gone\.csv: no such CSV file; looked for")
    (folder / "odd.csv").write_text("file,label\na.wav,sad\n")
    refused(["--train_csv", "odd.csv"], "exactly one column of path, file_path; it has file, label")
    text = (folder / "mine.yaml").read_text().replace("test_csv: test.csv, ", "")
    (folder / "mine.yaml").write_text(text)
    refused([], r"data\.test_csv: required key is missing")
