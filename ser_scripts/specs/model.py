"""The model JSON: how one model is built and trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ser_scripts.specs.base import Spec
from ser_scripts.specs.compact import CompactEncoder

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Names become folder names: letters, digits, dot, dash and underscore."""


class PretrainedEncoder(Spec):
    """A pretrained speech encoder: a path, or a hub id looked up under SER_MODELS first."""

    kind: Literal["pretrained"] = "pretrained"
    model_path_or_name: str = Field(min_length=1)
    """A folder in `save_pretrained` layout, or a hub id such as `openai/whisper-tiny.en`."""
    revision: str | None = None
    """Commit, tag or branch of the hub repository; pin it for a paper."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights in memory, whatever the file holds."""
    frozen: bool = False
    """Run the encoder once over each clip, keep pooled hidden states in the cache, and train heads alone, all seeds and
    folds of a model side by side. Hidden states are standardised on the training clips. `freeze.encoder` is the slow
    way, which hears every clip anew and so goes with augmentation."""


class RandomEncoder(Spec):
    """An encoder built from a transformers configuration with random weights, for small models and tests."""

    kind: Literal["random"]
    config: dict[str, Any]
    """A transformers configuration with its `model_type`, e.g. `{"model_type": "whisper", "d_model": 64}`."""

    @field_validator("config")
    @classmethod
    def _has_model_type(cls, config: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(config.get("model_type"), str):
            raise ValueError("needs 'model_type', the name of a transformers architecture, e.g. 'wav2vec2'")
        return config


EncoderSpec = Annotated[PretrainedEncoder | RandomEncoder | CompactEncoder, Field(discriminator="kind")]


class LayersSpec(Spec):
    """Which hidden states of the encoder are used; 0 is the input to the first transformer layer."""

    use: Literal["last", "weighted", "search"] | Annotated[int, Field(ge=0, strict=True)] = "last"
    """`last`, the index of one layer, `weighted`: a learned softmax-weighted sum of all of them, or, with a frozen
    encoder, `search`: one head per layer, of which validation takes the best by the rule that also picks the epoch
    (`training.select`)."""
    pool_position: Literal["before", "after"] = "after"
    """With `weighted`: pool each layer and then weigh (`before`), or weigh frames and then pool (`after`)."""


class PoolingSpec(Spec):
    """How frames become one vector; frames that are padding never count."""

    kind: Literal["mean", "sum", "max", "mean_std", "attention", "attentive_stats", "ecapa"] = "mean"
    """`mean_std`: mean and standard deviation side by side, 2 D numbers."""


class HeadSpec(Spec):
    """Pooled vector to logits.

    `linear`: layer norm -> ReLU -> batch norm -> dropout -> linear, each step optional but the last. `mlp`: layer norm
    (optional) -> dropout -> linear -> GELU -> dropout -> linear.
    """

    kind: Literal["linear", "mlp"] = "linear"
    hidden: Annotated[int, Field(ge=1)] = 256
    """Width of the layer between, with `mlp`."""
    layer_norm: bool = False
    relu: bool = True
    """With `linear`."""
    batch_norm: bool = False
    """With `linear`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    temperature: bool = False
    """Divide the logits by a number that is learned with the weights; on the training clips, so no calibration."""
    l2: Annotated[float, Field(ge=0)] = 0.0
    """Factor of the sum of squared head parameters that is added to the loss."""

    @model_validator(mode="after")
    def _consistent(self) -> HeadSpec:
        if self.kind == "mlp" and self.batch_norm:
            raise ValueError("'batch_norm' belongs to the head 'linear'; an 'mlp' has 'layer_norm'")
        return self


class FreezeSpec(Spec):
    """What of the encoder is not trained."""

    cnn: bool = True
    """The convolutional front end (all layers before the transformer)."""
    encoder: bool = False
    """The whole encoder: only pooling, layer weights and head are trained."""
    all_but_last: Annotated[int, Field(ge=0)] | None = None
    """Everything but the last n transformer layers."""

    @model_validator(mode="after")
    def _consistent(self) -> FreezeSpec:
        if self.encoder and self.all_but_last is not None:
            raise ValueError("'encoder': true freezes every layer, so 'all_but_last' has no effect; give one of them")
        return self


class LossSpec(Spec):
    """Cross-entropy."""

    targets: Literal["hard", "votes"] = "hard"
    """`hard`: a clip's label. `votes`: the shares of its raters' votes among the labels of the task."""

    class_weights: bool = True
    """Weigh each class by its inverse frequency among the training clips (mean weight 1 per clip)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


class PlateauSpec(Spec):
    """Of the schedule `plateau`: lower the learning rate when a metric stands still."""

    metric: Literal["val_uar", "val_accuracy", "val_loss"] = "val_uar"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    patience: Annotated[int, Field(ge=0)] = 5
    """So many evaluations without improvement are borne; the next one lowers the rate."""
    min_delta: Annotated[float, Field(ge=0)] = 1e-4


class StepSpec(Spec):
    """Of the schedule `step`: lower the learning rate every few epochs."""

    epochs: Annotated[float, Field(gt=0)] = 10
    """Counted from the end of the warm-up."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5


class EarlyStoppingSpec(Spec):
    """Stop when the metric has not improved by more than `min_delta` for `patience` evaluations."""

    metric: Literal["val_uar", "val_accuracy", "val_loss"] = "val_uar"
    patience: Annotated[int, Field(ge=1)] = 5
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class TrainingSpec(Spec):
    """One training. Whatever can change a bit of the result stands here, threads and batch sizes included."""

    epochs: Annotated[float, Field(gt=0, le=10_000)] = 20
    batch_size: Annotated[int, Field(ge=1)] = 8
    """Clips per forward pass."""
    accumulation: Annotated[int, Field(ge=1)] = 1
    """Forward passes per update; the effective batch is batch_size x accumulation."""
    eval_batch_size: Annotated[int, Field(ge=1)] = 16
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    head_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Learning rate of pooling, layer weights and head; `learning_rate` when absent."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    scheduler: Literal["linear", "cosine", "constant", "one_cycle", "plateau", "step"] = "linear"
    plateau: PlateauSpec | None = None
    """Parameters of the scheduler `plateau`; its defaults when absent."""
    step: StepSpec | None = None
    """Parameters of the scheduler `step`; its defaults when absent."""
    min_learning_rate: Annotated[float, Field(ge=0)] = 0.0
    """After the warm-up the rate never falls below this; not with `constant` and `one_cycle`."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of all updates over which the learning rate rises from 0."""
    gradient_clip: Annotated[float, Field(gt=0)] | None = 1.0
    eval_every: Literal["epoch"] | Annotated[int, Field(ge=1, strict=True)] = "epoch"
    """Evaluate on the validation side every epoch, or every n updates."""
    select: Literal["val_uar", "val_accuracy", "val_loss", "last"] = "val_uar"
    """What picks the weights that are tested; `last` takes the last ones."""
    early_stopping: EarlyStoppingSpec | None = EarlyStoppingSpec()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """Longer training clips are cut at a place drawn per seed, epoch and clip; evaluation hears whole clips."""
    threads: Annotated[int, Field(ge=1)] = 2
    """CPU threads of torch: another number gives other bits."""
    save_model: Literal["none", "best", "last"] = "best"
    """`best` keeps the selected weights, `last` the final ones, `none` no weights at all."""
    track: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ("tensorboard",)

    @model_validator(mode="after")
    def _schedule(self) -> TrainingSpec:
        for name in ("plateau", "step"):
            if getattr(self, name) is not None and self.scheduler != name:
                raise ValueError(f"'{name}' has no effect with the scheduler '{self.scheduler}'; take it out")
        if self.min_learning_rate and self.scheduler in ("constant", "one_cycle"):
            raise ValueError(f"'min_learning_rate' has no effect with the scheduler '{self.scheduler}'; take it out")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f"'min_learning_rate' lies above 'learning_rate' ({self.learning_rate:g})")
        return self


