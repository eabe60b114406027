"""Test conditions: what the test clips go through, or where else they are read from, for rows of their own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ser_eval.band import is_band_limited
from ser_eval.run_folder import NONE
from ser_scripts.specs.base import Spec
from ser_scripts.specs.model import NAME_PATTERN
from ser_scripts.specs.preprocess import Codec, PreprocessSpec, Resample, Telephone

CLEAN = "clean"
"""The clips as they are; always tested, and called `none` in results.csv."""
MAX_NAME = 64
ROOM_SECONDS = 0.5
"""Reverberation time of `reverb`: a living room or an office."""


class Condition(Spec):
    """The same test clips, changed by steps or read from a twin folder; or a short name such as `noise@10dB`."""

    name: str = Field(pattern=NAME_PATTERN, max_length=MAX_NAME)
    """Stands in results.csv and in the names of prediction files."""
    steps: tuple[PreprocessSpec, ...] = ()
    """What is done to a test clip, in order, before the experiment's own `preprocess`."""
    twin: str | None = None
    """Read the test clips from this folder instead of the folder beside it, such as `wav_telephone` beside `wav`; then
    come the steps."""

    @model_validator(mode="after")
    def _changes_something(self) -> Condition:
        if self.name == CLEAN and not self.steps and self.twin is None:
            return self
        if self.name.casefold() in (CLEAN, NONE):
            raise ValueError(f"the name '{self.name}' is taken: it means the test clips as they are")
        if not self.steps and self.twin is None:
            raise ValueError(f"condition '{self.name}' needs 'steps', 'twin' or both")
        if any(getattr(step, "no_speech", "keep") == "refuse" for step in self.steps):
            raise ValueError(
                f"condition '{self.name}': 'no_speech': 'refuse' is not valid here, since every condition has the same "
                "clips; use 'keep'"
            )
        return self

    @property
    def narrows_band(self) -> bool:
        """Whether its steps take away what telephones take away: most of what lies above 7 kHz and less."""
        return any(
            isinstance(step, Telephone)
            or (isinstance(step, Resample) and is_band_limited(step.rate_hz / 2))
            or (isinstance(step, Codec) and step.codec == "gsm")
            for step in self.steps
        )


_NUMBER = r"-?\d+(?:\.\d+)?"
_COLOURS = {"white": "white", "pink": "pink", "brown": "brown", "speech": "speech_shaped"}
_LAWS = {"mulaw": "mu_law", "alaw": "a_law"}


def _noise(colour: str | None, snr_db: str) -> dict[str, Any]:
    return {"kind": "noise", "colour": _COLOURS[colour or "speech"], "snr_db": float(snr_db)}


def _telephone(law: str | None) -> dict[str, Any]:
    return {"kind": "telephone", "codec": _LAWS[law or "mulaw"]}


def _reverb(seconds: str | None) -> dict[str, Any]:
    return {"kind": "reverb", "rt60_seconds": float(seconds) if seconds else ROOM_SECONDS}


def _lossy(codec: str, bitrate_kbps: str) -> dict[str, Any]:
    return {"kind": "codec", "codec": codec, "bitrate_kbps": float(bitrate_kbps)}


def _lowpass(limit_hz: str) -> dict[str, Any]:
    return {"kind": "resample", "rate_hz": round(2 * float(limit_hz)), "back": True}


_SHORT: list[tuple[re.Pattern[str], Callable[..., dict[str, Any]]]] = [
    (re.compile(rf"noise(?::({'|'.join(_COLOURS)}))?@({_NUMBER})dB"), _noise),
    (re.compile(rf"telephone(?::({'|'.join(_LAWS)}))?"), _telephone),
    (re.compile(rf"reverb(?:@({_NUMBER})s)?"), _reverb),
    (re.compile(rf"codec:(mp3|opus)@({_NUMBER})k"), _lossy),
    (re.compile(r"codec:gsm"), lambda: {"kind": "codec", "codec": "gsm"}),
    (re.compile(rf"lowpass@({_NUMBER})Hz"), _lowpass),
]
VALID = (
    "clean, noise@10dB (speech-shaped), noise:white@10dB (or pink, brown, speech), telephone, telephone:alaw (or "
    "mulaw), reverb, reverb@0.6s, codec:mp3@32k, codec:opus@16k, codec:gsm, lowpass@3400Hz, each with other numbers "
    'too; or {"name": ..., "steps": [...]}, {"name": ..., "twin": "wav_telephone"}'
)


def expand(short: str) -> dict[str, Any]:
    """The condition that a short name stands for, with a name that is valid as a file's.

    Raises:
        ValueError: not a short name; the text lists the valid forms

    Examples:
        >>> expand("noise:pink@-5dB")["name"]
        'noise-pink-minus5dB'
        >>> expand("codec:gsm")["steps"]
        [{'kind': 'codec', 'codec': 'gsm'}]
    """
    if short == CLEAN:
        return {"name": CLEAN}
    for pattern, step in _SHORT:
        if found := pattern.fullmatch(short):
            plain = re.sub(_NUMBER + r"(?=(?:dB|s|k|Hz)$)", lambda number: f"{float(number[0]):g}", short)
            name = plain.replace("@-", "-minus").replace("@", "-").replace(":", "-")
            return {"name": name, "steps": [step(*found.groups())]}
    raise ValueError(f"'{short}' is no condition; valid: {VALID}")


def _expanded(value: Any) -> Any:
    """Short names written out."""
    if isinstance(value, str):
        raise ValueError(f"'{value}' is not valid; expected a list, e.g. [{json.dumps(value)}]")
    if not isinstance(value, list | tuple):
        return value
    return [expand(item) if isinstance(item, str) else item for item in value]


def _without_clean(conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """What is tested besides the clips as they are, which always are."""
    return tuple(condition for condition in conditions if condition.name != CLEAN)


def same_twice(conditions: tuple[Condition, ...]) -> str | None:
    """What is wrong with a list of conditions: one name twice, or two names for one thing."""
    seen: dict[str, str] = {}
    for condition in conditions:
        # names become file names, and some file systems take capitals for small letters
        keys = {
            f"name {condition.name.casefold()}": f"{condition.name!r} stands there twice",
            condition.model_dump_json(exclude={"name"}): f"'{condition.name}' is the same as",
        }
        for key, text in keys.items():
            if key in seen:
                return text if key.startswith("name ") else f"{text} '{seen[key]}'"
            seen[key] = condition.name
    return None


Conditions = Annotated[
    tuple[Condition, ...],
    BeforeValidator(_expanded, json_schema_input_type=list[str | Condition]),
    AfterValidator(_without_clean),
]
