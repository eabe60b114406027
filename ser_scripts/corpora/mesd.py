"""MESD: eleven Mexican women, men and children say single words in six emotions.

Layout: the folder `Mexican Emotional Speech Database (MESD)` with all clips (at any depth). `Anger_F_B_furia` is the
emotion, the voice (F woman, M man, C child), the word list (A: words said in every emotion, B: words chosen for one
emotion), and the word, which may itself hold an underscore (`de_nada`). The label is the emotion that the speaker, no
professional actor, was asked to play.
Three women, two men and six children spoke; the names do not say who, so speakers are unknown, and the gender of the
children too. As the paper tells, of each voice and emotion the speaker was kept whose recordings a classifier told
apart best.
The paper states 864 clips (48 of each voice and emotion), the release holds 862: 143 of anger and of neutral.
Noise-reduced copies, in a folder whose name says "reduced", are passed over.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Literal

from ser_scripts.corpora import ClipRow
from ser_scripts.corpora._files import find_clips, match_names, refuse_copies

NAME = "mesd"
TITLE = "MESD, Mexican Emotional Speech Database"
LANGUAGE = "es"
LICENCE = "CC BY 4.0"
CITATION = (
    "M. M. Duville, L. M. Alonso-Valerdi, D. I. Ibarra-Zarate: Mexican Emotional Speech Database Based on Semantic, "
    "Frequency, Familiarity, Concreteness, and Cultural Shaping of Affective Prosody. Data 6(12), 130, 2021. "
    "doi:10.3390/data6120130"
)
SOURCE = "https://data.mendeley.com/datasets/cy34mh68j9 (version 5)"
LABELS = {
    "Anger": "angry",
    "Disgust": "disgusted",
    "Fear": "fearful",
    "Happiness": "happy",
    "Neutral": "neutral",
    "Sadness": "sad",
}
EXPECTED_CLIPS = 862
EXPECTED_SPEAKERS = 11
SPEAKERS_KNOWN = False
LAYOUT: Literal["confirmed", "unverified"] = "confirmed"
FILE_NAMES = r"(Anger|Disgust|Fear|Happiness|Neutral|Sadness)_([FMC])_[AB]_([^/]+)"

_GENDERS = {"F": "female", "M": "male", "C": "unknown"}


def read(root: Path) -> list[ClipRow]:
    """Rows of the clips under `root`."""
    clips = {key: path for key, path in find_clips(root, by_path=True).items() if not _noise_reduced(path)}
    matches = match_names(root, clips, FILE_NAMES, title=TITLE, rule="names like Anger_F_B_furia")
    refuse_copies(root, clips, {key: PurePosixPath(key).name for key in clips})
    return [_row(clips[key], *match.groups()) for key, match in matches.items()]


def expected_stems(root: Path) -> None:
    """Not known: which words of list B were said in which emotion stands in the file names only."""
    return None


def _noise_reduced(path: str) -> bool:
    return any("reduced" in folder.lower() for folder in PurePosixPath(path).parts[:-1])


def _row(path: str, emotion: str, voice: str, word: str) -> ClipRow:
    return ClipRow(path=path, class_id=LABELS[emotion], actor="", gender=_GENDERS[voice], sentence=word)
