"""Files in the older format: each documented key is translated, ignored with a reason, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from ser_scripts.augment import Augmenter
from ser_scripts.errors import BadInput
from ser_scripts.specs.base import parse
from ser_scripts.specs.experiment import ExperimentSpec
from ser_scripts.specs.model import ModelSpec
from ser_scripts.specs.translate import (
    OlderExperiment,
    OlderModel,
    is_older_experiment,
    is_older_model,
    translate_experiment,
    translate_model,
)

MODEL: dict[str, Any] = {
    "model_path_or_name": "facebook/hubert-large-ll60k",
    "name": "hubert",
    "batch_size": 16,
    "per_device_batch_size": 2,
    "pooling_mode": "att_stats",
    "speaker_independent_scenario": True,
    "eval_steps": 20,
    "logging_steps": 20,
    "input_column": "path",
    "output_column": "class_id",
    "is_regression": False,
    "train_test_split": 0.7,
    "seed": 3,
    "use_batch_norm": True,
    "use_dropout": True,
    "dropout_rate": 0.3,
    "use_l2_reg": True,
    "weight_decay": 0.02,
    "number_of_training_epochs": 12,
    "continue_model_training": False,
    "skip_hp_search": True,
}
"""Every documented key of a model file."""

MODEL_TRANSLATED: dict[str, Any] = {
    "name": "hubert",
    "encoder": {"kind": "pretrained", "model_path_or_name": "facebook/hubert-large-ll60k"},
    "pooling": {"kind": "attentive_stats"},
    "head": {"relu": True, "batch_norm": True, "dropout": 0.3, "l2": 0.02},
    "freeze": {"cnn": True},
    "loss": {"class_weights": True},
    "training": {
        "epochs": 12,
        "batch_size": 2,
        "accumulation": 8,
        "learning_rate": 5e-5,
        "weight_decay": 0.0,
        "scheduler": "linear",
        "warmup": 0.0,
        "gradient_clip": 1.0,
        "eval_every": 20,
        "select": "val_loss",
        "early_stopping": {"metric": "val_loss", "patience": 4, "min_delta": 0.025},
    },
}

EXPERIMENT: dict[str, Any] = {
    "experiment_name": "italian",
    "output_path": "/scratch/outputs",
    "experiment_results_output_path": "/scratch/results",
    "model_files": "models",
    "cross_validation": 3,
    "augmentations": {
        "pitch": {"module": "audiomentations", "class": "PitchShift", "tensors": False, "min_semitones": -3, "p": 1.0},
        "noise": {"module": "torch_audiomentations", "class": "AddColoredNoise", "min_f_decay": 2, "max_f_decay": 2},
        "loud": {"module": "audiomentations", "class": "LoudnessNormalization", "min_lufs": -12, "max_lufs": -12},
        "bands": {"module": "utils.masks", "class": "FrequencyMask", "tensors": True},
    },
    "datasets": [
        {"name": "emovo", "eval_csv_path": "data/emovo"},
        {"name": "emodb", "eval_csv_path": "data/emodb/clips.csv"},
    ],
    "hp_amount_of_training_data": 0.3,
    "hp_num_trials": 5,
    "training_dataset": {"name": "emozionalmente", "data_csv": "data/emozionalmente/metadata.csv"},
}
"""Every documented key of an experiment file."""

EXPERIMENT_TRANSLATED: dict[str, Any] = {
    "name": "italian",
    "train": [[{"kind": "csv", "name": "emozionalmente", "path": "data/emozionalmente/metadata.csv"}]],
    "test": [
        {"kind": "csv", "name": "emovo", "path": "data/emovo/test.csv"},
        {"kind": "csv", "name": "emodb", "path": "data/emodb/clips.csv"},
    ],
    "models": ["models/a.json", "models/b.json"],
    "split": {"kind": "speaker_independent", "train_test_split": 0.7},
    "seeds": {"low": 0, "high": 2},
    "augmentations": [
        {
            "name": "union",
            "mode": "union",
            "transforms": {
                "pitch": {"module": "audiomentations", "class": "PitchShift", "tensors": False, "min_semitones": -3},
                "noise": {
                    "module": "torch_audiomentations", "class": "AddColoredNoise", "tensors": True,
                    "min_f_decay": 2, "max_f_decay": 2,
                },
                "loud": {
                    "module": "ser_scripts.augment.loudness", "class": "LoudnessNormalization", "tensors": False,
                    "min_lufs": -12, "max_lufs": -12,
                },
                "bands": {
                    "module": "ser_scripts.augment.frequency_mask", "class": "FrequencyMask", "tensors": False,
                },
            },
        }
    ],
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the two model files that EXPERIMENT names."""
    (tmp_path / "models").mkdir()
    for name in "ba":
        (tmp_path / f"models/{name}.json").write_text(json.dumps({**MODEL, "name": name}))
    return tmp_path


