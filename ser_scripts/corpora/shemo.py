"""ShEMO: 87 Persian speakers in utterances cut from online radio plays.

Layout: `female` and `male` with the clips (at any depth). `F21W04` is a woman (`M`: a man), number 21 of that gender,
emotion W (surprise), utterance 04. There are 31 women and 56 men.
The label is the emotion that most of twelve annotators heard; the plays are acted, but not for the corpus.
3000 clips: 1059 angry, 1028 neutral, 449 sad, 225 surprised, 201 happy and only 38 fearful ones, which many studies
leave out; a public benchmark lists 2838 of them. Speakers have different numbers of clips. The names do not say which
utterances are of one play.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names

NAME = "shemo"
TITLE = "ShEMO, Sharif Emotional Speech Database"
LANGUAGE = "fa"
LICENCE = "no licence text; free of charge for academic purposes"
CITATION = (
    "O. Mohamad Nezami, P. Jamshid Lou, M. Karami: ShEMO: a large-scale validated database for Persian speech emotion "
    "detection. Language Resources and Evaluation 53(1), pp. 1-16, 2019. doi:10.1007/s10579-018-9427-x"
)
SOURCE = "https://github.com/mansourehk/ShEMO (female.zip, male.zip)"
LABELS = {
    "A": "angry",
    "F": "fearful",
    "H": "happy",
    "N": "neutral",
    "S": "sad",
    "W": "surprised",
}
EXPECTED_CLIPS = 3000
EXPECTED_SPEAKERS = 87
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"([FM]\d\d)([AFHNSW])\d{2,3}"


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like F21W04")
    return [_row(clips[stem], *match.groups()) for stem, match in matches.items()]


def expected_stems(root: Path) -> None:
    """Not known: speakers have different numbers of utterances."""
    return None


def _row(path: str, speaker: str, emotion: str) -> ClipRow:
    gender = "female" if speaker.startswith("F") else "male"
    return ClipRow(path=path, class_id=LABELS[emotion], actor=speaker, gender=gender)
