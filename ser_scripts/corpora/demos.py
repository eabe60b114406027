"""DEMoS: 68 Italian students speak in seven induced emotions, and neutrally.

Layout: `DEMOS` with emotional clips and `NEU` with neutral ones, at any depth. `NP_f_61_gio02c` is a non-prototypical
(PR: prototypical) clip of a woman, speaker 61, in emotion gio (Italian); the rest is a number of no stated meaning.
Neutral clips have no first field: `m_66_neu03b`.
The label is the emotion that was induced, by music, pictures, stories and the like, not played; clips are prototypical
(`style`) where the speaker and raters agreed on the emotion (1564 clips of 59 speakers). 9365 emotional clips and 332
neutral ones.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names

NAME = "demos"
TITLE = "DEMoS, Database of Elicited Mood in Speech"
LANGUAGE = "it"
LICENCE = "its own licence: academic use, on application to the authors through Zenodo"
CITATION = (
    "E. Parada-Cabaleiro, G. Costantini, A. Batliner, M. Schmitt, B. W. Schuller: DEMoS: An Italian emotional speech "
    "corpus. Elicitation methods, machine learning, and perception. Language Resources and Evaluation 54, "
    "pp. 341-383, 2020"
)
SOURCE = "https://zenodo.org/records/2544829 (wav_DEMoS.zip)"
LABELS = {
    "col": "guilty",
    "dis": "disgusted",
    "gio": "happy",
    "neu": "neutral",
    "pau": "fearful",
    "rab": "angry",
    "sor": "surprised",
    "tri": "sad",
}
EXPECTED_CLIPS = 9697
EXPECTED_SPEAKERS = 68
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"(?:(NP|PR)_)?([fm])_(\d\d)_(col|dis|gio|neu|pau|rab|sor|tri)\d\d[a-z]"

_STYLES = {"NP": "non-prototypical", "PR": "prototypical"}


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like NP_f_61_gio02c or m_66_neu03b")
    return [_row(clips[stem], match) for stem, match in matches.items()]


def expected_stems(root: Path) -> list[str] | None:
    """None: the grid of names is uneven, and no table lists it."""
    return None


def _row(path: str, match: re.Match[str]) -> ClipRow:
    selection, gender, actor, emotion = match.groups()
    return ClipRow(
        path=path,
        class_id=LABELS[emotion],
        actor=actor,
        gender="female" if gender == "f" else "male",
        style=_STYLES.get(selection),
    )
