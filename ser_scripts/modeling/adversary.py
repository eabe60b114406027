"""An adversary: it learns to tell who speaks from the pooled vector, and the model learns that it cannot."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import nn

from ser_scripts.specs.ratings import AdversarySpec

PREFIX = "adversary."
"""Begin of the names of its parameters in the model."""


class _Reversal(torch.autograd.Function):
    """The identity forwards; backwards the gradient times -weight (Ganin et al. 2016, section 4.2)."""

    @staticmethod
    def forward(context: Any, vectors: torch.Tensor, weight: float) -> torch.Tensor:
        context.weight = weight
        return vectors.view_as(vectors)

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return -context.weight * gradients[0], None


def reverse_gradient(vectors: torch.Tensor, weight: float) -> torch.Tensor:
    """The same vectors, whose gradient arrives multiplied by -weight."""
    return cast(torch.Tensor, _Reversal.apply(vectors, weight))  # type: ignore[no-untyped-call]


def weight_at(spec: AdversarySpec, progress: float) -> float:
    """The weight of the reversed gradient when a share of the training is done.

    Args:
        spec: the adversary
        progress: updates done of all updates, in [0, 1]
    """
    return spec.weight if spec.schedule == "constant" else spec.weight * (2 / (1 + math.exp(-10 * progress)) - 1)


class Adversary(nn.Module):
    """Reversal, a hidden layer, ReLU, logits of the speakers or genders."""

    def __init__(self, spec: AdversarySpec, size: int, num_classes: int) -> None:
        """Draw the weights from torch's generator.

        Args:
            spec: the adversary
            size: of the pooled vector, D
            num_classes: speakers or genders of training, S
        """
        super().__init__()
        self.spec = spec
        self.layers = nn.Sequential(nn.Linear(size, spec.hidden), nn.ReLU(), nn.Linear(spec.hidden, num_classes))

    def forward(
        self,
        pooled: torch.Tensor,
        labels: torch.Tensor,
        *,
        progress: float,
        num_items: torch.Tensor | int | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Its loss on a batch, which is worth 0 and has the gradient of a cross-entropy.

        A value would change the record of the training loss of the model, which is not what it measures.

        Args:
            pooled: (B, D)
            labels: (B,), -1 where a clip does not count
            progress: share of the training that is done
            num_items: clips of the whole update; B when None

        Returns:
            the loss, and three sums over the batch without a gradient: cross-entropy, right answers, clips that count
        """
        known = labels >= 0
        logits = self.layers(reverse_gradient(pooled, weight_at(self.spec, progress)))
        losses = nn.functional.cross_entropy(logits, labels, ignore_index=-1, reduction="none")
        total = losses.sum() / (len(labels) if num_items is None else num_items)
        right = (logits.argmax(dim=1) == labels) & known
        measured = torch.stack([losses.sum().detach(), right.sum().to(losses.dtype), known.sum().to(losses.dtype)])
        return total - total.detach(), measured
