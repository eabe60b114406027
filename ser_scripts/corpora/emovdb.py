"""EmoV-DB: two women and two men read English sentences amused, angry, disgusted, sleepy and neutral.

Layout: one folder per speaker and style, `bea/Amused` in the sorted release, `bea_Amused` where the archives of that
name (`bea_Amused.tar.gz`) were each unpacked into a folder of their own; at any depth. Clips of different speakers have
the same names, so the folders are needed: `amused_1-15_0002` is the style, a range that is of use for the annotation
only, and the sentence's number in the CMU Arctic list. Speaker and label are taken from the folder.
Speakers: bea, jenie (women), josh, sam (men); josh has neither anger nor disgust.
The label is the style that the speaker was asked to read in. It was made for synthesis: amused clips hold
laughter, sleepy ones yawns.
Its authors count 7000 files (1817, 1866, 863 and 2454 of jenie, bea, josh and sam), releases hold a little under 6900;
so no number of clips is expected here.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names, refuse_copies

NAME = "emovdb"
TITLE = "EmoV-DB, Emotional Voices Database"
LANGUAGE = "en"
LICENCE = "its own licence: non-commercial purposes (research, teaching, publication, personal experiments)"
CITATION = (
    "A. Adigwe, N. Tits, K. El Haddad, S. Ostadabbas, T. Dutoit: The Emotional Voices Database: Towards Controlling "
    "the Emotion Dimension in Voice Generation Systems. arXiv:1806.09514, 2018"
)
SOURCE = "https://www.openslr.org/115/, or the sorted release named in https://github.com/numediart/EmoV-DB"
LABELS = {
    "Amused": "amused",
    "Angry": "angry",
    "Disgust": "disgusted",
    "Disgusted": "disgusted",
    "Neutral": "neutral",
    "Sleepy": "sleepy",
}
EXPECTED_CLIPS: int | None = None
EXPECTED_SPEAKERS = 4
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = (
    r"(bea|jenie|josh|sam)[_/](Amused|Angry|Disgust|Disgusted|Neutral|Sleepy)/"
    r"(?i:amused|anger|disgust|neutral|sleepiness)_[^/]*?(\d{4})?"
)

_WOMEN = frozenset({"bea", "jenie"})


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root, by_path=True)
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="paths like bea/Amused/amused_1-15_0002")
    names = {key: f"{match[1]} {LABELS[match[2]]} {PurePosixPath(key).name}" for key, match in matches.items()}
    refuse_copies(root, clips, names)
    return [_row(clips[key], *match.groups()) for key, match in matches.items()]


def expected_stems(root: Path) -> None:
    """Not known: many sentences are missing, others for each speaker and style."""
    return None


def _row(path: str, speaker: str, style: str, sentence: str | None) -> ClipRow:
    gender = "female" if speaker in _WOMEN else "male"
    return ClipRow(path=path, class_id=LABELS[style], actor=speaker, gender=gender, sentence=sentence)
