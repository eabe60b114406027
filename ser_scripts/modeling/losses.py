"""Cross-entropy and focal loss per clip, with class weights, label smoothing, and targets spread over labels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from ser_scripts.errors import BadInput


def class_weights(counts: Sequence[float]) -> torch.Tensor:
    """Inverse class frequencies, scaled so that the mean weight over the training clips is 1: N / (K n_c).

    Args:
        counts: number of training clips of each label, in the order of the labels; with soft targets their sums

    Returns:
        float32 (K,)

    Raises:
        BadInput: a class without training clips
    """
    empty = [index for index, count in enumerate(counts) if count <= 0]
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


def soft_cross_entropy(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    gamma: float | None = None,
    num_items: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """`cross_entropy` expected under targets that are distributions over the labels, or the focal loss under them.

    Mean over the clips of sum over labels k of target(k) x w(k) x loss with label k. So a mix of two clips has
    share x loss(first label) + (1 - share) x loss(second label), and targets that are one-hot give `cross_entropy` to
    the last bit.

    The loss with label k is -log p(k), or with gamma, (1 - p(k))^gamma x -log p(k) (Lin et al. 2017, equation 4; their
    alpha is the class weight). Smoothing mixes it with the mean over all labels: (1 - s) x loss(k) + s x mean loss.

    Args:
        logits: (B, K)
        targets: (B, K), rows sum to 1
        weights: one per label, (K,)
        label_smoothing: share of every label's target that is spread evenly over all labels, in [0, 1)
        gamma: of the focal loss; None for cross-entropy, which 0 gives as well
        num_items: divide by this number of clips instead of B

    Returns:
        scalar, at least 0
    """
    per_label = -logits.log_softmax(dim=1)  # (B, K): cross-entropy with each label
    if gamma is not None:
        wrong = -torch.expm1(-per_label)  # 1 - p without the rounding of 1 - exp
        per_label = wrong.clamp(min=torch.finfo(wrong.dtype).tiny) ** gamma * per_label  # 0^gamma has no gradient
    if label_smoothing:
        spread = label_smoothing / logits.shape[1]
        per_label = (1 - label_smoothing) * per_label + per_label.sum(dim=1, keepdim=True) * spread
    if weights is not None:
        per_label = per_label * weights
    losses = (targets * per_label).sum(dim=1)
    return losses.sum() / (len(targets) if num_items is None else num_items)


def focal_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    *,
    gamma: float,
    weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
    num_items: torch.Tensor | int | None = None,
) -> torch.Tensor:
    """`soft_cross_entropy` with gamma, of labels: logits (B, K), labels (B,) -> scalar."""
    targets = nn.functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return soft_cross_entropy(
        logits, targets, weights=weights, label_smoothing=label_smoothing, gamma=gamma, num_items=num_items
    )
