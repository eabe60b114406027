"""Augmentation in whole runs: training hears it, nothing else does; batches and features; votes; previews."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from ser_eval import run_folder
from ser_eval.evaluate import evaluate_experiment
from ser_scripts.cli import app
from ser_scripts.errors import BadInput
from ser_scripts.training import loop
from ser_scripts.training.data import BatchKey, TrainingSet
from tests.tiny import predictions

A = "audiomentations"
NOISE = {"module": A, "class": "AddGaussianSNR"}


def ser(*arguments: object) -> Any:
    return app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips are read once for all tests of this file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def project(project: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SER_CACHE", str(cache))
    return project


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What every validation or test clip and every training item looked like, by the kind of side."""
    record: dict[str, list[Any]] = {"evaluated": [], "trained": []}
    predict, item = loop.predict_logits, TrainingSet.__getitem__

    def predict_and_note(model: Any, source: Any, *rest: Any, **keywords: Any) -> Any:
        record["evaluated"].append(tuple(source.features(i).tobytes() for i in range(len(source.clips))))
        return predict(model, source, *rest, **keywords)

    def item_and_note(self: TrainingSet, key: BatchKey) -> Any:
        row = item(self, key)
        record["trained"].append((self.source.clips[self.items[key.item][0]].path, key.epoch, row["features"].copy()))
        return row

    monkeypatch.setattr(loop, "predict_logits", predict_and_note)
    monkeypatch.setattr(TrainingSet, "__getitem__", item_and_note)
    return record


DESTROY = {
    "name": "destroyed",
    "mode": "on_the_fly",
    "probability": 1.0,
    "transforms": {"silence": {"module": A, "class": "Gain", "min_gain_db": -300, "max_gain_db": -300}},
    "features": [{"kind": "spec_augment", "num_time_masks": 3, "max_time_share": 1.0, "fill": "zero"}],
    "batch": {"kind": "cutmix"},
}


def test_an_augmentation_that_destroys_the_audio_leaves_validation_and_test_as_they_are(
    project: Any, heard: dict[str, list[Any]]
) -> None:
    ser("train", project(seeds=[0], training={"epochs": 2}, augmentations=[None, DESTROY]), "--device", "cpu")
    clean, destroyed = heard["evaluated"][:4], heard["evaluated"][4:]  # two validations, the test, validation again
    assert len(destroyed) == 4
    assert clean == destroyed
    half = len(heard["trained"]) // 2
    kept = {(path, features.tobytes()) for path, _, features in heard["trained"][:half]}
    assert len(kept) == 48, "clean training hears each clip as it is, in every epoch"
    assert not kept & {(path, features.tobytes()) for path, _, features in heard["trained"][half:]}


def test_a_union_holds_every_clean_clip_once_per_epoch(project: Any, heard: dict[str, list[Any]]) -> None:
    two = {"noise": NOISE, "chain": [{"module": A, "class": "PolarityInversion"}, NOISE]}
    augmentations = [None, {"name": "u", "transforms": two}]
    ser("train", project(seeds=[0], training={"epochs": 1}, augmentations=augmentations), "--device", "cpu")
    clean, union = heard["trained"][:48], heard["trained"][48:]
    assert len(union) == 3 * 48
    originals = [(path, features.tobytes()) for path, _, features in clean]
    found = [(path, features.tobytes()) for path, _, features in union]
    assert len(set(originals)) == 48
    assert all(found.count(one) == 1 for one in originals)


def test_clips_are_preprocessed_before_they_are_augmented(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from ser_scripts.audio.steps.level import loudness_lufs
    from ser_scripts.augment import Augmenter

    levels = []
    apply = Augmenter.apply

    def apply_and_note(self: Augmenter, samples: Any, rate_hz: int, *rest: Any, **keys: Any) -> Any:
        levels.append(loudness_lufs(samples, rate_hz))
        return apply(self, samples, rate_hz, *rest, **keys)

    monkeypatch.setattr(Augmenter, "apply", apply_and_note)
    file = project(
        seeds=[0], training={"epochs": 1}, preprocess=[{"kind": "loudness", "lufs": -31}],
        augmentations=[{"name": "u", "transforms": {"noise": NOISE}}],
    )  # fmt: skip
    ser("train", file, "--device", "cpu")
    assert len(levels) == 48
    assert levels == pytest.approx([-31] * 48, abs=0.05)


EVERYTHING = [
    {
        "name": "all",
        "mode": "on_the_fly",
        "transforms": {"line": [NOISE, {"module": "ser_scripts.augment.telephone", "class": "Telephone"}]},
        "features": [{"kind": "spec_augment", "num_frequency_masks": 2, "max_frequency_bins": 8}],
        "batch": {"kind": "mixup", "probability": 0.5, "level": "waveform"},
    },
    {"name": "cut", "mode": "on_the_fly", "batch": {"kind": "cutmix", "probability": 0.5}},
]


def test_augmented_runs_repeat_themselves_with_any_number_of_workers(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project(
        {"loss": {"label_smoothing": 0.1}}, seeds=[0], training={"epochs": 2, "accumulation": 2},
        augmentations=[None, *EVERYTHING],
    )  # fmt: skip
    ser("train", file, "--device", "cpu")
    first = predictions(tmp_path / "runs")
    assert len(set(first.values())) == 3, "each of them has an effect"
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "again"))
    ser("train", file, "--device", "cpu", "--loader-workers", "2")
    assert predictions(tmp_path / "again") == first


