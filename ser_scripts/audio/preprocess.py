"""The chain of steps that every clip goes through: its files and versions, and applying it to one clip."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, assert_never

import numpy as np
import soundfile

from ser_scripts.audio.decode import SUFFIXES, Samples
from ser_scripts.errors import BadInput
from ser_scripts.specs.preprocess import (
    Codec,
    Denoise,
    FixedLength,
    Loudness,
    Noise,
    Peak,
    PreprocessSpec,
    RemoveDc,
    Resample,
    Reverb,
    Rms,
    Telephone,
    TrimSilence,
    Vad,
)

CHAIN_VERSION = 1
"""To be raised when the arithmetic of a step changes: stores made before are then built anew."""
DEFAULT_REDUCTION_DB = 12.0
NO_SPEECH = "no_speech"

_PACKAGES = {
    "loudness": ("pyloudnorm", "scipy"),
    "trim_silence": ("pyloudnorm", "scipy"),
    "vad": ("silero-vad", "torch", "soxr"),
    "denoise": ("scipy", "torch", "soxr"),
    "telephone": ("scipy", "soxr"),
    "resample": ("soxr",),
    "noise": ("scipy", "soxr"),
    "reverb": ("scipy", "soxr"),
    "codec": ("soxr",),
}
"""Whose version can change what a step gives, besides numpy's."""
_EVENTFUL = {"trim_silence", "vad", "fixed_length", "telephone", "resample", "codec"}


class NoSpeech(BadInput):
    """A clip has no speech, and the step that found so refuses such clips (`"no_speech": "refuse"`)."""


class Processed(NamedTuple):
    """A clip after the chain."""

    samples: Samples
    """(samples,)"""
    rate_hz: int
    """The clip's own rate, unless a step has changed it."""
    events: tuple[str, ...]
    """What happened to this clip that does not happen to every clip, as `<kind>: <event>`, in the chain's order."""


def resolve_chain(chain: Sequence[PreprocessSpec], base: Path) -> tuple[PreprocessSpec, ...]:
    """The chain with absolute paths in place of those that resolve against `base`, then the working directory.

    Raises:
        BadInput: if a file or folder does not exist, or a folder of sounds holds none
    """
    resolved: list[PreprocessSpec] = []
    for number, step in enumerate(chain):
        where = f"preprocess.{number} ({step.kind})"
        if isinstance(step, Denoise) and step.weights is not None:
            file = _existing(step.weights, base, f"{where}: weights")
            if not file.is_file():
                raise BadInput(f"{where}: weights: {file} is a folder; expected a file")
            step = step.model_copy(update={"weights": str(file)})
        elif isinstance(step, Noise | Reverb) and step.folder is not None:
            folder = _existing(step.folder, base, f"{where}: folder")
            if not sounds_in(folder):
                raise BadInput(f"{where}: folder: {folder} holds no {', '.join(SUFFIXES)} file")
            step = step.model_copy(update={"folder": str(folder)})
        resolved.append(step)
    return tuple(resolved)


def chain_inputs(chain: Sequence[PreprocessSpec], base: Path) -> dict[str, str]:
    """SHA-256 of the files that a chain names, by `<place>.<key>`: of a file, or of a folder's sounds in order.

    Where the files lie does not count. A chain that names none gives {}.
    """
    from ser_scripts.modeling.weights import sha256

    inputs = {}
    for number, step in enumerate(resolve_chain(chain, base)):
        if isinstance(step, Denoise) and step.weights is not None:
            inputs[f"{number}.weights"] = sha256([Path(step.weights)])
        elif isinstance(step, Noise | Reverb) and step.folder is not None:
            inputs[f"{number}.folder"] = sha256(sounds_in(Path(step.folder)))
    return inputs


def moved_chain(
    chain: Sequence[PreprocessSpec], inputs: Mapping[str, str], places: Sequence[Path]
) -> tuple[PreprocessSpec, ...]:
    """A recorded chain with the paths of today, where its project has moved since.

    A path that is gone is looked for with fewer and fewer of its leading folders, below each of `places` and below the
    folder that holds it. Only what has the recorded checksum is taken.

    Args:
        chain: with absolute paths, as `resolve_chain` gives it
        inputs: the `chain_inputs` of that time
        places: where relative paths of the experiment may start

    Raises:
        BadInput: if a file or folder is nowhere, or has changed
    """
    moved = []
    for number, step in enumerate(chain):
        for key in ("weights", "folder"):
            if (path := getattr(step, key, None)) is not None and not Path(path).exists():
                parts = Path(path).parts
                for there in (
                    folder.joinpath(*parts[cut:]) for place in places for folder in (place, place.parent)
                    for cut in range(1, len(parts))
                ):  # fmt: skip
                    here = step.model_copy(update={key: str(there.absolute())})
                    if there.exists() and chain_inputs([here], Path()) == {f"0.{key}": inputs[f"{number}.{key}"]}:
                        step = here
                        break
        moved.append(step)
    if chain_inputs(moved, Path()) != inputs:
        raise BadInput("files that it names (sounds, weights) have changed since")
    return tuple(moved)


