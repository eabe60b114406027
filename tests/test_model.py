"""The whole model: losses, layers, freezing, saving, predicting."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

from ser_scripts.errors import BadInput
from ser_scripts.modeling.encoders import build_encoder
from ser_scripts.modeling.losses import class_weights, cross_entropy, focal_loss, soft_cross_entropy
from ser_scripts.modeling.model import SerModel
from ser_scripts.specs.base import parse
from ser_scripts.specs.model import LossSpec, ModelSpec, PretrainedEncoder, RandomEncoder

LABELS = ("angry", "happy", "sad")
WAVE = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": [16, 16],
    "conv_kernel": [10, 8],
    "conv_stride": [10, 8],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "num_feat_extract_layers": 2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "hubert": {"model_type": "hubert", **WAVE},
    "wavlm": {"model_type": "wavlm", **WAVE, "do_stable_layer_norm": True, "feat_extract_norm": "layer"},
    "whisper": {
        "model_type": "whisper",
        "d_model": 32,
        "encoder_layers": 3,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
    },
    "moonshine": {
        "model_type": "moonshine",
        "hidden_size": 32,
        "intermediate_size": 48,
        "encoder_num_hidden_layers": 3,
        "encoder_num_attention_heads": 4,
        "encoder_num_key_value_heads": 4,
    },
    "wav2vec2-bert": {
        "model_type": "wav2vec2-bert",
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 48,
    },
}


def make(kind: str = "whisper", *, weights: torch.Tensor | None = None, **parts: Any) -> SerModel:
    spec = ModelSpec.model_validate({"name": "m", "encoder": {"kind": "random", "config": CONFIGS[kind]}, **parts})
    assert isinstance(spec.encoder, RandomEncoder)
    torch.manual_seed(0)
    encoder = build_encoder(spec.encoder, models=None)
    return SerModel(spec, LABELS, encoder=encoder, class_weights=weights)


def clips(*samples: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(0.1 * rng.standard_normal(size)).astype(np.float32) for size in samples or (20000, 900, 7777, 48000, 3)]


def batch_of(model: SerModel, *samples: int) -> dict[str, torch.Tensor]:
    return model.encoder.collate([model.encoder.features(clip) for clip in clips(*samples)])


# Losses


def test_class_weights_by_hand() -> None:
    torch.testing.assert_close(class_weights([6, 3, 1]), torch.tensor([10 / 18, 10 / 9, 10 / 3]))
    with pytest.raises(BadInput, match=r"number 1 .*\[6, 0, 1\]"):
        class_weights([6, 0, 1])


@given(counts=st.lists(st.integers(1, 500), min_size=2, max_size=8))
def test_the_mean_weight_over_the_training_clips_is_one(counts: list[int]) -> None:
    weights = class_weights(counts).double()
    assert float((weights * torch.tensor(counts)).sum() / sum(counts)) == pytest.approx(1, abs=1e-5)
    assert float((weights * torch.tensor(counts)).std()) == pytest.approx(0, abs=1e-3)


def test_cross_entropy_by_hand() -> None:
    logits, labels = torch.tensor([[2.0, 0.0], [0.0, 1.0]]).log_softmax(1), torch.tensor([0, 0])
    first, second = -float(logits[0, 0]), -float(logits[1, 0])
    assert float(cross_entropy(logits, labels)) == pytest.approx((first + second) / 2)
    weights = torch.tensor([3.0, 1.0])
    assert float(cross_entropy(logits, labels, weights=weights)) == pytest.approx(3 * (first + second) / 2)
    smooth = [0.9 * loss + 0.1 * float(-row.mean()) for loss, row in zip((first, second), logits, strict=True)]
    assert float(cross_entropy(logits, labels, label_smoothing=0.1)) == pytest.approx(sum(smooth) / 2)
    assert float(cross_entropy(logits, labels, num_items=8)) == pytest.approx((first + second) / 8)


def test_focal_loss_by_hand() -> None:
    # logits whose softmax is (0.9, 0.1) and (0.2, 0.8); labels 0 and 0
    logits, labels = torch.tensor([[0.9, 0.1], [0.2, 0.8]], dtype=torch.float64).log(), torch.tensor([0, 0])
    first, second = 0.1**2 * 0.10536051565782628, 0.8**2 * 1.6094379124341003  # (1 - p)^2 x -ln p
    assert float(focal_loss(logits, labels, gamma=2)) == pytest.approx((first + second) / 2, rel=1e-12)
    assert float(focal_loss(logits, labels, gamma=2)) == pytest.approx(0.5155469345572011, rel=1e-12)
    assert float(focal_loss(logits, labels, gamma=0.5)) == pytest.approx(
        (0.1**0.5 * 0.10536051565782628 + 0.8**0.5 * 1.6094379124341003) / 2, rel=1e-12
    )
    weights = torch.tensor([3.0, 1.0]).double()
    assert float(focal_loss(logits, labels, gamma=2, weights=weights)) == pytest.approx(1.5 * (first + second))
    other_first, other_second = 0.9**2 * 2.302585092994046, 0.2**2 * 0.2231435513142097
    smooth = [0.9 * own + 0.1 * (own + other) / 2 for own, other in ((first, other_first), (second, other_second))]
    assert float(focal_loss(logits, labels, gamma=2, label_smoothing=0.1)) == pytest.approx(sum(smooth) / 2)
    votes = torch.tensor([[0.25, 0.75], [1.0, 0.0]]).double()
    expected = (0.25 * 3 * first + 0.75 * other_first + 3 * second) / 2
    assert float(soft_cross_entropy(logits, votes, weights=weights, gamma=2)) == pytest.approx(expected)
    assert float(focal_loss(logits, labels, gamma=2, num_items=8)) == pytest.approx((first + second) / 8)


def test_focal_loss_without_gamma_is_cross_entropy_and_has_gradients_everywhere() -> None:
    torch.manual_seed(0)
    logits, labels, weights = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 0, 1]), torch.tensor([0.5, 1.0, 4.0])
    settings: dict[str, Any] = {"weights": weights, "label_smoothing": 0.1}
    torch.testing.assert_close(
        focal_loss(logits, labels, gamma=0.0, **settings), cross_entropy(logits, labels, **settings)
    )
    for gamma in (0.0, 0.5, 1.0, 2.0, 5.0):
        sure = torch.tensor([[200.0, 0.0, -200.0], [-200.0, 200.0, 0.0]], requires_grad=True)
        loss = focal_loss(sure, torch.tensor([0, 0]), gamma=gamma)
        loss.backward()
        assert sure.grad is not None
        assert bool(sure.grad.isfinite().all())
        assert float(loss.detach()) == pytest.approx(200, rel=1e-3)  # the second is wholly wrong, the first right


def test_the_loss_of_the_spec_is_taken() -> None:
    plain, focal = make(), make(loss={"kind": "focal", "gamma": 3.0})
    batch, labels = batch_of(plain), torch.tensor([0, 1, 2, 0, 1])
    logits = plain.eval()(**batch)["logits"]
    assert focal.eval()(**batch, labels=labels)["loss"] == focal_loss(logits, labels, gamma=3.0)
    votes = torch.tensor([[0.5, 0.5, 0.0]] * 5)
    expected = soft_cross_entropy(logits, votes, gamma=3.0)
    assert focal(**batch, labels=labels, targets=votes)["loss"] == expected
    assert LossSpec(kind="focal").focal_gamma == 2.0
    assert LossSpec().focal_gamma is None
    with pytest.raises(BadInput, match="'gamma' belongs to the loss 'focal'"):
        parse(LossSpec, {"gamma": 1.0}, source="m.json", kind="loss")


def test_a_loss_is_the_mean_of_its_clips_whatever_batch_they_are_in() -> None:
    torch.manual_seed(0)
    logits, labels, weights = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 0, 1]), torch.tensor([0.5, 1.0, 4.0])
    whole = cross_entropy(logits, labels, weights=weights)
    parts = [cross_entropy(logits[i : i + 1], labels[i : i + 1], weights=weights) for i in range(6)]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_accumulated_batches_give_the_loss_of_the_whole_update() -> None:
    model = make(head={"l2": 0.01}, weights=torch.tensor([0.5, 1.0, 4.0])).train()
    batch, labels = batch_of(model), torch.tensor([0, 1, 2, 0, 1])
    whole = model(**batch, labels=labels)["loss"]
    parts = []
    for rows in ([0, 1, 2, 3], [4]):
        part = model.encoder.collate([model.encoder.features(clips()[row]) for row in rows])
        parts.append(model(**part, labels=labels[rows], num_items_in_batch=torch.tensor(5))["loss"])
    torch.testing.assert_close(whole, torch.stack(parts).sum(), atol=1e-6, rtol=1e-5)


def test_l2_adds_the_squared_head_in_training_only() -> None:
    model = make(head={"l2": 0.5})
    batch, labels = batch_of(model), torch.tensor([0, 1, 2, 0, 1])
    squares = sum(float(parameter.detach().square().sum()) for parameter in model.head.parameters())
    plain = model.eval()(**batch, labels=labels)["loss"].item()
    assert model.train()(**batch, labels=labels)["loss"].item() == pytest.approx(plain + 0.5 * squares, abs=1e-5)
    assert "loss" not in model(**batch)


# Layers and head


LAYERS: list[dict[str, Any]] = [{}, {"use": 1}, {"use": "weighted"}, {"use": "weighted", "pool_position": "before"}]


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("layers", LAYERS)
def test_logits_do_not_depend_on_the_batch(kind: str, layers: dict[str, Any]) -> None:
    model = make(kind, layers=layers, pooling={"kind": "attentive_stats"}, head={"batch_norm": True}).eval()
    with torch.inference_mode():
        together = model(**batch_of(model))["logits"]
        for row, clip in enumerate(clips()):
            alone = model(**model.encoder.collate([model.encoder.features(clip)]))["logits"]
            torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=1e-5)


def test_layer_choice_takes_the_layer_it_names() -> None:
    model = make(layers={"use": 2}, head={"relu": False}).eval()
    batch = batch_of(model)
    states, mask = model.encoder(**batch)
    pooled = (states[2] * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(model(**batch)["logits"], model.head(pooled), atol=1e-5, rtol=1e-5)
    with pytest.raises(BadInput, match=r"layers\.use: 9 is not valid.*0 to 3"):
        make(layers={"use": 9})


def test_layer_weights_are_a_softmax_that_starts_even() -> None:
    model = make(layers={"use": "weighted"}, head={"relu": False}).eval()
    batch = batch_of(model)
    states, mask = model.encoder(**batch)

    def expected(shares: list[float]) -> torch.Tensor:
        frames = sum(share * state for share, state in zip(shares, states, strict=True))
        logits: torch.Tensor = model.head(model.pooling(frames, mask))
        return logits

    torch.testing.assert_close(model(**batch)["logits"], expected([0.25] * 4), atol=1e-5, rtol=1e-5)
    assert model.layer_weights is not None
    model.layer_weights.data = torch.tensor([0.0, 100.0, 0.0, 0.0])
    torch.testing.assert_close(model(**batch)["logits"], expected([0, 1, 0, 0]), atol=1e-5, rtol=1e-5)


def test_pooling_before_weighing_differs_for_maxima_and_agrees_for_means() -> None:
    for pooling, same in (("mean", True), ("max", False)):
        models = [
            make(layers={"use": "weighted", "pool_position": position}, pooling={"kind": pooling}).eval()
            for position in ("before", "after")
        ]
        before, after = (model(**batch_of(model))["logits"] for model in models)
        assert torch.allclose(before, after, atol=1e-5) is same


def test_the_head_has_the_steps_of_its_spec() -> None:
    steps = [type(step).__name__ for step in make(head={"batch_norm": True, "dropout": 0.2}).head]
    assert steps == ["ReLU", "BatchNorm", "Dropout", "Linear"]
    assert [type(step).__name__ for step in make(head={"relu": False}).head] == ["Linear"]


def test_a_head_between_two_linear_layers() -> None:
    head = {"kind": "mlp", "hidden": 32, "activation": "relu", "dropout": 0.3}
    assert [type(step).__name__ for step in make(head=head).head] == ["Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert [type(step).__name__ for step in make(head={"kind": "mlp"}).head] == ["Linear", "GELU", "Linear"]
    bare = make(head={"kind": "mlp", "activation": "none"}).head
    assert [type(step).__name__ for step in bare] == ["Linear", "Linear"]
    assert bare[0].out_features == 256
    content = {"name": "m", "encoder": {"model_path_or_name": "a/b"}, "head": {"activation": "relu"}}
    with pytest.raises(BadInput, match="'activation' belongs to the head 'mlp'"):
        parse(ModelSpec, content, source="m.json", kind="model")


@pytest.mark.parametrize("weighted", [False, True])
def test_the_head_of_transformers_gives_its_logits(weighted: bool, tmp_path: Path) -> None:
    """`Wav2Vec2ForSequenceClassification` projects every frame and then takes the mean, which is the same.

    Its weighted sum leaves out the layer norm behind the last layer of pre-norm models, which ours has.
    """
    torch.manual_seed(1)
    shape = {**WAVE, "feat_extract_norm": "layer", "do_stable_layer_norm": not weighted, "classifier_proj_size": 256}
    theirs = Wav2Vec2ForSequenceClassification(
        Wav2Vec2Config(**shape, num_labels=3, use_weighted_layer_sum=weighted)
    ).eval()
    if weighted:
        theirs.layer_weights.data = torch.tensor([0.3, -1.0, 0.5, 1.0])
    theirs.save_pretrained(tmp_path)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    extractor.save_pretrained(tmp_path)
    spec = ModelSpec.model_validate(
        {
            "name": "m",
            "encoder": {"model_path_or_name": str(tmp_path)},
            "layers": {"use": "weighted" if weighted else "last"},
            "head": {"kind": "mlp", "hidden": 256, "activation": "none"},
        }
    )
    assert isinstance(spec.encoder, PretrainedEncoder)
    ours = SerModel(spec, LABELS, encoder=build_encoder(spec.encoder, models=None)).eval()
    ours.head[0].load_state_dict(theirs.projector.state_dict())
    ours.head[1].load_state_dict(theirs.classifier.state_dict())
    if weighted:
        assert ours.layer_weights is not None
        ours.layer_weights.data = theirs.layer_weights.data.clone()
    speech = clips(20000, 900, 7777, 16000)
    batch = extractor(speech, sampling_rate=16000, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = theirs(**batch).logits
        got = ours(**ours.encoder.collate([ours.encoder.features(clip) for clip in speech]))["logits"]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_a_last_training_batch_of_one_works_with_batch_norm() -> None:
    model = make(head={"batch_norm": True}, pooling={"kind": "ecapa"}).train()
    loss = model(**batch_of(model, 9000), labels=torch.tensor([1]))["loss"]
    loss.backward()
    assert bool(loss.isfinite())


# Freezing


def trainable(model: SerModel) -> set[str]:
    """Trainable parameters, layers as one name each."""
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {name[: name.index("layers.") + 8] if ".layers." in name else name.rsplit(".", 1)[0] for name in names}


WHISPER_LAYERS = {f"encoder.model.layers.{index}" for index in range(3)}
HEAD = {"head.1"}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (
            {"freeze": {"cnn": False}},
            {"encoder.model.conv1", "encoder.model.conv2", *WHISPER_LAYERS, "encoder.model.layer_norm", *HEAD},
        ),
        ({}, {*WHISPER_LAYERS, "encoder.model.layer_norm", *HEAD}),
        ({"freeze": {"encoder": True}}, HEAD),
        ({"freeze": {"all_but_last": 1}}, {"encoder.model.layers.2", *HEAD}),
        ({"freeze": {"all_but_last": 0}}, HEAD),
        ({"layers": {"use": 2}}, {"encoder.model.layers.0", "encoder.model.layers.1", *HEAD}),
        ({"layers": {"use": 2}, "freeze": {"all_but_last": 1}}, {"encoder.model.layers.1", *HEAD}),
        (
            {"layers": {"use": "weighted"}, "freeze": {"encoder": True}, "pooling": {"kind": "attentive_stats"}},
            {"layer_weights", "pooling.attention.0", "pooling.attention.2", "pooling.norm", "pooling.project", *HEAD},
        ),
    ],
)
def test_the_trainable_parameters_of_each_configuration(parts: dict[str, Any], expected: set[str]) -> None:
    assert trainable(make(**parts)) == expected


def test_the_front_end_of_a_wave_encoder_is_its_convolutions() -> None:
    names = trainable(make("hubert"))
    assert not any("feature_extractor" in name for name in names)
    assert "encoder.model.feature_projection.projection" in names
    assert {f"encoder.model.encoder.layers.{index}" for index in range(3)} <= names
    assert any("feature_extractor" in name for name in trainable(make("hubert", freeze={"cnn": False})))


def test_all_but_last_beyond_the_layers_is_refused() -> None:
    with pytest.raises(BadInput, match=r"all_but_last: 4 is not valid; 3 layer"):
        make(freeze={"all_but_last": 4})


@pytest.mark.parametrize("kind", CONFIGS)
def test_training_moves_what_is_trainable_and_nothing_else(kind: str) -> None:
    model = make(kind, freeze={"all_but_last": 1}, head={"batch_norm": True}).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser = torch.optim.AdamW(model.parameter_groups(1e-2, None, 0.1))
    model(**batch_of(model), labels=torch.tensor([0, 1, 2, 0, 1]))["loss"].backward()
    optimiser.step()
    last = f"layers.{model.encoder.num_layers - 1}."
    for name, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert parameter.requires_grad == (name.startswith("head.") or last in name)
        if not parameter.requires_grad:
            assert not moved
        elif "k_proj.bias" not in name and "linear_k.bias" not in name:  # softmax does not see a bias on all keys
            assert moved, name


def test_a_frozen_encoder_is_deterministic_and_outside_the_graph_while_training() -> None:
    noisy = {"hidden_dropout": 0.5, "layerdrop": 0.5, "attention_dropout": 0.5, "mask_time_prob": 0.9}
    config = {**CONFIGS["hubert"], **noisy}
    model = make("hubert", encoder={"kind": "random", "config": config}, freeze={"encoder": True}).train()
    batch = batch_of(model)
    assert torch.equal(model(**batch)["logits"], model(**batch)["logits"])
    seen: list[torch.Tensor] = []
    model.pooling.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    assert model(**batch)["logits"].requires_grad
    assert not seen[0].requires_grad
    assert not model.encoder.training
    free = make("hubert", encoder={"kind": "random", "config": config}).train()
    assert not torch.equal(free(**batch)["logits"], free(**batch)["logits"])
    half = make("hubert", encoder={"kind": "random", "config": config}, freeze={"all_but_last": 1}).train()
    assert [layer.training for layer in half.encoder.layers] == [False, False, True]
    assert not any(module.training for module in half.eval().modules())


@pytest.mark.parametrize("kind", CONFIGS)
def test_gradient_checkpointing_gives_the_same_gradients(kind: str) -> None:
    quiet = {"attention_dropout": 0.0, "mask_time_prob": 0.0}
    if kind in ("hubert", "wavlm", "wav2vec2-bert"):
        names = ("hidden_dropout", "activation_dropout", "feat_proj_dropout", "layerdrop", "mask_feature_prob")
        quiet |= dict.fromkeys(names, 0.0)
    if kind == "wav2vec2-bert":
        quiet["conformer_conv_dropout"] = 0.0
    if kind == "moonshine":
        del quiet["mask_time_prob"]
    encoder = {"kind": "random", "config": {**CONFIGS[kind], **quiet}}
    gradients = []
    for checkpointing in (False, True):
        model = make(kind, encoder=encoder, freeze={"cnn": False}).train()
        if checkpointing:
            model.enable_gradient_checkpointing()
            assert all(bool(layer.gradient_checkpointing) for layer in model.encoder.layers)
        model(**batch_of(model), labels=torch.tensor([0, 1, 2, 0, 1]))["loss"].backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert any("conv1" in name or "feature" in name for name in gradients[0])
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], atol=1e-6, rtol=1e-5)


def test_parameter_groups_part_encoder_and_head_and_spare_biases_and_norms() -> None:
    model = make(layers={"use": "weighted"}, head={"batch_norm": True})
    groups = {group["name"]: group for group in model.parameter_groups(1e-5, 1e-3, 0.01)}
    assert {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()} == {
        "encoder": (1e-5, 0.01),
        "encoder, no decay": (1e-5, 0.0),
        "head": (1e-3, 0.01),
        "head, no decay": (1e-3, 0.0),
    }
    grouped = [id(parameter) for group in groups.values() for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)
    assert all(parameter.ndim > 1 for parameter in groups["encoder"]["params"])
    assert {group["lr"] for group in model.parameter_groups(1e-5, None, 0.01)} == {1e-5}
    assert len(make(freeze={"encoder": True}).parameter_groups(1e-5, None, 0.01)) == 2


# Saving, loading, predicting


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_saved_model_gives_the_same_bits(kind: str, tmp_path: Path) -> None:
    parts = {"layers": {"use": "weighted"}, "pooling": {"kind": "ecapa"}, "head": {"batch_norm": True}}
    model = make(kind, weights=torch.tensor([0.5, 1.0, 2.0]), **parts).train()
    labels = torch.tensor([0, 1, 2, 0, 1])
    model(**batch_of(model), labels=labels)  # moves the running statistics
    model.eval().save(tmp_path)
    loaded = SerModel.load(tmp_path)
    assert not loaded.training
    assert loaded.labels == LABELS
    assert loaded.spec == model.spec
    assert loaded.encoder.identity() == model.encoder.identity()
    batch = batch_of(loaded)
    assert all(torch.equal(batch[name], tensor) for name, tensor in batch_of(model).items())
    with torch.inference_mode():
        ours, theirs = model(**batch, labels=labels), loaded(**batch, labels=labels)
    assert torch.equal(ours["logits"], theirs["logits"])
    assert loaded.class_weights is None  # of the training clips of that run, not of the model
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_type"] == kind
    assert config["id2label"] == {"0": "angry", "1": "happy", "2": "sad"}
    assert json.loads((tmp_path / "labels.json").read_text()) == list(LABELS)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "config.json",
        "labels.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]


def test_a_saved_model_serves_as_an_encoder(tmp_path: Path) -> None:
    model = make("hubert")
    model.save(tmp_path)
    encoder = build_encoder(PretrainedEncoder(model_path_or_name=str(tmp_path)), models=None)
    state = encoder.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.encoder.state_dict().items())


def test_saving_twice_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make("hubert").save(tmp_path / name)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_loading_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds no config\.json"):
        SerModel.load(tmp_path)
    make().save(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**content, "encoder_layers": 2}))
    with pytest.raises(BadInput, match=r"layers\.2"):
        SerModel.load(tmp_path)
    del content["sertain"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match="a bare encoder"):
        SerModel.load(tmp_path)


def test_half_precision_encoders_have_float32_heads(tmp_path: Path) -> None:
    make("whisper").save(tmp_path)
    encoder = build_encoder(PretrainedEncoder(model_path_or_name=str(tmp_path), dtype="bfloat16"), models=None)
    model = SerModel(make("whisper").spec, LABELS, encoder=encoder).eval()
    logits = model(**batch_of(model))["logits"]
    assert logits.dtype == torch.float32
    model.save(tmp_path / "half")
    assert torch.equal(SerModel.load(tmp_path / "half")(**batch_of(model))["logits"], logits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert make("hubert")(**batch_of(make("hubert")))["logits"].dtype == torch.float32


@pytest.mark.real
@pytest.mark.parametrize("name", ["openai/whisper-tiny.en", "openai/whisper-base", "UsefulSensors/moonshine-tiny"])
def test_logits_of_real_speech_do_not_depend_on_the_batch(name: str, ser_data: Path, ser_models: Path) -> None:
    files = sorted((ser_data / "emodb").rglob("*.flac"))[::107][:5]
    speech = [soundfile.read(file, dtype="float32")[0] for file in files]
    speech[0] = speech[0][:5000]
    spec = ModelSpec.model_validate({"name": "m", "encoder": {"model_path_or_name": name}})
    assert isinstance(spec.encoder, PretrainedEncoder)
    torch.manual_seed(0)
    model = SerModel(spec, LABELS, encoder=build_encoder(spec.encoder, models=ser_models)).eval()
    features = [model.encoder.features(clip) for clip in speech]
    with torch.inference_mode():
        together = model(**model.encoder.collate(features))["logits"]
        alone = torch.cat([model(**model.encoder.collate([item]))["logits"] for item in features])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)
