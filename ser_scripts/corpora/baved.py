"""BAVED, Basic Arabic Vocal Emotions Dataset: 61 speakers say seven words at three levels of emotion.

Layout: one folder for each word (0 to 6), at any depth. `55-m-16-2-0-778` is speaker 55, a man (f a woman) of 16 years,
word 2, level 0, recording 778.
The label is the level that the speaker was asked for: 0 tired or down, 1 as in daily speech, 2 a strong emotion of any
kind, positive or negative. Levels are no emotions: they go into no task with corpora of emotions but for `neutral`.
Speakers are the numbers in the names. Some, such as 39 and 100 (girls of six) or 41 and 102 (women of forty), might be
one person. A few speakers have most of the clips, among them 50, a girl of five.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names

NAME = "baved"
TITLE = "BAVED, Basic Arabic Vocal Emotions Dataset"
LANGUAGE = "ar"
LICENCE = "none stated by its repository: ask the authors"
CITATION = "A. Aouf: Basic Arabic Vocal Emotions Dataset (BAVED), 2019"
SOURCE = "https://github.com/40uf411/Basic-Arabic-Vocal-Emotions-Dataset"
LABELS = {
    "0": "tired",
    "1": "neutral",
    "2": "intense",
}
EXPECTED_CLIPS = 1935
EXPECTED_SPEAKERS = 61
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"(\d{1,3})-([fmFM])-\d{1,2}-([0-6])-([0-2])-\d{1,4}"


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like 55-m-16-2-0-778")
    return [
        ClipRow(
            path=clips[stem],
            class_id=LABELS[match[4]],
            actor=match[1],
            gender="female" if match[2].lower() == "f" else "male",
            sentence=match[3],
            intensity=match[4],
        )
        for stem, match in matches.items()
    ]


def expected_stems(root: Path) -> list[str] | None:
    """None: the grid of recordings is uneven, and no list of it is published."""
    return None
