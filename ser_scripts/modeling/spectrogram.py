"""Spectrogram CNNs: a small network of four convolutions, or any image network of timm, on images of mel energies."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ser_scripts.errors import BadInput
from ser_scripts.features import images
from ser_scripts.modeling.families.base import Clip, Encoder, frame_mask
from ser_scripts.modeling.image_weights import locate_weights
from ser_scripts.modeling.masking import MaskedBatchNorm
from ser_scripts.modeling.weights import config_sha256
from ser_scripts.specs.base import nearest, parse
from ser_scripts.specs.spectrogram import SMALL, ImageFeatures, SpectrogramEncoder

MODEL_TYPE = "spectrogram_cnn"
CHANNELS = (8, 16, 32, 64)
KERNELS = (5, 3, 3, 3)
COLOURS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Mean and standard deviation of red, green and blue."""
IGNORED = ("AuxLogits.",)
"""Weights that files hold and pooled features do not need, besides the classifier."""


class SpectrogramConfig:
    """The spec of a spectrogram CNN as a model folder keeps it."""

    def __init__(self, spec: SpectrogramEncoder) -> None:
        self.spec = spec

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        return {"model_type": MODEL_TYPE, "network": self.spec.model_dump(mode="json")}

    @classmethod
    def from_dict(cls, content: dict[str, Any], source: str) -> SpectrogramConfig:
        """Read what `to_dict` gave.

        Raises:
            BadInput: not the configuration of a spectrogram CNN
        """
        return cls(parse(SpectrogramEncoder, content.get("network"), source=source, kind="spectrogram CNN"))


class SmallBlock(nn.Module):
    """A convolution that halves both sides, ReLU, batch norm over the frames of the clips."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2)
        nn.init.kaiming_normal_(self.convolution.weight, a=0.1)
        assert self.convolution.bias is not None
        nn.init.zeros_(self.convolution.bias)
        self.norm = MaskedBatchNorm(outputs)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, C, H, T), 0 at padded frames, and mask (B, T) -> the same behind the block."""
        hidden = torch.relu(self.convolution(hidden)).permute(0, 3, 2, 1)  # (B, T, H, C)
        mask = mask[:, ::2]
        rows = mask[..., None].expand(hidden.shape[:3]).flatten(1)  # (B, T H)
        normed = self.norm(hidden.flatten(1, 2), rows).view_as(hidden)
        return normed.permute(0, 3, 2, 1), mask


class SmallNetwork(nn.Module):
    """Four blocks of 8, 16, 32 and 64 channels; the mean over frequency is left to be pooled over time."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, *CHANNELS)
        self.blocks = nn.ModuleList(
            SmallBlock(inputs, outputs, kernel)
            for inputs, outputs, kernel in zip(widths, CHANNELS, KERNELS, strict=False)
        )

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (B, 1, H, T), mask (B, T) -> (B, T / 16, 64) and its mask."""
        hidden = hidden.masked_fill(~mask[:, None, None], 0.0)
        for block in self.blocks:
            hidden, mask = block(hidden, mask)
        return hidden.mean(dim=2).transpose(1, 2), mask


