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
    share = 1.0 if num_items is None else len(ratings) / num_items
    return rating_losses(predicted, ratings, spec).mean() * share


def rating_losses(predicted: torch.Tensor, ratings: torch.Tensor, spec: RatingsSpec) -> torch.Tensor:
    """Loss of each dimension over the rated clips of a batch, or of several at once: (..., B, D) -> (..., D)."""
    rated = ~ratings.isnan()
    truth = ratings.nan_to_num(0.0)
    count = rated.sum(dim=-2)  # (..., D)
    if spec.loss == "ccc":
        return torch.where(count > 1, 1 - batch_ccc(predicted, truth, rated), 0.0)
    # masked before the square, so that an unrated clip has no gradient
    errors = torch.where(rated, predicted - truth, 0.0).abs()
    if spec.loss == "mse":
        each = errors.square()
    else:
        beta = _beta(spec)
        each = torch.where(errors < beta, errors.square() / (2 * beta), errors - beta / 2)
    return each.sum(dim=-2) / count.clamp(min=1)


def ratings_slope(predicted: torch.Tensor, ratings: torch.Tensor, spec: RatingsSpec) -> torch.Tensor:
    """Gradient of the mean over D of `rating_losses` by what is predicted, written out: (..., B, D) -> (..., B, D).

    With c the CCC and q the number below its fraction, dc/dy(i) = 2 / (n q) x (x(i) - mean(x) - c (y(i) - mean(x))).
    """
    rated = ~ratings.isnan()
    truth = ratings.nan_to_num(0.0)
    count = rated.sum(dim=-2, keepdim=True)
    if spec.loss == "ccc":
        ccc, below, mean_x = _ccc(predicted, truth, rated)
        slope = (truth - mean_x).sub_(ccc * (predicted - mean_x)).mul_(-2 / (count.clamp(min=1) * below))
        rated = rated & (count > 1)
    else:
        errors = predicted - truth
        slope = 2 * errors if spec.loss == "mse" else (errors / _beta(spec)).clamp_(-1, 1)
        slope = slope / count.clamp(min=1)
    return torch.where(rated, slope, 0.0).div_(ratings.shape[-1])


def batch_ccc(predicted: torch.Tensor, truth: torch.Tensor, rated: torch.Tensor) -> torch.Tensor:
    """Concordance correlation of the rated clips of a batch, per dimension (Lin 1989; moments divided by n).

    Args:
        predicted: (..., B, D)
        truth: (..., B, D), any finite number where `rated` is false
        rated: (..., B, D), true where a clip counts

    Returns:
        (..., D), in [-1, 1]
    """
    return _ccc(predicted, truth, rated)[0].squeeze(-2)


def _ccc(
    predicted: torch.Tensor, truth: torch.Tensor, rated: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The CCC, the number below its fraction, and the mean of the ratings, (..., 1, D) each."""
    count = _sum(rated.to(predicted.dtype)).clamp(min=1)
    mean_x, mean_y = (_sum(torch.where(rated, values, 0.0)) / count for values in (truth, predicted))
    x, y = (torch.where(rated, values - mean, 0.0) for values, mean in ((truth, mean_x), (predicted, mean_y)))
    variances = (_sum(x.square()) + _sum(y.square())) / count
    below = variances + (mean_x - mean_y).square() + SMALLEST
    return 2 * _sum(x * y) / count / below, below, mean_x


def _sum(values: torch.Tensor) -> torch.Tensor:
    """Over the clips of a batch, (..., B, D) -> (..., 1, D)."""
    return values.sum(dim=-2, keepdim=True)


def _beta(spec: RatingsSpec) -> float:
    return DEFAULT_BETA if spec.beta is None else spec.beta
