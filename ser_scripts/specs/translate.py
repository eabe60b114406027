"""Experiment and model files in the older format: read, said what becomes of each key, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ser_eval.run_folder import RUN, SPEC, read_json
from ser_scripts.corpora import RATINGS
from ser_scripts.errors import BadInput
from ser_scripts.specs.base import OlderSpec, nearest, parse, read_spec_file
from ser_scripts.specs.experiment import ExperimentSpec
from ser_scripts.specs.model import NAME_PATTERN, ModelSpec

Share = Annotated[float, Field(gt=0, lt=1)]
_TABLE_SUFFIXES = (".csv", ".tsv", ".txt")
_POOLING = {"mean": "mean", "sum": "sum", "max": "max", "ecapa": "ecapa", "att_stats": "attentive_stats"}
ACCUMULATION = 8
"""Forward passes per update in the older system, which had no key for it."""
DEFAULT_SPLIT = 0.8
DEFAULT_EVAL_STEPS = 10

_RUNS = "run folders go to SER_RUNS (default: runs)"
HP_RATE = {"kind": "float", "low": 5e-5, "high": 1e-3, "log": True}
"""What the older system's search varied: the learning rate alone."""
_NOT_SEARCHED = 'no model has "skip_hp_search": false'
_NO_SEARCH = "true is what is done anyway"
IGNORED_EXPERIMENT_KEYS = {
    "output_path": _RUNS,
    "experiment_results_output_path": _RUNS,
    "model_save_folder": _RUNS,
    "experiment_artifacts_output_path": _RUNS,
    "checkpoint_save_folder": "it had no effect there either",
    "save_steps": "the selected weights of each run are kept, no others",
    "save_total_limit": "the selected weights of each run are kept, no others",
    "run_eval": "`ser eval` evaluates every finished run",
    "run_grapher": "`ser eval` draws the training curves",
    "logging_steps": "history.csv has a row per evaluation",
    "eval_metric": "history.csv has loss, accuracy and UAR, of ratings CCC and RMSE; classes select by validation loss",
}
IGNORED_MODEL_KEYS = {
    "batch_size": "there it was no batch size of the training; 'per_device_batch_size' is",
    "model_output_dir": "it had no effect there either",
    "seed": "there the experiment overwrote it; seeds come from 'cross_validation' or --low_seed and --high_seed",
    "logging_steps": "history.csv has a row per evaluation",
    "input_column": "it names the standard column",
    "output_column": "it names the standard column",
    "is_regression": "false is what is done anyway",
}


class OlderDataset(OlderSpec):
    """A further test set of the older format."""

    name: str = Field(pattern=NAME_PATTERN)
    eval_csv_path: str = Field(min_length=1)
    rating_scale: tuple[float, float] | None = None
    """Not of the older format, which does not tell it: the lowest and the highest rating, for `is_regression`."""


class OlderTrainingSet(OlderSpec):
    """The training set of the older format."""

    name: str = Field(pattern=NAME_PATTERN)
    data_csv: str = Field(min_length=1)
    rating_scale: tuple[float, float] | None = None
    """As in `OlderDataset`."""


class OlderExperiment(OlderSpec):
    """The older experiment file: the documented names of its keys and the ones that its code read."""

    experiment_name: str = Field(pattern=NAME_PATTERN)
    training_dataset: OlderTrainingSet
    datasets: tuple[OlderDataset, ...] = ()
    model_files: str | None = None
    model_input_files: str | None = None
    cross_validation: Annotated[int, Field(ge=1)] | None = None
    augmentations: dict[str, dict[str, Any]] | None = None
    eval_steps: Annotated[int, Field(ge=1)] | None = None
    eval_metric: str = "accuracy"
    output_path: Any = None
    experiment_results_output_path: Any = None
    model_save_folder: Any = None
    experiment_artifacts_output_path: Any = None
    checkpoint_save_folder: Any = None
    hp_amount_of_training_data: Annotated[float, Field(gt=0, le=1)] = 0.3
    hp_num_trials: Annotated[int, Field(ge=1)] = 5
    save_steps: Any = None
    save_total_limit: Any = None
    run_eval: Any = None
    run_grapher: Any = None
    logging_steps: Any = None

    @field_validator("eval_metric")
    @classmethod
    def _known_metric(cls, value: str) -> str:
        if value in ("accuracy", "mse", "ccc"):
            return value
        if value == "f1score":
            raise ValueError(
                "'f1score' is not computed during training; nearest: 'accuracy' here, or 'val_uar' under "
                "training.select in a model file of the present format. `ser eval` gives every F1"
            )
        raise ValueError(f"'{value}' is not known{nearest(value, ['accuracy'])}")


