"""Every encoder family: loading, features, and the independence of a clip from its batch mates."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel
from transformers.models.moonshine.modeling_moonshine import MoonshineEncoder as HubMoonshine
from transformers.models.whisper.modeling_whisper import WhisperModel

from ser_scripts.errors import BadInput
from ser_scripts.modeling.encoders import build_encoder
from ser_scripts.modeling.families import FAMILIES, Encoder
from ser_scripts.modeling.masking import masked_group_norm, receptive_field
from ser_scripts.modeling.places import resolve
from ser_scripts.modeling.pooling import masked_mean
from ser_scripts.specs.model import PretrainedEncoder, RandomEncoder

WAVE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": [16, 16, 16],
    "conv_kernel": [10, 3, 3],
    "conv_stride": [5, 4, 4],
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_feat_extract_layers": 3,
}
PRE_NORM = {**WAVE, "do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
BERT = {
    "model_type": "wav2vec2-bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "wav2vec2 group norm": {"model_type": "wav2vec2", **WAVE},
    "wav2vec2 layer norm": {"model_type": "wav2vec2", **PRE_NORM},
    "hubert group norm": {"model_type": "hubert", **WAVE},
    "hubert layer norm": {"model_type": "hubert", **PRE_NORM},
    "hubert position batch norm": {"model_type": "hubert", **WAVE, "conv_pos_batch_norm": True},
    "wavlm group norm": {"model_type": "wavlm", **WAVE},
    "wavlm layer norm": {"model_type": "wavlm", **PRE_NORM},
    "unispeech": {"model_type": "unispeech", **WAVE},
    "unispeech-sat": {"model_type": "unispeech-sat", **PRE_NORM},
    "data2vec-audio": {
        "model_type": "data2vec-audio",
        **{key: value for key, value in WAVE.items() if key != "num_feat_extract_layers"},
        "num_conv_pos_embeddings": 3,
        "conv_pos_kernel_size": 7,
    },
    "sew": {"model_type": "sew", **WAVE, "squeeze_factor": 2},
    "wav2vec2-bert": BERT,
    "wav2vec2-bert relative": {**BERT, "position_embeddings_type": "relative"},
    "wav2vec2-bert rotary": {**BERT, "position_embeddings_type": "rotary", "add_adapter": True},
    "wav2vec2-conformer relative": {
        "model_type": "wav2vec2-conformer",
        **WAVE,
        "feat_extract_norm": "layer",
        "position_embeddings_type": "relative",
    },
    "wav2vec2-conformer rotary": {
        "model_type": "wav2vec2-conformer",
        **WAVE,
        "position_embeddings_type": "rotary",
    },
    "whisper": {
        "model_type": "whisper",
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "num_mel_bins": 80,
    },
    "whisper windows": {
        "model_type": "whisper",
        "d_model": 32,
        "encoder_layers": 2,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "max_source_positions": 40,
    },
    "moonshine": {
        "model_type": "moonshine",
        "hidden_size": 32,
        "intermediate_size": 48,
        "encoder_num_hidden_layers": 2,
        "encoder_num_attention_heads": 4,
        "encoder_num_key_value_heads": 4,
    },
}
SAMPLES = (150, 1800, 9999, 16000, 33333)


def random_encoder(name: str) -> Encoder:
    torch.manual_seed(0)
    encoder = build_encoder(RandomEncoder(kind="random", config=CONFIGS[name]), models=None)
    with torch.no_grad():  # biases and norms start at 0 and 1, where a leak through them would not show
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for key, buffer in encoder.named_buffers():
            if key.endswith("running_mean"):
                buffer.add_(torch.randn_like(buffer))
    return encoder.eval()


def random_clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(rng.standard_normal(size) * rng.uniform(0.01, 0.3)).astype(np.float32) for size in SAMPLES]


def deviation(encoder: Encoder, clips: list[np.ndarray]) -> float:
    """The largest difference of a clip's mean hidden states (of every layer) between alone and in a batch."""
    features = [encoder.features(clip) for clip in clips]
    batch = encoder.collate(features)
    worst = 0.0
    with torch.inference_mode():
        states, mask = encoder(**batch)
        for row, item in enumerate(features):
            alone, alone_mask = encoder(**encoder.collate([item]))
            assert int(alone_mask.sum()) == int(mask[row].sum()) == encoder.num_frames(len(item)) >= 1
            assert len(alone) == len(states) == encoder.num_layers + 1
            for one, many in zip(alone, states, strict=True):
                assert one.shape[1] == alone_mask.shape[1]
                difference = masked_mean(one, alone_mask)[0] - masked_mean(many, mask)[row]
                worst = max(worst, float(difference.abs().max()))
    return worst


