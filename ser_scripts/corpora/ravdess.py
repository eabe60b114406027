"""RAVDESS, speech, audio only: 24 North American actors speak two sentences in eight emotions.

Layout: one folder per actor (`Actor_01` ...), at any depth. The name of a clip is seven fields:
`03-01-06-01-02-01-12` is modality 03 (audio only), vocal channel 01 (speech), emotion 06, intensity 01 (normal),
statement 02, repetition 01, actor 12; actors of even number are women. Neutral has no strong intensity.
The corpus is here defined as modality 03 and vocal channel 01: files named as song (channel 02) or as video
(modality 01 and 02) are not part of it and are passed over. The label is the emotion that the actor was asked to play.

There are 192 clips per emotion and 96 neutral, at 48 kHz; calm and neutral are two classes. Some copies on the net
hold every clip twice, in a folder inside the folder; that is refused: delete one.
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import check_names, find_clips

NAME = "ravdess"
TITLE = "RAVDESS, Ryerson Audio-Visual Database of Emotional Speech and Song (speech, audio only)"
LANGUAGE = "en"
LICENCE = "CC BY-NC-SA 4.0; commercial licences from the authors"
CITATION = (
    "S. R. Livingstone, F. A. Russo: The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS). "
    "PLoS ONE 13(5): e0196391, 2018. doi:10.1371/journal.pone.0196391"
)
SOURCE = "https://zenodo.org/records/1188976 (Audio_Speech_Actors_01-24.zip)"
LABELS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgusted",
    "08": "surprised",
}
EXPECTED_CLIPS = 1440
EXPECTED_SPEAKERS = 24
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"03-01-0[1-8]-0[12]-0[12]-0[12]-[0-2]\d"

_SONG_OR_VIDEO = re.compile(r"(03-02|0[12]-0[12])(-\d\d){5}")


def read(root: Path) -> list[ClipRow]:
    """Rows of the speech clips under `root`."""
    clips = {stem: path for stem, path in find_clips(root).items() if not _SONG_OR_VIDEO.fullmatch(stem)}
    check_names(root, clips, expected_stems(root), title=TITLE, rule="names like 03-01-06-01-02-01-12, 1440 clips")
    return [_row(path, *stem.split("-")[2:]) for stem, path in clips.items()]


def expected_stems(root: Path) -> list[str]:
    """The stems of the 1440 clips, sorted; the same for every `root`."""
    two = ("01", "02")
    actors = [f"{number:02d}" for number in range(1, EXPECTED_SPEAKERS + 1)]
    return sorted(
        "-".join(("03", "01", emotion, intensity, statement, repetition, actor))
        for emotion, intensity, statement, repetition, actor in product(LABELS, two, two, two, actors)
        if LABELS[emotion] != "neutral" or intensity == "01"
    )


def _row(path: str, emotion: str, intensity: str, statement: str, repetition: str, actor: str) -> ClipRow:
    gender = "female" if int(actor) % 2 == 0 else "male"
    return ClipRow(path=path, class_id=LABELS[emotion], actor=actor, gender=gender, sentence=statement)