def experiment(folder: Path, low: int | None = None, high: int | None = None, **changes: Any) -> Any:
    content = {key: value for key, value in {**EXPERIMENT, **changes}.items() if value is not ...}
    return translate_experiment(content, str(folder / "old.json"), low, high)


def model(**changes: Any) -> Any:
    return translate_model(
        {key: value for key, value in {**MODEL, **changes}.items() if value is not ...}, "m/old.json"
    )


def test_golden_model() -> None:
    translated = model()
    assert translated.content == MODEL_TRANSLATED
    assert translated.messages[0].startswith(
        "m/old.json: older format, read as the present one; translated: model_path"
    )
    assert parse(ModelSpec, translated.content, source="x", kind="model").training.accumulation == 8


def test_golden_experiment(folder: Path) -> None:
    translated = experiment(folder)
    assert translated.content == EXPERIMENT_TRANSLATED
    assert translated.models == {f"models/{name}.json": {**MODEL_TRANSLATED, "name": name} for name in "ab"}
    spec = parse(ExperimentSpec, translated.content, source="x", kind="experiment")
    assert spec.seed_pairs() == [(0, 0, 0), (1, 1, 1), (2, 2, 2)]
    assert spec.augmentations[0] is not None
    Augmenter(spec.augmentations[0], seed=0, base=folder)
    assert len(translated.messages) == len(set(translated.messages))
    assert sum("older format, read as" in message for message in translated.messages) == 3


def test_defaults_are_those_of_the_older_system() -> None:
    bare = translate_model({"model_path_or_name": "x"}, "some/file.json").content
    assert bare["name"] == "file"
    assert bare["head"] == {"relu": True, "batch_norm": False, "dropout": 0.0, "l2": 0.0}
    assert bare["pooling"] == {"kind": "mean"}
    assert "layers" not in bare
    training = parse(ModelSpec, bare, source="x", kind="model").training
    assert (training.epochs, training.batch_size, training.eval_every, training.warmup) == (50, 8, 10, 0)


def test_both_key_tables_are_covered() -> None:
    """The documented keys and the ones that only the code read."""
    code_only_model = {"use_weight_encoder_layers", "pool_position", "use_relu", "model_output_dir"}
    assert OlderModel.model_fields.keys() == MODEL.keys() | code_only_model
    code_only = {
        "model_save_folder", "experiment_artifacts_output_path", "model_input_files", "checkpoint_save_folder",
        "save_steps", "save_total_limit", "run_eval", "run_grapher", "eval_steps", "logging_steps", "eval_metric",
    }  # fmt: skip
    assert OlderExperiment.model_fields.keys() == EXPERIMENT.keys() | code_only


