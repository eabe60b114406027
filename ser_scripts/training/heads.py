"""Many heads at once: linear or MLP classifiers over cached, pooled embeddings, trained side by side.

A training of a head is a few thousand tiny matrix products, and most of its time is spent between them. So `GROUP`
trainings (seeds, folds, hyper-parameters, layers) go through one batched product. Each has its own clips, order of
clips, initial weights, dropout, learning rate, schedule, selection and early stopping, and its own standardisation,
taken from its training clips. The number of trainings in a group is always the same (a smaller group is filled up with
repetitions) and so is every shape in it, so that a training gives the same bits alone and in any company.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ser_eval.metrics import present_uar_of_counts
from ser_scripts.errors import Finding
from ser_scripts.specs.model import HeadSpec, LossSpec, TrainingSpec
from ser_scripts.training.history import Evaluation, select, should_stop
from ser_scripts.training.schedules import schedule
from ser_scripts.training.seeding import derive

GROUP = 16
"""Trainings that go through one batched product."""
_CHUNK = 128
"""Clips of every training that are evaluated at once."""
_EPSILON = 1e-6


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
    """`mean`, `scale` (L, D); `layer_weights` (L,) where learned; `w1`, `b1` of an MLP; `w`, `b` of the last map."""
    history: list[Evaluation]
    selected: Evaluation
    layer: int | None


@dataclass
class _Group:
    """The trainings of one batched product and their state."""

    jobs: Sequence[HeadJob]
    parameters: dict[str, torch.Tensor]
    mean: torch.Tensor  # (G, 1, L, D)
    scale: torch.Tensor
    layers: torch.Tensor | None  # (G,), None: weighted
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    history: list[list[Evaluation]] = field(default_factory=list)
    rates: list[Callable[[int], float]] = field(default_factory=list)
    """Learning rate of each training at a number of updates."""


def train_heads(
    table: NDArray[np.float32],
    labels: NDArray[np.int64],
    num_labels: int,
    jobs: Sequence[HeadJob],
    *,
    head: HeadSpec,
    loss: LossSpec,
    training: TrainingSpec,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> list[TrainedHead]:
    """Train every job; the result of one does not depend on the others, their order, or the number of workers.

    Args:
        table: embeddings of all clips, (N, L, D)
        labels: index of each clip's label, (N,); -1 for clips that no job trains or validates on
        num_labels: K
        jobs: the trainings; all with a layer, or all with learned layer weights
        head: the head's form; `linear` or `mlp`
        loss: class weights and label smoothing
        training: epochs, batch size, schedule, selection, early stopping
        workers: threads that train groups side by side
        progress: called with (trainings done, trainings in all)

    Raises:
        Finding: a loss is not finite
    """
    whole = torch.from_numpy(np.require(table, np.float32, ["C", "W"]))
    truth = torch.tensor(labels)
    groups = [jobs[start : start + GROUP] for start in range(0, len(jobs), GROUP)]
    done = 0
    out: list[TrainedHead] = []

    def one(group: Sequence[HeadJob]) -> list[TrainedHead]:
        return _train_group(whole, truth, num_labels, group, head, loss, training)

    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for trained in pool.map(one, groups):
                out += trained
                done += len(trained)
                if progress is not None:
                    progress(done, len(jobs))
    finally:
        torch.set_num_threads(threads)
    return out


def head_logits(
    table: NDArray[np.float32], weights: dict[str, NDArray[np.float32]], layer: int | None, head: HeadSpec
) -> NDArray[np.float32]:
    """Logits of clips under one trained head: table (N, L, D) -> (N, K)."""
    with torch.inference_mode():
        parameters = {
            name: torch.from_numpy(value)[None] for name, value in weights.items() if name not in ("mean", "scale")
        }
        mean, scale = torch.from_numpy(weights["mean"])[None, None], torch.from_numpy(weights["scale"])[None, None]
        out = []
        for start in range(0, len(table), _CHUNK):
            x = torch.from_numpy(
                np.ascontiguousarray(
                    table[start : start + _CHUNK] if layer is None else table[start : start + _CHUNK, layer : layer + 1]
                )
            )[None]
            out.append(_forward((x - mean) * scale, parameters, head, ())[0])
        return torch.cat(out).numpy()


def _train_group(
    table: torch.Tensor,
    truth: torch.Tensor,
    num_labels: int,
    jobs: Sequence[HeadJob],
    head: HeadSpec,
    loss: LossSpec,
    spec: TrainingSpec,
) -> list[TrainedHead]:
    real = len(jobs)
    jobs = [*jobs, *[jobs[0]] * (GROUP - real)]
    group = _start(table, num_labels, jobs, head)
    parameters = {name: value.requires_grad_(True) for name, value in group.parameters.items()}
    moments = {name: (torch.zeros_like(value), torch.zeros_like(value)) for name, value in parameters.items()}
    class_weights = torch.from_numpy(np.stack([job.class_weights for job in jobs]))  # (G, K)
    size = spec.batch_size
    batches = [-(-len(job.train) // size) for job in jobs]
    updates = np.zeros(GROUP, dtype=np.int64)
    total = np.array([max(1, int(np.ceil(spec.epochs * number))) for number in batches])
    stopped = np.zeros(GROUP, dtype=bool)
    group.history = [[] for _ in jobs]
    group.rates = [
        _rate(spec, job.learning_rate, int(all_), number, history)
        for job, all_, number, history in zip(jobs, total, batches, group.history, strict=True)
    ]
    validation = _gather(table, group, [job.validation for job in jobs], pad=_CHUNK)
    for epoch in range(int(np.ceil(spec.epochs))):
        orders = [
            np.random.Generator(np.random.PCG64(derive("order", job.seed, epoch))).permutation(job.train)
            for job in jobs
        ]
        sums, hits, seen = np.zeros(GROUP), np.zeros(GROUP), np.zeros(GROUP)
        for batch in range(max(batches)):
            rows = np.zeros((GROUP, size), dtype=np.int64)
            valid = np.zeros((GROUP, size), dtype=bool)
            for number, order in enumerate(orders):
                part = order[batch * size : (batch + 1) * size]
                rows[number, : len(part)], valid[number, : len(part)] = part, True
            active = valid.any(axis=1) & ~stopped & (updates < total)
            if not active.any():
                continue
            index, mask = torch.from_numpy(rows), torch.from_numpy(valid)
            target = truth[index]
            masks = _dropout(jobs, epoch, batch, size, _dropped_widths(head, table), head.dropout)
            logits = _forward(_take(table, group, index), parameters, head, masks)
            losses = _losses(logits, target, mask, class_weights, loss.label_smoothing)  # (G, B)
            counts = mask.sum(dim=1).clamp_min(1)
            objective = (losses.sum(dim=1) / counts).sum()
            if head.l2:
                objective = objective + head.l2 * sum(
                    p.square().sum() for name, p in parameters.items() if name != "layer_weights"
                )
            gradients = dict(zip(parameters, torch.autograd.grad(objective, list(parameters.values())), strict=True))
            with torch.no_grad():
                sums += np.where(active, losses.sum(dim=1).double().numpy(), 0.0)
                hits += np.where(active, ((logits.argmax(-1) == target) & mask).sum(dim=1).numpy(), 0)
                seen += np.where(active, counts.numpy(), 0)
                _update(parameters, gradients, moments, group, spec, updates, active)
            updates += active
        if not np.isfinite(sums).all():
            raise Finding("the loss of a head is not finite; lower training.learning_rate")
        _evaluate(
            group,
            parameters,
            validation,
            truth,
            jobs,
            head,
            spec,
            epoch,
            stopped,
            updates,
            sums / seen.clip(1),
            hits / seen.clip(1),
            num_labels,
        )
        stopped |= np.array([should_stop(history, spec.early_stopping) for history in group.history])
        if stopped[:real].all():
            break
    out = []
    for number, job in enumerate(jobs[:real]):
        weights = {name: value[number].numpy().copy() for name, value in group.best.items()}
        weights |= {"mean": group.mean[number, 0].numpy().copy(), "scale": group.scale[number, 0].numpy().copy()}
        history = group.history[number]
        out.append(TrainedHead(weights, history, history[select(history, spec.select)], job.layer))
    return out


def _rate(
    spec: TrainingSpec, peak: float, total: int, per_epoch: int, history: Sequence[Evaluation]
) -> Callable[[int], float]:
    warmup = int(np.ceil(spec.warmup * total))
    factor = schedule(spec, peak, total=total, warmup=warmup, per_epoch=per_epoch, history=history)
    return lambda step: peak * factor(step)


def _start(table: torch.Tensor, num_labels: int, jobs: Sequence[HeadJob], head: HeadSpec) -> _Group:
    """Initial weights and the standardisation of each job's training clips."""
    layers = None if jobs[0].layer is None else torch.tensor([job.layer for job in jobs])
    means, scales = [], []
    for job in jobs:
        own = table[torch.from_numpy(job.train)]
        own = own if job.layer is None else own[:, job.layer : job.layer + 1]
        means.append(own.mean(dim=0, dtype=torch.float64).float())
        scales.append((1 / own.double().std(dim=0, correction=0).clamp_min(_EPSILON)).float())
    width = table.shape[2]
    shapes: dict[str, tuple[int, ...]] = {}
    if layers is None:
        shapes["layer_weights"] = (table.shape[1],)
    if head.kind == "mlp":
        shapes |= {"w1": (width, head.hidden), "b1": (head.hidden,)}
        width = head.hidden
    shapes |= {"w": (width, num_labels), "b": (num_labels,)}
    parameters = {}
    for name, shape in shapes.items():
        rows = []
        for job in jobs:
            generator = torch.Generator().manual_seed(derive("init", job.seed, name))
            fan_in = {"w": width, "b": width, "w1": table.shape[2], "b1": table.shape[2]}.get(name)
            bound = 0.0 if fan_in is None else fan_in**-0.5
            rows.append(
                torch.empty(shape).uniform_(-bound, bound, generator=generator) if bound else torch.zeros(shape)
            )
        parameters[name] = torch.stack(rows)
    return _Group(jobs, parameters, torch.stack(means)[:, None], torch.stack(scales)[:, None], layers)


