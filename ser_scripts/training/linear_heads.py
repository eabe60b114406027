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
from ser_scripts.training.head_tasks import MIDDLE, NEAR, RATING, Classes, Rated, Ratings, Task
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
    rated: Rated | None,
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
        rated: what heads of ratings learn; there are none when None
        jobs: the trainings
        head: a linear one
        loss: label smoothing
        spec: epochs, batch size, schedule, selection, early stopping

    Raises:
        Finding: a loss, or a predicted rating of a validation clip, is not finite
    """
    sides = [_Side(table, job, head) for job in jobs]
    size, num_labels, width = spec.batch_size, targets.shape[1], table.shape[2]
    batches = -(-len(jobs[0].train) // size)
    room = batches * size  # places of an epoch; those behind a training's last clip weigh nothing
    members = [min(number, len(jobs) - 1) for number in range(GROUP)]
    x = torch.zeros(GROUP, room, width)
    goal = torch.zeros(GROUP, room, num_labels)
    share = torch.zeros(GROUP, room, 1)  # of each clip in the mean over its batch, by place in the epoch
    ratings = torch.full((GROUP, room, 0 if rated is None else rated.values.shape[1]), torch.nan)
    for place, member in enumerate(members):
        clips = len(jobs[member].train)
        x[place, :clips] = sides[member].train
        made = goal_of(targets[jobs[member].train], jobs[member].class_weights, loss.label_smoothing)
        goal[place, :clips] = torch.from_numpy(made)
        share[place, :clips] = 1 / size
        share[place, (batches - 1) * size : clips] = 1 / (clips - (batches - 1) * size)
        if rated is not None:
            ratings[place, :clips] = rated.tensor(jobs[member].train)
    tasks: list[Task] = []
    classes = None
    if rated is None or not rated.spec.only:
        classes = Classes(goal.view(GROUP * room, num_labels), share)
        tasks.append(classes)
    if rated is not None:
        counts = torch.tensor([len(jobs[member].train) for member in members])
        tasks.append(Ratings(ratings.view(GROUP * room, -1), counts, size, rated.spec))
    values = [part for task in tasks for part in _start(jobs, members, task, width)]
    slopes = [torch.zeros_like(part) for part in values]
    moments = [[torch.zeros_like(part) for part in values] for _ in range(2)]
    steps = [torch.zeros(()) for _ in values]
    best = [[part[0] for part in values]] * len(jobs)
    history: list[list[Evaluation]] = [[] for _ in jobs]
    stopped = [False] * len(jobs)
    tops = [targets[job.train].argmax(axis=1) for job in jobs]
    truths = [labels[job.validation] for job in jobs]
    total = max(1, int(np.ceil(spec.epochs * batches)))
    rate = rate_of(spec, jobs[0].learning_rate, total, batches, [])
    flat = x.view(GROUP * room, width)
    offsets = torch.arange(GROUP)[:, None] * room
    mask = torch.ones(GROUP, size, width)
    done = 0
    for epoch in range(int(np.ceil(spec.epochs))):
        orders = [_order(job, epoch, room) for job in jobs]
        rows = torch.from_numpy(np.stack([orders[member] for member in members])) + offsets
        for task in tasks:
            task.begin(rows)
        dropouts = [
            [Dropout(job.seed, epoch, head.dropout, task.prefix) for job in jobs] if head.dropout else []
            for task in tasks
        ]
        end = 0
        for start in range(0, min(room, (total - done) * size), size):
            end = start + size
            batch = flat.index_select(0, rows[:, start:end].reshape(-1)).view(GROUP, size, width)
            for number, task in enumerate(tasks):
                heard = batch
                if head.dropout:
                    for member, dropout in enumerate(dropouts[number]):
                        used = min(size, len(jobs[member].train) - start)
                        dropout.fill(mask[member, :used])
                    heard = batch.mul_(mask) if task is tasks[-1] else batch * mask
                weights, bias = values[2 * number : 2 * number + 2]
                outputs = torch.baddbmm(bias[:, None], heard, weights.transpose(1, 2))
                slope = task.slope(outputs, start, end)
                torch.bmm(slope.transpose(1, 2), heard, out=slopes[2 * number])
                torch.sum(slope, 1, out=slopes[2 * number + 1])
            if head.l2:
                for value, slope in zip(values, slopes, strict=True):
                    slope.add_(value, alpha=2 * head.l2)
            if spec.gradient_clip is not None:
                _clip(slopes, spec.gradient_clip)
            now = rate(done)
            for number, value in enumerate(values):
                decay = jobs[0].weight_decay if value.ndim == 3 else 0.0
                steps[number] += 1
                adamw_step(value, slopes[number], moments[0][number], moments[1][number], steps[number], now, decay)
            done += 1
        losses = torch.stack([task.loss(end) for task in tasks]).sum(dim=0).numpy()
        if not np.isfinite(losses).all():
            raise Finding("the loss of a head is not finite; lower training.learning_rate")
        answers = classes.answers(end) if classes is not None else np.zeros((GROUP, end), dtype=np.int64)
        heard_by = [
            [torch.addmm(bias[number], side.validation, weights[number].T) for number, side in enumerate(sides)]
            for weights, bias in zip(values[::2], values[1::2], strict=True)
        ]
        logits = heard_by[0] if classes is not None else [torch.zeros(len(truth), num_labels) for truth in truths]
        scores = scores_of_all(logits, truths)
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
                    further=() if rated is None else rated.scores(job.validation, heard_by[-1][number]),
                )
            )
            if select(history[number], spec.select) == len(history[number]) - 1:
                best[number] = [part[number].clone() for part in values]
            stopped[number] = should_stop(history[number], spec.early_stopping)
        if all(stopped):
            break
    names = [f"{task.prefix}{name}" for task in tasks for name in ("w", "b")]
    return [
        TrainedHead(
            {
                **{
                    name: np.ascontiguousarray(part.numpy().T).copy()
                    for name, part in zip(names, best[number], strict=True)
                },
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
    jobs: Sequence[HeadJob], members: Sequence[int], task: Task, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Initial weights (G, K, D) and biases (G, K), as every head of this width begins."""
    weights, bias = torch.empty(GROUP, task.outputs, width), torch.empty(GROUP, task.outputs)
    bound = width**-0.5 * (NEAR if task.prefix == RATING else 1)
    for place, member in enumerate(members):
        for name, shape in (("w", (width, task.outputs)), ("b", (task.outputs,))):
            generator = torch.Generator().manual_seed(derive("init", jobs[member].seed, f"{task.prefix}{name}"))
            drawn = torch.empty(shape).uniform_(-bound, bound, generator=generator)
            if name == "w":
                weights[place] = drawn.T
            else:
                bias[place] = MIDDLE if task.prefix == RATING else drawn
    return weights, bias


def _order(job: HeadJob, epoch: int, room: int) -> NDArray[np.int64]:
    """Places of a training's clips in the order of an epoch, and behind them places that hold none, (room,)."""
    order = np.arange(room)
    clips = len(job.train)
    order[:clips] = np.random.Generator(np.random.PCG64(derive("order", job.seed, epoch))).permutation(clips)
    return order


def _clip(slopes: Sequence[torch.Tensor], most: float) -> None:
    """Scale the gradient of every training, (G, ...) in parts, whose norm is above `most`."""
    squares = [slope.square().sum(dim=tuple(range(1, slope.ndim))) for slope in slopes]
    norms = sum(squares[1:], squares[0]).sqrt()
    factors = torch.where(norms > most, most / (norms + 1e-6), torch.ones_like(norms))
    for slope in slopes:
        slope.mul_(factors.view(-1, *[1] * (slope.ndim - 1)))
