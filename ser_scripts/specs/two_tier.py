"""YAML configurations and flags of the older two-tier system: written as an experiment, a model and two CSV files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
import yaml  # type: ignore[import-untyped]
from pydantic import Field

from ser_eval.run_folder import parse_table, write_json, write_table
from ser_scripts.errors import BadInput
from ser_scripts.files import writable_folder
from ser_scripts.specs.base import OlderSpec, nearest, parse
from ser_scripts.specs.experiment import ExperimentSpec
from ser_scripts.specs.model import ModelSpec

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Pair = tuple[float, float]
_PATH_COLUMNS = ("path", "file_path")
_LABEL_COLUMNS = ("label", "emotion_code")
_SPEAKER_COLUMNS = ("actor", "gender")


class Audio(OlderSpec):
    """`audio`."""

    sample_rate: Count = 16_000
    n_mfcc: Count = 40
    n_fft: Count = 512
    hop_length: Count = 160
    win_length: Count = 400
    f_min: Annotated[float, Field(ge=0)] = 20.0
    f_max: Positive = 8000.0


class Augmentation(OlderSpec):
    """`augmentation`."""

    enabled: bool = True
    time_stretch_prob: Share = 0.3
    time_stretch_rate: Pair = (0.8, 1.2)
    pitch_shift_prob: Share = 0.3
    pitch_shift_steps: Pair = (-2.0, 2.0)
    noise_injection_prob: Share = 0.3
    noise_level: Pair = (0.001, 0.01)
    mixup_prob: Share = 0.2
    mixup_alpha: Positive = 0.4


class Model(OlderSpec):
    """`model`."""

    n_mfcc: Count | None = None
    num_classes: Annotated[int, Field(ge=2)] = 4
    conv_channels: Annotated[tuple[Count, ...], Field(min_length=1)] = (128, 256)
    lstm_hidden: Count = 128
    lstm_layers: Count = 2
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    use_depthwise: bool = True
    use_temp_scale: bool = True
    use_residual: bool = True
    attention_heads: Count = 4


class Cosine(OlderSpec):
    """`training.scheduler_params.cosine`."""

    T_max: Positive = 50
    eta_min: Annotated[float, Field(ge=0)] = 1e-6


class Plateau(OlderSpec):
    """`training.scheduler_params.plateau`."""

    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    patience: Annotated[int, Field(ge=0)] = 5
    min_lr: Annotated[float, Field(ge=0)] = 1e-6


class Step(OlderSpec):
    """`training.scheduler_params.step`."""

    step_size: Positive = 10
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.5


class SchedulerParams(OlderSpec):
    """`training.scheduler_params`."""

    cosine: Cosine = Cosine()
    plateau: Plateau = Plateau()
    step: Step = Step()


class Training(OlderSpec):
    """`training`."""

    epochs: Count = 50
    batch_size: Count = 16
    lr: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    warmup_epochs: Annotated[float, Field(ge=0)] = 5
    patience: Count = 10
    min_delta: Annotated[float, Field(ge=0)] = 1e-4
    grad_clip: Annotated[float, Field(ge=0)] = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    class_weights: bool = True
    scheduler: Literal["cosine", "plateau", "step"] = "cosine"
    scheduler_params: SchedulerParams = SchedulerParams()


class Data(OlderSpec):
    """`data`."""

    train_csv: str | None = None
    val_csv: str | None = None
    test_csv: str | None = None
    val_split: Annotated[float, Field(gt=0, lt=1)] = 0.1
    cache_dir: Any = None
    num_workers: Any = None
    pin_memory: Any = None
    max_audio_length: Any = None
    min_audio_length: Any = None


class System(OlderSpec):
    """`system`."""

    seed: Annotated[int, Field(ge=0)] = 42
    amp: bool = True
    device: Any = None
    out_dir: Any = None
    log_dir: Any = None
    save_best_only: Any = None
    save_interval: Any = None


class TwoTier(OlderSpec):
    """A configuration of the older system, its defaults where a key is absent."""

    audio: Audio = Audio()
    augmentation: Augmentation = Augmentation()
    model: Model = Model()
    training: Training = Training()
    data: Data = Data()
    system: System = System()


IGNORED = {
    "data.cache_dir": "caches lie in SER_CACHE, and features are computed once per training anyway",
    "data.num_workers": "`ser train` has --loader-workers",
    "data.pin_memory": "it is done on a GPU anyway",
    "data.max_audio_length": "it had no effect there either; training.max_seconds of the model cuts training clips",
    "data.min_audio_length": "it had no effect there either",
    "system.device": "`ser train` has --device",
    "system.out_dir": "run folders go to SER_RUNS",
    "system.log_dir": "it had no effect there either",
    "system.save_best_only": "it had no effect there either; training.save_model of the model says what is kept",
    "system.save_interval": "the selected weights of each run are kept, and a killed run goes on from its last epoch",
}
FLAGS = {
    "train_csv": "data.train_csv",
    "val_csv": "data.val_csv",
    "test_csv": "data.test_csv",
    "cache_dir": "data.cache_dir",
    "num_workers": "data.num_workers",
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "lr": "training.lr",
    "patience": "training.patience",
    "num_classes": "model.num_classes",
    "n_mfcc": "audio.n_mfcc",
    "out_dir": "system.out_dir",
    "device": "system.device",
    "seed": "system.seed",
}
"""Flags with a value, and the key that each wins over (`--test_csv` is one of its test.py).
`--amp` and `--no_augmentation` have none, `--resume` may."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain YAML, and the tuples that the older system wrote but could not read again."""


