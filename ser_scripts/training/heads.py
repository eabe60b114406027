"""Many small heads over cached hidden states: each trained by itself, by hand-written steps on one flat buffer.

A training of a head is a few thousand tiny matrix products, so that what lies between them decides how long it takes.
All weights of a head therefore lie in one buffer, as do its gradient and the moments of AdamW: one call updates them,
another clips them. The backward pass is written out (tests compare it with autograd), dropout draws 16 bits per number,
and losses are looked at once per epoch. Trainings run side by side in threads, one core each; they share the table of
hidden states and nothing else, so that a training gives the same bits alone and in any company. Linear heads of one
layer, which cost less than the calls they consist of, go through `linear_heads` instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ser_scripts.errors import Finding
from ser_scripts.specs.model import HeadSpec, LossSpec, TrainingSpec
from ser_scripts.training.head_jobs import (
    EPSILON,
    Dropout,
    HeadJob,
    TrainedHead,
    adamw_step,
    goal_of,
    moments_of,
    rate_of,
    scores_of,
    standardised,
)
from ser_scripts.training.history import Evaluation, select, should_stop
from ser_scripts.training.linear_heads import GROUP, GroupKey, group_key, train_group
from ser_scripts.training.seeding import derive

MEMORY_BYTES = 2 << 30
"""What the standardised hidden states of the trainings that run side by side may take; with more there are fewer
trainings at once."""
_CHUNK = 512
"""Clips that are evaluated at once."""
_ALIGNED = 16
"""Floats: each weight starts at a multiple of 64 bytes, since the last bits of a product may depend on it."""
_NORM_EPSILON = 1e-5

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Frames:
    """Frames of one hidden state of all clips, one clip behind the other."""

    values: NDArray[np.float16]
    """(frames of all clips, D)"""
    starts: NDArray[np.int64]
    """Where each clip begins, and at the end where the last one ends, (N + 1,)."""

    def __len__(self) -> int:
        """N."""
        return len(self.starts) - 1


Inputs = NDArray[np.float32] | Frames
"""Pooled hidden states of all clips, (N, L, D), or the frames of one."""


def train_heads(
    inputs: Inputs,
    labels: NDArray[np.int64],
    num_labels: int,
    jobs: Sequence[HeadJob],
    *,
    head: HeadSpec,
    loss: LossSpec,
    training: TrainingSpec,
    targets: NDArray[np.float32] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[TrainedHead]:
    """Train every job; the result of one does not depend on the others, their order, or the number of workers.

    Args:
        inputs: embeddings of all clips, (N, L, D); their frames for the head `frame_mlp`
        labels: index of each clip's label, (N,); -1 for clips that no job trains or validates on
        num_labels: K
        jobs: the trainings; all with a layer, or all with learned layer weights
        head: the head's form
        loss: class weights and label smoothing
        training: epochs, batch size, schedule, selection, early stopping
        targets: the distribution over labels that each clip is trained on, (N, K); its label when None. Validation
            always compares with labels.
        workers: threads that train side by side; one per core when None
        progress: called with (trainings done, trainings in all)

    Raises:
        Finding: a loss is not finite
    """
    table = inputs if isinstance(inputs, Frames) else torch.from_numpy(np.require(inputs, np.float32, ["C", "W"]))
    wanted = np.eye(num_labels, dtype=np.float32)[labels] if targets is None else targets

    def one(places: Sequence[int]) -> list[TrainedHead]:
        mine = [jobs[place] for place in places]
        with torch.inference_mode():
            if isinstance(table, torch.Tensor) and group_key(mine[0], head, training) is not None:
                return train_group(table, labels, wanted, mine, head, loss, training)
            return [_train(_network(table, job, head), job, labels, wanted, head, loss, training) for job in mine]

    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    groups = _groups(jobs, head, training)
    found: dict[int, TrainedHead] = {}
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(
            min(workers, _fitting(table, jobs, max(map(len, groups), default=1))),
            initializer=torch.set_num_threads,
            initargs=(1,),
        ) as pool:
            for places, trained in zip(groups, pool.map(one, groups), strict=True):
                found |= dict(zip(places, trained, strict=True))
                if progress is not None:
                    progress(len(found), len(jobs))
    finally:
        torch.set_num_threads(threads)
    return [found[place] for place in range(len(jobs))]


def _groups(jobs: Sequence[HeadJob], head: HeadSpec, training: TrainingSpec) -> list[list[int]]:
    """Places of jobs that are trained in one go."""
    groups: list[list[int]] = []
    open_groups: dict[GroupKey, list[int]] = {}
    for place, job in enumerate(jobs):
        key = group_key(job, head, training)
        if key is None:
            groups.append([place])
            continue
        if len(open_groups.get(key, [])) % GROUP == 0:
            open_groups[key] = []
            groups.append(open_groups[key])
        open_groups[key].append(place)
    return groups


def head_logits(
    inputs: Inputs, weights: Mapping[str, NDArray[np.float32]], layer: int | None, head: HeadSpec
) -> NDArray[np.float32]:
    """Logits of clips under one trained head: embeddings (N, L, D), or frames, -> (N, K)."""
    with torch.inference_mode():
        parameters = {name: torch.from_numpy(value) for name, value in weights.items()}
        parameters["w"] = parameters["w"].T.contiguous()
        mean, scale = parameters.pop("mean"), parameters.pop("scale")
        clips = np.arange(len(inputs))
        if isinstance(inputs, Frames):
            return _frame_logits(torch.from_numpy(inputs.values), inputs.starts, clips, mean, scale, parameters).numpy()
        table = torch.from_numpy(np.require(inputs, np.float32, ["C", "W"]))
        out = [
            _forward(standardised(table, clips[start : start + _CHUNK], layer, mean, scale), parameters, head, [])[0]
            for start in range(0, len(clips), _CHUNK)
        ]
        return torch.cat(out).numpy() if out else np.empty((0, len(weights["b"])), dtype=np.float32)


# One training


class _Network(Protocol):
    """A head, what it reads, and its backward pass."""

    mean: torch.Tensor
    scale: torch.Tensor

    def shapes(self, num_labels: int) -> dict[str, tuple[int, ...]]:
        """Of every weight; those with weight decay have two axes. `w` is stored as (K, width)."""
        ...

    def bound(self, name: str, shape: tuple[int, ...]) -> float | None:
        """Initial weights are uniform in +- this; None: zeros, or ones for the scale of a norm."""
        ...

    def forward(self, parameters: Weights, rows: torch.Tensor, dropout: Dropout | None) -> torch.Tensor:
        """Logits (B, K) of training clips, given by their places in the training side; keeps what `backward` needs."""
        ...

    def backward(self, slope: torch.Tensor, parameters: Weights, gradients: Weights) -> None:
        """Write the gradient of every weight, given that of the logits (B, K)."""
        ...

    def evaluate(self, parameters: Weights) -> torch.Tensor:
        """Logits of the validation side."""
        ...


class _Flat:
    """Weights, gradient and moments of one head in four buffers, each weight a view; those with weight decay first."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        order = sorted(shapes, key=lambda name: (len(shapes[name]) < 2, name == "layer_weights"))
        places, end, self.decayed, self.head_end = {}, 0, 0, 0
        for name in order:
            places[name] = end
            end += -(-int(np.prod(shapes[name])) // _ALIGNED) * _ALIGNED
            if len(shapes[name]) >= 2:
                self.decayed = end
            if name != "layer_weights":
                self.head_end = end
        self.values, self.slope, self.first, self.second, self.best = (torch.zeros(end) for _ in range(5))
        self.steps = torch.zeros(())
        self.parameters, self.gradients, self.best_parameters = (
            {name: _view(flat, places[name], shapes[name]) for name in shapes}
            for flat in (self.values, self.slope, self.best)
        )

    def update(self, rate: float, weight_decay: float, clip: float | None) -> None:
        """One AdamW step (Loshchilov & Hutter 2019) with the gradient, which is first clipped to a norm."""
        if clip is not None:
            norm = float(torch.linalg.vector_norm(self.slope))
            if norm > clip:
                self.slope.mul_(clip / (norm + 1e-6))
        self.steps += 1
        cut = self.decayed if weight_decay else 0
        for part, decay in ((slice(0, cut), weight_decay), (slice(cut, None), 0.0)):
            if (values := self.values[part]).numel():
                adamw_step(values, self.slope[part], self.first[part], self.second[part], self.steps, rate, decay)


def _view(flat: torch.Tensor, start: int, shape: tuple[int, ...]) -> torch.Tensor:
    return flat[start : start + int(np.prod(shape))].view(shape)


def _network(table: torch.Tensor | Frames, job: HeadJob, head: HeadSpec) -> _Network:
    return _FrameHead(table, job, head) if isinstance(table, Frames) else _VectorHead(table, job, head)


def _train(
    network: _Network,
    job: HeadJob,
    labels: NDArray[np.int64],
    targets: NDArray[np.float32],
    head: HeadSpec,
    loss: LossSpec,
    spec: TrainingSpec,
) -> TrainedHead:
    num_labels, size, clips = targets.shape[1], spec.batch_size, len(job.train)
    flat = _start(network, job, num_labels)
    batches = -(-clips // size)
    total = max(1, int(np.ceil(spec.epochs * batches)))
    history: list[Evaluation] = []
    rate = rate_of(spec, job.learning_rate, total, batches, history)
    goal = torch.from_numpy(goal_of(targets[job.train], job.class_weights, loss.label_smoothing))  # (n, K)
    share = torch.full((clips, 1), 1 / size)  # of each clip in the mean over its batch, by place in the epoch
    share[(batches - 1) * size :] = 1 / (clips - (batches - 1) * size)
    top = targets[job.train].argmax(axis=1)
    log_p = torch.empty(clips, num_labels)
    done = 0
    for epoch in range(int(np.ceil(spec.epochs))):
        order = np.random.Generator(np.random.PCG64(derive("order", job.seed, epoch))).permutation(clips)
        rows = torch.from_numpy(order)
        wanted = goal[rows]
        scaled = wanted * share
        weight = scaled.sum(dim=1, keepdim=True)
        dropout = Dropout(job.seed, epoch, head.dropout) if head.dropout else None
        seen = 0
        for start in range(0, min(clips, (total - done) * size), size):
            seen = min(start + size, clips)
            logits = network.forward(flat.parameters, rows[start:seen], dropout)
            torch.log_softmax(logits, 1, out=log_p[start:seen])
            slope = log_p[start:seen].exp().mul_(weight[start:seen]).sub_(scaled[start:seen])
            network.backward(slope, flat.parameters, flat.gradients)
            if head.l2:
                flat.slope[: flat.head_end].add_(flat.values[: flat.head_end], alpha=2 * head.l2)
            flat.update(rate(done), job.weight_decay, spec.gradient_clip)
            done += 1
        loss_sum = -float((wanted[:seen] * log_p[:seen]).sum(dtype=torch.float64))
        if not np.isfinite(loss_sum):
            raise Finding("the loss of a head is not finite; lower training.learning_rate")
        hits = int((log_p[:seen].argmax(dim=1).numpy() == top[order[:seen]]).sum())
        val_loss, val_accuracy, val_uar = scores_of(network.evaluate(flat.parameters), labels[job.validation])
        history.append(
            Evaluation(
                step=done,
                epoch=float(min(epoch + 1, spec.epochs)),
                train_loss=loss_sum / seen,
                train_accuracy=hits / seen,
                val_loss=val_loss,
                val_accuracy=val_accuracy,
                val_uar=val_uar,
                learning_rate=rate(done),
                seconds=0.0,
            )
        )
        if select(history, spec.select) == len(history) - 1:
            flat.best.copy_(flat.values)
        if should_stop(history, spec.early_stopping):
            break
    weights = {name: value.numpy().copy() for name, value in flat.best_parameters.items()}
    weights |= {"w": np.ascontiguousarray(weights["w"].T), "mean": network.mean.numpy(), "scale": network.scale.numpy()}
    return TrainedHead(weights, history, history[select(history, spec.select)], job.layer)


def _start(network: _Network, job: HeadJob, num_labels: int) -> _Flat:
    """Initial weights; those of a map are drawn as (width, K), whatever way they are stored."""
    shapes = network.shapes(num_labels)
    flat = _Flat(shapes)
    for name, shape in shapes.items():
        bound = network.bound(name, shape)
        if bound is None:
            flat.parameters[name].fill_(float(name == "norm_w"))
            continue
        generator = torch.Generator().manual_seed(derive("init", job.seed, name))
        drawn = torch.empty(shape[::-1] if name == "w" else shape).uniform_(-bound, bound, generator=generator)
        flat.parameters[name].copy_(drawn.T if name == "w" else drawn)
    return flat


# Heads over pooled vectors


class _VectorHead:
    """`linear` and `mlp`: training and validation side standardised with the training clips of the job."""

    def __init__(self, table: torch.Tensor, job: HeadJob, head: HeadSpec) -> None:
        self.head, self.weighted = head, job.layer is None
        layers = range(table.shape[1]) if job.layer is None else [job.layer]
        rows = torch.from_numpy(job.train)
        means, scales = [], []
        for layer in layers:
            mean, scale = moments_of(table[rows, layer])
            means.append(mean)
            scales.append(scale)
        self.mean, self.scale = torch.stack(means), torch.stack(scales)
        self.train = standardised(table, job.train, job.layer, self.mean, self.scale)
        self.validation = standardised(table, job.validation, job.layer, self.mean, self.scale)
        self.width, self.num_layers = table.shape[2], table.shape[1]
        self.saved: _Saved

    def shapes(self, num_labels: int) -> dict[str, tuple[int, ...]]:
        width, shapes = self.width, dict[str, tuple[int, ...]]()
        if self.weighted:
            shapes["layer_weights"] = (self.num_layers,)
        if self.head.layer_norm:
            shapes |= {"norm_w": (width,), "norm_b": (width,)}
        if self.head.kind == "mlp":
            shapes |= {"w1": (width, self.head.hidden), "b1": (self.head.hidden,)}
            width = self.head.hidden
        return shapes | {"w": (num_labels, width), "b": (num_labels,)}

    def bound(self, name: str, shape: tuple[int, ...]) -> float | None:
        last = self.head.hidden if self.head.kind == "mlp" else self.width
        fan_in = {"w1": self.width, "b1": self.width, "w": last, "b": last}.get(name)
        return None if fan_in is None else fan_in**-0.5

    def forward(self, parameters: Weights, rows: torch.Tensor, dropout: Dropout | None) -> torch.Tensor:
        widths = [self.width, *([self.head.hidden] if self.head.kind == "mlp" else [])]
        masks = [dropout.mask(len(rows), width) for width in widths] if dropout else []
        logits, self.saved = _forward(self.train.index_select(0, rows), parameters, self.head, masks)
        return logits

    def backward(self, slope: torch.Tensor, parameters: Weights, gradients: Weights) -> None:
        _backward(slope, self.saved, parameters, gradients, self.head)

    def evaluate(self, parameters: Weights) -> torch.Tensor:
        parts = [_forward(part, parameters, self.head, [])[0] for part in torch.split(self.validation, _CHUNK)]
        return torch.cat(parts)


@dataclass
class _Saved:
    """What the backward pass needs of the forward pass."""

    x: torch.Tensor
    masks: list[torch.Tensor]
    mixed: torch.Tensor
    norm: tuple[torch.Tensor, torch.Tensor] | None
    first: torch.Tensor
    """Input of the first linear map."""
    before: torch.Tensor | None
    """Of the activation."""
    last: torch.Tensor
    """Input of the last linear map."""


def _forward(
    x: torch.Tensor, parameters: Weights, head: HeadSpec, masks: list[torch.Tensor]
) -> tuple[torch.Tensor, _Saved]:
    """Standardised vectors (B, D), or (B, L, D) of all layers -> logits (B, K).

    `masks` are those of dropout before and, in an MLP, behind the hidden layer; none in evaluation.
    """
    mixed, norm, before = x, None, None
    if "layer_weights" in parameters:
        mixed = torch.matmul(parameters["layer_weights"].softmax(dim=0), x)
    hidden = mixed
    if head.layer_norm:
        hidden, *statistics = torch.native_layer_norm(
            mixed, mixed.shape[-1:], parameters["norm_w"], parameters["norm_b"], _NORM_EPSILON
        )
        norm = (statistics[0], statistics[1])
    if head.kind == "linear" and head.relu:
        hidden = hidden.relu()
    if masks:
        hidden = hidden * masks[0]
    first = hidden
    if head.kind == "mlp":
        before = torch.addmm(parameters["b1"], hidden, parameters["w1"])
        hidden = _activation(before, head)
        if masks:
            hidden = hidden * masks[1]
    logits = torch.addmm(parameters["b"], hidden, parameters["w"].T)
    return logits, _Saved(x, masks, mixed, norm, first, before, hidden)


def _activation(before: torch.Tensor, head: HeadSpec) -> torch.Tensor:
    if head.activation == "gelu":
        return torch.nn.functional.gelu(before)
    return before.relu() if head.activation == "relu" else before


def _backward(slope: torch.Tensor, saved: _Saved, parameters: Weights, gradients: Weights, head: HeadSpec) -> None:
    """Gradients of all weights, given that of the logits, (B, K)."""
    torch.mm(slope.T, saved.last, out=gradients["w"])
    torch.sum(slope, 0, out=gradients["b"])
    onwards = "layer_weights" in parameters or head.layer_norm
    if head.kind == "mlp":
        assert saved.before is not None
        slope = torch.mm(slope, parameters["w"])
        if saved.masks:
            slope.mul_(saved.masks[1])
        if head.activation == "gelu":
            slope = torch.ops.aten.gelu_backward(slope, saved.before)
        elif head.activation == "relu":
            slope.mul_(saved.before > 0)
        torch.mm(saved.first.T, slope, out=gradients["w1"])
        torch.sum(slope, 0, out=gradients["b1"])
    if not onwards:
        return
    slope = torch.mm(slope, parameters["w1"].T if head.kind == "mlp" else parameters["w"])
    if saved.masks:
        slope.mul_(saved.masks[0])
    if head.kind == "linear" and head.relu:
        slope.mul_(saved.first > 0)  # a number that dropout has zeroed has no slope any more
    if saved.norm is not None:
        slope, norm_w, norm_b = torch.ops.aten.native_layer_norm_backward(
            slope,
            saved.mixed,
            saved.mixed.shape[-1:],
            *saved.norm,
            parameters["norm_w"],
            parameters["norm_b"],
            [True, True, True],
        )
        gradients["norm_w"].copy_(norm_w)
        gradients["norm_b"].copy_(norm_b)
    if "layer_weights" in parameters:
        by_layer = torch.bmm(saved.x, slope[:, :, None]).sum(dim=0)[:, 0]
        weights = parameters["layer_weights"].softmax(dim=0)
        gradients["layer_weights"].copy_(weights * (by_layer - (weights * by_layer).sum()))


# The head over frames


class _FrameHead:
    """`frame_mlp`: linear -> layer norm -> GELU -> dropout -> linear in every frame, logits averaged over a clip.

    Clips of a batch lie one behind the other, so that nothing is padded. Since the last map is linear, the mean over
    frames is taken before it.
    """

    def __init__(self, frames: Frames, job: HeadJob, head: HeadSpec) -> None:
        self.head, self.starts, self.job = head, frames.starts, job
        self.values = torch.from_numpy(frames.values)
        self.width = frames.values.shape[1]
        count, total, squares = 0, torch.zeros(self.width).double(), torch.zeros(self.width).double()
        for clip in job.train:  # one pass; hidden states are far from the sizes where this loses digits
            own = self.values[frames.starts[clip] : frames.starts[clip + 1]].double()
            count, total, squares = count + len(own), total + own.sum(dim=0), squares + own.square().sum(dim=0)
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        self.mean, self.scale = mean.float()[None], (1 / deviation.clamp_min(EPSILON)).float()[None]
        self.buffers: dict[str, torch.Tensor] = {}
        self.ends: list[int] = []

    def shapes(self, num_labels: int) -> dict[str, tuple[int, ...]]:
        hidden = self.head.hidden
        return {
            "w1": (self.width, hidden),
            "b1": (hidden,),
            "norm_w": (hidden,),
            "norm_b": (hidden,),
            "w": (num_labels, hidden),
            "b": (num_labels,),
        }

    def bound(self, name: str, shape: tuple[int, ...]) -> float | None:
        if name == "w1":  # Glorot & Bengio 2010
            return float((6 / sum(shape)) ** 0.5)
        fan_in = {"b1": self.width, "w": self.head.hidden, "b": self.head.hidden}.get(name)
        return None if fan_in is None else float(fan_in**-0.5)

    def forward(self, parameters: Weights, rows: torch.Tensor, dropout: Dropout | None) -> torch.Tensor:
        clips = self.job.train[rows.numpy()]
        self.lengths = torch.from_numpy(self.starts[clips + 1] - self.starts[clips])
        self.ends = np.cumsum(self.lengths.numpy()).tolist()
        x = _frames_of(self.values, self.starts, clips, self.mean, self.scale, self._room("x", self.width))
        before, active, mask = (self._room(name, self.head.hidden) for name in ("before", "active", "mask"))
        torch.addmm(parameters["b1"], x, parameters["w1"], out=before)
        normed = self._room("normed", self.head.hidden)
        self.statistics = [self._room(name, 1) for name in ("mean", "spread")]
        torch.ops.aten.native_layer_norm.out(
            before,
            before.shape[-1:],
            parameters["norm_w"],
            parameters["norm_b"],
            _NORM_EPSILON,
            out0=normed,
            out1=self.statistics[0],
            out2=self.statistics[1],
        )
        torch.ops.aten.gelu.out(normed, out=active)
        self.masked = dropout is not None
        if dropout is not None:
            active.mul_(dropout.fill(mask))
        self.pooled = torch.empty(len(clips), self.head.hidden)
        for row, (start, end) in zip(self.pooled, pairwise([0, *self.ends]), strict=True):
            torch.mean(active[start:end], 0, out=row)
        return torch.addmm(parameters["b"], self.pooled, parameters["w"].T)

    def backward(self, slope: torch.Tensor, parameters: Weights, gradients: Weights) -> None:
        torch.mm(slope.T, self.pooled, out=gradients["w"])
        torch.sum(slope, 0, out=gradients["b"])
        by_clip = torch.mm(slope, parameters["w"]).div_(self.lengths[:, None])
        slope, before, normed = (self._room(name, self.head.hidden) for name in ("active", "before", "normed"))
        for row, (start, end) in zip(by_clip, pairwise([0, *self.ends]), strict=True):
            slope[start:end] = row
        if self.masked:
            slope.mul_(self._room("mask", self.head.hidden))
        torch.ops.aten.gelu_backward.grad_input(slope, normed, grad_input=slope)
        torch.ops.aten.native_layer_norm_backward.out(
            slope,
            before,
            before.shape[-1:],
            *self.statistics,
            parameters["norm_w"],
            parameters["norm_b"],
            [True, True, True],
            out0=normed,
            out1=gradients["norm_w"],
            out2=gradients["norm_b"],
        )
        torch.mm(self._room("x", self.width).T, normed, out=gradients["w1"])
        torch.sum(normed, 0, out=gradients["b1"])

    def _room(self, name: str, width: int) -> torch.Tensor:
        """A buffer for the frames of the present batch, (F, width): kept, since batches differ in length, and memory
        that is taken and given back in ever other sizes is scattered and grows."""
        frames = self.ends[-1]
        if name not in self.buffers or len(self.buffers[name]) < frames:
            self.buffers[name] = torch.empty(frames + frames // 4, width)
        return self.buffers[name][:frames]

    def evaluate(self, parameters: Weights) -> torch.Tensor:
        return _frame_logits(self.values, self.starts, self.job.validation, self.mean, self.scale, parameters)


def _frames_of(
    values: torch.Tensor,
    starts: NDArray[np.int64],
    clips: NDArray[np.int64],
    mean: torch.Tensor,
    scale: torch.Tensor,
    out: torch.Tensor,
) -> torch.Tensor:
    """Standardised frames of clips, one clip behind the other, written into `out`, (F, D)."""
    end = 0
    for clip in clips:
        part = values[starts[clip] : starts[clip + 1]]
        start, end = end, end + len(part)
        out[start:end] = part
    return out.sub_(mean).mul_(scale)


def _frame_logits(
    values: torch.Tensor,
    starts: NDArray[np.int64],
    clips: NDArray[np.int64],
    mean: torch.Tensor,
    scale: torch.Tensor,
    parameters: Weights,
) -> torch.Tensor:
    """Logits of clips, (n, K); each clip alone, so that they do not depend on the others."""
    pooled = torch.empty(len(clips), parameters["w1"].shape[1])
    for row, clip in zip(pooled, clips, strict=True):
        room = torch.empty(int(starts[clip + 1] - starts[clip]), values.shape[1])
        x = _frames_of(values, starts, np.array([clip]), mean, scale, room)
        before = torch.addmm(parameters["b1"], x, parameters["w1"])
        normed = torch.native_layer_norm(
            before, before.shape[-1:], parameters["norm_w"], parameters["norm_b"], _NORM_EPSILON
        )[0]
        torch.mean(torch.nn.functional.gelu(normed), 0, out=row)
    return torch.addmm(parameters["b"], pooled, parameters["w"].T)


def _fitting(table: torch.Tensor | Frames, jobs: Sequence[HeadJob], together: int = 1) -> int:
    """How many trainings, or groups of them, fit into `MEMORY_BYTES` at once, at least one."""
    if isinstance(table, Frames) or not jobs:
        return max(1, len(jobs))
    layers = table.shape[1] if jobs[0].layer is None else 1
    clips = max(len(job.train) + len(job.validation) for job in jobs)
    return int(max(1, min(len(jobs), MEMORY_BYTES // (together * clips * layers * table.shape[2] * 4))))


__all__ = ["Frames", "HeadJob", "Inputs", "TrainedHead", "head_logits", "train_heads"]