@pytest.mark.parametrize("name", CONFIGS)
def test_a_clip_gives_the_same_alone_and_in_any_batch(name: str) -> None:
    assert deviation(random_encoder(name), random_clips()) < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_what_stands_in_the_padding_does_not_matter(name: str) -> None:
    encoder = random_encoder(name)
    batch = encoder.collate([encoder.features(clip) for clip in random_clips()])
    noisy = batch["inputs"].clone()
    for row, length in zip(noisy, batch["lengths"], strict=True):
        row[length:] = 3 * torch.randn_like(row[length:])
    with torch.inference_mode():
        (clean, mask), (other, _) = encoder(**batch), encoder(noisy, batch["lengths"])
    torch.testing.assert_close(clean[-1][mask], other[-1][mask], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in CONFIGS if not name.startswith(("whisper", "moonshine", "sew"))])
def test_a_lone_clip_gives_what_transformers_gives(name: str) -> None:
    encoder = random_encoder(name)
    batch = encoder.collate([encoder.features(random_clips()[3])])
    with torch.inference_mode():
        states, _ = encoder(**batch)
        whole = encoder.model(batch["inputs"], output_hidden_states=True)
    torch.testing.assert_close(states[-1], whole.last_hidden_state, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states[1], whole.hidden_states[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states[0], whole.hidden_states[0], atol=1e-5, rtol=1e-5)


def test_a_lone_clip_gives_what_transformers_gives_for_moonshine_sew_and_a_full_whisper_window() -> None:
    moonshine = random_encoder("moonshine")
    batch = moonshine.collate([moonshine.features(random_clips()[3])])
    with torch.inference_mode():
        expected = moonshine.model(batch["inputs"]).last_hidden_state
        torch.testing.assert_close(moonshine(**batch)[0][-1], expected, atol=1e-5, rtol=1e-5)

        sew = random_encoder("sew")
        batch = sew.collate([sew.features(random_clips()[3])])
        states, mask = sew(**batch)
        expected = sew.model(batch["inputs"]).last_hidden_state[:, : mask.shape[1]]
        torch.testing.assert_close(states[-1], expected, atol=1e-5, rtol=1e-5)

        whisper = random_encoder("whisper windows")
        batch = whisper.collate([whisper.features(random_clips()[4][: 80 * 160])])
        expected = whisper.model(batch["inputs"].transpose(1, 2)).last_hidden_state
        torch.testing.assert_close(whisper(**batch)[0][-1], expected, atol=1e-5, rtol=1e-5)


def test_whisper_averages_overlapping_windows() -> None:
    """40 positions, a hop of 26: a clip of 60 frames is windows [0, 40) and [26, 60)."""
    encoder = random_encoder("whisper windows")
    batch = encoder.collate([encoder.features(random_clips()[4][: 120 * 160])])
    with torch.inference_mode():
        (state, mask), (frames, _) = encoder(**batch), encoder.embed(**batch)
        positions = encoder.model.embed_positions.weight
        parts = []
        for start, stop in ((0, 40), (26, 60)):
            hidden = (frames[:, start:stop] + positions[: stop - start]).clone()
            for layer in encoder.layers:
                hidden = layer(hidden, attention_mask=None)
            parts.append(encoder.model.layer_norm(hidden)[0])
    assert mask.sum() == 60
    torch.testing.assert_close(state[-1][0, :26], parts[0][:26], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state[-1][0, 26:40], (parts[0][26:] + parts[1][:14]) / 2, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(state[-1][0, 40:], parts[1][14:], atol=1e-5, rtol=1e-5)


def test_whisper_is_not_padded_to_thirty_seconds() -> None:
    encoder = random_encoder("whisper")
    assert encoder.features(np.ones(16000, dtype=np.float32)).shape == (100, 80)
    assert encoder.num_frames(100) == 50
    assert encoder.num_frames(101) == 51


def test_features_are_normalised_per_clip_before_padding() -> None:
    encoder = random_encoder("wav2vec2 group norm")
    loud = encoder.features(10 * random_clips()[2] + 1)
    assert abs(loud.mean()) < 1e-5
    assert abs(loud.std() - 1) < 1e-3
    batch = encoder.collate([loud, encoder.features(random_clips()[4])])
    assert batch["lengths"].tolist() == [9999, 33333]
    assert batch["inputs"][0, 9999:].abs().max() == 0
    np.testing.assert_array_equal(batch["inputs"][0, :9999].numpy(), loud)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_shortest_clip_is_one_sample(name: str) -> None:
    encoder = random_encoder(name)
    one = encoder.features(np.array([0.5], dtype=np.float32))
    assert encoder.num_frames(len(one)) >= 1
    with torch.inference_mode():
        states, mask = encoder(**encoder.collate([one]))
    assert mask.any()
    assert bool(torch.isfinite(states[-1][mask]).all())


def test_published_layouts_have_the_documented_shortest_clip() -> None:
    assert receptive_field([10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]) == 400
    assert receptive_field([127, 7, 3], [64, 3, 2]) == 895


@pytest.mark.parametrize("shape", [(0,), (2, 100)])
def test_a_clip_that_is_not_mono_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="mono"):
        random_encoder("moonshine").features(np.zeros(shape, dtype=np.float32))


def test_masked_group_norm_is_group_norm_on_whole_clips_and_ignores_padding() -> None:
    torch.manual_seed(0)
    norm = torch.nn.GroupNorm(2, 6)
    norm.weight.data.normal_()
    hidden, mask = torch.randn(3, 6, 11), torch.ones(3, 11, dtype=torch.bool)
    torch.testing.assert_close(masked_group_norm(hidden, mask, norm), norm(hidden), atol=1e-6, rtol=1e-6)
    mask[1, 4:] = False
    hidden[1, :, 4:] = 1e4
    torch.testing.assert_close(
        masked_group_norm(hidden, mask, norm)[1:2, :, :4], norm(hidden[1:2, :, :4]), atol=1e-5, rtol=1e-5
    )


def test_last_layer_stops_early() -> None:
    for name in ("whisper", "wav2vec2 layer norm", "sew"):
        encoder = random_encoder(name)
        batch = encoder.collate([encoder.features(clip) for clip in random_clips()])
        with torch.inference_mode():
            every, mask = encoder(**batch)
            some, _ = encoder(**batch, last_layer=1)
        assert len(some) == 2
        torch.testing.assert_close(some[1][mask], every[1][mask])


def test_random_weights_follow_the_caller_s_seed_alone() -> None:
    spec = RandomEncoder(kind="random", config=CONFIGS["moonshine"])

    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        weight: torch.Tensor = build_encoder(spec, models=None).layer_parameters(0)[0]
        return weight

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


def test_spec_augment_and_layer_drop_act_in_training_mode_and_follow_the_seeds() -> None:
    encoder = random_encoder("hubert group norm")
    encoder.config.layerdrop = 0.5
    batch = encoder.collate([encoder.features(clip) for clip in random_clips()])

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        np.random.seed(seed)
        out: torch.Tensor = encoder(**batch)[0][-1]
        return out

    encoder.train()
    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    assert bool(run(3).isfinite().all())


# Loading


def save_encoder(folder: Path, name: str, prefix: str = "", **more: torch.Tensor) -> Encoder:
    encoder = random_encoder(name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(encoder.config.to_dict()))
    encoder.extractor.save_pretrained(str(folder))
    weights = {prefix + key: value.contiguous() for key, value in encoder.model.state_dict().items()}
    save_file(weights | more, folder / "model.safetensors")
    return encoder


def same_weights(one: Encoder, other: Encoder) -> bool:
    left, right = one.model.state_dict(), other.model.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key].float()) for key in left)


