"""Cross-entropy with class weights and label smoothing, per clip."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ser_scripts.errors import BadInput


def class_weights(counts: Sequence[int]) -> torch.Tensor:
    """Inverse class frequencies, scaled so that the mean weight over the training clips is 1: N / (K n_c).

    Args:
        counts: number of training clips of each label, in the order of the labels

    Returns:
        float32 (K,)

    Raises:
        BadInput: a class without training clips
    """
    empty = [index for index, count in enumerate(counts) if count < 1]
    if empty:
        which = ", ".join(map(str, empty))
        raise BadInput(f"class weights: label(s) number {which} have no training clip; clips per label: {list(counts)}")
    total = sum(counts)
    return torch.tensor([total / (len(counts) * count) for count in counts], dtype=torch.float32)


def cross_entropy(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    num_items: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """Mean over the clips of w(label) x cross-entropy.

    The sum is divided by the number of clips, not by the sum of their weights as torch's own weighted mean does: that
    mean would make a clip's share depend on the labels of its batch mates, and cancel the weight in batches of one.

    Args:
        logits: (B, K)
        labels: (B,), indices
        weights: one per label, (K,)
        label_smoothing: share of the target that is spread evenly over all labels, in [0, 1)
        num_items: divide by this number of clips instead of B, for an update accumulated over several batches

    Returns:
        scalar, at least 0
    """
    losses = nn.functional.cross_entropy(logits, labels, label_smoothing=label_smoothing, reduction="none")
    if weights is not None:
        losses = losses * weights[labels]
    return losses.sum() / (len(labels) if num_items is None else num_items)
