"""The compact model: channel attention, depthwise-separable residual convolutions, a bidirectional LSTM, all masked."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ser_scripts.errors import BadInput
from ser_scripts.features import mfcc
from ser_scripts.modeling.families.base import Clip, Encoder, frame_mask, silence
from ser_scripts.modeling.masking import MaskedBatchNorm
from ser_scripts.modeling.pooling import masked_mean
from ser_scripts.modeling.weights import config_sha256
from ser_scripts.specs import compact as specs
from ser_scripts.specs.base import parse

MODEL_TYPE = "compact"


class CompactConfig:
    """The spec of a compact network as a model folder keeps it."""

    def __init__(self, spec: specs.CompactEncoder) -> None:
        self.spec = spec

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json."""
        return {"model_type": MODEL_TYPE, "network": self.spec.model_dump(mode="json")}

    @classmethod
    def from_dict(cls, content: dict[str, Any], source: str) -> CompactConfig:
        """Read what `to_dict` gave.

        Raises:
            BadInput: not the configuration of a compact network
        """
        return cls(parse(specs.CompactEncoder, content.get("network"), source=source, kind="compact model"))


class TwoStreams(nn.Module):
    """Two-stream attention over channels: one small network hears the means, and the maxima, of a clip.

    TsPCA of the two-tier system; Woo et al. 2018 (CBAM) add the streams before the sigmoid instead of averaging after.
    """

    def __init__(self, size: int, hidden: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(size, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, size, bias=False), nn.Sigmoid()
        )

    def forward(self, means: torch.Tensor, maxima: torch.Tensor) -> torch.Tensor:
        """(B, C) twice -> weights in (0, 1), (B, C)."""
        out: torch.Tensor = (self.network(means) + self.network(maxima)) / 2
        return out


class ManyHeads(nn.Module):
    """Several two-stream networks, joined by a linear layer and a sigmoid."""

    def __init__(self, size: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(TwoStreams(size, hidden) for _ in range(heads))
        self.join = nn.Linear(heads * size, size, bias=False)

    def forward(self, means: torch.Tensor, maxima: torch.Tensor) -> torch.Tensor:
        """(B, C) twice -> weights in (0, 1), (B, C)."""
        return torch.sigmoid(self.join(torch.cat([head(means, maxima) for head in self.heads], dim=1)))


class ChannelAttention(nn.Module):
    """Multiplies every channel of a clip by a weight that follows from its means and maxima over valid frames."""

    def __init__(self, weigh: TwoStreams | ManyHeads) -> None:
        super().__init__()
        self.weigh = weigh

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, C), mask (B, T) -> (B, T, C)."""
        maxima = frames.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)
        out: torch.Tensor = frames * self.weigh(masked_mean(frames, mask), maxima)[:, None]
        return out


class Block(nn.Module):
    """A convolution over time with batch norm, GELU and dropout; and a 1x1 shortcut, again batch norm and GELU."""

    def __init__(self, inputs: int, outputs: int, stride: int, spec: specs.CompactEncoder) -> None:
        super().__init__()
        self.stride = stride
        between = inputs if spec.depthwise else outputs
        self.over_time = nn.Conv1d(
            inputs,
            between,
            spec.kernel,
            stride=stride,
            padding=spec.kernel // 2,
            groups=inputs if spec.depthwise else 1,
            bias=False,
        )
        self.over_channels = nn.Linear(between, outputs, bias=False) if spec.depthwise else nn.Identity()
        self.norm = MaskedBatchNorm(outputs)
        self.dropout = nn.Dropout(spec.dropout)
        self.shortcut = nn.Linear(inputs, outputs, bias=False) if spec.residual else None
        self.last_norm = MaskedBatchNorm(outputs) if spec.residual else None

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, T, C), 0 at padded frames, and mask (B, T) -> the same behind the block."""
        hidden = self.over_channels(self.over_time(frames.transpose(1, 2)).transpose(1, 2))
        mask = mask[:, :: self.stride]
        hidden = self.dropout(nn.functional.gelu(self.norm(hidden, mask)))
        if self.shortcut is not None and self.last_norm is not None:
            hidden = nn.functional.gelu(self.last_norm(hidden + self.shortcut(frames[:, :: self.stride]), mask))
        return hidden, mask