class OlderModel(OlderSpec):
    """The older model file: the documented names of its keys and the ones that its code read."""

    model_path_or_name: str = Field(min_length=1)
    name: str | None = Field(default=None, pattern=NAME_PATTERN)
    per_device_batch_size: Annotated[int, Field(ge=1)] = 8
    pooling_mode: str = "mean"
    speaker_independent_scenario: bool = True
    train_test_split: Share = DEFAULT_SPLIT
    use_relu: bool = True
    use_batch_norm: bool = False
    use_dropout: bool = False
    dropout_rate: float = 0.5
    use_l2_reg: bool = False
    weight_decay: float = 0.01
    use_weight_encoder_layers: bool = False
    pool_position: Literal["before", "after"] = "after"
    number_of_training_epochs: Annotated[float, Field(gt=0)] = 50
    continue_model_training: bool = False
    eval_steps: Annotated[int, Field(ge=1)] | None = None
    input_column: Any = "path"
    output_column: Any = "class_id"
    is_regression: bool = False
    skip_hp_search: bool = True
    batch_size: Any = None
    model_output_dir: Any = None
    seed: Any = None
    logging_steps: Any = None

    @field_validator("pooling_mode")
    @classmethod
    def _known_pooling(cls, value: str) -> str:
        if value not in _POOLING:
            raise ValueError(f"'{value}' is not known{nearest(value, _POOLING)}")
        return value

    @field_validator("input_column")
    @classmethod
    def _standard_column(cls, value: Any) -> Any:
        if value not in ("path", ["path"]):
            raise ValueError("must be 'path': rename the column in the CSV file")
        return value

    @model_validator(mode="after")
    def _targets(self) -> OlderModel:
        if not self.is_regression:
            if self.output_column not in ("class_id", ["class_id"]):
                raise ValueError(
                    "output_column: must be 'class_id': rename the column in the CSV file; ratings (valence, arousal, "
                    'dominance) need "is_regression": true'
                )
            return self
        if strange := [name for name in self.dimensions or ["nothing"] if name not in RATINGS]:
            raise ValueError(
                f"is_regression: output_column names {strange[0]!r}; it can be one or several of {', '.join(RATINGS)}, "
                "columns of the CSV file"
            )
        if not self.skip_hp_search:
            raise ValueError("skip_hp_search: it searches by the loss of classes; with 'is_regression' set it to true")
        return self

    @property
    def dimensions(self) -> list[Any]:
        """With `is_regression` the ratings that are predicted."""
        return list(self.output_column) if isinstance(self.output_column, list | tuple) else [self.output_column]


