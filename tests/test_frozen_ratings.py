"""Frozen encoders that predict ratings: whole runs, with every file and figure that a fine-tuned run has."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ser_eval import metrics, run_folder
from ser_scripts.errors import BadInput
from ser_scripts.modeling.frozen import FrozenModel
from tests.test_rating_runs import BOTH, rated, rated_corpus  # noqa: F401  fixtures
from tests.tiny import predictions, ser

TRAINING = {"epochs": 8, "batch_size": 32, "learning_rate": 1e-2, "select": "val_ccc", "early_stopping": None}
MLP = {"kind": "mlp", "hidden": 16, "dropout": 0.1}


def frozen(folder: Path, **changes: Any) -> dict[str, Any]:
    encoder = {"model_path_or_name": str(folder), "frozen": True}
    content = {"layers": {"use": "search"}, "head": MLP, "ratings": BOTH, "encoder": encoder, **changes}
    return {"freeze": {"cnn": True}, **content}


def runs_of(tmp_path: Path) -> list[run_folder.RunFolder]:
    return run_folder.find_runs(tmp_path / "runs" / "mini")


def test_a_frozen_run_has_what_a_fine_tuned_one_has(rated: Any, tiny_whisper: Path, tmp_path: Path) -> None:  # noqa: F811
    """Columns of predictions and history, run.json, metrics.json and results.csv: the same for both models."""
    frozen_model = frozen(tiny_whisper, name="frozen", pooling={"kind": "mean_std"})
    tuned_model = {"name": "tuned", "ratings": BOTH, "pooling": {"kind": "mean_std"}}
    file = rated(tuned_model, {"epochs": 1, "select": "val_ccc"}, conditions=["noise@10dB"])
    (tmp_path / "tuned.json").write_text((tmp_path / "tiny.json").read_text())
    file = rated(frozen_model, TRAINING, conditions=["noise@10dB"], models=["tuned", "frozen"], seeds=[0, 1])
    (tmp_path / "frozen.json").write_text((tmp_path / "tiny.json").read_text())
    assert ser("train", file, "--device", "cpu") == 0
    assert ser("eval", file) == 0
    runs = runs_of(tmp_path)
    by_model = {name: [run for run in runs if run.record["model"] == name] for name in ("tuned", "frozen")}
    assert [len(found) for found in by_model.values()] == [2, 2]
    for mine, theirs in zip(by_model["frozen"], by_model["tuned"], strict=True):
        assert list(mine.history().columns) == list(theirs.history().columns)
        for key, table in mine.predictions().items():
            other = theirs.predictions()[key]
            assert list(table.columns) == list(other.columns)
            fixed = [name for name in table if not re.match("p_|prediction|predicted_|correct", name)]
            pd.testing.assert_frame_equal(table[fixed], other[fixed])
        for key in ("ratings", "answers_classes", "selected_by", "labels", "n_clips", "split_sha256"):
            assert mine.record[key] == theirs.record[key]
        scores, others = (json.loads((run.path / "metrics.json").read_text()) for run in (mine, theirs))
        assert scores["mini"].keys() == others["mini"].keys()
        assert scores["mini"]["ratings"]["arousal"].keys() == others["mini"]["ratings"]["arousal"].keys()
        assert scores["mini"]["ratings"]["arousal"]["ccc"] > 0.5
        history = pd.read_csv(mine.path / "history.csv")
        assert mine.record["best_step"] == history["step"][history["val_ccc"].idxmax()]
        assert mine.record["layer"] in (0, 1, 2)
        saved = FrozenModel.load(mine.path / "model")
        assert saved.dimensions == ("valence", "arousal")
        assert {"w", "b", "rating_w", "rating_b"} <= set(saved.weights)
    results = pd.read_csv(tmp_path / "runs" / "mini" / "results.csv")
    assert results[["ccc", "ccc_arousal", "rmse_valence", "uar"]].notna().all().all()
    cells = pd.read_csv(tmp_path / "runs" / "mini" / "ratings.csv")
    assert len(cells) == 2 * 2 * 2  # models, conditions, dimensions
    out = tmp_path / "stats"
    results[results["condition"] == "none"].to_csv(tmp_path / "clean.csv", index=False)
    command = ["stats", "--csv", tmp_path / "clean.csv", "--dv", "ccc_arousal", "--within", "model"]
    assert ser(*command, "--block", "split_sha256", "--out", out) == 0
    assert "ccc_arousal" in (out / "stats.json").read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"head": {"kind": "linear", "relu": False}, "layers": {"use": 1}},
        {"head": {"kind": "linear", "layer_norm": True}, "layers": {"use": "weighted"}},
        {"head": {"kind": "frame_mlp", "hidden": 16}, "layers": {"use": "last"}},
    ],
    ids=["linear", "weighted", "frames"],
)
def test_ratings_alone_by_every_form_of_head_over_folds(
    rated: Any,  # noqa: F811
    tiny_whisper: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
) -> None:
    only = {"dimensions": ["arousal"], "loss": "mse", "only": True}
    file = rated(
        frozen(tiny_whisper, ratings=only, **changes), TRAINING, split={"kind": "k_fold", "folds": 2}, seeds=[0]
    )
    assert ser("train", file, "--device", "cpu") == 0
    assert ser("eval", file) == 0
    assert "arousal: CCC" in capsys.readouterr().out
    runs = runs_of(tmp_path)
    assert [run.record["answers_classes"] for run in runs] == [False, False]
    table = runs[0].predictions()["mini", ""]
    assert np.allclose(table.filter(like="p_"), 1 / 3)
    results = pd.read_csv(tmp_path / "runs" / "mini" / "results.csv")
    assert results["protocol"].str.contains("RATINGS ONLY").all()
    assert results["uar"].isna().all()
    assert (results["ccc_arousal"] > 0.2).all()
    weights = FrozenModel.load(runs[0].path / "model").weights
    assert not {"w", "b"} & set(weights)
    before = predictions(tmp_path / "runs")
    content = json.loads(file.read_text()) | {
        "conditions": ["telephone"]
    }  # tested later, with the weights that it kept
    file.write_text(json.dumps(content))
    assert ser("train", file, "--device", "cpu") == 0
    after = predictions(tmp_path / "runs")
    assert {name: after[name] for name in before} == before
    assert len(after) == 2 * len(before)
    assert "predicted_arousal" in runs_of(tmp_path)[0].predictions()["mini", "telephone"]


def test_a_seed_alone_gives_the_bytes_that_it_gives_among_others_and_another_corpus_is_heard(
    rated: Any,  # noqa: F811
    rated_corpus: Path,  # noqa: F811
    tiny_whisper: Path,
    tmp_path: Path,
) -> None:
    file = rated(frozen(tiny_whisper), TRAINING, seeds={"low": 0, "high": 2})
    assert ser("train", file, "--device", "cpu") == 0
    together = predictions(tmp_path / "runs")
    (tmp_path / "runs").rename(tmp_path / "before")
    assert ser("train", file, "--device", "cpu", "--low-seed", "1", "--high-seed", "1") == 0
    alone = predictions(tmp_path / "runs")
    assert len(alone) == 1
    assert all(content == together[name] for name, content in alone.items())
    others = tmp_path / "others"
    shutil.copytree(rated_corpus.parent, others)
    table = pd.read_csv(others / "clips.csv")
    (clip,) = {run.path for run in runs_of(tmp_path)}
    test = pd.read_csv(clip / "split.csv")
    heard = set(test.loc[test["split"] == "test", "path"])
    unheard = table[table["path"].isin(heard)].assign(actor=lambda rows: "new " + rows["actor"])
    unheard.to_csv(others / "new.csv", index=False)
    assert ser("eval", file, "--on", others / "new.csv") == 0
    (run,) = runs_of(tmp_path)
    again, first = run.predictions()["new", ""], run.predictions()["mini", ""]
    assert len(again) == len(first)
    np.testing.assert_array_equal(again["predicted_arousal"], first["predicted_arousal"])
    assert again["rating_arousal"].isna().all()  # a CSV given to --on has no scale


def test_settings_are_searched_by_the_ccc(rated: Any, tiny_whisper: Path, tmp_path: Path) -> None:  # noqa: F811
    only = {"dimensions": ["arousal"], "only": True}
    rates = {"kind": "categorical", "choices": [1e-6, 1e-2]}
    search = {"parameters": {"training.learning_rate": rates}, "sampler": "grid", "metric": "val_ccc", "num_trials": 2}
    file = rated(frozen(tiny_whisper, ratings=only), TRAINING, search=search, seeds=[0])
    assert ser("train", file, "--device", "cpu") == 0
    (run,) = runs_of(tmp_path)
    assert run.record["search"]["values"] == {"training.learning_rate": 1e-2}
    assert run.record["search"]["best_value"] == pytest.approx(float(run.history()["val_ccc"].astype(float).max()))


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"ratings": {}}, {}, "no training clip of mini has a rating of dominance .*rated there: valence, arousal"),
        ({"ratings": {}}, {"rating_scale": None}, "mini has no ratings. Corpora with ratings: iemocap, msppodcast"),
        ({"ratings": {"only": True}}, {}, "'training.select' is 'val_uar', but the model predicts ratings only"),
        (
            {"adversary": {"kind": "gender"}},
            {},
            "adversary does not go with a frozen encoder, of which nothing is trained; leave it out, or take",
        ),
    ],
)
def test_what_cannot_be_learnt_is_refused_before_training(
    rated: Any,  # noqa: F811
    tiny_whisper: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    options: dict[str, Any],
    message: str,
) -> None:
    from ser_scripts.cli import app

    file = rated(frozen(tiny_whisper, **changes), {"select": "val_uar"}, **options)
    with pytest.raises(BadInput, match=message):
        app(["train", str(file), "--device", "cpu"], standalone_mode=False)
    assert not list((tmp_path / "runs").rglob("run.json"))


@pytest.mark.real
def test_frozen_whisper_tells_strangers_loudness_about_as_well_as_a_ridge(
    project: Callable[..., Path], ser_data: Path, ser_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of EmoDB, arousal := level: CCC on two unheard speakers, beside scikit-learn on the same hidden states."""
    import soundfile
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from ser_scripts import corpora
    from ser_scripts.modeling.frozen import frozen_encoder
    from ser_scripts.runs.plan import load_experiment, make_plan
    from ser_scripts.runs.train_frozen import clips_of, embed_table
    from ser_scripts.runs.train_run import open_stores
    from ser_scripts.settings import folders

    monkeypatch.setenv("SER_MODELS", str(ser_models))
    lines = ["path,class_id,actor,gender,arousal"]
    for row in list(corpora.read(corpora.get("emodb"), ser_data / "emodb"))[::2]:
        file = ser_data / "emodb" / row.path
        level = 20 * np.log10(np.sqrt(np.mean(soundfile.read(file)[0] ** 2)))
        lines.append(f"{file},{row.class_id},{row.actor},{row.gender},{level:.4f}")
    (tmp_path / "emodb.csv").write_text("\n".join(lines) + "\n")
    model = frozen(ser_models / "openai/whisper-tiny.en", ratings={"dimensions": ["arousal"], "only": True})
    model |= {"layers": {"use": 0}, "head": {"kind": "linear", "relu": False}}
    corpus = {"kind": "csv", "name": "emodb", "path": "emodb.csv", "rating_scale": [-60, 0]}
    training = {**TRAINING, "epochs": 80, "learning_rate": 1e-3, "scheduler": "cosine"}
    experiment = project(model, training, train=[corpus], seeds=[0])
    assert ser("train", experiment, "--device", "cpu") == 0
    (run,) = runs_of(tmp_path)
    table = run.predictions()["emodb", ""].set_index("path")
    split = run.split()
    speakers = {str(side): set(rows["actor"]) for side, rows in split.groupby("split")}
    assert not speakers["test"] & (speakers["train"] | speakers["validation"])
    assert len(speakers["test"]) == 2

    where = folders()
    plan = make_plan(load_experiment(experiment), where, progress=lambda text: None)
    (planned,) = plan.runs
    spec = planned.network
    encoder = frozen_encoder(spec.encoder, models=where.models)  # type: ignore[arg-type]
    clips = clips_of([planned])
    stores = open_stores(planned, ["emodb"], plan.manifests, encoder.sample_rate_hz, where, print)
    states = embed_table(spec, encoder, stores, clips, where, device="cpu", report=print)
    ratings = plan.manifests["emodb"].clips.set_index("path")["arousal"]
    sides = {
        side: ([states.rows["emodb", path] for path in rows["path"]], (ratings[list(rows["path"])] + 60) / 60)
        for side, rows in split.groupby("split")
    }
    vectors = np.asarray(states.values)[:, 0]
    ridge = make_pipeline(StandardScaler(), RidgeCV(np.logspace(0, 5, 11)))
    ridge.fit(vectors[sides["train"][0]], sides["train"][1])
    theirs = metrics.ccc(sides["test"][1], ridge.predict(vectors[sides["test"][0]]))
    ours = metrics.ccc(table["rating_arousal"], table["predicted_arousal"])
    np.testing.assert_allclose(table["rating_arousal"].sort_index(), sides["test"][1].sort_index(), atol=1e-6)
    print(f"CCC on two unheard speakers: frozen head {ours:.3f}, ridge {theirs:.3f}")
    assert ours > 0.7
    assert ours > theirs - 0.1
