"""The model JSON: how one model is built and trained."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ser_scripts.specs.base import Spec
from ser_scripts.specs.compact import CompactEncoder
from ser_scripts.specs.ratings import AdversarySpec, RatingsSpec
from ser_scripts.specs.spectrogram import SpectrogramEncoder

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Names become folder names: letters, digits, dot, dash and underscore."""


def unreserved(factors: dict[str, str | bool | int]) -> dict[str, str | bool | int]:
    """The factors of a model; a ValueError when one is called like a column of results.csv."""
    from ser_eval.run_folder import RESULT_COLUMNS, RESULT_KEYS

    for name in sorted({*RESULT_KEYS, *RESULT_COLUMNS} & factors.keys()):
        raise ValueError(f"'{name}' is a column of results.csv already; choose another name for the factor")
    return factors


class PretrainedEncoder(Spec):
    """A pretrained speech encoder: a path, or a hub id looked up under SER_MODELS first."""

    kind: Literal["pretrained"] = "pretrained"
    model_path_or_name: str = Field(min_length=1)
    """A folder in `save_pretrained` layout, or a hub id such as `openai/whisper-tiny.en`."""
    revision: str | None = None
    """Commit, tag or branch of the hub repository; pin it for a paper."""
    # left out where it is absent, so that runs without it stay the same runs
    seen_corpora: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(None, exclude_if=lambda x: x is None)
    """Corpora that the weights were pretrained or tuned on, with or without labels, e.g. `["IEMOCAP"]`. They stand on
    the protocol card; figures on a corpus of such a name are stamped SEEN IN PRETRAINING. Absent: not known."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights in memory, whatever the file holds."""
    frozen: bool = False
    """Run the encoder once over each clip, keep pooled hidden states in the cache, and train heads alone, all seeds and
    folds of a model side by side. Hidden states are standardised on the training clips. `freeze.encoder` is the slow
    way, which hears every clip anew and so goes with augmentation."""
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """The longest stretch that the encoder hears at once. A longer clip is cut for training, at a place drawn per
    epoch; in evaluation it is heard in overlapping windows of this length, whose probabilities are averaged."""


