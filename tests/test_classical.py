"""Classical models: the specs, the features, and that plain arrays decide as scikit-learn does."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

from ser_scripts.errors import BadInput, Finding
from ser_scripts.features import functionals as extractor
from ser_scripts.features.functionals import open_functionals, statistics
from ser_scripts.modeling.classical import ClassicalModel, decide, fit, fit_temperature, is_classical, nll
from ser_scripts.specs.base import parse
from ser_scripts.specs.classical import (
    ClassicalSpec,
    ClassicalTraining,
    EmbeddingFeatures,
    LinearSvm,
    LogisticRegressionSpec,
    MfccFeatures,
    OpenSmileFeatures,
    RandomForest,
    RbfSvm,
    XgBoost,
)

BASE: dict[str, Any] = {
    "name": "m", "kind": "classical", "features": {"kind": "mfcc"}, "classifier": {"kind": "linear_svm"},
}  # fmt: skip


def spec(**changes: Any) -> ClassicalSpec:
    return parse(ClassicalSpec, {**BASE, **changes}, source="m.json", kind="model")


def blobs(classes: int, per_class: int = 40, seed: int = 0) -> tuple[Any, Any]:
    """Overlapping clouds of unequal size in six numbers, one of which never changes."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.full(per_class - 7 * c, c) for c in range(classes)])
    centres = rng.normal(size=(classes, 6)) * 1.5
    values = centres[truth] + rng.normal(size=(len(truth), 6)) * [1, 5, 0.1, 2, 1, 1] + 3
    values[:, 5] = 7.0
    return values, truth.astype(np.int64)


SETTINGS = [
    LinearSvm(C=0.3),
    LogisticRegressionSpec(C=0.3),
    RbfSvm(C=2.0),
    RbfSvm(C=1.0, gamma=0.05),
    RandomForest(trees=25),
]


def reference(setting: Any, classes: int) -> Any:
    made = {
        "linear_svm": lambda: LinearSVC(C=setting.C, class_weight="balanced", random_state=5, max_iter=10_000),
        "logistic_regression": lambda: LogisticRegression(C=setting.C, class_weight="balanced", max_iter=2000),
        "rbf_svm": lambda: SVC(C=setting.C, gamma=setting.gamma, class_weight="balanced", break_ties=classes > 2),
        "random_forest": lambda: RandomForestClassifier(setting.trees, class_weight="balanced", random_state=5),
    }
    return make_pipeline(StandardScaler(), made[setting.kind]())


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: f"{one.kind}-{getattr(one, 'gamma', '')}")
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_arrays_decide_as_scikit_learn_does(setting: Any, classes: int) -> None:
    values, truth = blobs(classes)
    tested = np.random.default_rng(9).normal(size=(200, 6)) * 3 + 3
    decisions = decide(fit(setting, values, truth, class_weights=True, seed=5, threads=1), tested, classes)
    theirs = reference(setting, classes).fit(values, truth)
    if setting.kind == "random_forest":
        shares = theirs.predict_proba(tested)
        assert np.allclose(np.exp(decisions), np.maximum(shares, 0.02), atol=1e-12)
        clear = np.sort(shares, axis=1)[:, -1] - np.sort(shares, axis=1)[:, -2] > 1e-9
        assert (decisions.argmax(axis=1)[clear] == theirs.predict(tested)[clear]).all()
        return
    expected = theirs.decision_function(tested)
    if classes == 2:
        assert (decisions[:, 0] == 0).all()
        assert np.allclose(decisions[:, 1], expected, atol=1e-9)
    else:
        assert np.allclose(decisions, expected, atol=1e-9)
    assert (decisions.argmax(axis=1) == theirs.predict(tested)).all()
    if setting.kind == "logistic_regression":
        assert np.allclose(scipy.special.softmax(decisions, axis=1), theirs.predict_proba(tested), atol=1e-9)


def test_xgboost_is_its_own_margins_or_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    values, truth = blobs(3)
    setting = XgBoost(rounds=5, max_depth=2)
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(BadInput, match=r"xgboost, which is not installed: .venv/bin/pip install -e '.\[xgboost\]'"):
        fit(setting, values, truth, class_weights=True, seed=0, threads=1)
    monkeypatch.undo()
    xgboost = pytest.importorskip("xgboost")
    for classes in (2, 3):
        values, truth = blobs(classes)
        first = fit(setting, values, truth, class_weights=True, seed=0, threads=1)
        again = fit(setting, values, truth, class_weights=True, seed=0, threads=1)
        assert (first.arrays["booster"] == again.arrays["booster"]).all()
        decisions = decide(first, values, classes)
        booster = xgboost.Booster(model_file=bytearray(first.arrays["booster"].tobytes()))
        shares = booster.predict(xgboost.DMatrix(StandardScaler().fit_transform(values)))
        ours = scipy.special.softmax(decisions, axis=1)
        assert np.allclose(ours if classes > 2 else ours[:, 1], shares, atol=1e-5)
        assert (decisions.argmax(axis=1) == truth).mean() > 0.6


