"""MASC, Mandarin Affective Speech: 68 students speak phrases, sentences and paragraphs in five emotions.

Layout, as far as known: `data/<speaker>/<emotion>/<kind of text>/<clip>.wav`, speakers 001 to 068. That the emotion is
the folder above the one that holds the clip is known from its users, the speaker's folder is an assumption; which
speakers are women is not known here (23 are, of 68), nor how clips are numbered, so gender is unknown and there is no
sentence. Each speaker read 5 phrases and 20 sentences three times in each emotion, and two paragraphs neutrally: 25,636
clips, of which 5236 are neutral and 5100 of each other emotion.
The label is the emotion in which the speaker read after a story meant to evoke it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names

NAME = "masc"
TITLE = "MASC, Mandarin Affective Speech (LDC2007S09)"
LANGUAGE = "zh"
LICENCE = "Mandarin Affective Speech Agreement of the Linguistic Data Consortium"
CITATION = (
    "T. Wu, Y. Yang, Z. Wu, D. Li: MASC: A Speech Corpus in Mandarin for Emotion Analysis and Affective Speaker "
    "Recognition. Proc. IEEE Odyssey 2006. doi:10.1109/ODYSSEY.2006.248084"
)
SOURCE = "https://catalog.ldc.upenn.edu/LDC2007S09"
LABELS = {
    "anger": "angry",
    "elation": "happy",
    "neutral": "neutral",
    "panic": "fearful",
    "sadness": "sad",
}
EXPECTED_CLIPS = 25_636
EXPECTED_SPEAKERS = 68
LAYOUT: Literal["confirmed", "unverified"] = "unverified"
FILE_NAMES = r"(0[0-6]\d)/(anger|elation|neutral|panic|sadness)/[^/]+/[^/]+"


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root, by_path=True)
    rule = "names like 001/anger/<kind of text>/<clip>"
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule=rule)
    return [
        ClipRow(path=clips[key], class_id=LABELS[match[2]], actor=match[1], gender="unknown")
        for key, match in matches.items()
    ]


def expected_stems(root: Path) -> list[str] | None:
    """None: how clips are numbered is not known here."""
    return None