class RandomEncoder(Spec):
    """An encoder built from a transformers configuration with random weights, for small models and tests."""

    kind: Literal["random"]
    config: dict[str, Any]
    """A transformers configuration with its `model_type`, e.g. `{"model_type": "whisper", "d_model": 64}`."""
    max_seconds: Annotated[float, Field(gt=0)] | None = None
    """As for a pretrained encoder."""

    @field_validator("config")
    @classmethod
    def _has_model_type(cls, config: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(config.get("model_type"), str):
            raise ValueError("needs 'model_type', the name of a transformers architecture, e.g. 'wav2vec2'")
        return config


EncoderSpec = Annotated[
    PretrainedEncoder | RandomEncoder | CompactEncoder | SpectrogramEncoder, Field(discriminator="kind")
]

WITHOUT_LAYERS = {"compact": "a compact model", "spectrogram_cnn": "a spectrogram CNN"}
"""Kinds of encoders without transformer layers, which have one hidden state; and what errors call them."""


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
    (optional) -> dropout -> linear -> activation -> dropout -> linear. `frame_mlp`, over the cached frames of a frozen
    encoder: linear -> layer norm -> GELU -> dropout -> linear in every frame, then the mean of the logits over time.
    """

    kind: Literal["linear", "mlp", "frame_mlp"] = "linear"
    hidden: Annotated[int, Field(ge=1)] = 256
    """Width of the layer between, with `mlp` and `frame_mlp`."""
    activation: Literal["gelu", "relu", "none"] = "gelu"
    """With `mlp`. `none` leaves two linear layers, the second with dropout before it: the head of transformers' audio
    classifiers."""
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
        if self.kind == "frame_mlp" and (self.batch_norm or self.layer_norm):
            raise ValueError("a 'frame_mlp' has its own layer norm; leave 'batch_norm' and 'layer_norm' out")
        if self.kind == "linear" and self.activation != "gelu":
            raise ValueError("'activation' belongs to the head 'mlp'; a 'linear' head has 'relu'")
        if self.kind == "frame_mlp" and self.activation != "gelu":
            raise ValueError("'activation' belongs to the head 'mlp'; a 'frame_mlp' has GELU")
        return self


class FreezeSpec(Spec):
    """What of the encoder is not trained."""

    cnn: bool = True
    """The convolutional front end (all layers before the transformer)."""
    encoder: bool = False
    """The whole encoder: only pooling, layer weights and head are trained."""
    all_but_last: Annotated[int, Field(ge=0)] | None = None
    """Everything but the last n transformer layers; of a spectrogram CNN, all but the last n units of the backbone."""
    gradual: Annotated[int, Field(ge=1, strict=True)] | None = None
    """Gradual unfreezing (Howard & Ruder 2018): the head alone for n epochs, then one more layer from the top every n
    epochs, and what lies below the first layer last. What is frozen otherwise (`cnn`, `all_but_last`) stays frozen."""

    @model_validator(mode="after")
    def _consistent(self) -> FreezeSpec:
        for name in ("all_but_last", "gradual"):
            if self.encoder and getattr(self, name) is not None:
                raise ValueError(f"'encoder': true freezes every layer, so '{name}' has no effect; give one of them")
        return self


class LoraAdapter(Spec):
    """LoRA (Hu et al. 2021): a trained product of two thin matrices beside a frozen weight, W + alpha / rank x B A."""

    kind: Literal["lora"]
    rank: Annotated[int, Field(ge=1)] = 8
    """Columns of B and rows of A. B starts at 0, so that the first forward pass is the pretrained one."""
    alpha: Annotated[int, Field(ge=1)] = 16
    """The product is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Of the input of A, in training."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Last parts of the names of the linear layers or convolutions that are adapted, e.g. `["q_proj", "v_proj"]`; those
    of the family when absent (`docs/models.md`)."""


class Ia3Adapter(Spec):
    """IA3 (Liu et al. 2022): a trained factor per output of keys and values, and per input of the second feed-forward
    layer; 1 at the start."""

    kind: Literal["ia3"]
    targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """As with LoRA; second feed-forward layers among them have their inputs scaled, all others their outputs."""


AdapterSpec = Annotated[LoraAdapter | Ia3Adapter, Field(discriminator="kind")]


class LossSpec(Spec):
    """Cross-entropy, or focal loss."""

    kind: Literal["cross_entropy", "focal"] = "cross_entropy"
    """`focal` (Lin et al. 2017): the cross-entropy with each label times (1 - its probability)^gamma, so that clips
    which are right already count less."""
    gamma: Annotated[float, Field(ge=0)] | None = None
    """Of the focal loss; 2 when absent, 0 is the cross-entropy."""
    targets: Literal["hard", "votes"] = "hard"
    """`hard`: a clip's label. `votes`: the shares of its raters' votes among the labels of the task."""

    class_weights: bool = True
    """Weigh each class by its inverse frequency among the training clips (mean weight 1 per clip)."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _consistent(self) -> LossSpec:
        if self.gamma is not None and self.kind != "focal":
            raise ValueError("'gamma' belongs to the loss 'focal'; take it out, or set 'kind' to 'focal'")
        return self

    @property
    def focal_gamma(self) -> float | None:
        """gamma of the focal loss; None for cross-entropy."""
        return None if self.kind != "focal" else 2.0 if self.gamma is None else self.gamma


class PlateauSpec(Spec):
    """Of the schedule `plateau`: lower the learning rate when a metric stands still."""

    metric: Literal["val_uar", "val_accuracy", "val_loss", "val_ccc"] = "val_uar"
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

    metric: Literal["val_uar", "val_accuracy", "val_loss", "val_ccc"] = "val_uar"
    patience: Annotated[int, Field(ge=1)] = 5
    min_delta: Annotated[float, Field(ge=0)] = 0.0


class WeightAverageSpec(Spec):
    """Test a running average of the weights instead of the last ones: an exponential moving average over the updates.

    After n averaged updates the decay is (1 + n) / (10 + n) at most, so that an average is never mostly its start.
    """

    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """What stays of the average at each update; 0.999 looks back over some 1000 updates."""
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of all updates before the average begins; until then the weights count as they are."""


class CompileSpec(Spec):
    """Compile the layers of the encoder for training, for batches of a few lengths only."""

    lengths: Annotated[int, Field(ge=1, le=16)] = 4
    """Batches are padded to one of so many lengths, for each of which the layers are compiled once."""


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
    layer_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Each layer of the encoder learns at this share of the rate of the layer above it (Clark et al. 2020, Bao et al.
    2022): `learning_rate` x layer_decay^n with n layers above, the parts below the first layer counting as one more."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    scheduler: Literal["linear", "cosine", "constant", "one_cycle", "one_cycle_linear", "plateau", "step"] = "linear"
    """`one_cycle` rises and falls along a cosine, `one_cycle_linear` along straight lines."""
    plateau: PlateauSpec | None = None
    """Parameters of the scheduler `plateau`; its defaults when absent."""
    step: StepSpec | None = None
    """Parameters of the scheduler `step`; its defaults when absent."""
    min_learning_rate: Annotated[float, Field(ge=0)] = 0.0
    """After the warm-up the rate never falls below this; not with `constant` and the one-cycle schedules."""
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of all updates over which the learning rate rises from 0."""
    gradient_clip: Annotated[float, Field(gt=0)] | None = 1.0
    # left out where it is absent, so that runs without it stay the same runs
    weight_average: WeightAverageSpec | None = Field(None, exclude_if=lambda own: own is None)
    """Validate, select, test and save an exponential moving average of the weights; memory for one more copy of the
    trained ones."""
    eval_every: Literal["epoch"] | Annotated[int, Field(ge=1, strict=True)] = "epoch"
    """Evaluate on the validation side every epoch, or every n updates."""
    select: Literal["val_uar", "val_accuracy", "val_loss", "val_ccc", "last"] = "val_uar"
    """What picks the weights that are tested; `last` takes the last ones. `val_ccc`, the mean CCC of all dimensions,
    is for a model with ratings; `val_loss` is of the classes."""
    early_stopping: EarlyStoppingSpec | None = EarlyStoppingSpec()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    torch_compile: CompileSpec | None = None
    """Train with compiled transformer layers (torch.compile, inductor); evaluation and prediction stay as they are.
    Needs a C++ compiler. Other bits than without it."""
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
        if self.min_learning_rate and self.scheduler in ("constant", "one_cycle", "one_cycle_linear"):
            raise ValueError(f"'min_learning_rate' has no effect with the scheduler '{self.scheduler}'; take it out")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f"'min_learning_rate' lies above 'learning_rate' ({self.learning_rate:g})")
        return self


