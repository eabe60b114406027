"""Batches that do not fit into memory, and clips that are longer than an encoder hears at once."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ser_eval import run_folder
from ser_scripts.cli import app
from ser_scripts.errors import BadInput, Finding
from ser_scripts.modeling.families.whisper import WhisperEncoder
from ser_scripts.specs.base import parse
from ser_scripts.specs.model import ModelSpec, TrainingSpec
from ser_scripts.training import loop
from ser_scripts.training.data import Clip, FeatureSource, windows
from ser_scripts.training.memory import Fit, parts
from ser_scripts.training.probabilities import softmax
from tests.test_model import clips, make
from tests.tiny import predictions


def run(*arguments: object) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


def fills_above(monkeypatch: pytest.MonkeyPatch, training: int, evaluation: int = 10_000) -> list[int]:
    """The encoder's memory is full above so many clips; returns the sizes of all batches that went through."""
    sizes: list[int] = []
    forward = WhisperEncoder.forward

    def limited(self: Any, inputs: torch.Tensor, *rest: Any) -> Any:
        if len(inputs) > (training if self.training else evaluation):
            raise torch.OutOfMemoryError(f"tried to allocate for {len(inputs)} clips")
        sizes.append(len(inputs))
        return forward(self, inputs, *rest)

    monkeypatch.setattr(WhisperEncoder, "forward", limited)
    return sizes


def record(runs: Path) -> dict[str, Any]:
    return run_folder.read_json(next(runs.rglob("run.json")))


QUIET = {"head": {"dropout": 0.0}, "loss": {"class_weights": True, "label_smoothing": 0.1}}
"""Without dropout the parts of a batch give its gradients, up to rounding."""


def test_a_batch_that_does_not_fit_is_halved_and_the_update_keeps_its_clips(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training = {"epochs": 2, "batch_size": 8, "accumulation": 2, "eval_batch_size": 16}
    file = project(seeds=[0], model=QUIET, training=training)
    run("train", file, "--device", "cpu")
    assert record(tmp_path / "runs")["out_of_memory"] == []
    capsys.readouterr()
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "small"))
    sizes = fills_above(monkeypatch, training=3, evaluation=5)
    run("train", file, "--device", "cpu")
    said = capsys.readouterr().err
    assert "8 clips at once do not fit in training; from here on 4 at once, an update keeps its 16 clips" in said
    assert "4 clips at once do not fit in training; from here on 2 at once" in said
    assert max(sizes) <= 5
    assert record(tmp_path / "small")["out_of_memory"] == [
        {"part": "training", "step": 0, "clips": 8, "now": 4},
        {"part": "training", "step": 0, "clips": 4, "now": 2},
        {"part": "evaluation", "step": 3, "clips": 16, "now": 8},
        {"part": "evaluation", "step": 3, "clips": 8, "now": 4},
    ]
    tables = [
        run_folder.read_predictions(next((tmp_path / name).rglob("predictions/mini.csv")))[
            ["p_angry", "p_happy", "p_sad"]
        ].to_numpy()
        for name in ("runs", "small")
    ]
    assert np.abs(tables[0] - tables[1]).max() < 1e-4
    histories = [next((tmp_path / name).rglob("history.csv")).read_text().splitlines() for name in ("runs", "small")]
    for one, other in zip(*(lines[1:] for lines in histories), strict=True):
        left, right = (np.array(line.split(","), dtype=float)[:-1] for line in (one, other))
        np.testing.assert_allclose(left, right, atol=1e-4)