@dataclass(frozen=True)
class Translated:
    """An older file in the present format."""

    content: dict[str, Any]
    """What `ExperimentSpec` or `ModelSpec` validates."""
    messages: tuple[str, ...]
    """One line that names what was translated, and one for each key that is ignored or means something else here."""
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of an experiment: the translated content of each model file in the older format, by its entry in 'models'."""


def is_older_experiment(content: Any) -> bool:
    """Whether the content of an experiment file is in the older format."""
    own = {"experiment_name", "training_dataset", "model_files", "model_input_files"}
    return (
        isinstance(content, dict) and bool(own & content.keys()) and not {"train", "models", "split"} & content.keys()
    )


def is_older_model(content: Any) -> bool:
    """Whether the content of a model file is in the older format."""
    own = OlderModel.model_fields.keys() - ModelSpec.model_fields.keys()
    return isinstance(content, dict) and bool(own & content.keys()) and "encoder" not in content


def translate_experiment(
    content: dict[str, Any], source: str, low_seed: int | None = None, high_seed: int | None = None
) -> Translated:
    """An older experiment file and its older model files in the present format.

    Args:
        content: the parsed JSON
        source: path of the file; model files resolve against its folder, then against the working directory
        low_seed: first seed; wins over `cross_validation`
        high_seed: last seed, included

    Raises:
        BadInput: an unknown key, a value that cannot be honoured (with what to do instead), or models that disagree on
            the split
    """
    older = parse(OlderExperiment, content, source=source, kind="experiment (older format)")
    messages: list[str] = []
    if any(dataset.name == older.training_dataset.name for dataset in older.datasets):
        raise BadInput(
            f"{source}: datasets: '{older.training_dataset.name}' is the training set, whose test side is tested "
            "anyway; leave it out or give it another name"
        )

    files = _model_files(older, source, messages)
    models: dict[str, dict[str, Any]] = {}
    splits: dict[str, dict[str, Any]] = {}
    searched: list[str] = []
    regression = False
    for entry, file in files.items():
        model = read_spec_file(file, kind="model")
        if not is_older_model(model):
            continue
        if older.eval_steps is not None and "eval_steps" not in model:
            model = {**model, "eval_steps": older.eval_steps}
        translated = translate_model(model, str(file))
        models[entry] = translated.content
        messages += translated.messages
        older_model = parse(OlderModel, model, source=str(file), kind="model")
        splits[entry] = _split(older_model)
        regression |= older_model.is_regression
        if not older_model.skip_hp_search:
            searched.append(translated.content["name"])
    if older.eval_metric != "accuracy" and not regression:
        raise BadInput(
            f"{source}: eval_metric: '{older.eval_metric}' belongs to regression, but no model file has "
            "\"is_regression\": true; valid: 'accuracy'"
        )
    if regression and older.training_dataset.rating_scale is None:
        raise BadInput(
            f'{source}: training_dataset.rating_scale: required with "is_regression": true, since ratings are brought '
            "to one scale; add the lowest and the highest value that a rating can have, e.g. [1, 7]"
        )
    ignored = dict(IGNORED_EXPERIMENT_KEYS)
    if not searched:
        ignored |= dict.fromkeys(("hp_amount_of_training_data", "hp_num_trials"), _NOT_SEARCHED)
    messages = [_summary(source, older, ignored), *_ignored(source, older, ignored), *messages]
    first = next(iter(splits.values()), {"kind": "speaker_independent", "train_test_split": DEFAULT_SPLIT})
    if any(split != first for split in splits.values()):
        listed = "\n".join(f"  {entry}: {_text(split)}" for entry, split in splits.items())
        raise BadInput(
            f"{source}: the models do not agree on the split, so that results could not be compared; give all the "
            f"same 'train_test_split' and 'speaker_independent_scenario', or write one experiment per split:\n{listed}"
        )
    if first["kind"] == "random":
        messages.append(f"{source}: speakers are not kept apart, so every result is marked NOT COMPARABLE")

    result: dict[str, Any] = {
        "name": older.experiment_name,
        "train": [[_csv(older.training_dataset, older.training_dataset.data_csv)]],
        "test": [_csv(dataset, _test_csv(dataset.eval_csv_path)) for dataset in older.datasets],
        "models": list(files),
        "split": first,
        "seeds": _seeds(source, older.cross_validation, low_seed, high_seed, messages),
    }
    if older.augmentations:
        transforms = {name: _transform(source, name, keys, messages) for name, keys in older.augmentations.items()}
        result["augmentations"] = [{"name": "union", "mode": "union", "transforms": transforms}]
        messages.append(f"{source}: augmentations: one union of all; the clean clips are part of it, once each")
    if searched:
        result["search"] = {
            "parameters": {"training.learning_rate": HP_RATE},
            "models": searched,
            "num_trials": older.hp_num_trials,
            "amount_of_training_data": older.hp_amount_of_training_data,
            "metric": "val_loss",
        }
        messages.append(
            f"{source}: the learning rate of {', '.join(searched)} is searched from {HP_RATE['low']:g} to "
            f"{HP_RATE['high']:g} by {older.hp_num_trials} trials inside each split, on its validation speakers; there "
            "test speakers of the final training could take part. Trials train as long as the model does; there it was "
            "15 epochs, with 4 forward passes per update in place of 8"
        )
    messages.append(
        f"{source}: test clips keep their loudness; there they were brought to -23 LUFS (training clips were not). "
        'To bring all clips there, add "preprocess": [{"kind": "loudness"}] to a file of the present format'
    )
    parse(ExperimentSpec, result, source=f"{source} (translated)", kind="experiment")
    return Translated(result, tuple(dict.fromkeys(messages)), models)


def translate_model(content: dict[str, Any], source: str) -> Translated:
    """An older model file in the present format, with the training that the older system did.

    Raises:
        BadInput: an unknown key, or a value that cannot be honoured, with what to do instead
    """
    older = parse(OlderModel, content, source=source, kind="model (older format)")
    ignored = IGNORED_MODEL_KEYS | ({"skip_hp_search": _NO_SEARCH} if older.skip_hp_search else {})
    if older.is_regression:
        ignored = {key: why for key, why in ignored.items() if key not in ("output_column", "is_regression")}
    messages = [_summary(source, older, ignored), *_ignored(source, older, ignored)]
    if older.is_regression:
        messages.append(
            f"{source}: is_regression: ratings are predicted in [0, 1] with the squared error as there; the weights "
            "are selected by the CCC with the validation ratings (there it was that of the predictions with themselves)"
        )
    if not older.skip_hp_search:
        messages.append(f"{source}: skip_hp_search false: the experiment says what is searched ('search')")
    given = older.model_fields_set
    for key, switch in (
        ("dropout_rate", "use_dropout"),
        ("weight_decay", "use_l2_reg"),
        ("pool_position", "use_weight_encoder_layers"),
    ):
        if key in given and not getattr(older, switch):
            messages.append(f'{source}: {key} ignored: it has no effect without "{switch}": true')
    if older.use_weight_encoder_layers:
        messages.append(f"{source}: layer weights sum to 1 here (softmax); there they were free")
    if older.name is None:
        messages.append(f"{source}: name: none given, so the file's name is taken")

    result: dict[str, Any] = {
        "name": older.name or Path(source).stem,
        "encoder": {"kind": "pretrained", "model_path_or_name": older.model_path_or_name},
        "pooling": {"kind": _POOLING[older.pooling_mode]},
        "head": {
            "relu": older.use_relu,
            "batch_norm": older.use_batch_norm,
            "dropout": older.dropout_rate if older.use_dropout else 0.0,
            "l2": older.weight_decay if older.use_l2_reg else 0.0,
        },
        "freeze": {"cnn": True},
        "loss": {"class_weights": True},
        "training": {
            "epochs": older.number_of_training_epochs,
            "batch_size": older.per_device_batch_size,
            "accumulation": ACCUMULATION,
            "learning_rate": 5e-5,
            "weight_decay": 0.0,
            "scheduler": "linear",
            "warmup": 0.0,
            "gradient_clip": 1.0,
            "eval_every": older.eval_steps or DEFAULT_EVAL_STEPS,
            "select": "val_loss",
            "early_stopping": {"metric": "val_loss", "patience": 4, "min_delta": 0.025},
        },
    }
    if older.use_weight_encoder_layers:
        result["layers"] = {"use": "weighted", "pool_position": older.pool_position}
    if older.is_regression:
        result["ratings"] = {"dimensions": older.dimensions, "loss": "mse", "only": True}
        result["training"]["select"] = result["training"]["early_stopping"]["metric"] = "val_ccc"
    if older.continue_model_training:
        result["encoder"], result["init_from"] = (
            _encoder_of_run(older.model_path_or_name, source),
            older.model_path_or_name,
        )
    parse(ModelSpec, result, source=f"{source} (translated)", kind="model")
    return Translated(result, tuple(messages))


def _summary(source: str, older: OlderSpec, ignored: Mapping[str, str]) -> str:
    keys = [key for key in type(older).model_fields if key in older.model_fields_set and key not in ignored]
    return f"{source}: older format, read as the present one; translated: {', '.join(keys)}"


def _ignored(source: str, older: OlderSpec, ignored: Mapping[str, str]) -> list[str]:
    return [f"{source}: {key} ignored: {ignored[key]}" for key in ignored if key in older.model_fields_set]


def _model_files(older: OlderExperiment, source: str, messages: list[str]) -> dict[str, Path]:
    """Entries for 'models' and the files they stand for, sorted; the documented key wins."""
    value = older.model_files or older.model_input_files
    if not value:
        raise BadInput(f"{source}: model_files: required key is missing; a folder of model files or one of them")
    if older.model_files and older.model_input_files:
        messages.append(f"{source}: model_input_files ignored: model_files is given too")
    places = [(folder / value).resolve() for folder in (Path(source).parent, Path.cwd())]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise BadInput(f"{source}: model_files: {value!r} does not exist; looked for {' and '.join(map(str, places))}")
    if found.is_file():
        return {value: found}
    files = sorted(found.glob("*.json"))
    if not files:
        raise BadInput(f"{source}: model_files: {value!r} is a folder without .json files")
    return {(Path(value) / file.name).as_posix(): file for file in files}


def _split(model: OlderModel) -> dict[str, Any]:
    n = model.train_test_split
    if model.speaker_independent_scenario:
        return {"kind": "speaker_independent", "train_test_split": n}
    return {"kind": "random", "proportions": [round(share, 12) for share in (n * n, n * (1 - n), 1 - n)]}


def _text(split: Mapping[str, Any]) -> str:
    return f"{split['kind']} {split.get('train_test_split', split.get('proportions'))}"


def _csv(dataset: OlderDataset | OlderTrainingSet, path: str) -> dict[str, Any]:
    scale = {"rating_scale": list(dataset.rating_scale)} if dataset.rating_scale is not None else {}
    return {"kind": "csv", "name": dataset.name, "path": path, **scale}


def _test_csv(path: str) -> str:
    """The older key names the folder that holds test.csv; a file is taken as it is."""
    return path if path.lower().endswith(_TABLE_SUFFIXES) else (Path(path) / "test.csv").as_posix()


def _seeds(
    source: str, cross_validation: int | None, low: int | None, high: int | None, messages: list[str]
) -> dict[str, int]:
    """Both flags: low..high. One of them: as many seeds as `cross_validation` (or one), counted up from or to it."""
    count = cross_validation or 1
    if low is None and high is None:
        return {"low": 0, "high": count - 1}
    if cross_validation is not None:
        messages.append(f"{source}: --low_seed and --high_seed win over cross_validation")
    if low is None:
        assert high is not None
        low = max(0, high - count + 1)
    if high is None:
        high = low + count - 1
    if low < 0 or high < low:
        raise BadInput(f"--low_seed {low} --high_seed {high}: expected 0 <= low <= high; both are included")
    return {"low": low, "high": high}


def _transform(source: str, name: str, keys: dict[str, Any], messages: list[str]) -> dict[str, Any]:
    where = f"{source}: augmentations.{name}"
    missing = [key for key in ("module", "class") if not isinstance(keys.get(key), str)]
    if missing:
        raise BadInput(f"{where}: required key '{missing[0]}' is missing or no text")
    result = dict(keys)
    library = keys["module"].partition(".")[0]
    if keys["class"] == "LoudnessNormalization" and library == "audiomentations":
        result["module"], library = "ser_scripts.augment.loudness", "ser_scripts"
    elif keys["class"] == "FrequencyMask" and library not in (
        "audiomentations",
        "torch_audiomentations",
        "ser_scripts",
    ):
        result["module"], library = "ser_scripts.augment.frequency_mask", "ser_scripts"
    if result["module"] != keys["module"]:
        messages.append(f"{where}: this project's {keys['class']} stands in for the one of {keys['module']}")
    wants_tensors = {"torch_audiomentations": True, "audiomentations": False, "ser_scripts": False}
    result["tensors"] = wants_tensors.get(library, keys.get("tensors", False))
    if "p" in result:
        messages.append(f"{where}.p ignored: a union applies every transform to its own copy of each clip")
        del result["p"]
    return result


def _encoder_of_run(path: str, source: str) -> dict[str, Any]:
    """The encoder of a finished run, whose weights are the start of a continued training."""
    places = [Path(source).parent / path, Path(path)]
    run = next((place for place in places if (place / RUN).is_file() and (place / SPEC).is_file()), None)
    if run is None:
        raise BadInput(
            f"{source}: continue_model_training: {path!r} is not a finished run folder of this project (no {RUN}). The "
            "speakers that other weights have seen are not recorded, so they could leak into the test side. Train from "
            "the pretrained encoder (leave the key out), or name a run folder"
        )
    encoder = read_json(run / SPEC).get("model", {}).get("encoder")
    if not isinstance(encoder, dict):
        raise BadInput(f"{run / SPEC}: model.encoder: required key is missing")
    return dict(encoder)
