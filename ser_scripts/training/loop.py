"""One training with the HF Trainer: our order of clips, our seeds, our selection.

The Trainer keeps the loop, optimiser steps, accumulation, mixed precision, checkpoints and tracking. Three things
are ours, because a killed run must end with the same predictions as one that was not killed:

- the batches of an epoch are a pure function of (seed, epoch), and every forward pass is seeded from (seed, epoch,
  batch), so that dropout and masking do not depend on the state of a generator;
- evaluation runs sorted batches and puts the rows back in order;
- selection and early stopping are pure functions of the history, which is on disk.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.tensorboard import SummaryWriter
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback

from ser_eval import metrics
from ser_eval.run_folder import HISTORY
from ser_scripts.errors import Finding
from ser_scripts.modeling.model import SerModel
from ser_scripts.specs.model import TrainingSpec
from ser_scripts.training.averaging import WeightAverage
from ser_scripts.training.clock import duration
from ser_scripts.training.compiling import Compiled, uncompiled
from ser_scripts.training.data import (
    CHANGED,
    EpochLoader,
    FeatureSource,
    LengthGroupedBatches,
    TrainingSet,
    sorted_batches,
)
from ser_scripts.training.front import FrontCache
from ser_scripts.training.history import (
    BEST,
    CHECKPOINTS,
    LAST,
    Evaluation,
    Trained,
    rating_scores,
    read_history,
    select,
    should_stop,
    write_history,
)
from ser_scripts.training.memory import EVALUATION_KEYS, TRAINING_KEYS, Fit, is_out_of_memory, parts
from ser_scripts.training.probabilities import softmax
from ser_scripts.training.schedules import schedule
from ser_scripts.training.seeding import derive, seed_everything

LOGS = "logs"
PROGRESS_SECONDS = 20.0
"""A long epoch reports at least this often."""


@torch.inference_mode()
def predict_logits(
    model: SerModel,
    source: FeatureSource,
    spec: TrainingSpec,
    device: torch.device,
    *,
    fit: Fit | None = None,
    step: int = 0,
    rated: list[NDArray[np.float32]] | None = None,
    front: FrontCache | None = None,
) -> NDArray[np.float32]:
    """Logits (N, K) of all clips of a source, in its order and in the precision of the training.

    The clips go through in batches of like length; padding does not matter. A clip beyond `encoder.max_seconds` goes
    through in windows (`data.windows`); its logits are the logarithm of the mean of their probabilities.

    Args:
        model: the model
        source: the clips
        spec: batch size and precision
        device: where the model lies
        fit: takes note of batches that had to be halved
        step: updates done, for that note
        rated: takes the predicted ratings (N, D) of a model that has some; of a clip in windows their mean
        front: keeps what a frozen front end makes of the clips, for the next time; does not change any number
    """
    fit = Fit() if fit is None else fit
    front = FrontCache(model.encoder, None) if front is None else front
    was_training = model.training
    model.eval()
    pieces = source.pieces(model.window_seconds)
    rows: list[NDArray[np.float32] | None] = [None] * len(pieces)
    ratings = np.zeros((len(pieces), len(model.dimensions)), dtype=np.float32)
    todo = sorted_batches([stop - start for _, start, stop in pieces], spec.eval_batch_size)[::-1]
    while todo:
        batch, size = todo.pop(), fit.limit("evaluation") or spec.eval_batch_size
        if len(batch) > size:
            todo += [batch[start : start + size] for start in range(0, len(batch), size)][::-1]
            continue
        inputs = source.encoder.collate([source.piece(*pieces[position]) for position in batch])
        try:
            with arithmetic(spec, device):
                names = [source.name(*pieces[position]) for position in batch]
                outputs = model(*front.batch(inputs["inputs"].to(device), inputs["lengths"].to(device), names))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            fit.halve("evaluation", len(batch), step=step, keys=EVALUATION_KEYS, keeps="with the same results")
            todo.append(batch)
            continue
        logits = outputs["logits"].float().cpu().numpy()
        for position, row in zip(batch, logits, strict=True):
            rows[position] = row
        if model.dimensions:
            ratings[batch] = outputs["ratings"].float().cpu().numpy()
    model.train(was_training)
    if rated is not None and model.dimensions:
        rated.append(clip_means(ratings, [index for index, _, _ in pieces]))
    stacked = np.stack([row for row in rows if row is not None])
    assert len(stacked) == len(pieces)
    return stacked if len(pieces) == len(source.clips) else joined(stacked, [index for index, _, _ in pieces])


def arithmetic(spec: TrainingSpec, device: torch.device) -> torch.autocast:
    """A context in which torch computes in the precision of the spec."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(spec.precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def clip_means(values: NDArray[np.float32], clips: Sequence[int]) -> NDArray[np.float32]:
    """Mean over the windows of each clip, (W, D) -> (N, D); `clips` as in `joined`."""
    owners = np.asarray(clips)
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    counts = np.diff(starts, append=len(owners))
    return np.asarray(np.add.reduceat(values, starts, axis=0) / counts[:, None], dtype=np.float32)