def _tuple(loader: Any, node: Any) -> list[Any]:
    return list(loader.construct_sequence(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:python/tuple", _tuple)


@dataclass(frozen=True)
class Translation:
    """A configuration in the present format."""

    experiment: dict[str, Any]
    model: dict[str, Any]
    messages: tuple[str, ...]
    """One line for each key that is ignored or means something else here."""


def read_config(file: Path) -> dict[str, Any]:
    """The content of a YAML configuration; tags other than tuples, which could run code, are refused.

    Raises:
        BadInput: no such file, or no YAML mapping
    """
    if not file.is_file():
        raise BadInput(f"{file}: no such configuration")
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is no plain YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise BadInput(f"{file} is not a valid configuration: expected keys and values, found {type(content).__name__}")
    return content


def with_flags(content: dict[str, Any], flags: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """A configuration with the flags of the older `train.py`, which win over it, and what is said about them.

    Raises:
        BadInput: an unknown flag, or one without its value
    """
    result = {part: dict(keys) if isinstance(keys, dict) else keys for part, keys in content.items()}
    messages = []
    rest = list(flags)
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or name not in {*FLAGS, "amp", "no_augmentation", "resume"}:
            raise BadInput(f"{flag}: unknown flag{nearest(name, [*FLAGS, 'amp', 'no_augmentation', 'resume'])}")
        if name == "resume":
            if not equals and rest and not rest[0].startswith("--"):
                rest.pop(0)
            messages.append("--resume ignored: the same `ser train` goes on where a run stopped")
            continue
        if name in ("amp", "no_augmentation"):
            part, key, chosen = ("system", "amp", True) if name == "amp" else ("augmentation", "enabled", False)
            result.setdefault(part, {})[key] = chosen
            continue
        if not equals:
            if not rest:
                raise BadInput(f"{flag}: its value is missing")
            value = rest.pop(0)
        part, key = FLAGS[name].split(".")
        result.setdefault(part, {})[key] = value
        if name == "n_mfcc" and isinstance(result.get("model"), dict):
            result["model"].pop("n_mfcc", None)
    return result, messages


def translate(content: dict[str, Any], source: str) -> Translation:
    """The experiment and the model that do what a configuration says.

    Args:
        content: of the YAML file, flags included
        source: the file, for names and messages

    Raises:
        BadInput: an unknown key, or a value that cannot be honoured, with what to do instead
    """
    older = parse(TwoTier, content, source=source, kind="configuration of the two-tier system")
    name = Path(source).stem
    messages = [
        f"{source}: {key} ignored: {why}"
        for key, why in IGNORED.items()
        if key.split(".")[1] in getattr(older, key.split(".")[0]).model_fields_set
    ]
    if older.model.n_mfcc not in (None, older.audio.n_mfcc):
        raise BadInput(
            f"{source}: model.n_mfcc ({older.model.n_mfcc}) and audio.n_mfcc ({older.audio.n_mfcc}) differ; give one"
        )
    if older.audio.model_fields_set - {"sample_rate", "n_mfcc"}:
        messages.append(f"{source}: audio: all keys have an effect here; there only sample_rate and n_mfcc had one")
    if older.system.amp:
        messages.append(
            f"{source}: system.amp: there it worked on a GPU only; here training.precision of the model says 'fp32', "
            "make it 'fp16' for a GPU"
        )
    messages.append(
        f"{source}: the denoiser dns64 is left out, since its weights are not part of this project; with them, put "
        '{"kind": "denoise", "method": "dns64", "weights": "<file>"} into "preprocess", before the step "vad"'
    )
    messages.append(f"{source}: clips without speech stay as they are and are counted; there they became zeros")
    model = _model(older, name, source, messages)
    experiment = {
        "name": name,
        "description": f"Translated from {Path(source).name}",
        "train": [[{"kind": "csv", "name": name, "path": f"{name}-clips.csv"}]],
        "models": [f"{name}-model.json"],
        "augmentations": [_augmentation(older.augmentation, source, messages)],
        "preprocess": [{"kind": "peak", "dbfs": 0.0}, {"kind": "vad", "mode": "keep_speech"}],
        "split": {"kind": "preset", "path": f"{name}-split.csv", "validation_share": older.data.val_split},
        "seeds": [older.system.seed],
    }
    parse(ExperimentSpec, experiment, source=f"{source} (translated)", kind="experiment")
    parse(ModelSpec, model, source=f"{source} (translated)", kind="model")
    return Translation(experiment, model, tuple(messages))


def _model(older: TwoTier, name: str, source: str, messages: list[str]) -> dict[str, Any]:
    audio, model, training = older.audio, older.model, older.training
    params = training.scheduler_params
    schedule: dict[str, Any] = {"scheduler": training.scheduler}
    if training.scheduler == "cosine":
        schedule["min_learning_rate"] = min(params.cosine.eta_min, training.lr)
        if params.cosine.T_max != training.epochs - training.warmup_epochs:
            messages.append(
                f"{source}: training.scheduler_params.cosine.T_max ignored: the rate falls over all epochs behind the "
                "warm-up"
            )
    elif training.scheduler == "plateau":
        schedule["plateau"] = {"factor": params.plateau.factor, "patience": params.plateau.patience}
        schedule["min_learning_rate"] = min(params.plateau.min_lr, training.lr)
    else:
        schedule["step"] = {"epochs": params.step.step_size, "factor": params.step.gamma}
    for unused in params.model_fields_set - {training.scheduler}:
        messages.append(
            f"{source}: training.scheduler_params.{unused} ignored: the scheduler is '{training.scheduler}'"
        )
    if training.warmup_epochs >= training.epochs:
        raise BadInput(
            f"{source}: training.warmup_epochs ({training.warmup_epochs:g}) must lie below training.epochs "
            f"({training.epochs})"
        )
    return {
        "name": name,
        "encoder": {
            "kind": "compact",
            "features": {
                "kind": "mfcc",
                "sample_rate_hz": audio.sample_rate,
                "coefficients": audio.n_mfcc,
                "fft_samples": audio.n_fft,
                "hop_samples": audio.hop_length,
                "window_samples": audio.win_length,
                "min_hz": audio.f_min,
                "max_hz": audio.f_max,
            },
            "attention": "multi_head",
            "attention_heads": model.attention_heads,
            "channels": list(model.conv_channels),
            "depthwise": model.use_depthwise,
            "residual": model.use_residual,
            "lstm_hidden": model.lstm_hidden,
            "lstm_layers": model.lstm_layers,
            "dropout": model.dropout,
        },
        "pooling": {"kind": "attention"},
        "head": {
            "kind": "mlp",
            "hidden": 128,
            "layer_norm": True,
            "dropout": model.dropout,
            "temperature": model.use_temp_scale,
        },
        "loss": {"class_weights": training.class_weights, "label_smoothing": training.label_smoothing},
        "training": {
            "epochs": training.epochs,
            "batch_size": training.batch_size,
            "learning_rate": training.lr,
            "weight_decay": training.weight_decay,
            "warmup": training.warmup_epochs / training.epochs,
            "gradient_clip": training.grad_clip or None,
            "select": "val_uar",
            "early_stopping": {"metric": "val_uar", "patience": training.patience, "min_delta": training.min_delta},
            **schedule,
        },
    }


def _augmentation(older: Augmentation, source: str, messages: list[str]) -> dict[str, Any] | None:
    if not older.enabled:
        return None
    library = {"module": "audiomentations"}
    transforms = {
        "time_stretch": (
            older.time_stretch_prob,
            {**library, "class": "TimeStretch", "leave_length_unchanged": False}
            | dict(zip(("min_rate", "max_rate"), older.time_stretch_rate, strict=True)),
        ),
        "pitch_shift": (
            older.pitch_shift_prob,
            {**library, "class": "PitchShift"}
            | dict(zip(("min_semitones", "max_semitones"), older.pitch_shift_steps, strict=True)),
        ),
        "noise": (
            older.noise_injection_prob,
            {**library, "class": "AddGaussianNoise"}
            | dict(zip(("min_amplitude", "max_amplitude"), older.noise_level, strict=True)),
        ),
    }
    shares = {name: share for name, (share, _) in transforms.items() if share}
    messages.append(f"{source}: augmentation: pitch shift keeps the duration here; there it changed with the pitch")
    masks = {"kind": "spec_augment", "probability": 0.3, "fill": "zero"}
    result: dict[str, Any] = {
        "name": "augmented",
        "mode": "on_the_fly",
        "features": [
            {**masks, "num_frequency_masks": 1, "max_frequency_bins": 8},
            {**masks, "num_time_masks": 1, "max_time_frames": 25},
        ],
    }
    if len(set(shares.values())) == 1:
        result["probability"] = next(iter(shares.values()))
    elif shares:
        result["probabilities"] = shares
    if shares:
        result["transforms"] = {name: transform for name, (share, transform) in transforms.items() if share}
    if older.mixup_prob:
        result["batch"] = {"kind": "mixup", "alpha": older.mixup_alpha, "probability": older.mixup_prob}
    return result


def write_translation(file: Path, out: Path, flags: Sequence[str] = ()) -> tuple[list[Path], list[str]]:
    """Write what a configuration becomes: <name>.json, <name>-model.json, <name>-clips.csv, <name>-split.csv.

    Args:
        file: the YAML configuration; its CSV files resolve against its folder, then against the working directory
        out: folder of what is written; files that are there already are not overwritten
        flags: of the older `train.py`

    Returns:
        The files, and one line for each key that is ignored or means something else here

    Raises:
        BadInput: as `translate`; CSV files that are not given, missing, without the columns, or with other labels than
            `num_classes` says
    """
    content, said = with_flags(read_config(file), flags)
    done = translate(content, str(file))
    older = parse(TwoTier, content, source=str(file), kind="configuration of the two-tier system")
    clips, split = _tables(older, file)
    name = done.experiment["name"]
    writable_folder(out, remedy="set --out")
    specs = {out / f"{name}.json": done.experiment, out / f"{name}-model.json": done.model}
    tables = {out / f"{name}-clips.csv": clips, out / f"{name}-split.csv": split}
    files = [*specs, *tables]
    if there := [one for one in files if one.exists()]:
        raise BadInput(f"{there[0]} is there already; move it away, or give another --out")
    for one, table in tables.items():
        write_table(one, table)
    for one, spec in specs.items():
        write_json(one, spec)
    return files, [*said, *done.messages]


def _tables(older: TwoTier, source: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The clips of all three CSV files, and their sides."""
    sides = {"train": older.data.train_csv, "validation": older.data.val_csv, "test": older.data.test_csv}
    for key in ("train", "test"):
        if not sides[key]:
            why = "; without it there is nothing to test on but what selects the epoch" if key == "test" else ""
            raise BadInput(
                f"{source}: data.{key}_csv: required key is missing{why}; the flag --{key}_csv gives it, too"
            )
    parts = [_clips(_found(given, source)).assign(split=side) for side, given in sides.items() if given]
    shared = [column for column in parts[0].columns if all(column in part for part in parts)]
    clips = pd.concat([part[shared] for part in parts], ignore_index=True)
    labels = sorted(set(clips["class_id"]))
    if len(labels) != older.model.num_classes:
        raise BadInput(
            f"{source}: model.num_classes is {older.model.num_classes}, but the CSV files have {len(labels)} labels: "
            f"{', '.join(labels)}"
        )
    return clips.drop(columns="split"), clips[["path", "split"]]


def _found(name: str, source: Path) -> Path:
    places = [source.parent / name, Path(name)]
    for place in places:
        if place.is_file():
            return place
    raise BadInput(f"{source}: {name}: no such CSV file; looked for {' and '.join(map(str, places))}")


def _clips(file: Path) -> pd.DataFrame:
    """Path (absolute where the file is found), label, and speaker where it is given, of one CSV file."""
    table = parse_table(file)
    columns = {}
    for name, wanted in (("path", _PATH_COLUMNS), ("class_id", _LABEL_COLUMNS)):
        found = [column for column in wanted if column in table.columns]
        if len(found) != 1:
            raise BadInput(
                f"{file}: needs exactly one column of {', '.join(wanted)}; it has {', '.join(table.columns)}"
            )
        columns[found[0]] = name
    kept = [*columns, *(column for column in _SPEAKER_COLUMNS if column in table.columns)]
    clips = table[kept].rename(columns=columns)
    return clips.assign(path=[_absolute(path, file) for path in clips["path"]])


def _absolute(name: str, file: Path) -> str:
    for place in (file.parent / name, Path(name)):
        if place.is_file():
            return Path(os.path.abspath(place)).as_posix()
    return name
