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
from ser_scripts.training.clock import duration
from ser_scripts.training.data import (
    EpochLoader,
    FeatureSource,
    LengthGroupedBatches,
    TrainingSet,
    sorted_batches,
)
from ser_scripts.training.history import (
    BEST,
    CHECKPOINTS,
    LAST,
    Evaluation,
    Trained,
    read_history,
    select,
    should_stop,
    write_history,
)
from ser_scripts.training.probabilities import softmax
from ser_scripts.training.schedules import schedule
from ser_scripts.training.seeding import derive, seed_everything

LOGS = "logs"
PROGRESS_SECONDS = 20.0
"""A long epoch reports at least this often."""


@torch.inference_mode()
def predict_logits(
    model: SerModel, source: FeatureSource, spec: TrainingSpec, device: torch.device
) -> NDArray[np.float32]:
    """Logits (N, K) of all clips of a source, in its order and in the precision of the training.

    The clips go through in batches of like length; padding does not matter.
    """
    indices = range(len(source.clips))
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(spec.precision)
    was_training = model.training
    model.eval()
    rows: list[NDArray[np.float32] | None] = [None] * len(indices)
    for batch in sorted_batches([source.num_samples(index) for index in indices], spec.eval_batch_size):
        inputs = source.encoder.collate([source.features(position) for position in batch])
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            outputs = model(**{key: value.to(device) for key, value in inputs.items()})
        logits = outputs["logits"].float().cpu().numpy()
        for position, row in zip(batch, logits, strict=True):
            rows[position] = row
    model.train(was_training)
    stacked = np.stack([row for row in rows if row is not None])
    assert len(stacked) == len(indices)
    return stacked


def updates_per_epoch(items: int, spec: TrainingSpec) -> int:
    """Updates in an epoch of so many items."""
    return math.ceil(math.ceil(items / spec.batch_size) / spec.accumulation)


class SerTrainer(Trainer):  # type: ignore[misc]
    """The HF Trainer with explicit seeds, length-grouped batches, and evaluation in order."""

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
    ):
        self.spec = spec
        self.train_seed = seed
        self.labels = list(labels)
        self.training = training
        self.validation = validation
        self.loader_workers = loader_workers
        self.folder = folder
        self.history = history
        self.report = report
        self._loss_sum = self._correct = self._seen = 0.0
        self._started = self._last_report = time.monotonic()
        self._first_step: int | None = None
        self.optimizer: Any
        self.lr_scheduler: Any
        self.control: Any
        super().__init__(model=model, args=args, train_dataset=training, eval_dataset=validation.clips)
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
                self.spec.learning_rate, self.spec.head_learning_rate, self.spec.weight_decay
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

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Loss of one batch, under the seed of that batch."""
        epoch, batch = inputs.pop("epoch"), inputs.pop("batch")
        seed_everything(derive("batch", self.train_seed, epoch, batch))
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch)
        labels = inputs["labels"]
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
        clips = self.validation.clips
        logits = predict_logits(self.model, self.validation, self.spec, self.args.device)
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
        self.log({**measured, "train_accuracy": row.train_accuracy})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, measured)
        best = self.history[select(self.history, "val_uar")]
        self.report(
            f"epoch {row.epoch:g}/{self.spec.epochs:g}  train loss {row.train_loss:.3f} acc {row.train_accuracy:.3f}  "
            f"val loss {row.val_loss:.3f} UAR {row.val_uar:.3f} (best {best.val_uar:.3f}, epoch {best.epoch:g})"
            f"{self._remaining()}"
        )
        self._last_report = time.monotonic()
        return measured

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


class _StopOnHistory(TrainerCallback):  # type: ignore[misc]
    def __init__(self, trainer: SerTrainer):
        self.trainer = trainer

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if should_stop(self.trainer.history, self.trainer.spec.early_stopping):
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

    Raises:
        Finding: if the loss is not finite
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
    )
    if history:
        report(f"resumes after epoch {history[-1].epoch:g} (step {history[-1].step})")
    updates = math.ceil(spec.epochs * updates_per_epoch(len(training), spec))
    finished = bool(history) and history[-1].step >= updates
    if not finished and not should_stop(history, spec.early_stopping):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
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
