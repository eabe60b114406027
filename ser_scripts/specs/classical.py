"""The model JSON of a classical model: one vector of numbers per clip, a scaler, and a scikit-learn classifier."""

from __future__ import annotations

import itertools
import json
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from ser_scripts.errors import BadInput
from ser_scripts.specs.base import Spec, nearest, parse
from ser_scripts.specs.compact import FrameFeatures
from ser_scripts.specs.model import NAME_PATTERN, ModelSpec, PretrainedEncoder, TunedOn, unreserved

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]

STATISTICS = ("mean", "std", "min", "max", "median", "q05", "q25", "q75", "q95", "skewness", "kurtosis")
Statistic = Literal["mean", "std", "min", "max", "median", "q05", "q25", "q75", "q95", "skewness", "kurtosis"]


class OpenSmileFeatures(Spec):
    """Functionals of openSMILE. The package is an optional extra, since its licence is non-commercial."""

    kind: Literal["opensmile"] = "opensmile"
    feature_set: Literal["eGeMAPSv02", "eGeMAPSv01b", "GeMAPSv01b", "ComParE_2016"] = "eGeMAPSv02"
    """eGeMAPS: 88 numbers (Eyben et al. 2016); GeMAPS: 62; ComParE 2016: 6,373."""
    sample_rate_hz: Count = 16_000


class MfccFeatures(Spec):
    """Statistics over the frames of a clip."""

    kind: Literal["mfcc"] = "mfcc"
    frames: FrameFeatures = FrameFeatures(coefficients=20, deltas=1)
    """MFCCs or log-mel energies, and their slopes."""
    statistics: tuple[Statistic, ...] = Field(default=("mean", "std", "min", "max"), min_length=1)
    """Over time, of every number of a frame. `q05` is the 5 % quantile."""
    loudness: bool = False
    """The same statistics of the level of the frames, dB below full scale."""
    duration: bool = False
    """The clip's length, as the logarithm of seconds."""

    @field_validator("statistics")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if twice := [name for name in value if value.count(name) > 1]:
            raise ValueError(f"'{twice[0]}' stands there twice")
        return value


class EmbeddingFeatures(Spec):
    """A hidden state of a frozen encoder, pooled over time and kept in the cache."""

    kind: Literal["embedding"] = "embedding"
    encoder: PretrainedEncoder
    layer: Literal["last", "search"] | Annotated[int, Field(ge=0, strict=True)] = "search"
    """`last`, the index of a hidden state (0 is the input of the first layer), or `search`: part of the grid."""
    pooling: Literal["mean", "max", "mean_std"] = "mean"

    @field_validator("encoder", mode="before")
    @classmethod
    def _always_frozen(cls, value: Any) -> Any:
        return {"frozen": True, **value} if isinstance(value, dict) else value

    @field_validator("encoder")
    @classmethod
    def _not_trained(cls, value: PretrainedEncoder) -> PretrainedEncoder:
        if not value.frozen:
            raise ValueError("a classical model cannot train its encoder; leave 'frozen' out")
        return value


FeaturesSpec = Annotated[OpenSmileFeatures | MfccFeatures | EmbeddingFeatures, Field(discriminator="kind")]


class LinearSvm(Spec):
    """Support vector machine with a hyperplane per class against the rest (liblinear, squared hinge loss)."""

    kind: Literal["linear_svm"] = "linear_svm"
    C: Positive = 1.0
    """Cost of an error; small values regularise more."""
    max_iterations: Count = 10_000


class RbfSvm(Spec):
    """Support vector machine with a Gaussian kernel, one class against another (libsvm)."""

    kind: Literal["rbf_svm"] = "rbf_svm"
    C: Positive = 1.0
    gamma: Literal["scale"] | Positive = "scale"
    """`scale`: 1 / (numbers x their variance)."""


class LogisticRegressionSpec(Spec):
    """Multinomial logistic regression with an L2 penalty."""

    kind: Literal["logistic_regression"] = "logistic_regression"
    C: Positive = 1.0
    max_iterations: Count = 2_000


class RandomForest(Spec):
    """Random forest; the probabilities are means over its trees."""

    kind: Literal["random_forest"] = "random_forest"
    trees: Count = 300
    max_depth: Count | None = None
    min_leaf: Count = 1
    """Clips in a leaf, at least."""
    max_features: Literal["sqrt", "log2"] | Annotated[float, Field(gt=0, le=1)] = "sqrt"
    """Numbers that a node may choose from; a number is a share of all."""


