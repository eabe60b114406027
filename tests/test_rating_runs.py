"""Whole runs that predict ratings, and runs with an adversary."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ser_eval import metrics, run_folder
from ser_eval.ratings import CELL_COLUMNS
from ser_scripts.cli import app
from ser_scripts.errors import BadInput
from ser_scripts.modeling.model import SerModel


def ser(*arguments: object) -> Any:
    return app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def rated_corpus(mini_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mini corpus with ratings from 1 to 5: arousal is loudness, valence follows the class; some are missing."""
    import soundfile

    folder = tmp_path_factory.mktemp("rated") / "clips"
    shutil.copytree(mini_corpus, folder)
    table = pd.read_csv(folder / "clips.csv")
    level = np.array([20 * np.log10(np.sqrt(np.mean(soundfile.read(folder / path)[0] ** 2))) for path in table["path"]])
    table["arousal"] = 1 + 4 * (level - level.min()) / np.ptp(level)
    table["valence"] = table["class_id"].map({"happy": 4.5, "angry": 1.5, "sad": 2.0})
    table.loc[table["sentence"] == "n1", "valence"] = np.nan
    table.to_csv(folder / "clips.csv", index=False)
    return folder / "clips.csv"


@pytest.fixture
def rated(project: Callable[..., Path], rated_corpus: Path, tmp_path_factory: Any, monkeypatch: Any) -> Any:
    """Write an experiment on the rated corpus."""
    monkeypatch.setenv("SER_CACHE", str(rated_corpus.parent.parent / "cache"))

    def write(model: dict[str, Any] | None = None, training: dict[str, Any] | None = None, **changes: Any) -> Path:
        scale = changes.pop("rating_scale", [1, 5])
        corpus = {"kind": "csv", "name": "mini", "path": str(rated_corpus)}
        corpus |= {"rating_scale": scale} if scale else {}
        return project(model, {"epochs": 2, **(training or {})}, **{"train": [corpus], **changes})

    return write


BOTH = {"dimensions": ["valence", "arousal"], "loss": "ccc"}


