"""Training a part of the encoder, or its layers at rates of their own; the runs of it, interrupted and continued."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from ser_eval import run_folder
from ser_scripts.cli import app
from ser_scripts.errors import BadInput
from ser_scripts.modeling.model import SerModel
from ser_scripts.specs.base import parse
from ser_scripts.specs.model import ModelSpec
from ser_scripts.training import loop
from tests.test_model import HEAD, WHISPER_LAYERS, batch_of, make, trainable

LOW = {"encoder.model.conv1", "encoder.model.conv2"}
TOP = {"encoder.model.layers.2", "encoder.model.layer_norm"}


@pytest.mark.parametrize(
    ("freeze", "expected"),
    [
        (
            {"gradual": 2, "cnn": False},
            [set(), set(), TOP, TOP, {*TOP, "encoder.model.layers.1"}, {*TOP, "encoder.model.layers.1"}]
            + [{*TOP, *WHISPER_LAYERS}] * 2
            + [{*TOP, *WHISPER_LAYERS, *LOW}] * 3,
        ),
        ({"gradual": 1}, [set(), TOP, {*TOP, "encoder.model.layers.1"}, *[{*TOP, *WHISPER_LAYERS}] * 3]),
        ({"gradual": 1, "all_but_last": 1}, [set(), *[{"encoder.model.layers.2"}] * 3]),
    ],
)
def test_gradual_unfreezing_trains_one_more_layer_from_the_top(
    freeze: dict[str, Any], expected: list[set[str]]
) -> None:
    model = make(freeze=freeze)
    for epochs in (
        range(len(expected)),
        reversed(range(len(expected))),
    ):  # a function of the epoch, so a resume can ask
        for epoch in epochs:
            model.start_epoch(epoch)
            assert trainable(model) == expected[epoch] | HEAD, epoch
            layers = [layer.training for layer in model.train().encoder.layers]
            assert layers == [f"encoder.model.layers.{index}" in expected[epoch] for index in range(3)]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    grouped = {names[id(p)] for group in model.parameter_groups(1.0, None, 0.0) for p in group["params"]}
    model.start_epoch(100)
    assert grouped == {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_frozen_layers_of_a_gradual_training_stay_as_they_are() -> None:
    model = make(freeze={"gradual": 1}, training={"weight_decay": 0.5})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.AdamW(model.parameter_groups(1e-2, None, 0.5))
    model.start_epoch(1)
    for _ in range(2):
        optimiser.zero_grad()
        model.train()(**batch_of(model), labels=torch.tensor([0, 1, 2, 0, 1]))["loss"].backward()
        optimiser.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert all(name.startswith(("encoder.model.layers.2", "encoder.model.layer_norm", "head")) for name in changed)
    assert any("layers.2.fc1.weight" in name for name in changed)


def test_rates_fall_with_every_layer_from_the_top() -> None:
    model = make(freeze={"cnn": False}, layers={"use": "weighted"})
    groups = model.parameter_groups(1e-3, 1e-2, 0.1, 0.5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {names[id(parameter)]: group["lr"] for group in groups for parameter in group["params"]}
    assert rates["encoder.model.layer_norm.weight"] == rates["encoder.model.layers.2.fc1.weight"] == 1e-3
    assert rates["encoder.model.layers.1.fc1.bias"] == 5e-4
    assert rates["encoder.model.layers.0.fc1.weight"] == 2.5e-4
    assert rates["encoder.model.conv1.weight"] == 1.25e-4
    assert rates["layer_weights"] == rates["head.1.weight"] == 1e-2
    assert set(rates) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert [group["lr"] for group in groups] == sorted((g["lr"] for g in groups[:-2]), reverse=True) + [1e-2] * 2
    assert groups[0]["name"] == "encoder, 0 above"
    assert {group["weight_decay"] for group in groups if "no decay" in group["name"]} == {0.0}
    second = make(layers={"use": 2}).parameter_groups(1e-3, None, 0.0, 0.5)
    assert {group["lr"] for group in second} == {1e-3, 5e-4}  # counted from the layer that is used


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"freeze": {"encoder": True, "gradual": 1}}, "'gradual' has no effect"),
        ({"freeze": {"encoder": True}, "training": {"layer_decay": 0.9}}, "'training.layer_decay' has no effect"),
        ({"freeze": {"gradual": 0}}, "gradual"),
        ({"encoder": {"kind": "compact"}, "freeze": {"gradual": 1}}, "'freeze.gradual' goes with an encoder that has"),
        ({"encoder": {"model_path_or_name": "a/b", "frozen": True}, "training": {"layer_decay": 0.9}}, "layer_decay"),
    ],
)
def test_settings_without_effect_are_refused(parts: dict[str, Any], said: str) -> None:
    content = {"name": "m", "encoder": {"model_path_or_name": "a/b"}, **parts}
    with pytest.raises(BadInput, match=said):
        parse(ModelSpec, content, source="m.json", kind="model")


# Whole runs


def run(*arguments: object) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


def files(runs: Path, pattern: str) -> dict[str, bytes]:
    return {file.relative_to(runs).as_posix(): file.read_bytes() for file in sorted(runs.rglob(pattern))}


class Killed(Exception):
    pass


WAYS: dict[str, dict[str, Any]] = {
    "lora": {"adapter": {"kind": "lora", "rank": 2, "dropout": 0.1}},
    "gradual": {"freeze": {"gradual": 1, "cnn": False}, "training": {"layer_decay": 0.5, "accumulation": 2}},
}


@pytest.mark.parametrize("way", WAYS)
def test_an_interrupted_training_ends_with_the_same_bytes(
    way: str, project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project(seeds=[0], model=WAYS[way], training=WAYS[way].get("training", {}))
    run("train", file, "--device", "cpu")
    whole = tmp_path / "runs"
    record = run_folder.read_json(next(whole.rglob("run.json")))
    assert 0 < record["parameters"]["trained"] < record["parameters"]["total"]
    if way == "gradual":
        assert "epoch 2: trains " in (said := capsys.readouterr().err)
        assert "epoch 4: trains " not in said  # one layer, and what lies below it
    else:
        assert f"trains {record['parameters']['trained']:,} of" in capsys.readouterr().err
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "killed"))
    start = loop.SerTrainer._start_epoch
    for epoch in (1, 3):

        def killed(self: Any, number: int, at: int = epoch) -> None:
            if number == at:
                raise Killed
            start(self, number)

        monkeypatch.setattr(loop.SerTrainer, "_start_epoch", killed)
        with pytest.raises(Killed):
            run("train", file, "--device", "cpu")
    monkeypatch.setattr(loop.SerTrainer, "_start_epoch", start)
    run("train", file, "--device", "cpu")
    assert "resumes after epoch 3" in capsys.readouterr().err
    for pattern in ("predictions/*.csv", "model.safetensors"):
        assert files(tmp_path / "killed", pattern) == files(whole, pattern) != {}


def test_adapters_start_from_a_finished_run_and_finished_runs_from_adapters(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain: list[tuple[str, dict[str, Any]]] = [
        ("full", {}),
        ("adapted", {"adapter": {"kind": "lora", "rank": 2}}),
        ("again", {"adapter": {"kind": "lora", "rank": 2}}),
        ("other", {"adapter": {"kind": "ia3"}}),
        ("merged", {}),
    ]
    training = {"epochs": 1, "learning_rate": 1e-2}
    before = None
    for name, parts in chain:
        monkeypatch.setenv("SER_RUNS", str(tmp_path / name))
        start = {"init_from": str(before)} if before else {}
        # with a rate of next to nothing the start shows in the finished run
        small = training if name in ("full", "adapted") else {**training, "learning_rate": 1e-12, "warmup": 0.0}
        run("train", project(seeds=[0], model={**parts, **start}, training=small), "--device", "cpu")
        before = next((tmp_path / name).rglob("run.json")).parent

    def table(name: str) -> Any:
        rows = run_folder.read_predictions(next((tmp_path / name).rglob("predictions/mini.csv")))
        return rows[[column for column in rows.columns if column.startswith("p_")]].to_numpy()

    assert abs(table("adapted") - table("full")).max() > 1e-3
    for name in ("again", "other", "merged"):
        assert abs(table(name) - table("adapted")).max() < 1e-5, name
    saved = SerModel.load(next((tmp_path / "merged").rglob("model")))
    assert not any("lora" in name or "ia3" in name for name in saved.state_dict())


def test_finished_runs_of_an_older_spec_stay_finished(
    project: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project(seeds=[0], training={"epochs": 1})
    run("train", file, "--device", "cpu")
    spec = next((tmp_path / "runs").rglob("spec.json"))
    content = run_folder.read_json(spec)
    for part, key in [("loss", "kind"), ("loss", "gamma"), ("head", "activation"), ("training", "layer_decay")]:
        del content["model"][part][key]
    del content["model"]["training"]["torch_compile"]
    del content["model"]["adapter"]
    run_folder.write_json(spec, content)
    capsys.readouterr()
    run("train", file, "--device", "cpu")
    assert "1 of 1 runs are finished already" in capsys.readouterr().err
    content["model"]["loss"]["kind"] = "focal"
    run_folder.write_json(spec, content)
    with pytest.raises(BadInput, match=r"model\.loss\.kind: was 'focal', is 'cross_entropy'"):
        run("train", file, "--device", "cpu")


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("way", ["lora", "gradual"])
def test_parts_of_a_real_encoder_learn_from_real_speech(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ser_data: Path, ser_models: Path
) -> None:
    """Anger against sadness in EmoDB, which a few speakers teach a tiny Whisper."""
    rows = ["path,class_id,actor,gender"]
    genders = dict.fromkeys(("03", "10", "11"), "male") | dict.fromkeys(("08", "09", "13"), "female")
    for file in sorted((ser_data / "emodb").rglob("*.*")):
        label = {"W": "angry", "T": "sad"}.get(file.stem[5:6])
        if file.suffix in (".wav", ".flac") and label and file.stem[:2] in genders:
            rows.append(f"{file},{label},{file.stem[:2]},{genders[file.stem[:2]]}")
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    adapter = {"adapter": {"kind": "lora", "rank": 4}} if way == "lora" else {"freeze": {"gradual": 1}}
    model = {
        "name": way,
        "encoder": {"model_path_or_name": "openai/whisper-tiny.en"},
        **adapter,
        "training": {"epochs": 6, "batch_size": 8, "learning_rate": 1e-3 if way == "lora" else 1e-4, "threads": 1}
        | {"head_learning_rate": 1e-3, "early_stopping": None, "layer_decay": 0.8, "select": "val_loss", "track": []},
    }
    experiment = {
        "name": "real",
        "train": [{"kind": "csv", "name": "some", "path": "clips.csv"}],
        "models": ["model.json"],
        "split": {"kind": "speaker_independent", "proportions": [0.34, 0.33, 0.33]},
        "seeds": [0],
    }
    (tmp_path / "model.json").write_text(json.dumps(model))
    (tmp_path / "real.json").write_text(json.dumps(experiment))
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SER_CACHE", str(tmp_path / "cache"))
    run("train", tmp_path / "real.json", "--device", "cpu")
    history = pd.read_csv(next((tmp_path / "runs").rglob("history.csv")))
    for column in ("train_loss", "val_loss"):
        losses = history[column].to_numpy()
        assert losses[-1] < 0.7 * losses[0], losses
    table = run_folder.read_predictions(next((tmp_path / "runs").rglob("predictions/some.csv")))
    assert table["correct"].mean() > 0.7