@pytest.mark.parametrize(
    ("name", "prefix", "more"),
    [
        ("whisper", "", {}),
        ("whisper", "encoder.", {"projector.weight": torch.ones(3)}),
        ("whisper", "model.encoder.", {"model.decoder.layers.0.fc1.weight": torch.ones(3)}),
        ("moonshine", "model.encoder.", {"model.decoder.layers.0.mlp.fc1.weight": torch.ones(3)}),
        ("hubert layer norm", "hubert.", {"lm_head.weight": torch.ones(3)}),
        ("wav2vec2 group norm", "", {"quantizer.codevectors": torch.ones(3), "project_q.bias": torch.ones(3)}),
        ("wav2vec2-bert", "", {"adapter.layers.0.ffn.weight": torch.ones(3)}),
        ("sew", "sew.", {}),
    ],
)
def test_every_file_layout_loads(tmp_path: Path, name: str, prefix: str, more: dict[str, torch.Tensor]) -> None:
    saved = save_encoder(tmp_path, name, prefix, **more)
    loaded = build_encoder(PretrainedEncoder(model_path_or_name=str(tmp_path)), models=None).eval()
    assert same_weights(loaded, saved)
    batch = saved.collate([saved.features(random_clips()[3])])
    with torch.inference_mode():
        assert torch.equal(loaded(**batch)[0][-1], saved(**batch)[0][-1])