@pytest.mark.parametrize(
    ("key", "value", "outcome"),
    [
        ("model_path_or_name", "x/y", "translated"),
        ("name", "other", "translated"),
        ("per_device_batch_size", 4, "translated"),
        ("pooling_mode", "ecapa", "translated"),
        ("eval_steps", 7, "translated"),
        ("use_batch_norm", False, "translated"),
        ("use_dropout", False, "translated"),
        ("dropout_rate", 0.1, "translated"),
        ("use_l2_reg", False, "translated"),
        ("weight_decay", 0.3, "translated"),
        ("number_of_training_epochs", 2, "translated"),
        ("use_relu", False, "translated"),
        ("use_weight_encoder_layers", True, "translated"),
        ("batch_size", 3, "ignored"),
        ("seed", 8, "ignored"),
        ("logging_steps", 8, "ignored"),
        ("model_output_dir", "./x", "ignored"),
        ("input_column", "path", "ignored"),
        ("output_column", ["class_id"], "ignored"),
        ("skip_hp_search", True, "ignored"),
        ("is_regression", False, "ignored"),
        ("pool_position", "before", "ignored"),
        ("pooling_mode", "epaca", "did you mean 'ecapa'"),
        ("pooling_mode", "median", "did you mean 'mean'"),
        ("is_regression", True, "output_column names 'class_id'; it can be one or several of valence, arousal"),
        ("skip_hp_search", "maybe", "boolean"),
        ("input_column", "file", "must be 'path': rename the column"),
        ("output_column", ["arousal", "valence"], "must be 'class_id'"),
        ("continue_model_training", True, "not a finished run folder.*leave the key out"),
        ("eval_steps", 0.1, "fractional part"),
        ("train_test_split", 1, "less than 1"),
        ("use_dropout", "perhaps", "boolean"),
        ("name", "a/b", "letters, digits"),
        ("pool_position", "between", "'before' or 'after'"),
        ("poolingmode", "mean", "unknown key; did you mean 'pooling_mode'"),
    ],
)
def test_what_becomes_of_each_model_key(key: str, value: Any, outcome: str) -> None:
    if outcome == "translated":
        assert model(**{key: value}).content != MODEL_TRANSLATED
    elif outcome == "ignored":
        translated = model(**{key: value})
        assert translated.content == MODEL_TRANSLATED
        assert sum(f": {key} ignored: " in message for message in translated.messages) == 1
    else:
        with pytest.raises(BadInput, match=rf"(?s)m/old\.json.*{key}.*{outcome}"):
            model(**{key: value})


def test_a_search_of_the_learning_rate(folder: Path) -> None:
    """The one thing that the older system searched, for the models that do not skip it."""
    (folder / "models/b.json").write_text(json.dumps({**MODEL, "name": "b", "skip_hp_search": False}))
    translated = experiment(folder, hp_num_trials=9, hp_amount_of_training_data=...)
    assert translated.content.pop("search") == {
        "parameters": {"training.learning_rate": {"kind": "float", "low": 5e-5, "high": 1e-3, "log": True}},
        "models": ["b"],
        "num_trials": 9,
        "amount_of_training_data": 0.3,
        "metric": "val_loss",
    }
    assert translated.content == EXPERIMENT_TRANSLATED
    assert not any("hp_num_trials ignored" in message for message in translated.messages)
    assert "hp_num_trials" in translated.messages[0]
    assert any("the learning rate of b is searched from 5e-05 to 0.001 by 9 trials" in m for m in translated.messages)
    assert model(skip_hp_search=False).content == MODEL_TRANSLATED
    assert any("the experiment says what is searched" in m for m in model(skip_hp_search=False).messages)


def test_layers_and_switches() -> None:
    weighted = model(use_weight_encoder_layers=True, pool_position="before")
    assert weighted.content["layers"] == {"use": "weighted", "pool_position": "before"}
    assert any("softmax" in message for message in weighted.messages)
    off = model(use_dropout=False, use_l2_reg=False)
    assert (off.content["head"]["dropout"], off.content["head"]["l2"]) == (0.0, 0.0)
    assert any('dropout_rate ignored: it has no effect without "use_dropout": true' in m for m in off.messages)
    assert any("weight_decay ignored" in m for m in off.messages)


