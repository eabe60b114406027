"""Many small heads over cached hidden states: each trained by itself, by hand-written steps on one flat buffer.

A training of a head is a few thousand tiny matrix products, so that what lies between them decides how long it takes.
All weights of a head therefore lie in one buffer, as do its gradient and the moments of AdamW: one call updates them,
another clips them. The backward pass is written out (tests compare it with autograd), dropout draws 16 bits per number,
and losses are looked at once per epoch. Trainings run side by side in threads, one core each; they share the table of
hidden states and nothing else, so that a training gives the same bits alone and in any company. Linear heads of one
layer, which cost less than the calls they consist of, go through `linear_heads` instead.

A training has a head for classes, one for ratings (of the same form, with weights, dropout and initial numbers of its
own), or both: these share hidden states, learned layer weights, the norm to which gradients are clipped, and what
validation selects.
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
    scores_of_all,
    standardised,
)
from ser_scripts.training.head_tasks import MIDDLE, NEAR, RATING, Classes, Rated, Ratings, Task
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
_LAYER_WEIGHTS = "layer_weights"

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
    rated: Rated | None = None,
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
        rated: what a head of ratings learns, beside the classes or instead of them; there is none when None
        workers: threads that train side by side; one per core when None
        progress: called with (trainings done, trainings in all)

    Raises:
        Finding: a loss, or a predicted rating of a validation clip, is not finite
    """
    table = inputs if isinstance(inputs, Frames) else torch.from_numpy(np.require(inputs, np.float32, ["C", "W"]))
    wanted = np.eye(num_labels, dtype=np.float32)[labels] if targets is None else targets

    def one(places: Sequence[int]) -> list[TrainedHead]:
        mine = [jobs[place] for place in places]
        with torch.inference_mode():
            if isinstance(table, torch.Tensor) and group_key(mine[0], head, training) is not None:
                return train_group(table, labels, wanted, rated, mine, head, loss, training)
            return [_train(table, job, labels, wanted, rated, head, loss, training) for job in mine]

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
    return _outputs(inputs, weights, layer, head, "")


def head_ratings(
    inputs: Inputs, weights: Mapping[str, NDArray[np.float32]], layer: int | None, head: HeadSpec
) -> NDArray[np.float32]:
    """Ratings of clips under one trained head: embeddings (N, L, D), or frames, -> (N, D of the ratings)."""
    return _outputs(inputs, weights, layer, head, RATING)


def _outputs(
    inputs: Inputs, weights: Mapping[str, NDArray[np.float32]], layer: int | None, head: HeadSpec, prefix: str
) -> NDArray[np.float32]:
    with torch.inference_mode():
        tensors = {name: torch.from_numpy(value) for name, value in weights.items()}
        mean, scale, parameters = tensors.pop("mean"), tensors.pop("scale"), _of_head(tensors, prefix)
        parameters["w"] = parameters["w"].T.contiguous()
        clips = np.arange(len(inputs))
        if isinstance(inputs, Frames):
            (found,) = _frame_outputs(torch.from_numpy(inputs.values), inputs.starts, clips, mean, scale, [parameters])
            return found.numpy()
        table = torch.from_numpy(np.require(inputs, np.float32, ["C", "W"]))
        out = []
        for start in range(0, len(clips), _CHUNK):
            x = standardised(table, clips[start : start + _CHUNK], layer, mean, scale)
            out.append(_forward(_mixed(x, parameters), parameters, head, [])[0])
        return torch.cat(out).numpy() if out else np.empty((0, len(parameters["b"])), dtype=np.float32)


def _of_head(weights: Mapping[str, torch.Tensor], prefix: str) -> Weights:
    """The weights of one head, without the prefix, and the layer weights that heads share."""
    own = {
        name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(RATING) == bool(prefix)
    }
    return own | {name: value for name, value in weights.items() if name == _LAYER_WEIGHTS}


# One training


