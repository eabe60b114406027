"""Experiments with a frozen encoder: whole run folders, all runs at once, the cache used, faults said first."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import WhisperModel

from ser_eval.run_folder import PREDICTION_COLUMNS, find_runs, seen_by_any
from ser_scripts.errors import Finding
from ser_scripts.features import embeddings
from ser_scripts.modeling.frozen import FrozenModel
from ser_scripts.runs import train_frozen
from tests.tiny import predictions, ser

HEAD = {
    "layers": {"use": "search"},
    "freeze": {"cnn": True},
    "head": {"kind": "mlp", "hidden": 16, "dropout": 0.2},
}
TRAINING = {"epochs": 6, "batch_size": 16, "learning_rate": 1e-2, "select": "val_loss"}


def model(folder: Path, **changes: Any) -> dict[str, Any]:
    return {**HEAD, "encoder": {"model_path_or_name": str(folder), "frozen": True}, **changes}


def test_all_seeds_and_conditions_leave_whole_run_folders(project: Any, tiny_whisper: Path, tmp_path: Path) -> None:
    file = project(model(tiny_whisper), TRAINING, seeds={"low": 0, "high": 2}, conditions=["noise@10dB"])
    assert ser("train", str(file)) == 0
    runs = find_runs(tmp_path / "runs" / "mini")
    assert len(runs) == 3
    for one in runs:
        assert one.record["layer"] in (0, 1, 2)
        assert len(one.history()) == 6
        tables = one.predictions()
        assert set(tables) == {("mini", ""), ("mini", "noise-10dB")}
        table = tables["mini", ""]
        assert list(table.columns[:7]) == PREDICTION_COLUMNS
        assert np.allclose(table.filter(like="p_").sum(axis=1), 1)
        saved = FrozenModel.load(one.path / "model")
        assert saved.layer == one.record["layer"]
        assert sorted(file.name for file in (one.path / "model").iterdir()) == [
            "config.json", "labels.json", "model.safetensors",
        ]  # fmt: skip
    assert ser("eval", str(file)) == 0
    results = pd.read_csv(tmp_path / "runs" / "mini" / "results.csv")
    assert len(results) == 6
    assert results["uar"].mean() > 0.4  # three classes


def test_what_the_encoder_has_heard_is_stamped_and_may_be_said_later(
    project: Any, tiny_whisper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stamps(encoder: dict[str, Any]) -> tuple[Any, set[str], str]:
        heard = model(tiny_whisper)
        file = project({**heard, "encoder": {**heard["encoder"], **encoder}}, TRAINING, seeds=[0])
        assert ser("train", str(file)) == 0
        assert ser("eval", str(file)) == 0
        assert ser("report", "--checklist", str(file)) == 0
        (run,) = find_runs(tmp_path / "runs" / "mini")
        results = pd.read_csv(tmp_path / "runs" / "mini" / "results.csv")
        return run.record["seen_corpora"], set(results["protocol"]), run.record["ended"]

    first = stamps({})
    assert first[:2] == (None, {"speaker_independent"})
    assert "[ ] **Corpora that the encoders were pretrained or tuned on**: tiny: not stated" in capsys.readouterr().out
    second = stamps({"seen_corpora": ["LibriSpeech", "Mini"]})
    assert second[:2] == (["LibriSpeech", "Mini"], {"speaker_independent SEEN IN PRETRAINING"})
    assert second[2] == first[2], "nothing was trained again"
    report = (tmp_path / "runs/mini/report/report.html").read_text()
    assert "<td>LibriSpeech, Mini</td>" in report
    said = "[x] **Corpora that the encoders were pretrained or tuned on**: tiny: LibriSpeech, Mini"
    assert said in capsys.readouterr().out
    assert stamps({"seen_corpora": []})[:2] == ([], {"speaker_independent"})


@pytest.mark.parametrize(
    ("said", "together"),
    [
        ([None, None], None),
        ([None, []], None),
        ([[], []], []),
        ([None, ["b"]], ["b"]),
        ([["b", "a"], ["b"]], ["a", "b"]),
    ],
)
def test_what_several_encoders_have_heard(said: list[list[str] | None], together: list[str] | None) -> None:
    assert seen_by_any(said) == together


def test_a_seed_alone_gives_the_bytes_that_it_gives_among_others(
    project: Any, tiny_whisper: Path, tmp_path: Path
) -> None:
    file = project(model(tiny_whisper), TRAINING, seeds={"low": 0, "high": 3})
    assert ser("train", str(file)) == 0
    together = predictions(tmp_path / "runs")
    (tmp_path / "runs").rename(tmp_path / "before")
    assert ser("train", str(file), "--low-seed", "2", "--high-seed", "2") == 0
    alone = predictions(tmp_path / "runs")
    assert len(alone) == 1
    for name, content in alone.items():
        assert content == together[name]


def test_the_second_training_embeds_nothing(
    project: Any, tiny_whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ser("train", str(project(model(tiny_whisper), TRAINING, seeds=[0]))) == 0
    monkeypatch.setattr(embeddings, "_one", lambda *a: pytest.fail("a clip was embedded again"))
    other = model(tiny_whisper, layers={"use": "weighted"}, head={"kind": "linear", "relu": False})
    assert ser("train", str(project(other, TRAINING, name="second", seeds=[0, 1]))) == 0
    assert len(find_runs(tmp_path / "runs" / "second")) == 2


def test_a_condition_can_be_added_and_another_corpus_tested_later(
    project: Any, tiny_whisper: Path, tmp_path: Path, mini_corpus: Path
) -> None:
    file = project(model(tiny_whisper), TRAINING, seeds=[0], classes=["angry", "happy"])
    assert ser("train", str(file)) == 0
    before = predictions(tmp_path / "runs")
    content = json.loads(file.read_text()) | {"conditions": ["telephone"]}
    file.write_text(json.dumps(content))
    assert ser("train", str(file)) == 0
    after = predictions(tmp_path / "runs")
    assert {name: after[name] for name in before} == before
    assert len(after) == 2


def test_a_head_over_frames_leaves_a_run_that_predicts_and_is_tested_further(
    project: Any, tiny_whisper: Path, tmp_path: Path
) -> None:
    frames = model(tiny_whisper, layers={"use": "last"}, head={"kind": "frame_mlp", "hidden": 24, "dropout": 0.1})
    file = project(frames, {**TRAINING, "epochs": 10}, seeds=[0, 1])
    assert ser("train", str(file)) == 0
    before = predictions(tmp_path / "runs")
    one, _ = find_runs(tmp_path / "runs" / "mini")
    assert one.record["layer"] == 2
    saved = FrozenModel.load(one.path / "model")
    assert {name: value.shape for name, value in saved.weights.items() if name in ("w1", "norm_w", "w")} == {
        "w1": (32, 24), "norm_w": (24,), "w": (24, 3),
    }  # fmt: skip
    assert any("-frames-" in folder.name for folder in (tmp_path / "cache" / "embeddings").iterdir())
    content = json.loads(file.read_text()) | {"conditions": ["telephone"]}
    file.write_text(json.dumps(content))
    assert ser("train", str(file)) == 0
    after = predictions(tmp_path / "runs")
    assert {name: after[name] for name in before} == before
    assert len(after) == 4
    assert ser("eval", str(file)) == 0
    assert pd.read_csv(tmp_path / "runs" / "mini" / "results.csv")["uar"].mean() > 0.4  # three classes


def test_a_frame_head_over_an_encoder_that_hears_every_clip_is_refused(
    project: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ser("train", str(project({"head": {"kind": "frame_mlp"}}))) == 2
    assert "head.kind 'frame_mlp' goes with a frozen encoder" in capsys.readouterr().err


def test_votes_are_trained_on_and_clips_without_are_counted(
    project: Any, tiny_whisper: Path, tmp_path: Path, mini_corpus: Path
) -> None:
    table = pd.read_csv(mini_corpus / "clips.csv")
    for label in ("angry", "happy", "sad"):
        table[f"votes_{label}"] = [3 if own == label else 1 for own in table["class_id"]]
    table.loc[table["path"].str.contains("b1.wav"), [f"votes_{label}" for label in ("angry", "happy", "sad")]] = 0
    voted = tmp_path / "voted"
    shutil.copytree(mini_corpus, voted)
    table.to_csv(voted / "clips.csv", index=False)
    train = [{"kind": "csv", "name": "voted", "path": str(voted / "clips.csv")}]
    soft = model(tiny_whisper, loss={"targets": "votes"}, head={"kind": "linear", "layer_norm": True})
    assert ser("train", str(project(soft, TRAINING, train=train, name="soft"))) == 0
    assert ser("train", str(project({**soft, "loss": {}}, TRAINING, train=train, name="hard"))) == 0
    (one,), (other,) = (find_runs(tmp_path / "runs" / name) for name in ("soft", "hard"))
    counts = one.record["targets"]
    assert counts["votes"] + counts["hard_label_for_want_of_votes"] == one.record["n_clips"]["train"]
    assert counts["hard_label_for_want_of_votes"] == one.record["n_clips"]["train"] / 4
    assert "targets" not in other.record
    weights = [FrozenModel.load(two.path / "model").weights for two in (one, other)]
    assert not np.array_equal(weights[0]["w"], weights[1]["w"])
    assert weights[0]["norm_w"].shape == (32,)


def test_runs_are_written_in_portions_and_a_failure_leaves_the_earlier_ones(
    project: Any, tiny_whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project(model(tiny_whisper), TRAINING, seeds={"low": 0, "high": 2})
    assert ser("train", str(file)) == 0
    at_once = predictions(tmp_path / "runs")
    (tmp_path / "runs").rename(tmp_path / "before")
    monkeypatch.setattr(train_frozen, "HEADS_AT_ONCE", 3)  # three hidden states: one run
    original, calls = train_frozen.train_heads, []

    def fails_in_the_end(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise Finding("the loss of a head is not finite")
        return original(*arguments, **options)

    monkeypatch.setattr(train_frozen, "train_heads", fails_in_the_end)
    assert ser("train", str(file)) == 1
    assert len(find_runs(tmp_path / "runs" / "mini")) == 2
    assert ser("train", str(file)) == 0
    assert predictions(tmp_path / "runs") == at_once


def test_embed_fills_the_cache_ahead(
    project: Any, tiny_whisper: Path, tmp_path: Path, mini_corpus: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    file = project(model(tiny_whisper), TRAINING, seeds=[0, 1], conditions=["telephone"])
    assert ser("embed", str(file), "--device", "cpu") == 0
    said = capsys.readouterr().out
    assert re.search(r"tiny: 1\d\d clips, 1\d\d distinct, 0 of them there before; 1\d\d embedded in .* s on cpu", said)
    assert re.search(r"0\.\d MB in .*-pooled-", said)
    assert ser("embed", str(file), "--device", "cpu") == 0
    assert "; 0 embedded in" in capsys.readouterr().out
    monkeypatch.setattr(embeddings, "_one", lambda *a: pytest.fail("a clip was embedded again"))
    assert ser("train", str(file), "--device", "cpu") == 0
    assert ser("embed", "tiny.json", "--corpus", str(mini_corpus / "clips.csv"), "--device", "cpu") == 0
    assert "tiny: 96 clips, 96 distinct, 96 of them there before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny.json"], "a model JSON says nothing of clips; name them with --corpus"),
        (["mini.json", "--corpus", "emodb"], "--corpus goes with a model JSON"),
        (["other/mini.json"], "none of its models has a frozen encoder"),
        (["other/tiny.json", "--corpus", "emodb"], "the model is not frozen"),
    ],
)
def test_embed_says_what_it_lacks(
    project: Any, tiny_whisper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str],
    message: str,
) -> None:  # fmt: skip
    project()
    (tmp_path / "other").mkdir()
    for name in ("tiny.json", "mini.json"):
        shutil.move(tmp_path / name, tmp_path / "other" / name)
    project(model(tiny_whisper))
    assert ser("embed", *arguments) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


def test_mean_and_deviation_are_pooled_side_by_side(project: Any, tiny_whisper: Path, tmp_path: Path) -> None:
    both = model(tiny_whisper, pooling={"kind": "mean_std"}, layers={"use": 1}, head={"kind": "linear"})
    assert ser("train", str(project(both, TRAINING, seeds=[0]))) == 0
    (one,) = find_runs(tmp_path / "runs" / "mini")
    assert FrozenModel.load(one.path / "model").weights["w"].shape == (64, 3)


@pytest.mark.parametrize(
    ("changes", "training", "message"),
    [
        ({"layers": {"use": 3}}, {}, "layers.use: .* has no layer 3; valid: 0 to 2"),
        ({"pooling": {"kind": "ecapa"}}, {}, "pooling.kind 'ecapa' .* does not go with a frozen encoder"),
        ({"head": {"batch_norm": True}}, {}, "head.batch_norm does not go with a frozen encoder"),
        ({"head": {"kind": "frame_mlp"}}, {}, "'frame_mlp' reads one hidden state: .* not 'search'"),
        (
            {"head": {"kind": "frame_mlp"}, "layers": {"use": 1}, "pooling": {"kind": "max"}},
            {},
            "'frame_mlp' takes the mean of its logits over time",
        ),
        ({"head": {"kind": "frame_mlp", "layer_norm": True}}, {}, "a 'frame_mlp' has its own layer norm"),
        ({}, {"accumulation": 2}, "training.accumulation does not go with a frozen encoder"),
        ({}, {"precision": "bf16"}, "training.precision 'bf16' does not go with a frozen encoder"),
    ],
)
def test_what_a_frozen_encoder_cannot_do_is_said_before_any_training(
    project: Any, tiny_whisper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: Any, training: Any,
    message: str,
) -> None:  # fmt: skip
    file = project(model(tiny_whisper, **changes), {**TRAINING, **training})
    assert ser("train", str(file)) == 2
    error = capsys.readouterr().err
    assert re.search(message, error.replace("\n", " "))
    assert not list((tmp_path / "runs").rglob("seed-*"))


def test_weights_that_are_cut_short_are_named_ahead_of_any_training(
    project: Any, tiny_whisper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(tiny_whisper, folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    file = project(model(folder), TRAINING, seeds=[0])
    for command in ("check", "train"):
        assert ser(command, str(file)) == 2
        assert "model.safetensors is no whole safetensors file" in capsys.readouterr().err
    # another damaged file beside whole weights is not read as theirs
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    (folder / "model.safetensors").write_bytes(weights)
    assert ser("check", str(file)) == 0


def test_a_head_is_no_start_for_a_network(
    project: Any, tiny_whisper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ser("train", str(project(model(tiny_whisper), TRAINING, seeds=[0]))) == 0
    (run,) = (tmp_path / "runs").glob("*/*/*/seed-0")
    tuned = {"encoder": {"model_path_or_name": str(tiny_whisper)}, "init_from": str(run)}
    file = project(tuned, {"epochs": 1}, seeds=[0], name="next")
    assert ser("check", str(file)) == 2
    assert "holds a head over a frozen encoder, and no encoder that it has trained" in capsys.readouterr().err


def test_augmentation_is_refused(project: Any, tiny_whisper: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gain = {"module": "audiomentations", "class": "Gain"}
    file = project(model(tiny_whisper), TRAINING, augmentations=[{"name": "loud", "transforms": {"gain": gain}}])
    assert ser("train", str(file)) == 2
    assert "augmentation 'loud' does not go with a frozen encoder" in capsys.readouterr().err


def test_a_head_refuses_another_encoder_of_the_same_name(
    project: Any, tiny_whisper: Path, tmp_path: Path, mini_corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "encoder"
    shutil.copytree(tiny_whisper, folder)
    file = project(model(folder), TRAINING, seeds=[0])
    assert ser("train", str(file)) == 0
    torch.manual_seed(1)
    changed = WhisperModel.from_pretrained(folder)
    with torch.no_grad():
        changed.encoder.conv1.weight.add_(1.0)
    changed.save_pretrained(folder)
    content = json.loads(file.read_text()) | {"conditions": ["telephone"]}
    file.write_text(json.dumps(content))
    assert ser("train", str(file)) == 2
    assert "encoder_sha256" in capsys.readouterr().err


def test_the_cache_is_listed_verified_and_pruned(
    project: Any, tiny_whisper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ser("train", str(project(model(tiny_whisper), TRAINING, seeds=[0]))) == 0
    capsys.readouterr()
    assert ser("cache", "ls") == 0
    listed = capsys.readouterr().out
    assert "embeddings/" in listed
    assert "clips/mini-" in listed
    assert ser("cache", "verify") == 0
    (shard,) = (tmp_path / "cache" / "embeddings").glob("*/*.bin")
    content = bytearray(shard.read_bytes())
    content[100] ^= 255
    shard.write_bytes(content)
    assert ser("cache", "verify") == 1
    assert "DAMAGED" in capsys.readouterr().out
    assert ser("cache", "verify", "--delete") == 0
    assert not shard.exists()
    assert ser("cache", "prune", "--max-size", "lots") == 2
    assert "--max-size lots: expected bytes" in capsys.readouterr().err
    assert ser("cache", "prune", "--max-size", "0") == 0
    assert not list((tmp_path / "cache" / "clips").glob("*[!k]"))
