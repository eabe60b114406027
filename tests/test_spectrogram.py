"""The small spectrogram CNN: its layers, its masks, what of it is trained, its weights' whereabouts, the loop."""

import json
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from ser_eval import run_folder
from ser_scripts.cli import app
from ser_scripts.errors import BadInput
from ser_scripts.modeling import spectrogram
from ser_scripts.modeling.encoders import build_encoder
from ser_scripts.modeling.families.base import frame_mask
from ser_scripts.modeling.image_weights import find_weights, locate_weights
from ser_scripts.modeling.model import SerModel
from ser_scripts.modeling.spectrogram import SmallNetwork, SpectrogramNetwork, units
from ser_scripts.specs.base import load, parse
from ser_scripts.specs.model import ModelSpec, PretrainedEncoder, TrainingSpec
from ser_scripts.specs.spectrogram import SpectrogramEncoder
from ser_scripts.training.schedules import schedule
from tests.tiny import batch_of, clips, shake

ROOT = Path(__file__).parents[1]
SIX = ("angry", "disgusted", "fearful", "happy", "neutral", "sad")
VARIABLE = {"length": "variable", "mels": 20, "fft_samples": 256, "hop_samples": 128}
FIXED = {"clip_samples": 6000, "mels": 20, "fft_samples": 256, "hop_samples": 128}


def make(features: dict[str, Any] | None = None, **parts: Any) -> SerModel:
    encoder = {"kind": "spectrogram_cnn", "features": FIXED if features is None else features}
    content = {"name": "m", "encoder": encoder, "head": {"relu": False}, **parts}
    spec = parse(ModelSpec, content, source="m.json", kind="model")
    torch.manual_seed(0)
    return SerModel(spec, SIX[:3], encoder=build_encoder(spec.encoder, models=None))


# The network


def test_the_small_network_is_the_published_stack_of_layers() -> None:
    model = make().eval()
    shake(model, variance=(50.0, 100.0))
    layers: list[torch.nn.Module] = []
    for block in model.encoder.backbone.blocks:
        convolution = block.convolution
        kernel = convolution.kernel_size[0]
        mine = torch.nn.Conv2d(convolution.in_channels, convolution.out_channels, kernel, 2, kernel // 2)
        norm = torch.nn.BatchNorm2d(convolution.out_channels)
        mine.load_state_dict(convolution.state_dict())
        norm.load_state_dict(block.norm.state_dict())
        layers += [mine, torch.nn.ReLU(), norm]
    assert [(layer.in_channels, layer.out_channels, layer.kernel_size) for layer in layers[::3]] == [
        (1, 8, (5, 5)), (8, 16, (3, 3)), (16, 32, (3, 3)), (32, 64, (3, 3))
    ]  # fmt: skip
    stack = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), model.head[-1]).eval()
    batch = batch_of(model, 3000, 9000)
    with torch.inference_mode():
        expected = stack(batch["inputs"].transpose(1, 2)[:, None])
        torch.testing.assert_close(model(**batch)["logits"], expected, atol=1e-5, rtol=1e-5)


def test_the_shipped_small_models_have_the_published_size_image_and_start() -> None:
    for name in ("spectrogram-small", "spectrogram-small-half-cycle"):
        spec = load(ModelSpec, ROOT / f"models/{name}.json", kind="model")
        torch.manual_seed(0)
        model = SerModel(spec, SIX, encoder=build_encoder(spec.encoder, models=None))
        assert sum(p.numel() for p in model.parameters()) == 25_142
        assert model.encoder.features(clips(16_000)[0]).shape == (123, 128)
        for block in model.encoder.backbone.blocks:
            weight = block.convolution.weight
            expected = math.sqrt(2 / (1 + 0.1**2) / weight[0].numel())
            assert float(weight.detach().std()) == pytest.approx(expected, rel=0.15)
            assert not block.convolution.bias.any()


@pytest.mark.parametrize("scheduler", ["one_cycle", "one_cycle_linear"])
def test_the_two_schedules_are_those_of_torch(scheduler: str) -> None:
    total, warmup = 100, 30
    spec = TrainingSpec(scheduler=scheduler, learning_rate=1e-3, warmup=0.3)
    factor = schedule(spec, 1e-3, total=total, warmup=warmup, per_epoch=10, history=())
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-4)
    anneal = "cos" if scheduler == "one_cycle" else "linear"
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-3, total_steps=total + 1, pct_start=(warmup + 1) / (total + 1), anneal_strategy=anneal
    )
    for step in range(total + 1):
        assert 1e-3 * factor(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6), step
        optimizer.step()
        if step < total:
            theirs.step()


