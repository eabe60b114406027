"""Frames to one vector per clip, over valid frames only: (B, T, D), mask (B, T) -> (B, D)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from ser_scripts.modeling.masking import BatchNorm, MaskedBatchNorm

Kind = Literal["mean", "sum", "max", "mean_std", "attention", "attentive_stats", "ecapa"]


def build_pooling(kind: Kind, size: int) -> nn.Module:
    """The pooling layer of a kind for frames of width D = `size`."""
    if kind == "attention":
        return Attention(size)
    if kind == "attentive_stats":
        return AttentiveStatistics(size)
    if kind == "ecapa":
        return Ecapa(size)
    return SimplePooling(kind)


def pooled_size(kind: Kind, size: int) -> int:
    """Numbers per clip that a kind makes of frames of width D = `size`."""
    return 2 * size if kind == "mean_std" else size


def masked_mean(frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B, T, D), mask (B, T) -> (B, D)."""
    return frames.masked_fill(~mask[..., None], 0.0).sum(dim=1) / mask.sum(dim=1, keepdim=True)


class SimplePooling(nn.Module):
    """Mean, sum, maximum, or mean and standard deviation over the valid frames."""

    def __init__(self, kind: Literal["mean", "sum", "max", "mean_std"]) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, D), mask (B, T) -> (B, D), or (B, 2 D)."""
        if self.kind == "mean_std":
            return weighted_statistics(frames, (mask / mask.sum(dim=1, keepdim=True))[..., None])
        if self.kind == "mean":
            return masked_mean(frames, mask)
        if self.kind == "sum":
            return frames.masked_fill(~mask[..., None], 0.0).sum(dim=1)
        return frames.masked_fill(~mask[..., None], -torch.inf).amax(dim=1)


def weighted_statistics(frames: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean and standard deviation under weights that sum to 1 over time.

    Args:
        frames: (B, T, D)
        weights: (B, T, D) or (B, T, 1), 0 at padded frames

    Returns:
        (B, 2 D)
    """
    frames = frames.masked_fill(weights == 0, 0.0)
    mean = (weights * frames).sum(dim=1)
    variance = (weights * (frames - mean[:, None]).square()).sum(dim=1)
    return torch.cat([mean, (variance + 1e-5).sqrt()], dim=1)  # the root of 0 has no gradient


class Attention(nn.Module):
    """The mean under one learned weight per frame."""

    def __init__(self, size: int, attention_size: int = 64) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(size, attention_size), nn.Tanh(), nn.Linear(attention_size, 1))

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, D), mask (B, T) -> (B, D)."""
        weights = self.score(frames).masked_fill(~mask[..., None], -torch.inf).softmax(dim=1)
        out: torch.Tensor = (weights * frames.masked_fill(~mask[..., None], 0.0)).sum(dim=1)
        return out


class AttentiveStatistics(nn.Module):
    """Attentive statistics pooling (Okabe et al. 2018): one weight per frame, mean and deviation, a linear map to D."""

    def __init__(self, size: int, attention_size: int = 128) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.Linear(size, attention_size), nn.Tanh(), nn.Linear(attention_size, 1))
        self.norm = BatchNorm(2 * size)
        self.project = nn.Linear(2 * size, size)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, D), mask (B, T) -> (B, D)."""
        scores = self.attention(frames).masked_fill(~mask[..., None], -torch.inf)
        out: torch.Tensor = self.project(self.norm(weighted_statistics(frames, scores.softmax(dim=1))))
        return out


class MaskedConv(nn.Module):
    """Convolution over time with zeros beyond the clip's end, ReLU, batch norm over the valid frames."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=dilation * (kernel - 1) // 2)
        self.norm = MaskedBatchNorm(outputs)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, C), mask (B, T) -> (B, T, C'), 0 at padded frames."""
        frames = frames.masked_fill(~mask[..., None], 0.0)
        hidden = self.conv(frames.transpose(1, 2)).transpose(1, 2)
        out: torch.Tensor = self.norm(torch.relu(hidden), mask)
        return out


class SERes2Block(nn.Module):
    """The block of ECAPA-TDNN: 1x1, Res2 convolutions in `scale` groups, 1x1, squeeze-excitation, residual."""

    def __init__(self, channels: int, kernel: int, dilation: int, scale: int, bottleneck: int) -> None:
        super().__init__()
        width = channels // scale
        self.enter = MaskedConv(channels, channels)
        self.groups = nn.ModuleList(MaskedConv(width, width, kernel, dilation) for _ in range(scale - 1))
        self.leave = MaskedConv(channels, channels)
        self.excite = nn.Sequential(
            nn.Linear(channels, bottleneck), nn.ReLU(), nn.Linear(bottleneck, channels), nn.Sigmoid()
        )

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, C), mask (B, T) -> (B, T, C)."""
        first, *others = self.enter(frames, mask).chunk(len(self.groups) + 1, dim=2)
        parts, carry = [first], torch.zeros_like(first)
        for group, part in zip(self.groups, others, strict=True):
            carry = group(part + carry, mask)
            parts.append(carry)
        hidden = self.leave(torch.cat(parts, dim=2), mask)
        out: torch.Tensor = frames + hidden * self.excite(masked_mean(hidden, mask))[:, None]
        return out


class Ecapa(nn.Module):
    """ECAPA-TDNN (Desplanques et al. 2020) as a pooling layer, smaller than the published one: frames of width D -> D.

    Three SE-Res2 blocks with dilations 2, 3, 4, their outputs joined, statistics with one attention per channel that
    also sees the clip's mean and deviation. Batch norms and squeeze run over valid frames only.
    """

    def __init__(self, size: int, channels: int = 256, attention_size: int = 128, scale: int = 8) -> None:
        super().__init__()
        joined = 3 * channels
        self.enter = MaskedConv(size, channels, kernel=5)
        self.blocks = nn.ModuleList(SERes2Block(channels, 3, dilation, scale, attention_size) for dilation in (2, 3, 4))
        self.join = nn.Sequential(nn.Linear(joined, joined), nn.ReLU())
        self.attend = MaskedConv(3 * joined, attention_size)
        self.score = nn.Linear(attention_size, joined)
        self.norm = BatchNorm(2 * joined)
        self.project = nn.Linear(2 * joined, size)

    def forward(self, frames: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, T, D), mask (B, T) -> (B, D)."""
        hidden = self.enter(frames, mask)
        outputs = []
        for block in self.blocks:
            hidden = block(hidden, mask)
            outputs.append(hidden)
        hidden = self.join(torch.cat(outputs, dim=2))  # (B, T, 3 C)
        uniform = mask[..., None] / mask.sum(dim=1)[:, None, None]
        context = weighted_statistics(hidden, uniform)[:, None].expand(-1, hidden.shape[1], -1)
        scores = self.score(torch.tanh(self.attend(torch.cat([hidden, context], dim=2), mask)))
        weights = scores.masked_fill(~mask[..., None], -torch.inf).softmax(dim=1)
        out: torch.Tensor = self.project(self.norm(weighted_statistics(hidden, weights)))
        return out
