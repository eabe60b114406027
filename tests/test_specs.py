"""Spec classes: what is shipped loads, and what is wrong is refused in words that help."""

import json
from pathlib import Path

import jsonschema
import pytest

from ser_scripts.errors import BadInput
from ser_scripts.runs.plan import apply_overrides, find_model, load_experiment, load_model
from ser_scripts.runs.templates import write_template
from ser_scripts.specs.base import digest, parse
from ser_scripts.specs.experiment import ExperimentSpec
from ser_scripts.specs.model import ModelSpec
from ser_scripts.specs.schemas import SCHEMAS, schema

ROOT = Path(__file__).parent.parent
EXPERIMENTS = sorted((ROOT / "experiments").glob("*.json"))
MODELS = sorted((ROOT / "models").glob("*.json"))


def experiment(**changes):
    content = {
        "name": "x",
        "train": ["toy"],
        "models": ["mini-whisper"],
        "split": {"kind": "speaker_independent"},
    }
    return {**content, **changes}


def refused(content, cls=ExperimentSpec):
    with pytest.raises(BadInput) as error:
        parse(cls, content, source="x.json", kind="experiment")
    return str(error.value)


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_shipped_experiment_loads_with_its_models(file):
    loaded = load_experiment(file)
    assert loaded.spec.name == file.stem
    assert len(loaded.models) == len(loaded.spec.models)
    jsonschema.validate(json.loads(file.read_text()), json.loads(schema("experiment.json")))


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_shipped_model_loads(file):
    model, messages = load_model(file)
    assert model.name == file.stem
    assert messages == []
    jsonschema.validate(json.loads(file.read_text()), json.loads(schema("model.json")))


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_schema_files_are_those_of_the_classes(name):
    assert (ROOT / "schemas" / name).read_text(encoding="utf-8") == schema(name), "run `make schemas`"


def test_unknown_key_names_the_nearest():
    text = refused(experiment(sedes=[1], split={"kind": "speaker_independent", "train_test_spli": 0.8}))
    assert text.startswith("x.json is not a valid experiment:")
    assert "sedes: unknown key; did you mean 'seeds'?" in text
    assert "unknown key; did you mean 'train_test_split'?" in text


def test_unknown_key_deep_in_a_model():
    content = {"name": "m", "encoder": {"model_path_or_name": "a/b"}, "training": {"learning_rat": 1e-3}}
    assert "training.learning_rat: unknown key; did you mean 'learning_rate'?" in refused(content, ModelSpec)


def test_unknown_value_lists_the_valid_ones():
    text = refused({"name": "m", "encoder": {"model_path_or_name": "a/b"}, "pooling": {"kind": "epaca"}}, ModelSpec)
    assert "pooling.kind" in text
    for name in ("mean", "sum", "max", "attentive_stats", "ecapa"):
        assert f"'{name}'" in text


def test_unknown_split_kind_lists_the_valid_ones():
    text = refused(experiment(split={"kind": "loso"}))
    assert "'leave_one_speaker_out'" in text
    assert "loso" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "a/b"}, "name"),
        ({"train": []}, "train"),
        ({"models": ["a", "a"]}, "stands there twice"),
        ({"classes": ["angry"]}, "at least two"),
        ({"seeds": {"low": 5, "high": 1}}, "below"),
        ({"seeds": {"low": 1, "high": 1_000_000_000}}, "1 to 1000000000 are more than 10000 seeds"),
        ({"split": {"kind": "speaker_independent", "proportions": [0.5, 0.2, 0.2]}}, "sum to 0.9"),
        (
            {"split": {"kind": "speaker_independent", "proportions": [0.7, 0.2, 0.1], "train_test_split": 0.8}},
            "not both",
        ),
        ({"split": {"kind": "cross_corpus"}}, "needs at least one corpus under 'test'"),
        ({"augmentations": [{"name": "a", "mode": "repeat", "transforms": {}}]}, "takes 'copies'"),
        ({"augmentations": [{"name": "a"}]}, "takes 'transforms'"),
    ],
)
def test_contradictions_are_refused(changes, said):
    assert said in refused(experiment(**changes))


@pytest.mark.parametrize(
    ("changes", "said", "unsaid"),
    [
        ({"seeds": {"low": 3, "high": 1}}, "'high' (1) is below 'low' (3)", "CrossedSeeds"),
        ({"seeds": "a"}, 'a list, e.g. ["a"]', "CrossedSeeds"),
        ({"train": "toy"}, 'a list, e.g. ["toy"]', "tuple"),
        ({"train": [{"name": 3}]}, "train.0.0.named.name", "at least 1"),
        ({"split": {}}, "split: the key 'kind' is missing", "tag"),
        ({"split": {"kind": "k_flod"}}, "did you mean 'k_fold'?", "tag"),
        ({"name": "a b"}, "letters, digits", "pattern"),
        ({"train": [{"name": "toy", "only": {"sentense": ["a"]}}]}, "only: the key 'sentense' is not valid", "[key]"),
        ({"split": {"kind": "k_fold", "folds": "5"}}, 'split.k_fold.folds: "5" is not valid; expected a number', "int"),
        ({"split": {"kind": "k_fold", "folds": True}}, "folds: true is not valid; expected a number", "int"),
        ({"split": {"kind": "speaker_independent", "rotate": 1}}, "rotate: 1 is not valid; expected true or", "bool"),
        ({"split": {"kind": "speaker_independent", "rotate": "no"}}, 'rotate: "no" is not valid; expected', "bool"),
        ({"seeds": ["0"]}, 'seeds.list.0: "0" is not valid', "Crossed"),
        ({"seeds": {"low": "0", "high": 3}}, 'low: "0" is not valid; expected a number', "Crossed"),
    ],
)
def test_errors_speak_json_not_python(changes, said, unsaid):
    text = refused(experiment(**changes))
    assert said in text
    assert unsaid not in text