def test_a_class_that_was_not_fitted_is_never_answered() -> None:
    values, truth = blobs(3)
    kept = truth != 1
    for setting in SETTINGS:
        decisions = decide(fit(setting, values[kept], truth[kept], class_weights=True, seed=0, threads=1), values, 3)
        assert (decisions[:, 1] == -np.inf).all()
        assert np.isfinite(decisions[:, [0, 2]]).all()
    with pytest.raises(Finding, match="of one class"):
        fit(SETTINGS[0], values[truth == 0], truth[truth == 0], class_weights=True, seed=0, threads=1)


@pytest.mark.parametrize("setting", SETTINGS[:1] + SETTINGS[2:3] + SETTINGS[4:], ids=lambda one: str(one.kind))
def test_a_saved_model_decides_alike_and_holds_no_pickle(setting: Any, tmp_path: Path) -> None:
    values, truth = blobs(4)
    fitted = fit(setting, values, truth, class_weights=True, seed=1, threads=1)
    one = ClassicalModel(
        spec(classifier={"kind": setting.kind}), ("a", "b", "c", "d"), None, setting, 0.7, fitted, {"name": "x"}
    )
    one.save(tmp_path / "model")
    searched = spec(grid={"C": [1, 2]})
    assert parse(ClassicalSpec, searched.model_dump(mode="json"), source="saved", kind="model") == searched
    assert is_classical(tmp_path / "model")
    loaded = ClassicalModel.load(tmp_path / "model")
    assert loaded.setting == setting
    assert np.array_equal(loaded.logits(values), one.logits(values))
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == [
        "config.json", "labels.json", "model.safetensors",
    ]  # fmt: skip
    (tmp_path / "model/model.safetensors").write_bytes(b"damaged")
    with pytest.raises(BadInput, match=r"model\.safetensors is damaged"):
        ClassicalModel.load(tmp_path / "model")


def test_temperature_makes_the_likelihood_greatest() -> None:
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(4000, 3)) * 2
    truth = np.array([rng.choice(3, p=row) for row in scipy.special.softmax(logits, axis=1)])
    assert fit_temperature(logits * 5, truth) == pytest.approx(5, rel=0.1)
    found = fit_temperature(logits * 5, truth)
    assert nll(logits * 5 / found, truth) <= min(nll(logits * 5 / t, truth) for t in (found * 0.9, found * 1.1))
    unknown = np.where(np.arange(3) == 2, -np.inf, logits)
    assert np.isfinite(fit_temperature(unknown, truth))
    assert fit_temperature(unknown, np.full(4000, 2)) == 1.0


# --- the spec


def refused(**changes: Any) -> str:
    with pytest.raises(BadInput) as error:
        spec(**changes)
    return str(error.value)


def test_grid_is_every_combination_in_a_fixed_order() -> None:
    one = spec(classifier={"kind": "rbf_svm"}, grid={"gamma": ["scale", 0.1], "C": [1, 10]})
    assert [(s.C, s.gamma) for s in one.settings()] == [(1, "scale"), (1, 0.1), (10, "scale"), (10, 0.1)]  # type: ignore[union-attr]
    assert one.searches
    assert not spec().searches
    assert spec().settings() == [LinearSvm()]
    assert spec(features={"kind": "embedding", "encoder": {"model_path_or_name": "a/b"}}).searches


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": {"c": [1]}}, "grid: 'c' is no key of the classifier 'linear_svm'; "),
        ({"grid": {"C": []}}, "grid.C: a list of at least 1"),
        ({"grid": {"C": [1, 1]}}, "grid.C: a value stands there twice"),
        ({"grid": {"C": [-1]}}, "grid.C: -1 is not valid; expected greater than 0"),
        ({"grid": {"C": ["1"]}}, 'grid.C: "1" is not valid'),
        ({"grid": {"C": [1]}, "classifier": {"kind": "linear_svm", "C": 2}}, "'C' stands in the classifier and in"),
        ({"classifier": {"kind": "svm"}}, "classifier.kind: 'svm' is not valid"),
        ({"features": {"kind": "mfcc", "statistics": ["mean", "mean"]}}, "'mean' stands there twice"),
        ({"training": {"inner_folds": 3}}, "'inner_folds' has no effect with the search 'validation'"),
        ({"training": {"epochs": 3}}, "training.epochs: unknown key"),
        ({"ratings": {}}, "'ratings' does not go with a classical model, which predicts classes alone"),
        ({"factors": {"seed": 1}}, "'seed' is a column of results.csv already"),
    ],
)
def test_faults_are_named(changes: Any, message: str) -> None:
    assert message in refused(**changes)


# --- features