class XgBoost(Spec):
    """Gradient-boosted trees of the package xgboost, an optional extra."""

    kind: Literal["xgboost"] = "xgboost"
    rounds: Count = 200
    max_depth: Count = 4
    learning_rate: Positive = 0.1
    subsample: Annotated[float, Field(gt=0, le=1)] = 1.0
    column_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Numbers that a tree may use, drawn per tree."""
    l2: Annotated[float, Field(ge=0)] = 1.0


Classifier = LinearSvm | RbfSvm | LogisticRegressionSpec | RandomForest | XgBoost
ClassifierSpec = Annotated[Classifier, Field(discriminator="kind")]


class ClassicalTraining(Spec):
    """How settings are chosen, what is fitted, and what is kept."""

    search: Literal["validation", "inner_speakers"] = "validation"
    """What picks a setting of the grid (and the layer), always by UAR, the first of equal ones. `validation`: fitted on
    the train side, scored on the validation side. `inner_speakers`: cross-validation over the speakers (groups) of what
    is fitted in the end, all folds' answers in one confusion matrix. Test clips never take part."""
    inner_folds: Literal["speakers"] | Annotated[int, Field(ge=2, strict=True)] = "speakers"
    """With `inner_speakers`: `speakers` leaves out one at a time; a number deals them into so many folds."""
    fit_on: Literal["train", "train_and_validation"] = "train"
    """What the tested model is fitted on, with the chosen setting."""
    calibration: Literal["none", "temperature"] = "temperature"
    """`temperature`: decision values are divided by one number that makes the likelihood of held-out clips greatest:
    those that chose the setting, as given by models that were not fitted on them. No answer changes."""
    threads: Count = 1
    """Of the linear algebra and the trees; another number may give other bits."""
    save_model: Literal["best", "none"] = "best"
    """Whether the fitted model is kept."""

    @property
    def select(self) -> str:
        """What picked the setting, as run.json says it."""
        return "val_uar" if self.search == "validation" else "inner_uar"

    @model_validator(mode="after")
    def _used(self) -> ClassicalTraining:
        if self.search == "validation" and self.inner_folds != "speakers":
            raise ValueError("'inner_folds' has no effect with the search 'validation'; take it out")
        return self


class ClassicalSpec(Spec):
    """A classical model: features, scaler, classifier, and the grid of settings that is searched."""

    name: str = Field(pattern=NAME_PATTERN)
    description: str = ""
    kind: Literal["classical"]
    factors: dict[str, str | bool | int] = {}
    """What distinguishes this model in the statistics, e.g. `{"features": "egemaps"}`."""
    features: FeaturesSpec
    classifier: ClassifierSpec
    grid: dict[str, tuple[Any, ...]] = {}
    """Values to try for keys of the classifier, e.g. `{"C": [0.01, 0.1, 1]}`; every combination is a setting."""
    class_weights: bool = True
    """Weigh each clip by the inverse frequency of its class among the clips that are fitted."""
    training: ClassicalTraining = ClassicalTraining()

    @field_validator("factors")
    @classmethod
    def _no_reserved_factor(cls, factors: dict[str, str | bool | int]) -> dict[str, str | bool | int]:
        return unreserved(factors)

    @model_validator(mode="before")
    @classmethod
    def _classes_alone(cls, content: Any) -> Any:
        if isinstance(content, dict) and content.get("ratings") is not None:
            raise ValueError(
                "'ratings' does not go with a classical model, which predicts classes alone; a head over the same "
                'hidden states predicts ratings: leave \'kind\' out, "encoder": {"frozen": true}'
            )
        return content

    @model_validator(mode="after")
    def _grid_fits(self) -> ClassicalSpec:
        valid = sorted(type(self.classifier).model_fields.keys() - {"kind"})
        for key, values in self.grid.items():
            if key not in valid:
                raise ValueError(
                    f"grid: '{key}' is no key of the classifier '{self.classifier.kind}'{nearest(key, valid)}"
                )
            if not values:
                raise ValueError(f"grid.{key}: a list of at least 1")
            if len({json.dumps(value) for value in values}) < len(values):
                raise ValueError(f"grid.{key}: a value stands there twice")
            for value in values:
                try:
                    self._with({key: value})
                except ValidationError as error:
                    what = error.errors()[0]["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
                    raise ValueError(f"grid.{key}: {json.dumps(value)} is not valid; expected {what}") from None
            if getattr(self.classifier, key) != type(self.classifier).model_fields[key].default:
                raise ValueError(f"'{key}' stands in the classifier and in the grid; keep one of the two")
        return self

    def _with(self, values: dict[str, Any]) -> Classifier:
        return type(self.classifier).model_validate({**self.classifier.model_dump(exclude_unset=True), **values})

    def settings(self) -> list[Classifier]:
        """Every setting of the grid: keys in alphabetical order, the last one changing fastest; one without a grid."""
        keys = sorted(self.grid)
        return [
            self._with(dict(zip(keys, values, strict=True)))
            for values in itertools.product(*(self.grid[key] for key in keys))
        ]

    @property
    def searches(self) -> bool:
        """Whether there is anything to choose."""
        by_layer = isinstance(self.features, EmbeddingFeatures) and self.features.layer == "search"
        return by_layer or len(self.settings()) > 1

    @property
    def frozen(self) -> bool:
        """Whether heads are trained on cached hidden states, all runs at once; these models train one by one."""
        return False

    @property
    def encoder(self) -> PretrainedEncoder | None:
        """The encoder that its features come from."""
        return self.features.encoder if isinstance(self.features, EmbeddingFeatures) else None

    @property
    def init_from(self) -> None:
        """A classical model starts from nothing."""
        return None

    @property
    def tuned_on(self) -> tuple[TunedOn, ...]:
        """Its settings are chosen inside each split."""
        return ()


AnyModel = ModelSpec | ClassicalSpec
"""What a model JSON can be; `kind` tells."""
KINDS: dict[str, type[ModelSpec] | type[ClassicalSpec]] = {"finetune": ModelSpec, "classical": ClassicalSpec}


def parse_model(content: Any, *, source: str) -> AnyModel:
    """Validate the content of a model JSON of either kind.

    Raises:
        BadInput: one line per fault, each with its key, its value and what would be valid
    """
    kind = content.get("kind", "finetune") if isinstance(content, dict) else "finetune"
    if not isinstance(kind, str) or kind not in KINDS:
        hint = nearest(str(kind), KINDS)
        raise BadInput(f"{source} is not a valid model:\n  kind: {json.dumps(kind)} is not valid{hint}")
    return parse(KINDS[kind], content, source=source, kind="model")
