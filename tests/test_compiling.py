"""Compiled training: few lengths, counted graphs, eager losses, the same bytes twice, and no trace in what is saved."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from ser_eval import run_folder
from ser_scripts.errors import BadInput
from ser_scripts.modeling.families import Encoder
from ser_scripts.modeling.model import SerModel
from ser_scripts.specs.base import parse
from ser_scripts.specs.model import ModelSpec, TrainingSpec
from ser_scripts.training.compiling import Compiled, buckets, check_compiling
from tests.test_model import CONFIGS, make
from tests.tiny import clips, killed_before, outcome, ser

needs_compiler = pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler")


def padded_sum(lengths: list[int], chosen: list[int]) -> int:
    return sum(min(one for one in chosen if one >= length) for length in lengths)


# Lengths


@given(st.lists(st.integers(1, 60), min_size=1, max_size=25), st.integers(1, 4))
def test_lengths_are_few_hold_every_clip_and_pad_least(lengths: list[int], count: int) -> None:
    from itertools import combinations

    chosen = buckets(lengths, count)
    assert chosen == sorted(set(chosen))
    assert len(chosen) <= count
    assert chosen[-1] == max(lengths)
    assert buckets(lengths[::-1], count) == chosen
    sizes = sorted(set(lengths))
    best = min(
        padded_sum(lengths, [*few, sizes[-1]])
        for number in range(min(count, len(sizes)))
        for few in combinations(sizes[:-1], number)
    )
    assert padded_sum(lengths, chosen) == best


def test_lengths_of_many_clips_are_chosen_fast_and_well() -> None:
    lengths = np.random.default_rng(0).lognormal(10.5, 0.4, 20_000).astype(int).tolist()
    one, four = buckets(lengths, 1), buckets(lengths, 4)
    assert one == [max(lengths)]
    assert four[-1] == max(lengths)
    waste = padded_sum(lengths, four) / sum(lengths)
    assert 1 < waste < 1.35 < 3 < padded_sum(lengths, one) / sum(lengths)


def compiled_for(encoder: Encoder, *samples: int, count: int = 2, batch_size: int = 3) -> Compiled:
    spec = TrainingSpec.model_validate({"torch_compile": {"lengths": count}, "batch_size": batch_size})
    return Compiled(encoder, samples, spec, None)


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_full_batch_is_padded_to_the_next_length_and_never_without_padding(kind: str) -> None:
    model = make(kind).eval()
    encoder, samples = model.encoder, (8000, 16000, 32000)
    compiled = compiled_for(encoder, *samples)
    shapes = set()
    for size in samples:
        batch = encoder.collate([encoder.features(clip) for clip in clips(size, size, size)])
        padded = compiled.pad(batch["inputs"], heard=False)
        assert padded is not None
        assert padded.shape[1] > batch["inputs"].shape[1]
        shapes.add(padded.shape)
        with torch.inference_mode():
            mask = encoder(padded, batch["lengths"], 0)[1]
            if not encoder.hears_alone:
                assert not mask.all()
            logits = [model(one, batch["lengths"])["logits"] for one in (batch["inputs"], padded)]
        assert torch.allclose(*logits, atol=1e-5)
        if encoder.hears_alone:
            outputs = torch.stack([encoder.front_output(row) for row in batch["inputs"]])
            assert compiled.pad(outputs, heard=True).shape[1] > outputs.shape[1]  # type: ignore[union-attr]
    assert len(shapes) == 2
    assert compiled.uncompiled == 0
    assert compiled.pad(batch["inputs"][:2], heard=False) is None
    long = encoder.collate([encoder.features(clip) for clip in clips(64000, 64000, 64000)])
    assert compiled.pad(long["inputs"], heard=False) is None
    assert compiled.uncompiled == 2


# Refusals


def test_without_a_compiler_there_is_one_clear_sentence_before_any_training(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = project(seeds=[0], training={"torch_compile": {}})
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.delenv("CXX", raising=False)
    assert ser("train", file, "--device", "cpu") == 2
    said = capsys.readouterr().err
    assert "training.torch_compile needs a C++ compiler, and there is no 'g++' here" in said
    assert "Traceback" not in said
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("*.partial"))


def test_devices_that_inductor_does_not_serve_are_refused() -> None:
    with pytest.raises(BadInput, match="cpu and cuda, not with 'mps'"):
        check_compiling(make().encoder, "mps")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"encoder": {"kind": "compact"}}, "goes with an encoder that has transformer layers"),
        ({"encoder": {"model_path_or_name": "a/b", "frozen": True}}, "does not go with a frozen encoder"),
    ],
)
def test_models_that_have_nothing_to_compile_are_refused(content: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse(ModelSpec, {"name": "m", **content, "training": {"torch_compile": {}}}, source="m", kind="model")


# Whole runs

WAVE = {**CONFIGS["hubert"], "num_hidden_layers": 2}
MODEL: dict[str, Any] = {
    "encoder": {"kind": "random", "config": {**WAVE, "layerdrop": 0.0}},
    "freeze": {"cnn": True},
    "head": {"dropout": 0.1},
}
TRAINING = {"epochs": 2, "learning_rate": 1e-3, "torch_compile": {"lengths": 2}}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What inductor finds out about the processor is found out once for all tests of this file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def project(project: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("SER_CACHE", str(cache))
    return project


def record(runs: Path) -> dict[str, Any]:
    content: dict[str, Any] = run_folder.read_json(next(runs.rglob("run.json")))
    return content


@pytest.mark.slow
@needs_compiler
def test_a_compiled_run_has_its_bytes_twice_and_after_a_kill_and_few_graphs(
    project: Any,
    small_corpus: dict[str, str],
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = project(seeds=[0], model=MODEL, training=TRAINING, train=[small_corpus])
    assert ser("train", file, "--device", "cpu") == 0
    assert "graphs for 2 lengths" in capsys.readouterr().err
    whole, compiled = outcome(tmp_path / "runs"), record(tmp_path / "runs")["compiled"]
    assert 0 < compiled["graphs"] <= 2 * len(compiled["seconds"])
    assert len(compiled["seconds"]) == 2
    assert list((cache / "inductor").rglob("*.so"))
    assert str(cache) not in os.environ.get("TORCHINDUCTOR_CACHE_DIR", "")
    saved = next((tmp_path / "runs").rglob("model")).resolve()
    assert not any("_orig_mod" in name for name in load_file(saved / "model.safetensors"))
    SerModel.load(saved)

    monkeypatch.setenv("SER_RUNS", str(tmp_path / "killed"))
    with killed_before(1):
        ser("train", file, "--device", "cpu")
    weights = next((tmp_path / "killed").rglob("checkpoint-*/model.safetensors"))
    assert not any("_orig_mod" in name for name in load_file(weights))
    assert ser("train", file, "--device", "cpu") == 0
    assert outcome(tmp_path / "killed") == whole


@needs_compiler
@pytest.mark.parametrize(
    "way", ["plain", *(pytest.param(w, marks=pytest.mark.slow) for w in ("checkpointing", "lora"))]
)
def test_compiled_losses_are_those_without(
    way: str, project: Any, small_corpus: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout, which compiled code draws in another way."""
    still = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)
    config = {**WAVE, "layerdrop": 0.0, **still, "num_hidden_layers": 1}
    model: dict[str, Any] = {**MODEL, "head": {"dropout": 0.0}, "encoder": {"kind": "random", "config": config}}
    training: dict[str, Any] = {"epochs": 1, "learning_rate": 1e-3, "gradient_checkpointing": way == "checkpointing"}
    if way == "lora":
        model |= {"adapter": {"kind": "lora", "rank": 2}}
        training |= {"eval_every": 2, "weight_average": {"decay": 0.5}}  # whose weights lie in place in between
    histories = []
    for compile_spec in (None, {"lengths": 1}):
        monkeypatch.setenv("SER_RUNS", str(tmp_path / str(compile_spec)))
        settings = {**training, "torch_compile": compile_spec}
        file = project(seeds=[0], model=model, training=settings, train=[small_corpus])
        assert ser("train", file, "--device", "cpu") == 0
        compiled = record(tmp_path / str(compile_spec)).get("compiled", {"graphs": 0})
        assert (compiled["graphs"] > 0) == (compile_spec is not None)
        history = next((tmp_path / str(compile_spec)).rglob("history.csv")).read_text().splitlines()
        histories.append([float(value) for value in history[-1].split(",")[2:6]])
    np.testing.assert_allclose(*histories, atol=1e-4)