# Padding


@given(
    samples=st.lists(st.integers(1, 12_000), min_size=2, max_size=5),
    pooling=st.sampled_from(["mean", "max", "mean_std", "attention"]),
    fixed=st.booleans(),
)
@settings(max_examples=40)
def test_logits_do_not_depend_on_the_batch(samples: list[int], pooling: str, fixed: bool) -> None:
    model = make(FIXED if fixed else VARIABLE, pooling={"kind": pooling}).eval()
    shake(model, variance=(50.0, 100.0))
    features = [model.encoder.features(clip) for clip in clips(*samples)]
    with torch.inference_mode():
        together = model(**model.encoder.collate(features))["logits"]
        for item, row in zip(features, together, strict=True):
            alone = model(**model.encoder.collate([item]))["logits"][0]
            torch.testing.assert_close(alone, row, atol=1e-5, rtol=1e-5)


@given(samples=st.lists(st.integers(1, 9000), min_size=2, max_size=4))
@settings(max_examples=15)
def test_what_stands_in_the_padding_changes_nothing_not_even_in_training(samples: list[int]) -> None:
    model = make(VARIABLE).train()
    batch = batch_of(model, *samples)
    padding = ~frame_mask(batch["lengths"], batch["inputs"].shape[1])
    results = []
    for value in (0.0, 1e4):
        inputs = batch["inputs"].masked_fill(padding[..., None], value)
        model.zero_grad()
        loss = model(inputs, batch["lengths"], labels=torch.zeros(len(samples), dtype=torch.int64))["loss"]
        loss.backward()
        results.append((loss.detach(), [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*results, atol=0, rtol=0)


def test_frames_are_counted_as_the_mask_has_them() -> None:
    model = make(VARIABLE)
    batch = batch_of(model, 9000, 400, 3000)
    (state,), mask = model.encoder(**batch)
    assert batch["lengths"].tolist() == [71, 4, 24]
    assert mask.sum(dim=1).tolist() == model.encoder.frames_of(batch["lengths"]).tolist() == [5, 1, 2]
    assert state.shape == (3, 5, 64)
    assert make(FIXED).encoder.fixed_seconds == 6000 / 24_414
    assert model.encoder.fixed_seconds is None


# What is trained


def test_units_are_the_blocks_and_the_head_is_always_trained() -> None:
    assert [name for name, _ in units(SmallNetwork())] == ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]
    for freeze, trained in (
        ({}, {0, 1, 2, 3}),
        ({"all_but_last": 2}, {2, 3}),
        ({"all_but_last": 0}, set()),
        ({"encoder": True}, set()),
    ):
        model = make(freeze=freeze).train()
        names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert {"head.0.weight", "head.0.bias"} <= names
        assert {int(name.split(".")[3]) for name in names if name.startswith("encoder.")} == trained
        for number, block in enumerate(model.encoder.backbone.blocks):
            assert block.norm.training == (number in trained), "a frozen norm keeps its statistics"
    with pytest.raises(BadInput, match=r"freeze.all_but_last: 5 is not valid; 4 layer\(s\) of small"):
        make(freeze={"all_but_last": 5})


# Spec, folders, weights


@pytest.mark.parametrize("features", [FIXED, VARIABLE])
def test_a_saved_model_gives_the_same_logits(tmp_path: Path, features: dict[str, Any]) -> None:
    model = make({**features, "scaling": "unit"})
    shake(model, variance=(50.0, 100.0))
    model.eval().save(tmp_path)
    loaded = SerModel.load(tmp_path)
    assert isinstance(loaded.encoder, SpectrogramNetwork)
    assert loaded.spec == model.spec
    assert loaded.encoder.identity() == model.encoder.identity()
    batch = batch_of(loaded, 9000, 500)
    assert torch.equal(batch["inputs"], batch_of(model, 9000, 500)["inputs"])
    with torch.inference_mode():
        assert torch.equal(model(**batch)["logits"], loaded(**batch)["logits"])
    with pytest.raises(BadInput, match=r'a spectrogram CNN is no pretrained encoder.*"spectrogram_cnn".*init_from'):
        build_encoder(PretrainedEncoder(model_path_or_name=str(tmp_path)), models=None)


def test_the_identity_says_random_and_tells_images_apart() -> None:
    first, second = (make({**FIXED, "top_db": level}).encoder.identity() for level in (80, 60))
    assert first["name"] == "small, random weights"
    assert first["sha256"] != second["sha256"]


@pytest.mark.parametrize(
    ("encoder", "parts", "fault"),
    [
        ({"weights": "a/b"}, {}, "'small' has no published weights"),
        ({"colour_norm": "none"}, {}, "'colour_norm' belongs to timm backbones"),
        ({"backbone": "resnet18", "revision": "x"}, {}, "'revision' is of 'weights'"),
        ({"backbone": "resnet18", "features": {"length": "variable"}}, {}, "padding would change a clip's result"),
        ({"bakbone": "small"}, {}, "bakbone: unknown key; did you mean 'backbone'"),
        ({}, {"layers": {"use": "weighted"}}, "a spectrogram CNN has one hidden state; leave 'layers' out"),
        ({}, {"freeze": {"gradual": 1}}, "'freeze.gradual' goes with .* a spectrogram CNN has none"),
        ({}, {"adapter": {"kind": "lora"}}, "'adapter' goes with .* a spectrogram CNN has none"),
    ],
)
def test_what_makes_no_sense_is_refused(encoder: dict[str, Any], parts: dict[str, Any], fault: str) -> None:
    content = {"name": "m", "encoder": {"kind": "spectrogram_cnn", **encoder}, **parts}
    with pytest.raises(BadInput, match=fault):
        parse(ModelSpec, content, source="m.json", kind="model")


def test_gradient_checkpointing_is_refused() -> None:
    with pytest.raises(BadInput, match="gradient_checkpointing is for speech encoders"):
        make().enable_gradient_checkpointing()


def test_without_timm_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrogram.importlib.util, "find_spec", lambda name: None)
    spec = SpectrogramEncoder(kind="spectrogram_cnn", backbone="inception_v3")
    with pytest.raises(BadInput, match=r"'inception_v3' needs timm.*pip install -e '\.\[timm\]'"):
        build_encoder(spec, models=None)