def test_a_mixup_that_never_mixes_is_clean_training(project: Any, tmp_path: Path) -> None:
    rare = {"name": "rare", "mode": "on_the_fly", "batch": {"kind": "mixup", "probability": 1e-12}}
    ser("train", project(seeds=[0], training={"epochs": 2}, augmentations=[None, rare]), "--device", "cpu")
    assert len(set(predictions(tmp_path / "runs").values())) == 1
    header = (tmp_path / "runs/mini/clips.csv").read_text().splitlines()[0]
    assert header == ",".join(run_folder.CLIP_COLUMNS), "without votes there are no columns of votes"
    evaluate_experiment(tmp_path / "runs/mini")
    assert "soft" not in run_folder.read_json(tmp_path / "runs/mini/tiny/mini/seed-0/metrics.json")["mini"]


RAW = {
    "kind": "random",
    "config": {
        "model_type": "wav2vec2", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "conv_dim": [8, 8], "conv_kernel": [400, 4], "conv_stride": [320, 2],
        "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
    },
}  # fmt: skip


def test_spec_augment_on_samples_is_refused_before_training(project: Any, tmp_path: Path) -> None:
    masks = {**DESTROY, "transforms": {}}
    file = project({"encoder": RAW}, seeds=[0], augmentations=[masks])
    for command in (["check", file], ["train", file, "--device", "cpu"]):
        with pytest.raises(BadInput, match=r"augmentation 'destroyed': features: .*'tiny' hears samples"):
            ser(*command)
    assert not list((tmp_path / "runs").rglob("run.json"))


# Votes


def voted(mini_corpus: Path, folder: Path, *, votes: bool = True) -> list[dict[str, Any]]:
    """The mini corpus with raters' votes: two for the label, one for another, and one for a label of no class."""
    table = pd.read_csv(mini_corpus / "clips.csv", dtype=str)
    labels = sorted(set(table["class_id"]))
    table["path"] = [str(mini_corpus / path) for path in table["path"]]
    for label in (*labels, "bored"):
        table[f"votes_{label}"] = [
            2 if own == label else 1 if other == label or label == "bored" else 0
            for own, other in zip(table["class_id"], np.roll(table["class_id"], 4), strict=True)
        ]
    table.loc[table["path"].str.contains("b1.wav"), [f"votes_{label}" for label in labels]] = 0
    folder.mkdir()
    if not votes:
        table = table[[column for column in table if not column.startswith("votes_")]]
    table.to_csv(folder / "clips.csv", index=False)
    return [{"kind": "csv", "name": "mini", "path": str(folder / "clips.csv")}]


def test_training_on_votes_and_scores_against_them(project: Any, mini_corpus: Path, tmp_path: Path) -> None:
    train = voted(mini_corpus, tmp_path / "voted")
    ser("train", project(train=train, seeds=[0], training={"epochs": 2}), "--device", "cpu")
    soft_model = {"name": "soft", "loss": {"targets": "votes"}}
    ser(
        "train", project(soft_model, train=train, seeds=[0], training={"epochs": 2}, models=["tiny"]), "--device", "cpu"
    )
    assert len(set(predictions(tmp_path / "runs").values())) == 2, "votes change what is learned"
    folder = tmp_path / "runs/mini"
    evaluate_experiment(folder)
    for model in ("tiny", "soft"):
        run = folder / f"{model}/mini/seed-0"
        record = run_folder.read_json(run / "run.json")
        assert record["vote_classes"] == {"mini": {"angry": "angry", "happy": "happy", "sad": "sad"}}
        targets = {"votes": 36, "hard_label_for_want_of_votes": 12}  # a quarter of the sentences has no votes
        assert record.get("targets") == (targets if model == "soft" else None)
        soft = run_folder.read_json(run / "metrics.json")["mini"]["soft"]
        table = run_folder.read_predictions(run / "predictions/mini.csv")
        assert (soft["n"], soft["n_without_votes"]) == (18, 6)
        votes = pd.read_csv(folder / "clips.csv").set_index("path").loc[table["path"]]
        q = votes[["votes_angry", "votes_happy", "votes_sad"]].to_numpy(float)
        kept = q.sum(axis=1) > 0
        q = q[kept] / q[kept].sum(axis=1, keepdims=True)
        p = table[["p_angry", "p_happy", "p_sad"]].to_numpy()[kept]
        assert soft["cross_entropy"] == pytest.approx(float(-(q * np.log(p)).sum(axis=1).mean()))
        assert soft["vote_entropy"] <= soft["cross_entropy"]
        assert 0 <= soft["jensen_shannon"] <= 1