def test_a_run_predicts_ratings_beside_classes(rated: Any, tmp_path: Path) -> None:
    model = {"ratings": BOTH, "pooling": {"kind": "mean_std"}}
    training = {"epochs": 8, "batch_size": 16, "select": "val_ccc", "early_stopping": {"metric": "val_ccc"}}
    file = rated(model, training, conditions=["noise@10dB"])
    ser("train", file, "--device", "cpu")
    (run,) = run_folder.find_runs(tmp_path / "runs" / "mini")
    assert run.record["answers_classes"] is True
    assert run.record["ratings"]["scale"] == {"mini": [1.0, 5.0]}
    rated_clips = run.record["ratings"]["rated_clips"]["train"]
    assert rated_clips["arousal"] == run.record["n_clips"]["train"]
    assert rated_clips["valence"] == 3 * rated_clips["arousal"] / 4
    history = pd.read_csv(run.path / "history.csv")
    assert list(history.columns[:9]) == run_folder.HISTORY_COLUMNS
    assert history["val_ccc"].to_numpy() == pytest.approx(
        (history["val_ccc_valence"] + history["val_ccc_arousal"]).to_numpy() / 2
    )
    assert run.record["best_step"] == history["step"][history["val_ccc"].idxmax()]
    assert len(run.history()) == len(history)

    table = run.predictions()["mini", ""]
    assert list(table.columns[-4:]) == [
        "rating_valence", "predicted_valence", "rating_arousal", "predicted_arousal",
    ]  # fmt: skip
    assert table["rating_valence"].isna().mean() == 0.25
    assert set(table["rating_valence"].dropna()) <= {0.125, 0.25, 0.875}  # (r - 1) / 4
    assert table["rating_arousal"].between(0, 1).all()

    ser("eval", file)
    root = tmp_path / "runs" / "mini"
    scores = json.loads((run.path / "metrics.json").read_text())["mini"]["ratings"]
    assert scores["arousal"]["ccc"] > 0.3
    assert scores["valence"]["n_unrated"] == rated_share(table)
    results = pd.read_csv(root / "results.csv", keep_default_na=False)
    assert [name for name in results.columns if name not in run_folder.RESULT_COLUMNS][-7:] == [
        "ccc", "ccc_arousal", "pearson_arousal", "rmse_arousal", "ccc_valence", "pearson_valence", "rmse_valence",
    ]  # fmt: skip
    clean = results[results["condition"] == "none"].iloc[0]
    assert float(clean["ccc_arousal"]) == pytest.approx(scores["arousal"]["ccc"])
    ratings = pd.read_csv(root / "ratings.csv", keep_default_na=False)
    assert list(ratings.columns) == CELL_COLUMNS
    assert set(zip(ratings["condition"], ratings["dimension"], strict=True)) == {
        ("none", "valence"), ("none", "arousal"), ("noise-10dB", "valence"), ("noise-10dB", "arousal"),
    }  # fmt: skip
    best = ratings[(ratings["dimension"] == "arousal") & (ratings["condition"] == "none")].iloc[0]
    assert best["best_shortcut"] == "duration_loudness"
    assert float(best["best_shortcut_ccc"]) > 0.99  # it is loudness: whoever reads the CCC must read this beside it

    saved = SerModel.load(run.path / "model")
    assert saved.dimensions == ("valence", "arousal")
    assert "rating_head.1.weight" in saved.state_dict() or "rating_head.2.weight" in saved.state_dict()
    # a second evaluation writes the same bytes, and the same spec is a finished run; another scale is another run
    before = (root / "results.csv").read_bytes()
    ser("eval", file)
    assert (root / "results.csv").read_bytes() == before
    ser("train", file, "--device", "cpu")
    with pytest.raises(BadInput, match=r"ratings_sha256|rating_scale"):
        ser("train", rated(model, training, conditions=["noise@10dB"], rating_scale=[0, 5]), "--device", "cpu")


def rated_share(table: pd.DataFrame) -> int:
    return int(table["rating_valence"].isna().sum())


