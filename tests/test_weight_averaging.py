"""The running average of the weights: its arithmetic, what it holds of a model, and whole runs tested with it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ser_eval import run_folder
from ser_scripts.errors import BadInput
from ser_scripts.modeling.encoders import build_encoder
from ser_scripts.modeling.model import SerModel
from ser_scripts.specs.base import digest, parse
from ser_scripts.specs.model import ModelSpec, TrainingSpec, WeightAverageSpec
from ser_scripts.training.averaging import FILE, WeightAverage, decay_after
from tests.tiny import killed_before, outcome, ser

COMPACT: dict[str, Any] = {
    "kind": "compact",
    "features": {"mels": 24, "coefficients": 12},
    "input_norm": True,
    "channels": [8],
    "lstm_layers": 1,
    "lstm_hidden": 6,
}


def compact(**parts: Any) -> SerModel:
    spec = parse(ModelSpec, {"name": "m", "encoder": COMPACT, **parts}, source="m.json", kind="model")
    torch.manual_seed(0)
    return SerModel(spec, ("a", "b", "c"), encoder=build_encoder(spec.encoder, models=None))


def numbers(model: SerModel) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy().astype(np.float64) for name, value in model.state_dict().items()}


def change(model: SerModel, seed: int) -> dict[str, np.ndarray]:
    """Other weights, statistics and counters, as an update makes them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            else:
                tensor.add_(1)
    return numbers(model)


# Arithmetic


@pytest.mark.parametrize(("decay", "start", "updates"), [(0.9, 0.0, 30), (0.5, 0.25, 8), (0.999, 0.5, 6)])
def test_the_average_is_that_of_its_formula_for_weights_and_running_statistics(
    decay: float, start: float, updates: int
) -> None:
    model = compact()
    average = WeightAverage(model, WeightAverageSpec(decay=decay, start=start), updates=updates)
    expected: dict[str, np.ndarray] = {}
    for step in range(1, updates + 1):
        now = change(model, step)
        average.update(step)
        taken = step - int(start * updates)  # of the weights that count, which one this is, from 1
        if taken < 1:
            with average.in_place():  # nothing to average yet
                assert all(np.array_equal(value, now[name]) for name, value in numbers(model).items())
            continue
        keep = 0.0 if taken == 1 else min(decay, taken / (9 + taken))
        expected = {name: keep * expected.get(name, 0.0) + (1 - keep) * value for name, value in now.items()}
        expected |= {name: value for name, value in now.items() if name.endswith("num_batches_tracked")}
    assert average.count == updates - int(start * updates)
    with average.in_place():
        inside = numbers(model)
        assert any("running_var" in name for name in inside)
        for name, value in inside.items():
            np.testing.assert_allclose(value, expected[name], rtol=0, atol=2e-6, err_msg=name)
    after = numbers(model)
    assert all(np.array_equal(value, now[name]) for name, value in after.items())
    assert any(not np.array_equal(value, inside[name]) for name, value in after.items())


@given(st.integers(1, 10_000), st.floats(0.01, 0.99999))
def test_the_decay_rises_to_its_end(count: int, decay: float) -> None:
    assert 0 < decay_after(count, decay) <= decay_after(count + 1, decay) <= decay
    if count >= 10 / (1 - decay):
        assert decay_after(count, decay) == decay


@given(st.floats(0.01, 0.99999), st.integers(0, 40))
def test_an_average_of_equal_weights_is_these_weights(decay: float, updates: int) -> None:
    model = compact()
    before = numbers(model)
    average = WeightAverage(model, WeightAverageSpec(decay=decay), updates=updates)
    for step in range(1, updates + 1):
        average.update(step)
    with average.in_place():
        assert all(np.array_equal(value, before[name]) for name, value in numbers(model).items())


def test_an_error_inside_leaves_the_weights_of_the_training() -> None:
    model = compact()
    average = WeightAverage(model, WeightAverageSpec(), updates=9)
    average.update(1)
    now = change(model, 1)
    average.update(2)
    with pytest.raises(KeyError), average.in_place():
        raise KeyError
    assert all(np.array_equal(value, now[name]) for name, value in numbers(model).items())