def test_weights_are_found_as_a_file_a_folder_and_below_the_mirror(tmp_path: Path) -> None:
    def spec(weights: str) -> SpectrogramEncoder:
        return SpectrogramEncoder(kind="spectrogram_cnn", backbone="b", weights=weights)

    folder = tmp_path / "timm/b.tag"
    folder.mkdir(parents=True)
    file = folder / "model.safetensors"
    save_file({"x": torch.zeros(1)}, file)
    for weights in ("timm/b.tag", "timm/b.tag/model.safetensors", str(folder), str(file)):
        assert find_weights(spec(weights), models=tmp_path) == file
        place, identity = locate_weights(spec(weights), models=tmp_path)
        assert place == file
        assert identity["name"] == weights
        assert len(identity["sha256"] or "") == 64
    before = locate_weights(spec("timm/b.tag"), models=tmp_path)[1]["sha256"]
    save_file({"x": torch.ones(2)}, file)
    assert locate_weights(spec("timm/b.tag"), models=tmp_path)[1]["sha256"] != before
    assert find_weights(spec("timm/other"), models=tmp_path) is None
    with pytest.raises(BadInput, match=r"no weights 'timm/other'.*SER_MODELS.*hf download timm/other.*HF_HUB_OFFLINE"):
        locate_weights(spec("timm/other"), models=tmp_path)
    with pytest.raises(BadInput, match=r"no weights './other'.*no hub id, so the hub was not asked"):
        find_weights(spec("./other"), models=tmp_path)
    (tmp_path / "w.pth").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"w\.pth is no safetensors file"):
        find_weights(spec(str(tmp_path / "w.pth")), models=None)
    file.unlink()
    with pytest.raises(BadInput, match=r"holds no model\.safetensors"):
        find_weights(spec("timm/b.tag"), models=tmp_path)


def test_the_weight_file_is_part_of_a_runs_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ser_scripts.runs import train_run

    file = tmp_path / "w.safetensors"
    encoder = SpectrogramEncoder(kind="spectrogram_cnn", backbone="b", weights=str(file))
    run = SimpleNamespace(
        model=SimpleNamespace(encoder=encoder, frozen=False), init_from=None, augmentation=None, base=tmp_path,
        experiment=SimpleNamespace(preprocess=()), resolved_spec=dict, split=SimpleNamespace(table={"corpus": []}),
    )  # fmt: skip
    sums = []
    for value in (0.0, 1.0):
        save_file({"x": torch.full((int(value) + 1,), value)}, file)
        found = train_run.run_identity(run, {}, SimpleNamespace(models=None), allow_imports=())  # type: ignore[arg-type]
        sums.append(found["inputs"]["encoder_sha256"])
    assert len(set(sums)) == 2


