"""What is done to training clips, and to no others."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from ser_scripts.specs.base import Spec
from ser_scripts.specs.model import NAME_PATTERN

Share = Annotated[float, Field(gt=0, le=1)]


class Transform(Spec):
    """One change of the samples: a class and its constructor arguments, which stand beside these keys."""

    model_config = {**Spec.model_config, "extra": "allow"}

    module: str
    """`audiomentations`, `torch_audiomentations`, a module under `ser_scripts.augment`, or one from --allow-import."""
    class_name: str = Field(alias="class")
    tensors: bool = False
    """The class takes torch tensors of shape (batch, channel, time) instead of float32 arrays of shape (time,)."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor arguments."""
        return dict(self.model_extra or {})


def _as_chain(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


Chain = Annotated[
    tuple[Transform, ...],
    Field(min_length=1),
    BeforeValidator(_as_chain, json_schema_input_type=Transform | list[Transform]),
]
"""One transform, or several that are applied one after the other and count as one."""


class SpecAugment(Spec):
    """Masks over time and frequency on the features of a training clip (SpecAugment, Park et al. 2019).

    For encoders that hear spectrograms, log-mel frames or MFCCs. Every mask has a width drawn uniformly from 0 to its
    maximum, and a place drawn uniformly from where it fits. Masks may overlap.
    """

    kind: Literal["spec_augment"]
    probability: Share = 1.0
    """That a clip is masked in an epoch."""
    num_time_masks: Annotated[int, Field(ge=0)] = 0
    max_time_frames: Annotated[int, Field(ge=1)] | None = None
    """Widest time mask, in rows of the features."""
    max_time_share: Share | None = None
    """Widest time mask, as a share of the clip; with `max_time_frames` too, the narrower of both."""
    num_frequency_masks: Annotated[int, Field(ge=0)] = 0
    max_frequency_bins: Annotated[int, Field(ge=1)] | None = None
    """Widest frequency mask, in bins (or coefficients)."""
    max_frequency_share: Share | None = None
    """Widest frequency mask, as a share of the bins; with `max_frequency_bins` too, the narrower of both."""
    fill: Literal["mean", "zero"] = "mean"
    """What masked values become: the mean of the clip's features, or 0."""

    @model_validator(mode="after")
    def _masks_have_widths(self) -> SpecAugment:
        if self.num_time_masks == self.num_frequency_masks == 0:
            raise ValueError("'num_time_masks' and 'num_frequency_masks' are both 0, so that nothing is masked")
        for count, frames, share, names in (
            ("num_time_masks", self.max_time_frames, self.max_time_share, ("max_time_frames", "max_time_share")),
            (
                "num_frequency_masks",
                self.max_frequency_bins,
                self.max_frequency_share,
                ("max_frequency_bins", "max_frequency_share"),
            ),
        ):
            given = frames is not None or share is not None
            if bool(getattr(self, count)) != given:
                first, second = names
                raise ValueError(
                    f"'{count}' is {getattr(self, count)}: "
                    + (f"take '{first}' and '{second}' out" if given else f"give '{first}', '{second}' or both")
                )
        return self


class Mixup(Spec):
    """Two training clips of a batch are added, and so are their targets (mixup, Zhang et al. 2018).

    One share is drawn per batch from Beta(alpha, alpha), and every clip's partner by a permutation of the batch. The
    mix is as long as the longer of both.
    """

    kind: Literal["mixup"]
    alpha: Annotated[float, Field(gt=0)] = 0.4
    probability: Share = 1.0
    """That a batch is mixed."""
    level: Literal["features", "waveform"] = "features"
    """Add what the encoder hears, or the samples before features are taken from them."""


class Cutmix(Spec):
    """A stretch of another training clip of the batch replaces the clip's own (CutMix, Yun et al. 2019, over time).

    One share is drawn per batch from Beta(alpha, alpha), partners by a permutation of the batch, the place for each
    clip. The partner's part of the target is the part of the clip that it replaces.
    """

    kind: Literal["cutmix"]
    alpha: Annotated[float, Field(gt=0)] = 1.0
    probability: Share = 1.0
    """That a batch is mixed."""
    level: Literal["features", "waveform"] = "features"
    """Paste what the encoder hears, or the samples before features are taken from them."""


BatchSpec = Annotated[Mixup | Cutmix, Field(discriminator="kind")]


class AugmentationSpec(Spec):
    """An augmentation of the training clips; validation and test clips are never augmented."""

    name: str = Field(pattern=NAME_PATTERN)
    mode: Literal["union", "on_the_fly", "repeat"] = "union"
    """`union`: each clean clip once plus one copy per transform. `on_the_fly`: each clip is transformed with
    `probability`. `repeat`: clean copies only, the equal-updates control of `union`."""
    probability: Share = 0.5
    """With `on_the_fly`: the probability that each transform is applied to a clip in an epoch."""
    probabilities: dict[str, Share] = Field({}, exclude_if=lambda own: not own)  # runs without it stay the same runs
    """With `on_the_fly`: of single transforms by their names; the others keep `probability`."""
    copies: Annotated[int, Field(ge=1)] | None = None
    """With `repeat`: extra clean copies of each clip, as many as the union that it controls has transforms."""
    transforms: dict[str, Chain] = {}
    """Changes of the samples by name: one transform, or a list of them that are applied in order as one."""
    features: tuple[SpecAugment, ...] = ()
    """Changes of the features of every training item, in order."""
    batch: BatchSpec | None = None
    """A mix of the clips of a training batch."""

    @model_validator(mode="after")
    def _mode_fits(self) -> AugmentationSpec:
        if self.mode == "repeat" and (self.transforms or self.copies is None):
            raise ValueError("mode 'repeat' takes 'copies' and no 'transforms'")
        if self.mode == "union" and (not self.transforms or self.copies is not None):
            only = "; for 'features' or 'batch' alone write \"mode\": \"on_the_fly\"" if self._beyond_samples else ""
            raise ValueError(f"mode 'union' takes 'transforms' and no 'copies'{only}")
        if self.mode == "on_the_fly" and (not (self.transforms or self._beyond_samples) or self.copies is not None):
            raise ValueError("mode 'on_the_fly' takes 'transforms', 'features' or 'batch', and no 'copies'")
        if self.probabilities and self.mode != "on_the_fly":
            raise ValueError(f"'probabilities' goes with mode 'on_the_fly', not with '{self.mode}'")
        if unknown := sorted(self.probabilities.keys() - self.transforms.keys()):
            valid = ", ".join(sorted(self.transforms)) or "none"
            raise ValueError(f"'probabilities' names '{unknown[0]}', which is no transform; valid: {valid}")
        return self

    @property
    def _beyond_samples(self) -> bool:
        return bool(self.features) or self.batch is not None