def chain_identity(chain: Sequence[PreprocessSpec], base: Path) -> dict[str, Any]:
    """Everything that the result of a chain depends on besides the clip; an empty chain gives {}."""
    if not chain:
        return {}
    from ser_scripts.modeling.weights import sha256

    inputs = chain_inputs(chain, base)
    if any(isinstance(step, Vad) for step in chain):
        from ser_scripts.audio.steps.speech import weights_file

        inputs["vad"] = sha256([weights_file()])
    return {
        "steps": [step.model_dump(mode="json", exclude={"weights", "folder"}) for step in chain],
        "inputs": inputs,
        "versions": versions(chain),
    }


def versions(chain: Sequence[PreprocessSpec]) -> dict[str, str]:
    """Versions of what computes the chain."""
    packages = {"numpy"} | {package for step in chain for package in _PACKAGES.get(step.kind, ())}
    found = {package: version(package) for package in sorted(packages)}
    if any(isinstance(step, Codec) for step in chain):
        found["libsndfile"] = soundfile.__libsndfile_version__
    return {"chain": str(CHAIN_VERSION), **found}


def has_events(chain: Sequence[PreprocessSpec]) -> bool:
    """Whether a step of the chain can have an event."""
    return any(step.kind in _EVENTFUL for step in chain)


def longest_seconds(seconds: float, chain: Sequence[PreprocessSpec]) -> float:
    """The most that a clip of this length can last after the chain."""
    for step in chain:
        if isinstance(step, FixedLength):
            seconds = max(seconds, step.seconds)
    return seconds


def apply_chain(
    mono: Samples, rate_hz: int, chain: Sequence[PreprocessSpec], *, clip_key: str, base: Path = Path()
) -> Processed:
    """Apply the steps in order to a clip; an empty chain returns the same array.

    Args:
        mono: (samples,), left as it is
        rate_hz: its rate
        chain: the steps
        clip_key: `<corpus>/<path>`; steps that draw random numbers draw them for this clip
        base: folder that relative paths of the chain resolve against; absolute ones after `resolve_chain`

    Raises:
        NoSpeech: if a step finds no speech and refuses such clips
        BadInput: if a step cannot do its work on this clip
    """
    events: list[str] = []
    for number, step in enumerate(chain):
        mono, rate_hz, event = _apply(mono, rate_hz, step, number, clip_key, base)
        if event is not None:
            events.append(f"{step.kind}: {event}")
        if not len(mono) or not np.isfinite(mono).all():
            fault = "samples that are not finite" if len(mono) else "no samples"
            raise BadInput(f"preprocess.{number} ({step.kind}) leaves {fault}")
    return Processed(mono, rate_hz, tuple(events))


def _apply(
    mono: Samples, rate_hz: int, step: PreprocessSpec, number: int, clip_key: str, base: Path
) -> tuple[Samples, int, str | None]:
    """One step: samples, rate, and an event or None. The modules are imported where they are used: they are heavy."""
    event: str | None = None
    match step:
        case Loudness() | Peak() | Rms() | RemoveDc():
            mono = _to_level(mono, rate_hz, step)
        case TrimSilence() | Vad():
            speech = _speech(mono, rate_hz, step)
            if speech is None:
                if step.no_speech == "refuse":
                    raise NoSpeech(f"no speech found (preprocess.{number}, {step.kind})")
                event = NO_SPEECH
            else:
                mono = speech
        case Denoise(method="log_mmse"):
            from ser_scripts.audio.steps.denoise import log_mmse

            mono = log_mmse(mono, rate_hz, max_reduction_db=step.max_reduction_db or DEFAULT_REDUCTION_DB)
        case Denoise():
            from ser_scripts.audio.steps.dns64 import dns64

            assert step.weights is not None
            mono = dns64(mono, rate_hz, weights=_existing(step.weights, base, "weights"))
        case FixedLength():
            from ser_scripts.audio.steps.ends import fixed_length

            before = len(mono)
            mono = fixed_length(mono, rate_hz, seconds=step.seconds, keep=step.keep, pad=step.pad, place=step.place)
            event = "cut" if len(mono) < before else "filled" if len(mono) > before else None
        case Telephone():
            from ser_scripts.audio.steps.line import telephone

            output_hz = step.output_rate_hz or rate_hz
            mono, clipped = telephone(
                mono,
                rate_hz,
                low_hz=step.low_hz,
                high_hz=step.high_hz,
                line_rate_hz=step.line_rate_hz,
                codec=None if step.codec == "none" else step.codec,
                output_rate_hz=output_hz,
            )
            rate_hz, event = output_hz, "clipped" if clipped else None
        case Resample():
            from ser_scripts.audio.steps.line import limit_band

            if step.rate_hz < rate_hz:
                mono, rate_hz = limit_band(mono, rate_hz, limit_hz=step.rate_hz, back=step.back)
            else:
                event = "rate_not_above"
        case Noise() | Reverb():
            mono = _disturbed(mono, rate_hz, step, number, clip_key, base)
        case Codec():
            from ser_scripts.audio.steps.conditions import code

            mono, clipped = code(mono, rate_hz, codec=step.codec, bitrate_kbps=step.bitrate_kbps, quality=step.quality)
            event = "clipped" if clipped else None
        case _:
            assert_never(step)
    return mono, rate_hz, event