def _take(table: torch.Tensor, group: _Group, index: torch.Tensor) -> torch.Tensor:
    """Standardised embeddings of clips, index (G, B) -> (G, B, L, D)."""
    found = table[index] if group.layers is None else table[index, group.layers[:, None]][:, :, None]
    return (found - group.mean) * group.scale


def _gather(
    table: torch.Tensor, group: _Group, clips: Sequence[NDArray[np.int64]], *, pad: int
) -> list[tuple[torch.Tensor, NDArray[np.int64], NDArray[np.bool_]]]:
    """The clips of every job in chunks of one shape: embeddings (G, pad, L, D), their indices, and which are real."""
    chunks = []
    for start in range(0, max(len(rows) for rows in clips), pad):
        index = np.zeros((GROUP, pad), dtype=np.int64)
        valid = np.zeros((GROUP, pad), dtype=bool)
        for number, rows in enumerate(clips):
            part = rows[start : start + pad]
            index[number, : len(part)], valid[number, : len(part)] = part, True
        chunks.append((_take(table, group, torch.from_numpy(index)), index, valid))
    return chunks


def _forward(
    x: torch.Tensor, parameters: dict[str, torch.Tensor], head: HeadSpec, masks: Sequence[torch.Tensor]
) -> torch.Tensor:
    """(G, B, L, D) -> logits (G, B, K); `masks` are those of dropout before and, in an MLP, behind the hidden layer."""
    if "layer_weights" in parameters:
        hidden = torch.einsum("gbld,gl->gbd", x, parameters["layer_weights"].softmax(dim=-1))
    else:
        hidden = x[:, :, 0]
    if head.kind == "linear" and head.relu:
        hidden = hidden.relu()
    if masks:
        hidden = hidden * masks[0]
    if head.kind == "mlp":
        hidden = torch.baddbmm(parameters["b1"][:, None], hidden, parameters["w1"])
        hidden = torch.nn.functional.gelu(hidden)
        if masks:
            hidden = hidden * masks[1]
    return torch.baddbmm(parameters["b"][:, None], hidden, parameters["w"])


