"""Of the model JSON: predicting ratings of valence, arousal and dominance, and an adversary on the pooled vector."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ser_scripts.specs.base import Spec

Dimension = Literal["valence", "arousal", "dominance"]

DEFAULT_BETA = 0.1


class RatingsSpec(Spec):
    """A second head of the same make that predicts mean ratings, in [0, 1]: 0 and 1 are the ends of the corpus' scale.

    Clips without a rating do not count in its loss.
    """

    dimensions: Annotated[tuple[Dimension, ...], Field(min_length=1)] = ("valence", "arousal", "dominance")
    loss: Literal["ccc", "mse", "smooth_l1"] = "ccc"
    """Mean over the dimensions of: `ccc`, 1 - the concordance correlation (Lin 1989) of the clips of a batch
    (Trigeorgis et al. 2016), so give it large batches; `mse`, the squared error; `smooth_l1`, squared up to an error of
    `beta` and straight beyond."""
    beta: Annotated[float, Field(gt=0)] | None = None
    """Of `smooth_l1`, as a share of the scale; 0.1 when absent."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """What this loss is multiplied by before it is added to that of the classes."""
    only: bool = False
    """Predict ratings alone: there is no loss of the classes, and the model answers none."""

    @model_validator(mode="after")
    def _consistent(self) -> RatingsSpec:
        if len(set(self.dimensions)) < len(self.dimensions):
            raise ValueError(f"'dimensions': one of {', '.join(self.dimensions)} stands there twice")
        if self.beta is not None and self.loss != "smooth_l1":
            raise ValueError(f"'beta' belongs to the loss 'smooth_l1'; with '{self.loss}' it has no effect")
        if self.only and self.weight != 1.0:
            raise ValueError("'weight' has no effect with 'only': there is no other loss to weigh it against")
        return self


class AdversarySpec(Spec):
    """A head that tells speaker or gender from the pooled vector, and through which the encoder unlearns to help it.

    Its gradient is reversed on the way into the encoder (Ganin et al. 2016). It is not part of the saved model.
    """

    kind: Literal["speaker", "gender"]
    """What it tells: which training speaker, or female or male. Clips of other or unknown gender do not count."""
    weight: Annotated[float, Field(ge=0)] = 0.1
    """The reversed gradient is multiplied by this; 0 leaves the model as it would be, and only watches."""
    schedule: Literal["constant", "ganin"] = "ganin"
    """`ganin`: times 2 / (1 + exp(-10 p)) - 1, p being the share of the training that is done: from 0 to 1."""
    hidden: Annotated[int, Field(ge=1)] = 128
    """Width of its hidden layer."""
