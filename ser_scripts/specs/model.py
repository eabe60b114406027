"""The model JSON: how one model is built and trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ser_scripts.specs.base import Spec

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


class RandomEncoder(Spec):
    """An encoder built from a configuration with random weights, for compact models and tests."""

    kind: Literal["random"]
    config: dict[str, Any]
    """A transformers configuration with its `model_type`, e.g. `{"model_type": "whisper", "d_model": 64}`."""

    @field_validator("config")
    @classmethod
    def _has_model_type(cls, config: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(config.get("model_type"), str):
            raise ValueError("needs 'model_type', the name of a transformers architecture, e.g. 'wav2vec2'")
        return config


EncoderSpec = Annotated[PretrainedEncoder | RandomEncoder, Field(discriminator="kind")]


class LayersSpec(Spec):
    """Which hidden states of the encoder are used; 0 is the input to the first transformer layer."""

    use: Literal["last", "weighted"] | Annotated[int, Field(ge=0, strict=True)] = "last"
    """`last`, the index of one layer, or `weighted`: a learned softmax-weighted sum of all of them."""
    pool_position: Literal["before", "after"] = "after"
    """With `weighted`: pool each layer and then weigh (`before`), or weigh frames and then pool (`after`)."""


class PoolingSpec(Spec):
    """How frames become one vector; frames that are padding never count."""

    kind: Literal["mean", "sum", "max", "attentive_stats", "ecapa"] = "mean"


class HeadSpec(Spec):
    """Pooled vector -> ReLU -> batch norm -> dropout -> linear, each step optional but the last."""

    kind: Literal["linear", "mlp"] = "linear"
    """`linear`: one map. `mlp`: a hidden layer with GELU before it."""
    hidden: Annotated[int, Field(ge=1)] = 256
    """Width of the hidden layer of an `mlp`."""
    relu: bool = True
    batch_norm: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    l2: Annotated[float, Field(ge=0)] = 0.0
    """Factor of the sum of squared head parameters that is added to the loss."""


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

    class_weights: bool = True
    """Weigh each class by its inverse frequency among the training clips (mean weight 1 per clip)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0


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
    scheduler: Literal["linear", "cosine", "constant", "one_cycle"] = "linear"
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

    @field_validator("factors")
    @classmethod
    def _no_reserved_factor(cls, factors: dict[str, str | bool | int]) -> dict[str, str | bool | int]:
        from ser_eval.run_folder import RESULT_COLUMNS, RESULT_KEYS

        for name in sorted({*RESULT_KEYS, *RESULT_COLUMNS} & factors.keys()):
            raise ValueError(f"'{name}' is a column of results.csv already; choose another name for the factor")
        return factors
