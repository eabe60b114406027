"""Steps that every clip of every side goes through before a model hears it, and steps that make a test condition."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ser_scripts.specs.base import Spec

NoSpeechPolicy = Literal["keep", "refuse"]
Positive = Annotated[float, Field(gt=0)]


class Loudness(Spec):
    """Every clip to one loudness (ITU-R BS.1770, EBU R 128)."""

    kind: Literal["loudness"]
    lufs: Annotated[float, Field(ge=-70, le=0)] = -23.0


class Peak(Spec):
    """Every clip to one peak."""

    kind: Literal["peak"]
    dbfs: Annotated[float, Field(ge=-70, le=0)] = -1.0
    """Of the sample with the largest magnitude; 0 is full scale."""


class Rms(Spec):
    """Every clip to one root mean square, pauses included."""

    kind: Literal["rms"]
    dbfs: Annotated[float, Field(ge=-70, le=0)] = -26.0
    """20 log10 of the root mean square; a full-scale square wave has 0."""


class RemoveDc(Spec):
    """Subtract the clip's mean."""

    kind: Literal["remove_dc"]


class TrimSilence(Spec):
    """Cut both ends up to the first and from the last frame of 20 ms that is loud enough; pauses inside stay."""

    kind: Literal["trim_silence"]
    threshold_db: Annotated[float, Field(ge=-100, lt=0)] = -40.0
    """Level (RMS) that a frame must reach, relative to `relative_to`."""
    relative_to: Literal["peak", "loudness"] = "peak"
    """The clip's largest sample, or its integrated loudness."""
    pad_seconds: Annotated[float, Field(ge=0, le=5)] = 0.05
    """How much is left before the first and after the last loud frame, where the clip has it."""
    floor_dbfs: Annotated[float, Field(ge=-200, le=0)] = -80.0
    """A clip whose peak is lower holds no speech."""
    no_speech: NoSpeechPolicy = "keep"
    """A clip without a frame that is loud enough: `keep` leaves it whole and counts it, `refuse` is an error."""


class Vad(Spec):
    """Cut what is not speech, as heard by Silero VAD in a copy of the clip at 16 kHz."""

    kind: Literal["vad"]
    mode: Literal["keep_speech", "trim_ends"] = "trim_ends"
    """`keep_speech` joins the speech segments and drops the pauses; `trim_ends` drops what lies before and after."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Probability from which a frame of 32 ms begins speech; it goes on until 0.15 less."""
    min_speech_seconds: Annotated[float, Field(ge=0, le=10)] = 0.25
    """A shorter segment does not count as speech."""
    min_silence_seconds: Annotated[float, Field(ge=0, le=10)] = 0.1
    """A shorter pause does not end a segment."""
    pad_seconds: Annotated[float, Field(ge=0, le=5)] = 0.05
    """How much is left around each segment, where the clip has it."""
    no_speech: NoSpeechPolicy = "keep"
    """A clip without a segment: `keep` leaves it whole and counts it, `refuse` is an error."""


class Denoise(Spec):
    """Reduce noise."""

    kind: Literal["denoise"]
    method: Literal["log_mmse", "dns64"] = "log_mmse"
    """`log_mmse`: a statistical estimator without weights (Ephraim and Malah 1985). `dns64`: the network of Défossez,
    Synnaeve and Adi (2020), whose weights you have."""
    max_reduction_db: Annotated[float, Field(gt=0, le=60)] | None = None
    """`log_mmse` only: no frequency is attenuated by more; 12 when absent."""
    weights: str | None = None
    """`dns64` only: the file of weights (.th or .safetensors), relative to the experiment or the working directory."""

    @model_validator(mode="after")
    def _method_fits(self) -> Denoise:
        if (self.method == "dns64") != (self.weights is not None):
            raise ValueError("'weights' goes with method 'dns64', which needs it, and with no other")
        if self.method == "dns64" and self.max_reduction_db is not None:
            raise ValueError("'max_reduction_db' goes with method 'log_mmse'")
        return self


class FixedLength(Spec):
    """Every clip to one length."""

    kind: Literal["fixed_length"]
    seconds: Annotated[float, Field(gt=0, le=600)]
    keep: Literal["start", "centre", "end"] = "start"
    """Which part of a longer clip stays."""
    pad: Literal["zeros", "reflect", "none"] = "zeros"
    """What a shorter clip is filled with; `none` leaves it as it is."""
    place: Literal["start", "centre"] = "start"
    """Where a shorter clip lies in the result."""


