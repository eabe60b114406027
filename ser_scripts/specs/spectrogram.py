"""Spectrogram CNNs: a clip as an image of mel energies, and an image network that reads it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ser_scripts.specs.base import Spec

Count = Annotated[int, Field(ge=1)]

SMALL = "small"
"""The network that is built here; any other backbone is one of timm's."""
SMALL_MELS, SMALL_HOP = 128, 512


class ImageFeatures(Spec):
    """The image of a clip: mel energies in decibels, one column per frame.

    What is null follows from the backbone: a timm network has an input size, which becomes `mels` and `frames`; the
    small one takes 128 mels and a hop of 512.
    """

    sample_rate_hz: Count = 24_414
    length: Literal["fixed", "variable"] = "fixed"
    """`fixed`: every clip becomes `clip_samples` long: a shorter one is mirrored at both ends, as often as it takes, a
    longer one loses its end. `variable`: the whole clip, its padding masked; with the backbone `small`."""
    clip_samples: Annotated[int, Field(ge=2)] = 62_832
    """With `fixed`; 2.574 s at 24,414 Hz."""
    fft_samples: Annotated[int, Field(ge=2)] = 2048
    """Length of the Fourier transform and of its Hann window."""
    mels: Count | None = None
    """Mel bands between `min_hz` and `max_hz`: the height of the image."""
    frames: Annotated[int, Field(ge=2)] | None = None
    """Width of the image; spectrograms of another number of frames are interpolated to it. With `fixed`."""
    hop_samples: Count | None = None
    """The largest hop whose frames fill the width when absent: clip_samples // (frames - 1)."""
    min_hz: Annotated[float, Field(ge=0)] = 0.0
    max_hz: Annotated[float, Field(gt=0)] | None = None
    """Half the sample rate when absent."""
    top_db: Annotated[float, Field(gt=0)] | None = 80.0
    """Energies lie at most this far below the loudest of the clip; null for a floor of -100 dB only."""
    scaling: Literal["decibels", "unit"] = "decibels"
    """`decibels`: as they are, which the published systems do. `unit`: 1 at the loudest of the clip and 0 `top_db`
    below, the range of the images that pretrained backbones know; takes loudness out."""

    @model_validator(mode="after")
    def _fits(self) -> ImageFeatures:
        if self.max_hz is not None and not self.min_hz < self.max_hz <= self.sample_rate_hz / 2:
            raise ValueError(
                f"'max_hz' ({self.max_hz:g}) must lie above 'min_hz' ({self.min_hz:g}) and not above half the sample "
                f"rate ({self.sample_rate_hz / 2:g})"
            )
        if self.max_hz is None and self.min_hz >= self.sample_rate_hz / 2:
            raise ValueError(f"'min_hz' ({self.min_hz:g}) must lie below half the sample rate")
        if self.scaling == "unit" and self.top_db is None:
            raise ValueError("'scaling': 'unit' needs 'top_db', the range that becomes 0 to 1")
        if self.length == "variable":
            if self.frames is not None:
                raise ValueError("'frames' is the width of images of a 'fixed' length; take it out")
            if self.clip_samples != type(self).model_fields["clip_samples"].default:
                raise ValueError("'clip_samples' belongs to the length 'fixed'; take it out")
        elif self.frames is not None and self.hop_samples is None and self.clip_samples < self.frames - 1:
            raise ValueError(f"'clip_samples' ({self.clip_samples}) are too few for {self.frames} frames")
        return self

    def completed(self, size: tuple[int, int] | None) -> ImageFeatures:
        """The same with every number given.

        Args:
            size: height and width that the backbone wants; None for the small one

        Raises:
            ValueError: the numbers do not go together
        """
        mels, frames = self.mels, self.frames
        if size is not None:
            mels, frames = mels or size[0], frames or size[1]
        hop = self.hop_samples or (SMALL_HOP if frames is None else max(1, self.clip_samples // (frames - 1)))
        if self.length == "fixed" and frames is None:
            frames = max(2, 1 + self.clip_samples // hop)
        return type(self)(
            **{
                **self.model_dump(),
                "mels": mels or SMALL_MELS,
                "frames": frames,
                "hop_samples": hop,
                "max_hz": self.max_hz or self.sample_rate_hz / 2,
            }
        )


class SpectrogramEncoder(Spec):
    """An image network on spectrograms: the small one of this project, or any of timm's."""

    kind: Literal["spectrogram_cnn"]
    backbone: str = Field(default=SMALL, min_length=1)
    """`small` (four convolutions, 24,752 parameters), or the name of a timm model, e.g. `mobilenetv3_large_100` or
    `tf_efficientnetv2_b0.in1k`; those need the extra `timm`."""
    weights: Annotated[str, Field(min_length=1)] | None = None
    """Pretrained weights of a timm backbone: a safetensors file, a folder with model.safetensors, or a hub id such as
    `timm/mobilenetv3_large_100.ra_in1k`, looked up under SER_MODELS first. Null: random weights."""
    revision: str | None = None
    """Commit, tag or branch of the hub repository; pin it for a paper."""
    features: ImageFeatures = ImageFeatures()
    colour_norm: Literal["imagenet", "half", "none"] = "imagenet"
    """The backbone hears the image three times, as red, green and blue; mean and deviation of each that are taken out:
    those of ImageNet, 1/2 and 1/2, or none. The small network hears the image once and as it is."""

    @model_validator(mode="after")
    def _fits(self) -> SpectrogramEncoder:
        if self.backbone == SMALL:
            if self.weights is not None:
                raise ValueError("the backbone 'small' has no published weights; take 'weights' out")
            if "colour_norm" in self.model_fields_set and self.colour_norm != "imagenet":
                raise ValueError("'colour_norm' belongs to timm backbones, which hear three channels; take it out")
        elif self.features.length == "variable":
            raise ValueError(
                f"features.length 'variable' goes with the backbone 'small' only: '{self.backbone}' has no masks, so "
                "that padding would change a clip's result"
            )
        if self.revision is not None and self.weights is None:
            raise ValueError("'revision' is of 'weights', which is not given")
        return self
