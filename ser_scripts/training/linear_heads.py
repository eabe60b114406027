"""Linear heads of one layer, `GROUP` of them in each product: what a step costs beside the arithmetic is paid once.

A step of one linear head is some 100,000 multiplications, less work than calling the ten operations it consists of.
So trainings with equally many batches and one learning rate go through batched products. A group always has `GROUP`
members (a smaller one is filled up with repetitions), so that every shape, and with it every bit, depends on a training
alone and not on its company.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ser_scripts.errors import Finding
from ser_scripts.specs.model import HeadSpec, LossSpec, TrainingSpec
from ser_scripts.training.head_jobs import (
    Dropout,
    HeadJob,
    TrainedHead,
    adamw_step,
    goal_of,
    moments_of,
    rate_of,
    scores_of_all,
    standardised,
)
from ser_scripts.training.history import Evaluation, select, should_stop
from ser_scripts.training.seeding import derive

GROUP = 16
"""Trainings that go through one batched product."""

GroupKey = tuple[int, float, float]


def group_key(job: HeadJob, head: HeadSpec, training: TrainingSpec) -> GroupKey | None:
    """What trainings of one group share: batches, learning rate, weight decay; None for a training that needs its own.

    That is one of an MLP, of learned layer weights, with layer norm, or with a schedule that follows validation.
    """
    if head.kind != "linear" or head.layer_norm or job.layer is None or training.scheduler == "plateau":
        return None
    return -(-len(job.train) // training.batch_size), job.learning_rate, job.weight_decay


class _Side:
    """The clips of one training, standardised, (n, D), with what the head does before its map but for dropout."""

    def __init__(self, table: torch.Tensor, job: HeadJob, head: HeadSpec) -> None:
        mean, scale = moments_of(table[torch.from_numpy(job.train), job.layer])
        self.mean, self.scale = mean[None], scale[None]
        self.train = standardised(table, job.train, job.layer, self.mean, self.scale)
        self.validation = standardised(table, job.validation, job.layer, self.mean, self.scale)
        if head.relu:
            self.train.relu_()
            self.validation.relu_()


def train_group(
    table: torch.Tensor,
    labels: NDArray[np.int64],
    targets: NDArray[np.float32],
    jobs: Sequence[HeadJob],
    head: HeadSpec,
    loss: LossSpec,
    spec: TrainingSpec,
) -> list[TrainedHead]:
    """Train at most `GROUP` jobs of one `group_key`.

    Args:
        table: embeddings of all clips, (N, L, D)
        labels: index of each clip's label, (N,)
        targets: the distribution over labels that each clip is trained on, (N, K)
        jobs: the trainings
        head: a linear one
        loss: label smoothing
        spec: epochs, batch size, schedule, selection, early stopping

    Raises:
        Finding: a loss is not finite
    """
    sides = [_Side(table, job, head) for job in jobs]
    size, num_labels, width = spec.batch_size, targets.shape[1], table.shape[2]
    batches = -(-len(jobs[0].train) // size)
    room = batches * size  # places of an epoch; those behind a training's last clip weigh nothing
    members = [min(number, len(jobs) - 1) for number in range(GROUP)]
    x = torch.zeros(GROUP, room, width)
    goal = torch.zeros(GROUP, room, num_labels)
    share = torch.zeros(GROUP, room, 1)  # of each clip in the mean over its batch, by place in the epoch
    for place, member in enumerate(members):
        clips = len(jobs[member].train)
        x[place, :clips] = sides[member].train
        made = goal_of(targets[jobs[member].train], jobs[member].class_weights, loss.label_smoothing)
        goal[place, :clips] = torch.from_numpy(made)
        share[place, :clips] = 1 / size
        share[place, (batches - 1) * size : clips] = 1 / (clips - (batches - 1) * size)
    weights, bias = _start(jobs, members, num_labels, width)
    slopes = [torch.zeros_like(weights), torch.zeros_like(bias)]
    moments = [[torch.zeros_like(part) for part in (weights, bias)] for _ in range(2)]
    steps = [torch.zeros(()), torch.zeros(())]
    best: list[tuple[torch.Tensor, torch.Tensor]] = [(weights[0], bias[0])] * len(jobs)
    history: list[list[Evaluation]] = [[] for _ in jobs]
    stopped = [False] * len(jobs)
    tops = [targets[job.train].argmax(axis=1) for job in jobs]
    truths = [labels[job.validation] for job in jobs]
    total = max(1, int(np.ceil(spec.epochs * batches)))
    rate = rate_of(spec, jobs[0].learning_rate, total, batches, [])
    flat, flat_goal = x.view(GROUP * room, width), goal.view(GROUP * room, num_labels)
    offsets = torch.arange(GROUP)[:, None] * room
    log_p = torch.empty(GROUP, room, num_labels)
    mask = torch.ones(GROUP, size, width)
    done = 0
    for epoch in range(int(np.ceil(spec.epochs))):
        orders = [_order(job, epoch, room) for job in jobs]
        rows = torch.from_numpy(np.stack([orders[member] for member in members])) + offsets
        wanted = flat_goal[rows]
        scaled = wanted * share
        weight = scaled.sum(dim=2, keepdim=True)
        dropouts = [Dropout(job.seed, epoch, head.dropout) for job in jobs] if head.dropout else []
        end = 0
        for start in range(0, min(room, (total - done) * size), size):
            end = start + size
            batch = flat.index_select(0, rows[:, start:end].reshape(-1)).view(GROUP, size, width)
            if dropouts:
                for number, dropout in enumerate(dropouts):
                    used = min(size, len(jobs[number].train) - start)
                    dropout.fill(mask[number, :used])
                batch.mul_(mask)
            logits = torch.baddbmm(bias[:, None], batch, weights.transpose(1, 2))
            part = logits.log_softmax(dim=2)
            log_p[:, start:end] = part
            slope = part.exp_().mul_(weight[:, start:end]).sub_(scaled[:, start:end])
            torch.bmm(slope.transpose(1, 2), batch, out=slopes[0])
            torch.sum(slope, 1, out=slopes[1])
            if head.l2:
                slopes[0].add_(weights, alpha=2 * head.l2)
                slopes[1].add_(bias, alpha=2 * head.l2)
            if spec.gradient_clip is not None:
                _clip(slopes, spec.gradient_clip)
            for number, (values, decay) in enumerate(((weights, jobs[0].weight_decay), (bias, 0.0))):
                steps[number] += 1
                adamw_step(
                    values, slopes[number], moments[0][number], moments[1][number], steps[number], rate(done), decay
                )
            done += 1
        losses = -(wanted[:, :end] * log_p[:, :end]).sum(dim=(1, 2), dtype=torch.float64).numpy()
        if not np.isfinite(losses).all():
            raise Finding("the loss of a head is not finite; lower training.learning_rate")
        answers = log_p[:, :end].argmax(dim=2).numpy()
        heard = [torch.addmm(bias[number], side.validation, weights[number].T) for number, side in enumerate(sides)]
        scores = scores_of_all(heard, truths)
        for number, job in enumerate(jobs):
            if stopped[number]:
                continue
            seen = min(end, len(job.train))
            truth, found = tops[number][orders[number][:seen]], scores[number]
            history[number].append(
                Evaluation(
                    step=done,
                    epoch=float(min(epoch + 1, spec.epochs)),
                    train_loss=float(losses[number]) / seen,
                    train_accuracy=int((answers[number, :seen] == truth).sum()) / seen,
                    val_loss=found[0],
                    val_accuracy=found[1],
                    val_uar=found[2],
                    learning_rate=rate(done),
                    seconds=0.0,
                )
            )
            if select(history[number], spec.select) == len(history[number]) - 1:
                best[number] = (weights[number].clone(), bias[number].clone())
            stopped[number] = should_stop(history[number], spec.early_stopping)
        if all(stopped):
            break
    return [
        TrainedHead(
            {
                "w": np.ascontiguousarray(best[number][0].numpy().T),
                "b": best[number][1].numpy().copy(),
                "mean": side.mean.numpy(),
                "scale": side.scale.numpy(),
            },
            history[number],
            history[number][select(history[number], spec.select)],
            job.layer,
        )
        for number, (job, side) in enumerate(zip(jobs, sides, strict=True))
    ]


def _start(
    jobs: Sequence[HeadJob], members: Sequence[int], num_labels: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Initial weights (G, K, D) and biases (G, K), as every head of this width begins."""
    weights, bias = torch.empty(GROUP, num_labels, width), torch.empty(GROUP, num_labels)
    bound = width**-0.5
    for place, member in enumerate(members):
        for name, shape in (("w", (width, num_labels)), ("b", (num_labels,))):
            generator = torch.Generator().manual_seed(derive("init", jobs[member].seed, name))
            drawn = torch.empty(shape).uniform_(-bound, bound, generator=generator)
            if name == "w":
                weights[place] = drawn.T
            else:
                bias[place] = drawn
    return weights, bias


def _order(job: HeadJob, epoch: int, room: int) -> NDArray[np.int64]:
    """Places of a training's clips in the order of an epoch, and behind them places that hold none, (room,)."""
    order = np.arange(room)
    clips = len(job.train)
    order[:clips] = np.random.Generator(np.random.PCG64(derive("order", job.seed, epoch))).permutation(clips)
    return order


def _clip(slopes: Sequence[torch.Tensor], most: float) -> None:
    """Scale the gradient of every head whose norm is above `most`."""
    norms = (slopes[0].square().sum(dim=(1, 2)) + slopes[1].square().sum(dim=1)).sqrt()
    factors = torch.where(norms > most, most / (norms + 1e-6), torch.ones_like(norms))
    slopes[0].mul_(factors[:, None, None])
    slopes[1].mul_(factors[:, None])