class Telephone(Spec):
    """A telephone line: band-pass, 8 kHz, and a G.711 round trip."""

    kind: Literal["telephone"]
    low_hz: Annotated[float, Field(ge=50)] = 300.0
    """Lower band edge (-6 dB); 60 dB are reached 100 Hz below."""
    high_hz: Positive = 3400.0
    """Upper band edge (-6 dB); 60 dB are reached 100 Hz above."""
    line_rate_hz: Annotated[int, Field(ge=8000, le=48_000)] = 8000
    codec: Literal["mu_law", "a_law", "none"] = "mu_law"
    output_rate_hz: Annotated[int, Field(ge=8000, le=192_000)] | None = None
    """Rate of the result; the clip's own when absent."""

    @model_validator(mode="after")
    def _band_fits(self) -> Telephone:
        if not self.low_hz + 200 <= self.high_hz <= self.line_rate_hz / 2 - 100:
            raise ValueError(
                f"low_hz + 200 <= high_hz <= line_rate_hz / 2 - 100 must hold; they are {self.low_hz:g}, "
                f"{self.high_hz:g} and {self.line_rate_hz}"
            )
        return self


class Resample(Spec):
    """Take away what lies above half of a lower rate."""

    kind: Literal["resample"]
    rate_hz: Annotated[int, Field(ge=1000, le=192_000)]
    """A clip whose own rate is not above it stays as it is."""
    back: bool = True
    """Return to the clip's own rate, so that only the band is limited."""


class Noise(Spec):
    """Add noise; its draw depends on `seed`, the clip and the step's place in the chain, and on nothing else."""

    kind: Literal["noise"]
    snr_db: Annotated[float, Field(ge=-40, le=80)]
    """Power of the clip over power of the noise, both over the whole clip."""
    colour: Literal["white", "pink", "brown", "speech_shaped"] | None = None
    """Flat; -3 dB per octave; -6 dB per octave; the long-term spectrum of speech (Byrne et al. 1994)."""
    folder: str | None = None
    """Sound files instead of `colour`: one is drawn for each clip, from a drawn place on, repeated if too short."""
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_source(self) -> Noise:
        if (self.colour is None) == (self.folder is None):
            raise ValueError("give one of 'colour' and 'folder'")
        return self


class Reverb(Spec):
    """Put the clip into a room; length and root mean square stay those of the clip."""

    kind: Literal["reverb"]
    rt60_seconds: Annotated[float, Field(ge=0.05, le=10)] | None = None
    """Synthetic: a direct path and exponentially decaying noise that falls by 60 dB in this time."""
    direct_to_reverberant_db: Annotated[float, Field(ge=-40, le=40)] | None = None
    """With `rt60_seconds`: energy of the direct path over that of the tail; 0 when absent."""
    folder: str | None = None
    """Impulse responses instead of `rt60_seconds`: one is drawn for each clip."""
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_source(self) -> Reverb:
        if (self.rt60_seconds is None) == (self.folder is None):
            raise ValueError("give one of 'rt60_seconds' and 'folder'")
        if self.folder is not None and self.direct_to_reverberant_db is not None:
            raise ValueError("'direct_to_reverberant_db' goes with 'rt60_seconds'")
        return self


class Codec(Spec):
    """Encode and decode once; the delay of the codec is taken out and the length stays."""

    kind: Literal["codec"]
    codec: Literal["mp3", "opus", "vorbis", "gsm"]
    bitrate_kbps: Positive | None = None
    """`mp3` (8 to 320, as far as MPEG allows it at the clip's rate) and `opus` (6 to 256) need it; `gsm` has 13."""
    quality: Annotated[float, Field(ge=0, le=1)] | None = None
    """`vorbis` needs it: 0 is the smallest file, 1 the best sound."""

    @model_validator(mode="after")
    def _rate_fits(self) -> Codec:
        wants = {"mp3": (True, False), "opus": (True, False), "vorbis": (False, True), "gsm": (False, False)}
        if (self.bitrate_kbps is not None, self.quality is not None) != wants[self.codec]:
            raise ValueError("'mp3' and 'opus' take 'bitrate_kbps', 'vorbis' takes 'quality', 'gsm' takes neither")
        low, high = {"mp3": (8, 320), "opus": (6, 256)}.get(self.codec, (0, 0))
        if self.bitrate_kbps is not None and not low <= self.bitrate_kbps <= high:
            raise ValueError(f"bitrate_kbps of {self.codec} lies between {low} and {high}; it is {self.bitrate_kbps:g}")
        return self


PreprocessSpec = Annotated[
    Loudness
    | Peak
    | Rms
    | RemoveDc
    | TrimSilence
    | Vad
    | Denoise
    | FixedLength
    | Telephone
    | Resample
    | Noise
    | Reverb
    | Codec,
    Field(discriminator="kind"),
]