def test_ratings_only_answers_no_class(rated: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only = {"ratings": {"dimensions": ["arousal"], "loss": "mse", "only": True}}
    training = {"select": "val_ccc", "epochs": 3, "batch_size": 4}
    file = rated(only, training, split={"kind": "k_fold", "folds": 2})
    ser("train", file, "--device", "cpu")
    ser("eval", file)
    said = capsys.readouterr().out
    assert "arousal: CCC" in said
    runs = run_folder.find_runs(tmp_path / "runs" / "mini")
    assert [run.record["answers_classes"] for run in runs] == [False, False]
    table = runs[0].predictions()["mini", ""]
    assert np.allclose(table.filter(like="p_"), 1 / 3)
    results = pd.read_csv(tmp_path / "runs" / "mini" / "results.csv")
    assert results["protocol"].str.contains("RATINGS ONLY").all()
    assert results["uar"].isna().all()
    assert results["ccc_arousal"].notna().all()
    page = (tmp_path / "runs" / "mini" / "report" / "report.html").read_text()
    assert "RATINGS ONLY" in page
    ser("stats", file)
    told = json.loads((tmp_path / "runs" / "mini" / "stats" / "stats.json").read_text())
    assert told["audit"]["dv"] == "ccc_arousal"
    assert told["descriptives"][0]["mean"] == pytest.approx(results["ccc_arousal"].mean())


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ({"ratings": {}}, {"rating_scale": None}, "mini has no ratings. Corpora with ratings: iemocap, msppodcast"),
        ({"ratings": {}}, {}, "no training clip of mini has a rating of dominance .*rated there: valence, arousal"),
        ({"adversary": {"kind": "gender"}}, {"train": "women"}, "fewer than two known genders"),
    ],
)
def test_what_cannot_be_learnt_is_refused_before_training(
    rated: Any, tmp_path: Path, rated_corpus: Path, model: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    if changes.get("train") == "women":
        women = {"kind": "csv", "name": "mini", "path": str(rated_corpus), "only": {"gender": ["female"]}}
        changes = {"train": [women]}
    file = rated(model, **changes)
    with pytest.raises(BadInput, match=message):
        ser("check", file)
    with pytest.raises(BadInput, match=message):
        ser("train", file, "--device", "cpu")
    assert not list((tmp_path / "runs").rglob("run.json"))


# ---- the adversary ----


def bytes_of(runs: Path) -> dict[str, bytes]:
    files = [*runs.rglob("predictions/*.csv"), *runs.rglob("model.safetensors")]
    return {file.relative_to(runs).as_posix(): file.read_bytes() for file in sorted(files)}


def test_an_adversary_of_weight_0_changes_no_byte_and_one_of_weight_1_does(
    rated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, histories = {}, {}
    for name, adversary in {
        "none": None,
        "zero": {"kind": "speaker", "weight": 0},
        "one": {"kind": "speaker", "weight": 1.0, "schedule": "constant"},
    }.items():
        monkeypatch.setenv("SER_RUNS", str(tmp_path / name))
        file = rated({"adversary": adversary, "head": {"dropout": 0.2}} if adversary else {"head": {"dropout": 0.2}})
        ser("train", file, "--device", "cpu")
        found[name] = bytes_of(tmp_path / name)
        histories[name] = pd.read_csv(next((tmp_path / name).rglob("history.csv")))
    assert found["none"] == found["zero"]
    assert found["none"].keys() == found["one"].keys()
    assert all(found["none"][key] != found["one"][key] for key in found["one"])
    own = [column for column in run_folder.HISTORY_COLUMNS if column != "seconds"]
    pd.testing.assert_frame_equal(histories["none"][own], histories["zero"][own], check_exact=True)
    assert {"adversary_loss", "adversary_accuracy"} <= set(histories["zero"].columns)
    assert histories["zero"]["adversary_accuracy"].between(0, 1).all()


def test_an_interrupted_training_with_ratings_and_adversary_ends_with_the_same_bytes(
    rated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ser_scripts.training.loop import SerTrainer

    model = {"ratings": BOTH, "adversary": {"kind": "gender", "weight": 0.5}}
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "whole"))
    ser("train", rated(model), "--device", "cpu")
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "torn"))
    compute = SerTrainer.compute_loss

    def killed(self: Any, model: Any, inputs: Any, **rest: Any) -> Any:
        if inputs["epoch"] == 1 and self.state.global_step % 7 == 3:
            raise RuntimeError("torn")
        return compute(self, model, inputs, **rest)

    file = rated(model)
    with monkeypatch.context() as patch:
        patch.setattr(SerTrainer, "compute_loss", killed)
        with pytest.raises(RuntimeError, match="torn"):
            ser("train", file, "--device", "cpu")
    assert not list((tmp_path / "torn").rglob("run.json"))
    assert list((tmp_path / "torn").rglob("history.csv"))
    ser("train", file, "--device", "cpu")
    assert bytes_of(tmp_path / "whole") == bytes_of(tmp_path / "torn")
    assert bytes_of(tmp_path / "whole")
    histories = [pd.read_csv(next((tmp_path / name).rglob("history.csv"))) for name in ("whole", "torn")]
    pd.testing.assert_frame_equal(*(one.drop(columns="seconds") for one in histories), check_exact=True)


# ---- corpora that bring ratings ----


