"""Emotions in Polish speech: five young men say six words angry, afraid and neutral, five times each.

Layout: 450 clips in one folder (at any depth). `m3.s_trzymaj_5` is speaker m3, emotion s (strach, fear; `a` anger, `n`
neutral), the word, repetition 5. The grid is complete: 30 clips per speaker and emotion.
The label is the emotion that the speaker was asked to show. The words are nie (no), oddaj (give back), podaj (pass),
stop, tak (yes), trzymaj (hold). All speakers are men of 21 to 23 years.
It is not the Polish database of the Technical University of Łódź (240 sentences of eight actors).
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import check_names, find_clips

NAME = "polish"
TITLE = "Emotions in Polish speech recordings (Polish emotional speech database of Gdańsk)"
LANGUAGE = "pl"
LICENCE = "as its page states (open research data); see there before passing it on"
CITATION = (
    "M. Mięsikowska, D. Świsulski: Emotions in Polish speech recordings. Gdańsk University of Technology, 2020. "
    "doi:10.34808/h46c-hb44"
)
SOURCE = (
    "https://mostwiedzy.pl/en/open-research-data/emotions-in-polish-speech-recordings,11190523461146169-0 "
    "(Speech_emotions.zip)"
)
LABELS = {"a": "angry", "n": "neutral", "s": "fearful"}
EXPECTED_CLIPS = 450
EXPECTED_SPEAKERS = 5
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"m[1-5]\.[ans]_(nie|oddaj|podaj|stop|tak|trzymaj)_[1-5]"

_WORDS = ("nie", "oddaj", "podaj", "stop", "tak", "trzymaj")


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    check_names(root, clips, expected_stems(root), title=TITLE, rule="names like m3.s_trzymaj_5, 450 clips")
    return [_row(path, *stem.split("_")[:2]) for stem, path in clips.items()]


def expected_stems(root: Path) -> list[str]:
    """The stems of the 450 clips, sorted; the same for every `root`."""
    return sorted(
        f"m{speaker}.{emotion}_{word}_{take}"
        for speaker, emotion, word, take in product(range(1, 6), LABELS, _WORDS, range(1, 6))
    )


def _row(path: str, speaker_and_emotion: str, word: str) -> ClipRow:
    speaker, emotion = speaker_and_emotion.split(".")
    return ClipRow(path=path, class_id=LABELS[emotion], actor=speaker, gender="male", sentence=word)