# In the loop

SHIFT = {
    "module": "audiomentations", "class": "Shift", "min_shift": 0.0, "max_shift": 0.3, "rollover": True,
    "fade_duration": 0.0,
}  # fmt: skip
SHIFT_MASKS = {
    "name": "shift-masks",
    "mode": "on_the_fly",
    "probability": 1.0,
    "transforms": {"shift": SHIFT},
    "features": [
        {
            "kind": "spec_augment", "num_time_masks": 2, "max_time_share": 0.1, "num_frequency_masks": 2,
            "max_frequency_share": 0.1, "fill": "mean",
        }
    ],
}  # fmt: skip


def test_the_shift_of_the_shipped_experiments_is_circular_and_at_most_30_percent() -> None:
    from ser_scripts.augment import Augmenter
    from ser_scripts.specs.augmentation import AugmentationSpec

    (clip,) = clips(1000)
    for file in ("clean-d", "paper-d"):
        content = json.loads((ROOT / f"experiments/{file}.json").read_text())["augmentations"]
        assert content == [SHIFT_MASKS]
    augmenter = Augmenter(AugmentationSpec.model_validate(SHIFT_MASKS), seed=0, base=Path())
    places = set()
    for epoch in range(40):
        shifted = augmenter.apply(clip, 24_414, None, epoch=epoch, clip_key="a/b")
        (place,) = [n for n in range(len(clip)) if np.array_equal(np.roll(clip, n), shifted)]
        places.add(place)
    assert max(places) <= 300
    assert max(places) > 200
    assert len(places) > 20


TINY = {
    "encoder": {
        "kind": "spectrogram_cnn",
        "features": {"sample_rate_hz": 16_000, "clip_samples": 16_000, "mels": 48, "fft_samples": 512,
                     "hop_samples": 256},
    },
    "head": {"relu": False},
}  # fmt: skip


def test_it_trains_shifted_and_masked_the_same_every_time_and_learns(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {"learning_rate": 1e-2, "scheduler": "one_cycle_linear", "warmup": 0.3, "select": "val_loss"}
    file = project(TINY, {"epochs": 6, **rates}, augmentations=[SHIFT_MASKS])
    runs = []
    for name in ("a", "b"):
        monkeypatch.setenv("SER_RUNS", str(tmp_path / name))
        app(["train", str(file), "--device", "cpu"], standalone_mode=False)
        runs.append(tmp_path / name / "mini/tiny+shift-masks/mini/seed-0")
    first, second = (run / "predictions/mini.csv" for run in runs)
    assert first.read_bytes() == second.read_bytes()
    history = run_folder.read_table(runs[0] / "history.csv", run_folder.HISTORY_COLUMNS)
    assert history["val_uar"].astype(float).max() > 0.5
    record = run_folder.read_json(runs[0] / "run.json")
    assert record["encoder"]["name"] == "small, random weights"
    assert isinstance(SerModel.load(runs[0] / "model").encoder, SpectrogramNetwork)


def test_images_of_clean_clips_are_computed_once(project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ser_scripts.features import images

    seen: list[bytes] = []
    made = images.image

    def counted(clip: np.ndarray, spec: Any) -> np.ndarray:
        seen.append(clip.tobytes())
        return made(clip, spec)

    monkeypatch.setattr(images, "image", counted)
    app(["train", str(project(TINY, {"epochs": 4})), "--device", "cpu"], standalone_mode=False)
    assert len(set(seen)) >= 96
    assert max(Counter(seen).values()) <= 2, "for training, and for predictions at the end; not once per epoch"


def test_a_preview_shows_the_image(project: Any, tmp_path: Path) -> None:
    file = project(TINY, augmentations=[None, SHIFT_MASKS])
    app(["preview", str(file), "--out", str(tmp_path / "out")], standalone_mode=False)
    record = json.loads((tmp_path / "out/preview.json").read_text())
    assert record["features"] == {"kind": "spectrogram", "rows_per_second": 63.0, "stacked_frames": 1}
    assert {tuple(variant["features"]["shape"]) for variant in record["variants"]} == {(63, 48)}
    assert (tmp_path / "out/preview.png").stat().st_size > 10_000
