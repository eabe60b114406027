"""RESD, Russian Emotional Speech Dialogs: voice actors improvise dialogs in seven emotions.

It is published as parquet files (`Aniemore/resd`, 1116 clips for training and 280 for testing), which the corpus kind
`huggingface` reads. This reader is for clips unpacked from there into one folder for each emotion, as users have them:
`happiness/32_happiness_enthusiasm_h_120.wav` (folders `train` and `test` above become the side). The folder is the
label; names are taken to begin with number and emotions of the dialog, which is the group. Neither is described by the
authors, and the further parts of a name are not understood here.
Nothing says who speaks: speakers are unknown, and partners of a dialog share its group. One of each pair's two emotions
was given to each actor; so the label is played, in words of the actor's own.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names

NAME = "resd"
TITLE = "RESD, Russian Emotional Speech Dialogs"
LANGUAGE = "ru"
LICENCE = "MIT"
CITATION = "A. Amentes, I. Lubenets, N. Davidchuk: Russian Emotional Speech Dialogs (RESD), 2022. doi:10.57967/hf/1273"
SOURCE = "https://huggingface.co/datasets/Aniemore/resd"
LABELS = {
    "anger": "angry",
    "disgust": "disgusted",
    "enthusiasm": "enthusiastic",
    "fear": "fearful",
    "happiness": "happy",
    "neutral": "neutral",
    "sadness": "sad",
}
EXPECTED_CLIPS = 1396
EXPECTED_SPEAKERS = None
LAYOUT: Literal["confirmed", "unverified"] = "unverified"
_EMOTIONS = "anger|disgust|enthusiasm|fear|happiness|neutral|sadness"
FILE_NAMES = rf"({_EMOTIONS})/(\d+_(?:{_EMOTIONS})_(?:{_EMOTIONS}))_\w+"
SPEAKERS_KNOWN = False


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    rule = "names like happiness/32_happiness_enthusiasm_h_120"
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule=rule)
    return [
        ClipRow(
            path=clips[stem],
            class_id=LABELS[match[1]],
            actor="",
            gender="unknown",
            group=match[2],
            partition=next((part for part in PurePosixPath(clips[stem]).parts if part in ("train", "test")), None),
        )
        for stem, match in matches.items()
    ]


def expected_stems(root: Path) -> list[str] | None:
    """None: no list of the clips is published."""
    return None