@pytest.mark.parametrize(
    ("key", "value", "outcome"),
    [
        ("experiment_name", "other", "translated"),
        ("cross_validation", 5, "translated"),
        ("augmentations", {}, "translated"),
        ("datasets", [], "translated"),
        ("training_dataset", {"name": "t", "data_csv": "x.csv"}, "translated"),
        ("model_files", "models/a.json", "translated"),
        ("output_path", "x", "ignored"),
        ("experiment_results_output_path", "x", "ignored"),
        ("model_save_folder", "x", "ignored"),
        ("experiment_artifacts_output_path", "x", "ignored"),
        ("checkpoint_save_folder", "x", "ignored"),
        ("hp_amount_of_training_data", 0.5, "ignored"),
        ("hp_num_trials", 9, "ignored"),
        ("save_steps", 50, "ignored"),
        ("save_total_limit", -1, "ignored"),
        ("run_eval", True, "ignored"),
        ("run_grapher", True, "ignored"),
        ("logging_steps", 5, "ignored"),
        ("eval_metric", "accuracy", "ignored"),
        ("model_input_files", "elsewhere", "ignored"),
        ("hp_num_trials", 0, "greater than or equal to 1"),
        ("hp_amount_of_training_data", 30, "less than or equal to 1"),
        ("eval_metric", "f1score", "nearest: 'accuracy'"),
        ("eval_metric", "ccc", "belongs to regression"),
        ("eval_metric", "acuracy", "did you mean 'accuracy'"),
        ("eval_steps", 0.5, "fractional part"),
        ("cross_validation", 0, "greater than or equal to 1"),
        ("training_dataset", [], "expected an object"),
        ("training_dataset", {"name": "t"}, r"training_dataset\.data_csv: required key is missing"),
        ("datasets", [{"name": "t", "csv": "x"}], r"datasets\.0\.csv: unknown key"),
        ("datasets", [{"name": "emozionalmente", "eval_csv_path": "x"}], "'emozionalmente' is the training set"),
        ("datasets", [{"name": "t", "eval_csv_path": "x"}] * 2, "test: 't' stands there twice"),
        ("model_files", "nowhere", "'nowhere' does not exist; looked for"),
        ("model_files", "empty", "folder without .json files"),
        ("model_files", ..., "required key is missing"),
        ("augmentations", {"x": {"module": "audiomentations"}}, r"augmentations\.x: required key 'class'"),
        ("augmentation", {}, "unknown key; did you mean 'augmentations'"),
    ],
)
def test_what_becomes_of_each_experiment_key(key: str, value: Any, outcome: str, folder: Path) -> None:
    (folder / "empty").mkdir()
    if outcome == "translated":
        assert experiment(folder, **{key: value}).content != EXPERIMENT_TRANSLATED
    elif outcome == "ignored":
        translated = experiment(folder, **{key: value})
        assert translated.content == EXPERIMENT_TRANSLATED
        assert sum(f"old.json: {key} ignored: " in message for message in translated.messages) == 1
    else:
        with pytest.raises(BadInput, match=outcome) as caught:
            experiment(folder, **{key: value})
        assert "old.json" in str(caught.value)


def test_model_input_files_and_eval_steps_of_the_experiment(folder: Path) -> None:
    (folder / "models/a.json").write_text(json.dumps({"model_path_or_name": "x", "train_test_split": 0.7}))
    translated = experiment(folder, model_files=..., model_input_files="models", eval_steps=33)
    assert translated.models["models/a.json"]["training"]["eval_every"] == 33
    assert translated.models["models/b.json"]["training"]["eval_every"] == 20, "the model's own value wins"


