"""What a head learns: classes, ratings; the gradient at its outputs, and the loss of an epoch.

The clips of an epoch lie one behind the other in their order, batch after batch. Leading dimensions are those of
trainings that go through one product (`linear_heads`); each has losses of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ser_scripts.modeling.ratings import rating_losses, ratings_slope
from ser_scripts.specs.ratings import RatingsSpec
from ser_scripts.training.history import rating_scores

RATING = "rating_"
"""The names of the weights of a head of ratings begin with it; those of a head of classes have no prefix."""
MIDDLE = 0.5
"""Of the scale: where the answers of a head of ratings start."""
NEAR = 0.1
"""By which the first numbers of the last map of ratings are smaller than those of classes. Hidden states are
standardised here, so that answers would else start with a deviation of some .6 of the scale, several times that of any
ratings, and a linear head would need its training to unlearn them. (From 0 itself the gradient of the bias under the
CCC would begin as nothing but rounding, which AdamW makes whole steps of.)"""


@dataclass(frozen=True)
class Rated:
    """The ratings that heads learn to predict."""

    spec: RatingsSpec
    values: NDArray[np.float64]
    """In [0, 1], (N, D); NaN where a clip has none."""

    def tensor(self, clips: NDArray[np.int64]) -> torch.Tensor:
        """Those of some clips, float32 (n, D)."""
        return torch.from_numpy(self.values[clips].astype(np.float32))

    def scores(self, clips: NDArray[np.int64], predicted: torch.Tensor) -> tuple[tuple[str, float], ...]:
        """`history.rating_scores` of validation clips, given their predictions (n, D)."""
        return tuple(rating_scores(self.spec.dimensions, self.values[clips], predicted.numpy()))


class Task(Protocol):
    """One head's task in one training, or in the trainings of a group."""

    prefix: str
    """Of the names of the head's weights."""
    outputs: int

    def begin(self, rows: torch.Tensor) -> None:
        """Take up the order of an epoch: places of training clips, (..., n)."""
        ...

    def slope(self, outputs: torch.Tensor, start: int, end: int) -> torch.Tensor:
        """Gradient of the loss of the batch that holds the clips from `start` to `end`, (..., B, outputs)."""
        ...

    def loss(self, end: int) -> torch.Tensor:
        """Sum of the losses of the epoch's clips up to `end`, float64, (...)."""
        ...


class Classes:
    """Cross-entropy with targets spread over the labels (`head_jobs.goal_of`)."""

    prefix = ""

    def __init__(self, goal: torch.Tensor, share: torch.Tensor) -> None:
        """Take goals and shares.

        Args:
            goal: of all training clips, (M, K)
            share: of each clip in the mean over its batch, by place in the epoch, (..., n, 1)
        """
        self.goal, self.share, self.outputs = goal, share, goal.shape[1]
        self.log_p = torch.empty(*share.shape[:-1], self.outputs)
        """Of the clips of the epoch, (..., n, K)."""

    def begin(self, rows: torch.Tensor) -> None:
        """See `Task`."""
        self.wanted = self.goal[rows]
        self.scaled = self.wanted * self.share
        self.weight = self.scaled.sum(dim=-1, keepdim=True)

    def slope(self, outputs: torch.Tensor, start: int, end: int) -> torch.Tensor:
        """See `Task`."""
        part = outputs.log_softmax(dim=-1)
        self.log_p[..., start:end, :] = part
        return part.exp_().mul_(self.weight[..., start:end, :]).sub_(self.scaled[..., start:end, :])

    def loss(self, end: int) -> torch.Tensor:
        """See `Task`."""
        return -(self.wanted[..., :end, :] * self.log_p[..., :end, :]).sum(dim=(-2, -1), dtype=torch.float64)

    def answers(self, end: int) -> NDArray[np.int64]:
        """The label that each clip of the epoch got, up to `end`, (..., end)."""
        found: NDArray[np.int64] = self.log_p[..., :end, :].argmax(dim=-1).numpy()
        return found


class Ratings:
    """A loss of `modeling.ratings` over the rated clips of each batch, times its weight."""

    prefix = RATING

    def __init__(self, ratings: torch.Tensor, clips: torch.Tensor, size: int, spec: RatingsSpec) -> None:
        """Take ratings.

        Args:
            ratings: of all training clips, NaN where there is none, (M, D)
            clips: of each training, (...)
            size: of a batch
            spec: the loss and its weight
        """
        self.ratings, self.clips, self.size, self.spec = ratings, clips, size, spec
        self.outputs = ratings.shape[1]
        self.room = -(-int(clips.max()) // size) * size
        self.answers = torch.zeros(*clips.shape, self.room, self.outputs)

    def begin(self, rows: torch.Tensor) -> None:
        """See `Task`; places behind a training's last clip must be those of clips without ratings."""
        missing = self.room - rows.shape[-1]
        self.wanted = torch.nn.functional.pad(self.ratings[rows], (0, 0, 0, missing), value=torch.nan)

    def slope(self, outputs: torch.Tensor, start: int, end: int) -> torch.Tensor:
        """See `Task`."""
        self.answers[..., start:end, :] = outputs
        return ratings_slope(outputs, self.wanted[..., start:end, :], self.spec).mul_(self.spec.weight)

    def loss(self, end: int) -> torch.Tensor:
        """See `Task`; the loss of a batch counts by its clips."""
        batches = -(-end // self.size)
        shape = (*self.clips.shape, batches, self.size, self.outputs)
        answers, wanted = (part[..., : batches * self.size, :].reshape(shape) for part in (self.answers, self.wanted))
        losses = rating_losses(answers, wanted, self.spec).mean(dim=-1, dtype=torch.float64)
        counts = (self.clips[..., None] - torch.arange(batches) * self.size).clamp(0, self.size)
        return (losses * counts).sum(dim=-1) * self.spec.weight
