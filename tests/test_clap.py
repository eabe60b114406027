"""The audio tower of CLAP: the same as in transformers, one length for all clips, windows beyond it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ClapAudioConfig, ClapConfig, ClapFeatureExtractor, ClapModel

from ser_scripts.errors import BadInput
from ser_scripts.modeling.encoders import build_encoder
from ser_scripts.modeling.model import SerModel
from ser_scripts.specs.model import ModelSpec, PretrainedEncoder, RandomEncoder
from ser_scripts.training.data import Clip, FeatureSource
from ser_scripts.training.loop import predict_logits

TINY: dict[str, Any] = {
    "spec_size": 64,
    "num_mel_bins": 16,
    "patch_embeds_hidden_size": 16,
    "depths": [2, 2],
    "num_attention_heads": [2, 4],
    "hidden_size": 32,
    "window_size": 4,
    "num_hidden_layers": 2,
    "hidden_dropout_prob": 0.0,
}
FORMS = {"plain": TINY, "fused": {**TINY, "enable_fusion": True, "fusion_type": "aff_2d"}}
LABELS = ("angry", "happy", "sad")


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * 48000))).astype(np.float32)


def make(form: str = "plain", **parts: Any) -> SerModel:
    encoder = {"kind": "random", "config": {"model_type": "clap_audio_model", **FORMS[form]}}
    spec = ModelSpec.model_validate({"name": "m", "encoder": encoder, **parts})
    assert isinstance(spec.encoder, RandomEncoder)
    torch.manual_seed(0)
    return SerModel(spec, LABELS, encoder=build_encoder(spec.encoder, models=None))


@pytest.fixture(params=sorted(FORMS))
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A whole CLAP model as it is published: both towers."""
    audio = ClapAudioConfig(**FORMS[request.param])
    text = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ClapConfig(text_config={**text, "vocab_size": 50}, audio_config=audio.to_dict(), projection_dim=8)
    torch.manual_seed(3)
    model = ClapModel(config)
    bands = model.audio_model.audio_encoder.batch_norm
    bands.running_mean.normal_(-30, 5)  # as a trained one
    bands.running_var.uniform_(50, 200)
    model.save_pretrained(tmp_path)
    truncation = "fusion" if audio.enable_fusion else "rand_trunc"
    ClapFeatureExtractor(
        feature_size=16, hop_length=480 * 4, truncation=truncation, padding="repeatpad"
    ).save_pretrained(tmp_path)
    return tmp_path


def test_a_clip_gives_what_transformers_gives(folder: Path) -> None:
    theirs = ClapModel.from_pretrained(folder).eval().audio_model
    extractor = ClapFeatureExtractor.from_pretrained(folder)
    encoder = build_encoder(PretrainedEncoder(model_path_or_name=str(folder)), models=None).eval()
    assert encoder.sample_rate_hz == 48000
    for seconds in (0.01, 1.7, 10.0):
        made = extractor(noise(seconds), sampling_rate=48000, return_tensors="pt")
        longer = torch.zeros(1, 1, dtype=torch.bool)  # the library calls one clip of every call longer
        with torch.inference_mode():
            expected = theirs(made["input_features"], is_longer=longer)
            states, mask = encoder(**encoder.collate([encoder.features(noise(seconds))]))
        assert mask.all()
        assert states[-1].shape == (1, encoder.num_frames(0), encoder.hidden_size) == (1, 32, 32)
        torch.testing.assert_close(states[-1].mean(dim=1), expected.pooler_output, atol=1e-5, rtol=1e-5)
        by_time = expected.last_hidden_state.mean(dim=2).transpose(1, 2)
        torch.testing.assert_close(states[-1], by_time, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_clip_is_the_same_alone_and_in_a_batch(form: str) -> None:
    model = make(form, layers={"use": "weighted"}).eval()
    state = np.random.get_state()[1].copy()
    features = [model.encoder.features(noise(seconds, seed)) for seed, seconds in enumerate((0.3, 9.0, 2.0))]
    assert np.array_equal(np.random.get_state()[1], state)
    with torch.inference_mode():
        together = model(**model.encoder.collate(features))["logits"]
        for row, item in enumerate(features):
            torch.testing.assert_close(
                model(**model.encoder.collate([item]))["logits"][0], together[row], atol=1e-5, rtol=1e-5
            )


def test_longer_clips_are_heard_in_windows() -> None:
    model = make().eval()
    assert model.encoder.takes_seconds == model.window_seconds == 10.0
    with pytest.raises(BadInput, match=r"CLAP hears 10 s at once, and a clip has 10\.50 s"):
        model.encoder.features(noise(10.5))

    class Store(dict[str, Any]):
        def num_samples(self, path: str) -> int:
            return len(self[path])

    store = Store({"long": noise(14), "short": noise(2)})
    source = FeatureSource([Clip("c", path, -1) for path in store], {"c": store}, model.encoder)  # type: ignore[arg-type]
    assert source.pieces(model.window_seconds) == [(0, 0, 480000), (0, 192000, 672000), (1, 0, 96000)]
    assert predict_logits(model, source, model.spec.training, torch.device("cpu")).shape == (2, 3)


def test_its_layers_freeze_save_and_load(tmp_path: Path) -> None:
    model = make(freeze={"all_but_last": 1})
    assert {n.split(".blocks.")[1][0] for n, p in model.named_parameters() if p.requires_grad and "blocks" in n} == {
        "1"
    }
    front = make()
    assert not any(p.requires_grad for n, p in front.named_parameters() if "patch_embed" in n or "batch_norm" in n)
    batch = front.encoder.collate([front.encoder.features(noise(1.0))])
    before = front.encoder.model.audio_encoder.batch_norm.running_mean.clone()
    front.train()(**batch, labels=torch.tensor([1]))["loss"].backward()
    assert torch.equal(front.encoder.model.audio_encoder.batch_norm.running_mean, before)
    front.eval().save(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "clap_audio_model"
    assert torch.equal(SerModel.load(tmp_path)(**batch)["logits"], front(**batch)["logits"])


@pytest.mark.parametrize("kind", ["lora", "ia3"])
def test_adapters_reach_all_stages(kind: str) -> None:
    model = make(adapter={"kind": kind}).eval()
    added = {name: p for name, p in model.encoder.named_parameters() if p.requires_grad}
    assert {name.split("layers.")[1][0] for name in added} == {"0", "1"}
    for name, parameter in added.items():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    batch = model.encoder.collate([model.encoder.features(noise(1.0)), model.encoder.features(noise(2.0, 1))])
    model(**batch, labels=torch.tensor([1, 0]))["loss"].backward()
    for name, parameter in added.items():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().sum()) > 0, name