@pytest.mark.parametrize(
    ("cross_validation", "low", "high", "expected"),
    [
        (..., None, None, (0, 0)),
        (110, None, None, (0, 109)),
        (110, 5, 7, (5, 7)),
        (..., 0, 0, (0, 0)),
        (4, 10, None, (10, 13)),
        (4, None, 10, (7, 10)),
        (4, None, 1, (0, 1)),
        (4, 3, 2, None),
        (4, -1, 2, None),
    ],
)
def test_seed_range(cross_validation: Any, low: int | None, high: int | None, expected: Any, folder: Path) -> None:
    """--low_seed and --high_seed are included and win over cross_validation."""
    if expected is None:
        with pytest.raises(BadInput, match="--low_seed"):
            experiment(folder, low, high, cross_validation=cross_validation)
        return
    translated = experiment(folder, low, high, cross_validation=cross_validation)
    assert tuple(translated.content["seeds"].values()) == expected
    said = any("win over cross_validation" in message for message in translated.messages)
    assert said == (cross_validation is not ... and (low, high) != (None, None))


def test_models_must_agree_on_the_split(folder: Path) -> None:
    (folder / "models/b.json").write_text(json.dumps({**MODEL, "train_test_split": 0.8}))
    with pytest.raises(BadInput, match=r"(?s)agree on the split.*a.json: speaker_independent 0.7.*b.json.* 0.8"):
        experiment(folder)
    present = {"name": "present", "encoder": {"model_path_or_name": "x"}}
    (folder / "models/b.json").write_text(json.dumps(present))
    translated = experiment(folder)
    assert translated.content == EXPERIMENT_TRANSLATED, "a model file of the present format has no say in the split"
    assert list(translated.models) == ["models/a.json"]


def test_speakers_not_kept_apart(folder: Path) -> None:
    translated = experiment(folder, model_files="models/a.json")
    (folder / "models/a.json").write_text(
        json.dumps({**MODEL, "speaker_independent_scenario": False, "train_test_split": 0.8})
    )
    translated = experiment(folder, model_files="models/a.json")
    assert translated.content["split"] == {"kind": "random", "proportions": [0.64, 0.16, 0.2]}
    assert any("NOT COMPARABLE" in message for message in translated.messages)


def test_continued_training_starts_from_a_run(tmp_path: Path) -> None:
    run = tmp_path / "runs/e/m/c/seed-0"
    run.mkdir(parents=True)
    encoder = {"kind": "pretrained", "model_path_or_name": "x/base", "revision": "abc", "dtype": "float32"}
    (run / "run.json").write_text("{}")
    (run / "spec.json").write_text(json.dumps({"model": {"encoder": encoder}}))
    content = {**MODEL, "model_path_or_name": "runs/e/m/c/seed-0", "continue_model_training": True}
    translated = translate_model(content, str(tmp_path / "old.json")).content
    assert translated == {**MODEL_TRANSLATED, "encoder": encoder, "init_from": "runs/e/m/c/seed-0"}
    (run / "spec.json").write_text("{}")
    with pytest.raises(BadInput, match=r"spec\.json: model\.encoder"):
        translate_model(content, str(tmp_path / "old.json"))


def test_detectors() -> None:
    assert is_older_experiment(EXPERIMENT)
    assert is_older_experiment({"experiment_name": "x"})
    assert not is_older_experiment(EXPERIMENT_TRANSLATED)
    assert not is_older_experiment({"name": "x", "train": [], "experiment_name": "slip"})
    assert not is_older_experiment([])
    assert is_older_model(MODEL)
    assert is_older_model({"model_path_or_name": "x"})
    assert not is_older_model(MODEL_TRANSLATED)
    assert not is_older_model({"name": "x"})
    assert not is_older_model(None)


def test_the_guide_names_every_key() -> None:
    guide = (Path(__file__).parents[1] / "docs/older-json.md").read_text()
    for key in OlderExperiment.model_fields.keys() | OlderModel.model_fields.keys():
        assert f"| `{key}`" in guide, key
