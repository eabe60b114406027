"""Thorsten emotional: one German speaker says 300 sentences in eight ways.

Layout: one folder for each way of speaking, `amused/0aaf116f8774a140909231e0b610dc98.wav`. The name is the sentence,
the same in all eight folders (`thorsten-emotional-metadata.csv` has the text of each). 2399 clips: `whisper` lacks
2cc2cc4a34b961ef1657cc82dbd18875.
The label is how the speaker meant to speak. Drunk, sleepy and whispering are ways of speaking rather than emotions.
With one speaker, nothing can be learned here about other speakers: use it to test on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names

NAME = "thorsten"
TITLE = "Thorsten-Voice, emotional (21.06, version 2)"
LANGUAGE = "de"
LICENCE = "CC0 1.0"
CITATION = "T. Müller, D. Kreutz: Thorsten-Voice Dataset 2021.06 emotional. Zenodo, 2021. doi:10.5281/zenodo.5525023"
SOURCE = "https://zenodo.org/records/5525023 (thorsten-emotional_v02.tgz, also https://www.openslr.org/110/)"
LABELS = {
    "amused": "amused",
    "angry": "angry",
    "disgusted": "disgusted",
    "drunk": "drunk",
    "neutral": "neutral",
    "sleepy": "sleepy",
    "surprised": "surprised",
    "whisper": "whispering",
}
EXPECTED_CLIPS = 2399
EXPECTED_SPEAKERS = 1
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"(amused|angry|disgusted|drunk|neutral|sleepy|surprised|whisper)/([0-9a-f]{32})"

_SPEAKER = "thorsten"


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root, by_path=True)
    rule = "names like amused/0aaf116f8774a140909231e0b610dc98"
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule=rule)
    return [
        ClipRow(path=clips[key], class_id=LABELS[match[1]], actor=_SPEAKER, gender="male", sentence=match[2])
        for key, match in matches.items()
    ]


def expected_stems(root: Path) -> list[str] | None:
    """None: one stem stands for eight clips, so that missing clips can be counted only."""
    return None