class TunedOn(Spec):
    """Speakers of one corpus whose clips trained or scored a trial of a search."""

    corpus: str
    actors: tuple[str, ...]
    """As the corpus names them; an empty text stands for clips without a speaker."""
    manifest_sha256: str
    """The corpus as it was then."""
    recordings: tuple[str, ...] = ()
    """Some recordings of each of these speakers, as the first digits of their `audio_sha256`, by which they are known
    under another name of the corpus, too."""


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
    adapter: AdapterSpec | None = None
    """Train small additions to the encoder, which is frozen itself."""
    loss: LossSpec = LossSpec()
    ratings: RatingsSpec | None = None
    """Predict mean ratings of valence, arousal, dominance, beside the classes or instead of them."""
    adversary: AdversarySpec | None = None
    """Unlearn who speaks, or of which gender they are."""
    training: TrainingSpec = TrainingSpec()
    init_from: str | None = None
    """A finished run folder whose weights are the start; the speakers it has seen join the leak check."""
    tuned_on: tuple[TunedOn, ...] = ()
    """Who chose these settings: written by `ser tune --write`. A split that tests one of these speakers is refused."""

    @field_validator("encoder", mode="before")
    @classmethod
    def _default_kind(cls, value: Any) -> Any:
        if isinstance(value, dict) and "kind" not in value:
            return {"kind": "pretrained", **value}
        return value

    @model_validator(mode="after")
    def _one_state(self) -> ModelSpec:
        if self.encoder.kind in WITHOUT_LAYERS and self.layers.use not in ("last", 0):
            raise ValueError(f"{WITHOUT_LAYERS[self.encoder.kind]} has one hidden state; leave 'layers' out")
        return self

    @model_validator(mode="after")
    def _partly_trained(self) -> ModelSpec:
        other = WITHOUT_LAYERS.get(self.encoder.kind)
        settings = {
            "adapter": self.adapter is not None,
            "training.layer_decay": self.training.layer_decay is not None,
            "training.torch_compile": self.training.torch_compile is not None,
            "freeze.gradual": self.freeze.gradual is not None,
        }
        for name, given in settings.items():
            if given and other:
                raise ValueError(f"'{name}' goes with an encoder that has transformer layers; {other} has none")
        if self.adapter is not None:
            for name in ("encoder", "all_but_last", "gradual"):
                if getattr(self.freeze, name) not in (None, False):
                    raise ValueError(f"'adapter' freezes the encoder itself, so 'freeze.{name}' has no effect")
        dtype = getattr(self.encoder, "dtype", "float32")
        if self.training.weight_average is not None and dtype != "float32" and not self.freeze.encoder:
            raise ValueError(
                f"'training.weight_average' needs weights in float32: in {dtype} the steps of an average round to "
                "nothing. Leave 'encoder.dtype' out; 'training.precision' may be 'bf16'"
            )
        if self.freeze.encoder and self.training.layer_decay is not None:
            raise ValueError("'training.layer_decay' has no effect with 'freeze.encoder'; take it out")
        window, cut = self.window_seconds, self.training.max_seconds
        if window is not None and cut is not None and cut > window:
            raise ValueError(
                f"'training.max_seconds' ({cut:g}) lies above 'encoder.max_seconds' ({window:g}), the longest stretch "
                "that the encoder hears at once"
            )
        return self

    @model_validator(mode="after")
    def _ratings_fit(self) -> ModelSpec:
        training = self.training
        metrics: dict[str, str | None] = {
            "training.select": training.select,
            "training.early_stopping.metric": training.early_stopping.metric if training.early_stopping else None,
            "training.plateau.metric": (training.plateau or PlateauSpec()).metric
            if training.scheduler == "plateau"
            else None,
        }
        for name, metric in metrics.items():
            if metric == "val_ccc" and self.ratings is None:
                raise ValueError(f"'{name}' is 'val_ccc', but the model predicts no ratings; give it 'ratings'")
            if self.ratings is not None and self.ratings.only and metric not in ("val_ccc", "last", None):
                raise ValueError(f"'{name}' is '{metric}', but the model predicts ratings only; set it to 'val_ccc'")
        if self.adversary is not None and self.freeze.encoder:
            fixed = self.layers.use != "weighted" and self.pooling.kind in ("mean", "sum", "max", "mean_std")
            if fixed:
                raise ValueError("'adversary' has no effect with 'freeze.encoder': nothing before the head is trained")
        return self

    @property
    def window_seconds(self) -> float | None:
        """The longest stretch that the encoder hears at once, where the spec limits it."""
        return None if isinstance(self.encoder, CompactEncoder | SpectrogramEncoder) else self.encoder.max_seconds

    @model_validator(mode="after")
    def _frozen_fits(self) -> ModelSpec:
        if not self.frozen:
            if self.layers.use == "search":
                raise ValueError('layers.use \'search\' goes with a frozen encoder: "encoder": {"frozen": true}')
            if self.head.kind == "frame_mlp":
                raise ValueError('head.kind \'frame_mlp\' goes with a frozen encoder: "encoder": {"frozen": true}')
            return self
        if self.head.kind == "frame_mlp" and self.layers.use in ("weighted", "search"):
            raise ValueError(
                f"head.kind 'frame_mlp' reads one hidden state: layers.use 'last' or its number, not "
                f"'{self.layers.use}'"
            )
        if self.head.kind == "frame_mlp" and self.pooling.kind != "mean":
            raise ValueError("head.kind 'frame_mlp' takes the mean of its logits over time; leave 'pooling' out")
        training, weighted = self.training, self.layers.use == "weighted" and self.layers.pool_position == "after"
        faults = {
            f"pooling.kind '{self.pooling.kind}' (mean, max and mean_std do)": (
                self.pooling.kind not in ("mean", "max", "mean_std")
            ),
            "layers.pool_position 'after' with weighted layers and a pooling other than mean (use 'before')": (
                weighted and self.pooling.kind != "mean"
            ),
            "head.batch_norm": self.head.batch_norm,
            "head.temperature": self.head.temperature,
            "loss.kind 'focal'": self.loss.kind == "focal",
            "encoder.max_seconds": self.window_seconds is not None,
            "training.accumulation": training.accumulation != 1,
            f"training.precision '{training.precision}'": training.precision != "fp32",
            "training.eval_every other than 'epoch'": training.eval_every != "epoch",
            "training.max_seconds": training.max_seconds is not None,
            "training.gradient_checkpointing": training.gradient_checkpointing,
            "training.torch_compile": training.torch_compile is not None,
            "training.weight_average": training.weight_average is not None,
            "init_from": self.init_from is not None,
        }
        of_training = {
            "adapter": self.adapter is not None,
            "adversary": self.adversary is not None,
            "freeze.gradual": self.freeze.gradual is not None,
            "training.layer_decay": training.layer_decay is not None,
        }
        for what, wrong in of_training.items():
            if wrong:
                raise ValueError(
                    f"{what} does not go with a frozen encoder, of which nothing is trained; leave it out, or take "
                    "'encoder.frozen' out, so that the encoder is"
                )
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
        return unreserved(factors)
