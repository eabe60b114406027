"""What of every shipped model is trained: its head always, its frozen parts never.

The best model of an earlier study had its new classifier random and frozen, since nobody looked.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ser_scripts.modeling.encoders import build_encoder
from ser_scripts.modeling.model import SerModel
from ser_scripts.runs.plan import load_model
from ser_scripts.specs.model import ModelSpec, PretrainedEncoder, RandomEncoder
from ser_scripts.specs.spectrogram import SMALL, SpectrogramEncoder
from ser_scripts.training.heads import Frames, HeadJob, train_heads

MODELS = sorted((Path(__file__).parents[1] / "models").glob("*.json"))
WAVE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8, 8],
    "conv_kernel": [10, 3],
    "conv_stride": [5, 2],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
STAND_INS: dict[str, dict[str, Any]] = {
    "whisper": {
        "model_type": "whisper",
        "d_model": 16,
        "encoder_layers": 3,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 24,
        "num_mel_bins": 80,
    },
    "hubert": {"model_type": "hubert", **WAVE},
    "wavlm": {"model_type": "wavlm", **WAVE},
    "w2v-bert": {
        "model_type": "wav2vec2-bert",
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 24,
    },
    "wav2vec2": {"model_type": "wav2vec2", **WAVE},
    "moonshine": {
        "model_type": "moonshine",
        "hidden_size": 16,
        "intermediate_size": 24,
        "encoder_num_hidden_layers": 3,
        "encoder_num_attention_heads": 2,
        "encoder_num_key_value_heads": 2,
    },
}
"""Part of a hub id -> a small encoder of the same family."""


def built(spec: ModelSpec) -> SerModel:
    """The model with random weights, pretrained speech encoders as small ones of their family."""
    encoder = spec.encoder
    if isinstance(encoder, PretrainedEncoder):
        name = encoder.model_path_or_name.lower()
        known = [config for part, config in STAND_INS.items() if part in name]
        assert known, f"no stand-in for {name}: add one to STAND_INS"
        encoder = RandomEncoder(kind="random", config=known[0])
    elif isinstance(encoder, SpectrogramEncoder):
        small = {} if encoder.backbone == SMALL else {"mels": 96, "frames": 80}
        features = encoder.features.model_copy(update=small)
        encoder = encoder.model_copy(update={"weights": None, "revision": None, "features": features})
    torch.manual_seed(0)
    return SerModel(spec, ("angry", "happy", "sad"), encoder=build_encoder(encoder, models=None))


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_of_every_shipped_model_the_head_is_trained_and_what_is_frozen_is_not(file: Path) -> None:
    spec, _ = load_model(file)
    if not isinstance(spec, ModelSpec):
        pytest.skip("not trained by gradients")
    if isinstance(spec.encoder, PretrainedEncoder) and spec.encoder.model_path_or_name.startswith("m-a-p/"):
        pytest.skip("its code comes with its weights, which are not here: test_remote_code.py has a stand-in for both")
    if spec.frozen:
        _every_weight_of_the_head_moves(spec)
        return
    encoder = spec.encoder
    if isinstance(encoder, SpectrogramEncoder) and encoder.backbone != SMALL and find_spec("timm") is None:
        pytest.skip("needs timm")
    model = built(spec).train()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    inside = {name for name, _ in model.named_parameters() if name.startswith("encoder.")}
    outside = {name for name, _ in model.named_parameters()} - inside
    ratings_only = spec.ratings is not None and spec.ratings.only
    if ratings_only:  # there are no classes to tell apart, so that the head of the classes has no loss
        outside = {name for name in outside if not name.startswith("head.")}
    assert any(name.startswith("rating_head." if ratings_only else "head.") for name in outside)
    assert outside <= trained, f"random and frozen: {sorted(outside - trained)}"

    frozen: set[int] = set()
    every = {id(parameter) for parameter in model.encoder.parameters()}
    if spec.adapter is not None:
        own = (".lora_A.", ".lora_B.", ".ia3_l.")
        frozen = {id(p) for name, p in model.encoder.named_parameters() if not any(part in name for part in own)}
        assert frozen != every
    elif spec.freeze.encoder:
        frozen = every
    elif spec.freeze.all_but_last is not None:
        count = spec.freeze.all_but_last
        last = model.encoder.freezable(model.depth)[-count:] if count else []
        frozen = every - {id(parameter) for module in last for parameter in module.parameters()}
    elif spec.freeze.cnn:
        frozen = {id(parameter) for parameter in model.encoder.front_end_parameters()}
    if spec.freeze.gradual is not None:
        frozen = every  # at the start
    wanted = {name for name, parameter in model.named_parameters() if name in inside and id(parameter) not in frozen}
    if model.encoder.config.to_dict()["model_type"] == "whisper":
        wanted.discard("encoder.model.embed_positions.weight")  # Whisper's sines are no weights
    if model.depth == model.encoder.num_layers:
        assert trained & inside == wanted
    else:
        assert trained & inside <= wanted

    if ratings_only:
        return
    # What is said to be trained gets a gradient, and nothing else does.
    one = torch.randn(16_000, generator=torch.Generator().manual_seed(0)).numpy()
    batch = model.encoder.collate([model.encoder.features(0.1 * one), model.encoder.features(0.2 * one[:9000])])
    model(**batch, labels=torch.tensor([0, 1]))["loss"].backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient <= trained
    assert outside <= with_gradient
    assert bool(trained & inside) == bool(with_gradient & inside)


HEADS = {
    "linear": {"w", "b"},
    "mlp": {"w1", "b1", "w", "b"},
    "frame_mlp": {"w1", "b1", "norm_w", "norm_b", "w", "b"},
}
"""What is trained over a frozen encoder, whose weights are not there at all."""


def _every_weight_of_the_head_moves(spec: ModelSpec) -> None:
    random = np.random.default_rng(0)
    table = random.normal(size=(12, 3, 8)).astype(np.float32)
    frames = Frames(random.normal(size=(60, 8)).astype(np.float16), np.arange(0, 61, 5))
    layer = None if spec.layers.use == "weighted" else 0
    job = HeadJob(0, np.arange(8), np.arange(8, 12), np.ones(3, dtype=np.float32), layer=layer, learning_rate=0.1)
    labels = np.arange(12) % 3
    found = []
    for epochs in (1, 2):
        training = spec.training.model_copy(
            update={
                "epochs": epochs,
                "select": "last",
                "early_stopping": None,
                "batch_size": 4,
                "scheduler": "constant",
            }
        )
        inputs = frames if spec.head.kind == "frame_mlp" else table
        (trained,) = train_heads(inputs, labels, 3, [job], head=spec.head, loss=spec.loss, training=training, workers=1)
        found.append({name: value for name, value in trained.weights.items() if name not in ("mean", "scale")})
    norms = {"norm_w", "norm_b"} if spec.head.layer_norm else set()
    assert found[0].keys() == HEADS[spec.head.kind] | norms | ({"layer_weights"} if layer is None else set())
    still = [name for name, value in found[0].items() if np.array_equal(value, found[1][name])]
    assert not still, f"not trained: {still}"


def test_every_kind_of_freezing_is_told_apart() -> None:
    """The test above would see a head that is frozen, and a front end that is not."""
    spec, _ = load_model(next(file for file in MODELS if file.stem == "wav2vec2-base"))
    assert isinstance(spec, ModelSpec)
    model = built(spec)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert not any("feature_extractor.conv_layers" in name for name in trained)
    assert any("encoder.layers.0" in name for name in trained)
