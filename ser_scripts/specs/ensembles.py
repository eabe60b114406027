"""What is made of finished models without training: ensembles, and answers corrected for the classes' frequencies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ser_scripts.specs.base import Spec, nearest
from ser_scripts.specs.model import NAME_PATTERN

PriorCorrection = Literal["uniform", "estimated"]


class EnsembleSpec(Spec):
    """The mean of the probabilities of several models, in rows of its own."""

    name: str = Field(pattern=NAME_PATTERN)
    models: tuple[str, ...] = Field(min_length=1)
    """Names of models of the experiment."""
    weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """One per model, divided by their sum; equal when absent."""
    over: Literal["models", "train_seeds", "seeds"] = "models"
    """What is averaged: `models`: the models of one split and seed. `train_seeds`: also all training seeds of a split.
    `seeds`: all seeds and folds. Members of different splits have trained on each other's test speakers, so that they
    are tested only on corpora of which none of them has heard anything."""

    @model_validator(mode="after")
    def _consistent(self) -> EnsembleSpec:
        if twice := [name for name in self.models if self.models.count(name) > 1]:
            raise ValueError(f"models: '{twice[0]}' stands there twice; give it a weight instead")
        if self.weights is not None and len(self.weights) != len(self.models):
            raise ValueError(f"{len(self.weights)} weights for {len(self.models)} models; give one each")
        if self.over == "models" and len(self.models) < 2:
            raise ValueError('one model is no ensemble; name two or more, or average "over": "train_seeds"')
        return self


def corrected_name(model: str, correction: PriorCorrection) -> str:
    """How the rows of a model with a corrected prior are called."""
    return f"{model}-{correction}-prior"


def derived_names(
    models: Sequence[str], ensembles: Sequence[EnsembleSpec], corrections: Sequence[PriorCorrection]
) -> list[str]:
    """Names of everything derived from the models, checked against theirs.

    Raises:
        ValueError: a name that stands there twice, or a member that is no model of the experiment
    """
    for one in ensembles:
        for member in one.models:
            if member not in models:
                raise ValueError(f"ensembles: '{member}' in '{one.name}' is no model here{nearest(member, models)}")
    derived = [one.name for one in ensembles]
    derived += [corrected_name(model, how) for model in (*models, *derived) for how in corrections]
    for name in derived:
        if [*models, *derived].count(name) > 1:
            raise ValueError(f"the name '{name}' stands for two things; rename an ensemble or a model")
    return derived