def test_memory_that_fills_in_the_backward_pass_leaves_no_half_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second batch of an update fails behind its backward pass; the update is then done again as a whole."""
    model = make(training={"epochs": 1}, **QUIET)
    features = [model.encoder.features(clip) for clip in clips()]
    labels = torch.tensor([0, 1, 2, 0, 1])
    batches = [
        {**model.encoder.collate(features[:3]), "labels": labels[:3], "epoch": 0, "batch": 0},
        {**model.encoder.collate(features[3:]), "labels": labels[3:], "epoch": 0, "batch": 1},
    ]
    trainer = loop.SerTrainer.__new__(loop.SerTrainer)
    trainer.model, trainer.fit, trainer.train_seed, trainer.spec = model, Fit(), 0, TrainingSpec(batch_size=3)
    trainer.folder, trainer.history, trainer.report = Path("nowhere"), [], lambda text: None
    trainer.state = SimpleNamespace(global_step=0, max_steps=1)
    trainer._loss_sum = trainer._correct = trainer._seen = 0.0
    trainer._epoch, trainer._update, trainer._sums, trainer._trained = None, (-1, []), (0.0, 0.0, 0.0), 0
    trainer._last_report, trainer._first_step = float("inf"), 0
    failures = iter([False, True, *[False] * 5])

    def step(self: Any, model: Any, inputs: Any, num_items: Any) -> torch.Tensor:
        loss = self.compute_loss(model.train(), inputs, num_items_in_batch=num_items)
        loss.backward()
        if next(failures):
            raise torch.OutOfMemoryError("full")
        return loss.detach()

    monkeypatch.setattr(loop.Trainer, "training_step", step)
    monkeypatch.setattr(Fit, "save", lambda self, folder: None)
    total = torch.tensor(5)
    losses = [trainer.training_step(model, batch, total) for batch in batches]
    assert trainer.fit.limit("training") == 1
    got = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert trainer._seen == 5
    model.zero_grad()
    whole = model.train()(**model.encoder.collate(features), labels=labels)["loss"]
    whole.backward()
    assert float(losses[1]) == pytest.approx(float(whole.detach()), abs=1e-5)  # of the whole update
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(got[name], parameter.grad, atol=1e-5, rtol=1e-4)


def test_an_interrupted_training_parts_its_batches_as_before(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project(seeds=[0], training={"epochs": 3})
    fills_above(monkeypatch, training=4)
    run("train", file, "--device", "cpu")
    whole = predictions(tmp_path / "runs")
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "killed"))
    start = loop.SerTrainer._start_epoch

    def killed(self: Any, number: int) -> None:
        if number == 2:
            raise KeyError("killed")
        start(self, number)

    monkeypatch.setattr(loop.SerTrainer, "_start_epoch", killed)
    with pytest.raises(KeyError):
        run("train", file, "--device", "cpu")
    monkeypatch.setattr(loop.SerTrainer, "_start_epoch", start)
    capsys.readouterr()
    run("train", file, "--device", "cpu")
    assert "out of memory" not in capsys.readouterr().err  # it knows
    assert predictions(tmp_path / "killed") == whole
    assert record(tmp_path / "killed")["out_of_memory"] == [{"part": "training", "step": 0, "clips": 8, "now": 4}]
    assert not list((tmp_path / "killed").rglob("memory.json"))


def test_a_single_clip_that_does_not_fit_is_named_with_what_helps(
    project: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fills_above(monkeypatch, training=0)
    with pytest.raises(Finding):
        run("train", project(seeds=[0]), "--device", "cpu")
    assert "a single clip does not fit into memory in training; set training.max_seconds" in capsys.readouterr().err


def test_other_errors_of_a_training_are_not_taken_for_full_memory(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, *rest: Any) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(WhisperEncoder, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        run("train", project(seeds=[0]), "--device", "cpu")


def test_parts_of_a_batch_hold_every_clip_once_and_no_needless_padding() -> None:
    batch = {
        "inputs": torch.arange(10.0).view(5, 2).repeat(1, 3),
        "lengths": torch.tensor([6, 2, 3, 1, 4]),
        "labels": torch.arange(5),
        "epoch": 3,
    }
    made = parts(batch, 2)
    assert [part["labels"].tolist() for part in made] == [[0, 1], [2, 3], [4]]
    assert [part["inputs"].shape[1] for part in made] == [6, 3, 4]
    assert [(part["epoch"], part["start"]) for part in made] == [(3, 0), (3, 2), (3, 4)]
    assert parts(batch, 5) == [batch]


# Long clips


@given(length=st.integers(1, 5000), window=st.integers(1, 700))
def test_windows_cover_a_clip_evenly(length: int, window: int) -> None:
    made = windows(length, window)
    if length <= window:
        assert made == [(0, length)]
        return
    assert made[0][0] == 0
    assert made[-1][1] == length
    assert {stop - start for start, stop in made} == {window}
    steps = np.diff([start for start, _ in made])
    assert steps.max() - steps.min() <= 1
    assert steps.max() <= max(1, window * 2 // 3) + 1
    assert windows(length, None) == [(0, length)]


class Store(dict[str, Any]):
    def num_samples(self, path: str) -> int:
        return len(self[path])


def test_probabilities_of_windows_are_averaged_and_short_clips_stay_as_they_are() -> None:
    encoder = {**make().spec.encoder.model_dump(), "max_seconds": 1.0}
    model, free = make(encoder=encoder).eval(), make().eval()
    store = Store({str(index): clip for index, clip in enumerate(clips(20000, 900, 48000, 16000))})
    source = FeatureSource([Clip("c", path, -1) for path in store], {"c": store}, model.encoder)  # type: ignore[arg-type]
    cpu = torch.device("cpu")
    got = loop.predict_logits(model, source, model.spec.training, cpu)
    assert got.shape == (4, 3)
    assert got.dtype == np.float32
    whole = loop.predict_logits(free, source, free.spec.training, cpu)
    np.testing.assert_allclose(got[[1, 3]], whole[[1, 3]], atol=1e-5)
    for row, starts in ((0, [0, 4000]), (2, [0, 8000, 16000, 24000, 32000])):
        pieces = [model.encoder.features(store[str(row)][start : start + 16000]) for start in starts]
        with torch.inference_mode():
            logits = model(**model.encoder.collate(pieces))["logits"].numpy()
        np.testing.assert_allclose(softmax(got[[row]])[0], softmax(logits).mean(axis=0), atol=1e-5)


def test_windows_stand_in_record_and_log_and_training_cuts(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads(project(seeds=[0]).with_name("tiny.json").read_text())["encoder"]
    file = project(seeds=[0], model={"encoder": {**config, "max_seconds": 0.5}}, training={"epochs": 1})
    longest = []
    forward = WhisperEncoder.forward

    def noted(self: Any, inputs: torch.Tensor, *rest: Any) -> Any:
        longest.append(inputs.shape[1])
        return forward(self, inputs, *rest)

    monkeypatch.setattr(WhisperEncoder, "forward", noted)
    run("train", file, "--device", "cpu")
    assert max(longest) == 50
    found = record(tmp_path / "runs")["long_clips"]
    assert found["seconds"] == 0.5
    assert found["training"] == "cut to 0.5 s, at a place drawn per epoch"
    assert found["evaluation"] == "windows of 0.5 s, probabilities averaged"
    assert found["clips"]["train"] > 0
    said = capsys.readouterr().err
    assert (
        f"{found['clips']['test']} test clips are longer than 0.5 s: windows of 0.5 s, probabilities averaged" in said
    )


def test_the_limit_of_whisper_stands_in_the_record(project: Any, tmp_path: Path) -> None:
    config = json.loads(project(seeds=[0]).with_name("tiny.json").read_text())["encoder"]
    config["config"]["max_source_positions"] = 25
    run("train", project(seeds=[0], model={"encoder": config}, training={"epochs": 1}), "--device", "cpu")
    found = record(tmp_path / "runs")["long_clips"]
    assert found["seconds"] == 0.5
    assert found["training"] == found["evaluation"] == "windows of 0.5 s, hidden states averaged where they overlap"
    assert make().encoder.window_seconds == 30.0
    assert make("hubert").encoder.window_seconds is None


def test_windows_that_have_no_effect_or_contradict_are_refused() -> None:
    encoder = {"model_path_or_name": "a/b", "max_seconds": 5.0}
    for content, said in [
        ({"encoder": encoder, "training": {"max_seconds": 8}}, r"'training\.max_seconds' \(8\) lies above"),
        ({"encoder": {**encoder, "frozen": True}}, r"encoder\.max_seconds does not go with a frozen encoder"),
    ]:
        with pytest.raises(BadInput, match=said):
            parse(ModelSpec, {"name": "m", **content}, source="m.json", kind="model")
