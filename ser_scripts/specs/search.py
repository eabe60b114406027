"""Hyper-parameter search: which fields of the model vary, how far, and what chooses among the trials."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from ser_scripts.errors import BadInput
from ser_scripts.specs.base import Spec, models_in, nearest, parse
from ser_scripts.specs.classical import AnyModel
from ser_scripts.specs.model import ModelSpec

Scalar = bool | int | float | str | None
FIXED = (
    "name", "description", "kind", "factors", "init_from", "tuned_on", "encoder.kind", "encoder.frozen",
    "training.select", "training.threads", "training.save_model", "training.track",
)  # fmt: skip
"""Fields of a model that a search may not vary: they name it, or say what selects it and how it is computed."""
MAX_CELLS = 10_000
"""A grid with more is a slip."""
_COMBINATIONS = 2000
"""So many combinations of ends and choices are tried on the spec classes before any training."""


class _Range(Spec):
    """What number ranges share."""

    log: bool = False
    """Drawn evenly in the logarithm: for learning rates and other factors."""

    def _check(self, low: float, high: float, step: float | None) -> None:
        if low >= high:
            raise ValueError(f"'low' ({low:g}) must be below 'high' ({high:g}); a fixed value stands in the model file")
        if self.log and low <= 0:
            raise ValueError(f"'low' ({low:g}) must be above 0 with 'log'")
        if step is not None:
            if self.log:
                raise ValueError("'step' does not go with 'log'")
            parts = (high - low) / step
            if parts < 0.5 or abs(parts - round(parts)) > 1e-9 * max(1, parts):
                raise ValueError(f"'step' ({step:g}) does not lead from 'low' ({low:g}) to 'high' ({high:g})")


class FloatRange(_Range):
    """A number between two ends, both included."""

    kind: Literal["float"]
    low: float
    high: float
    step: Annotated[float, Field(gt=0)] | None = None
    """Only `low`, `low + step`, ..., `high`."""
    points: Annotated[int, Field(ge=2)] | None = None
    """With the sampler `grid`: so many values from `low` to `high`, evenly spaced (in the logarithm with `log`)."""

    @model_validator(mode="after")
    def _consistent(self) -> FloatRange:
        self._check(self.low, self.high, self.step)
        if self.step is not None and self.points is not None:
            raise ValueError("give 'step' or 'points', not both")
        return self

    def probes(self) -> list[float]:
        """Values that the field must take: both ends, and one between them that is not round."""
        return [self.low, self.high, *([] if self.step else [self.low + (self.high - self.low) * 0.31830988618379067])]

    def cells(self) -> list[float] | None:
        """The values of a grid; None where neither `step` nor `points` is given."""
        if self.step is not None:
            count = round((self.high - self.low) / self.step)
            return [self.low + number * self.step for number in range(count)] + [self.high]
        if self.points is None:
            return None
        if self.log:
            ratio = math.log(self.high / self.low) / (self.points - 1)
            inner = [self.low * math.exp(ratio * number) for number in range(1, self.points - 1)]
        else:
            gap = (self.high - self.low) / (self.points - 1)
            inner = [self.low + gap * number for number in range(1, self.points - 1)]
        return [self.low, *inner, self.high]


class IntRange(_Range):
    """A whole number between two ends, both included."""

    kind: Literal["int"]
    low: Annotated[int, Field(strict=True)]
    high: Annotated[int, Field(strict=True)]
    step: Annotated[int, Field(ge=1)] | None = None
    """Only `low`, `low + step`, ..., `high`."""

    @model_validator(mode="after")
    def _consistent(self) -> IntRange:
        self._check(self.low, self.high, self.step)
        return self

    def probes(self) -> list[int]:
        """Values that the field must take: both ends."""
        return [self.low, self.high]

    def cells(self) -> list[int]:
        """The values of a grid."""
        return list(range(self.low, self.high + 1, self.step or 1))


class Choices(Spec):
    """One of several values."""

    kind: Literal["categorical"]
    choices: tuple[Scalar, ...] = Field(min_length=2)
    """Texts, numbers, truth values or null, as the model JSON writes them."""

    @model_validator(mode="after")
    def _distinct(self) -> Choices:
        for number, choice in enumerate(self.choices):
            if choice in self.choices[:number]:
                raise ValueError(f"'choices': {choice!r} stands there twice")
        return self

    def probes(self) -> list[Scalar]:
        """Values that the field must take: all."""
        return list(self.choices)

    def cells(self) -> list[Scalar]:
        """The values of a grid."""
        return list(self.choices)


ParameterSpec = Annotated[FloatRange | IntRange | Choices, Field(discriminator="kind")]


class PruningSpec(Spec):
    """Stop a trial whose best evaluation so far lies behind the others' at the same evaluation."""

    kind: Literal["median", "percentile"] = "median"
    """`median`: behind the median of the finished trials. `percentile`: outside their best `percentile` per cent."""
    percentile: Annotated[float, Field(gt=0, lt=100)] | None = None
    """With `percentile`: 25, as when absent, keeps a trial that is among the best quarter."""
    startup_trials: Annotated[int, Field(ge=1)] = 5
    """So many trials run to their end before any is stopped."""
    warmup_evaluations: Annotated[int, Field(ge=0)] = 1
    """A trial is not stopped before its evaluation of this number, counted from 0."""

    @model_validator(mode="after")
    def _consistent(self) -> PruningSpec:
        if self.kind == "median" and self.percentile is not None:
            raise ValueError("'percentile' has no effect with the kind 'median'; take it out")
        return self

    @property
    def kept(self) -> float:
        """Per cent of the trials that go on."""
        return 50.0 if self.kind == "median" else 25.0 if self.percentile is None else self.percentile