class SpectrogramNetwork(Encoder):
    """A spectrogram CNN up to what its classifier reads; pooling and head are those of every model.

    The small network gives a frame for every 16 of the image, so that the mean over time is its adaptive average pool;
    a timm backbone pools by itself and gives one. There is one hidden state either way. `freeze.all_but_last` counts
    the units of the backbone (`units`).
    """

    def __init__(
        self,
        config: SpectrogramConfig,
        extractor: images.ImageExtractor,
        identity: dict[str, str | None],
        backbone: nn.Module,
    ) -> None:
        """Keep the parts; `build_spectrogram` is the public way in."""
        super().__init__(config, extractor, identity)
        self.backbone: Any = backbone
        self.is_small = config.spec.backbone == SMALL
        mean, deviation = COLOURS[config.spec.colour_norm]
        self.colour_mean: torch.Tensor
        self.colour_deviation: torch.Tensor
        self.register_buffer("colour_mean", torch.tensor(mean)[:, None, None], persistent=False)
        self.register_buffer("colour_deviation", torch.tensor(deviation)[:, None, None], persistent=False)

    @property
    def hidden_size(self) -> int:
        """D, the width of the hidden state."""
        return CHANNELS[-1] if self.is_small else int(self.backbone.head_hidden_size)

    @property
    def layers(self) -> nn.ModuleList:
        """None: there is one hidden state."""
        return nn.ModuleList()

    def freezable(self, depth: int) -> list[nn.Module]:
        """The units of the backbone, first to last; see `units`."""
        return [module for _, module in units(self.backbone)]

    @property
    def min_samples(self) -> int:
        """1 with a fixed length; else half a Fourier transform and a sample."""
        return images.min_samples(self.extractor.spec)

    @property
    def fixed_seconds(self) -> float | None:
        """Of the length that every clip is given; None where clips keep their own."""
        spec: ImageFeatures = self.extractor.spec
        return spec.clip_samples / spec.sample_rate_hz if spec.length == "fixed" else None

    def extract(self, clip: Clip) -> Clip:
        """The image of a clip, (frames, mels)."""
        return self.extractor(clip)  # type: ignore[no-any-return]

    def frames_of(self, lengths: torch.Tensor) -> torch.Tensor:
        """Halved four times, rounded up; 1 of a timm backbone."""
        if not self.is_small:
            return torch.ones_like(lengths)
        for _ in CHANNELS:
            lengths = (lengths + 1) // 2
        return lengths

    def forward(
        self, inputs: torch.Tensor, lengths: torch.Tensor, last_layer: int | None = None
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Images (B, T, mels) -> the hidden state (B, T', D), mask (B, T')."""
        image = inputs.to(self.dtype).transpose(1, 2)[:, None]  # (B, 1, mels, T)
        if self.is_small:
            hidden, mask = self.backbone(image, frame_mask(lengths.to(inputs.device), inputs.shape[1]))
            return (hidden,), mask
        coloured = (image.expand(-1, 3, -1, -1) - self.colour_mean) / self.colour_deviation
        coloured = coloured.contiguous(memory_format=torch.channels_last)  # convolutions are up to twice as fast
        pooled = self.backbone(coloured)[:, None]  # (B, 1, D)
        return (pooled,), torch.ones(pooled.shape[:2], dtype=torch.bool, device=pooled.device)

    def enable_gradient_checkpointing(self) -> None:
        """Refused: there are no transformer layers."""
        raise BadInput("training.gradient_checkpointing is for speech encoders; leave it out for a spectrogram CNN")


def units(backbone: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts of a backbone that are frozen or trained as one, first to last.

    The children of the network, those of a container (`nn.Sequential`, `nn.ModuleList`) each for itself; a
    normalisation belongs to what stands before it, and what has no parameters to nothing. So a
    `mobilenetv3_large_100` has the stem, `blocks.0` to `blocks.6`, and `conv_head`.

    Returns:
        name of the first module of a unit, and the unit
    """
    norms = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
    found: list[tuple[str, nn.ModuleList]] = []
    for name, child in backbone.named_children():
        parts = [(name, child)]
        if isinstance(child, nn.Sequential | nn.ModuleList):
            parts = [(f"{name}.{inner}", module) for inner, module in child.named_children()]
        for full_name, module in parts:
            if not any(True for _ in module.parameters()):
                continue
            if found and isinstance(module, norms):
                found[-1][1].append(module)
            else:
                found.append((full_name, nn.ModuleList([module])))
    return list(found)


def build_spectrogram(spec: SpectrogramEncoder, *, models: Path | None) -> SpectrogramNetwork:
    """The network of a spec; weights that no file gives are drawn from torch's generator.

    Args:
        spec: the encoder
        models: the SER_MODELS folder

    Raises:
        BadInput: timm or the weights are missing, timm has no such network, weights do not fit, or image and clip
            length do not go together
    """
    config = SpectrogramConfig(spec)
    extractor = images.ImageExtractor(completed_features(spec))
    if spec.weights is None:
        identity: dict[str, str | None] = {
            "name": f"{spec.backbone}, random weights",
            "revision": None,
            "sha256": config_sha256(config.to_dict()),
        }
        return SpectrogramNetwork(config, extractor, identity, make_backbone(spec))
    file, identity = locate_weights(spec, models=models)
    with torch.random.fork_rng(devices=[]):  # all weights are overwritten: the generator stays where it was
        backbone = make_backbone(spec)
    _fill(backbone, file, spec)
    return SpectrogramNetwork(config, extractor, identity, backbone)


def restore_spectrogram(config: SpectrogramConfig, folder: Path, identity: dict[str, str | None]) -> SpectrogramNetwork:
    """The network of a saved model, with random weights; preprocessor_config.json lies in `folder`."""
    extractor = images.ImageExtractor.from_pretrained(str(folder))
    return SpectrogramNetwork(config, extractor, identity, make_backbone(config.spec))


def completed_features(spec: SpectrogramEncoder) -> ImageFeatures:
    """The image with every number given, from the size that the backbone wants.

    Raises:
        BadInput: timm is missing or has no such network, or the numbers do not go together
    """
    size = None if spec.backbone == SMALL else tuple(_pretrained_cfg(spec.backbone).input_size[-2:])
    try:
        return spec.features.completed(size)
    except ValueError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise BadInput(f"encoder.features do not go with the backbone {spec.backbone!r}: {'; '.join(lines)}") from None


def make_backbone(spec: SpectrogramEncoder) -> nn.Module:
    """The backbone without its classifier, its weights drawn from torch's generator.

    Raises:
        BadInput: timm is missing, has no network of this name, or one that gives no vector per image
    """
    if spec.backbone == SMALL:
        return SmallNetwork()
    _pretrained_cfg(spec.backbone)
    backbone: nn.Module = _timm(spec.backbone).create_model(spec.backbone, pretrained=False, num_classes=0)
    if not hasattr(backbone, "head_hidden_size"):
        raise BadInput(f"encoder.backbone: {spec.backbone!r} of timm does not say how wide its features are")
    return backbone


def count_parameters(spec: SpectrogramEncoder) -> int:
    """Parameters of the backbone, without building it in memory."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make_backbone(spec).parameters())


def _timm(name: str) -> Any:
    """The package timm, which takes 2 s to import.

    Raises:
        BadInput: it is not installed
    """
    if importlib.util.find_spec("timm") is None:
        raise BadInput(
            f"encoder.backbone: {name!r} needs timm, which is not installed; .venv/bin/pip install -e '.[timm]', or "
            f"use the backbone '{SMALL}'"
        )
    return importlib.import_module("timm")


def _pretrained_cfg(name: str) -> Any:
    """What timm knows of a network: input size, name of the classifier.

    Raises:
        BadInput: timm is missing, or has no network of this name
    """
    timm = _timm(name)
    if not timm.is_model(name):
        raise BadInput(
            f"encoder.backbone: timm {timm.__version__} has no network {name!r}"
            f"{nearest(name.partition('.')[0], [SMALL, *timm.list_models()])}"
        )
    try:
        found = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        raise BadInput(f"encoder.backbone: {name!r} is not valid: {error}") from None
    if found is None or not found.input_size:
        raise BadInput(f"encoder.backbone: timm does not say what size of image {name!r} wants")
    return found


def _fill(backbone: nn.Module, file: Path, spec: SpectrogramEncoder) -> None:
    """Load every weight of the backbone; what is missing, left over or of another shape is an error."""
    try:
        given = load_file(file)
    except SafetensorError as error:
        raise BadInput(f"{file} is no whole safetensors file: {error}") from None
    classifier = _pretrained_cfg(spec.backbone).classifier or ()
    heads = tuple(f"{name}." for name in ((classifier,) if isinstance(classifier, str) else classifier))
    wanted = backbone.state_dict()
    # A counter that timm's norms do not read; older files lack it.
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    faults = {
        "missing": sorted(wanted.keys() - given.keys() - counters),
        "unexpected": sorted(name for name in given.keys() - wanted.keys() if not name.startswith((*heads, *IGNORED))),
        "of another shape": sorted(
            f"{name} {tuple(given[name].shape)} for {tuple(wanted[name].shape)}"
            for name in wanted.keys() & given.keys()
            if given[name].shape != wanted[name].shape
        ),
    }
    if any(faults.values()):
        lines = [f"  {what}: {', '.join(names[:5])} ({len(names)})" for what, names in faults.items() if names]
        raise BadInput(f"the weights in {file} do not fit the backbone {spec.backbone!r}:\n" + "\n".join(lines))
    backbone.load_state_dict({name: given.get(name, wanted[name]) for name in wanted})
