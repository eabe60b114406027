"""The compact model: frames of MFCCs or log-mel energies, convolutions and a recurrent layer, no pretrained weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ser_scripts.specs.base import Spec

Count = Annotated[int, Field(ge=1)]


class FrameFeatures(Spec):
    """What a compact model hears of a clip: a row of numbers per frame."""

    kind: Literal["mfcc", "log_mel"] = "mfcc"
    """`log_mel`: energies of mel bands in dB. `mfcc`: the first coefficients of their cosine transform."""
    sample_rate_hz: Count = 16_000
    coefficients: Count = 40
    """Of the cosine transform; only with `mfcc`."""
    mels: Count = 128
    """Mel bands between `min_hz` and `max_hz`."""
    window: Literal["hamming", "hann"] = "hamming"
    window_samples: Count = 400
    fft_samples: Count = 512
    """Length of the Fourier transform; the window stands in its middle."""
    hop_samples: Count = 160
    min_hz: Annotated[float, Field(ge=0)] = 20.0
    max_hz: Annotated[float, Field(gt=0)] = 8000.0
    top_db: Annotated[float, Field(gt=0)] | None = 80.0
    """Energies lie at most this far below the loudest of the clip; null for a floor of -100 dB only."""
    deltas: Annotated[int, Field(ge=0, le=2)] = 0
    """1 adds to each number its slope over five frames, 2 also the slope of the slope."""
    normalise: Literal["none", "mean", "mean_variance"] = "none"
    """Per clip and number: subtract the mean over its frames; also divide by the standard deviation."""

    @model_validator(mode="after")
    def _fits(self) -> FrameFeatures:
        if self.kind == "mfcc" and self.coefficients > self.mels:
            raise ValueError(f"'coefficients' ({self.coefficients}) cannot exceed 'mels' ({self.mels})")
        if self.kind == "log_mel" and "coefficients" in self.model_fields_set and self.coefficients != 40:
            raise ValueError("'coefficients' belongs to 'mfcc'; with 'log_mel' there are as many numbers as 'mels'")
        if self.window_samples > self.fft_samples:
            raise ValueError(
                f"'window_samples' ({self.window_samples}) cannot exceed 'fft_samples' ({self.fft_samples})"
            )
        if not self.min_hz < self.max_hz <= self.sample_rate_hz / 2:
            raise ValueError(
                f"'max_hz' ({self.max_hz:g}) must lie above 'min_hz' ({self.min_hz:g}) and not above half the sample "
                f"rate ({self.sample_rate_hz / 2:g})"
            )
        return self

    @property
    def size(self) -> int:
        """Numbers per frame."""
        return (self.coefficients if self.kind == "mfcc" else self.mels) * (1 + self.deltas)


class CompactEncoder(Spec):
    """A small network without pretrained weights: channel attention, residual convolutions, a bidirectional LSTM."""

    kind: Literal["compact"]
    features: FrameFeatures = FrameFeatures()
    input_norm: bool = False
    """Batch norm of the features: one mean and scale per number for all clips, so that loudness stays."""
    attention: Literal["multi_head", "tspca", "none"] = "multi_head"
    """What weighs the numbers of a frame by the clip's means and maxima: `multi_head` (several small networks and a
    linear layer), `tspca` (one network, two streams), or nothing."""
    attention_heads: Count = 4
    """Networks of `multi_head`."""
    channels: Annotated[tuple[Count, ...], Field(min_length=1)] = (128, 256)
    """Width of each convolutional block."""
    strides: tuple[Count, ...] | None = None
    """Of each block, 1 when absent; 2 halves the number of frames that come behind it, and the time."""
    kernel: Count = 5
    """Frames that a convolution sees; an odd number."""
    depthwise: bool = True
    """Convolutions over time per channel, then over channels; false for plain ones."""
    residual: bool = True
    """A second way around each convolution."""
    lstm_hidden: Count = 128
    """Width of each direction."""
    lstm_layers: Annotated[int, Field(ge=0)] = 2
    """0: no recurrent layer."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """In each convolutional block and between recurrent layers."""

    @model_validator(mode="after")
    def _fits(self) -> CompactEncoder:
        if self.strides is not None and len(self.strides) != len(self.channels):
            raise ValueError(f"'strides' needs one number per block, {len(self.channels)}; got {list(self.strides)}")
        if self.kernel % 2 == 0:
            raise ValueError(f"'kernel' must be an odd number, so that frames stay where they are; got {self.kernel}")
        return self

    @property
    def hidden_size(self) -> int:
        """Width of the frames that are pooled."""
        return 2 * self.lstm_hidden if self.lstm_layers else self.channels[-1]