def _to_level(mono: Samples, rate_hz: int, step: Loudness | Peak | Rms | RemoveDc) -> Samples:
    from ser_scripts.audio.steps import level

    match step:
        case Loudness():
            return level.to_loudness(mono, rate_hz, lufs=step.lufs)
        case Peak():
            return level.to_peak(mono, dbfs=step.dbfs)
        case Rms():
            return level.to_rms(mono, dbfs=step.dbfs)
        case RemoveDc():
            return level.remove_dc(mono)


def _speech(mono: Samples, rate_hz: int, step: TrimSilence | Vad) -> Samples | None:
    if isinstance(step, TrimSilence):
        from ser_scripts.audio.steps.ends import trim_silence

        return trim_silence(
            mono,
            rate_hz,
            threshold_db=step.threshold_db,
            relative_to=step.relative_to,
            pad_seconds=step.pad_seconds,
            floor_dbfs=step.floor_dbfs,
        )
    from ser_scripts.audio.steps.speech import cut_to_speech

    return cut_to_speech(
        mono,
        rate_hz,
        mode=step.mode,
        threshold=step.threshold,
        min_speech_seconds=step.min_speech_seconds,
        min_silence_seconds=step.min_silence_seconds,
        pad_seconds=step.pad_seconds,
    )


def _disturbed(mono: Samples, rate_hz: int, step: Noise | Reverb, number: int, clip_key: str, base: Path) -> Samples:
    from ser_scripts.audio.steps import conditions

    if not clip_key:
        raise ValueError(f"preprocess.{number} ({step.kind}) draws random numbers, which needs the clip's key")
    random = conditions.generator(step.seed, clip_key, number)
    files = sounds_in(_existing(step.folder, base, "folder")) if step.folder is not None else []
    if isinstance(step, Noise):
        if step.colour is None:
            noise = conditions.recorded_noise(len(mono), rate_hz, files=files, random=random)
        else:
            noise = conditions.coloured_noise(len(mono), rate_hz, colour=step.colour, random=random)
        return conditions.add_noise(mono, noise, snr_db=step.snr_db)
    if step.rt60_seconds is None:
        response = conditions.recorded_response(rate_hz, files=files, random=random)
    else:
        response = conditions.synthetic_response(
            rate_hz,
            rt60_seconds=step.rt60_seconds,
            direct_to_reverberant_db=step.direct_to_reverberant_db or 0.0,
            random=random,
        )
    return conditions.reverberate(mono, response)


def sounds_in(folder: Path) -> list[Path]:
    """The sound files below a folder, in order of their relative path, so that a draw does not depend on the disk.

    Hidden files (`.x`, AppleDouble `._x`) are none; links to folders are followed.

    Raises:
        BadInput: a file name that is not UTF-8
    """
    found: dict[str, Path] = {}
    entered: set[str] = set()
    for place, subfolders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in entered:  # a link may lead back up
            subfolders.clear()
            continue
        entered.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in SUFFIXES:
                path = Path(place, name)
                try:
                    str(path).encode()
                except UnicodeEncodeError:
                    raise BadInput(f"{os.fsencode(path)!r}: the file name is not UTF-8; rename it") from None
                found[path.relative_to(folder).as_posix()] = path
    return [found[name] for name in sorted(found)]


def _existing(path: str, base: Path, where: str) -> Path:
    tried = [(folder / path).absolute() for folder in (base, Path())]
    for place in tried:
        if place.exists():
            return place
    raise BadInput(f"{where}: {path!r} does not exist; looked for {' and '.join(dict.fromkeys(map(str, tried)))}")