@pytest.mark.parametrize(
    ("parts", "held"),
    [
        ({"freeze": {"encoder": True}}, lambda name: name.startswith("head.")),
        ({"freeze": {"cnn": False}}, lambda name: True),
        ({"freeze": {"gradual": 1, "cnn": False}}, lambda name: True),  # what is trained later is averaged, too
        ({"adapter": {"kind": "lora", "rank": 2}}, lambda name: name.startswith("head.") or "lora" in name),
    ],
)
def test_only_what_is_ever_trained_is_held_twice(parts: dict[str, Any], held: Any) -> None:
    config = {"model_type": "whisper", "d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2}
    encoder = {"kind": "random", "config": {**config, "encoder_ffn_dim": 16, "num_mel_bins": 80}}
    model = compact(encoder=encoder, **parts)
    average = WeightAverage(model, WeightAverageSpec(), updates=5)
    positions = [name for name, parameter in model.named_parameters() if "embed_positions" in name]
    assert positions  # of Whisper never trained
    trained = {name for name, _ in model.named_parameters() if held(name)} - set(positions)
    copied = {name.replace("/", ".").removeprefix("module.") for name, _ in average._averaged.named_parameters()}
    assert copied == trained != set()


# Settings


def test_a_training_without_it_is_written_as_before_and_one_with_it_has_another_identity() -> None:
    plain, averaged = TrainingSpec(), TrainingSpec.model_validate({"weight_average": {}})
    assert "weight_average" not in plain.model_dump(mode="json")
    assert averaged.model_dump(mode="json")["weight_average"] == {"decay": 0.999, "start": 0.0}
    assert averaged.model_dump(mode="json", exclude={"weight_average"}) == plain.model_dump(mode="json")
    assert digest(plain) != digest(averaged)
    assert digest(TrainingSpec.model_validate({"weight_average": None})) == digest(plain)
    assert TrainingSpec.model_validate(averaged.model_dump(mode="json")) == averaged


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"training": {"weight_average": {"decay": 1.0}}}, r"weight_average\.decay: 1\.0 is not valid"),
        ({"training": {"weight_average": {"start": 1}}}, r"weight_average\.start: 1 is not valid"),
        ({"training": {"weight_average": {"dekay": 0.9}}}, r"did you mean 'decay'"),
        ({"encoder": {"model_path_or_name": "a/b", "frozen": True}}, r"weight_average does not go with a frozen enc"),
        ({"encoder": {"model_path_or_name": "a/b", "dtype": "bfloat16"}}, r"'bf16'"),
    ],
)
def test_settings_that_cannot_work_are_refused(content: dict[str, Any], said: str) -> None:
    content = {"name": "m", "encoder": COMPACT, "training": {"weight_average": {}}, **content}
    with pytest.raises(BadInput, match=said):
        parse(ModelSpec, content, source="m.json", kind="model")


def test_a_head_on_an_encoder_with_short_numbers_may_be_averaged() -> None:
    encoder = {"model_path_or_name": "a/b", "dtype": "bfloat16"}
    training = {"weight_average": {}}
    content = {"name": "m", "encoder": encoder, "freeze": {"encoder": True}, "training": training}
    assert parse(ModelSpec, content, source="m.json", kind="model").training.weight_average is not None


# Whole runs