def joined(logits: NDArray[np.float32], clips: Sequence[int]) -> NDArray[np.float32]:
    """One row per clip from one per window: the logarithm of the mean probabilities; a lone window stays as it is.

    Args:
        logits: (W, K)
        clips: the clip of each window, ascending from 0, without gaps

    Returns:
        (N, K)
    """
    owners = np.asarray(clips)
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    counts = np.diff(starts, append=len(owners))
    means = np.add.reduceat(softmax(logits), starts, axis=0) / counts[:, None]
    averaged = np.log(np.maximum(means, np.finfo(np.float32).tiny))
    return np.where(counts[:, None] == 1, logits[starts], averaged).astype(np.float32)


def updates_per_epoch(items: int, spec: TrainingSpec) -> int:
    """Updates in an epoch of so many items."""
    return math.ceil(math.ceil(items / spec.batch_size) / spec.accumulation)


def all_updates(items: int, spec: TrainingSpec) -> int:
    """Updates in all epochs of so many items."""
    return math.ceil(spec.epochs * updates_per_epoch(items, spec))


class SerTrainer(Trainer):  # type: ignore[misc]
    """The HF Trainer with explicit seeds, length-grouped batches, and evaluation in order."""

    compiled: Compiled | None = None

    def __init__(
        self,
        model: SerModel,
        args: TrainingArguments,
        *,
        spec: TrainingSpec,
        seed: int,
        labels: Sequence[str],
        training: TrainingSet,
        validation: FeatureSource,
        loader_workers: int,
        folder: Path,
        history: list[Evaluation],
        report: Callable[[str], None],
        stop: Callable[[Sequence[Evaluation]], bool] | None = None,
        fit: Fit | None = None,
        front: FrontCache | None = None,
        compiled: Compiled | None = None,
    ):
        self.spec = spec
        self.fit = Fit(report) if fit is None else fit
        self.front = FrontCache(model.encoder, None) if front is None else front
        self.compiled = compiled
        self.stop = stop
        self.train_seed = seed
        self.labels = list(labels)
        self.training = training
        self.validation = validation
        self.loader_workers = loader_workers
        self.folder = folder
        self.history = history
        self.report = report
        self._loss_sum = self._correct = self._seen = 0.0
        self._sums = (0.0, 0.0, 0.0)
        self._trained = 0
        self._started = self._last_report = time.monotonic()
        self._first_step: int | None = None
        self._epoch: int | None = None
        self._update: tuple[int, list[dict[str, Any]]] = (-1, [])
        self._adversary: dict[tuple[int, int], list[torch.Tensor]] = {}
        self.optimizer: Any
        self.lr_scheduler: Any
        self.control: Any
        super().__init__(model=model, args=args, train_dataset=training, eval_dataset=validation.clips)
        self.average: WeightAverage | None = None
        if spec.weight_average is not None:
            self.average = WeightAverage(model, spec.weight_average, updates=all_updates(len(training), spec))
            self.add_callback(_Average(self.average))
        self.remove_callback(PrinterCallback)
        self.add_callback(_StopOnHistory(self))
        if "tensorboard" in spec.track:
            self.add_callback(TensorBoardCallback(SummaryWriter(log_dir=str(folder / LOGS))))

    def get_train_dataloader(self) -> EpochLoader:
        """Batches of like length; with workers the items are the same, since each is a pure function of its key."""
        batches = LengthGroupedBatches(self.training.lengths(), self.spec.batch_size, seed=self.train_seed)
        return EpochLoader(
            self.training,
            batch_sampler=batches,
            num_workers=self.loader_workers,
            collate_fn=self.training.collate,
            pin_memory=self.args.device.type == "cuda",
        )

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW over encoder and head groups (Loshchilov & Hutter 2019)."""
        if self.optimizer is None:
            groups = self.model.parameter_groups(
                self.spec.learning_rate, self.spec.head_learning_rate, self.spec.weight_decay, self.spec.layer_decay
            )
            self.optimizer = torch.optim.AdamW(groups, fused=self.args.device.type in ("cpu", "cuda"))
        return cast(torch.optim.Optimizer, self.optimizer)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """The schedule of the spec; it knows the history, so that a resumed training goes on with the same rates."""
        if self.lr_scheduler is None:
            factors = [
                schedule(
                    self.spec,
                    group["lr"],
                    total=num_training_steps,
                    warmup=self.args.get_warmup_steps(num_training_steps),
                    per_epoch=updates_per_epoch(len(self.training), self.spec),
                    history=self.history,
                )
                for group in self.optimizer.param_groups
            ]
            self.lr_scheduler = LambdaLR(self.optimizer, factors)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.average is not None:
            self.average.save(Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.average is not None and checkpoint is not None:
            self.average.load(Path(checkpoint))

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """Forward and backward pass of one batch; where it does not fit into memory, in parts.

        A failed backward pass may have left gradients of some parameters, so the whole update so far is done again, in
        parts. Losses are divided by the clips of the update, so that its gradients are those of the undivided batches,
        but for batch norms, which see a part, and dropout, which is drawn anew.
        """
        if self._update[0] != self.state.global_step:
            self._update = (self.state.global_step, [])
        batches = self._update[1]
        batches.append(dict(inputs))  # what follows takes keys out
        sums = (self._loss_sum, self._correct, self._seen) if len(batches) == 1 else self._sums
        self._sums = sums
        todo = [batches[-1]]
        while True:
            try:
                return self._in_parts(model, todo, num_items_in_batch)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            model.zero_grad()
            self._loss_sum, self._correct, self._seen = sums
            size = self.fit.limit("training") or self.spec.batch_size
            clips = min(size, max(len(batch["labels"]) for batch in todo))
            now = self.fit.halve(
                "training",
                clips,
                step=self.state.global_step,
                keys=TRAINING_KEYS,
                keeps=f"an update keeps its {self.spec.batch_size * self.spec.accumulation} clips",
            )
            assert now < clips
            self.fit.save(self.folder)
            todo = list(batches)

    def _in_parts(
        self, model: Any, batches: Sequence[dict[str, Any]], num_items: torch.Tensor | int | None
    ) -> torch.Tensor:
        size = self.fit.limit("training") or self.spec.batch_size
        losses = []
        for batch in batches:
            for part in parts(batch, size):
                losses.append(super().training_step(model, dict(part), num_items))
        return torch.stack(losses).sum()

    def _start_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self.model.start_epoch(epoch)
        self.model.train()
        now = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        if self.model.spec.freeze.gradual is not None and now != self._trained:
            self._trained = now
            self.report(f"epoch {epoch + 1}: trains {now:,} parameters")

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Loss of one batch, under the seed of that batch."""
        epoch, batch, start = inputs.pop("epoch"), inputs.pop("batch"), inputs.pop("start", None)
        clean = inputs.pop("clean", None)
        if epoch != self._epoch:
            self._start_epoch(epoch)
        heard = False
        if clean is not None:
            source, given = self.training.source, inputs["inputs"]
            names = [None if index == CHANGED else source.name(index) for index in clean.tolist()]
            with arithmetic(self.spec, self.args.device):
                inputs["inputs"], inputs["lengths"] = self.front.batch(given, inputs["lengths"], names)
            heard = inputs["inputs"] is not given
        padded = None if self.compiled is None else self.compiled.pad(inputs["inputs"], heard=heard)
        if padded is not None:
            inputs["inputs"] = padded
        seed_everything(derive("batch", self.train_seed, epoch, batch, *([] if start is None else [start])))
        self.model.progress = self.state.global_step / max(1, self.state.max_steps)
        with nullcontext() if padded is not None else uncompiled(self.compiled):
            outputs = model(**inputs, num_items_in_batch=num_items_in_batch)
        labels = inputs["labels"]
        if "adversary" in outputs:
            if not start:  # the first part of a batch, perhaps of one that is done again
                self._adversary[epoch, batch] = []
            self._adversary[epoch, batch].append(outputs["adversary"])
        share = len(labels) if num_items_in_batch is None else float(num_items_in_batch)
        self._loss_sum += float(outputs["loss"].detach()) * share
        self._correct += int((outputs["logits"].detach().argmax(-1) == labels).sum())
        self._seen += len(labels)
        if not math.isfinite(self._loss_sum):
            raise Finding(
                f"{self.folder}: the loss is not finite in epoch {epoch + 1}, batch {batch + 1}; "
                f"lower training.learning_rate ({self.spec.learning_rate:g}), or train in fp32 or bf16"
            )
        self._report_progress()
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Evaluate on the validation side: one row of history.csv, and the weights when they are the best so far."""
        with nullcontext() if self.average is None else self.average.in_place():
            return self._evaluate_weights(metric_key_prefix)

    def _evaluate_weights(self, metric_key_prefix: str) -> dict[str, float]:
        clips = self.validation.clips
        rated: list[NDArray[np.float32]] = []
        with uncompiled(self.compiled):
            logits = predict_logits(
                self.model,
                self.validation,
                self.spec,
                self.args.device,
                fit=self.fit,
                step=self.state.global_step,
                rated=rated,
                front=self.front,
            )
        if self.fit.events:
            self.fit.save(self.folder)
        truth = np.array([clip.label for clip in clips])
        log_probabilities = np.log(np.maximum(softmax(logits), np.finfo(np.float64).tiny))
        names = [self.labels[label] for label in truth]
        predicted = [self.labels[label] for label in logits.argmax(-1)]
        row = Evaluation(
            step=self.state.global_step,
            epoch=round(float(self.state.epoch or 0), 6),
            train_loss=self._loss_sum / max(1, self._seen),
            train_accuracy=self._correct / max(1, self._seen),
            val_loss=float(-log_probabilities[np.arange(len(truth)), truth].mean()),
            val_accuracy=metrics.accuracy(names, predicted, labels=self.labels),
            val_uar=metrics.uar_over_present_classes(names, predicted, labels=self.labels)[0],
            learning_rate=float(self.optimizer.param_groups[0]["lr"]) if self.optimizer else 0.0,
            seconds=round(time.monotonic() - self._started, 3),
            further=(*self._rating_scores(rated), *self._adversary_scores()),
        )
        self._loss_sum = self._correct = self._seen = 0.0
        self.history.append(row)
        if select(self.history, self.spec.select) == len(self.history) - 1:
            save_weights(self.model, best_weights(self.folder, row))
        if self.spec.save_model == "last":
            save_weights(self.model, self.folder / LAST)
        write_history(self.folder / HISTORY, self.history)
        measured = {
            f"{metric_key_prefix}_{key[4:]}": getattr(row, key) for key in ("val_loss", "val_accuracy", "val_uar")
        }
        self.log({**measured, **dict(row.further), "train_accuracy": row.train_accuracy})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, measured)
        best = self.history[select(self.history, "val_uar")]
        shown = f"val loss {row.val_loss:.3f} UAR {row.val_uar:.3f} (best {best.val_uar:.3f}, epoch {best.epoch:g})"
        accuracy = f" acc {row.train_accuracy:.3f}"
        if rated:
            best = self.history[select(self.history, "val_ccc")]
            ccc = f"val CCC {row.val_ccc:.3f} (best {best.val_ccc:.3f}, epoch {best.epoch:g})"
            ratings = self.model.spec.ratings
            only = ratings is not None and ratings.only
            shown, accuracy = (ccc, "") if only else (f"{shown} {ccc}", accuracy)
        self.report(
            f"epoch {row.epoch:g}/{self.spec.epochs:g}  train loss {row.train_loss:.3f}{accuracy}  {shown}"
            f"{self._remaining()}"
        )
        self._last_report = time.monotonic()
        return measured

    def _rating_scores(self, rated: Sequence[NDArray[np.float32]]) -> list[tuple[str, float]]:
        """Those of `history.rating_scores`; none without ratings."""
        if not rated:
            return []
        truth = np.array([clip.ratings for clip in self.validation.clips], dtype=np.float64)
        return rating_scores(self.model.dimensions, truth, rated[0])

    def _adversary_scores(self) -> list[tuple[str, float]]:
        """Cross-entropy and accuracy of the adversary on the training clips since the last evaluation."""
        if self.model.adversary is None:
            return []
        parts = [part for parts in self._adversary.values() for part in parts]
        loss, right, count = torch.stack(parts).double().sum(dim=0).tolist() if parts else (0.0, 0.0, 0.0)
        self._adversary = {}
        return [("adversary_loss", loss / max(1.0, count)), ("adversary_accuracy", right / max(1.0, count))]

    def _clip_grad_norm(self, model: Any) -> Any:
        """As the Trainer does, but the adversary by itself: its gradients do not shrink those of the model."""
        adversary = self.model.adversary
        if adversary is None:
            return super()._clip_grad_norm(model)
        own = set(map(id, adversary.parameters()))
        rest = [parameter for parameter in model.parameters() if id(parameter) not in own]
        norm = self.accelerator.clip_grad_norm_(rest, self.args.max_grad_norm)
        torch.nn.utils.clip_grad_norm_(adversary.parameters(), self.args.max_grad_norm)
        return norm

    def _report_progress(self) -> None:
        if self._first_step is None:
            self._first_step = self.state.global_step
        if time.monotonic() - self._last_report >= PROGRESS_SECONDS:
            self._last_report = time.monotonic()
            shown = f"UAR {self.history[-1].val_uar:.3f}" if self.history else "no evaluation yet"
            done = f"step {self.state.global_step}/{self.state.max_steps}"
            self.report(f"{done}  train loss {self._loss_sum / self._seen:.3f}  val {shown}{self._remaining()}")

    def _remaining(self) -> str:
        done = self.state.global_step - (self._first_step or 0)
        if done <= 0:
            return ""
        seconds = (time.monotonic() - self._started) / done * (self.state.max_steps - self.state.global_step)
        return f"  at most {duration(seconds)} left"


class _Average(TrainerCallback):  # type: ignore[misc]
    def __init__(self, average: WeightAverage):
        self.average = average

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        self.average.update(state.global_step)
        return control


class _StopOnHistory(TrainerCallback):  # type: ignore[misc]
    def __init__(self, trainer: SerTrainer):
        self.trainer = trainer

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        trainer = self.trainer
        if should_stop(trainer.history, trainer.spec.early_stopping) or (
            trainer.stop and trainer.stop(trainer.history)
        ):
            control.should_training_stop = True
        return control

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        chosen = self.trainer.history[select(self.trainer.history, self.trainer.spec.select)]
        for file in (self.trainer.folder / BEST).glob("*.safetensors"):
            if file != best_weights(self.trainer.folder, chosen):
                file.unlink()
        return control


def best_weights(folder: Path, row: Evaluation) -> Path:
    """Where the weights of an evaluation lie that was the best so far."""
    return folder / BEST / f"{row.step}.safetensors"


def train(
    model: SerModel,
    spec: TrainingSpec,
    *,
    seed: int,
    labels: Sequence[str],
    training: TrainingSet,
    validation: FeatureSource,
    folder: Path,
    device: str,
    loader_workers: int,
    run_name: str,
    report: Callable[[str], None],
    stop: Callable[[Sequence[Evaluation]], bool] | None = None,
    fit: Fit | None = None,
    front: FrontCache | None = None,
    compiled: Compiled | None = None,
) -> Trained:
    """Train the model in place and leave the selected weights in it.

    Args:
        model: the model, initialised
        spec: how to train
        seed: of order, masking, dropout and augmentation
        labels: the K labels, sorted
        training: the items of an epoch
        validation: the clips that select
        folder: the `.partial` run folder; an earlier checkpoint in it is resumed
        device: `cpu`, `cuda` or `mps`
        loader_workers: processes that read clips; does not change any number
        run_name: shown by the trackers
        report: takes one line of progress
        stop: hears the history after every evaluation, and of a resumed training before the next one; true ends the
            training there (a search prunes so)
        fit: takes note of batches that had to be halved
        front: keeps what a frozen front end makes of the clips from one epoch to the next; does not change any number
        compiled: compiles the layers, if the spec says so

    Raises:
        Finding: if the loss is not finite, or a single clip does not fit into memory
    """
    every: dict[str, Any] = {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch"}
    if isinstance(spec.eval_every, int):
        every = dict.fromkeys(every, "steps") | dict.fromkeys(
            ("eval_steps", "save_steps", "logging_steps"), spec.eval_every
        )
    checkpoints = folder / CHECKPOINTS
    arguments = TrainingArguments(
        output_dir=str(checkpoints),
        run_name=run_name,
        num_train_epochs=spec.epochs,
        per_device_train_batch_size=spec.batch_size,
        per_device_eval_batch_size=spec.eval_batch_size,
        gradient_accumulation_steps=spec.accumulation,
        learning_rate=spec.learning_rate,
        warmup_steps=spec.warmup,
        max_grad_norm=spec.gradient_clip or 0.0,
        bf16=spec.precision == "bf16",
        fp16=spec.precision == "fp16",
        use_cpu=device == "cpu",
        save_total_limit=1,
        seed=derive("trainer", seed),
        report_to=[tracker for tracker in spec.track if tracker != "tensorboard"] or "none",
        disable_tqdm=True,
        log_level="error",
        remove_unused_columns=False,
        label_names=["labels"],
        **every,
    )
    arguments._n_gpu = 1  # one run is one device; the Trainer would spread it over all GPUs
    (folder / BEST).mkdir(exist_ok=True)
    checkpoint, history = _resume_point(folder, spec.select)
    fit = Fit(report) if fit is None else fit
    fit.restore(folder, step=history[-1].step if history else -1)
    trainer = SerTrainer(
        model,
        arguments,
        spec=spec,
        seed=seed,
        labels=labels,
        training=training,
        validation=validation,
        loader_workers=loader_workers,
        folder=folder,
        history=history,
        report=report,
        stop=stop,
        fit=fit,
        front=front,
        compiled=compiled,
    )
    if history:
        report(f"resumes after epoch {history[-1].epoch:g} (step {history[-1].step})")
    finished = bool(history) and history[-1].step >= all_updates(len(training), spec)
    stopped = should_stop(history, spec.early_stopping) or bool(history and stop and stop(history))
    if not finished and not stopped:
        with nullcontext() if compiled is None else compiled.running():
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if compiled is not None:
            report(f"compiled {compiled.graphs} graphs for {len(compiled.samples)} lengths")
    chosen = trainer.history[select(trainer.history, spec.select)]
    load_weights(model, best_weights(folder, chosen), arguments.device)
    return Trained(trainer.history, chosen, history[-1].step if checkpoint and history else None)


def save_weights(model: SerModel, file: Path) -> None:
    """Write all weights, whole or not at all."""
    temporary = file.with_suffix(".tmp")
    save_file({name: value.contiguous().clone() for name, value in model.state_dict().items()}, temporary)
    temporary.replace(file)


def load_weights(model: SerModel, file: Path, device: torch.device) -> None:
    """Put the weights that `save_weights` wrote into the model."""
    model.load_state_dict(load_file(file, device=str(device)))


def _resume_point(folder: Path, rule: str) -> tuple[Path | None, list[Evaluation]]:
    """The newest whole checkpoint and the history up to it; anything later is done again, identically."""
    file = folder / HISTORY
    if not file.is_file():
        return None, []
    history = read_history(file)
    for checkpoint in sorted((folder / CHECKPOINTS).glob("checkpoint-*"), key=_step, reverse=True):
        known = [row for row in history if row.step <= _step(checkpoint)]
        whole = _is_whole(checkpoint) and bool(known) and known[-1].step == _step(checkpoint)
        if whole and best_weights(folder, known[select(known, rule)]).is_file():
            return checkpoint, known
        shutil.rmtree(checkpoint)  # torn by a kill
    return None, []


def _is_whole(checkpoint: Path) -> bool:
    """Whether the state file, which the Trainer writes last, is there and complete."""
    try:
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(state["global_step"] == _step(checkpoint))


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
