"""The compact model: its size, its masks, its spec, and that it trains in the same loop as every other model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ser_eval import run_folder
from ser_scripts.cli import app
from ser_scripts.errors import BadInput
from ser_scripts.modeling.compact import BidirectionalLstm, CompactNetwork, ManyHeads, TwoStreams, reorder, turned
from ser_scripts.modeling.encoders import build_encoder
from ser_scripts.modeling.families.base import frame_mask
from ser_scripts.modeling.model import SerModel
from ser_scripts.modeling.pooling import build_pooling
from ser_scripts.specs.base import load, parse
from ser_scripts.specs.model import ModelSpec, PretrainedEncoder
from tests.tiny import batch_of, clips, shake

SHIPPED = Path(__file__).parents[1] / "models"
SIX = ("angry", "disgusted", "fearful", "happy", "neutral", "sad")
SMALL = {
    "features": {"mels": 24, "coefficients": 12},
    "channels": [8, 12],
    "lstm_hidden": 6,
}


def make(encoder: dict[str, Any] | None = None, **parts: Any) -> SerModel:
    content = {"name": "m", "encoder": {"kind": "compact", **SMALL, **(encoder or {})}, **parts}
    spec = parse(ModelSpec, content, source="m.json", kind="model")
    torch.manual_seed(0)
    return SerModel(spec, SIX[:3], encoder=build_encoder(spec.encoder, models=None))


# Size


def test_the_documented_model_has_its_documented_number_of_parameters() -> None:
    spec = load(ModelSpec, SHIPPED / "compact.json", kind="model")
    model = SerModel(spec, SIX, encoder=build_encoder(spec.encoder, models=None))
    assert sum(parameter.numel() for parameter in model.parameters()) == 927_056
    assert {name: sum(p.numel() for p in part.parameters()) for name, part in model.encoder.named_children()} == {
        "attention": 4 * 2 * 40 * 4 + 4 * 40 * 40,
        "blocks": (40 * 5 + 2 * 40 * 128 + 4 * 128) + (128 * 5 + 2 * 128 * 256 + 4 * 256),
        "recurrent": 2 * 2 * 4 * (128 * (256 + 128) + 2 * 128),
    }


# Masks

CONFIGURATIONS: Any = st.fixed_dictionaries(
    {
        "features": st.sampled_from(
            [
                {"mels": 24, "coefficients": 12},
                {"kind": "log_mel", "mels": 9, "normalise": "mean_variance"},
                {"mels": 24, "coefficients": 5, "deltas": 2, "normalise": "mean"},
            ]
        ),
        "input_norm": st.booleans(),
        "attention": st.sampled_from(["multi_head", "tspca", "none"]),
        "attention_heads": st.integers(1, 3),
        "strides": st.sampled_from([None, [1, 2], [2, 2], [3, 2]]),
        "kernel": st.sampled_from([1, 3, 5, 7]),
        "depthwise": st.booleans(),
        "residual": st.booleans(),
        "lstm_layers": st.integers(0, 2),
    }
)


@given(
    encoder=CONFIGURATIONS,
    pooling=st.sampled_from(["mean", "max", "attention", "attentive_stats"]),
    head=st.sampled_from([{}, {"kind": "mlp", "hidden": 7, "layer_norm": True, "temperature": True}]),
    samples=st.lists(st.integers(1, 12_000), min_size=2, max_size=5),
)
@settings(max_examples=40)
def test_logits_do_not_depend_on_the_batch(
    encoder: dict[str, Any], pooling: str, head: dict[str, Any], samples: list[int]
) -> None:
    model = make(encoder, pooling={"kind": pooling}, head=head).eval()
    shake(model)
    features = [model.encoder.features(clip) for clip in clips(*samples)]
    with torch.inference_mode():
        together = model(**model.encoder.collate(features))["logits"]
        for item, row in zip(features, together, strict=True):
            alone = model(**model.encoder.collate([item]))["logits"][0]
            torch.testing.assert_close(alone, row, atol=1e-5, rtol=1e-5)


@given(encoder=CONFIGURATIONS, samples=st.lists(st.integers(1, 9_000), min_size=2, max_size=4))
@settings(max_examples=15)
def test_what_stands_in_the_padding_changes_nothing_not_even_in_training(
    encoder: dict[str, Any], samples: list[int]
) -> None:
    model = make({**encoder, "dropout": 0.0}, pooling={"kind": "attention"}).train()
    batch = batch_of(model, *samples)
    padding = ~frame_mask(batch["lengths"], batch["inputs"].shape[1])
    results = []
    for value in (0.0, 1e4):
        inputs = batch["inputs"].masked_fill(padding[..., None], value)
        model.zero_grad()
        loss = model(inputs, batch["lengths"], labels=torch.zeros(len(samples), dtype=torch.int64))["loss"]
        loss.backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        results.append((loss.detach(), gradients))
    torch.testing.assert_close(*results, atol=0, rtol=0)


def test_frames_are_counted_as_the_mask_has_them() -> None:
    model = make({"strides": [2, 3]})
    batch = batch_of(model, 9000, 400, 3000)
    (state,), mask = model.encoder(**batch)
    assert mask.sum(dim=1).tolist() == model.encoder.frames_of(batch["lengths"]).tolist()
    assert mask.sum(dim=1).tolist() == [model.encoder.num_frames(int(length)) for length in batch["lengths"]]
    assert batch["lengths"].tolist() == [57, 3, 19]
    assert mask.sum(dim=1).tolist() == [10, 1, 4]
    assert state.shape == (3, 10, 12)


# Parts


def test_channel_attention_by_hand() -> None:
    streams = TwoStreams(2, 1)
    streams.network[0].weight.data = torch.tensor([[1.0, 0.0]])
    streams.network[2].weight.data = torch.tensor([[2.0], [-1.0]])
    means, maxima = torch.tensor([[0.5, 9.0]]), torch.tensor([[-3.0, 9.0]])  # the second is cut at 0
    expected = (torch.sigmoid(torch.tensor([[1.0, -0.5]])) + 0.5) / 2
    torch.testing.assert_close(streams(means, maxima), expected)
    heads = ManyHeads(2, 1, heads=2)
    joined = torch.cat([head(means, maxima) for head in heads.heads], dim=1) @ heads.join.weight.T
    torch.testing.assert_close(heads(means, maxima), torch.sigmoid(joined))


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_turning_a_clip_around_twice_gives_the_clip(lengths: list[int]) -> None:
    mask = frame_mask(torch.tensor(lengths), max(lengths))
    frames = torch.randn(len(lengths), max(lengths), 2)
    back = reorder(frames, turned(mask))
    for row, length in enumerate(lengths):
        assert torch.equal(back[row, :length], frames[row, :length].flip(0))
    assert torch.equal(reorder(back, turned(mask)), frames)


def test_the_recurrent_layers_are_those_of_torch_on_packed_sequences() -> None:
    torch.manual_seed(0)
    ours = BidirectionalLstm(5, 4, layers=2, dropout=0.0)
    theirs = torch.nn.LSTM(5, 4, num_layers=2, batch_first=True, bidirectional=True)
    for layer in range(2):
        for suffix, module in (("", ours.forwards[layer]), ("_reverse", ours.backwards[layer])):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(theirs, f"{name}_l{layer}{suffix}").data = getattr(module, f"{name}_l0").data
    lengths = torch.tensor([9, 4, 1])
    frames, mask = torch.randn(3, 9, 5, requires_grad=True), frame_mask(lengths, 9)
    packed = torch.nn.utils.rnn.pack_padded_sequence(frames, lengths, batch_first=True)
    expected = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)[0]
    made = ours(frames, mask).masked_fill(~mask[..., None], 0.0)
    torch.testing.assert_close(made, expected, atol=1e-6, rtol=1e-5)
    gradients = [torch.autograd.grad(out.square().sum(), frames)[0] for out in (made, expected)]
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)


def test_attention_pooling_is_a_weighted_mean() -> None:
    torch.manual_seed(0)
    pool = build_pooling("attention", 3)
    frames, mask = torch.randn(2, 5, 3), frame_mask(torch.tensor([5, 2]), 5)
    shares = pool.score(frames[1, :2]).softmax(dim=0)
    torch.testing.assert_close(pool(frames, mask)[1], (shares * frames[1, :2]).sum(dim=0))


def test_the_steps_of_an_mlp_head_and_of_a_linear_one() -> None:
    def steps(**head: Any) -> list[str]:
        return [type(step).__name__ for step in make(head=head).head]

    mlp = ["LayerNorm", "Dropout", "Linear", "GELU", "Dropout", "Linear", "Temperature"]
    assert steps(kind="mlp", hidden=7, layer_norm=True, dropout=0.1, temperature=True) == mlp
    assert steps(kind="mlp") == ["Linear", "GELU", "Linear"]
    assert steps(layer_norm=True, relu=False, dropout=0.1) == ["LayerNorm", "Dropout", "Linear"]
    assert make(head={"kind": "mlp", "hidden": 7}).head[0].weight.shape == (7, 12)


def test_a_temperature_divides_the_logits_and_is_learned() -> None:
    model = make(head={"temperature": True}).eval()
    batch = batch_of(model, 4000, 9000)
    before = model(**batch)["logits"]
    model.head[-1].logarithm.data.fill_(np.log(2.0))
    torch.testing.assert_close(model(**batch)["logits"], before / 2)
    model(**batch, labels=torch.tensor([0, 1]))["loss"].backward()
    assert model.head[-1].logarithm.grad.abs() > 0


def test_everything_is_trained_unless_the_encoder_is_frozen() -> None:
    assert all(parameter.requires_grad for parameter in make().parameters())
    frozen = make(freeze={"encoder": True}).train()
    names = {name for name, parameter in frozen.named_parameters() if parameter.requires_grad}
    assert names == {"head.1.weight", "head.1.bias"}
    assert not any(module.training for module in frozen.encoder.modules())


def test_a_batch_of_one_short_clip_can_be_trained_on() -> None:
    model = make({"strides": [2, 2]}).train()
    model(**batch_of(model, 1), labels=torch.tensor([1]))["loss"].backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


# Spec, folders


def test_a_saved_model_gives_the_same_logits(tmp_path: Path) -> None:
    parts = {"pooling": {"kind": "attention"}, "head": {"kind": "mlp", "hidden": 7, "temperature": True}}
    model = make({"features": {"kind": "log_mel", "mels": 9, "deltas": 1}, "strides": [2, 1]}, **parts)
    shake(model)
    model.eval().save(tmp_path)
    loaded = SerModel.load(tmp_path)
    assert isinstance(loaded.encoder, CompactNetwork)
    assert loaded.spec == model.spec
    assert loaded.encoder.identity() == model.encoder.identity()
    batch = batch_of(loaded, 9000, 500)
    assert torch.equal(batch["inputs"], batch_of(model, 9000, 500)["inputs"])
    with torch.inference_mode():
        assert torch.equal(model(**batch)["logits"], loaded(**batch)["logits"])
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "config.json",
        "labels.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    with pytest.raises(BadInput, match=r"a compact model is no pretrained encoder.*init_from"):
        build_encoder(PretrainedEncoder(model_path_or_name=str(tmp_path)), models=None)
    config = json.loads((tmp_path / "config.json").read_text())
    config["network"]["channels"] = [8, 13]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=r"model\.safetensors does not fit config\.json"):
        SerModel.load(tmp_path)


def test_the_identity_tells_networks_and_features_apart() -> None:
    sums = [
        make(encoder).encoder.identity()["sha256"]
        for encoder in ({}, {"kernel": 3}, {"features": {"mels": 24, "coefficients": 12, "deltas": 1}})
    ]
    assert len(set(sums)) == 3


@pytest.mark.parametrize(
    ("encoder", "parts", "fault"),
    [
        ({"channels": [8], "strides": [1, 2]}, {}, r"'strides' needs one number per block, 1; got \[1, 2\]"),
        ({"kernel": 4}, {}, "'kernel' must be an odd number"),
        ({"chanels": [8]}, {}, "chanels: unknown key; did you mean 'channels'"),
        ({"attention": "tspa"}, {}, 'attention: "tspa" is not valid'),
        ({}, {"layers": {"use": "weighted"}}, "a compact model has one hidden state; leave 'layers' out"),
        ({}, {"head": {"kind": "mlp", "batch_norm": True}}, "'batch_norm' belongs to the head 'linear'"),
    ],
)
def test_what_makes_no_sense_is_refused(encoder: dict[str, Any], parts: dict[str, Any], fault: str) -> None:
    with pytest.raises(BadInput, match=fault):
        make(encoder, **parts)


def test_gradient_checkpointing_is_refused() -> None:
    with pytest.raises(BadInput, match="gradient_checkpointing is for pretrained encoders"):
        make().enable_gradient_checkpointing()


# In the loop

TINY = {
    "encoder": {"kind": "compact", "features": {"kind": "log_mel", "mels": 32}, "channels": [16], "lstm_hidden": 8},
    "pooling": {"kind": "attention"},
    "freeze": {"cnn": True},
    "head": {"kind": "mlp", "hidden": 16, "layer_norm": True, "dropout": 0.1},
}


def test_it_trains_with_features_masked_and_clips_mixed_and_learns(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    augmentation = {
        "name": "masks-and-mixup",
        "mode": "on_the_fly",
        "features": [{"kind": "spec_augment", "num_frequency_masks": 1, "max_frequency_bins": 4}],
        "batch": {"kind": "mixup", "alpha": 0.2, "probability": 0.5},
    }
    schedule = {"scheduler": "plateau", "plateau": {"patience": 0, "metric": "val_loss"}, "min_learning_rate": 1e-4}
    file = project(TINY, {"epochs": 8, "learning_rate": 1e-2, **schedule}, augmentations=[augmentation])
    runs = []
    for name in ("a", "b"):
        monkeypatch.setenv("SER_RUNS", str(tmp_path / name))
        app(["train", str(file), "--device", "cpu"], standalone_mode=False)
        runs.append(tmp_path / name / "mini/tiny+masks-and-mixup/mini/seed-0")
    first, second = (run / "predictions/mini.csv" for run in runs)
    assert first.read_bytes() == second.read_bytes()
    history = run_folder.read_table(runs[0] / "history.csv", run_folder.HISTORY_COLUMNS)
    assert history["val_uar"].astype(float).max() > 0.6
    rates = history["learning_rate"].astype(float)
    assert rates.iloc[-1] < rates.max()  # the plateau has lowered it
    assert isinstance(SerModel.load(runs[0] / "model").encoder, CompactNetwork)
