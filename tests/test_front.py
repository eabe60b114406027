"""What a frozen front end makes of clips: kept or not, the same numbers; and only where it is right to keep it."""

import io
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ser_eval import run_folder
from ser_scripts.modeling.families import Encoder
from ser_scripts.modeling.model import SerModel
from ser_scripts.training import front as front_module
from ser_scripts.training import loop
from ser_scripts.training.front import FrontCache
from tests.test_encoders import CONFIGS, random_encoder
from tests.test_model import CONFIGS as MODELS
from tests.test_model import make
from tests.tiny import clips, killed_before, outcome, ser

FAMILIES = [name for name in CONFIGS if not name.startswith(("whisper", "moonshine", "wav2vec2-bert"))]
SAMPLES = (1800, 9999, 16000, 33333)


def batch_of(encoder: Encoder, *samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    made = encoder.collate([encoder.features(clip) for clip in clips(*samples)])
    return made["inputs"], made["lengths"]


def frozen(name: str) -> Encoder:
    encoder = random_encoder(name)
    for parameter in encoder.front_end_parameters():
        parameter.requires_grad_(False)
    return encoder.eval()


# The outputs


@pytest.mark.parametrize("name", FAMILIES)
def test_hidden_states_from_kept_outputs_are_those_from_samples_bit_by_bit(name: str, tmp_path: Path) -> None:
    encoder = frozen(name)
    inputs, lengths = batch_of(encoder, *SAMPLES)
    cache = FrontCache(encoder, tmp_path)
    keys: list[Hashable] = list(range(len(lengths)))
    with torch.inference_mode():
        plain, mask = encoder(inputs, lengths)
        for hits in (0, 4):
            outputs, frames = cache.batch(inputs, lengths, keys)
            assert outputs.ndim == 3
            assert (cache.hits, cache.misses) == (hits, 4)
            states, kept_mask = encoder(outputs, frames)
            assert torch.equal(mask, kept_mask)
            assert all(torch.equal(one, other) for one, other in zip(plain, states, strict=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_clip_goes_through_the_frozen_front_end_as_through_one_that_is_trained(name: str) -> None:
    """Alone and unpadded, or in a padded batch with masked norms: the same numbers up to rounding."""
    encoder = frozen(name)
    inputs, lengths = batch_of(encoder, *SAMPLES)
    (alone, mask), front = encoder.embed(inputs, lengths), encoder.front_end_parameters()
    for parameter in front:
        parameter.requires_grad_(True)
    assert not encoder.hears_alone
    batched, other = encoder.embed(inputs, lengths)
    assert torch.equal(mask, other)
    assert torch.allclose(alone[mask], batched[mask], atol=1e-5)
    batched[mask].sum().backward()
    assert all(parameter.grad is not None for parameter in front)


def test_a_trained_front_end_is_never_kept(tmp_path: Path) -> None:
    encoder = random_encoder("hubert group norm").eval()
    inputs, lengths = batch_of(encoder, *SAMPLES)
    cache = FrontCache(encoder, tmp_path)
    with torch.inference_mode():  # as in the evaluations between its epochs
        assert cache.batch(inputs, lengths, [0, 1, 2, 3])[0] is inputs
    for name in ("whisper", "wav2vec2-bert"):  # no front end of this kind
        other = frozen(name)
        batch = other.collate([other.features(clip) for clip in clips(16000)])
        assert FrontCache(other, tmp_path).batch(batch["inputs"], batch["lengths"], [0])[0] is batch["inputs"]
    assert (cache.hits, cache.misses) == (0, 0)


def test_gradients_are_those_without_kept_outputs(tmp_path: Path) -> None:
    model = make("hubert").train()
    inputs, lengths = batch_of(model.encoder, *SAMPLES)
    cache, labels = FrontCache(model.encoder, tmp_path), torch.tensor([0, 1, 2, 0])
    found = []
    for kept in (False, True, True):
        model.zero_grad()
        torch.manual_seed(0)
        np.random.seed(0)
        batch = cache.batch(inputs, lengths, [0, 1, 2, 3]) if kept else (inputs, lengths)
        model(*batch, labels=labels)["loss"].backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert cache.hits == 4
    assert not any("feature_extractor" in name for name in found[0])
    assert len(found[0]) > 20
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        assert all(torch.equal(other[name], gradient) for name, gradient in found[0].items())


def test_bfloat16_outputs_come_back_as_they_were(tmp_path: Path) -> None:
    encoder = frozen("wav2vec2 layer norm")
    inputs, lengths = batch_of(encoder, *SAMPLES)
    cache = FrontCache(encoder, tmp_path)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        first = cache.batch(inputs, lengths, [0, 1, 2, 3])[0]
        again = cache.batch(inputs, lengths, [0, 1, 2, 3])[0]
        assert first.dtype == again.dtype == torch.bfloat16
        assert torch.equal(first, again)
        assert cache.hits == 4
        plain, kept = encoder(inputs, lengths)[0], encoder(again, encoder.frames_of(lengths))[0]
        assert all(torch.equal(one, other) for one, other in zip(plain, kept, strict=True))


# The file


def test_the_limit_holds_and_what_is_beyond_it_is_computed_anew(tmp_path: Path) -> None:
    encoder = frozen("wav2vec2 group norm")
    inputs, lengths = batch_of(encoder, *SAMPLES)
    one = int(encoder.frames_of(lengths)[0]) * 16 * 4
    cache = FrontCache(encoder, tmp_path, limit=one + 100)
    first = cache.batch(inputs, lengths, [0, 1, 2, 3])[0]
    assert torch.equal(first, cache.batch(inputs, lengths, [0, 1, 2, 3])[0])
    assert (cache.hits, cache.misses) == (1, 7)
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_a_full_disk_is_told_once_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 0:
                raise OSError(28, "No space left on device")
            return super().write(data)

    monkeypatch.setattr(front_module.tempfile, "TemporaryFile", lambda **settings: Full())
    encoder, said = frozen("wav2vec2 group norm"), []
    inputs, lengths = batch_of(encoder, *SAMPLES)
    cache = FrontCache(encoder, tmp_path, report=said.append)
    first = cache.batch(inputs, lengths, [0, 1, 2, 3])[0]
    assert torch.equal(first, cache.batch(inputs, lengths, [0, 1, 2, 3])[0])
    assert (cache.hits, cache.misses) == (1, 7)
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert "the same results" in said[0]


def test_clips_without_a_key_are_not_kept(tmp_path: Path) -> None:
    encoder = frozen("wav2vec2 group norm")
    inputs, lengths = batch_of(encoder, *SAMPLES)
    cache = FrontCache(encoder, tmp_path)
    for _ in range(2):
        cache.batch(inputs, lengths, [None, 1, None, 3])
    assert (cache.hits, cache.misses) == (2, 6)


# Whole runs

WAVE_MODEL: dict[str, Any] = {"encoder": {"kind": "random", "config": MODELS["hubert"]}, "freeze": {"cnn": True}}
TRAINING = {"epochs": 2, "learning_rate": 1e-3}


@pytest.fixture
def caches(monkeypatch: pytest.MonkeyPatch) -> list[FrontCache]:
    """Every cache that trainings use."""
    made: list[FrontCache] = []
    build = loop.SerTrainer.__init__

    def noted(self: Any, *args: Any, **keys: Any) -> None:
        build(self, *args, **keys)
        made.append(self.front)

    monkeypatch.setattr(loop.SerTrainer, "__init__", noted)
    return made


def test_a_run_has_the_same_bytes_with_all_outputs_kept_some_or_none(
    project: Any,
    small_corpus: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caches: list[FrontCache],
) -> None:
    file = project(seeds=[0], model=WAVE_MODEL, training=TRAINING, train=[small_corpus])

    def train(name: str, *flags: str) -> dict[str, bytes]:
        monkeypatch.setenv("SER_RUNS", str(tmp_path / name))
        assert ser("train", file, "--device", "cpu", *flags) == 0
        return outcome(tmp_path / name)

    whole = train("whole")
    record = run_folder.read_json(next((tmp_path / "whole").rglob("run.json")))
    kept = record["n_clips"]["train"] + record["n_clips"]["validation"]
    assert (caches[-1].hits, caches[-1].misses) == (kept, kept)
    assert train("workers", "--loader-workers", "2") == whole
    monkeypatch.setattr(front_module.FrontCache.__init__, "__kwdefaults__", {"limit": 1 << 16, "report": print})
    assert train("small") == whole
    assert 0 < caches[-1].hits < kept
    monkeypatch.setattr(front_module.FrontCache.__init__, "__kwdefaults__", {"limit": 0, "report": print})
    assert train("off") == whole
    assert caches[-1].hits == 0


def test_a_killed_run_ends_with_the_same_bytes(
    project: Any, small_corpus: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project(seeds=[0], model=WAVE_MODEL, training=TRAINING, train=[small_corpus])
    assert ser("train", file, "--device", "cpu") == 0
    whole = outcome(tmp_path / "runs")
    monkeypatch.setenv("SER_RUNS", str(tmp_path / "killed"))
    with killed_before(1):
        ser("train", file, "--device", "cpu")
    assert ser("train", file, "--device", "cpu") == 0
    assert outcome(tmp_path / "killed") == whole


def test_augmented_clips_are_heard_anew(
    project: Any, small_corpus: dict[str, str], tmp_path: Path, caches: list[FrontCache]
) -> None:
    noise = {"module": "audiomentations", "class": "AddGaussianSNR"}
    augmentation = {"name": "noise", "mode": "on_the_fly", "probability": 1.0, "transforms": {"noise": noise}}
    file = project(seeds=[0], model=WAVE_MODEL, training=TRAINING, train=[small_corpus], augmentations=[augmentation])
    assert ser("train", file, "--device", "cpu") == 0
    record = run_folder.read_json(next((tmp_path / "runs").rglob("run.json")))
    assert caches[-1].hits == record["n_clips"]["validation"]


def test_a_loaded_model_predicts_what_the_run_did(tmp_path: Path) -> None:
    model = make("hubert")
    model.save(tmp_path)
    inputs, lengths = batch_of(model.encoder, *SAMPLES)
    cache, loaded = FrontCache(model.encoder, tmp_path / "cache"), SerModel.load(tmp_path)
    with torch.inference_mode():
        kept = model.eval()(*cache.batch(inputs, lengths, [0, 1, 2, 3]))["logits"]
        assert torch.equal(loaded(inputs, lengths)["logits"], kept)