def _dropped_widths(head: HeadSpec, table: torch.Tensor) -> list[int]:
    return [int(table.shape[2]), *([head.hidden] if head.kind == "mlp" else [])]


def _dropout(
    jobs: Sequence[HeadJob], epoch: int, batch: int, size: int, widths: Sequence[int], share: float
) -> list[torch.Tensor]:
    """Masks (G, B, width) that keep a number with probability 1 - share, scaled; none without dropout."""
    if not share:
        return []
    masks = []
    for place, width in enumerate(widths):
        rows = []
        for job in jobs:
            generator = torch.Generator().manual_seed(derive("dropout", job.seed, epoch, batch, place))
            rows.append(torch.empty(size, width).bernoulli_(1 - share, generator=generator) / (1 - share))
        masks.append(torch.stack(rows))
    return masks


def _losses(
    logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor, class_weights: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """Weighted cross-entropy of each clip, 0 where there is none: (G, B)."""
    log_p = logits.log_softmax(dim=-1)
    safe = target.clamp_min(0)
    picked = -log_p.gather(2, safe[..., None])[..., 0]
    if smoothing:
        picked = (1 - smoothing) * picked - smoothing * log_p.mean(dim=-1)
    return picked * class_weights.gather(1, safe) * mask


def _update(
    parameters: dict[str, torch.Tensor],
    gradients: dict[str, torch.Tensor],
    moments: dict[str, tuple[torch.Tensor, torch.Tensor]],
    group: _Group,
    spec: TrainingSpec,
    updates: NDArray[np.int64],
    active: NDArray[np.bool_],
) -> None:
    """One AdamW step (Loshchilov & Hutter 2019) of every active training; the others stay as they are."""
    beta1, beta2, epsilon = 0.9, 0.999, 1e-8
    rates = np.array([rate(int(done)) for rate, done in zip(group.rates, updates, strict=True)])
    steps = updates + 1
    rate = torch.from_numpy(np.where(active, rates, 0.0)).float()
    decay = torch.tensor([job.weight_decay for job in group.jobs])
    bias1 = torch.from_numpy(1 - beta1**steps).float()
    bias2 = torch.from_numpy(np.sqrt(1 - beta2**steps)).float()
    if spec.gradient_clip is not None:
        norms = torch.stack([g.flatten(1).norm(dim=1) for g in gradients.values()]).norm(dim=0)  # (G,)
        clip = (spec.gradient_clip / (norms + 1e-6)).clamp(max=1.0)
        gradients = {name: g * clip.view(-1, *[1] * (g.ndim - 1)) for name, g in gradients.items()}
    on = torch.from_numpy(active)
    for name, value in parameters.items():
        shape = (-1, *[1] * (value.ndim - 1))
        gradient, (first, second), here = gradients[name], moments[name], on.view(shape)
        first.copy_(torch.where(here, beta1 * first + (1 - beta1) * gradient, first))
        second.copy_(torch.where(here, beta2 * second + (1 - beta2) * gradient.square(), second))
        step = (first / bias1.view(shape)) / (second.sqrt() / bias2.view(shape) + epsilon)
        if value.ndim > 2:  # no decay on biases and layer weights
            step = step + decay.view(shape) * value
        value.sub_(torch.where(here, rate.view(shape) * step, torch.zeros(())))


def _evaluate(
    group: _Group,
    parameters: dict[str, torch.Tensor],
    validation: list[tuple[torch.Tensor, NDArray[np.int64], NDArray[np.bool_]]],
    truth: torch.Tensor,
    jobs: Sequence[HeadJob],
    head: HeadSpec,
    spec: TrainingSpec,
    epoch: int,
    stopped: NDArray[np.bool_],
    updates: NDArray[np.int64],
    train_loss: NDArray[np.float64],
    train_accuracy: NDArray[np.float64],
    num_labels: int,
) -> None:
    """A row of history for every training that goes on, and its weights where it is the best so far."""
    losses, confusion = np.zeros(GROUP), np.zeros((GROUP, num_labels, num_labels), dtype=np.int64)
    with torch.inference_mode():
        for x, index, valid in validation:
            log_p = _forward(x, parameters, head, ()).double().log_softmax(dim=-1).numpy()  # (G, B, K)
            target = truth.numpy()[index]
            predicted = log_p.argmax(axis=-1)
            picked = np.take_along_axis(log_p, np.maximum(target, 0)[..., None], axis=-1)[..., 0]
            losses -= np.where(valid, picked, 0.0).sum(axis=1)
            for number in range(GROUP):
                here = valid[number]
                np.add.at(confusion[number], (target[number][here], predicted[number][here]), 1)
    if not group.best:
        group.best = {name: value.detach().clone() for name, value in parameters.items()}
    for number, job in enumerate(jobs):
        if stopped[number]:
            continue
        row = Evaluation(
            step=int(updates[number]),
            epoch=float(min(epoch + 1, spec.epochs)),
            train_loss=float(train_loss[number]),
            train_accuracy=float(train_accuracy[number]),
            val_loss=float(losses[number] / len(job.validation)),
            val_accuracy=float(np.trace(confusion[number]) / confusion[number].sum()),
            val_uar=present_uar_of_counts(confusion[number]),
            learning_rate=group.rates[number](int(updates[number])),
            seconds=0.0,
        )
        history = group.history[number]
        history.append(row)
        if select(history, spec.select) == len(history) - 1:
            for name, value in parameters.items():
                group.best[name][number] = value[number].detach()


__all__ = ["GROUP", "HeadJob", "TrainedHead", "head_logits", "train_heads"]
