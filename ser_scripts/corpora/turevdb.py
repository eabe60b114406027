"""TurEV-DB: six Turkish speakers say 82 words angry, calm, happy and sad.

Layout: the repository of the authors, or its folder `Sound Source` with one folder per emotion (`Angry`, `Calm`,
`Happy`, `Sad`), at any depth. `1234_mt_acik` is speaker 1234, a code of the emotion (kz, sk, mt, hl), and the word in
plain letters. The label is taken from the folder.
It is the emotion that the speaker was asked to show. 1735 clips: 487 angry, 408 calm, 357 happy, 483 sad. Calm stands
where other corpora have neutral, and is kept apart from it here.
The release does not say who is a woman or a man: gender is unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names

NAME = "turevdb"
TITLE = "TurEV-DB, Turkish Emotion-Voice Database"
LANGUAGE = "tr"
LICENCE = "CC BY-NC-ND 4.0"
CITATION = (
    "S. F. Canpolat, Z. Ormanoğlu, D. Zeyrek: Turkish Emotion Voice Database (TurEV-DB). Proc. 1st Joint Workshop "
    "SLTU-CCURL 2020, pp. 368-375"
)
SOURCE = "https://github.com/Xeonen/TurEV-DB (Sound Source)"
LABELS = {"Angry": "angry", "Calm": "calm", "Happy": "happy", "Sad": "sad"}
EXPECTED_CLIPS = 1735
EXPECTED_SPEAKERS = 6
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"(Angry|Calm|Happy|Sad)/(\d{4})_[a-z]+_([^/]+)"


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="paths like Happy/1234_mt_acik")
    return [_row(clips[stem], *match.groups()) for stem, match in matches.items()]


def expected_stems(root: Path) -> None:
    """Not known: not every speaker has every word in every emotion."""
    return None


def _row(path: str, emotion: str, speaker: str, word: str) -> ClipRow:
    return ClipRow(path=path, class_id=LABELS[emotion], actor=speaker, gender="unknown", sentence=word)
