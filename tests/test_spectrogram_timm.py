"""Spectrogram CNNs with backbones of timm; skipped where the extra is not installed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ser_scripts  # noqa: F401  installs the guard that torchvision needs on a CPU build of torch
from ser_scripts.cli import app
from ser_scripts.errors import BadInput
from ser_scripts.modeling.encoders import build_encoder
from ser_scripts.modeling.model import SerModel
from ser_scripts.modeling.spectrogram import completed_features, count_parameters, make_backbone, units
from ser_scripts.specs.base import parse
from ser_scripts.specs.model import ModelSpec
from ser_scripts.specs.spectrogram import SpectrogramEncoder
from tests.tiny import clips

timm = pytest.importorskip("timm", reason="needs timm: .venv/bin/pip install -e '.[timm]'")

SMALLEST = "mobilenetv3_small_050"


def encoder(backbone: str, **keys: Any) -> SpectrogramEncoder:
    content = {"kind": "spectrogram_cnn", "backbone": backbone, **keys}
    return parse(SpectrogramEncoder, content, source="m.json", kind="encoder")


def make(backbone: str, *, models: Path | None = None, freeze: dict[str, Any] | None = None, **keys: Any) -> SerModel:
    content = {
        "name": "m",
        "encoder": {"kind": "spectrogram_cnn", "backbone": backbone, **keys},
        "head": {"relu": False},
        "freeze": freeze or {},
    }
    spec = parse(ModelSpec, content, source="m.json", kind="model")
    torch.manual_seed(0)
    return SerModel(spec, ("a", "b", "c"), encoder=build_encoder(spec.encoder, models=models))


def settle(model: SerModel) -> None:
    """Give batch norms the statistics of some clips, as training does.

    At the start they take nothing out, so that activations reach 1e4 and gates multiply rounding errors.
    """
    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    with torch.no_grad():
        model(**model.encoder.collate([model.encoder.features(clip) for clip in clips(20_000, 60_000, 50_000, 9000)]))
    model.eval()


@pytest.mark.parametrize(
    ("backbone", "mels", "hop", "frames", "width", "parameters"),
    [
        ("mobilenetv3_large_100", 224, 281, 224, 1280, 4_202_032),
        ("tf_efficientnetv2_b0.in1k", 192, 328, 192, 1280, 5_858_704),
        ("tf_efficientnetv2_b1.in1k", 192, 328, 192, 1280, 6_860_052),
        ("inception_v3", 299, 210, 299, 2048, 21_785_568),
        ("vit_tiny_patch16_224", 224, 281, 224, 192, 5_524_416),
    ],
)
def test_size_and_image_of_the_published_backbones(
    backbone: str, mels: int, hop: int, frames: int, width: int, parameters: int
) -> None:
    spec = encoder(backbone)
    features = completed_features(spec)
    assert (features.mels, features.hop_samples, features.frames) == (mels, hop, frames)
    assert count_parameters(spec) == parameters
    assert make_backbone(spec).head_hidden_size == width


@pytest.mark.parametrize(
    ("backbone", "features"),
    [
        ("mobilenetv3_large_100", {}),
        ("tf_efficientnetv2_b0.in1k", {"scaling": "unit"}),
        ("tf_efficientnetv2_b1.in1k", {"mels": 96, "frames": 64}),
        ("inception_v3", {"mels": 128, "frames": 112}),
        ("vit_tiny_patch16_224", {}),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels last"])
def test_nothing_depends_on_the_batch(backbone: str, features: dict[str, Any], layout: torch.memory_format) -> None:
    model = make(backbone, features=features).eval()
    model.encoder.backbone.to(memory_format=layout)
    settle(model)
    inputs = [model.encoder.features(clip) for clip in clips(70_000, 300, 40_000)]
    with torch.inference_mode():
        together = model(**model.encoder.collate(inputs))["logits"]
        for place in (0, 2):  # 300 samples, mirrored 200 times, sound like nothing that the norms know
            alone = model(**model.encoder.collate([inputs[place]]))["logits"][0]
            torch.testing.assert_close(alone, together[place], atol=1e-3, rtol=1e-3)
        # Gates multiply the rounding of float32; in float64 there is next to none, and nothing else may be left.
        model.encoder.double()
        (state,), mask = model.encoder(**model.encoder.collate(inputs))
        assert mask.all()
        for place, item in enumerate(inputs):
            (alone,), _ = model.encoder(**model.encoder.collate([item]))
            assert float((alone[0] - state[place]).abs().max() / state[place].abs().max()) < 1e-9


def test_the_backbone_hears_the_image_three_times_less_the_colours_of_imagenet() -> None:
    model = make(SMALLEST, features={"mels": 64, "frames": 48}).eval()
    batch = model.encoder.collate([model.encoder.features(clip) for clip in clips(30_000)])
    seen: list[torch.Tensor] = []
    model.encoder.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(**batch)
    image = batch["inputs"][0].T
    for channel, mean, deviation in zip(range(3), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True):
        torch.testing.assert_close(seen[0][0, channel], (image - mean) / deviation)


# Weights


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A mirror with weights as timm publishes them, classifier included."""
    torch.manual_seed(7)
    whole = timm.create_model(SMALLEST, pretrained=False)
    folder = tmp_path / "timm" / SMALLEST
    folder.mkdir(parents=True)
    save_file(whole.state_dict(), folder / "model.safetensors")
    return tmp_path


