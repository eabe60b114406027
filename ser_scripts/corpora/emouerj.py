"""emoUERJ: eight Brazilian actors, half of them women, speak in four emotions sentences that they chose from ten.

Layout: all clips in one folder (at any depth). `w04a11` is a woman (`m`: a man), number 04 of that gender, emotion a,
recording 11: the number counts recordings and does not say which sentence was spoken.
The label is the emotion that the actor was asked to play: 94 angry, 91 happy, 100 sad, 92 neutral.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names

NAME = "emouerj"
TITLE = "emoUERJ, an emotional speech database in Portuguese"
LANGUAGE = "pt"
LICENCE = "CC BY 4.0"
CITATION = (
    "R. G. Bastos Germano, M. Pompeu Tcheou, F. da Rocha Henriques, S. Pinto Gomes Junior: emoUERJ: an emotional "
    "speech database in Portuguese. Zenodo, 2021. doi:10.5281/zenodo.5427549"
)
SOURCE = "https://zenodo.org/records/5427549"
LABELS = {"a": "angry", "h": "happy", "n": "neutral", "s": "sad"}
EXPECTED_CLIPS = 377
EXPECTED_SPEAKERS = 8
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"([mw]0[1-4])([ahns])\d\d"


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like w04a11")
    return [_row(clips[stem], *match.groups()) for stem, match in matches.items()]


def expected_stems(root: Path) -> None:
    """Not known: actors made different numbers of recordings."""
    return None


def _row(path: str, actor: str, emotion: str) -> ClipRow:
    gender = "female" if actor.startswith("w") else "male"
    return ClipRow(path=path, class_id=LABELS[emotion], actor=actor, gender=gender)
