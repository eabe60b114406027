"""Ensembles and corrections of the prior: their arithmetic, who may be averaged, and the rows they leave."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ser_eval.run_folder import find_runs, is_derived
from ser_scripts.errors import BadInput, SplitRefused
from ser_scripts.runs.ensemble import (
    average,
    correct_prior,
    estimate_prior,
    training_prior,
    uniform_prior,
    write_derived,
)
from ser_scripts.specs.base import parse
from ser_scripts.specs.ensembles import EnsembleSpec
from ser_scripts.specs.experiment import ExperimentSpec
from tests.tiny import ser

BASE: dict[str, Any] = {"name": "e", "train": ["toy"], "models": ["m"], "split": {"kind": "leave_one_speaker_out"}}


def table(rows: list[list[float]], truth: str = "ab") -> pd.DataFrame:
    values = np.array(rows)
    made = pd.DataFrame(
        {"corpus": "c", "path": [f"{n}.wav" for n in range(len(rows))], "actor": "s", "gender": "female"}
    )
    made["truth"] = [truth[n % len(truth)] for n in range(len(rows))]
    made["prediction"] = np.array(["a", "b"])[values.argmax(axis=1)]
    made["correct"] = (made["truth"] == made["prediction"]).astype(int)
    return made.assign(p_a=values[:, 0], p_b=values[:, 1])


def test_average_golden() -> None:
    one, other = table([[0.9, 0.1], [0.4, 0.6]]), table([[0.2, 0.8], [0.5, 0.5]]).iloc[::-1]
    equal = average([one, other], [1, 1])
    assert np.allclose(equal[["p_a", "p_b"]], [[0.55, 0.45], [0.45, 0.55]])
    assert list(equal["prediction"]) == ["a", "b"]
    assert list(equal["correct"]) == [1, 1]
    weighted = average([one, other], [1, 3])
    assert np.allclose(weighted[["p_a", "p_b"]], [[0.375, 0.625], [0.475, 0.525]])
    assert list(weighted["prediction"]) == ["b", "b"]
    assert list(weighted["correct"]) == [0, 1]
    tie = average([table([[0.7, 0.3]]), table([[0.3, 0.7]])], [1, 1])
    assert list(tie["prediction"]) == ["a"]


def test_tables_of_other_clips_or_labels_are_refused() -> None:
    one = table([[0.9, 0.1], [0.4, 0.6]])
    with pytest.raises(BadInput, match="same clips with the same labels"):
        average([one, table([[0.9, 0.1]])], [1, 1])
    with pytest.raises(BadInput, match="same clips with the same labels"):
        average([one, table([[0.9, 0.1], [0.4, 0.6]], truth="ba")], [1, 1])
    with pytest.raises(BadInput, match="same classes"):
        average([one, one.rename(columns={"p_b": "p_c"})], [1, 1])


def test_correct_prior_golden() -> None:
    found = correct_prior(np.array([[0.8, 0.2], [0.6, 0.4]]), np.array([0.8, 0.2]), np.array([0.5, 0.5]))
    assert np.allclose(found, [[0.5, 0.5], [3 / 11, 8 / 11]])


def test_a_class_without_training_clips_is_masked_and_never_divided_by() -> None:
    source = np.array([0.5, 0.5, 0.0])
    found = correct_prior(np.array([[0.1, 0.3, 0.6]]), source, np.full(3, 1 / 3))
    assert np.allclose(found, [[0.25, 0.75, 0.0]])
    assert np.allclose(uniform_prior(source), [0.5, 0.5, 0])
    with pytest.raises(BadInput, match="no probability on any class"):
        correct_prior(np.array([[0.0, 0.0, 1.0]]), source, np.full(3, 1 / 3))
    assert estimate_prior(np.array([[0.1, 0.3, 0.6], [0.2, 0.1, 0.7]]), source)[2] == 0


def test_expectation_maximisation_golden() -> None:
    """Two steps by hand: from (1/2, 1/2) to (7/10, 3/10), and to the mean of 28/31 and 7/9."""
    values, source = np.array([[0.8, 0.2], [0.6, 0.4]]), np.array([0.5, 0.5])
    assert np.allclose(estimate_prior(values, source, iterations=1), [0.7, 0.3])
    assert np.allclose(estimate_prior(values, source, iterations=2)[0], (28 / 31 + 7 / 9) / 2)
    # a fixed point between the ends: two mirrored clips and one that leans, p = 2/3 in the limit of sharp clips
    sharp = np.array([[0.999999, 0.000001], [0.999999, 0.000001], [0.000001, 0.999999]])
    assert np.allclose(estimate_prior(sharp, source), [2 / 3, 1 / 3], atol=1e-4)


def test_the_estimate_finds_a_prior_that_is_known() -> None:
    rng = np.random.default_rng(4)
    source, target = np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.3, 0.6])
    truth = rng.choice(3, p=target, size=6000)
    values = np.array([-1.5, 0.0, 1.5])[truth] + rng.normal(size=6000)
    density = np.exp(-0.5 * (values[:, None] - np.array([-1.5, 0.0, 1.5])) ** 2) * source
    posterior = density / density.sum(axis=1, keepdims=True)
    assert np.allclose(estimate_prior(posterior, source), target, atol=0.03)


@given(st.integers(2, 5), st.integers(1, 12), st.integers(0, 2**31))
def test_the_likelihood_never_falls_and_a_correction_can_be_undone(classes: int, clips: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.dirichlet(np.ones(classes), clips)
    source = rng.dirichlet(np.ones(classes) * 5)
    target = rng.dirichlet(np.ones(classes) * 5)
    there = correct_prior(values, source, target)
    assert np.allclose(there.sum(axis=1), 1)
    assert np.allclose(correct_prior(there, target, source), values)
    steps = [estimate_prior(values, source, iterations=n) for n in (1, 2, 5, 20)]
    likelihood = [np.log((values * (step / source)).sum(axis=1)).sum() for step in steps]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(likelihood))


# --- the spec


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"models": ["m"]}, "one model is no ensemble"),
        ({"models": ["m", "m"]}, "'m' stands there twice"),
        ({"models": ["m", "n"], "weights": [1]}, "1 weights for 2 models"),
        ({"models": ["m"], "over": "seeds"}, "have trained on each other's test speakers"),
    ],
)
def test_faults_of_an_ensemble_are_named(keys: Any, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse(ExperimentSpec, {**BASE, "ensembles": [{"name": "both", **keys}]}, source="e.json", kind="experiment")


# --- runs


@pytest.fixture
def write(project: Any, tmp_path: Path, small_corpus: dict[str, str]) -> Any:
    """An experiment with two quick classical models, one of them without class weights."""

    def written(**changes: Any) -> Path:
        file = project(models=["one", "two"], train=[small_corpus], **changes)
        for name, weights in (("one", True), ("two", False)):
            content = {
                "name": name, "kind": "classical", "class_weights": weights,
                "features": {"kind": "mfcc", "frames": {"coefficients": 13, "mels": 40}, "statistics": ["mean"]},
                "classifier": {"kind": "logistic_regression" if weights else "linear_svm", "C": 0.01},
            }  # fmt: skip
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return Path(file)

    return written


def test_runs_of_ensembles_and_corrected_priors(write: Any, tmp_path: Path) -> None:
    file = write(
        seeds=[0, 1],
        conditions=["noise@10dB"],
        ensembles=[{"name": "both", "models": ["one", "two"], "weights": [3, 1]}],
        prior_correction=["uniform", "estimated"],
    )
    assert ser("train", file) == 0
    folder = tmp_path / "runs" / "mini"
    runs = {(one.record["model"], one.record["seed"]): one for one in find_runs(folder)}
    assert len(runs) == 2 * 3 * 3
    assert {name for name, _ in runs if is_derived(runs[name, 0])} == {
        "both", "both-uniform-prior", "both-estimated-prior", "one-uniform-prior", "one-estimated-prior",
        "two-uniform-prior", "two-estimated-prior",
    }  # fmt: skip
    for key in (("mini", ""), ("mini", "noise-10dB")):
        one, two, both = (runs[name, 1].predictions()[key].sort_values("path") for name in ("one", "two", "both"))
        p = [c for c in one.columns if c.startswith("p_")]
        assert np.allclose(both[p].to_numpy(), (3 * one[p].to_numpy() + two[p].to_numpy()) / 4)
    source = training_prior(runs["two", 0])
    train = runs["two", 0].split().query("split == 'train'")["class_id"]
    assert source == pytest.approx((train.value_counts() / len(train)).to_dict())
    assert set(training_prior(runs["one", 0]).values()) == {1 / 3}
    corrected = runs["two-estimated-prior", 0]
    assert corrected.record["priors"]["mini"][0]["trained"] == source
    assert sum(corrected.record["priors"]["mini"][0]["used"].values()) == pytest.approx(1)
    assert any("nothing changes" in note for note in runs["one-uniform-prior", 0].record["split_notes"])
    first = (folder / "both/mini/seed-0/predictions/mini.csv").read_bytes()
    assert ser("train", file) == 0
    assert (folder / "both/mini/seed-0/predictions/mini.csv").read_bytes() == first
    assert len(find_runs(folder)) == 18


def test_rows_and_report_of_what_is_derived(write: Any, tmp_path: Path) -> None:
    file = write(seeds=[0], ensembles=[{"name": "both", "models": ["one", "two"]}], prior_correction=["estimated"])
    assert ser("train", file) == 0
    assert ser("eval", file) == 0
    results = pd.read_csv(tmp_path / "runs" / "mini" / "results.csv")
    assert len(results) == 6
    assert results["split_sha256"].nunique() == 1
    transductive = results["protocol"].str.contains("TRANSDUCTIVE")
    assert set(results.loc[transductive, "model"]) == {f"{m}-estimated-prior" for m in ("one", "two", "both")}
    assert "two-estimated-prior" in (tmp_path / "runs/mini/report/report.html").read_text()


def test_training_seeds_of_a_split_are_averaged(write: Any, tmp_path: Path) -> None:
    file = write(
        seeds={"split_seeds": [0, 1], "train_seeds": [0, 1]},
        ensembles=[{"name": "more", "models": ["one"], "over": "train_seeds"}],
    )
    assert ser("train", file) == 0
    derived = [one for one in find_runs(tmp_path / "runs" / "mini") if is_derived(one)]
    assert [(one.record["seed"], one.record["split_seed"], len(one.record["members"])) for one in derived] == [
        (0, 0, 2), (2, 1, 2),
    ]  # fmt: skip


def test_members_of_other_splits_are_tested_on_unheard_corpora_only(
    write: Any, tmp_path: Path, mini_corpus: Path
) -> None:
    file = write(seeds=[0, 1])
    assert ser("train", file) == 0
    folder = tmp_path / "runs" / "mini"
    spec = EnsembleSpec(name="all", models=("one",), over="seeds")
    with pytest.raises(
        SplitRefused, match="2 different splits, so that some have trained on the others' test speakers"
    ):
        write_derived(folder, [spec], [], lambda text: None)

    import soundfile

    lines = (mini_corpus / "clips.csv").read_text().splitlines()
    other = tmp_path / "other"
    other.mkdir()
    for line in lines[1:13]:
        name = line.split(",")[0]
        samples, rate = soundfile.read(mini_corpus / name, dtype="float32")
        soundfile.write(other / name, samples[::-1] * 0.7, rate)
    rows = [line.replace(",f1,", ",x1,") for line in lines[1:13]]
    (other / "other.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    assert ser("eval", file, "--on", other / "other.csv") == 0
    write_derived(folder, [spec], [], lambda text: None)
    (derived,) = [one for one in find_runs(folder) if is_derived(one)]
    assert set(derived.predictions()) == {("other", "")}
    split = derived.split()
    assert not (split["split"] == "test").any()
    tested = [one.split().query("split == 'test'")["path"] for one in find_runs(folder) if not is_derived(one)]
    trained = set(split.loc[split["split"].isin(["train", "validation"]), "path"])
    assert any(set(paths) & trained for paths in tested)
    assert ser("eval", file) == 0
    results = pd.read_csv(folder / "results.csv")
    assert set(results.loc[results["model"] == "all", "test_corpus"]) == {"other"}


def test_a_further_corpus_refreshes_what_is_derived(write: Any, tmp_path: Path, mini_corpus: Path) -> None:
    import soundfile

    file = write(seeds=[0], ensembles=[{"name": "both", "models": ["one", "two"]}], prior_correction=["uniform"])
    assert ser("train", file) == 0
    other = tmp_path / "far"
    other.mkdir()
    lines = ["path,class_id,actor"]
    for row in (mini_corpus / "clips.csv").read_text().splitlines()[1:13]:
        name, label = row.split(",")[:2]
        samples, rate = soundfile.read(mini_corpus / name, dtype="float32")
        soundfile.write(other / name, samples[::-1] * 0.6, rate)
        lines.append(f"{name},{label},y1")
    (other / "far.csv").write_text("\n".join(lines) + "\n")
    assert ser("eval", file, "--on", other / "far.csv") == 0
    results = pd.read_csv(tmp_path / "runs" / "mini" / "results.csv")
    assert set(results.loc[results["test_corpus"] == "far", "model"]) == set(results["model"])
    assert len(set(results["model"])) == 6


def test_names_may_not_meet(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert ser("check", write(ensembles=[{"name": "one", "models": ["one", "two"]}])) == 2
    assert "the name 'one' stands for two things" in capsys.readouterr().err.replace("\n", " ")
    assert ser("check", write(ensembles=[{"name": "both", "models": ["one", "tow"]}])) == 2
    assert "'tow' in 'both' is no model here; did you mean 'two'?" in capsys.readouterr().err.replace("\n", " ")
