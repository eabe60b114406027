"""SUBESCO: twenty Bangladeshi actors, half of them women, speak ten sentences in seven emotions, five times each.

Layout: 7000 clips in one folder (at any depth). `F_02_MONIKA_S_1_NEUTRAL_5` is gender F, speaker 02 of that gender and
her name, sentence 1, emotion, take 5. The label is the emotion that the actor, a professional, was asked to play; fifty
raters recognised 71 % of the clips. The grid is complete: 50 clips per speaker and emotion.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names

NAME = "subesco"
TITLE = "SUBESCO, SUST Bangla Emotional Speech Corpus"
LANGUAGE = "bn"
LICENCE = "CC BY 4.0"
CITATION = (
    "S. Sultana, M. S. Rahman, M. R. Selim, M. Z. Iqbal: SUST Bangla Emotional Speech Corpus (SUBESCO): An audio-only "
    "emotional speech corpus for Bangla. PLoS ONE 16(4): e0250173, 2021. doi:10.1371/journal.pone.0250173"
)
SOURCE = "https://zenodo.org/records/4526477 (SUBESCO.zip)"
LABELS = {
    "ANGRY": "angry",
    "DISGUST": "disgusted",
    "FEAR": "fearful",
    "HAPPY": "happy",
    "NEUTRAL": "neutral",
    "SAD": "sad",
    "SURPRISE": "surprised",
}
EXPECTED_CLIPS = 7000
EXPECTED_SPEAKERS = 20
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"([FM]_(?:0[1-9]|10))_[A-Z]+_S_([1-9]|10)_(ANGRY|DISGUST|FEAR|HAPPY|NEUTRAL|SAD|SURPRISE)_[1-5]"

_WOMEN = ("OISHI", "MONIKA", "SMITA", "SWARNALI", "MOUNI", "SIMI", "TITHI", "JOYEETA", "CHAITY", "FAHMEE")
_MEN = ("BASHIR", "NIPUN", "ILIAS", "BIBHAS", "DURANTO", "SHUKANTO", "SIBLY", "PRASUN", "SHUMANTA", "EVAN")


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like F_02_MONIKA_S_1_NEUTRAL_5")
    return [_row(clips[stem], *match.groups()) for stem, match in matches.items()]


def expected_stems(root: Path) -> list[str]:
    """The stems of the 7000 clips, sorted; the same for every `root`."""
    speakers = [
        f"{gender}_{number:02d}_{name}"
        for gender, names in (("F", _WOMEN), ("M", _MEN))
        for number, name in enumerate(names, 1)
    ]
    return sorted(
        f"{speaker}_S_{sentence}_{emotion}_{take}"
        for speaker, sentence, emotion, take in product(speakers, range(1, 11), LABELS, range(1, 6))
    )


def _row(path: str, speaker: str, sentence: str, emotion: str) -> ClipRow:
    gender = "female" if speaker.startswith("F") else "male"
    return ClipRow(path=path, class_id=LABELS[emotion], actor=speaker, gender=gender, sentence=sentence)