class BidirectionalLstm(nn.Module):
    """LSTM layers in both directions, each beginning at an end of the clip itself, not of the padded batch.

    The backward direction reads every clip turned around in its place. Packed sequences give the same, but their
    backward pass is four times slower on a CPU.
    """

    def __init__(self, inputs: int, hidden: int, layers: int, dropout: float) -> None:
        super().__init__()
        sizes = [inputs, *[2 * hidden] * (layers - 1)]
        self.forwards = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in sizes)
        self.backwards = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in sizes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, C), mask (B, T) -> (B, T, 2 hidden)."""
        order = turned(mask)
        for number, (ahead, back) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            if number:
                frames = self.dropout(frames)
            frames = torch.cat([ahead(frames)[0], reorder(back(reorder(frames, order))[0], order)], dim=2)
        return frames


def turned(mask: torch.Tensor) -> torch.Tensor:
    """Row numbers of flattened (B, T) that turn the valid frames of each clip around and leave padding: (B * T,)."""
    batch, frames = mask.shape
    places = torch.arange(frames, device=mask.device).expand(batch, frames)
    turned = torch.where(mask, mask.sum(dim=1, keepdim=True) - 1 - places, places)
    return (turned + frames * torch.arange(batch, device=mask.device)[:, None]).flatten()


def reorder(frames: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Rows of (B, T, D) in another order."""
    return frames.flatten(0, 1).index_select(0, order).view_as(frames)


class CompactNetwork(Encoder):
    """The compact model up to its frames; pooling and head are those of every model. It has one hidden state.

    Nothing of it is pretrained, so that there is no front end to freeze.
    """

    def __init__(self, config: CompactConfig, extractor: mfcc.FrameExtractor, identity: dict[str, str | None]) -> None:
        """Build the modules with random weights (torch's generator)."""
        super().__init__(config, extractor, identity)
        spec = config.spec
        size = spec.features.size
        self.input_norm = MaskedBatchNorm(size) if spec.input_norm else None
        self.attention: ChannelAttention | None = None
        if spec.attention == "multi_head":
            self.attention = ChannelAttention(ManyHeads(size, max(4, size // 32), spec.attention_heads))
        elif spec.attention == "tspca":
            self.attention = ChannelAttention(TwoStreams(size, max(4, size // 8)))
        self.strides = spec.strides or (1,) * len(spec.channels)
        widths = (size, *spec.channels)
        self.blocks = nn.ModuleList(
            Block(inputs, outputs, stride, spec)
            for inputs, outputs, stride in zip(widths, spec.channels, self.strides, strict=False)
        )
        self.recurrent = (
            BidirectionalLstm(spec.channels[-1], spec.lstm_hidden, spec.lstm_layers, spec.dropout)
            if spec.lstm_layers
            else None
        )

    @property
    def hidden_size(self) -> int:
        """D, the width of the hidden state."""
        return int(self.config.spec.hidden_size)

    @property
    def layers(self) -> nn.ModuleList:
        """None: there is one hidden state."""
        return nn.ModuleList()

    @property
    def min_samples(self) -> int:
        """Half a Fourier transform and a sample (257, 16 ms)."""
        return mfcc.min_samples(self.config.spec.features)

    def extract(self, clip: Clip) -> Clip:
        """MFCCs or log-mel energies, (T, D)."""
        return self.extractor(clip)  # type: ignore[no-any-return]

    def frames_of(self, lengths: torch.Tensor) -> torch.Tensor:
        """Divided by each stride, rounded up."""
        for stride in self.strides:
            lengths = (lengths + stride - 1) // stride
        return lengths

    def forward(
        self, inputs: torch.Tensor, lengths: torch.Tensor, last_layer: int | None = None
    ) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """Features (B, F, bins) -> the hidden state (B, T, D), mask (B, T)."""
        mask = frame_mask(lengths.to(inputs.device), inputs.shape[1])
        hidden = silence(inputs.to(self.dtype), mask)
        if self.input_norm is not None:
            hidden = self.input_norm(hidden, mask)
        if self.attention is not None:
            hidden = self.attention(hidden, mask)
        for block in self.blocks:
            hidden, mask = block(hidden, mask)
        if self.recurrent is not None:
            hidden = self.recurrent(hidden, mask)
        return (hidden,), mask

    def enable_gradient_checkpointing(self) -> None:
        """Refused: there are no layers to recompute."""
        raise BadInput("training.gradient_checkpointing is for pretrained encoders; leave it out for a compact model")


def build_compact(spec: specs.CompactEncoder) -> CompactNetwork:
    """The network of a spec, its weights drawn from torch's generator."""
    config = CompactConfig(spec)
    identity = {"name": MODEL_TYPE, "revision": None, "sha256": config_sha256(config.to_dict())}
    return CompactNetwork(config, mfcc.FrameExtractor(spec.features), identity)