AVERAGE = {"weight_average": {"decay": 0.9}}
WHISPER = {"model_type": "whisper", "d_model": 32, "encoder_layers": 2, "encoder_attention_heads": 2}
RANDOM = {"encoder": {"kind": "random", "config": {**WHISPER, "encoder_ffn_dim": 64, "num_mel_bins": 80}}}
IMAGES = {"sample_rate_hz": 16_000, "clip_samples": 16_000, "mels": 48, "fft_samples": 512, "hop_samples": 256}
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "fine-tuned, bf16, gradient checkpointing": (RANDOM, {"precision": "bf16", "gradient_checkpointing": True}),
    "lora": ({**RANDOM, "adapter": {"kind": "lora", "rank": 2, "dropout": 0.1}}, {"head_learning_rate": 1e-2}),
    "gradual": ({**RANDOM, "freeze": {"gradual": 1, "cnn": False}}, {"layer_decay": 0.5, "accumulation": 2}),
    "compact, from the middle on": ({"encoder": COMPACT}, {"weight_average": {"decay": 0.9, "start": 0.5}}),
    "spectrogram CNN": ({"encoder": {"kind": "spectrogram_cnn", "features": IMAGES}, "head": {"relu": False}}, {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_training_ends_with_the_same_bytes(
    way: str, project: Any, small_corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, training = WAYS[way]
    file = project(model, {**AVERAGE, "epochs": 3, "select": "last", **training}, seeds=[0], train=[small_corpus])
    assert ser("train", file, "--device", "cpu") == 0
    whole = outcome(tmp_path / "runs")
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "killed"))
    with killed_before(2):
        ser("train", file, "--device", "cpu")
    assert len(list((tmp_path / "killed").rglob(FILE))) == 1
    assert ser("train", file, "--device", "cpu") == 0
    assert outcome(tmp_path / "killed") == whole
    record = run_folder.read_json(next((tmp_path / "killed").rglob("run.json")))
    assert record["resumed_from_step"] is not None
    assert not list((tmp_path / "killed").rglob(FILE))


def test_validation_selection_and_saved_weights_are_those_of_the_average(
    project: Any, small_corpus: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training itself takes the same way as without it; the saved weights are the average, summed up by hand."""
    steps: list[dict[str, np.ndarray]] = []
    training = {"epochs": 3, "learning_rate": 1e-2, "select": "val_loss"}
    file = project({"encoder": COMPACT}, training, seeds=[0], train=[small_corpus])
    assert ser("train", file, "--device", "cpu") == 0
    plain = run_folder.read_table(next((tmp_path / "runs").rglob("history.csv")), run_folder.HISTORY_COLUMNS)
    for name in ("spec.json", "model/config.json"):
        content = next((tmp_path / "runs").rglob(name)).read_text(encoding="utf-8")
        assert '"gradient_clip"' in content
        assert "weight_average" not in content

    update = WeightAverage.update

    def spy(self: WeightAverage, step: int) -> None:
        update(self, step)
        steps.append(
            {name.replace("/", "."): tensor.detach().numpy().astype(np.float64).copy()
             for name, tensor in [*self._changing.named_parameters(), *self._changing.named_buffers()]}
        )  # fmt: skip

    monkeypatch.setattr(WeightAverage, "update", spy)
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "averaged"))
    content = json.loads((tmp_path / "tiny.json").read_text())
    content["training"] |= AVERAGE
    (tmp_path / "tiny.json").write_text(json.dumps(content))
    assert ser("train", file, "--device", "cpu") == 0
    run = next((tmp_path / "averaged").rglob("run.json")).parent
    history = run_folder.read_table(run / "history.csv", run_folder.HISTORY_COLUMNS)
    assert list(history["train_loss"]) == list(plain["train_loss"])
    assert list(history["val_loss"]) != list(plain["val_loss"])
    best = run_folder.read_json(run / "run.json")["best_step"]
    expected = steps[0]
    for number, now in enumerate(steps[1:best], start=1):
        keep = min(0.9, (1 + number) / (10 + number))
        expected = {name: keep * expected[name] + (1 - keep) * value for name, value in now.items()}
    saved = load_file(run / "model" / "model.safetensors")
    assert expected.keys() <= saved.keys()
    assert all(name in expected or name.endswith("num_batches_tracked") for name in saved)
    for name, value in expected.items():
        np.testing.assert_allclose(saved[name].numpy(), value, rtol=1e-6, atol=1e-5, err_msg=name)
    table = run_folder.read_predictions(run / run_folder.VALIDATION)  # of the saved weights
    truth = [table[run_folder.PROBABILITY_PREFIX + label].iloc[row] for row, label in enumerate(table["truth"])]
    measured = float(history["val_loss"].iloc[[int(step) for step in history["step"]].index(best)])
    assert -np.log(np.asarray(truth, dtype=np.float64)).mean() == pytest.approx(measured, abs=1e-5)
    assert any(np.abs(steps[best - 1][name] - value).max() > 1e-3 for name, value in expected.items())


def test_the_last_weights_are_those_of_the_average_too(project: Any, small_corpus: Any, tmp_path: Path) -> None:
    import soundfile

    training = {**AVERAGE, "epochs": 2, "save_model": "last", "select": "last"}
    file = project({"encoder": COMPACT}, training, seeds=[0], train=[small_corpus])
    assert ser("train", file, "--device", "cpu") == 0
    run = next((tmp_path / "runs").rglob("run.json")).parent
    model, table = SerModel.load(run / "model"), run_folder.read_predictions(run / "predictions/mini.csv")
    corpus = Path(small_corpus["path"]).parent
    samples = soundfile.read(corpus / table["path"].iloc[0], dtype="float32")[0]
    batch = model.encoder.collate([model.encoder.features(samples)])
    with torch.inference_mode():
        probabilities = model(**batch)["logits"].softmax(-1)[0].numpy()
    columns = [run_folder.PROBABILITY_PREFIX + label for label in model.labels]
    np.testing.assert_allclose(table[columns].iloc[0].to_numpy(float), probabilities, atol=1e-5)


@pytest.mark.real
def test_validation_jumps_less_from_epoch_to_epoch_on_real_speech(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ser_data: Path
) -> None:
    """The compact model on six speakers of EmoDB, all emotions, with and without the average: the same training."""
    labels = {"W": "angry", "L": "bored", "E": "disgusted", "A": "fearful", "F": "happy", "T": "sad", "N": "neutral"}
    genders = dict.fromkeys(("03", "10", "11"), "male") | dict.fromkeys(("08", "09", "13"), "female")
    rows = ["path,class_id,actor,gender"]
    for file in sorted((ser_data / "emodb").rglob("*.*")):
        if file.suffix in (".wav", ".flac") and file.stem[:2] in genders:
            rows.append(f"{file},{labels[file.stem[5]]},{file.stem[:2]},{genders[file.stem[:2]]}")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    encoder = {"kind": "compact", "features": {"kind": "log_mel", "mels": 32}, "input_norm": True, "lstm_layers": 0}
    encoder |= {"channels": [32, 48], "strides": [2, 2]}
    training = {
        "epochs": 10,
        "batch_size": 8,
        "learning_rate": 3e-3,
        "scheduler": "constant",
        "threads": 1,
        "early_stopping": None,
        "track": [],
    }
    experiment = {
        "name": "real",
        "train": [{"kind": "csv", "name": "some", "path": "clips.csv"}],
        "models": ["model.json"],
        "split": {"kind": "speaker_independent", "proportions": [0.34, 0.33, 0.33]},
        "seeds": [0],
    }
    (tmp_path / "real.json").write_text(json.dumps(experiment))
    monkeypatch.setenv("SER_CACHE", str(tmp_path / "cache"))
    jumps, ends = {}, {}
    for name, more in {"plain": {}, "averaged": {"weight_average": {"decay": 0.98}}}.items():
        (tmp_path / "model.json").write_text(
            json.dumps({"name": "m", "encoder": encoder, "training": {**training, **more}})
        )
        monkeypatch.setenv("SER_RUNS", str(tmp_path / name))
        assert ser("train", tmp_path / "real.json", "--device", "cpu") == 0
        history = pd.read_csv(next((tmp_path / name).rglob("history.csv")))
        jumps[name] = float(history["val_loss"].diff().abs().iloc[4:].mean())
        ends[name] = float(history["val_loss"].iloc[-3:].mean())
    assert jumps["averaged"] < 0.6 * jumps["plain"], jumps
    assert ends["averaged"] < ends["plain"] + 0.1, ends