class SearchSpec(Spec):
    """Trials of other settings on training speakers, scored on validation speakers; the test side takes no part."""

    parameters: dict[str, ParameterSpec] = Field(min_length=1)
    """Dotted path of a field of the model JSON, e.g. `training.learning_rate`, and what it may be."""
    models: tuple[str, ...] | None = None
    """Names of the models that are searched; all when absent. The others are trained as their files say."""
    num_trials: Annotated[int, Field(ge=1, le=100_000)] = 20
    """Of each study. A larger number continues a study, a smaller one takes its first trials."""
    amount_of_training_data: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training speakers, by corpus and gender, that trials train on."""
    metric: Literal["val_uar", "val_loss", "val_ccc"] = "val_uar"
    """What compares trials, at the evaluation that `training.select` picks. The earlier trial wins a tie. `val_ccc` is
    for models with ratings."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """`tpe`: a tree-structured Parzen estimator (Bergstra et al. 2011), which learns from earlier trials. `random`
    (Bergstra & Bengio 2012). `grid`: every combination once, in a drawn order."""
    startup_trials: Annotated[int, Field(ge=1)] | None = None
    """Of `tpe`: so many random trials come first; 10 when absent."""
    pruning: bool | PruningSpec = True
    """Stop hopeless trials early; true is the median rule. Heads over a frozen encoder always train to their end."""
    scope: Literal["nested", "locked"] = "nested"
    """`nested`: a study of its own inside each split. `locked`: one study, on the train and validation speakers of the
    first seed; seeds with other test speakers are refused."""

    @model_validator(mode="after")
    def _consistent(self) -> SearchSpec:
        if self.sampler != "tpe" and self.startup_trials is not None:
            raise ValueError(f"'startup_trials' has no effect with the sampler '{self.sampler}'; take it out")
        for path, one in self.parameters.items():
            if self.sampler == "grid" and one.cells() is None:
                raise ValueError(f"parameters.{path}: a grid needs 'points' (or 'step') of a range of kind 'float'")
            if self.sampler != "grid" and isinstance(one, FloatRange) and one.points is not None:
                raise ValueError(f"parameters.{path}: 'points' has no effect with the sampler '{self.sampler}'")
        if self.sampler == "grid" and self.num_cells > MAX_CELLS:
            raise ValueError(f"the grid has {self.num_cells} cells; at most {MAX_CELLS}")
        return self

    @property
    def pruning_rule(self) -> PruningSpec | None:
        """What stops trials; None: nothing."""
        return PruningSpec() if self.pruning is True else (self.pruning or None)

    @property
    def random_trials(self) -> int:
        """Trials that `tpe` draws at random before it learns."""
        return 10 if self.startup_trials is None else self.startup_trials

    @property
    def num_cells(self) -> int:
        """Combinations of a grid."""
        return math.prod(len(one.cells() or ()) for one in self.parameters.values())

    @property
    def trials(self) -> int:
        """Trials of a study; a grid has no more than its cells."""
        return min(self.num_trials, self.num_cells) if self.sampler == "grid" else self.num_trials

    def searches(self, model: str) -> bool:
        """Whether a model takes part."""
        return self.models is None or model in self.models


def paths_of(model: ModelSpec) -> list[str]:
    """Dotted paths of all fields of a model that hold one value, `FIXED` ones left out, sorted."""
    return sorted({path for path in _paths(model, "") if not _fixed(path)})


def _fixed(path: str) -> bool:
    return any(path == one or path.startswith(f"{one}.") for one in FIXED)


def _paths(value: Any, prefix: str) -> Iterator[str]:
    """Paths below a value; a part that is null by default, such as `training.plateau`, contributes its fields."""
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            below, key = getattr(value, name), f"{prefix}{field.alias or name}"
            inner = models_in(field.annotation)
            if below is None and inner:
                if field.default is None:
                    yield from (f"{key}.{one}" for cls in inner for one in cls.model_fields)
            else:
                yield from _paths(below, f"{key}.") if isinstance(below, BaseModel | dict) else _leaf(below, key)
    elif isinstance(value, dict):
        for name, below in value.items():
            yield from _paths(below, f"{prefix}{name}.") if isinstance(below, dict) else _leaf(below, f"{prefix}{name}")


def _leaf(value: Any, key: str) -> Iterator[str]:
    if not isinstance(value, list | tuple):
        yield key


def with_values(model: ModelSpec, values: Mapping[str, Any], *, source: str) -> ModelSpec:
    """The model with other values at dotted paths, validated anew.

    Raises:
        BadInput: the values do not fit the spec, alone or together
    """
    return parse(type(model), content_with(model, values), source=source, kind=f"model ('{model.name}')")


def content_with(model: ModelSpec, values: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a model JSON with other values at dotted paths; what its file left out stays out."""
    content: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    whole = model.model_dump(mode="json", by_alias=True)
    for path, value in values.items():
        *parents, last = path.split(".")
        target, there = content, whole
        for parent in parents:
            there = there.get(parent) or {}
            if not target.get(parent):
                target[parent] = dict(there)
            target = target[parent]
        target[last] = value
    return content


