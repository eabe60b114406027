"""URDU: spontaneous Urdu speech, 400 utterances cut from talk shows of Pakistani television.

Layout: one folder per emotion (`Angry`, `Happy`, `Neutral`, `Sad`), clips at any depth. `SM4_F48_A0100` is a man
(`SF`: a woman), speaker 4 of that gender, his file 48, emotion A, and the running number of the clip in its emotion.
The label is what annotators heard; nobody acted. 100 clips of each emotion.
The authors count 38 speakers, 27 men and 11 women, and the numbers go as far; 29 of them have clips in the release.
Few people speak in each emotion (four men all the anger, two men most of the sadness): the voice alone says much about
the label, and a side of a speaker-independent split may have one voice in a class, or none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names

NAME = "urdu"
TITLE = "URDU, Urdu-language speech dataset"
LANGUAGE = "ur"
LICENCE = "no licence text; research purposes only"
CITATION = (
    "S. Latif, A. Qayyum, M. Usman, J. Qadir: Cross Lingual Speech Emotion Recognition: Urdu vs. Western Languages. "
    "Proc. International Conference on Frontiers of Information Technology (FIT) 2018, pp. 88-93. "
    "doi:10.1109/FIT.2018.00023"
)
SOURCE = "https://github.com/siddiquelatif/URDU-Dataset"
LABELS = {"A": "angry", "H": "happy", "N": "neutral", "S": "sad"}
EXPECTED_CLIPS = 400
EXPECTED_SPEAKERS = 29
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"(S([FM])\d+)_F\d+_([AHNS])\d+"


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like SM4_F48_A0100")
    return [_row(clips[stem], *match.groups()) for stem, match in matches.items()]


def expected_stems(root: Path) -> None:
    """Not known: speakers have different numbers of clips."""
    return None


def _row(path: str, speaker: str, gender: str, emotion: str) -> ClipRow:
    return ClipRow(path=path, class_id=LABELS[emotion], actor=speaker, gender="female" if gender == "F" else "male")
