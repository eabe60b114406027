"""ASED, Amharic Speech Emotion Dataset, version 1: 65 speakers in five emotions.

Layout: one folder for each emotion (`04Sad`), at any depth. `s4-04-02-01-29` is emotion s (sad; the digit is the
folder's), sentence 04 of the seven of this emotion, repetition 02, gender 01 (female; 02 male), speaker 29; one name
begins with a capital letter. Five of an emotion's sentences are its own, two are said in all emotions: which ones is
not stated, so a sentence counts here as another one in each emotion. Speaker 23 is a man in some names and a woman in
others: a speaker has here the gender of most of his or her clips.
The label is the emotion that the speaker was asked for (and the text suggests), in clips that at least five of eight
judges accepted: 2474 of 4550 recordings.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names

NAME = "ased"
TITLE = "ASED, Amharic Speech Emotion Dataset"
LANGUAGE = "am"
LICENCE = "none stated by its repository: ask the authors"
CITATION = (
    "E. A. Retta, E. Almekhlafi, R. Sutcliffe, M. Mhamed, H. Ali, J. Feng: A New Amharic Speech Emotion Dataset and "
    "Classification Benchmark. ACM Transactions on Asian and Low-Resource Language Information Processing 22(1), 2023. "
    "doi:10.1145/3529759"
)
SOURCE = "https://github.com/Ethio2021/ASED_V1"
LABELS = {
    "n": "neutral",
    "f": "fearful",
    "h": "happy",
    "s": "sad",
    "a": "angry",
}
EXPECTED_CLIPS = 2474
EXPECTED_SPEAKERS = 65
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"((?i:n1|f2|h3|s4|a5))-(0[1-7])-(0[12])-(0[12])-([0-6]\d)"

_GENDERS = {"01": "female", "02": "male"}


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like s4-04-02-01-29")
    genders = _genders(matches.values())
    return [_row(clips[stem], match, genders) for stem, match in matches.items()]


def expected_stems(root: Path) -> list[str] | None:
    """None: judges left an uneven grid, and no list of it is published."""
    return None


def _genders(matches: Iterable[re.Match[str]]) -> dict[str, str]:
    """The gender that most of each speaker's clips state; unknown where as many state the other."""
    counts: dict[str, Counter[str]] = {}
    for match in matches:
        counts.setdefault(match[5], Counter())[_GENDERS[match[4]]] += 1
    return {
        actor: "unknown" if count["female"] == count["male"] else max(sorted(count), key=count.__getitem__)
        for actor, count in counts.items()
    }


def _row(path: str, match: re.Match[str], genders: Mapping[str, str]) -> ClipRow:
    emotion = match[1][0].lower()
    return ClipRow(
        path=path,
        class_id=LABELS[emotion],
        actor=match[5],
        gender=genders[match[5]],
        sentence=emotion + match[2],
    )