def tone(seconds: float, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    time = np.arange(int(16000 * seconds)) / 16000
    wave = np.sin(2 * np.pi * 180 * time) + 0.5 * np.sin(2 * np.pi * 360 * time)
    return (0.1 * wave * (1 + 0.3 * np.sin(2 * np.pi * 3 * time)) + 0.01 * rng.normal(size=len(time))).astype(
        np.float32
    )


@settings(max_examples=30)
@given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 2**31))
def test_statistics_are_numpys_and_scipys(frames: int, numbers: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(frames, numbers))
    rows = np.concatenate([rows, np.full((frames, 1), 3.7)], axis=1)
    names = ("std", "q05", "median", "skewness", "kurtosis", "max")
    found = statistics(rows, names).reshape(len(names), numbers + 1)
    assert np.isfinite(found).all()
    assert np.allclose(found[0], rows.std(axis=0))
    assert np.allclose(found[1], np.quantile(rows, 0.05, axis=0))
    assert np.allclose(found[3, :-1], scipy.stats.skew(rows[:, :-1]))
    assert found[3, -1] == found[4, -1] == 0
    assert np.allclose(found[5], rows.max(axis=0))


def test_mfcc_statistics_have_their_shape_and_hear_level_and_length() -> None:
    wanted = MfccFeatures(loudness=True, duration=True)
    assert extractor.functionals(tone(1.0), wanted).shape == (4 * (40 + 1) + 1,)
    loud, soft = (extractor.functionals(np.float32(g) * tone(1.0), wanted) for g in (1.0, 0.1))
    assert loud[40] - soft[40] == pytest.approx(20, abs=1e-3)  # mean level: a tenth is 20 dB
    assert loud[-1] == pytest.approx(0.0)
    assert extractor.functionals(tone(2.0), wanted)[-1] == pytest.approx(np.log(2))


def test_the_cache_is_by_content_in_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [tone(0.5, seed) for seed in range(5)]
    names = [f"c/{n}" for n in range(5)]
    first = open_functionals(clips[:3], names[:3], MfccFeatures(), tmp_path, workers=1)
    both = open_functionals(clips[::-1], names[::-1], MfccFeatures(), tmp_path, workers=1)
    assert np.array_equal(both[::-1][:3], first)
    files = list((tmp_path / "functionals").rglob("*.safetensors"))
    assert len(files) == 2  # a table each time, never a file per clip
    monkeypatch.setattr(extractor, "functionals", lambda *a, **k: pytest.fail("a clip was computed again"))
    assert np.array_equal(open_functionals(clips, names, MfccFeatures(), tmp_path, workers=1), both[::-1])
    assert extractor.verify(files[0].parent) == []
    files[0].write_bytes(files[0].read_bytes()[:-8] + b"damaged!")
    assert extractor.verify(files[0].parent) == [files[0]]
    with pytest.raises(Finding, match="is damaged; delete it"):
        open_functionals(clips, names, MfccFeatures(), tmp_path, workers=1)


def test_too_short_clips_are_named(tmp_path: Path) -> None:
    short = tone(1.0)[:200]
    with pytest.raises(BadInput, match="c/a: 200 samples are too few"):
        open_functionals([short], ["c/a"], MfccFeatures(), tmp_path, workers=1)


def test_opensmile_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractor.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"its licence allows no commercial use: .*\[opensmile\]"):
        extractor.identity(OpenSmileFeatures())


def test_egemaps_are_opensmiles_88_numbers(tmp_path: Path) -> None:
    opensmile = pytest.importorskip("opensmile")
    found = open_functionals([tone(1.5)], ["c/a"], OpenSmileFeatures(), tmp_path, workers=1)
    assert found.shape == (1, 88)
    names = list(opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals).feature_names)
    semitones = found[0, names.index("F0semitoneFrom27.5Hz_sma3nz_amean")]
    assert 27.5 * 2 ** (semitones / 12) == pytest.approx(180, rel=0.01)
    with pytest.raises(BadInput, match=r"c/b: .* of the 88 features 'eGeMAPSv02' are no finite numbers"):
        open_functionals([tone(1.0)[:200]], ["c/b"], OpenSmileFeatures(), tmp_path, workers=1)


@pytest.mark.parametrize("name", ["egemaps-svm", "mfcc-svm", "whisper-base-svm"])
def test_shipped_models_round_trip(name: str) -> None:
    file = Path(__file__).parents[1] / "models" / f"{name}.json"
    content = json.loads(file.read_text())
    content.pop("$schema")
    one = parse(ClassicalSpec, content, source=file.name, kind="model")
    assert one.name == name
    assert one.model_dump(mode="json", exclude_unset=True).keys() == content.keys()


def test_every_key_is_documented() -> None:
    text = (Path(__file__).parents[1] / "docs" / "classical.md").read_text()
    specs = (
        ClassicalSpec, ClassicalTraining, OpenSmileFeatures, MfccFeatures, EmbeddingFeatures, LinearSvm, RbfSvm,
        LogisticRegressionSpec, RandomForest, XgBoost,
    )  # fmt: skip
    keys = {key for one in specs for key in one.model_fields}
    assert not [key for key in sorted(keys) if f"`{key}`" not in text and f'"{key}"' not in text]