class _Network(Protocol):
    """The heads of a training, what they read, and their backward passes; lists have one item per head."""

    mean: torch.Tensor
    scale: torch.Tensor

    def shapes(self, outputs: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Of every weight, given the outputs of the heads by their prefix; those with weight decay have two axes. `w`
        is stored as (outputs, width)."""
        ...

    def bound(self, name: str, shape: tuple[int, ...]) -> float | None:
        """Initial weights are uniform in +- this, by the name without prefix; None: zeros, or ones for the scale of a
        norm."""
        ...

    def forward(
        self, parameters: Sequence[Weights], rows: torch.Tensor, dropouts: Sequence[Dropout]
    ) -> list[torch.Tensor]:
        """Outputs (B, K) of training clips, given by their places in the training side; keeps what `backward` needs.
        No dropouts: none."""
        ...

    def backward(
        self, slopes: Sequence[torch.Tensor], parameters: Sequence[Weights], gradients: Sequence[Weights]
    ) -> None:
        """Write the gradient of every weight, given those of the outputs, (B, K)."""
        ...

    def evaluate(self, parameters: Sequence[Weights]) -> list[torch.Tensor]:
        """Outputs of the validation side."""
        ...


class _Flat:
    """Weights, gradient and moments of one head in four buffers, each weight a view; those with weight decay first."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        order = sorted(shapes, key=lambda name: (len(shapes[name]) < 2, name == _LAYER_WEIGHTS))
        places, end, self.decayed, self.head_end = {}, 0, 0, 0
        for name in order:
            places[name] = end
            end += -(-int(np.prod(shapes[name])) // _ALIGNED) * _ALIGNED
            if len(shapes[name]) >= 2:
                self.decayed = end
            if name != _LAYER_WEIGHTS:
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


def _train(
    table: torch.Tensor | Frames,
    job: HeadJob,
    labels: NDArray[np.int64],
    targets: NDArray[np.float32],
    rated: Rated | None,
    head: HeadSpec,
    loss: LossSpec,
    spec: TrainingSpec,
) -> TrainedHead:
    network: _Network = _FrameHead(table, job, head) if isinstance(table, Frames) else _VectorHead(table, job, head)
    num_labels, size, clips = targets.shape[1], spec.batch_size, len(job.train)
    batches = -(-clips // size)
    tasks: list[Task] = []
    classes = None
    if rated is None or not rated.spec.only:
        share = torch.full((clips, 1), 1 / size)  # of each clip in the mean over its batch, by place in the epoch
        share[(batches - 1) * size :] = 1 / (clips - (batches - 1) * size)
        goal = torch.from_numpy(goal_of(targets[job.train], job.class_weights, loss.label_smoothing))  # (n, K)
        classes = Classes(goal, share)
        tasks.append(classes)
    if rated is not None:
        tasks.append(Ratings(rated.tensor(job.train), torch.tensor(clips), size, rated.spec))
    flat = _start(network, job, {task.prefix: task.outputs for task in tasks})
    parameters, gradients = (
        [_of_head(weights, task.prefix) for task in tasks] for weights in (flat.parameters, flat.gradients)
    )
    total = max(1, int(np.ceil(spec.epochs * batches)))
    history: list[Evaluation] = []
    rate = rate_of(spec, job.learning_rate, total, batches, history)
    top = targets[job.train].argmax(axis=1)
    done = 0
    for epoch in range(int(np.ceil(spec.epochs))):
        order = np.random.Generator(np.random.PCG64(derive("order", job.seed, epoch))).permutation(clips)
        rows = torch.from_numpy(order)
        for task in tasks:
            task.begin(rows)
        dropouts = [Dropout(job.seed, epoch, head.dropout, task.prefix) for task in tasks] if head.dropout else []
        seen = 0
        for start in range(0, min(clips, (total - done) * size), size):
            seen = min(start + size, clips)
            outputs = network.forward(parameters, rows[start:seen], dropouts)
            slopes = [task.slope(part, start, seen) for task, part in zip(tasks, outputs, strict=True)]
            network.backward(slopes, parameters, gradients)
            if head.l2:
                flat.slope[: flat.head_end].add_(flat.values[: flat.head_end], alpha=2 * head.l2)
            flat.update(rate(done), job.weight_decay, spec.gradient_clip)
            done += 1
        loss_sum = sum(float(task.loss(seen)) for task in tasks)
        if not np.isfinite(loss_sum):
            raise Finding("the loss of a head is not finite; lower training.learning_rate")
        answers = classes.answers(seen) if classes is not None else 0
        outputs = network.evaluate(parameters)
        logits = outputs[0] if classes is not None else torch.zeros(len(job.validation), num_labels)
        ((val_loss, val_accuracy, val_uar),) = scores_of_all([logits], [labels[job.validation]])
        history.append(
            Evaluation(
                step=done,
                epoch=float(min(epoch + 1, spec.epochs)),
                train_loss=loss_sum / seen,
                train_accuracy=int((answers == top[order[:seen]]).sum()) / seen,
                val_loss=val_loss,
                val_accuracy=val_accuracy,
                val_uar=val_uar,
                learning_rate=rate(done),
                seconds=0.0,
                further=() if rated is None else rated.scores(job.validation, outputs[-1]),
            )
        )
        if select(history, spec.select) == len(history) - 1:
            flat.best.copy_(flat.values)
        if should_stop(history, spec.early_stopping):
            break
    weights = {name: value.numpy().copy() for name, value in flat.best_parameters.items()}
    weights |= {f"{task.prefix}w": np.ascontiguousarray(weights[f"{task.prefix}w"].T) for task in tasks}
    weights |= {"mean": network.mean.numpy(), "scale": network.scale.numpy()}
    return TrainedHead(weights, history, history[select(history, spec.select)], job.layer)


def _start(network: _Network, job: HeadJob, outputs: Mapping[str, int]) -> _Flat:
    """Initial weights; those of a map are drawn as (width, K), whatever way they are stored."""
    shapes = network.shapes(outputs)
    flat = _Flat(shapes)
    for full_name, shape in shapes.items():
        name = full_name.removeprefix(RATING)
        bound = network.bound(name, shape)
        if full_name == f"{RATING}b":
            flat.parameters[full_name].fill_(MIDDLE)
        elif bound is None:
            flat.parameters[full_name].fill_(float(name == "norm_w"))
        else:
            generator = torch.Generator().manual_seed(derive("init", job.seed, full_name))
            bound *= NEAR if full_name == f"{RATING}w" else 1
            drawn = torch.empty(shape[::-1] if name == "w" else shape).uniform_(-bound, bound, generator=generator)
            flat.parameters[full_name].copy_(drawn.T if name == "w" else drawn)
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
        self.x: torch.Tensor
        self.saved: list[_Saved] = []

    def shapes(self, outputs: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {_LAYER_WEIGHTS: (self.num_layers,)} if self.weighted else {}
        for prefix, count in outputs.items():
            width, own = self.width, dict[str, tuple[int, ...]]()
            if self.head.layer_norm:
                own |= {"norm_w": (width,), "norm_b": (width,)}
            if self.head.kind == "mlp":
                own |= {"w1": (width, self.head.hidden), "b1": (self.head.hidden,)}
                width = self.head.hidden
            own |= {"w": (count, width), "b": (count,)}
            shapes |= {prefix + name: shape for name, shape in own.items()}
        return shapes

    def bound(self, name: str, shape: tuple[int, ...]) -> float | None:
        last = self.head.hidden if self.head.kind == "mlp" else self.width
        fan_in = {"w1": self.width, "b1": self.width, "w": last, "b": last}.get(name)
        return None if fan_in is None else fan_in**-0.5

    def forward(
        self, parameters: Sequence[Weights], rows: torch.Tensor, dropouts: Sequence[Dropout]
    ) -> list[torch.Tensor]:
        widths = [self.width, *([self.head.hidden] if self.head.kind == "mlp" else [])]
        masks = [[dropout.mask(len(rows), width) for width in widths] for dropout in dropouts]
        self.x = self.train.index_select(0, rows)
        mixed = _mixed(self.x, parameters[0])
        passed = [
            _forward(mixed, own, self.head, masks[number] if masks else []) for number, own in enumerate(parameters)
        ]
        self.saved = [saved for _, saved in passed]
        return [output for output, _ in passed]

    def backward(
        self, slopes: Sequence[torch.Tensor], parameters: Sequence[Weights], gradients: Sequence[Weights]
    ) -> None:
        mixed = [
            _backward(slope, saved, own, found, self.head)
            for slope, saved, own, found in zip(slopes, self.saved, parameters, gradients, strict=True)
        ]
        if self.weighted:
            slope = mixed[0] if len(mixed) == 1 else mixed[0] + mixed[1]
            by_layer = torch.bmm(self.x, slope[:, :, None]).sum(dim=0)[:, 0]
            weights = parameters[0][_LAYER_WEIGHTS].softmax(dim=0)
            gradients[0][_LAYER_WEIGHTS].copy_(weights * (by_layer - (weights * by_layer).sum()))

    def evaluate(self, parameters: Sequence[Weights]) -> list[torch.Tensor]:
        chunks: list[list[torch.Tensor]] = [[] for _ in parameters]
        for part in torch.split(self.validation, _CHUNK):
            mixed = _mixed(part, parameters[0])
            for found, own in zip(chunks, parameters, strict=True):
                found.append(_forward(mixed, own, self.head, [])[0])
        return [torch.cat(found) for found in chunks]


@dataclass
class _Saved:
    """What the backward pass needs of the forward pass."""

    masks: list[torch.Tensor]
    mixed: torch.Tensor
    norm: tuple[torch.Tensor, torch.Tensor] | None
    first: torch.Tensor
    """Input of the first linear map."""
    before: torch.Tensor | None
    """Of the activation."""
    last: torch.Tensor
    """Input of the last linear map."""


def _mixed(x: torch.Tensor, parameters: Weights) -> torch.Tensor:
    """Standardised vectors (B, D) as they are, or their weighted sum over all layers, (B, L, D) -> (B, D)."""
    return torch.matmul(parameters[_LAYER_WEIGHTS].softmax(dim=0), x) if _LAYER_WEIGHTS in parameters else x


def _forward(
    mixed: torch.Tensor, parameters: Weights, head: HeadSpec, masks: list[torch.Tensor]
) -> tuple[torch.Tensor, _Saved]:
    """What `_mixed` gives, (B, D) -> outputs (B, K).

    `masks` are those of dropout before and, in an MLP, behind the hidden layer; none in evaluation.
    """
    norm, before = None, None
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
    return logits, _Saved(masks, mixed, norm, first, before, hidden)


def _activation(before: torch.Tensor, head: HeadSpec) -> torch.Tensor:
    if head.activation == "gelu":
        return torch.nn.functional.gelu(before)
    return before.relu() if head.activation == "relu" else before


def _backward(
    slope: torch.Tensor, saved: _Saved, parameters: Weights, gradients: Weights, head: HeadSpec
) -> torch.Tensor:
    """Write the gradients of a head's weights, given that of its outputs, (B, K); returns that of what it read, (B, D),
    where layer weights need it."""
    torch.mm(slope.T, saved.last, out=gradients["w"])
    torch.sum(slope, 0, out=gradients["b"])
    onwards = _LAYER_WEIGHTS in parameters or head.layer_norm
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
        return slope
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
    return slope


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

    def shapes(self, outputs: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        hidden = self.head.hidden
        return {
            prefix + name: shape
            for prefix, count in outputs.items()
            for name, shape in {
                "w1": (self.width, hidden),
                "b1": (hidden,),
                "norm_w": (hidden,),
                "norm_b": (hidden,),
                "w": (count, hidden),
                "b": (count,),
            }.items()
        }

    def bound(self, name: str, shape: tuple[int, ...]) -> float | None:
        if name == "w1":  # Glorot & Bengio 2010
            return float((6 / sum(shape)) ** 0.5)
        fan_in = {"b1": self.width, "w": self.head.hidden, "b": self.head.hidden}.get(name)
        return None if fan_in is None else float(fan_in**-0.5)

    def forward(
        self, parameters: Sequence[Weights], rows: torch.Tensor, dropouts: Sequence[Dropout]
    ) -> list[torch.Tensor]:
        clips = self.job.train[rows.numpy()]
        self.lengths = torch.from_numpy(self.starts[clips + 1] - self.starts[clips])
        self.ends = np.cumsum(self.lengths.numpy()).tolist()
        x = _frames_of(self.values, self.starts, clips, self.mean, self.scale, self._room("x", self.width))
        self.masked = bool(dropouts)
        self.pooled = [torch.empty(len(clips), self.head.hidden) for _ in parameters]
        return [
            self._forward(x, own, number, dropouts[number] if dropouts else None)
            for number, own in enumerate(parameters)
        ]

    def _forward(self, x: torch.Tensor, parameters: Weights, number: int, dropout: Dropout | None) -> torch.Tensor:
        """Of the head of this number."""
        before, active, mask, normed = (
            self._room(f"{name} {number}", self.head.hidden) for name in ("before", "active", "mask", "normed")
        )
        torch.addmm(parameters["b1"], x, parameters["w1"], out=before)
        mean, spread = (self._room(f"{name} {number}", 1) for name in ("mean", "spread"))
        torch.ops.aten.native_layer_norm.out(
            before,
            before.shape[-1:],
            parameters["norm_w"],
            parameters["norm_b"],
            _NORM_EPSILON,
            out0=normed,
            out1=mean,
            out2=spread,
        )
        torch.ops.aten.gelu.out(normed, out=active)
        if dropout is not None:
            active.mul_(dropout.fill(mask))
        for row, (start, end) in zip(self.pooled[number], pairwise([0, *self.ends]), strict=True):
            torch.mean(active[start:end], 0, out=row)
        return torch.addmm(parameters["b"], self.pooled[number], parameters["w"].T)

    def backward(
        self, slopes: Sequence[torch.Tensor], parameters: Sequence[Weights], gradients: Sequence[Weights]
    ) -> None:
        for number, (slope, own, found) in enumerate(zip(slopes, parameters, gradients, strict=True)):
            self._backward(slope, own, found, number)

    def _backward(self, slope: torch.Tensor, parameters: Weights, gradients: Weights, number: int) -> None:
        """Of the head of this number."""
        torch.mm(slope.T, self.pooled[number], out=gradients["w"])
        torch.sum(slope, 0, out=gradients["b"])
        by_clip = torch.mm(slope, parameters["w"]).div_(self.lengths[:, None])
        slope, before, normed = (
            self._room(f"{name} {number}", self.head.hidden) for name in ("active", "before", "normed")
        )
        for row, (start, end) in zip(by_clip, pairwise([0, *self.ends]), strict=True):
            slope[start:end] = row
        if self.masked:
            slope.mul_(self._room(f"mask {number}", self.head.hidden))
        torch.ops.aten.gelu_backward.grad_input(slope, normed, grad_input=slope)
        torch.ops.aten.native_layer_norm_backward.out(
            slope,
            before,
            before.shape[-1:],
            self._room(f"mean {number}", 1),
            self._room(f"spread {number}", 1),
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

    def evaluate(self, parameters: Sequence[Weights]) -> list[torch.Tensor]:
        return _frame_outputs(self.values, self.starts, self.job.validation, self.mean, self.scale, parameters)


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


def _frame_outputs(
    values: torch.Tensor,
    starts: NDArray[np.int64],
    clips: NDArray[np.int64],
    mean: torch.Tensor,
    scale: torch.Tensor,
    parameters: Sequence[Weights],
) -> list[torch.Tensor]:
    """Outputs of clips under each head, (n, K); each clip alone, so that they do not depend on the others."""
    pooled = [torch.empty(len(clips), own["w1"].shape[1]) for own in parameters]
    for place, clip in enumerate(clips):
        room = torch.empty(int(starts[clip + 1] - starts[clip]), values.shape[1])
        x = _frames_of(values, starts, np.array([clip]), mean, scale, room)
        for rows, own in zip(pooled, parameters, strict=True):
            before = torch.addmm(own["b1"], x, own["w1"])
            normed = torch.native_layer_norm(before, before.shape[-1:], own["norm_w"], own["norm_b"], _NORM_EPSILON)[0]
            torch.mean(torch.nn.functional.gelu(normed), 0, out=rows[place])
    return [torch.addmm(own["b"], rows, own["w"].T) for rows, own in zip(pooled, parameters, strict=True)]


def _fitting(table: torch.Tensor | Frames, jobs: Sequence[HeadJob], together: int = 1) -> int:
    """How many trainings, or groups of them, fit into `MEMORY_BYTES` at once, at least one."""
    if isinstance(table, Frames) or not jobs:
        return max(1, len(jobs))
    layers = table.shape[1] if jobs[0].layer is None else 1
    clips = max(len(job.train) + len(job.validation) for job in jobs)
    return int(max(1, min(len(jobs), MEMORY_BYTES // (together * clips * layers * table.shape[2] * 4))))


__all__ = ["Frames", "HeadJob", "Inputs", "Rated", "TrainedHead", "head_logits", "head_ratings", "train_heads"]