def test_pretrained_weights_are_read_all_of_them_and_leave_the_generator_alone(mirror: Path) -> None:
    model = make(SMALLEST, models=mirror, weights=f"timm/{SMALLEST}")
    given = load_file(mirror / "timm" / SMALLEST / "model.safetensors")
    for name, tensor in model.encoder.backbone.state_dict().items():
        assert torch.equal(tensor, given[name]), name
    assert {name for name in given if name.startswith("classifier.")}
    identity = model.encoder.identity()
    assert identity["name"] == f"timm/{SMALLEST}"
    torch.manual_seed(0)
    head = torch.nn.Linear(model.encoder.hidden_size, 3)
    assert torch.equal(head.weight, model.head[-1].weight), "the head is the first thing that is drawn"
    assert make(SMALLEST).encoder.identity()["name"] == f"{SMALLEST}, random weights"


def test_weights_that_do_not_fit_are_refused(mirror: Path) -> None:
    file = mirror / "timm" / SMALLEST / "model.safetensors"
    given = load_file(file)
    wrong = dict(given)
    del wrong["conv_stem.weight"]
    wrong["blocks.9.weight"] = torch.zeros(1)
    wrong["bn1.weight"] = torch.zeros(3)
    save_file(wrong, file)
    with pytest.raises(BadInput) as error:
        make(SMALLEST, models=mirror, weights=f"timm/{SMALLEST}")
    for part in ("missing: conv_stem.weight (1)", "unexpected: blocks.9.weight (1)", "bn1.weight (3,) for (16,)"):
        assert part in str(error.value)
    file.write_bytes(b"no weights")
    with pytest.raises(BadInput, match="no whole safetensors file"):
        make(SMALLEST, models=mirror, weights=f"timm/{SMALLEST}")


@pytest.mark.parametrize(
    ("backbone", "fault"),
    [
        ("mobilenetv3_larg_100", "has no network 'mobilenetv3_larg_100'; did you mean 'mobilenetv3_large_100'"),
        ("smal", "did you mean 'small'"),
        ("tf_efficientnetv2_b0.in1", "'tf_efficientnetv2_b0.in1' is not valid: Invalid pretrained tag"),
    ],
)
def test_an_unknown_backbone_names_the_nearest(backbone: str, fault: str) -> None:
    with pytest.raises(BadInput, match=fault):
        make(backbone)


# What is trained


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("mobilenetv3_large_100", ["conv_stem", *(f"blocks.{n}" for n in range(7)), "conv_head"]),
        ("tf_efficientnetv2_b0.in1k", ["conv_stem", *(f"blocks.{n}" for n in range(6)), "conv_head"]),
        ("tf_efficientnetv2_b1.in1k", ["conv_stem", *(f"blocks.{n}" for n in range(6)), "conv_head"]),
    ],
)
def test_units_of_the_published_backbones(backbone: str, expected: list[str]) -> None:
    assert [name for name, _ in units(make_backbone(encoder(backbone)))] == expected


def test_every_parameter_of_a_backbone_is_in_one_unit() -> None:
    for backbone in ("mobilenetv3_large_100", "tf_efficientnetv2_b0.in1k", "inception_v3", "resnet18"):
        with torch.device("meta"):
            network = make_backbone(encoder(backbone))
        counted = [id(parameter) for _, unit in units(network) for parameter in unit.parameters()]
        assert sorted(counted) == sorted(map(id, network.parameters()))


def test_the_last_blocks_of_inception_are_trained_and_its_classifier_always_is() -> None:
    """The original listed these blocks with a comma missing and forgot the classifier, which stayed random."""
    with torch.device("meta"):
        model = make("inception_v3", freeze={"all_but_last": 6}).train()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    blocks = dict.fromkeys(name.split(".")[2] for name in trained if name.startswith("encoder.backbone."))
    assert list(blocks) == ["Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7a", "Mixed_7b", "Mixed_7c"]
    assert [name for name in trained if name.startswith("head.")] == ["head.0.weight", "head.0.bias"]
    frozen = model.encoder.backbone.Mixed_6b
    assert not any(module.training for module in frozen.modules()), "frozen norms keep their statistics"
    assert model.encoder.backbone.Mixed_6c.training


# In the loop


def test_it_trains_with_weights_of_a_file_and_comes_back(
    project: Any, tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SER_MODELS", str(mirror))
    model = {
        "encoder": {
            "kind": "spectrogram_cnn",
            "backbone": SMALLEST,
            "weights": f"timm/{SMALLEST}",
            "features": {
                "sample_rate_hz": 16_000,
                "clip_samples": 16_000,
                "mels": 32,
                "frames": 32,
                "fft_samples": 512,
            },
        },
        "freeze": {"all_but_last": 3},
        "head": {"relu": False},
    }
    file = project(model, {"epochs": 1, "learning_rate": 1e-3})
    app(["check", str(file)], standalone_mode=False)
    app(["train", str(file), "--device", "cpu"], standalone_mode=False)
    run = tmp_path / "runs/mini/tiny/mini/seed-0"
    loaded = SerModel.load(run / "model")
    given = load_file(mirror / "timm" / SMALLEST / "model.safetensors")
    state = loaded.encoder.backbone.state_dict()
    assert torch.equal(state["conv_stem.weight"], given["conv_stem.weight"]), "frozen"
    assert torch.equal(state["bn1.running_mean"], given["bn1.running_mean"]), "frozen, statistics included"
    assert not torch.equal(state["conv_head.weight"], given["conv_head.weight"])
