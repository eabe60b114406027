"""CaFE: twelve actors from Québec, half of them women, speak six sentences in six emotions and neutral.

Layout: one folder per emotion (`Colère`, `Dégoût`, `Joie`, `Neutre`, `Peur`, `Surprise`, `Tristesse`), and in all but
`Neutre` the folders `Faible` and `Fort`; clips at any depth are read, and the folders' names do not matter, since they
often come out garbled when the archive is unpacked. `01-C-2-1` is actor 01 (even: a woman), emotion C (colère),
intensity 2 (1 low, 2 high), sentence 1. Neutral clips have no intensity: they are named `01-N-1` in the 192 kHz
version, and read as `01-N-1-1` as well, which the naming in the release's Readme asks for.
The label is the emotion that the actor was asked to play. The actors are 15 to 64 years old.
The 48 kHz version is WAV. The 192 kHz version is AIFF and has to be converted first.
"""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from typing import Literal

from ser_scripts.audio.decode import SUFFIXES
from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names, walk

NAME = "cafe"
TITLE = "CaFE, Canadian French Emotional speech dataset"
LANGUAGE = "fr"
LICENCE = "CC BY-NC-SA 4.0"
CITATION = (
    "P. Gournay, O. Lahaie, R. Lefebvre: A Canadian French emotional speech dataset. Proc. ACM Multimedia Systems "
    "Conference (MMSys) 2018, pp. 399-402. doi:10.1145/3204949.3208121"
)
SOURCE = "https://zenodo.org/records/1478765 (CaFE_48k.zip)"
LABELS = {
    "C": "angry",
    "D": "disgusted",
    "J": "happy",
    "N": "neutral",
    "P": "fearful",
    "S": "surprised",
    "T": "sad",
}
EXPECTED_CLIPS = 936
EXPECTED_SPEAKERS = 12
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"(0[1-9]|1[0-2])-(?:([CDJPST])-([12])|(N)(?:-1)?)-([1-6])"

_INTENSITIES = {"1": "low", "2": "high"}


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = find_clips(root)
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like 01-C-2-1 and 01-N-1, 936 clips")
    return [_row(clips[stem], match) for stem, match in matches.items()]


def expected_stems(root: Path) -> list[str]:
    """The stems of the 936 clips, sorted; neutral ones as `01-N-1-1` where `root` holds such, else as `01-N-1`."""
    long = re.compile(r"\d\d-N-1-\d")
    is_long = root.is_dir() and any(long.fullmatch(file.stem) for file in walk(root) if file.suffix.lower() in SUFFIXES)
    kinds = ["N-1" if is_long else "N"]
    kinds += ["-".join(kind) for kind in product(LABELS, _INTENSITIES) if kind[0] != "N"]
    return sorted(
        f"{actor:02d}-{kind}-{sentence}" for actor, kind, sentence in product(range(1, 13), kinds, range(1, 7))
    )


def _row(path: str, match: re.Match[str]) -> ClipRow:
    actor, emotion, intensity, neutral, sentence = match.groups()
    return ClipRow(
        path=path,
        class_id=LABELS[emotion or neutral],
        actor=actor,
        gender="female" if int(actor) % 2 == 0 else "male",
        sentence=sentence,
        intensity=_INTENSITIES[intensity] if intensity else None,
    )
