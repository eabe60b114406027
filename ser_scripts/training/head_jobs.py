"""What every training of a head has: the job, what it leaves behind, schedule, targets, dropout, scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ser_eval.metrics import present_uar_of_counts
from ser_scripts.specs.model import TrainingSpec
from ser_scripts.training.history import Evaluation
from ser_scripts.training.schedules import schedule
from ser_scripts.training.seeding import derive

EPSILON = 1e-6
"""No standard deviation is taken for smaller."""


@dataclass(frozen=True)
class HeadJob:
    """One training of a head; indices point into the table of embeddings."""

    seed: int
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    class_weights: NDArray[np.float32]
    """(K,)"""
    layer: int | None = None
    """The hidden state that is used; None: a learned weighted sum of all."""
    learning_rate: float = 1e-3
    weight_decay: float = 0.0


@dataclass
class TrainedHead:
    """What a training leaves behind: the weights of the selected evaluation, and the whole history."""

    weights: dict[str, NDArray[np.float32]]
    """`mean`, `scale` (L, D); `layer_weights` (L,) where learned; `norm_w`, `norm_b` of a layer norm; `w1`, `b1` of an
    MLP; `w` (width, K), `b` of the last map. The same of a head of ratings, which begin with `rating_`; where there
    are ratings only, it is the only one."""
    history: list[Evaluation]
    selected: Evaluation
    layer: int | None


class Dropout:
    """Masks of one epoch of one training: each number is kept with probability 1 - share (to 1 / 131,072), scaled."""

    def __init__(self, seed: int, epoch: int, share: float, prefix: str = "") -> None:
        """Take what the masks are drawn from; `prefix` is that of the head, since each draws its own."""
        self.generator = np.random.Generator(np.random.SFC64(derive(f"{prefix}dropout", seed, epoch)))
        self.bar = round(share * (1 << 16)) - (1 << 15)
        self.factor = 1 / (1 - share)

    def mask(self, *shape: int) -> torch.Tensor:
        """The next mask."""
        return self.fill(torch.empty(shape))

    def fill(self, out: torch.Tensor) -> torch.Tensor:
        """The next mask, written into a tensor."""
        size = out.numel()
        drawn = self.generator.integers(0, 1 << 64, size=-(-size // 4), dtype=np.uint64).view(np.int16)[:size]
        torch.ge(torch.from_numpy(drawn).view(out.shape), self.bar, out=out)
        return out.mul_(self.factor)


def rate_of(
    spec: TrainingSpec, peak: float, total: int, per_epoch: int, history: Sequence[Evaluation]
) -> Callable[[int], float]:
    """Learning rate at a number of updates, of a training of `total` updates that reaches `peak`."""
    warmup = int(np.ceil(spec.warmup * total))
    factor = schedule(spec, peak, total=total, warmup=warmup, per_epoch=per_epoch, history=history)
    return lambda step: peak * factor(step)


def goal_of(targets: NDArray[np.float32], class_weights: NDArray[np.float32], smoothing: float) -> NDArray[np.float32]:
    """T such that a clip's loss is -sum of T(k) log p(k): the cross-entropies with each label in the target.

    Each weighs as much as its share of the target times its class weight, and `smoothing` of it is spread over all
    labels. The gradient of the loss by the logits is then sum(T) p - T.
    """
    weighted = targets * class_weights
    spread = weighted.sum(axis=1, keepdims=True) * np.float32(smoothing / targets.shape[1])
    goal: NDArray[np.float32] = (weighted * np.float32(1 - smoothing) + spread).astype(np.float32)
    return goal


Scores = tuple[float, float, float]
"""Loss (without class weights and smoothing), accuracy and UAR of a validation side."""


def scores_of_all(logits: Sequence[torch.Tensor], truths: Sequence[NDArray[np.int64]]) -> list[Scores]:
    """Scores of several heads, each on clips of its own."""
    log_p = torch.cat(list(logits)).double().log_softmax(dim=1).numpy()
    truth = np.concatenate(truths)
    picked, answers = log_p[np.arange(len(truth)), truth], log_p.argmax(axis=1)
    num_labels, found, end = log_p.shape[1], [], 0
    cells = truth * num_labels + answers
    for own in truths:
        start, end = end, end + len(own)
        counts = np.bincount(cells[start:end], minlength=num_labels**2).reshape(num_labels, num_labels)
        loss = -float(picked[start:end].sum()) / len(own)
        found.append((loss, float(np.trace(counts)) / len(own), present_uar_of_counts(counts)))
    return found


def moments_of(own: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean, and 1 / standard deviation, of each number over clips, (n, D) -> (D,) each; summed in double precision."""
    values = own.double()
    mean = values.mean(dim=0)
    deviation = values.sub_(mean).square_().mean(dim=0).sqrt_()  # a sixth of the time of `std`
    return mean.float(), (1 / deviation.clamp_min(EPSILON)).float()


def adamw_step(
    values: torch.Tensor,
    slope: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor,
    steps: torch.Tensor,
    rate: float,
    decay: float,
) -> None:
    """One AdamW step (Loshchilov & Hutter 2019) in place, the `steps`-th; `first` and `second` are its moments."""
    torch._fused_adamw_(
        [values],
        [slope],
        [first],
        [second],
        [],
        [steps],
        lr=rate,
        beta1=0.9,
        beta2=0.999,
        weight_decay=decay,
        eps=1e-8,
        amsgrad=False,
        maximize=False,
    )


def standardised(
    table: torch.Tensor, clips: NDArray[np.int64], layer: int | None, mean: torch.Tensor, scale: torch.Tensor
) -> torch.Tensor:
    """Embeddings of clips, (n, D) of one layer or (n, L, D) of all."""
    rows = torch.from_numpy(clips)
    if layer is None:
        return table[rows].sub_(mean).mul_(scale)
    return table[rows, layer].sub_(mean[0]).mul_(scale[0])
