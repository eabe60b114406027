"""What a search may be: paths, ranges and combinations, refused before anything is done; draws that are pure."""

import itertools
import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_scripts.errors import BadInput
from ser_scripts.specs.base import parse
from ser_scripts.specs.experiment import ExperimentSpec
from ser_scripts.specs.model import ModelSpec
from ser_scripts.specs.ratings import RatingsSpec
from ser_scripts.specs.search import (
    FIXED,
    Choices,
    FloatRange,
    IntRange,
    SearchSpec,
    check_search,
    content_with,
    paths_of,
    with_values,
)

MODEL = ModelSpec.model_validate(
    {
        "name": "m",
        "encoder": {"kind": "random", "config": {"model_type": "whisper", "d_model": 32}},
        "head": {"kind": "mlp"},
        "training": {"learning_rate": 1e-3, "early_stopping": None},
    }
)
FROZEN = ModelSpec.model_validate({"name": "f", "encoder": {"model_path_or_name": "a/b", "frozen": True}})
RATE = {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True}


def search(**content: Any) -> SearchSpec:
    return parse(SearchSpec, {"parameters": {"training.learning_rate": RATE}, **content}, source="s", kind="search")


def check(parameters: dict[str, Any], model: ModelSpec = MODEL, **content: Any) -> None:
    check_search(search(parameters=parameters, **content), [model], source="x.json")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"training.learning_rat": RATE}, "'training.learning_rat' is no field .*did you mean 'training.learning_rate"),
        ({"head": RATE}, "'head' is no field of model 'm'"),
        ({"training.early_stopping.patience": {"kind": "int", "low": 1, "high": 3}},
         "whose training.early_stopping is null"),
        ({"encoder.config.d_modl": {"kind": "int", "low": 8, "high": 16}}, "did you mean 'encoder.config.d_model'"),
        ({"name": {"kind": "categorical", "choices": ["a", "b"]}}, "'name' cannot be searched"),
        ({"training.threads": {"kind": "int", "low": 1, "high": 2}}, "'training.threads' cannot be searched"),
        ({"training.learning_rate": {"kind": "float", "low": 0, "high": 1}},
         "'training.learning_rate': 0.0 does not go with model 'm': .*greater than 0"),
        ({"head.dropout": {"kind": "float", "low": 0, "high": 1}}, "'head.dropout': 1.0 .* less than 1"),
        ({"head.hidden": {"kind": "float", "low": 8, "high": 64}}, "'head.hidden': 25.8.* integer"),
        ({"head.hidden": {"kind": "int", "low": 0, "high": 64}}, "'head.hidden': 0 .*greater than or equal to 1"),
        ({"head.relu": {"kind": "int", "low": 0, "high": 1}}, "'head.relu': 0 .* expected true or false"),
        ({"pooling.kind": {"kind": "categorical", "choices": ["mean", "mena"]}}, "'pooling.kind': \"mena\" .*'mean'"),
        ({"head.kind": {"kind": "categorical", "choices": ["mlp", "linear"]},
          "head.batch_norm": {"kind": "categorical", "choices": [False, True]}}, "'head.batch_norm': true .*'mlp'"),
        ({"training.min_learning_rate": {"kind": "float", "low": 0, "high": 1e-4},
          "training.learning_rate": RATE}, "together .* lies above 'learning_rate'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_model_is_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        check(parameters)


def test_what_a_frozen_encoder_cannot_do_is_named() -> None:
    with pytest.raises(BadInput, match=r"'pooling.kind': .ecapa. does not go with model 'f': .*frozen encoder"):
        check({"pooling.kind": {"kind": "categorical", "choices": ["mean", "ecapa"]}}, FROZEN)


def test_trials_are_compared_by_what_the_model_predicts() -> None:
    only = FROZEN.model_copy(update={"ratings": RatingsSpec(only=True)})
    with pytest.raises(BadInput, match=r"search.metric is 'val_ccc', but model 'f' predicts no ratings"):
        check({"training.learning_rate": RATE}, FROZEN, metric="val_ccc")
    with pytest.raises(BadInput, match=r"'val_uar', but model 'f' predicts ratings only; set it to 'val_ccc'"):
        check({"training.learning_rate": RATE}, only)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"parameters": {}}, "parameters"),
        ({"parameters": {"a": {**RATE, "low": 1}}}, r"'low' \(1\) must be below 'high'"),
        ({"parameters": {"a": {**RATE, "low": 0}}}, r"'low' \(0\) must be above 0 with 'log'"),
        ({"parameters": {"a": {"kind": "int", "low": -2, "high": 8, "log": True}}}, "above 0 with 'log'"),
        ({"parameters": {"a": {**RATE, "step": 1e-3}}}, "'step' does not go with 'log'"),
        ({"parameters": {"a": {"kind": "int", "low": 1, "high": 8, "step": 3}}}, "'step' .3. does not lead"),
        ({"parameters": {"a": {"kind": "int", "low": 1.5, "high": 8}}}, "low: 1.5 is not valid"),
        ({"parameters": {"a": {"kind": "categorical", "choices": [1]}}}, "choices"),
        ({"parameters": {"a": {"kind": "categorical", "choices": [[1], [2]]}}}, "choices"),
        ({"parameters": {"a": {"kind": "categorical", "choices": [1, True]}}}, "stands there twice"),
        ({"parameters": {"a": {"kind": "choice", "choices": [1]}}}, "valid: 'float', 'int', 'categorical'"),
        ({"num_trials": 0}, "num_trials: 0 is not valid"),
        ({"amount_of_training_data": 0}, "amount_of_training_data: 0 is not valid"),
        ({"metric": "test_uar"}, "'val_uar', 'val_loss' or 'val_ccc'"),
        ({"sampler": "grid"}, "a grid needs 'points'"),
        ({"sampler": "random", "startup_trials": 3}, "'startup_trials' has no effect"),
        ({"parameters": {"a": {**RATE, "points": 3}}}, "'points' has no effect with the sampler 'tpe'"),
        ({"pruning": {"percentile": 10}}, "'percentile' has no effect with the kind 'median'"),
        ({"num_trial": 3}, "did you mean 'num_trials'"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        search(**content)


def test_an_unknown_model_is_named() -> None:
    with pytest.raises(BadInput, match=r"search.models: 'n' is none .*valid: m"):
        check_search(search(models=["n"]), [MODEL], source="x.json")
    check_search(search(models=["m"], parameters={"head.hidden": {"kind": "int", "low": 1, "high": 4}}),
                 [MODEL, FROZEN], source="x.json")  # fmt: skip


def test_paths_are_fields_that_can_be_set() -> None:
    paths = paths_of(MODEL)
    assert {"training.learning_rate", "encoder.config.d_model", "layers.use", "training.plateau.patience"} <= {*paths}
    assert not set(FIXED) & set(paths)
    assert "training.early_stopping.patience" not in paths
    whole = MODEL.model_dump(mode="json", by_alias=True)
    for path in paths:
        value: Any = whole
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        assert not isinstance(value, dict), path


def test_other_values_change_nothing_else() -> None:
    changed = with_values(MODEL, {"training.learning_rate": 2e-4, "encoder.config.d_model": 64}, source="")
    assert changed.training.learning_rate == 2e-4
    assert MODEL.training.learning_rate == 1e-3
    assert with_values(changed, {"training.learning_rate": 1e-3, "encoder.config.d_model": 32}, source="") == MODEL
    content = content_with(MODEL, {"layers.use": 3})
    assert content["layers"]["use"] == 3
    assert set(content) == {"name", "encoder", "head", "training", "layers"}  # what the file left out stays out


def test_a_part_that_is_null_by_default_can_be_searched() -> None:
    plateau = with_values(MODEL, {"training.scheduler": "plateau"}, source="")
    check({"training.plateau.patience": {"kind": "int", "low": 1, "high": 4}}, plateau)
    assert with_values(plateau, {"training.plateau.patience": 2}, source="").training.plateau is not None


@given(st.floats(1e-6, 1e3), st.floats(1.1, 1e4), st.integers(2, 12), st.booleans())
def test_grid_points_are_even_and_keep_their_ends(low: float, ratio: float, points: int, log: bool) -> None:
    cells = FloatRange(kind="float", low=low, high=low * ratio, log=log, points=points).cells()
    assert cells is not None
    assert len(cells) == points
    assert (cells[0], cells[-1]) == (low, low * ratio)
    steps = [b / a if log else b - a for a, b in itertools.pairwise(cells)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-6, abs=1e-9 * ratio * low)


def test_steps_of_a_grid() -> None:
    assert FloatRange(kind="float", low=0, high=0.3, step=0.1).cells() == pytest.approx([0, 0.1, 0.2, 0.3])
    assert IntRange(kind="int", low=2, high=8, step=3).cells() == [2, 5, 8]
    assert Choices(kind="categorical", choices=(None, "a", 1.5)).cells() == [None, "a", 1.5]


def test_a_search_changes_no_other_experiment() -> None:
    content = {"name": "x", "train": ["toy"], "models": ["m"], "split": {"kind": "speaker_independent"}}
    assert parse(ExperimentSpec, content, source="", kind="").search is None
    whole = {**content, "search": {"parameters": {"training.learning_rate": RATE}}}
    found = parse(ExperimentSpec, whole, source="", kind="").search
    assert found is not None
    assert (found.num_trials, found.metric, found.scope, found.sampler) == (20, "val_uar", "nested", "tpe")
    assert json.loads(found.model_dump_json())["parameters"]["training.learning_rate"]["log"] is True


@pytest.mark.parametrize(
    "content",
    [
        {"sampler": "random"},
        {"sampler": "tpe", "startup_trials": 4},
        {"pruning": {"kind": "percentile"}},
        {"pruning": {"warmup_evaluations": 2}, "scope": "locked"},
    ],
)
def test_a_recorded_search_can_be_read_again(content: dict[str, Any]) -> None:
    """run.json, spec.json and study.json hold it with its defaults."""
    spec = search(**content)
    assert parse(SearchSpec, spec.model_dump(mode="json"), source="", kind="") == spec


def fake_score(values: dict[str, Any]) -> float:
    """A smooth function with its best at a rate of 1e-3 and a dropout of .3."""
    import math

    return -((math.log10(values["training.learning_rate"]) + 3) ** 2) - (values["head.dropout"] - 0.3) ** 2


def draws(spec: SearchSpec, number: int, *, killed_at: int | None = None, folder: Path) -> list[dict[str, Any]]:
    """The values that trials would have, with a store that is closed and read again at `killed_at`."""
    from types import SimpleNamespace

    from ser_scripts.runs import search as module

    study: Any = SimpleNamespace(spec=spec, seed="0/0/")
    place = f"sqlite:///{folder}/{'killed' if killed_at else 'whole'}.db"
    disk = optuna.create_study(storage=place, study_name="s", direction="maximize", load_if_exists=True)
    finished: list[Any] = []
    for trial_number in range(number):
        if trial_number == killed_at:
            disk = optuna.load_study(storage=place, study_name="s")
            finished = disk.get_trials()
        memory = module._memory(study, finished)
        trial = module._ask(memory, study, trial_number)
        frozen = optuna.create_trial(
            value=fake_score(trial.params), params=trial.params, distributions=module.distributions(spec)
        )
        disk.add_trial(frozen)
        frozen.number = trial_number
        finished.append(frozen)
    return [trial.params for trial in finished]


TWO: dict[str, Any] = {"training.learning_rate": RATE, "head.dropout": {"kind": "float", "low": 0, "high": 0.9}}


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_draws_do_not_depend_on_a_kill_or_on_the_order_of_keys(sampler: str, tmp_path: Path) -> None:
    starts = {"startup_trials": 5} if sampler == "tpe" else {}
    spec = search(parameters=TWO, sampler=sampler, num_trials=14, **starts)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = draws(spec, 14, folder=tmp_path / "a")
    assert draws(spec, 14, killed_at=9, folder=tmp_path / "a") == whole
    turned = search(parameters=dict(reversed(TWO.items())), sampler=sampler, num_trials=14, **starts)
    assert draws(turned, 14, folder=tmp_path / "b") == whole
    assert len({values["training.learning_rate"] for values in whole}) == 14


def test_tpe_learns_from_earlier_trials(tmp_path: Path) -> None:
    values = draws(search(parameters=TWO, startup_trials=8), 40, folder=tmp_path)
    early, late = ([fake_score(one) for one in part] for part in (values[:8], values[-20:]))
    assert sum(late) / 20 > sum(early) / 8
    assert max(map(fake_score, values)) > -0.05


def test_a_grid_tries_every_cell_once(tmp_path: Path) -> None:
    grid = {
        "training.learning_rate": {**RATE, "points": 4},
        "head.dropout": {"kind": "float", "low": 0, "high": 0.4, "step": 0.2},
    }
    spec = search(parameters=grid, sampler="grid", num_trials=100)
    assert spec.trials == 12
    values = draws(spec, 12, folder=tmp_path)
    assert len({tuple(one.values()) for one in values}) == 12
    assert values != sorted(values, key=lambda one: tuple(one.values()))