def test_votes_that_do_not_exist_stop_before_training(project: Any, mini_corpus: Path, tmp_path: Path) -> None:
    train = voted(mini_corpus, tmp_path / "plain", votes=False)
    file = project({"loss": {"targets": "votes"}}, train=train, seeds=[0])
    for command in (["check", file], ["train", file, "--device", "cpu"]):
        with pytest.raises(BadInput, match=r"model 'tiny': loss.targets is 'votes', but corpus 'mini' has no votes"):
            ser(*command)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("value", ["two", "-1", "inf"])
def test_votes_of_a_csv_are_numbers(project: Any, mini_corpus: Path, tmp_path: Path, value: str) -> None:
    train = voted(mini_corpus, tmp_path / "voted")
    file = tmp_path / "voted/clips.csv"
    lines = file.read_text().splitlines()
    lines[3] = lines[3].rpartition(",")[0] + "," + value
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(BadInput, match=f"line 4: votes_.* is '{value}'; expected a number of raters"):
        ser("check", project(train=train, seeds=[0]))


# Preview


def test_a_preview_is_what_training_hears(
    project: Any, tmp_path: Path, heard: dict[str, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    chain = {"name": "u", "transforms": {"both": [NOISE, {"module": A, "class": "PitchShift"}]}}
    file = project(seeds=[0], training={"epochs": 2}, augmentations=[None, chain], preprocess=[{"kind": "loudness"}])
    ser("preview", file, "--copies", "2")
    folder = tmp_path / "runs/mini/preview/tiny"
    record = run_folder.read_json(folder / "preview.json")
    names = [variant["name"] for variant in record["variants"]]
    assert names == ["clean", "preprocessed", "u: both, epoch 1", "u: both, epoch 2"]
    assert capsys.readouterr().out.startswith(f"mini/{record['clip']['path']}: ")
    assert record["features"] == {"kind": "spectrogram", "rows_per_second": 100, "stacked_frames": 1}
    assert (folder / "preview.png").read_bytes()[:4] == b"\x89PNG"
    wavs = {variant["name"]: soundfile.read(folder / variant["file"])[0] for variant in record["variants"]}
    for variant in record["variants"]:
        assert len(wavs[variant["name"]]) == pytest.approx(variant["seconds"] * 16000)
        assert np.abs(wavs[variant["name"]]).max() == pytest.approx(variant["peak"])
    heard["trained"].clear()
    ser("train", file, "--device", "cpu")
    mine = [(epoch, features) for path, epoch, features in heard["trained"] if path == record["clip"]["path"]]
    for variant in record["variants"][1:]:
        wanted = {key: variant["features"][key] for key in ("min", "mean", "max", "std")}
        assert any(
            {key: float(getattr(features.astype(float), key)()) for key in wanted} == wanted for _, features in mine
        ), variant["name"]


def test_a_preview_of_masks_mixes_and_draws(project: Any, tmp_path: Path) -> None:
    file = project(seeds=[0], augmentations=[None, *EVERYTHING])
    out = tmp_path / "out"
    ser("preview", file, "--out", out, "--clip", "mini/gio-f1-b1.wav")
    record = run_folder.read_json(out / "preview.json")
    names = [variant["name"] for variant in record["variants"]]
    assert names == [
        "clean", "all, epoch 1", "all: line alone, epoch 1", "all: mixup, epoch 1", "cut: cutmix, epoch 1",
    ]  # fmt: skip
    by_name = dict(zip(names, record["variants"], strict=True))
    assert "mixup of waveform with mini/" in by_name["all: mixup, epoch 1"]["explanation"]
    assert by_name["all: mixup, epoch 1"]["file"]
    assert by_name["cut: cutmix, epoch 1"]["file"] is None
    assert by_name["cut: cutmix, epoch 1"]["features"] != by_name["clean"]["features"]
    before = set(out.iterdir())
    (out / "mine.txt").write_text("kept")
    ser("preview", project(seeds=[0]), "--out", out)
    assert (out / "mine.txt").is_file()
    assert {file.suffix for file in set(out.iterdir()) & before} == {".wav", ".png", ".txt", ".json"}
    assert len(list(out.glob("*.wav"))) == 1, "what an earlier preview wrote is gone"


def test_a_preview_of_samples_shows_a_spectrogram_for_the_eye(project: Any, tmp_path: Path) -> None:
    augmentation = {"name": "cut", "mode": "on_the_fly", "batch": {"kind": "mixup"}}
    ser("preview", project({"encoder": RAW}, seeds=[0], augmentations=[augmentation]), "--out", tmp_path / "out")
    record = json.loads((tmp_path / "out/preview.json").read_text())
    assert record["features"]["kind"] == "samples"
    assert record["features"]["rows_per_second"] == 16000
    assert "hears samples, 16000 rows per second" in (tmp_path / "out/preview.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "tny"], "did you mean 'tiny'"),
        (["--clip", "emodb/x.wav"], "expected CORPUS/PATH with one of the corpora mini"),
        (["--clip", "mini/gio-f1-b9.wav"], "did you mean 'gio-f1-b"),
        (["--clip", "mini/x"], "there are 96, e.g. gio-f1-b1.wav"),
    ],
)
def test_a_preview_of_what_is_not_there(project: Any, arguments: list[str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        ser("preview", project(seeds=[0]), *arguments)