def iemocap(root: Path) -> dict[str, tuple[float, float, float]]:
    """A small tree in IEMOCAP's layout, 48 turns of two sessions; valence, arousal, dominance by turn."""
    import soundfile

    rng = np.random.default_rng(0)
    ratings = {}
    for session in (1, 2):
        dialog = f"Ses0{session}F_impro01"
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for number in range(24):
            turn = f"{dialog}_{'FM'[number % 2]}{number:03d}"
            label = ("neu", "ang", "xxx")[number % 3]
            valence, arousal, dominance = (float(round(value, 1)) for value in rng.uniform(1, 5, 3))
            ratings[turn] = (valence, arousal, dominance)
            times = f"[{number}.0000 - {number}.5000]"
            lines.append(f"{times}\t{turn}\t{label}\t[{valence:.4f}, {arousal:.4f}, {dominance:.4f}]")
            file = root / f"Session{session}/sentences/wav/{dialog}/{turn}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, rng.normal(0, 0.02 * arousal, 8000).astype(np.float32), 16000)
        labels = root / f"Session{session}/dialog/EmoEvaluation/{dialog}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("\n".join(lines) + "\n")
    return ratings


def test_ratings_of_iemocap_reach_the_predictions_turns_without_agreement_too(project: Any, tmp_path: Path) -> None:
    ratings = iemocap(tmp_path / "iemocap")
    file = project(
        {"ratings": {"only": True}},
        {"select": "val_ccc", "epochs": 2},
        train=[{"name": "iemocap", "root": str(tmp_path / "iemocap"), "labels": "attributes"}],
        split={"kind": "random"},
        allow_dropped=["iemocap/missing-9991"],
    )
    ser("train", file, "--device", "cpu")
    (run,) = run_folder.find_runs(tmp_path / "runs" / "mini")
    table = run.predictions()["iemocap", ""]
    assert set(run.split()["class_id"]) == {"angry", "neutral", "other"}
    assert run.record["ratings"]["scale"] == {"iemocap": [1.0, 5.0]}
    for row in table.to_dict("records"):
        own = ratings[Path(row["path"]).stem]
        found = [row[f"rating_{name}"] for name in ("valence", "arousal", "dominance")]
        assert found == pytest.approx([(value - 1) / 4 for value in own])
    assert run.record["ratings"]["rated_clips"]["test"]["dominance"] == len(table)


@pytest.mark.real
def test_real_speech_tells_how_loud_it_is(project: Any, ser_data: Path, tmp_path: Path) -> None:
    """EmoDB, six speakers, arousal := level: a small network that hears two of them tells it of two others."""
    import soundfile

    from ser_scripts import corpora

    lines = ["path,class_id,actor,gender,arousal"]
    for row in corpora.read(corpora.get("emodb"), ser_data / "emodb"):
        if row.actor in ("03", "08", "09", "10", "11", "13"):
            file = ser_data / "emodb" / row.path
            level = 20 * np.log10(np.sqrt(np.mean(soundfile.read(file)[0] ** 2)))
            lines.append(f"{file},{row.class_id},{row.actor},{row.gender},{level:.4f}")
    (tmp_path / "emodb.csv").write_text("\n".join(lines) + "\n")
    model = {
        "encoder": {
            "kind": "random",
            "config": {
                "model_type": "whisper",
                "d_model": 96,
                "encoder_layers": 2,
                "encoder_attention_heads": 4,
                "encoder_ffn_dim": 192,
                "num_mel_bins": 80,
            },
        },
        "head": {},
        "pooling": {"kind": "mean_std"},
        "ratings": {"dimensions": ["arousal"], "only": True},
    }
    training = {"epochs": 8, "batch_size": 16, "select": "val_ccc"}
    corpus = {"kind": "csv", "name": "emodb", "path": "emodb.csv", "rating_scale": [-60, 0]}
    file = project(model, training, train=[corpus])
    ser("train", file, "--device", "cpu")
    (run,) = run_folder.find_runs(tmp_path / "runs" / "mini")
    table = run.predictions()["emodb", ""]
    assert metrics.ccc(table["rating_arousal"], table["predicted_arousal"]) > 0.3
