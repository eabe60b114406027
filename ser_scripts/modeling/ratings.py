"""Losses of predicted ratings, over the clips of a batch that are rated."""

from __future__ import annotations

import torch

from ser_scripts.specs.ratings import DEFAULT_BETA, RatingsSpec

SMALLEST = 1e-8
"""Added below the fraction of the CCC, so that a batch whose clips are all alike has no division by zero."""


def ratings_loss(
    predicted: torch.Tensor, ratings: torch.Tensor, spec: RatingsSpec, *, num_items: torch.Tensor | int | None = None
) -> torch.Tensor:
    """Mean over the dimensions of the loss over the rated clips of the batch.

    The mean over D divides by D whatever the batch holds; a dimension without rated clips (with `ccc`: fewer than two
    of them) adds 0. For an update that is accumulated over several batches each has its own mean, or CCC, and counts by
    its share of the clips of the update.

    Args:
        predicted: (B, D)
        ratings: (B, D), NaN where a clip is not rated
        spec: the loss
        num_items: clips of the whole update; B when None

    Returns:
        scalar
    """
    rated = ~ratings.isnan()
    truth = ratings.nan_to_num(0.0)
    count = rated.sum(dim=0)  # (D,)
    if spec.loss == "ccc":
        losses = torch.where(count > 1, 1 - batch_ccc(predicted, truth, rated), 0.0)
    else:
        # masked before the square, so that an unrated clip has no gradient
        errors = torch.where(rated, predicted - truth, 0.0).abs()
        if spec.loss == "mse":
            each = errors.square()
        else:
            beta = DEFAULT_BETA if spec.beta is None else spec.beta
            each = torch.where(errors < beta, errors.square() / (2 * beta), errors - beta / 2)
        losses = each.sum(dim=0) / count.clamp(min=1)
    share = 1.0 if num_items is None else len(ratings) / num_items
    return losses.mean() * share


def batch_ccc(predicted: torch.Tensor, truth: torch.Tensor, rated: torch.Tensor) -> torch.Tensor:
    """Concordance correlation of the rated clips of a batch, per dimension (Lin 1989; moments divided by n).

    Args:
        predicted: (B, D)
        truth: (B, D), any finite number where `rated` is false
        rated: (B, D), true where a clip counts

    Returns:
        (D,), in [-1, 1]
    """
    weight = rated.to(predicted.dtype)
    count = weight.sum(dim=0).clamp(min=1)
    mean_x, mean_y = (torch.where(rated, values, 0.0).sum(dim=0) / count for values in (truth, predicted))
    x, y = (torch.where(rated, values - mean, 0.0) for values, mean in ((truth, mean_x), (predicted, mean_y)))
    variances = (x.square().sum(dim=0) + y.square().sum(dim=0)) / count
    return 2 * (x * y).sum(dim=0) / count / (variances + (mean_x - mean_y).square() + SMALLEST)