def check_search(search: SearchSpec, models: Sequence[AnyModel], *, source: str) -> None:
    """Refuse a search that a model cannot follow, before anything else is done.

    Every path must be a field of each searched model, every end and every choice a valid value of it, and the
    combinations of ends and choices (a fixed draw of them when there are many) must be valid models.

    Raises:
        BadInput: naming path and value, and what would be valid
    """
    names = [model.name for model in models]
    for name in search.models or ():
        if name not in names:
            hint = nearest(name, names)
            raise BadInput(f"{source}: search.models: '{name}' is none of the experiment's models{hint}")
    for model in models:
        if search.searches(model.name):
            if not isinstance(model, ModelSpec):
                raise BadInput(
                    f"{source}: search: model '{model.name}' is of kind '{model.kind}'; a search varies encoders and "
                    "heads ('finetune'). Name the others under 'search.models'"
                )
            if model.name == "search":
                raise BadInput(f"{source}: the model name 'search' is taken by the folder of the studies; rename it")
            _check_model(search, model, source)


def _check_model(search: SearchSpec, model: ModelSpec, source: str) -> None:
    if search.metric == "val_ccc" and model.ratings is None:
        raise BadInput(
            f"{source}: search.metric is 'val_ccc', but model '{model.name}' predicts no ratings; set it to 'val_uar' "
            "or 'val_loss'"
        )
    if model.ratings is not None and model.ratings.only and search.metric != "val_ccc":
        raise BadInput(
            f"{source}: search.metric is '{search.metric}', but model '{model.name}' predicts ratings only; set it to "
            "'val_ccc'"
        )
    valid = paths_of(model)
    for path, parameter in search.parameters.items():
        key = f"{source}: search.parameters: '{path}'"
        if _fixed(path):
            raise BadInput(f"{key} cannot be searched: it names a model, or says how it is selected and computed")
        if path not in valid:
            raise BadInput(f"{key} is no field of model '{model.name}'{_why(model, path)}{nearest(path, valid)}")
        for value in parameter.probes():
            _probe(model, {path: value}, f"{key}: {json.dumps(value)}")
    for values in _combinations(search):
        _probe(model, values, f"{source}: search.parameters, together {_text(values)}")


def _why(model: ModelSpec, path: str) -> str:
    """`, whose training.early_stopping is null`, where that is why."""
    parents = path.split(".")[:-1]
    value: Any = model
    for number, parent in enumerate(parents):
        value = value.get(parent) if isinstance(value, dict) else getattr(value, parent, "")
        if value is None:
            return f", whose {'.'.join(parents[: number + 1])} is null"
    return ""


def _probe(model: ModelSpec, values: Mapping[str, Any], what: str) -> None:
    try:
        with_values(model, values, source="")
    except BadInput as error:
        lines = [line.strip().removeprefix("(whole file): ") for line in str(error).splitlines()[1:]]
        reason = "; ".join(lines)
        raise BadInput(f"{what} does not go with model '{model.name}': {reason}") from None


def _combinations(search: SearchSpec) -> Iterator[dict[str, Any]]:
    """Combinations of ends and choices, all of them or a fixed draw."""
    ends = [one.probes() for one in search.parameters.values()]
    if math.prod(map(len, ends)) <= _COMBINATIONS:
        rows: Iterator[Any] = itertools.product(*ends)
    else:
        drawn = random.Random(0)
        rows = (tuple(drawn.choice(values) for values in ends) for _ in range(_COMBINATIONS))
    return (dict(zip(search.parameters, row, strict=True)) for row in rows)


def _text(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} = {json.dumps(value)}" for path, value in values.items())
