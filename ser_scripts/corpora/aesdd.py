"""AESDD: Greek actors speak nineteen sentences and an improvised one in five emotions; there is no neutral.

Layout: one folder per emotion (`anger`, `disgust`, `fear`, `happiness`, `sadness`), clips at any depth. `a03 (4)` is
emotion a, utterance 03, speaker 4; a second take has a letter behind it: `f18 (5)b`. The utterances are 01 to 20, and
nineteen were given, so one of the numbers, most likely 20, is what each actor improvised.
The label is the emotion that the actor was asked to play, chosen under a drama expert's guidance.
Version 1 (2017) had five actors, three women and two men, and about 500 clips. The data set is meant to grow: the copy
that is passed around has a sixth speaker and 604 or 605 clips (`s05 (3)` is damaged in many downloads); so no number of
clips is expected here. The release does not say which speaker is a woman or a man: gender is unknown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names

NAME = "aesdd"
TITLE = "AESDD, Acted Emotional Speech Dynamic Database"
LANGUAGE = "el"
LICENCE = "no licence text; its page offers it for research: ask the authors for more"
CITATION = (
    "N. Vryzas, R. Kotsakis, A. Liatsou, C. A. Dimoulas, G. Kalliris: Speech Emotion Recognition for Performance "
    "Interaction. Journal of the Audio Engineering Society 66(6), pp. 457-467, 2018"
)
SOURCE = "http://m3c.web.auth.gr/research/aesdd-speech-emotion-recognition/"
LABELS = {"a": "angry", "d": "disgusted", "f": "fearful", "h": "happy", "s": "sad"}
EXPECTED_CLIPS: int | None = None
EXPECTED_SPEAKERS: int | None = 6
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"([adfhs])([01]\d|20) ?\((\d+)\) ?[a-z]?"


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like a03 (4) and f18 (5)b")
    return [_row(clips[stem], *match.groups()) for stem, match in matches.items()]


def expected_stems(root: Path) -> None:
    """Not known: the data set grows, and has second takes here and there."""
    return None


def _row(path: str, emotion: str, utterance: str, speaker: str) -> ClipRow:
    return ClipRow(path=path, class_id=LABELS[emotion], actor=str(int(speaker)), gender="unknown", sentence=utterance)
