"""What is done to training clips, and to no others."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ser_scripts.specs.base import Spec
from ser_scripts.specs.model import NAME_PATTERN


class Transform(Spec):
    """One augmentation: a class and its constructor arguments, which stand beside these keys."""

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


class AugmentationSpec(Spec):
    """An augmentation of the training clips; validation and test clips are never augmented."""

    name: str = Field(pattern=NAME_PATTERN)
    mode: Literal["union", "on_the_fly", "repeat"] = "union"
    """`union`: each clean clip once plus one copy per transform. `on_the_fly`: each clip is transformed with
    `probability`. `repeat`: clean copies only, the equal-updates control of `union`."""
    probability: Annotated[float, Field(gt=0, le=1)] = 0.5
    """With `on_the_fly`: the probability that each transform is applied to a clip in an epoch."""
    copies: Annotated[int, Field(ge=1)] | None = None
    """With `repeat`: extra clean copies of each clip, as many as the union that it controls has transforms."""
    transforms: dict[str, Transform] = {}

    @model_validator(mode="after")
    def _mode_fits(self) -> AugmentationSpec:
        if self.mode == "repeat" and (self.transforms or self.copies is None):
            raise ValueError("mode 'repeat' takes 'copies' and no 'transforms'")
        if self.mode != "repeat" and (not self.transforms or self.copies is not None):
            raise ValueError(f"mode '{self.mode}' takes 'transforms' and no 'copies'")
        return self
