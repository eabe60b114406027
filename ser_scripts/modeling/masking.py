"""What keeps the padding of a batch out of a clip's result: frame masks, and norms over valid frames only."""

from __future__ import annotations

import torch
from torch import nn


def frame_mask(lengths: torch.Tensor, frames: int) -> torch.Tensor:
    """True where a frame belongs to the clip.

    Args:
        lengths: number of valid frames per clip, (B,)
        frames: T, the length of the padded batch

    Returns:
        bool (B, T)
    """
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def conv_length(length: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """Length after a convolution without padding; 0 when the input is shorter than the kernel."""
    return ((length - kernel) // stride + 1).clamp(min=0)


def receptive_field(kernels: list[int], strides: list[int], frames: int = 1) -> int:
    """The number of input samples from which a stack of convolutions without padding makes `frames` frames."""
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        frames = (frames - 1) * stride + kernel
    return frames


def masked_group_norm(hidden: torch.Tensor, mask: torch.Tensor, norm: nn.GroupNorm) -> torch.Tensor:
    """Group normalisation whose statistics run over the valid frames of each clip.

    `torch.nn.GroupNorm` on (B, C, T) takes its statistics over time, so that with padded batches a clip's values depend
    on the length of its batch mates. On a clip without padding both give the same.

    Args:
        hidden: (B, C, T)
        mask: True at valid frames, (B, T)
        norm: the layer whose groups, epsilon and affine parameters are used

    Returns:
        (B, C, T); what stands at padded frames is meaningless
    """
    batch, channels, frames = hidden.shape
    groups = hidden.float().view(batch, norm.num_groups, -1, frames)
    valid = mask[:, None, None, :]
    count = mask.sum(dim=1).clamp(min=1)[:, None, None, None] * groups.shape[2]
    mean = groups.masked_fill(~valid, 0.0).sum(dim=(2, 3), keepdim=True) / count
    groups = groups - mean
    variance = groups.masked_fill(~valid, 0.0).square().sum(dim=(2, 3), keepdim=True) / count
    normed = (groups * torch.rsqrt(variance + norm.eps)).view(batch, channels, frames).to(hidden.dtype)
    if norm.affine:
        normed = normed * norm.weight[:, None] + norm.bias[:, None]
    return normed


class BatchNorm(nn.BatchNorm1d):
    """Batch norm over (N, C) that uses its running statistics when a training batch has a single row.

    One row has no variance: torch raises there, and the last batch of an epoch often has one clip.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, C) -> (N, C)."""
        if self.training and len(input) == 1:
            return nn.functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(input)


class MaskedBatchNorm(BatchNorm):
    """Batch norm over the valid frames of a padded batch; padded frames come out as 0."""

    def forward(self, input: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """(B, T, C) and mask (B, T) -> (B, T, C)."""
        assert mask is not None
        normed = torch.zeros_like(input)
        normed[mask] = super().forward(input[mask])
        return normed