class ModelSpec(Spec):
    """One model: encoder, layers, pooling, head, loss and training."""

    name: str = Field(pattern=NAME_PATTERN)
    description: str = ""
    kind: Literal["finetune"] = "finetune"
    factors: dict[str, str | bool | int] = {}
    """What distinguishes this model in the statistics, e.g. `{"architecture": "hubert", "italian": true}`."""
    encoder: EncoderSpec
    layers: LayersSpec = LayersSpec()
    pooling: PoolingSpec = PoolingSpec()
    head: HeadSpec = HeadSpec()
    freeze: FreezeSpec = FreezeSpec()
    loss: LossSpec = LossSpec()
    training: TrainingSpec = TrainingSpec()
    init_from: str | None = None
    """A finished run folder whose weights are the start; the speakers it has seen join the leak check."""

    @field_validator("encoder", mode="before")
    @classmethod
    def _default_kind(cls, value: Any) -> Any:
        if isinstance(value, dict) and "kind" not in value:
            return {"kind": "pretrained", **value}
        return value

    @model_validator(mode="after")
    def _one_state(self) -> ModelSpec:
        if isinstance(self.encoder, CompactEncoder) and self.layers.use not in ("last", 0):
            raise ValueError("a compact model has one hidden state; leave 'layers' out")
        return self

    @model_validator(mode="after")
    def _frozen_fits(self) -> ModelSpec:
        if not self.frozen:
            if self.layers.use == "search":
                raise ValueError('layers.use \'search\' goes with a frozen encoder: "encoder": {"frozen": true}')
            return self
        training, weighted = self.training, self.layers.use == "weighted" and self.layers.pool_position == "after"
        faults = {
            f"pooling.kind '{self.pooling.kind}' (mean, max and mean_std do)": (
                self.pooling.kind not in ("mean", "max", "mean_std")
            ),
            "layers.pool_position 'after' with weighted layers and a pooling other than mean (use 'before')": (
                weighted and self.pooling.kind != "mean"
            ),
            "head.batch_norm": self.head.batch_norm,
            "head.layer_norm": self.head.layer_norm,
            "head.temperature": self.head.temperature,
            "loss.targets 'votes'": self.loss.targets == "votes",
            "training.accumulation": training.accumulation != 1,
            f"training.precision '{training.precision}'": training.precision != "fp32",
            "training.eval_every other than 'epoch'": training.eval_every != "epoch",
            "training.max_seconds": training.max_seconds is not None,
            "training.gradient_checkpointing": training.gradient_checkpointing,
            "init_from": self.init_from is not None,
        }
        for what, wrong in faults.items():
            if wrong:
                raise ValueError(
                    f"{what} does not go with a frozen encoder, whose heads train on pooled hidden states; leave it "
                    'out, or use "freeze": {"encoder": true}, which hears every clip anew'
                )
        return self

    @property
    def frozen(self) -> bool:
        """Whether heads are trained on cached hidden states."""
        return isinstance(self.encoder, PretrainedEncoder) and self.encoder.frozen

    @field_validator("factors")
    @classmethod
    def _no_reserved_factor(cls, factors: dict[str, str | bool | int]) -> dict[str, str | bool | int]:
        from ser_eval.run_folder import RESULT_COLUMNS, RESULT_KEYS

        for name in sorted({*RESULT_KEYS, *RESULT_COLUMNS} & factors.keys()):
            raise ValueError(f"'{name}' is a column of results.csv already; choose another name for the factor")
        return factors
