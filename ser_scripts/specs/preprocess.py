"""Steps that every clip of every side goes through before a model hears it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ser_scripts.specs.base import Spec


class Loudness(Spec):
    """Every clip to one loudness (ITU-R BS.1770, EBU R 128)."""

    kind: Literal["loudness"]
    lufs: Annotated[float, Field(ge=-70, le=0)] = -23.0


PreprocessSpec = Annotated[Loudness, Field()]