def test_old_weight_norm_names_shards_and_bin_files_load(tmp_path: Path) -> None:
    saved = save_encoder(tmp_path, "hubert layer norm")
    spec = PretrainedEncoder(model_path_or_name=str(tmp_path))
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    conv = "encoder.pos_conv_embed.conv"
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        weights[f"{conv}.{old}"] = weights.pop(f"{conv}.parametrizations.weight.{new}")
    torch.save(weights, tmp_path / "pytorch_model.bin")
    assert same_weights(build_encoder(spec, models=None), saved)

    half = len(weights) // 2
    names = sorted(weights)
    parts = {"a.safetensors": names[:half], "b.safetensors": names[half:]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert same_weights(build_encoder(spec, models=None), saved)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(BadInput, match=r"b\.safetensors"):
        build_encoder(spec, models=None)


def test_a_bin_file_that_runs_code_is_refused(tmp_path: Path) -> None:
    save_encoder(tmp_path, "moonshine")
    (tmp_path / "model.safetensors").unlink()
    torch.save({"conv1.weight": Path("x")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(BadInput, match="plain weights"):
        build_encoder(PretrainedEncoder(model_path_or_name=str(tmp_path)), models=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("layers.1.fc1.weight"), r"missing: layers\.1\.fc1\.weight"),
        (lambda weights: weights.update({"layers.2.fc1.weight": torch.ones(2)}), r"unexpected: layers\.2\.fc1\.weight"),
        (lambda weights: weights.update({"conv2.bias": torch.ones(2)}), r"another shape: conv2\.bias \(2,\) for"),
        (lambda weights: weights.pop("conv1.weight"), r"'conv1\.weight', it is missing"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, change: Any, message: str) -> None:
    save_encoder(tmp_path, "whisper")
    weights = load_file(tmp_path / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(BadInput, match=message):
        build_encoder(PretrainedEncoder(model_path_or_name=str(tmp_path)), models=None)


def test_a_missing_spec_augment_fill_becomes_zeros_and_is_said(tmp_path: Path, caplog: Any) -> None:
    save_encoder(tmp_path, "hubert layer norm")
    weights = load_file(tmp_path / "model.safetensors")
    del weights["masked_spec_embed"]
    save_file(weights, tmp_path / "model.safetensors")
    loaded = build_encoder(PretrainedEncoder(model_path_or_name=str(tmp_path)), models=None)
    assert loaded.model.masked_spec_embed.abs().sum() == 0
    assert "masked_spec_embed" in caplog.text


def test_loading_draws_nothing_and_casts(tmp_path: Path) -> None:
    save_encoder(tmp_path, "whisper")
    halves = {key: value.half() for key, value in load_file(tmp_path / "model.safetensors").items()}
    save_file(halves, tmp_path / "model.safetensors")
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    loaded = build_encoder(PretrainedEncoder(model_path_or_name=str(tmp_path)), models=None)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    spec = PretrainedEncoder(model_path_or_name=str(tmp_path), dtype="bfloat16")
    half = build_encoder(spec, models=None).eval()
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert half(**half.collate([half.features(random_clips()[2])]))[0][-1].dtype == torch.bfloat16


def test_a_file_missing_from_the_folder_is_named(tmp_path: Path) -> None:
    spec = PretrainedEncoder(model_path_or_name=str(tmp_path))
    with pytest.raises(BadInput, match=r"config\.json"):
        build_encoder(spec, models=None)
    save_encoder(tmp_path, "moonshine")
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(BadInput, match=r"preprocessor_config\.json"):
        build_encoder(spec, models=None)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BadInput, match=r"no weights.*model\.safetensors"):
        build_encoder(spec, models=None)


def test_resolve_looks_at_the_path_then_below_ser_models_then_names_the_hub(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    models = tmp_path / "models"
    (models / "some" / "encoder").mkdir(parents=True)
    assert resolve("some/encoder", revision=None, models=models) == models / "some" / "encoder"
    assert resolve("some/encoder", revision=None, models=None) == "some/encoder"
    (tmp_path / "some" / "encoder").mkdir(parents=True)
    assert resolve("some/encoder", revision=None, models=models) == Path("some/encoder")
    for wrong in ("/no/such/folder", "./here", "a/b/c"):
        with pytest.raises(BadInput, match="no hub id"):
            resolve(wrong, revision=None, models=models)


def test_an_encoder_that_is_nowhere_names_every_place_and_the_way_to_get_it(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    spec = PretrainedEncoder(model_path_or_name="nobody/nothing", revision="v1")
    with pytest.raises(BadInput) as caught:
        build_encoder(spec, models=tmp_path)
    text = str(caught.value)
    for part in ("v1", str(tmp_path / "nobody/nothing"), "SER_MODELS", "HF_HUB_OFFLINE", "hf download nobody/nothing"):
        assert part in text


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "bert"}, "'bert' is not supported"),
        ({"model_type": "huberd"}, "did you mean 'hubert'"),
        ({**CONFIGS["whisper"], "encoder_layer": 3}, "did you mean 'encoder_layers'"),
        ({**CONFIGS["whisper"], "encoder_attention_heads": 5}, "not a valid whisper configuration"),
    ],
)
def test_a_wrong_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build_encoder(RandomEncoder(kind="random", config=config), models=None)


def test_every_family_is_covered_here() -> None:
    elsewhere = {"clap_audio_model"}  # test_clap.py: clips of one length, so other questions
    assert {config["model_type"] for config in CONFIGS.values()} | elsewhere == set(FAMILIES)


def test_automodel_classes_are_what_is_built() -> None:
    for name in ("wav2vec2 layer norm", "wavlm layer norm", "wav2vec2-bert"):
        encoder = random_encoder(name)
        assert type(encoder.model) is type(AutoModel.from_config(encoder.config))


# Real encoders and speech

REAL = ("openai/whisper-tiny.en", "openai/whisper-base", "UsefulSensors/moonshine-tiny")


def emodb_clips(ser_data: Path, count: int) -> list[np.ndarray]:
    files = sorted((ser_data / "emodb").rglob("*.flac"))[:: 535 // count][:count]
    return [soundfile.read(file, dtype="float32")[0] for file in files]


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_speech_gives_the_same_alone_and_in_a_batch(name: str, ser_data: Path, ser_models: Path) -> None:
    encoder = build_encoder(PretrainedEncoder(model_path_or_name=name), models=ser_models).eval()
    clips = emodb_clips(ser_data, 5)
    clips[0], clips[1] = clips[0][:4000], np.tile(clips[1], 3)
    assert deviation(encoder, clips) < 1e-4
    assert len(str(encoder.identity()["sha256"])) == 64


@pytest.mark.real
def test_real_weights_are_those_that_transformers_loads(ser_models: Path) -> None:
    spec = PretrainedEncoder(model_path_or_name="openai/whisper-tiny.en")
    ours = build_encoder(spec, models=ser_models)
    theirs = load_file(ser_models / "openai/whisper-tiny.en/model.safetensors")
    for name, weight in ours.model.state_dict().items():
        assert torch.equal(weight, theirs[f"encoder.{name}"].float())
    folder = ser_models / "UsefulSensors/moonshine-tiny"
    hub = HubMoonshine.from_pretrained(str(folder), dtype=torch.float32).eval()
    ours = build_encoder(PretrainedEncoder(model_path_or_name="UsefulSensors/moonshine-tiny"), models=ser_models).eval()
    batch = ours.collate([ours.features(random_clips()[3])])
    with torch.inference_mode():
        torch.testing.assert_close(ours(**batch)[0][-1], hub(batch["inputs"]).last_hidden_state, atol=1e-4, rtol=1e-4)


@pytest.mark.real
def test_the_full_hub_layout_of_whisper_loads(ser_models: Path, tmp_path: Path) -> None:
    spec = PretrainedEncoder(model_path_or_name="openai/whisper-tiny.en")
    alone = build_encoder(spec, models=ser_models)
    whole = WhisperModel(alone.config)
    whole.encoder.load_state_dict(alone.model.state_dict())
    whole.save_pretrained(tmp_path)
    alone.extractor.save_pretrained(str(tmp_path))
    loaded = build_encoder(PretrainedEncoder(model_path_or_name=str(tmp_path)), models=None)
    assert same_weights(loaded, alone)
    assert not any("decoder" in name for name in loaded.state_dict())