def test_a_key_that_stands_twice_is_refused(tmp_path):
    (tmp_path / "x.json").write_text('{"name": "x", "seeds": [0], "seeds": [1]}')
    with pytest.raises(BadInput, match=r"x\.json: the key 'seeds' stands twice in one object"):
        load_experiment(tmp_path / "x.json")


def test_short_forms_of_corpora():
    pooled = parse(ExperimentSpec, experiment(train=["cremad", "ravdess"]), source="x", kind="experiment")
    assert [[c.name for c in group] for group in pooled.train] == [["cremad", "ravdess"]]
    each = parse(ExperimentSpec, experiment(train=[["cremad"], ["ravdess"]]), source="x", kind="experiment")
    assert [[c.name for c in group] for group in each.train] == [["cremad"], ["ravdess"]]
    csv = {"kind": "csv", "name": "mine", "path": "mine.csv"}
    assert parse(ExperimentSpec, experiment(train=[csv]), source="x", kind="experiment").train[0][0].kind == "csv"


def test_seeds():
    def pairs(seeds):
        return parse(ExperimentSpec, experiment(seeds=seeds), source="x", kind="experiment").seed_pairs()

    assert pairs([3, 5]) == [(3, 3, 3), (5, 5, 5)]
    assert pairs({"low": 2, "high": 4}) == [(2, 2, 2), (3, 3, 3), (4, 4, 4)]
    assert pairs({"split_seeds": [0, 1], "train_seeds": [7, 8]}) == [(0, 0, 7), (1, 0, 8), (2, 1, 7), (3, 1, 8)]


def test_default_shares_are_n_squared():
    spec = parse(ExperimentSpec, experiment(), source="x", kind="experiment")
    assert spec.split.shares == pytest.approx((0.64, 0.16, 0.2))


def test_digest_is_of_the_content_not_of_the_file():
    one = parse(ExperimentSpec, experiment(), source="x", kind="experiment")
    other = parse(ExperimentSpec, dict(reversed(experiment().items())), source="y", kind="experiment")
    assert digest(one) == digest(other)
    assert digest(one) != digest(parse(ExperimentSpec, experiment(name="y"), source="x", kind="experiment"))


def test_json_syntax_error_names_the_line(tmp_path):
    file = tmp_path / "x.json"
    file.write_text('{"name": "x",\n "train": [}')
    with pytest.raises(BadInput, match=r"x\.json is not valid JSON: line 2"):
        load_experiment(file)


def test_overrides_edit_the_spec():
    content = {"split": {"kind": "k_fold"}}
    apply_overrides(content, ["split.folds=10", "description=two words", "seeds=[1,2]"])
    assert content == {"split": {"kind": "k_fold", "folds": 10}, "description": "two words", "seeds": [1, 2]}
    with pytest.raises(BadInput, match="expected field=value"):
        apply_overrides(content, ["split.folds"])


@pytest.mark.parametrize("field", ["training.epochs", "model.training.epochs"])
def test_fields_that_models_alone_have_are_set_without_their_prefix(field):
    edited = load_experiment(ROOT / "experiments/quickstart.json", overrides=[f"{field}=50", "description=again"])
    assert {model.training.epochs for model in edited.models} == {50}
    assert edited.spec.description == "again"
    assert not any(model.description == "again" for model in edited.models)


def test_overrides_reach_models_and_the_digest():
    plain = load_experiment(ROOT / "experiments" / "quickstart.json")
    edited = load_experiment(ROOT / "experiments" / "quickstart.json", overrides=["model.training.epochs=3"])
    assert [model.training.epochs for model in edited.models] == [3, 3]
    assert digest(plain.models[0]) != digest(edited.models[0])


def test_missing_model_names_the_nearest():
    with pytest.raises(BadInput, match="did you mean 'mini-whisper'"):
        find_model("mini-whispr", ROOT / "experiments")


def test_seed_flags_win_over_the_file():
    loaded = load_experiment(ROOT / "experiments" / "emodb.json", low_seed=3, high_seed=4)
    assert [seed for seed, *_ in loaded.spec.seed_pairs()] == [3, 4]


def test_factors_must_be_shared_and_free(tmp_path):
    text = refused({"name": "m", "encoder": {"model_path_or_name": "a/b"}, "factors": {"seed": "1"}}, ModelSpec)
    assert "column of results.csv" in text
    for name, factors in (("a", {"size": "s"}), ("b", {})):
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"name": name, "encoder": {"model_path_or_name": "x/y"}, "factors": factors})
        )
    (tmp_path / "e.json").write_text(json.dumps(experiment(models=["a", "b"])))
    with pytest.raises(BadInput, match="different factors"):
        load_experiment(tmp_path / "e.json")


@pytest.mark.parametrize("kind", ["experiment", "model"])
def test_templates_are_valid_and_never_overwrite(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"corpus": "emodb", "model": "mini-whisper", "encoder": "a/b", "out": None}
    file = write_template(kind, "mine", **options)
    content = json.loads(file.read_text())
    parse({"experiment": ExperimentSpec, "model": ModelSpec}[kind], content, source="x", kind=kind)
    with pytest.raises(BadInput, match="exists already"):
        write_template(kind, "mine", **options)
